"""The same healthy chest with one finding turned up step by step, on either side, at any site: films for detection.

In: a design, which is also the source's name. Out: a source of studies, as any other. All films of a chest share the
patient and the exposure; right and left, a finding is its own mirror image.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import cast

import numpy as np

from core.observations import LabelState
from core.studies.images import Radiograph
from core.studies.phantom.anatomy import Anatomy, Exposure, draw_anatomy, draw_exposure
from core.studies.phantom.findings import RIB_SITES, ZONES, Fact, Side, severity_of
from core.studies.phantom.grammar import write_findings, write_impression
from core.studies.phantom.source import (
    ORIGINAL_SIZE,
    PHANTOM_VERSION,
    draw,
    film_of,
    study_of,
    true_findings,
    true_places,
)
from core.studies.source import Source, TrueFinding
from core.types import PAD, CXRLensError, Fit, FloatImage, Split, Study

GRADED, DRAWN = "graded:", "drawn:"
"""How the names of sources begin that are drawn by a design in their name: in synthetic chests, and in real films."""
NORMAL = 0
"""The step at which a chest has no finding."""
BOTH: tuple[Side, ...] = ("right", "left")

_LUNG: tuple[tuple[Side, ...], tuple[str, ...]] = (BOTH, ZONES)
PLACES: dict[str, tuple[tuple[Side, ...], tuple[str, ...]]] = {
    "Enlarged Cardiomediastinum": (("",), ("",)),
    "Cardiomegaly": (("",), ("",)),
    "Lung Opacity": _LUNG,
    "Lung Lesion": _LUNG,
    "Edema": (("bilateral",), ("",)),
    "Consolidation": _LUNG,
    "Pneumonia": _LUNG,
    "Atelectasis": (BOTH, ("mid", "lower")),
    "Pneumothorax": (BOTH, ("",)),
    "Pleural Effusion": (BOTH, ("",)),
    "Pleural Other": (BOTH, ("apical", "lateral")),
    "Fracture": (BOTH, ("clavicle", *RIB_SITES)),
}
"""The sides and sites at which each finding can be drawn; "" where it has none."""

_STREAM = 20_241_129  # ours: keeps these chests apart from those of every `PhantomSource`
_MOST_CHESTS, _MOST_STEPS = 10_000, 99


@dataclass(frozen=True, slots=True)
class GradedFilms:
    """Which films there are: chests x (one normal + sides x sites x steps).

    Attributes:
        finding: one of `PLACES`.
        low: extent of the films before the first step; the steps rise from it in equal parts. 0 is nothing.
        high: extent of the last step, at most 1, as bad as it gets.
        steps: with the finding, from 1.
        sides: of the patient.
        sites: see `PLACES`.
        chests: healthy patients.
        seed: another seed gives other patients.
    """

    finding: str
    low: float = 0.0
    high: float = 1.0
    steps: int = 12
    sides: tuple[Side, ...] = BOTH
    sites: tuple[str, ...] = ("",)
    chests: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.finding not in PLACES:
            raise CXRLensError(f"There is no graded '{self.finding}'. There are: {', '.join(PLACES)}.")
        sides, sites = PLACES[self.finding]
        for asked, there, what in ((self.sides, sides, "side"), (self.sites, sites, "site")):
            if not asked or not set(asked) <= set(there) or len(set(asked)) < len(asked):
                known = ", ".join(each or "none" for each in there)
                raise CXRLensError(
                    f"{self.finding}: the {what} cannot be {', '.join(asked) or 'none'}. There is: {known}."
                )
        if not 0 <= self.low < self.high <= 1:
            raise CXRLensError(f"The extent goes from {self.low:g} to {self.high:g}: it should rise, between 0 and 1.")
        if not 1 <= self.steps <= _MOST_STEPS or not 1 <= self.chests <= _MOST_CHESTS:
            raise CXRLensError(f"There can be 1 to {_MOST_STEPS} steps and 1 to {_MOST_CHESTS:,} chests.")

    @property
    def extents(self) -> tuple[float, ...]:
        """The extent of each step with the finding, rising."""
        width = (self.high - self.low) / self.steps
        return tuple(round(self.low + width * step, 6) for step in range(1, self.steps + 1))

    @property
    def places(self) -> tuple[tuple[Side, str], ...]:
        """Each side with each site."""
        return tuple((side, site) for side in self.sides for site in self.sites)

    @property
    def spec(self) -> str:
        """The name under which `core.studies.sources.open_source` opens the films."""
        sides, sites = "+".join(map(slug, self.sides)), "+".join(map(slug, self.sites))
        return (
            f"graded:{slug(self.finding)}:{self.low:g}:{self.high:g}:{self.steps}:{sides}:{sites}"
            f":{self.chests}:{self.seed}"
        )


@dataclass(frozen=True, slots=True)
class Film:
    """One film of a design.

    Attributes:
        chest: number of the patient, from 0.
        step: `NORMAL`, or the step of the extent, from 1.
        side: of the finding; "" where it has none, and of the normal film.
        site: as `side`.
    """

    chest: int
    step: int = NORMAL
    side: Side = ""
    site: str = ""

    @property
    def film_id(self) -> str:
        """Its id, "C0003-left-apical-05", "C0003-normal"."""
        where = [slug(each) for each in (self.side, self.site) if each]
        return "-".join([f"C{self.chest:04}", *([*where, f"{self.step:02}"] if self.step else ["normal"])])


def slug(words: str) -> str:
    """A name as it stands in ids and addresses; of "" it is "none"."""
    return re.sub(r"[^a-z]+", "-", words.lower()) or "none"


def finding_named(name: str) -> str:
    """The finding that a name or its short form means.

    Raises:
        CXRLensError: there is none.
    """
    found = {slug(each): each for each in PLACES}.get(slug(name))
    if found is None:
        raise CXRLensError(f"There is no graded finding '{name[:40]}'. There are: {', '.join(map(slug, PLACES))}.")
    return found


def whole_design(finding: str, **numbers: int | float) -> GradedFilms:
    """A design with every side and site that a finding has."""
    sides, sites = PLACES[finding]
    return GradedFilms(finding, sides=sides, sites=sites, **numbers)  # type: ignore[arg-type]


def parse_films(rest: str) -> GradedFilms:
    """Read what follows "graded:" in a name, see `GradedFilms.spec`; what is left out is as of `whole_design`.

    Raises:
        CXRLensError: it is no such name.
    """
    parts = rest.split(":")
    finding = finding_named(parts[0])
    base = whole_design(finding)
    try:
        low, high, steps, sides, sites, chests, seed = (*parts[1:], *[""] * (8 - len(parts)))
        return GradedFilms(
            finding,
            float(low or base.low),
            float(high or base.high),
            int(steps or base.steps),
            cast(tuple[Side, ...], _named(sides, base.sides)),
            _named(sites, base.sites),
            int(chests or base.chests),
            int(seed or base.seed),
        )
    except ValueError as error:
        raise CXRLensError(
            f"'graded:{rest[:80]}' should be graded:FINDING:LOW:HIGH:STEPS:SIDES:SITES:CHESTS:SEED, as {base.spec}."
        ) from error


def _named(given: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """The sides or sites that are meant; one that is not known stays as it is given, for the message."""
    by_slug = {slug(each): each for each in known}
    return tuple(by_slug.get(each, each) for each in given.split("+")) if given else known


def _rng(seed: int, what: str, *keys: int) -> np.random.Generator:
    streams = {"anatomy": 0, "exposure": 1, "finding": 2, "words": 3}
    return np.random.default_rng((_STREAM, seed, streams[what], *keys))


@lru_cache(maxsize=1024)
def _patient(seed: int, chest: int) -> tuple[Anatomy, Exposure]:
    return (
        draw_anatomy(_rng(seed, "anatomy", chest)),
        draw_exposure(_rng(seed, "exposure", chest), bedridden=False),
    )


class DesignedSource(Source):
    """Films of a design, chest by chest: all are held-out studies, in no model's training.

    Attributes:
        design: which films there are.
    """

    design: GradedFilms

    @cached_property
    def films(self) -> dict[str, Film]:
        """All films by their ids, chest by chest, the normal one first."""
        found: dict[str, Film] = {}
        for chest in range(self.design.chests):
            each = [Film(chest)]
            for side, site in self.design.places:
                each += [Film(chest, step, side, site) for step in range(1, self.design.steps + 1)]
            found |= {film.film_id: film for film in each}
        return found

    def ids(self, split: Split) -> tuple[str, ...]:
        """All films stand in the test split."""
        return tuple(self.films) if split == "test" else ()

    def extent(self, film: Film) -> float:
        """Extent of a film's finding, 0 of a normal one."""
        return self.design.extents[film.step - 1] if film.step else 0.0

    def facts(self, study_id: str) -> tuple[Fact, ...]:
        """A film's finding, none of a normal one."""
        film = self._film(study_id)
        extent = self.extent(film)
        if not extent:
            return ()
        severity = severity_of(self.design.finding, extent)
        state = LabelState.UNCERTAIN if severity == "subtle" else LabelState.POSITIVE
        # The same details at every extent, and on both sides.
        seed = int(_rng(self.design.seed, "finding", film.chest).integers(2**63))
        name = slug(self.design.finding)
        return (Fact(name, self.design.finding, state, film.side, film.site, severity, "", extent, seed),)

    def traits(self, study: Study) -> dict[str, str]:
        """What films can be divided by: what the base says, side, site and severity."""
        film = self._film(study.study_id)
        severity = severity_of(self.design.finding, self.extent(film)) if film.step else "no finding"
        told = {"Severity": severity, "Side": film.side, "Site": film.site}
        return super().traits(study) | {name: value for name, value in told.items() if value}

    def _film(self, study_id: str) -> Film:
        film = self.films.get(study_id)
        if film is None:
            raise self.unknown(study_id)
        return film


class GradedSource(DesignedSource):
    """Synthetic chests with one finding turned up. Any film is made from its name alone."""

    name = "graded"
    synthetic = True
    labelled_by = "the phantom's known truth of the findings"
    truth = "outlines of what was drawn"

    def __init__(self, films: GradedFilms) -> None:
        """Name the films; nothing is drawn yet."""
        self.design = films
        self.key = films.spec
        self.title = f"Synthetic chests with graded {films.finding.lower()}"

    def fingerprint(self) -> str:
        """Hash of version and design."""
        return hashlib.sha256(f"graded {PHANTOM_VERSION} {self.design.spec}".encode()).hexdigest()[:16]

    def study(self, study_id: str) -> Study:
        """A film's report and labels, as of any phantom."""
        film, facts = self._film(study_id), self.facts(study_id)
        words = _rng(self.design.seed, "words", int.from_bytes(study_id.encode()))
        findings, impression = write_findings(words, facts), write_impression(words, facts)
        anatomy, exposure = _patient(self.design.seed, film.chest)
        return study_of(
            findings,
            impression,
            study_id=study_id,
            subject_id=f"C{film.chest:04}",
            split="test",
            view=exposure.view,
            context={"age": str(anatomy.age), "sex": anatomy.sex},
        )

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """A film, drawn as a square of this size, whatever the fit: (size, size), values in [0, 1]."""
        return draw(*_patient(self.design.seed, self._film(study_id).chest), self.facts(study_id), size)

    def for_model(self, study_id: str, size: int) -> FloatImage:
        """A film, drawn at the size that a pair reads."""
        return self.image(study_id, size)

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """A film, drawn at 640 x 640 pixels; its size in the patient is not known."""
        if image_id not in ("", study_id):
            raise self.unknown(image_id)
        exposure = _patient(self.design.seed, self._film(study_id).chest)[1]
        return film_of(self.image(study_id, ORIGINAL_SIZE), exposure.view)

    def masks(self, study_id: str, shape: tuple[int, int]) -> tuple[TrueFinding, ...]:
        """Where the finding changes the film.

        Raises:
            ValueError: the shape is no square.
        """
        if shape[0] != shape[1]:
            raise ValueError(f"a phantom is square, not {shape}")
        facts = self.facts(study_id)
        patient = _patient(self.design.seed, self._film(study_id).chest)
        return true_findings(facts, true_places(*patient, facts, shape[0]))
