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
        return Fit(**self.content["fit"]) if "fit" in self.content else PAD

    @property
    def fit_note(self) -> str:
        """What to say where images are not, or may not be, fitted as the training images were; "" where they are."""
        if "fit" in self.content:
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
        BundleError: a missing field, or a way to fit images that is none.
    """
    try:
        if "fit" in content:
            Fit(**content["fit"])
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
    except ValueError as error:
        raise BundleError(
            f"Bundle {folder.name}: its card's fit is wrong: {error}. {how_to_restore(folder)}"
        ) from error
    except (KeyError, TypeError) as error:
        raise BundleError(f"Bundle {folder.name}: card.json has no field {error}. {how_to_restore(folder)}") from error


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


def check_files(folder: Path) -> None:
    """Compare every file of a bundle with the hash on its card.

    Raises:
        BundleError: a file is missing or differs.
    """
    for file, expected in read_content(folder)["sha256"].items():
        path = folder / file
        if not path.is_file():
            raise BundleError(f"Bundle {folder.name}: {file} is missing. {how_to_restore(path)}")
        if sha256_of(path) != expected:
            raise BundleError(
                f"Bundle {folder.name}: {file} differs from the hash on its card; it was edited or cut short. "
                f"{how_to_restore(path)}"
            )


def read_content(folder: Path) -> dict[str, Any]:
    """Read the card of a bundle or of a shared encoder as it is written.

    Raises:
        BundleError: no card, not JSON, another schema, or the card of another bundle.
    """
    path = folder / "card.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BundleError(f"Bundle {folder.name}: card.json is missing. {how_to_restore(path)}") from error
    except (OSError, ValueError) as error:
        raise BundleError(
            f"Bundle {folder.name}: card.json is not valid JSON ({error}). {how_to_restore(path)}"
        ) from error
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else None
        raise BundleError(
            f"Bundle {folder.name} has schema {found}, this version of CXR Lens reads {SCHEMA}. "
            "Update CXR Lens, or train the bundle again."
        )
    if content.get("name", folder.name) != folder.name:
        raise BundleError(
            f"Bundle {folder.name} has the card of {content['name']}: name the folder {content['name']}, or put the "
            "right card there."
        )
    return content
