"""What every system can be asked. A system is what writes reports; pages and commands ask it, whatever it is.

A pair of ours, a file of reports that somebody else's model wrote, a program, the human reference: each says who wrote
(`provenance`), what it can do (`abilities`), and gives the reports of studies of a source. Nothing asks for its kind.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from core.studies.source import Source
from core.types import CXRLensError, FloatImage, Study

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (studies done, studies in all)."""


class Ability(StrEnum):
    """What a system can do; pages offer just that."""

    WRITE = "write"
    """Reports of images that it has not seen."""
    ATTENTION = "attention"
    """Where in the image each word looked."""
    GRADIENTS = "gradients"
    """How words hang on the image, from within the network."""
    EMBEDDINGS = "embeddings"
    """What its encoder makes of an image, for maps."""
    LIKELIHOOD = "likelihood"
    """How probable a given text is."""


@dataclass(frozen=True, slots=True)
class Written:
    """Reports of studies.

    Attributes:
        texts: study id -> its report; "" where the system wrote nothing of it.
        lacking: study id -> why there is no report, in a sentence, of the studies that were asked for in vain.
        told: what else is to be said, a sentence each.
    """

    texts: Mapping[str, str]
    lacking: Mapping[str, str] = field(default_factory=dict)
    told: tuple[str, ...] = ()


class System(ABC):
    """What writes reports.

    Attributes:
        name: unique among systems; what files of reports, scores and designs call it.
        title: for a reader.
        group: systems of one group are listed together: a family of pairs, or what whoever added it said.
        kind: what it is, in a word or two, for a reader.
        provenance: where its reports come from, in a sentence.
        abilities: what it can do.
    """

    name: str
    title: str
    group: str
    kind: str
    provenance: str
    abilities: frozenset[Ability] = frozenset()

    @abstractmethod
    def content_hash(self) -> str:
        """Another one where its reports may be others."""

    @abstractmethod
    def reports(self, source: Source, study_ids: Sequence[str], progress: Progress | None = None) -> Written:
        """The reports of studies of a source, as far as there are any.

        Raises:
            CXRLensError: it cannot be asked at all; the message says why.
        """

    def of_image(self, pixels: FloatImage, study: Study) -> str:
        """The report of any image, as of one with a region covered; nothing is kept.

        Args:
            pixels: (H, W), values in [0, 1].
            study: what else is known.

        Raises:
            CXRLensError: it writes no reports of new images, or fails.
        """
        raise CXRLensError(f"{self.title} has the reports that it has: it writes none of another image.")

    def of_images(self, images: Iterable[FloatImage], study: Study) -> list[str]:
        """The reports of several images, as of copies with something covered; nothing is kept.

        Args:
            images: each as of `of_image`.
            study: as of `of_image`.

        Raises:
            CXRLensError: as of `of_image`.
        """
        return [self.of_image(pixels, study) for pixels in images]

    def kept(self, source: Source, study_id: str) -> str | None:
        """The report of a study that is there already; None where there is none, or it would have to be written.

        Raises:
            CXRLensError: the study's image cannot be read.
        """
        return None if Ability.WRITE in self.abilities else self.reports(source, [study_id]).texts.get(study_id)

    def seconds_a_study(self) -> float | None:
        """What a report of another image costs, seconds; 0 where it is there already, None where nobody knows yet."""
        return 0.0 if Ability.WRITE not in self.abilities else None
