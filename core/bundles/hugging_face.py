"""Models of transformers as bundles of a kind of their own: a folder of one in, a bundle out, and the model in memory.

A bundle has the model's files as they came, a card, and what it made of a phantom when it was imported. It is opened by
the same functions as the folder was, so what was refused then is refused later too.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.bundles.card import HUGGING_FACE, INTENDED_USE, Card, card_of
from core.bundles.hugging_face_folder import WEIGHTS, Folder, HuggingFaceError, read_folder
from core.bundles.library import BundleLibrary, compute_expected, write_bundle
from core.bundles.names import check_name
from core.devices import Precision
from core.gate.gate import Unchecked
from core.packages import module
from core.text import SPECIAL_TOKENS, START
from core.types import CXRLensError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from core.bundles.pair import ReportModel
    from core.decoders import Decoder

_MOST_PIECES = 256
"""Longest report where a model says nothing, in pieces of words; ours."""
_SAME = 1e-3
"""Largest difference between a piece read alone and with all before it, share of the largest logit; ours."""
_NOT_CHECKED = (
    "It was not checked whether this image is like those that this model learned from: the model comes from elsewhere, "
    "and nothing is known of its training films."
)


def import_folder(
    path: Path,
    name: str,
    bundles: Path,
    *,
    title: str = "",
    trained_on: str = "",
    licence: str = "",
    taken: Collection[str] = (),
    replace: bool = False,
) -> tuple[Card, list[str]]:
    """Make a bundle of a folder that transformers wrote.

    Args:
        path: of the folder.
        name: of the bundle, and of its family.
        bundles: folder of bundles.
        title: for a reader; the name unless given.
        trained_on: what it learned from, for a reader.
        licence: of its weights.
        taken: further names that mean something else.
        replace: a model that was imported under this name.

    Returns:
        The bundle's card, and what is not as it is in transformers, in sentences.

    Raises:
        BundleError: the name is none or is taken.
        HuggingFaceError: the folder is refused, or its files do not fit each other.
        DiskError: the bundle cannot be written.
    """
    import torch

    from core.decoders.search import GenerateConfig

    check_name(name, bundles, taken=taken, replace=replace)
    folder = read_folder(path)
    write, told = folder.writing()
    content = _content(folder, name, title or name, trained_on, licence, write)
    GenerateConfig(**content["write"])  # it refuses what cannot be done
    model = open_model(path, card_of({**content, "sha256": {}}, path), torch.device("cpu"), "fp32")
    content["write"]["max_words"] = _longest_report(folder, model.decoder)
    _check_model(path, model)
    expected = compute_expected(model, _phantom(folder.preparation.side))
    with _one_file(folder.weights) as weights:
        write_bundle(bundles / name, content, {"expected.safetensors": expected}, {}, [weights, *folder.files()])
    return BundleLibrary(bundles).card(name), [*filter(None, [folder.preparation.note]), *told]


def open_model(path: Path, card: Card, device: torch.device, precision: Precision) -> ReportModel:
    """A folder's model, ready to write.

    Args:
        path: of the folder, or of the bundle made of it.
        card: of the bundle.
        device: where it computes.
        precision: in which it writes.

    Raises:
        HuggingFaceError: as of `import_folder`.
    """
    from torch import nn

    from core.bundles.pair import ReportModel
    from core.decoders.hugging_face import HuggingFaceDecoder
    from core.encoders.base import Normalize
    from core.encoders.hugging_face import HuggingFaceEncoder
    from core.pieces import PieceVocabulary, numbering

    folder = read_folder(path)
    whole, tokenizer = _read_model(folder), _read_tokenizer(folder)
    size, tokens = whole.decoder.config.vocab_size, len(tokenizer)
    if tokens > size:
        raise HuggingFaceError(f"{path}: the tokenizer has {tokens:,} tokens, but the decoder writes only {size:,}.")
    numbers = numbering(
        size,
        start=_token(folder, size, "decoder_start_token_id", "bos_token_id", tokenizer.cls_token_id),
        end=_token(folder, size, "eos_token_id", "eos_token_id", tokenizer.sep_token_id),
        pad=_there(folder.number("pad_token_id"), size),
        unknown=_there(tokenizer.unk_token_id, size),
    )
    prepared, encoder_config = folder.preparation, whole.encoder.config
    encoder = HuggingFaceEncoder(
        Normalize(prepared.side, prepared.mean, prepared.std),
        whole.encoder,
        str(encoder_config.model_type),
        int(getattr(encoder_config, "num_channels", 3)),
    )
    longest = getattr(whole.decoder.config, "max_position_embeddings", None) or _MOST_PIECES
    project = getattr(whole, "enc_to_dec_proj", nn.Identity())
    decoder = HuggingFaceDecoder(whole.decoder, project, numbers, int(longest) - _offset(whole.decoder))
    return ReportModel(
        card,
        encoder.freeze().to(device),
        decoder.requires_grad_(False).eval().to(device),
        PieceVocabulary.of(tokenizer, numbers),
        precision,
        Unchecked(_NOT_CHECKED),
    )


def _content(
    folder: Folder, name: str, title: str, trained_on: str, licence: str, write: Mapping[str, Any]
) -> dict[str, Any]:
    """The card, as far as the files tell it."""
    from core.decoders.search import GenerateConfig

    types = {part: str(folder.config[part].get("model_type", "unknown")) for part in ("encoder", "decoder")}
    origin = f"A Hugging Face model ({types['encoder']}, {types['decoder']}) from elsewhere"
    side = folder.preparation.side
    trained_on = trained_on.rstrip(".")
    learned = f"It learned from {trained_on}." if trained_on else "Its data are unknown."
    return {
        "name": name,
        "kind": HUGGING_FACE,
        "title": title,
        "family": name,
        "size": "paper",
        "created": date.today().isoformat(),
        "intended_use": INTENDED_USE,
        "licence": licence or "not recorded: see where the model comes from",
        "data": {
            "name": trained_on or "not recorded",
            "description": f"{origin}. {learned}",
            "studies": {},
        },
        "encoder": {"name": types["encoder"], "changes": {}, "shared": {}},
        "decoder": {"name": types["decoder"], "changes": {}},
        "inputs": {"image": [1, side, side], "range": [0, 1], "normalization": "in the encoder"},
        "metrics": {},
        "write": {**asdict(GenerateConfig()), "short_sentences": [], "removed_words": True, **write},
        "fit": asdict(folder.preparation.fit),
        "fit_note": folder.preparation.note,
    }


def _longest_report(folder: Folder, decoder: Decoder) -> int:
    """Pieces of the longest report: as the model's own settings say, and no more than it can read."""
    asked = folder.number("max_new_tokens") or (folder.number("max_length") or _MOST_PIECES + 1) - 1
    return max(1, min(asked, decoder.longest - 1))


def _token(folder: Folder, size: int, name: str, other: str, last: int | None) -> int:
    """A token's id: as the model's settings say, else the tokenizer's.

    Raises:
        HuggingFaceError: nothing says it, or the decoder has no such token.
    """
    found = folder.number(name)
    found = folder.number(other) if found is None else found
    found = last if found is None else found
    if found is None or not 0 <= found < size:
        what = "is not said" if found is None else f"is {found}, but the decoder has {size:,} tokens"
        raise HuggingFaceError(
            f"{folder.path}: {name} {what}. Set it in model.generation_config and save the model again."
        )
    return found


def _there(token: int | None, size: int) -> int | None:
    """A token's id, where the decoder has it."""
    return token if token is not None and 0 <= token < size else None


def _offset(decoder: Any) -> int:
    """Positions that a decoder keeps for itself before the first token (RoBERTa: those up to its padding's)."""
    positions = [module for name, module in decoder.named_modules() if name.endswith("position_embeddings")]
    padding = getattr(positions[0], "padding_idx", None) if positions else None
    return 0 if padding is None else int(padding) + 1


def _read_model(folder: Folder) -> Any:
    """The model with its weights, which must be all there and fit.

    Raises:
        HuggingFaceError: they do not, or transformers has no such model.
    """
    with _transformers() as transformers, _told(folder.path, "the model cannot be opened by transformers"):
        model, found = transformers.VisionEncoderDecoderModel.from_pretrained(
            folder.path,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            attn_implementation={"decoder": "eager"},  # no other one gives its weights
            dtype="float32",
        )
    if lacking := sorted(found["missing_keys"]):
        raise HuggingFaceError(
            f"{folder.path}: the weights do not fit config.json: {len(lacking)} are missing, as {lacking[0]}. Save the "
            "whole model again."
        )
    if more := sorted(found["unexpected_keys"]):
        raise HuggingFaceError(
            f"{folder.path}: the weights do not fit config.json: it has no place for {len(more)}, as {more[0]}. Save "
            "the whole model again."
        )
    if model.encoder.main_input_name != "pixel_values":
        raise HuggingFaceError(
            f"{folder.path}: its encoder ({model.config.encoder.model_type}) reads {model.encoder.main_input_name}, no "
            "images (pixel_values)."
        )
    return model


def _read_tokenizer(folder: Folder) -> Any:
    with _transformers() as transformers, _told(folder.path, "the tokenizer cannot be opened by transformers"):
        part = dict(folder.config["decoder"])
        config = transformers.AutoConfig.for_model(part.pop("model_type"), **part)
        return transformers.AutoTokenizer.from_pretrained(
            folder.path, config=config, trust_remote_code=False, local_files_only=True
        )


@contextmanager
def _transformers() -> Iterator[Any]:
    """The library, which says nothing of what it does meanwhile.

    Raises:
        HuggingFaceError: it is not installed.
    """
    try:
        transformers = module("transformers")
    except ImportError as error:
        raise HuggingFaceError(
            "Hugging Face models need the package transformers. Install it: pip install 'cxr-lens[hf]'."
        ) from error
    logging = transformers.utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


@contextmanager
def _told(path: Path, what: str) -> Iterator[None]:
    """Say in a sentence what transformers says in its own ways.

    Raises:
        HuggingFaceError: where it raises anything.
    """
    try:
        yield
    except CXRLensError:
        raise
    except Exception as error:  # it, its tokenizers and safetensors raise whatever they like
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        why = "the weights do not fit config.json" if "mismatched" in detail else detail
        raise HuggingFaceError(f"{path}: {what}: {why}.") from error


def _check_model(path: Path, model: ReportModel) -> None:
    """See that it does what every pair must: give numbers, read piece by piece, and say where it looks.

    Raises:
        HuggingFaceError: it does not.
    """
    import torch

    decoder, side, pieces = model.decoder, model.image_size, model.vocabulary.encode("1 2 3 4 5 6 7 8", 10)[1:-1]
    images = torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(), _told(path, "its encoder or decoder cannot be used by CXR Lens"):
        visual = model.encoder(images)
        memory = decoder.encode(visual)
        first = [START, *pieces[: min(4, decoder.longest) - 1]]
        ids = torch.tensor([first, [START, *reversed(first[1:])]])
        whole = decoder.decode(memory, ids, return_attention=True)
        state, alone = decoder.start(memory), []
        for place in range(len(first)):
            logits, state = decoder.step(ids[:, place], state)
            alone.append(logits)
    if not torch.isfinite(whole.logits).all():
        raise HuggingFaceError(f"{path}: the model gives NaN or infinity: its weights are damaged. Fetch them again.")
    if whole.attention is None or whole.attention.shape[-1] != visual.tokens.shape[1]:
        raise HuggingFaceError(f"{path}: its decoder does not look at the encoder's tokens.")
    largest = whole.logits[..., len(SPECIAL_TOKENS) :].abs().max()
    difference = float((torch.stack(alone, 1) - whole.logits).abs().max() / largest)
    if not difference < _SAME:
        raise HuggingFaceError(
            f"{path}: its decoder does not give the same piece by piece as at once (difference {difference:.2g}), so "
            "it cannot write with the search of CXR Lens."
        )


@contextmanager
def _one_file(weights: tuple[Path, ...]) -> Iterator[Path]:
    """All weights in one file."""
    from safetensors.torch import load_file, save_file

    if [each.name for each in weights] == [WEIGHTS]:
        yield weights[0]
        return
    with tempfile.TemporaryDirectory(prefix="cxr-lens-") as folder:
        tensors = {key: value for each in weights for key, value in load_file(each).items()}
        save_file(tensors, Path(folder, WEIGHTS), {"format": "pt"})
        yield Path(folder, WEIGHTS)


def _phantom(side: int) -> Tensor:
    """A phantom (side, side) in 256 grey levels: what every bundle is tried on."""
    import torch

    from core.studies.model_image import grey_levels
    from core.studies.phantom import PhantomSource

    source = PhantomSource(2, 0)
    return torch.from_numpy(grey_levels(source.image(source.study_ids[0], side)))
