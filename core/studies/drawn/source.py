"""Real normal films with one finding of the phantom drawn into them, as a source of studies like any other."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property, lru_cache

import numpy as np

from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.studies.drawn.chest import NoChestError
from core.studies.drawn.draw import FINDINGS, draw_into, place_of, prepare
from core.studies.images import Radiograph
from core.studies.model_image import model_image
from core.studies.phantom.graded import DRAWN, GRADED, DesignedSource, GradedFilms, slug
from core.studies.phantom.source import true_findings
from core.studies.source import Source, TrueFinding, bare_study, hashed
from core.types import PAD, CXRLensError, Fit, FloatImage, Study

DRAWN_VERSION = "1"

_ABNORMAL = (LabelState.POSITIVE, LabelState.UNCERTAIN)
_FINDINGS = [each for each in OBSERVATIONS if each != "No Finding"]
_KEPT = 4  # ours: films that are kept ready; all of a chest are asked for one after another


class DrawnSource(DesignedSource):
    """Normal films of another source, each with one finding turned up from nothing, which is the film itself.

    Films in which the lungs cannot be told from the rest are passed over, see `refused`.
    """

    name = "drawn"
    has_reports = False
    has_labels = False
    truth = "outlines of what was drawn"

    def __init__(self, films: GradedFilms, base: Source) -> None:
        """Name the films; nothing is read or drawn yet.

        Args:
            films: the design; its chests are films of the base.
            base: real films. Where its studies have reports or labels, those of the test split without a finding are
                taken, one a patient, in an order that the design's seed decides; else all of them, on trust.

        Raises:
            CXRLensError: the finding cannot be drawn into real films, or the base is no source of real films.
        """
        if films.finding not in FINDINGS:
            raise CXRLensError(
                f"{films.finding} cannot be drawn into real films. Those that can: {', '.join(map(slug, FINDINGS))}."
            )
        if base.synthetic or isinstance(base, DesignedSource):
            raise CXRLensError(f"{base.title} are no real films. For synthetic chests, leave the films out.")
        self.design = films
        self.base = base
        self.key = f"{DRAWN}{films.spec.removeprefix(GRADED)}:{base.key}"
        self.title = f"{base.title}: normal films with a drawn {films.finding.lower()}"
        self.credit = base.credit
        told = f"A {films.finding.lower()} is drawn into real films of patients who had none."
        self.caution = f"{base.caution} {told}".strip()
        self.refused: Counter[str] = Counter()
        """Why films that were looked at cannot be used, and how many."""
        self._chests: list[str] = []
        self._walk = self._usable()
        self._walking = threading.Lock()  # sessions share a source
        self._prepared = lru_cache(maxsize=_KEPT)(lambda study_id: prepare(base.for_model(study_id, 0)))

    def fingerprint(self) -> str:
        """Hash of version, design and real films."""
        return hashed(["drawn", DRAWN_VERSION, self.design.spec, self.base.fingerprint()])

    def film_of(self, chest: int) -> str:
        """Id of the real film of a chest in the base.

        Raises:
            CXRLensError: there are not so many normal films that can be used.
        """
        with self._walking:
            while len(self._chests) <= chest:
                found = next(self._walk, None)
                if found is None:
                    why = "; ".join(f"{count}: {reason}" for reason, count in self.refused.items())
                    raise CXRLensError(
                        f"Of {self.design.chests} normal films that are asked for, {self.base.title} has "
                        f"{len(self._chests)} that can be used, of {len(self._normal)} normal ones"
                        f"{f' ({why})' if why else ''}. Ask for fewer with -n."
                    )
                self._chests.append(found)
            return self._chests[chest]

    def study(self, study_id: str) -> Study:
        """A film, of which only its image and the drawn finding are known; the patient is a number."""
        film = self._film(study_id)
        real = self.base.study(self.film_of(film.chest))
        study = bare_study(study_id, real.view)
        context = {name: real.context[name] for name in ("age", "sex") if real.context.get(name)}
        return Study(study_id, f"C{film.chest:04}", "test", real.view, "", "", study.labels, (), context)

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """A film as pairs read it, (size, size); without the finding exactly what its source gives them."""
        film = self._film(study_id)
        if not film.step:
            return self.base.image(self.film_of(film.chest), size, fit)
        return model_image(self.for_model(study_id, size), size, fit)[0]

    def for_model(self, study_id: str, size: int) -> FloatImage:
        """A film from which `model_image` makes the input of a pair, (H, W)."""
        film, facts = self._film(study_id), self.facts(study_id)
        if not facts:
            return self.base.for_model(self.film_of(film.chest), size)
        return draw_into(self._prepared(self.film_of(film.chest)), facts[0])

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """A film as its file has it, with the finding drawn into what is shown."""
        if image_id not in ("", study_id):
            raise self.unknown(image_id)
        film, facts = self._film(study_id), self.facts(study_id)
        real = self.base.original(self.film_of(film.chest))
        if not facts:
            return real
        pixels = draw_into(self._prepared(self.film_of(film.chest)), facts[0])
        pixels.flags.writeable = False
        return replace(real, pixels=pixels, grey=None, study="")

    def masks(self, study_id: str, shape: tuple[int, int]) -> tuple[TrueFinding, ...]:
        """Where the finding changes the film."""
        facts = self.facts(study_id)
        if not facts:
            return ()
        prepared = self._prepared(self.film_of(self._film(study_id).chest))
        return true_findings(facts, {facts[0].id: place_of(prepared, facts[0], shape)})

    @cached_property
    def _normal(self) -> list[str]:
        """Studies of the base that are normal, in the order in which they are looked at."""
        base = self.base
        taken, patients = [], set()
        ids = list(base.ids("test"))
        for place in np.random.default_rng(self.design.seed).permutation(len(ids)):
            study = base.study(ids[place])
            if study.subject_id not in patients and (not base.has_labels or is_normal(study)):
                patients.add(study.subject_id)
                taken.append(study.study_id)
        return taken

    def _usable(self) -> Iterator[str]:
        for study_id in self._normal:
            try:
                self._prepared(study_id)
            except NoChestError as error:
                self.refused[str(error).rstrip(".")] += 1
                continue
            yield study_id


def is_normal(study: Study) -> bool:
    """Whether a study's labels, and its impression where there is one, name no finding and no device."""
    said = label_report(study.impression).states if study.impression else {}
    found = [states.get(name) for states in (study.labels, said) for name in _FINDINGS]
    return study.labels.get("No Finding") is LabelState.POSITIVE and not any(state in _ABNORMAL for state in found)
