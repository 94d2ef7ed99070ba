"""A folder of a `VisionEncoderDecoderModel` as transformers writes it in, what it says out; or why it is refused.

Nothing of it is run, and no pickle is read: JSON files and the headers of safetensors only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.types import CXRLensError, Fit

CONFIG, PREPROCESSOR, GENERATION = "config.json", "preprocessor_config.json", "generation_config.json"
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("vocab.txt",))
"""Files of which one set makes a tokenizer without a further library."""
_TOKENIZER_FILES = (
    *(file for files in TOKENIZERS for file in files),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
)
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.h5", "*.msgpack")
_BILINEAR = 2  # src: PIL.Image.Resampling
_RESAMPLING = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}
_OTHER_WRITING = {
    "do_sample": False,
    "repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "bad_words_ids": None,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
}
"""Settings of `generate` that change what is written and that our search does not know: their neutral values."""


class HuggingFaceError(CXRLensError):
    """A folder that cannot be imported; the message says what is wrong with it, and what to do."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """How a model's images are made of grey levels in [0, 1].

    Attributes:
        side: of the square that it reads, pixels.
        mean: of each channel, subtracted.
        std: of each channel, by which it is divided then.
        fit: how an image becomes the square.
        note: what is not the same here, in a sentence; "" where all is.
    """

    side: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: Fit
    note: str


@dataclass(frozen=True, slots=True)
class Folder:
    """What the files of a folder say, read and checked.

    Attributes:
        path: of the folder.
        config: config.json.
        generation: generation_config.json; empty where there is none.
        preparation: of images.
        weights: files of the weights, one or several.
    """

    path: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    preparation: Preparation
    weights: tuple[Path, ...]

    def files(self) -> Iterator[Path]:
        """All that belongs to the model beside its weights."""
        names = (CONFIG, GENERATION, PREPROCESSOR, *_TOKENIZER_FILES)
        yield from (path for name in names if (path := self.path / name).is_file())

    def number(self, name: str) -> int | None:
        """A token's id, or another setting of writing, from where `generate` takes it; None where nothing says it.

        Raises:
            HuggingFaceError: there are several, or it is no whole number.
        """
        for where in (self.generation, self.config, self.config["decoder"]):
            found = where.get(name)
            if isinstance(found, list) and len(found) == 1:
                found = found[0]
            if found is None:
                continue
            if not isinstance(found, int) or isinstance(found, bool):
                raise HuggingFaceError(f"{self.path}: '{name}' must be one whole number, not {str(found)[:60]}.")
            return found
        return None

    def writing(self) -> tuple[dict[str, Any], list[str]]:
        """How it writes, as a card says it, without the longest length; and what `generate` would do beside."""
        beams = self.number("num_beams") or 1
        penalty = self._said("length_penalty")
        if not _is_number(penalty := 1.0 if penalty is None else penalty):
            raise HuggingFaceError(f"{self.path}: 'length_penalty' must be a number, not {str(penalty)[:60]}.")
        write = {"beam_size": beams, "length_penalty": float(penalty)}
        told = []
        for name, neutral in _OTHER_WRITING.items():
            value = self._said(name)
            if value is not None and value != neutral:
                told.append(
                    f"The model asks for {name} = {str(value)[:60]}, which the search of CXR Lens does "
                    "not know: reports may differ from those of generate()."
                )
        if beams > 1 and self._said("early_stopping") is not True:
            told.append(
                "With several beams CXR Lens ends as generate() does with early_stopping=True, which this model does "
                "not ask for: reports may differ from those of generate()."
            )
        return write, told

    def _said(self, name: str) -> Any:
        """A setting of `generate`; older releases wrote them into config.json. None where nothing says it."""
        return next((where[name] for where in (self.generation, self.config) if where.get(name) is not None), None)


def read_folder(path: Path) -> Folder:
    """Read what a folder says of its model.

    Raises:
        HuggingFaceError: it is no such folder, or one that CXR Lens does not read; the message says why.
    """
    if not path.is_dir():
        raise HuggingFaceError(
            f"There is no folder {path}. Name the folder into which save_pretrained() wrote a model."
        )
    config = _config(path)
    for name in (PREPROCESSOR, "tokenizer_config.json"):
        _refuse_code(path, name, _read(path, name) or {})
    if not any(all((path / file).is_file() for file in files) for files in TOKENIZERS):
        raise HuggingFaceError(
            f"{path} has no tokenizer ({', or '.join(' with '.join(files) for files in TOKENIZERS)}). Save it there: "
            "tokenizer.save_pretrained(FOLDER)."
        )
    weights = _weights(path)
    return Folder(path, config, _read(path, GENERATION) or {}, _preparation(path, config), weights)


def _config(path: Path) -> Mapping[str, Any]:
    config = _read(path, CONFIG)
    if config is None:
        raise HuggingFaceError(
            f"{path} has no {CONFIG}, so it is no folder of a model. Name the one into which save_pretrained() wrote."
        )
    parts = [config.get(part) for part in ("encoder", "decoder")]
    for each in (config, *(part for part in parts if isinstance(part, dict))):
        _refuse_code(path, CONFIG, each)
    if config.get("model_type") != "vision-encoder-decoder" or not all(isinstance(part, dict) for part in parts):
        raise HuggingFaceError(
            f"{path} has a model of the type '{str(config.get('model_type'))[:60]}'. Only VisionEncoderDecoderModel "
            "(vision-encoder-decoder) can be imported."
        )
    if not config["decoder"].get("add_cross_attention"):
        raise HuggingFaceError(
            f"{path}: its decoder does not look at the image (add_cross_attention is not set in {CONFIG})."
        )
    return config


def _refuse_code(path: Path, name: str, content: Mapping[str, Any]) -> None:
    if content.get("auto_map"):
        raise HuggingFaceError(
            f"{path / name} asks for Python code of its own (auto_map), which CXR Lens never runs. Only models of "
            "classes that transformers itself has can be imported."
        )


def _weights(path: Path) -> tuple[Path, ...]:
    if (path / WEIGHTS).is_file():
        return (path / WEIGHTS,)
    index = _read(path, INDEX)
    if index is not None:
        named = index.get("weight_map")
        names = sorted(set(map(str, named.values()))) if isinstance(named, dict) else []
        files = tuple(path / name for name in names)
        if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
            raise HuggingFaceError(f"{path / INDEX} names no files of weights beside it. Save the model again.")
        if missing := [file.name for file in files if not file.is_file()]:
            raise HuggingFaceError(f"{path} lacks {', '.join(missing)}, which {INDEX} names. Fetch all of the model.")
        return files
    if pickles := sorted(file.name for kind in _PICKLES for file in path.glob(kind)):
        raise HuggingFaceError(
            f"{path} has its weights as {', '.join(pickles[:3])} only. Such files can run code when they are read, so "
            "CXR Lens reads safetensors only. Convert it where you trust it: "
            "VisionEncoderDecoderModel.from_pretrained(FOLDER).save_pretrained(FOLDER)."
        )
    raise HuggingFaceError(f"{path} has no weights ({WEIGHTS}, or {INDEX} with its parts). Fetch all of the model.")


def _read(path: Path, name: str) -> dict[str, Any] | None:
    """A JSON object of the folder; None where there is no such file."""
    try:
        content = json.loads((path / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise HuggingFaceError(f"{path / name} cannot be read as JSON ({error}). Fetch it again.") from error
    if not isinstance(content, dict):
        raise HuggingFaceError(f"{path / name} is no JSON object. Fetch it again.")
    return content


# -------------------------------------------------------------------------------------------------- how images are made


def _preparation(path: Path, config: Mapping[str, Any]) -> Preparation:
    content = _read(path, PREPROCESSOR)
    if content is None:
        raise HuggingFaceError(
            f"{path} has no {PREPROCESSOR}, which says how its images are made. Save it there: "
            "image_processor.save_pretrained(FOLDER)."
        )

    def refuse(what: str) -> HuggingFaceError:
        return HuggingFaceError(f"{path / PREPROCESSOR}: {what}. CXR Lens would have to show the model other images.")

    side = _side(content.get("size"))
    crop = _side(content.get("crop_size"))
    if not content.get("do_resize", True) or side is None:
        raise refuse(f"images are not made a square of one size (size: {str(content.get('size'))[:60]})")
    if content.get("do_center_crop") and crop != side:
        raise refuse("the borders of images are cut off (do_center_crop)")
    known = {"do_resize", "do_rescale", "do_normalize", "do_convert_rgb", "do_center_crop", "do_convert_grayscale"}
    if others := sorted(name for name, on in content.items() if name.startswith("do_") and on and name not in known):
        raise refuse(f"images are changed in a way that is not known here ({', '.join(others)})")
    if content.get("rescale_offset") or content.get("offset"):
        raise refuse("grey levels are shifted (offset)")
    own = config["encoder"].get("image_size")
    if isinstance(own, int | list) and own not in (side, [side, side]):
        raise refuse(f"images are made {side} pixels wide, but the encoder of {CONFIG} reads {own}")
    channels = config["encoder"].get("num_channels", 3)
    if channels not in (1, 3):
        raise refuse(f"the encoder reads {channels} channels, and a radiograph has one, or the same one three times")
    mean, std = _channels(content, "image_mean", 0.0, refuse), _channels(content, "image_std", 1.0, refuse)
    if not all(each > 0 for each in std):
        raise refuse("image_std is not above 0")
    factor = content.get("rescale_factor", 1 / 255) if content.get("do_rescale", True) else 1
    if not _is_number(factor) or factor <= 0:
        raise refuse("rescale_factor is not above 0")
    white = 255 * float(factor)
    filtered = content.get("resample", _BILINEAR)
    note = "" if filtered == _BILINEAR else _other_filter(filtered)
    scaled = [tuple(each / white for each in values) for values in (mean, std)]
    return Preparation(side, scaled[0], scaled[1], Fit("stretch"), note)


def _side(size: Any) -> int | None:
    """The side of a square; None of what is none."""
    if isinstance(size, dict) and set(size) == {"height", "width"} and size["height"] == size["width"]:
        size = size["height"]
    return size if isinstance(size, int) and not isinstance(size, bool) and size > 0 else None


def _channels(content: Mapping[str, Any], name: str, neutral: float, refuse: Any) -> tuple[float, float, float]:
    """Three numbers of the normalisation, or one thrice."""
    value = content.get(name, neutral) if content.get("do_normalize", True) else neutral
    values = value if isinstance(value, list) else [value]
    if len(values) not in (1, 3) or not all(map(_is_number, values)):
        raise refuse(f"{name} must be one number or three")
    first, second, third = map(float, values if len(values) == 3 else values * 3)
    return first, second, third


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _other_filter(resample: Any) -> str:
    name = _RESAMPLING.get(resample if isinstance(resample, int) else -1, str(resample)[:20])
    return (
        f"Images are stretched to a square with a triangle filter (bilinear), but the model asks for {name}: grey "
        "levels differ a little, and reports may."
    )
