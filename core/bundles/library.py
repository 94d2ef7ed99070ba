"""Model bundles: folders of safetensors and a card, checked when read, never pickled.

```
bundles/
  <family>-<encoder>-<decoder>/   card.json  vocab.json  model.safetensors  expected.safetensors
  shared/<family>-<encoder>/      card.json  model.safetensors        an encoder that several pairs share
                                  clusters.safetensors                CCVE's: what its filters' tokens are compared with
  <name>/                         card.json  config.json  model.safetensors  ...  a model from elsewhere, a family of
                                  its own, with its files as they came: `hugging_face`
  <family>-results.json, -reports.jsonl, -labels.npz                   the evaluation of a family
  <family>-embeddings-<encoder>.safetensors                           of held-out studies, for the maps
  <family>-gate.safetensors                                           what tells unusual images, see `core.gate`
```

``model.safetensors`` holds the decoder, and of the encoder what belongs to this pair only: all of DVE, and what joins
several encoders.
``expected.safetensors`` holds one image, always a phantom, and what the pair made of it when it was written.
Weights are rounded to 8 bits (`rounding`) and computed with in 32; imported ones (`checkpoints`) are as they came. A
bundle is found by its folder's name, which its card must carry.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.bundles.card import (
    HUGGING_FACE,
    PAIR,
    SCHEMA,
    WEIGHTS,
    BundleError,
    Card,
    check_files,
    encoder_weights,
    hashes_of,
    no_bundle,
    read_card,
    read_content,
)
from core.bundles.rounding import SCALE, all_restored
from core.cache import BoundedCache
from core.devices import BY_TORCH, Precision, check_precision, open_device
from core.files import is_unfinished, remove_forgotten, sha256_of, whole_folder
from core.observations import CLUSTERS
from core.packages import without_compiler
from core.paths import how_to_restore
from core.registry import lookup
from core.types import CXRLensError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from core.bundles.pair import ReportModel
    from core.encoders import Encoder
    from core.encoders.ccve import ClusterTexts
    from core.encoders.engines import Engine

CLUSTER_FILE = "clusters.safetensors"
EXPECTED_WORDS = 24
"""Words of the stored report whose logits are stored too."""
TOLERANCE = 2e-3
"""Largest difference of a logit between machines that still counts as the same."""
_MOST = 64
"""Pairs, and encoders, that a library keeps in memory."""


class BundleLibrary:
    """The bundles of a folder. Encoders are loaded once and shared; loading is safe from several threads."""

    def __init__(self, folder: Path, device: str = "cpu", precision: Precision = "fp32") -> None:
        """Look into ``folder``; nothing is read yet.

        Args:
            folder: of the bundles.
            device: where its pairs compute; see `core.devices.open_device`.
            precision: in which they write; see `core.devices.Precision`.
        """
        self.folder = folder
        self._device, self._precision = device, precision
        self._models: BoundedCache[str, ReportModel] = BoundedCache(_MOST)
        self._encoders: BoundedCache[tuple[Path, str], Encoder] = BoundedCache(_MOST)
        self._engines: BoundedCache[tuple[str, ...], Engine] = BoundedCache(_MOST)

    def _folders(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        try:
            found = [each for each in self.folder.iterdir() if each.is_dir() and not is_unfinished(each)]
        except OSError as error:
            raise BundleError(f"The bundles in {self.folder} cannot be read ({error.strerror}).") from error
        return sorted(each for each in found if each.name != "shared")

    def _folder_of(self, name: str) -> Path:
        if not (folders := self._folders()):
            raise no_bundle(self.folder)
        if name not in (known := [each.name for each in folders]):
            raise BundleError(f"There is no bundle '{name}' in {self.folder}. Found: {', '.join(known)}.")
        return self.folder / name

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
                    hashes_of(part)
            except BundleError as error:
                found[folder.name] = str(error)
        return found

    def card(self, name: str) -> Card:
        """The card of a bundle.

        Raises:
            BundleError: there is no such bundle, or its card is damaged.
        """
        return read_card(self._folder_of(name))

    def load(self, name: str) -> ReportModel:
        """Load a pair, strictly: hashes, keys and shapes must agree.

        Raises:
            BundleError: there is no such bundle, or it is damaged.
            CXRLensError: there is no such device or precision.
        """
        return self._models.get_or_make(name, lambda: self._load(name))

    def classes(self, name: str) -> dict[str, tuple[str, ...]]:
        """Names of the classes of an encoder's two classifiers, "cdc" and "fgc", in their order; empty without them.

        Raises:
            BundleError: there is no such bundle, or a card is damaged.
        """
        for shared in self.card(name).content["encoder"]["shared"]:
            encoder = read_content(self.folder / "shared" / shared)["encoder"]
            if "coarse_labels" in encoder:
                return {"cdc": tuple(encoder["coarse_labels"]), "fgc": tuple(encoder["fine_labels"])}
        return {}

    def cluster_texts(self, name: str) -> ClusterTexts | None:
        """Typical wordings of CCVE's clusters; None for bundles without CCVE, or written before these were kept.

        Raises:
            BundleError: there is no such bundle, or it is damaged.
        """
        from core.encoders.ccve import ClusterTexts

        for shared in self.card(name).content["encoder"]["shared"]:
            folder = self.folder / "shared" / shared
            if CLUSTER_FILE not in read_content(folder)["sha256"]:
                continue
            check_files(folder)
            tensors = _read_tensors(folder / CLUSTER_FILE)
            shapes = {key: (value.ndim, value.shape[0] if value.ndim else 0) for key, value in tensors.items()}
            if shapes != {"texts": (3, len(CLUSTERS)), "usual": (2, len(CLUSTERS))}:
                raise BundleError(f"Bundle {shared}: {CLUSTER_FILE} does not fit CCVE. {how_to_restore(folder)}")
            return ClusterTexts(tensors["texts"], tensors["usual"])
        return None

    def _load(self, name: str) -> ReportModel:
        folder, precision = self._folder_of(name), check_precision(self._precision)
        device = open_device(self._device)
        check_files(folder)
        card = read_card(folder)
        with _fits_its_card(folder):
            model = lookup(_OPENERS, card.kind, "kind of bundle")(self, folder, card, device, precision)
        if precision in BY_TORCH:
            return model
        return replace(model, engine=self._engine(model))

    def _engine(self, model: ReportModel) -> Engine:
        """What runs a pair's encoder; pairs that share an encoder share it."""
        from core.encoders.engines import choose

        weights = encoder_weights(model.card)

        def make() -> Engine:
            return choose(model.encoder, weights, model.precision, model.device)

        return self._engines.get_or_make(tuple(weights), make)

    def _load_pair(self, folder: Path, card: Card, device: torch.device, precision: Precision) -> ReportModel:
        from core.bundles.gates import check_of
        from core.bundles.pair import ReportModel
        from core.decoders import build_decoder
        from core.text import Vocabulary

        vocabulary = Vocabulary.load(folder / "vocab.json")
        weights = _read_tensors(folder / WEIGHTS)
        of_its_own = len(card.content["encoder"]["shared"]) != 1
        _refuse_other_tensors(weights, ("decoder.", "encoder.") if of_its_own else ("decoder.",), folder)
        encoder = self._encoder(card, weights, vocabulary).to(device)
        decoder = _filled(
            lambda: build_decoder(
                card.decoder,
                card.size,  # type: ignore[arg-type]
                token_width=card.token_width,
                vocabulary_size=len(vocabulary),
                **card.content["decoder"].get("changes", {}),
            ),
            weights,
            "decoder.",
            folder,
        )
        decoder = decoder.requires_grad_(False).eval().to(device)
        return ReportModel(card, encoder, decoder, vocabulary, precision, check_of(self.folder, card))

    def _load_hugging_face(self, folder: Path, card: Card, device: torch.device, precision: Precision) -> ReportModel:
        from core.bundles.hugging_face import open_model

        return open_model(folder, card, device, precision)

    def _encoder(self, card: Card, weights: Mapping[str, Tensor], vocabulary: Any) -> Encoder:
        """The pair's own encoder, a shared one, or several shared ones that the pair joins."""
        from core.encoders.joint import JointEncoder, JointProjection
        from core.registry import ENCODERS, encoder_parts

        config, folder, size = card.content["encoder"], self.folder / card.name, card.size
        if not config["shared"]:
            return _filled(lambda: _build(config, size, vocabulary), weights, "encoder.", folder).freeze()
        encoders = [
            self._shared_encoder(self.folder / "shared" / name, sha256, vocabulary)
            for name, sha256 in config["shared"].items()
        ]
        if len(encoders) == 1:
            return encoders[0]
        widths = [ENCODERS[part].sizes[size].width for part in encoder_parts(card.encoder)]  # type: ignore[index]
        join = _filled(lambda: JointProjection(widths, card.token_width), weights, "encoder.", folder)
        return JointEncoder(encoders, join).freeze()

    def _shared_encoder(self, folder: Path, sha256: str, vocabulary: Any) -> Encoder:
        def read() -> Encoder:
            check_files(folder)
            content = read_content(folder)
            if content["sha256"][WEIGHTS] != sha256:
                raise BundleError(f"Encoder {folder.name} is not the one these bundles were trained with.")
            weights = _read_tensors(folder / WEIGHTS)
            _refuse_other_tensors(weights, ("encoder.",), folder)
            with _fits_its_card(folder):
                encoder = _filled(
                    lambda: _build(content["encoder"], content["size"], vocabulary), weights, "encoder.", folder
                )
            return encoder.freeze().to(open_device(self._device))

        return self._encoders.get_or_make((folder, sha256), read)

    def verify(self, name: str) -> float:
        """Recompute a bundle's stored output.

        Returns:
            The largest difference of a logit.

        Raises:
            BundleError: it is damaged, or its output differs.
        """
        import torch

        model = self.load(name)
        path = self.folder / name / "expected.safetensors"
        expected = _read_tensors(path)
        if {key: value.ndim for key, value in expected.items()} != {"image": 2, "ids": 1, "logits": 2}:
            raise BundleError(f"Bundle {name}: {path.name} holds no output of a pair. {how_to_restore(path)}")
        with _fits_its_card(self.folder / name):
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


_OPENERS: Mapping[str, Callable[[BundleLibrary, Path, Card, torch.device, Precision], ReportModel]] = {
    PAIR: BundleLibrary._load_pair,
    HUGGING_FACE: BundleLibrary._load_hugging_face,
}
"""How a bundle is opened, by the kind that its card says."""


def compute_expected(model: ReportModel, image: Tensor) -> dict[str, Tensor]:
    """What a pair makes of an image (H, H) uint8: greedy "ids" (T,) and the "logits" of the first words."""
    import torch

    from core.decoders.search import GenerateConfig, generate
    from core.text import START

    with torch.inference_mode():
        visual = model.encoder((image[None, None].float() / 255).to(model.device))
        memory = model.decoder.encode(visual)
        most = min(100, model.decoder.longest - 1)
        (hypothesis,) = generate(model.decoder, memory, GenerateConfig(beam_size=1, max_words=most))
        ids = torch.tensor([START, *hypothesis.ids], device=model.device)
        logits = model.decoder.decode(memory, ids[None, :EXPECTED_WORDS]).logits[0]
    return {"image": image, "ids": ids.cpu(), "logits": logits.cpu()}


def specimen(size: int) -> Tensor:
    """The phantom (size, size) uint8 whose report every bundle carries: no patient's image leaves with the weights."""
    import torch

    from core.studies.model_image import grey_levels
    from core.studies.phantom import PhantomSource

    source = PhantomSource(count=1, seed=0)
    return torch.from_numpy(grey_levels(source.image(source.study_ids[0], size)))


def write_bundle(
    folder: Path,
    card: Mapping[str, Any],
    tensors: Mapping[str, Mapping[str, Tensor]],
    texts: Mapping[str, str],
    files: Iterable[Path] = (),
) -> None:
    """Write a bundle in one piece.

    Args:
        folder: where; an older bundle of that name is replaced.
        card: without "schema" and "sha256".
        tensors: file name -> name -> tensor; written as given, see `rounding`.
        texts: file name -> content.
        files: copied as they are, under their own names.

    Raises:
        DiskError: it cannot be written.
    """
    from safetensors.torch import save_file

    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_forgotten(folder.parent, folder.name)
    with whole_folder(folder, private=False) as fresh:
        for name, values in tensors.items():
            save_file({key: value.contiguous() for key, value in values.items()}, fresh / name)
        for name, text in texts.items():
            (fresh / name).write_text(text, encoding="utf-8")
        for file in files:
            shutil.copyfile(file, fresh / file.name)
        hashes = {path.name: sha256_of(path) for path in sorted(fresh.iterdir())}
        content = {"schema": SCHEMA, **card, "sha256": hashes}
        (fresh / "card.json").write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _build(config: Mapping[str, Any], size: str, vocabulary: Any) -> Encoder:
    from core.encoders.base import build_encoder, encoder_class

    changes = dict(config["changes"])
    if encoder_class(config["name"]).reads_words:
        changes["vocabulary"] = vocabulary
    return build_encoder(config["name"], size, **changes)  # type: ignore[arg-type]


@contextmanager
def _fits_its_card(folder: Path) -> Iterator[None]:
    """Name the bundle whose files or settings make building or computing fail, whatever library finds out."""
    import torch

    try:
        yield
    except (CXRLensError, torch.OutOfMemoryError):
        raise
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        what = f"{type(error).__name__}: {str(error)[:200]}"
        raise BundleError(
            f"Bundle {folder.name}: its files do not fit its card ({what}). {how_to_restore(folder)}"
        ) from error


def _refuse_other_tensors(weights: Mapping[str, Tensor], prefixes: tuple[str, ...], folder: Path) -> None:
    """Say which tensors no part of the model would take."""
    if others := sorted(key for key in weights if not key.startswith(prefixes)):
        raise BundleError(
            f"Bundle {folder.name}: {WEIGHTS} holds {len(others)} tensors of no part of this model, the first is "
            f"'{others[0][:80]}'. {how_to_restore(folder / WEIGHTS)}"
        )


def _filled(build: Callable[[], Any], weights: Mapping[str, Tensor], prefix: str, folder: Path) -> Any:
    """A module with its weights; its shapes are compared before it takes memory, for a card may ask for any width."""
    import torch

    from core.bundles.unstarted import Unstarted

    found = {key.removeprefix(prefix): value.shape for key, value in weights.items() if not key.endswith(SCALE)}
    with torch.device("meta"), Unstarted(), without_compiler():
        try:
            shapes = {key: value.shape for key, value in build().state_dict().items()}
        except (NotImplementedError, RuntimeError):  # what computes when it is built cannot be built without memory
            shapes = {}
    if wrong := [key for key, shape in shapes.items() if found.get(key, shape) != shape]:
        raise BundleError(
            f"Bundle {folder.name}: {WEIGHTS} does not fit its card. '{wrong[0]}' has the shape "
            f"{tuple(found[wrong[0]])}, by the card it is {tuple(shapes[wrong[0]])}."
        )
    with Unstarted():
        module = build()
    _fill(module, weights, prefix, folder)
    return module


def _fill(module: Any, weights: Mapping[str, Tensor], prefix: str, folder: Path) -> None:
    for key, scale in weights.items():
        rounded = weights.get(key.removesuffix(SCALE))
        if key.endswith(SCALE) and (rounded is None or scale.shape != rounded.shape[:1]):
            raise BundleError(
                f"Bundle {folder.name}: {WEIGHTS} does not fit its card. '{key}' is no scale of the rows of a matrix."
            )
    state = all_restored(weights, prefix)
    if wrong := next((key for key, value in state.items() if value.is_floating_point() and value.isnan().any()), None):
        raise BundleError(f"Bundle {folder.name}: {WEIGHTS} has values in '{wrong}' that are no numbers.")
    try:
        module.load_state_dict(state, strict=True)
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
