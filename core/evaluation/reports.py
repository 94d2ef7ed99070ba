"""An evaluation as a reader of results wants it: all reports of held-out studies, labelled, and what differs where."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.evaluation.clinical import clinical_statistics
from core.evaluation.language import language_statistics
from core.evaluation.resampling import Comparison, Interval, StudyStatistics, intervals, join
from core.evaluation.resampling import compare as compare_statistics
from core.files import DiskError, own_folder, read_json_lines, sha256_of, whole_file
from core.labels.compare import Outcome, compare
from core.labels.rules import RULES_VERSION, label_report
from core.observations import OBSERVATIONS, LabelState
from core.tables import plain_id
from core.types import CXRLensError

_STATES = tuple(LabelState)
_REFERENCE = "reference"

States = Mapping[str, LabelState]


class Known(NamedTuple):
    """What is known of a study beside the texts.

    Attributes:
        subject: its patient.
        states: of the 14 observations.
        traits: what studies can be divided by, title -> value, as `core.studies.source.Source.traits`.
        details: its findings in detail, as "mild edema".
    """

    subject: str
    states: States
    traits: Mapping[str, str] = {}
    details: tuple[str, ...] = ()


class NoKnownStudyError(CXRLensError):
    """Reports are of other studies than those that are known."""


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
        references: text of each reference report; all "" where there are none.
        truth: states of each reference; without references what else is known, or blank.
        texts: by system, n reports.
        states: by system, states of each report, read by the rule labeler.
        traits: of each study, see `Known`; empty where nothing is known.
        details: of each study, see `Known`.
        left_out: studies of the file that are not known, so that they are left out.
    """

    study_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    references: tuple[str, ...]
    truth: tuple[States, ...]
    texts: Mapping[str, tuple[str, ...]]
    states: Mapping[str, tuple[States, ...]]
    traits: tuple[Mapping[str, str], ...] = ()
    details: tuple[tuple[str, ...], ...] = ()
    left_out: int = 0

    @cached_property
    def referenced(self) -> bool:
        """Whether there are references; without them there are no outcomes and no scores."""
        return any(text.strip() for text in self.references)

    @cached_property
    def outcomes(self) -> Mapping[str, tuple[Mapping[str, Outcome], ...]]:
        """By system, what became of each observation of each study; nothing where there are no references."""
        if not self.referenced:
            return {name: ({},) * len(self.study_ids) for name in self.states}
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

    def scored(self, system: str, *scores: str) -> StudyStatistics:
        """Some language and clinical scores of a system; METEOR, which needs Java, is not among them.

        Raises:
            KeyError: there is no such score.
        """
        whole = self.statistics[system]
        if not set(scores) <= set(whole.names):
            if system not in self._language:
                self._language[system] = language_statistics(self.references, self.texts[system])
            whole = join(self._language[system], whole)
        return whole.select(*scores)

    @cached_property
    def _language(self) -> dict[str, StudyStatistics]:
        return {}

    def slices(self, system: str, groups: Mapping[str, npt.NDArray[np.bool_]], score: str = "f1") -> list[Slice]:
        """A system's score on groups of studies, the worst first.

        Args:
            groups: name -> (n,) which studies; empty ones are left out.
            score: a name of :meth:`scored`. Of an observation, which a slice may not have at all, better
                ``micro_f1`` than the macro mean, which counts it as 0.
        """
        whole = self.scored(system, score)
        found = []
        for name, chosen in groups.items():
            indices = np.flatnonzero(chosen)
            if not len(indices):
                continue
            part = replace(whole, values=whole.values[indices])
            subjects = [self.subjects[index] for index in indices]
            ends = Interval(np.nan, np.nan)
            if len(set(subjects)) > 1:
                ends = intervals(part, subjects=subjects, resamples=400)[score]
            found.append(Slice(name, len(indices), part.scores()[score], ends.low, ends.high))
        return sorted(found, key=lambda each: each.score)

    def against(self, first: str, second: str, scores: Sequence[str]) -> Mapping[str, Comparison]:
        """The paired tests of two systems, by names of :meth:`scored`."""
        parts = [self.scored(name, *scores) for name in (first, second)]
        return compare_statistics(*parts, subjects=self.subjects)

    def where(self, system: str, observation: str, outcome: Outcome) -> list[str]:
        """Ids of the studies in which a system's report has this outcome for an observation."""
        rows = zip(self.study_ids, self.outcomes[system], strict=True)
        return [study_id for study_id, each in rows if each.get(observation) is outcome]


def read_evaluation(
    path: Path,
    known: Mapping[str, Known] | None = None,
    cache: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Read a family's ``reports.jsonl``, as the evaluation writes it, and label its reports.

    Args:
        known: study id -> what is known better than the reference's text tells; studies that are not in it are left
            out, and counted. None labels the references, each study its own patient.
        cache: folder in which labels are kept, by the content of the file and the version of the rules; those that
            :func:`write_labels` left beside the file are used if they still fit.
        progress: called with (reports done, reports in all).

    Raises:
        NoKnownStudyError: none of its studies is known.
        CXRLensError: the file is missing or damaged, has a study twice, or a text that is none.
    """
    study_ids, texts, key = _read_reports(path)
    chosen = [index for index, study_id in enumerate(study_ids) if known is None or study_id in known]
    if not chosen:
        raise NoKnownStudyError(f"{path} has no study that is known here. Evaluate again with these data.")
    codes = _stored_codes(_beside(path), key, texts)
    if codes is None:
        kept = None if cache is None else cache / f"labels-{key}.npz"
        codes = None if kept is None else _stored_codes(kept, key, texts)
        if codes is None:
            codes = _label(texts, progress)
            if kept is not None:
                with suppress(OSError, DiskError):  # then the next reader waits, as this one did
                    _store(kept, key, codes)
    left_out = len(study_ids) - len(chosen)
    study_ids = tuple(study_ids[index] for index in chosen)
    texts = {name: tuple(each[index] for index in chosen) for name, each in texts.items()}
    labelled = {name: tuple(map(_named, rows[chosen])) for name, rows in zip(texts, codes, strict=True)}
    references = texts.pop(_REFERENCE, ("",) * len(study_ids))
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    read = labelled.pop(_REFERENCE, (blank,) * len(study_ids))
    facts = [
        Known(each, states) if known is None else known[each] for each, states in zip(study_ids, read, strict=True)
    ]
    return Evaluation(
        study_ids,
        tuple(each.subject for each in facts),
        references,
        tuple(each.states for each in facts),
        texts,
        labelled,
        tuple(each.traits for each in facts),
        tuple(each.details for each in facts),
        left_out,
    )


def read_reports(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]]]:
    """The studies of a ``reports.jsonl``, and its reports by system, the reference's first if there is one.

    Raises:
        CXRLensError: the file is missing or damaged.
    """
    study_ids, texts, _ = _read_reports(path)
    return study_ids, texts


def read_texts(path: Path) -> dict[str, tuple[str, ...]]:
    """The reports of a ``reports.jsonl`` by system, as `read_reports`."""
    return read_reports(path)[1]


def write_labels(path: Path) -> Path:
    """Keep the labels of a ``reports.jsonl`` beside it, so that a first reader need not wait; returns their file.

    Raises:
        CXRLensError: the reports are missing or damaged.
    """
    _, texts, key = _read_reports(path)
    _store(_beside(path), key, _label(texts))
    return _beside(path)


def _beside(path: Path) -> Path:
    return path.with_name(path.name.removesuffix("reports.jsonl") + "labels.npz")


def _read_reports(path: Path) -> tuple[tuple[str, ...], dict[str, tuple[str, ...]], str]:
    """Study ids, texts by system, the reference's first if there is one, and what names the labels of this content."""
    try:
        key = f"{sha256_of(path)[:24]}-{RULES_VERSION}"
        rows = list(read_json_lines(path))
    except FileNotFoundError:
        raise CXRLensError(
            f"The reports of the evaluation are not there: {path} is missing. `cxr-lens evaluate --out DIR` writes it."
        ) from None
    except OSError as error:
        raise CXRLensError(f"{path} is damaged ({error.strerror}). Evaluate again.") from error
    if not rows:
        raise CXRLensError(f"{path} is damaged: it holds no study. Evaluate again.")
    lines: dict[str, int] = {}
    texts: dict[str, list[str]] = {}
    for number, row in rows:
        where = f"{path} is damaged: line {number}"
        if not isinstance(row, dict) or "study_id" not in row or len(row) < 2:
            raise CXRLensError(f"{where} has no study_id, or no report. Evaluate again.")
        study_id = _study_id(row.pop("study_id"), where)
        if study_id in lines:
            raise CXRLensError(
                f"{where} is of study {study_id}, as line {lines[study_id]}. A study may be there once; take one out."
            )
        lines[study_id] = number
        if _REFERENCE in row:
            row = {_REFERENCE: row.pop(_REFERENCE), **row}
        if texts and set(row) != set(texts):
            names = ", ".join(sorted(set(row) ^ set(texts)))
            raise CXRLensError(f"{where} and line {rows[0][0]} have not the same systems ({names}). Evaluate again.")
        for name, text in row.items():
            if not isinstance(text, str):
                raise CXRLensError(
                    f"{where}: '{name}' of study {study_id} is {json.dumps(text)[:40]}, no text. The text of a system "
                    'that wrote nothing is "".'
                )
            texts.setdefault(name, []).append(text)
    return tuple(lines), {name: tuple(each) for name, each in texts.items()}, key


def _study_id(value: object, where: str) -> str:
    """An id as text: a number that lost its form in pandas (50414267.0) is the same study."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise CXRLensError(f"{where}: its study_id is {json.dumps(value)[:40]}, no id.")
    return plain_id(str(value))


def _stored_codes(path: Path, key: str, texts: Mapping[str, Sequence[str]]) -> npt.NDArray[np.uint8] | None:
    """Labels that were kept; None where there are none, or they are of other reports, other rules, or damaged."""
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            codes = np.asarray(stored["codes"])
            fits = str(stored["key"]) == key and codes.dtype == np.uint8 and codes.max() < len(_STATES)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # half-written or foreign: computed again
    return codes if fits and codes.shape == _shape(texts) else None


def _shape(texts: Mapping[str, Sequence[str]]) -> tuple[int, int, int]:
    return len(texts), len(next(iter(texts.values()))), len(OBSERVATIONS)


def _store(path: Path, key: str, codes: npt.NDArray[np.uint8]) -> None:
    own_folder(path.parent)
    with whole_file(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(file, codes=codes, key=np.array(key))


def _label(
    texts: Mapping[str, Sequence[str]], progress: Callable[[int, int], None] | None = None
) -> npt.NDArray[np.uint8]:
    """Indices into ``LabelState`` of each observation of each report, (systems, studies, 14)."""
    codes = np.zeros(_shape(texts), dtype=np.uint8)
    known: dict[str, list[int]] = {}
    for system, reports in enumerate(texts.values()):
        for index, text in enumerate(reports):
            if text not in known:
                states = label_report(text).states
                known[text] = [_STATES.index(states[name]) for name in OBSERVATIONS]
            codes[system, index] = known[text]
        if progress is not None:
            progress((system + 1) * len(reports), codes.shape[0] * codes.shape[1])
    return codes


def _named(codes: npt.NDArray[np.uint8]) -> dict[str, LabelState]:
    return {name: _STATES[int(code)] for name, code in zip(OBSERVATIONS, codes, strict=True)}
