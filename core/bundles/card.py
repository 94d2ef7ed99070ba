"""What a bundle says of itself, and whether its files are those it was written with; weights are not read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.files import sha256_of
from core.paths import BUNDLES, how_to_restore
from core.registry import DECODERS, ENCODERS, encoder_parts, pair_title, token_width
from core.types import PAD, CXRLensError, Fit

WEIGHTS = "model.safetensors"
"""Of every bundle and every shared encoder."""
_WORDS_OF_PEOPLE = ("readme", "license", "licence", "notice")
"""How files begin that may lie in a bundle though its card does not name them: no program reads them."""

SCHEMA = 3
PAIR, HUGGING_FACE = "pair", "hf"
"""Kinds of bundles: what training writes, whose cards do not say so, and models of transformers (`hugging_face`)."""
INTENDED_USE = "Research only. Not a medical device. Not for use in diagnostic procedures."


class BundleError(CXRLensError):
    """A bundle is missing, incomplete, edited, or of another version; the message names it and the file."""


@dataclass(frozen=True, slots=True)
class Card:
    """What a bundle says of itself; reading it loads no weights.

    Attributes:
        name: of the bundle, which is its folder's.
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
    def token_width(self) -> int:
        """Width of its encoder's tokens: the registry's, unless an imported CNN has another."""
        own = self.content.get("encoder", {}).get("width")
        return int(own or token_width(self.encoder, self.size))  # type: ignore[arg-type]

    @property
    def trained_here(self) -> bool:
        """Whether a preset of ours trained it, so that its training studies can be told; else it was imported."""
        return "config" in self.content

    @property
    def kind(self) -> str:
        """What the bundle is: a pair of ours, or a model from elsewhere (`core.bundles.library`)."""
        return str(self.content.get("kind", PAIR))

    @property
    def pair(self) -> tuple[str, str] | None:
        """Its rows of the registry, (encoder, decoder); None of a model that is made of other parts."""
        known = set(encoder_parts(self.encoder)) <= set(ENCODERS) and self.decoder in DECODERS
        return (self.encoder, self.decoder) if known and self.kind == PAIR else None

    @property
    def title(self) -> str:
        """For a reader: the parts of a pair, or what the card says."""
        return str(self.content.get("title", self.name)) if self.pair is None else pair_title(*self.pair)

    @property
    def image_side(self) -> int:
        """Side of the images that the pair reads, pixels."""
        return int(self.content["inputs"]["image"][1])

    @property
    def trained_with(self) -> Mapping[str, Any]:
        """Settings of its training data, as of `core.config.DataConfig`; empty where the card does not tell them."""
        config: Mapping[str, Any] = self.content.get("config", {})
        settings: Mapping[str, Any] = config.get("data", {})
        return settings

    @property
    def made_of(self) -> dict[str, str]:
        """What decides its reports: hashes of its files and of shared encoders, how it fits images, how it writes."""
        settings = {name: self.content.get(name) for name in ("encoder", "fit", "write")}
        return {**self.content["sha256"], **{name: json.dumps(each, sort_keys=True) for name, each in settings.items()}}

    @property
    def fit(self) -> Fit:
        """How its images are fitted; padded where the card does not tell, see `fit_note`."""
        return Fit(**self.content["fit"]) if self.content.get("fit") else PAD

    @property
    def fit_note(self) -> str:
        """What to say where images are not, or may not be, fitted as the training images were; "" where they are."""
        if self.content.get("fit"):
            return str(self.content.get("fit_note", ""))
        return (
            f"The card of {self.name} does not say how its training images were fitted: padding to a square is "
            "assumed. If they were stretched, its reports of other shapes are worse; cxr-lens card puts it right."
        )


def read_card(folder: Path) -> Card:
    """Read and check a bundle's card.

    Raises:
        BundleError: as of `read_content`, or a missing field.
    """
    return card_of(read_content(folder), folder)


def card_of(content: Mapping[str, Any], folder: Path) -> Card:
    """The card of a bundle from its content.

    Raises:
        BundleError: a missing field, or one that cannot be, see `core.schemas.Card`; or a way to fit images that is
            none.
    """
    from core import schemas  # brings pydantic, which takes a while

    try:
        schemas.check(content, schemas.Card)
        if content.get("fit") is not None:
            Fit(**content["fit"])
    except (TypeError, ValueError) as error:
        raise BundleError(
            f"Bundle {folder.name}: its card.json cannot be used: {error}. {how_to_restore(folder)}"
        ) from error
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


def encoder_weights(card: Card) -> list[str]:
    """Hashes of the weights that an encoder's tokens depend on: pairs that share an encoder have the same."""
    shared = sorted(card.content["encoder"]["shared"].values())
    alone = shared and len(encoder_parts(card.encoder)) == 1
    changes = json.dumps(card.content["encoder"]["changes"], sort_keys=True)
    return [card.encoder, changes, *shared, *([] if alone else [card.content["sha256"]["model.safetensors"]])]


def no_bundle(folder: Path) -> BundleError:
    """What to say where a folder has no bundle at all."""
    if folder.resolve() == BUNDLES:
        return BundleError(f"There is no bundle in {folder}. {how_to_restore(folder)}")
    return BundleError(
        f"There is no bundle in {folder}. Name a folder of bundles (--bundles, CXR_BUNDLES), or train some: "
        "cxr-lens train --preset phantom."
    )


def hashes_of(folder: Path) -> Mapping[str, str]:
    """Hashes that the card of a bundle, or of a shared encoder, names, by file; no file is read.

    Raises:
        BundleError: as of `read_content`; a file that the card names is not there, or one is there, or is needed, that
            the card has no hash of.
    """
    hashes: Mapping[str, str] = read_content(folder)["sha256"]
    try:
        there = {each.name for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")}
    except OSError as error:
        raise BundleError(f"Bundle {folder.name} cannot be read ({error.strerror}).") from error
    for file in hashes:
        if file not in there:
            raise BundleError(f"Bundle {folder.name}: {folder.name}/{file} is missing. {how_to_restore(folder / file)}")
    for file in sorted({WEIGHTS, *there} - {"card.json", *hashes}):
        if not file.lower().startswith(_WORDS_OF_PEOPLE) and not file.endswith((".md", ".part")):
            raise BundleError(
                f"Bundle {folder.name}: its card has no hash of {file}, so nobody knows what is in it. Take it away, "
                f"or put the right card there. {how_to_restore(folder / 'card.json')}"
            )
    return hashes


def check_files(folder: Path) -> None:
    """Compare every file of a bundle with the hash on its card.

    Raises:
        BundleError: a file is missing or differs, or the card has no hash of it.
    """
    for file, expected in hashes_of(folder).items():
        path = folder / file
        try:
            same = sha256_of(path) == expected
        except OSError as error:
            raise BundleError(f"Bundle {folder.name}: {file} cannot be read ({error.strerror}).") from error
        if not same:
            raise BundleError(
                f"Bundle {folder.name}: {file} differs from the hash on its card; it was edited or cut short. "
                f"{how_to_restore(path)}"
            )


def read_content(folder: Path) -> dict[str, Any]:
    """Read the card of a bundle or of a shared encoder as it is written.

    Raises:
        BundleError: no card, one that cannot be read or used (`core.schemas.SharedCard`), of another schema, or the
            card of another bundle.
    """
    from core import schemas  # brings pydantic, which takes a while

    path = folder / "card.json"
    try:
        content = schemas.read_json(path, None, schemas.CARD_BYTES)
    except FileNotFoundError as error:
        raise BundleError(f"Bundle {folder.name}: card.json is missing. {how_to_restore(path)}") from error
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise BundleError(f"Bundle {folder.name}: card.json cannot be read: {what}. {how_to_restore(path)}") from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BundleError(
            f"Bundle {folder.name} has schema {found}, this version of CXR Lens reads {SCHEMA}. "
            "Update CXR Lens, or train the bundle again."
        )
    try:
        schemas.check(content, schemas.SharedCard)
    except ValueError as error:
        raise BundleError(
            f"Bundle {folder.name}: its card.json cannot be used: {error}. {how_to_restore(path)}"
        ) from error
    if content["name"] != folder.name:
        raise BundleError(
            f"Bundle {folder.name} has the card of {content['name']}: name the folder {content['name']}, or put the "
            "right card there."
        )
    return content
