"""How good fine labels are: on phantom reports, whose modifiers are known, and on the qualifiers of Open-i's codes."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from core.evaluation.label_quality import CodedReport
from core.labels.fine import FineMention, fine_mentions
from core.labels.fine_terms import KIND_OF
from core.labels.mesh import read_code, states_of_codes
from core.observations import NO_FINDING, OBSERVATIONS, LabelState

KINDS = ("severity", "side", "site", "device")

# Words of a code's qualifier beside its own. Coders chose from a short list: "slight" and "minimal" became "mild".
_SAME_SEVERITY = {
    "mild": {"minimal", "slight", "small", "subtle", "tiny", "trace"},
    "small": {"mild", "minimal", "slight", "tiny", "trace"},
    "severe": {"marked", "massive"},
    "large": {"huge", "massive"},
}
_SITE_OF = {
    "apex": "apical",
    "hilum": "hilar",
    "ribs": "rib",
    "sulcus": "costophrenic angle",
    "thoracic vertebrae": "spine",
}

Modifier = tuple[str, str, str]
"""Kind, modifier, observation."""


@dataclass
class Score:
    """Modifiers of one kind, found and true.

    Attributes:
        right: found and true.
        extra: found, not in the reference.
        missed: in the reference, not found.
        disagreements: (report, "+ label" that is extra or "- label" that is missed).
    """

    right: int = 0
    extra: int = 0
    missed: int = 0
    disagreements: list[tuple[str, str]] = field(default_factory=list)

    @property
    def precision(self) -> float:
        """Of what was found, how much is true."""
        return self.right / max(1, self.right + self.extra)

    @property
    def recall(self) -> float:
        """Of what is true, how much was found."""
        return self.right / max(1, self.right + self.missed)

    @property
    def f1(self) -> float:
        """Harmonic mean of both."""
        return 2 * self.right / max(1, 2 * self.right + self.extra + self.missed)


def phantom_scores(count: int, seed: int) -> dict[str, Score]:
    """Compare the fine labels of phantom findings with the known ones.

    Only words that the phantom's reference has anywhere are compared: it lists severity, side, site and device, no
    other adjective.
    """
    from core.studies.phantom import PhantomSource

    source = PhantomSource(count, seed)
    studies = [study for split in ("train", "validate", "test") for study in source.studies(split)]
    references = [set(filter(None, map(_split, study.fine_labels))) for study in studies]
    known = {word for reference in references for _, word, _ in reference}
    scores = {kind: Score() for kind in KINDS}
    found = fine_mentions([study.findings for study in studies])
    for study, reference, mentions in zip(studies, references, found, strict=True):
        read = {modifier for modifier in _found(mentions) if modifier[1] in known}
        for modifier in sorted(reference | read):
            kind, word, observation = modifier
            label = f"{word} {observation}"
            _count(scores[kind], study.study_id, label, true=modifier in reference, read=modifier in read)
    return scores


def openi_scores(reports: Sequence[CodedReport], mentions: Iterable[Sequence[FineMention]]) -> dict[str, Score]:
    """Compare fine labels with the qualifiers of human codes, for observations that a report and its codes both have.

    Right and left together count as bilateral on both sides; a severity that coders would have written otherwise counts
    as right; only sites that coders use are compared.
    """
    references = [_coded(report.codes) for report in reports]
    sites = {word for reference in references for words in reference.values() for kind, word in words if kind == "site"}
    scores = {kind: Score() for kind in KINDS if kind != "device"}
    for report, reference, each in zip(reports, references, mentions, strict=True):
        modifiers = _found(each)
        for observation in sorted({item.mention.observation for item in each} & reference.keys()):
            for kind, score in scores.items():
                true = {word for other, word in reference[observation] if other == kind}
                read = {word for other, word, name in modifiers if other == kind and name == observation.lower()}
                if kind == "side":
                    true, read = _bilateral(true), _bilateral(read)
                elif kind == "site":
                    read &= sites
                else:
                    read = {next((code for code in sorted(true) if _same(code, word)), word) for word in read}
                for word in sorted(true | read):
                    label = f"{word} {observation.lower()}"
                    _count(score, report.uid, label, true=word in true, read=word in read)
    return scores


def quality_table(scores: Mapping[str, Mapping[str, Score]]) -> str:
    """Write scores, by what they were measured on, as a Markdown table."""
    lines = ["| reports | kind | in the reference | precision | recall | F1 |", "|---|---|---:|---:|---:|---:|"]
    for name, by_kind in scores.items():
        for kind, score in by_kind.items():
            total = score.right + score.missed
            lines.append(f"| {name} | {kind} | {total} | {score.precision:.3f} | {score.recall:.3f} | {score.f1:.3f} |")
    return "\n".join(lines)


def disagreements(
    reports: Sequence[CodedReport],
    mentions: Sequence[Sequence[FineMention]],
    scores: Mapping[str, Score],
    count: int,
) -> str:
    """Draw disagreements with codes, with the sentences that speak of the observation and its codes."""
    by_uid = {report.uid: (report, each) for report, each in zip(reports, mentions, strict=True)}
    cases = [case for score in scores.values() for case in score.disagreements]
    parts = [f"{min(count, len(cases))} of {len(cases)} disagreements:"]
    for uid, label in random.Random(0).sample(cases, min(count, len(cases))):
        report, each = by_uid[uid]
        about = [item for item in each if label.endswith(f" {item.mention.observation.lower()}")]
        spans = dict.fromkeys((item.mention.sentence_start, item.mention.sentence_end) for item in about)
        parts.append(f"CXR{uid}: {label}\n  {'; '.join(report.codes)}")
        parts += [f"  {' '.join(report.text[start:end].split())}" for start, end in spans]
    return "\n".join(parts)


def _count(score: Score, report: str, label: str, *, true: bool, read: bool) -> None:
    if true and read:
        score.right += 1
        return
    score.missed += true
    score.extra += read
    score.disagreements.append((report, f"{'-' if true else '+'} {label}"))


def _split(label: str) -> Modifier | None:
    """Split "mild cardiomegaly"; None for a bare observation."""
    for name in sorted(map(str.lower, OBSERVATIONS), key=len, reverse=True):
        if label.endswith(f" {name}"):
            word = label.removesuffix(f" {name}")
            return KIND_OF[word], word, name
    return None


def _found(mentions: Iterable[FineMention]) -> set[Modifier]:
    return {
        (KIND_OF[word], word, item.mention.observation.lower())
        for item in mentions
        for word in item.modifiers
        if KIND_OF.get(word) in KINDS
    }


def _coded(codes: Iterable[str]) -> dict[str, set[tuple[str, str]]]:
    """Return (kind, modifier) of the qualifiers of a report's codes, by observation."""
    coded: dict[str, set[tuple[str, str]]] = {}
    for text in codes:
        words = (_SITE_OF.get(qualifier, qualifier) for qualifier in read_code(text).qualifiers)
        known = {(KIND_OF[word], word) for word in words if KIND_OF.get(word) in KINDS}
        for name, state in (states_of_codes([text]) or {}).items():
            if state is not LabelState.BLANK and name != NO_FINDING:
                coded.setdefault(name, set()).update(known)
    return coded


def _same(code: str, word: str) -> bool:
    return word == code or word in _SAME_SEVERITY.get(code, ())


def _bilateral(sides: set[str]) -> set[str]:
    return {"bilateral"} if "bilateral" in sides or {"right", "left"} <= sides else sides
