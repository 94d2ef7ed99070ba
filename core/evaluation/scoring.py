"""All scores of several systems on the same studies: one row each, with intervals, differences and warnings."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.evaluation.clinical import clinical_scores, clinical_statistics
from core.evaluation.diversity import collapse_warnings, diversity
from core.evaluation.finds import to_row
from core.evaluation.java import Meteor, MeteorError
from core.evaluation.language import DEFAULT_PROTOCOL, LanguageProtocol, language_statistics, meteor_statistics
from core.evaluation.metrics import METRICS, READING
from core.evaluation.resampling import Comparison, StudyStatistics, compare, holm, intervals, join
from core.observations import LabelState

RESAMPLED = tuple(metric.name for metric in METRICS.values() if metric.resampled and metric.name != "meteor")
"""Scores with an interval and a difference; ``meteor`` too, if it is scored."""


@dataclass(frozen=True, slots=True)
class LabeledReports:
    """One report a study, and the states that a labeler, or the phantom's truth, gives it."""

    texts: Sequence[str]
    states: Sequence[Mapping[str, LabelState]]

    def reordered(self, order: Sequence[int]) -> LabeledReports:
        """For study i the report of study ``order[i]``."""
        return LabeledReports([self.texts[index] for index in order], [self.states[index] for index in order])


def system_statistics(
    references: LabeledReports,
    generated: LabeledReports,
    protocol: LanguageProtocol = DEFAULT_PROTOCOL,
    meteor: Meteor | None = None,
) -> StudyStatistics:
    """What each study adds to all language and clinical scores of one system (uncertain counts as not positive).

    Raises:
        MeteorError: METEOR cannot be had for these reports; without `meteor` the other scores can.
    """
    return join(
        language_statistics(references.texts, generated.texts, protocol, meteor),
        clinical_statistics(references.states, generated.states),
    )


def language_scores(
    references: Sequence[str], generated: Sequence[str], protocol: LanguageProtocol, meteor: Meteor | None = None
) -> dict[str, float]:
    """The language scores of one system; without ``meteor`` where that fails on its reports."""
    scores = language_statistics(references, generated, protocol).scores()
    found, _ = _meteor(references, generated, protocol, meteor)
    return scores if found is None else scores | found.scores()


def _meteor(
    references: Sequence[str], generated: Sequence[str], protocol: LanguageProtocol, meteor: Meteor | None
) -> tuple[StudyStatistics | None, str]:
    """METEOR of one system, or why there is none."""
    if meteor is None:
        return None, ""
    try:
        return meteor_statistics(references, generated, meteor, protocol), ""
    except MeteorError as error:
        return None, str(error)


def score_systems(
    references: LabeledReports,
    systems: Mapping[str, LabeledReports],
    *,
    subjects: Sequence[str] | None = None,
    against: str | None = None,
    own: Mapping[str, str] | None = None,
    protocol: LanguageProtocol = DEFAULT_PROTOCOL,
    meteor: Meteor | None = None,
    resamples: int = 1000,
) -> dict[str, dict[str, Any]]:
    """One row of plain numbers, fit for JSON, for each system.

    Args:
        references: of all studies.
        systems: by name, the reports of each for the same studies in the same order.
        subjects: the patient of each study, to resample patients.
        against: the system, as the nearest-report baseline, from which all others' differences are taken.
        own: system -> another one, from which this one's difference is taken too.
        protocol: tokens of the language scores.
        meteor: METEOR's running program; None leaves that score out.
        resamples: of intervals and tests.

    Returns:
        name -> the scores of :func:`language_statistics` and :func:`clinical_statistics` but those of single
        observations, and ``f1_frequent`` where no observation is frequent; ``f1_uncertain_positive``;
        ``by_observation`` (precision, recall, F1, positive references); ``finds`` and ``false_alarms``, counts as of
        `core.evaluation.finds.to_row`; ``distinct``, ``most_frequent``, ``words``, ``reading``, ``warnings``;
        ``missing``: score -> why this system has none, only where METEOR failed on its reports, which leaves those of
        the others;
        ``intervals``: score -> [low, high]; and, but for the system ``against`` itself, ``differences``: score ->
        difference, low, high, p_bootstrap, p_permutation and ``p_holm``, the permutation test's p-value adjusted for
        all systems compared here; low and high are None where no interval would be right. ``differences_own``:
        likewise, of the systems in ``own``, with ``from``, the name of the other one.

    Raises:
        CXRLensError: fewer than two studies or patients; a missing state; METEOR or PTB tokens that fail.
        ValueError: not one reference for each report.
    """
    plain = {name: system_statistics(references, reports, protocol) for name, reports in systems.items()}
    whole = dict(plain)
    lacking: dict[str, str] = {}
    for name, reports in systems.items():
        found, why = _meteor(references.texts, reports.texts, protocol, meteor)
        if found is not None:
            whole[name] = join(plain[name], found)
        elif why:
            lacking[name] = why
    rows = {name: _row(references, systems[name], scores.scores()) for name, scores in whole.items()}
    for name, why in lacking.items():
        rows[name]["missing"] = {"meteor": why}
    parts = {name: _resampled(scores) for name, scores in whole.items()}
    for name, part in parts.items():
        ends = intervals(part, subjects=subjects, resamples=resamples)
        rows[name]["intervals"] = {score: [each.low, each.high] for score, each in ends.items()}

    def differences(others: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        """System -> score -> its difference from another system, Holm's correction over all of these."""
        found: dict[str, Mapping[str, Comparison]] = {}
        for name, other in others.items():
            scores = whole if {name, other}.isdisjoint(lacking) else plain
            pair = (_resampled(scores[name]), _resampled(scores[other]))
            found[name] = compare(*pair, subjects=subjects, resamples=resamples)
        told: dict[str, dict[str, Any]] = {name: {} for name in others}
        for score in (*RESAMPLED, "meteor"):
            adjusted = holm({name: each[score].p_permutation for name, each in found.items() if score in each})
            for name, p in adjusted.items():
                numbers = asdict(found[name][score])
                known = {key: value if math.isfinite(value) else None for key, value in numbers.items()}
                told[name][score] = {**known, "p_holm": p}
        return told

    if against is not None:
        for name, each in differences({name: against for name in systems if name != against}).items():
            rows[name]["differences"] = each
    for name, each in differences(own or {}).items():
        rows[name]["differences_own"] = {"from": (own or {})[name], **each}
    return rows


def _resampled(scores: StudyStatistics) -> StudyStatistics:
    defined = scores.scores()
    return scores.select(
        *(name for name in (*RESAMPLED, "meteor") if name in scores.names and math.isfinite(defined[name]))
    )


def reading(texts: Sequence[str]) -> dict[str, float]:
    """How reports read, beside what they find: shares of the reports, in [0, 1], by name of `READING`."""
    counted = diversity(texts)
    return {name: getattr(counted, name) for name in READING}


def _row(references: LabeledReports, generated: LabeledReports, scores: Mapping[str, float]) -> dict[str, Any]:
    written = diversity(generated.texts)
    by_observation = clinical_scores(references.states, generated.states).by_observation
    return {
        **{name: value for name, value in scores.items() if not name.startswith("f1[") and math.isfinite(value)},
        "f1_uncertain_positive": clinical_scores(references.states, generated.states, uncertain="positive").f1,
        "by_observation": {name: list(values) for name, values in by_observation.items()},
        **to_row(references.states, generated.states),
        "distinct": written.distinct,
        "most_frequent": written.most_frequent,
        "words": written.words,
        "reading": reading(generated.texts),
        "warnings": collapse_warnings(written, diversity(references.texts)),
    }
