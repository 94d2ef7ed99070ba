"""Bundles as systems: pairs of ours, and models from elsewhere that were made bundles.

A bundle's card says of which kind it is; one that cannot do all that a pair can says so by its abilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.bundles.card import HUGGING_FACE, PAIR, Card
from core.bundles.library import BundleLibrary
from core.files import hash_of
from core.studies.model_image import of_image, of_study
from core.studies.source import Source
from core.systems.system import Ability, Progress, System, Written
from core.types import CXRLensError, FloatImage, Study

KINDS = {PAIR: "pair", HUGGING_FACE: "Hugging Face model"}
"""What kinds of bundles are called."""


class Pair(System):
    """A trained encoder with its decoder: one of our pairs, or a model from elsewhere that became a bundle."""

    abilities = frozenset(Ability)

    def __init__(self, card: Card, library: BundleLibrary) -> None:
        """Load nothing yet."""
        self.card = card
        self.name, self.title, self.group = card.name, card.title, card.family
        self.kind = KINDS.get(card.kind, card.kind)
        self.provenance = str(card.data.get("description", f"Trained on {card.family}."))
        self._library = library

    def content_hash(self) -> str:
        """Of all its weights, and of how it writes."""
        return hash_of([self.card.made_of, self.card.content["encoder"]])

    def reports(self, source: Source, study_ids: Sequence[str], progress: Progress | None = None) -> Written:
        """Write the reports of studies now.

        Raises:
            BundleError: it is damaged.
        """
        from core.bundles.inference import write_reports  # brings torch

        model = self._library.load(self.name)
        texts: dict[str, str] = {}
        lacking: dict[str, str] = {}
        for number, study_id in enumerate(study_ids, 1):
            try:
                ((_, report),) = write_reports([model], of_study(source, study_id))
                texts[study_id] = report.text
            except CXRLensError as error:
                lacking[study_id] = str(error)
            if progress is not None:
                progress(number, len(study_ids))
        return Written(texts, lacking)

    def of_image(self, pixels: FloatImage, study: Study) -> str:
        """The report of any image.

        Raises:
            BundleError: it is damaged.
        """
        from core.bundles.inference import write_reports

        ((_, report),) = write_reports([self._library.load(self.name)], of_image(pixels))
        return report.text


def pairs(bundles: Path) -> list[Pair]:
    """The bundles of a folder that can be read, by name."""
    library = BundleLibrary(bundles)
    return [Pair(card, library) for card in library.cards()]
