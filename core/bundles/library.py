"""Model bundles: folders of safetensors and a card, checked when read, never pickled.

```
bundles/
  <family>-<encoder>-<decoder>/   card.json  vocab.json  model.safetensors  expected.safetensors
  shared/<family>-<encoder>/      card.json  model.safetensors        an encoder that several pairs share
  <family>-results.json, -reports.jsonl, -labels.npz                   the evaluation of a family
  <family>-embeddings-<encoder>.safetensors                           of held-out studies, for the maps
```

``model.safetensors`` holds the decoder, and of the encoder what belongs to this pair only: all of DVE, and what joins
several encoders.
``expected.safetensors`` holds one image, always a phantom, and what the pair made of it when it was written.
Weights are rounded to 8 bits, each row of a matrix with a scale of its own, and computed with in 32 bits.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.paths import BUNDLES, how_to_restore
from core.types import CXRLensError

if TYPE_CHECKING:
    from torch import Tensor

    from core.bundles.pair import ReportModel
    from core.encoders import Encoder

SCHEMA = 3
INTENDED_USE = "Research only. Not a medical device. Not for use in diagnostic procedures."
EXPECTED_WORDS = 24
"""Words of the stored report whose logits are stored too."""
TOLERANCE = 2e-3
"""Largest difference of a logit between machines that still counts as the same."""
SCALE = ".scale"
"""After the name of a rounded matrix: what each of its rows is multiplied by."""


class BundleError(CXRLensError):
    """A bundle is missing, incomplete, edited, or of another version; the message names it and the file."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a bundle says of itself; reading it loads no weights.

    Attributes:
        name: of the bundle and of its folder.
        family: what it was trained on, "phantom" or "openi".
        size: "paper", "small" or "tiny".
        encoder: key in the registry.
        decoder: key in the registry.
        data: name, description, fingerprint and numbers of the training studies.
        metrics: on held-out studies, with the command that computes them.
        write: how its reports were written when it was scored.
        intended_use: what it is for, and not for.
        licence: of the weights.
        created: ISO date.
        content: the whole of card.json.
    """

    name: str
    family: str
    size: str
    encoder: str
    decoder: str
    data: Mapping[str, Any]
    metrics: Mapping[str, Any]
    write: Mapping[str, Any]
    intended_use: str
    licence: str
    created: str
    content: Mapping[str, Any]

    @property
    def trained_with(self) -> Mapping[str, Any]:
        """Settings of its training data, as of `core.config.DataConfig`; empty where the card does not tell them."""
        config: Mapping[str, Any] = self.content.get("config", {})
        settings: Mapping[str, Any] = config.get("data", {})
        return settings


def read_card(folder: Path) -> Card:
    """Read and check a bundle's card.

    Raises:
        BundleError: no card, not JSON, another schema, a missing field.
    """
    content = _read_json(folder / "card.json")
    try:
        return Card(
            name=content["name"],
            family=content["family"],
            size=content["size"],
            encoder=content["encoder"]["name"],
            decoder=content["decoder"]["name"],
            data=content["data"],
            metrics=content["metrics"],
            write=content["write"],
            intended_use=content["intended_use"],
            licence=content["licence"],
            created=content["created"],
            content=content,
        )
    except (KeyError, TypeError) as error:
        raise BundleError(f"Bundle {folder.name}: card.json has no field {error}. {how_to_restore(folder)}") from error


def no_bundle(folder: Path) -> BundleError:
    """What to say where a folder has no bundle at all."""
    if folder.resolve() == BUNDLES:
        return BundleError(f"There is no bundle in {folder}. {how_to_restore(folder)}")
    return BundleError(
        f"There is no bundle in {folder}. Name a folder of bundles (--bundles, CXR_BUNDLES), or train some: "
        "cxr-lens train --preset phantom."
    )


def check_files(folder: Path) -> None:
    """Compare every file of a bundle with the hash on its card.

    Raises:
        BundleError: a file is missing or differs.
    """
    for file, expected in _read_json(folder / "card.json")["sha256"].items():
        path = folder / file
        if not path.is_file():
            raise BundleError(f"Bundle {folder.name}: {file} is missing. {how_to_restore(path)}")
        if _sha256(path) != expected:
            raise BundleError(
                f"Bundle {folder.name}: {file} differs from the hash on its card; it was edited or cut short. "
                f"{how_to_restore(path)}"
            )


class BundleLibrary:
    """The bundles of a folder. Encoders are loaded once and shared; loading is safe from several threads."""

    def __init__(self, folder: Path) -> None:
        """Look into ``folder``; nothing is read yet."""
        self.folder = folder
        self._models: dict[str, ReportModel] = {}
        self._encoders: dict[Path, Encoder] = {}
        self._lock = threading.RLock()

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return sorted(each for each in self.folder.iterdir() if each.is_dir() and each.name != "shared")

    def cards(self) -> list[Card]:
        """Cards of all readable bundles, sorted by name."""
        cards = []
        for folder in self._folders():
            try:
                cards.append(read_card(folder))
            except BundleError:
                continue  # ``problems`` says why
        return cards

    def problems(self) -> dict[str, str]:
        """What is wrong with each unreadable or incomplete bundle, by name; weights are not read."""
        found = {}
        for folder in self._folders():
            try:
                shared = read_card(folder).content["encoder"]["shared"]
                for part in (folder, *(self.folder / "shared" / name for name in shared)):
                    for file in _read_json(part / "card.json")["sha256"]:
                        if not (part / file).is_file():
                            raise BundleError(
                                f"Bundle {folder.name}: {part.name}/{file} is missing. {how_to_restore(part / file)}"
                            )
            except BundleError as error:
                found[folder.name] = str(error)
        return found

    def load(self, name: str) -> ReportModel:
        """Load a pair, strictly: hashes, keys and shapes must agree.

        Raises:
            BundleError: there is no such bundle, or it is damaged.
        """
        with self._lock:
            if name not in self._models:
                self._models[name] = self._load(name)
            return self._models[name]

    def classes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Names of the classes of an encoder's two classifiers, "cdc" and "fgc", in their order; empty without them.

        Raises:
            BundleError: there is no such bundle, or a card is damaged.
        """
        for shared in read_card(self.folder / name).content["encoder"]["shared"]:
            encoder = _read_json(self.folder / "shared" / shared / "card.json")["encoder"]
            if "coarse_labels" in encoder:
                return {"cdc": tuple(encoder["coarse_labels"]), "fgc": tuple(encoder["fine_labels"])}
        return {}

    def _load(self, name: str) -> ReportModel:
        from core.bundles.pair import ReportModel
        from core.decoders import build_decoder
        from core.registry import token_width
        from core.text import Vocabulary

        folder = self.folder / name
        if not (folder / "card.json").is_file():
            if not (known := [each.name for each in self._folders()]):
                raise no_bundle(self.folder)
            raise BundleError(f"There is no bundle '{name}' in {self.folder}. Found: {', '.join(known)}.")
        check_files(folder)
        card = read_card(folder)
        vocabulary = Vocabulary.load(folder / "vocab.json")
        weights = _read_tensors(folder / "model.safetensors")
        encoder = self._encoder(card, weights, vocabulary)
        decoder = build_decoder(
            card.decoder,
            card.size,  # type: ignore[arg-type]
            token_width=token_width(card.encoder, card.size),  # type: ignore[arg-type]
            vocabulary_size=len(vocabulary),
            **card.content["decoder"]["changes"],
        )
        _fill(decoder, weights, "decoder.", folder)
        return ReportModel(card, encoder, decoder.requires_grad_(False).eval(), vocabulary)

    def _encoder(self, card: Card, weights: Mapping[str, Tensor], vocabulary: Any) -> Encoder:
        """The pair's own encoder, a shared one, or several shared ones that the pair joins."""
        from core.encoders.joint import JointEncoder, JointProjection
        from core.registry import ENCODERS, encoder_parts, token_width

        config, folder, size = card.content["encoder"], self.folder / card.name, card.size
        if not config["shared"]:
            encoder = _build(config, size, vocabulary)
            _fill(encoder, weights, "encoder.", folder)
            return encoder.freeze()
        encoders = [
            self._shared_encoder(self.folder / "shared" / name, sha256, vocabulary)
            for name, sha256 in config["shared"].items()
        ]
        if len(encoders) == 1:
            return encoders[0]
        widths = [ENCODERS[part].sizes[size].width for part in encoder_parts(card.encoder)]  # type: ignore[index]
        join = JointProjection(widths, token_width(card.encoder, size))  # type: ignore[arg-type]
        _fill(join, weights, "encoder.", folder)
        return JointEncoder(encoders, join).freeze()

    def _shared_encoder(self, folder: Path, sha256: str, vocabulary: Any) -> Encoder:
        if folder not in self._encoders:
            check_files(folder)
            content = _read_json(folder / "card.json")
            if content["sha256"]["model.safetensors"] != sha256:
                raise BundleError(f"Encoder {folder.name} is not the one these bundles were trained with.")
            encoder = _build(content["encoder"], content["size"], vocabulary)
            _fill(encoder, _read_tensors(folder / "model.safetensors"), "encoder.", folder)
            self._encoders[folder] = encoder.freeze()
        return self._encoders[folder]

    def verify(self, name: str) -> float:
        """Recompute a bundle's stored output.

        Returns:
            The largest difference of a logit.

        Raises:
            BundleError: it is damaged, or its output differs.
        """
        import torch

        model = self.load(name)
        expected = _read_tensors(self.folder / name / "expected.safetensors")
        found = compute_expected(model, expected["image"])
        difference = (
            float((found["logits"] - expected["logits"]).abs().max())
            if found["logits"].shape == expected["logits"].shape
            else float("inf")
        )
        if not torch.equal(found["ids"], expected["ids"]) or difference > TOLERANCE:
            raise BundleError(
                f"Bundle {name} gives another output than when it was written (largest difference {difference:.2g}). "
                "A library changed its behaviour, or the weights are damaged."
            )
        return difference


def compute_expected(model: ReportModel, image: Tensor) -> dict[str, Tensor]:
    """What a pair makes of an image (H, H) uint8: greedy "ids" (T,) and the "logits" of the first words."""
    import torch

    from core.decoders.search import GenerateConfig, generate
    from core.text import START

    with torch.inference_mode():
        visual = model.encoder(image[None, None].float() / 255)
        memory = model.decoder.encode(visual)
        (hypothesis,) = generate(model.decoder, memory, GenerateConfig(beam_size=1, max_words=100))
        ids = torch.tensor([START, *hypothesis.ids])
        logits = model.decoder.decode(memory, ids[None, :EXPECTED_WORDS]).logits[0]
    return {"image": image, "ids": ids, "logits": logits}


def write_bundle(
    folder: Path, card: Mapping[str, Any], tensors: Mapping[str, Mapping[str, Tensor]], texts: Mapping[str, str]
) -> None:
    """Write a bundle in one piece: into a new folder beside it, then renamed.

    Args:
        folder: where; an older bundle of that name is replaced.
        card: without "schema" and "sha256".
        tensors: file name -> name -> tensor; written as given, see `rounded`.
        texts: file name -> content.
    """
    import shutil

    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = folder.with_name(folder.name + ".part")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir()
    for name, values in tensors.items():
        save_file({key: value.contiguous() for key, value in values.items()}, fresh / name)
    for name, text in texts.items():
        (fresh / name).write_text(text, encoding="utf-8")
    hashes = {path.name: _sha256(path) for path in sorted(fresh.iterdir())}
    content = {"schema": SCHEMA, **card, "sha256": hashes}
    (fresh / "card.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    fresh.rename(folder)


def rounded(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """A module's state as bundles keep it: matrices in 8 bits with a scale a row, vectors in 16; keys get a prefix."""
    import torch

    found: dict[str, Tensor] = {}
    for key, value in state.items():
        if value.is_floating_point() and value.ndim > 1:
            rows = value.float().flatten(1)
            scale = rows.abs().amax(1).clamp(min=1e-12) / 127
            found[prefix + key] = (rows / scale[:, None]).round().to(torch.int8).view_as(value)
            found[prefix + key + SCALE] = scale
        else:
            found[prefix + key] = value.half() if value.is_floating_point() else value
    return found


def restored(values: Mapping[str, Any], key: str) -> Any:
    """What `rounded` was given under a key, times its scale where it has one; of torch's tensors or numpy's arrays."""
    value = values[key]
    return value * values[key + SCALE].reshape(-1, *[1] * (value.ndim - 1)) if key + SCALE in values else value


def _build(config: Mapping[str, Any], size: str, vocabulary: Any) -> Encoder:
    from core.encoders.base import build_encoder, encoder_class

    changes = dict(config["changes"])
    if encoder_class(config["name"]).reads_words:
        changes["vocabulary"] = vocabulary
    return build_encoder(config["name"], size, **changes)  # type: ignore[arg-type]


def _fill(module: Any, weights: Mapping[str, Tensor], prefix: str, folder: Path) -> None:
    try:
        own = {
            key.removeprefix(prefix): restored(weights, key)
            for key in weights
            if key.startswith(prefix) and not key.endswith(SCALE)
        }
        module.load_state_dict(own, strict=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise BundleError(f"Bundle {folder.name}: model.safetensors does not fit its card. {detail[:200]}") from error


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(
            f"Bundle {path.parent.name}: {path.name} cannot be read ({error}). {how_to_restore(path)}"
        ) from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"Bundle {path.parent.name}: {path.name} is missing. {how_to_restore(path)}") from error
    except (OSError, ValueError) as error:
        raise BundleError(
            f"Bundle {path.parent.name}: {path.name} is not valid JSON ({error}). {how_to_restore(path)}"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BundleError(
            f"Bundle {path.parent.name} has schema {found}, this version of CXR Lens reads {SCHEMA}. "
            "Update CXR Lens, or train the bundle again."
        )
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
