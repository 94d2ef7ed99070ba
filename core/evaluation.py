"""An evaluation as a reader of results wants it: all reports of held-out studies, labelled, and what differs where."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.labels.compare import Outcome, compare
from core.labels.observations import OBSERVATIONS, LabelState
from core.labels.rules import RULES_VERSION, label_report
from core.metrics.clinical import clinical_statistics
from core.metrics.resampling import Comparison, Interval, StudyStatistics, intervals
from core.metrics.resampling import compare as compare_statistics
from core.types import CXRLensError

_STATES = tuple(LabelState)

States = Mapping[str, LabelState]


@dataclass(frozen=True, slots=True)
class Slice:
    """Scores of one system on some of the studies.

    Attributes:
        name: what the studies have in common.
        count: of studies.
        score: of them.
        low: lower end of its 95 % interval; NaN with fewer than two patients.
        high: upper end.
    """

    name: str
    count: int
    score: float
    low: float
    high: float


@dataclass(frozen=True)
class Evaluation:
    """Reports of several systems for the same studies.

    Attributes:
        study_ids: n of them.
        subjects: the patient of each.
        references: text of each reference report.
        truth: states of each reference.
        texts: by system, n reports.
        states: by system, states of each report, read by the rule labeler.
    """

    study_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    references: tuple[str, ...]
    truth: tuple[States, ...]
    texts: Mapping[str, tuple[str, ...]]
    states: Mapping[str, tuple[States, ...]]

    @cached_property
    def outcomes(self) -> Mapping[str, tuple[Mapping[str, Outcome], ...]]:
        """By system, what became of each observation of each study."""
        return {
            name: tuple(compare(truth, states) for truth, states in zip(self.truth, each, strict=True))
            for name, each in self.states.items()
        }

    @cached_property
    def statistics(self) -> Mapping[str, StudyStatistics]:
        """By system, the clinical scores; uncertain counts as not positive."""
        return {name: clinical_statistics(self.truth, each) for name, each in self.states.items()}

    @cached_property
    def errors(self) -> Mapping[str, npt.NDArray[np.int64]]:
        """By system, how many observations of each study are missed, invented or opposite, (n,)."""
        return {
            name: np.array([sum(outcome is not Outcome.FOUND for outcome in each.values()) for each in rows])
            for name, rows in self.outcomes.items()
        }

    def slices(self, system: str, groups: Mapping[str, npt.NDArray[np.bool_]], score: str = "f1") -> list[Slice]:
        """A system's score on groups of studies, the worst first.

        Args:
            system: name of a system.
            groups: name -> (n,) which studies; empty ones are left out.
            score: a score of :func:`core.metrics.clinical.clinical_statistics`.
        """
        whole = self.statistics[system].select(score)
        found = []
        for name, chosen in groups.items():
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            part = StudyStatistics(whole.names, whole.values[places], whole.from_sums)
            subjects = [self.subjects[place] for place in places]
            ends = Interval(np.nan, np.nan)
            if len(set(subjects)) > 1:
                ends = intervals(part, subjects=subjects, resamples=400)[score]
            found.append(Slice(name, len(places), part.scores()[score], ends.low, ends.high))
        return sorted(found, key=lambda each: each.score)

    def against(self, first: str, second: str, scores: Sequence[str]) -> Mapping[str, Comparison]:
        """The paired tests of two systems."""
        parts = [self.statistics[name].select(*scores) for name in (first, second)]
        return compare_statistics(*parts, subjects=self.subjects)

    def where(self, system: str, observation: str, outcome: Outcome) -> list[str]:
        """Ids of the studies in which a system's report has this outcome for an observation."""
        rows = zip(self.study_ids, self.outcomes[system], strict=True)
        return [study_id for study_id, each in rows if each.get(observation) is outcome]


def read_evaluation(
    path: Path,
    truth: Mapping[str, tuple[str, States]] | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Read a family's ``reports.jsonl``, as the evaluation writes it, and label its reports.

    Args:
        path: of the file.
        truth: study id -> its patient and its states, where they are known better than the reference's text tells;
            studies that are not in it are left out. None labels the references, each study its own patient.
        cache: folder in which labels are kept, by the content of the file and the version of the rules.
        progress: called with (reports done, reports in all).

    Raises:
        CXRLensError: the file is missing or damaged, or has no study that is known.
    """
    try:
        content = path.read_bytes()
        rows = [json.loads(line) for line in content.decode("utf-8").splitlines() if line.strip()]
        rows = [row for row in rows if truth is None or row["study_id"] in truth]
        systems = [name for name in rows[0] if name not in ("study_id", "reference")] if rows else []
        texts = {name: tuple(str(row[name]) for row in rows) for name in ("reference", *systems)}
        study_ids = tuple(str(row["study_id"]) for row in rows)
    except FileNotFoundError:
        raise CXRLensError(
            f"The reports of the evaluation are not there: {path} is missing. `cxr-lens evaluate --out DIR` writes it."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CXRLensError(f"{path} is damaged ({error!r}). Evaluate again.") from error
    if not rows:
        raise CXRLensError(f"{path} has no study that is known here. Evaluate again with these data.")
    keep = None if cache is None else cache / f"labels-{hashlib.sha256(content).hexdigest()[:24]}-{RULES_VERSION}.npy"
    codes = _labels(list(texts.values()), keep, progress)
    labelled = {name: tuple(map(_named, rows)) for name, rows in zip(texts, codes, strict=True)}
    read = labelled.pop("reference")
    return Evaluation(
        study_ids,
        study_ids if truth is None else tuple(truth[each][0] for each in study_ids),
        texts["reference"],
        read if truth is None else tuple(truth[each][1] for each in study_ids),
        {name: texts[name] for name in systems},
        labelled,
    )


def _labels(
    texts: Sequence[Sequence[str]], keep: Path | None, progress: Callable[[int, int], None] | None
) -> npt.NDArray[np.uint8]:
    """Places in ``LabelState`` of each observation of each report, (systems, studies, 14)."""
    shape = (len(texts), len(texts[0]), len(OBSERVATIONS))
    if keep is not None and keep.is_file():
        try:
            stored = np.load(keep, allow_pickle=False)
            if stored.shape == shape and stored.dtype == np.uint8 and stored.max() < len(_STATES):
                return np.asarray(stored)
        except (OSError, ValueError):
            keep.unlink(missing_ok=True)  # half-written or foreign: computed again
    codes = np.zeros(shape, dtype=np.uint8)
    known: dict[str, list[int]] = {}
    for system, reports in enumerate(texts):
        for place, text in enumerate(reports):
            if text not in known:
                states = label_report(text).states
                known[text] = [_STATES.index(states[name]) for name in OBSERVATIONS]
            codes[system, place] = known[text]
        if progress is not None:
            progress((system + 1) * shape[1], shape[0] * shape[1])
    if keep is not None:
        keep.parent.mkdir(parents=True, exist_ok=True)
        fresh = keep.with_suffix(".part")
        with fresh.open("wb") as file:
            np.save(file, codes)
        fresh.rename(keep)
    return codes


def _named(codes: npt.NDArray[np.uint8]) -> dict[str, LabelState]:
    return {name: _STATES[int(code)] for name, code in zip(OBSERVATIONS, codes, strict=True)}
