"""Which sentences of a family's pairs to trust, measured on validation and test studies, beside the bundles."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_batch, write_from_tokens
from core.evaluation.trust import SCORES, Judged, Kind, Rule, calibrate
from core.evaluation.trust_files import VERSION, FamilyTrust, Trust, trust_file, trust_key, write_trust
from core.evaluation.trust_outcomes import curve, outcome
from core.evaluation.trust_scores import Sentence, measure, other_tokens, sentences_of
from core.files import hash_of, read_json_lines, write_whole
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.packages import versions
from core.studies.model_image import of_study
from core.studies.sources import open_source
from core.types import CXRLensError, Fit, Split, VisualTokens
from training.console import has_no_bars, progress_bar
from training.data import StudyData, to_images

BLOCK = 32
"""Studies in a block: what an interruption loses at most."""
OTHERS = 4
"""Ours: other films whose tokens stand in for a film's own."""
SPLITS: tuple[Split, Split] = ("validate", "test")
WAYS: tuple[tuple[str, ...], ...] = (SCORES, tuple(name for name in SCORES if name != "agreement"))
"""Scores that are used together; a page takes the first way of which it knows all."""
PACKAGES = ("torch", "numpy", "scikit-learn")

Encoder: TypeAlias = tuple[int, Fit]
"""Names an encoder that pairs share, and how its films are fitted."""


@dataclass(frozen=True)
class TrustWork:
    """What is measured.

    Attributes:
        family: of the bundles.
        names: of the pairs, each one of the panel of all others.
        library: where they are.
        data: the family's studies.
        folder: where blocks of measured reports are kept.
        most: studies of each split at most, the first; 0 is all.
    """

    family: str
    names: tuple[str, ...]
    library: BundleLibrary
    data: StudyData
    folder: Path
    most: int = 0

    @cached_property
    def others(self) -> tuple[str, tuple[str, ...]]:
        """Films that stand in for a film's own: phantoms for phantoms, the example radiographs for films of patients.

        A page has both of them at hand.
        """
        key = "phantom:1000:99" if self.data.source.synthetic else "example"
        return key, tuple(open_source(key).all_ids()[:OTHERS])

    @cached_property
    def key(self) -> str:
        """Names all that decides what is measured."""
        made = {name: trust_key(self.library.card(name)) for name in self.names}
        return hash_of([VERSION, made, self.data.fingerprint(), self.others], 16)

    def blocks(self) -> list[tuple[Split, int, int]]:
        """Split, first study and the one after the last of each block."""
        sizes = {split: len(self.data.studies[split]) for split in SPLITS}
        ends = {split: min(size, self.most or size) for split, size in sizes.items()}
        return [
            (split, start, min(start + BLOCK, end)) for split, end in ends.items() for start in range(0, end, BLOCK)
        ]

    def path(self, split: Split, start: int, end: int) -> Path:
        """File of a block."""
        return self.folder / self.key / f"{split}-{start:06}-{end:06}.jsonl"


def measure_sentences(work: TrustWork) -> None:
    """Write, label and measure the reports of validation and test studies; blocks that are there are kept.

    Raises:
        CXRLensError: a bundle is damaged, or a report cannot be written.
    """
    missing = [block for block in work.blocks() if not work.path(*block).is_file()]
    others: dict[Encoder, VisualTokens] = {}
    with progress_bar("block", "  sentences", hidden=has_no_bars()) as tell:
        for done, block in enumerate(missing):
            tell(done, len(missing))
            rows = _measure_block(work, others, *block)
            path = work.path(*block)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
        tell(len(missing), len(missing))


def _measure_block(
    work: TrustWork, others: dict[Encoder, VisualTokens], split: Split, start: int, end: int
) -> list[dict[str, Any]]:
    """A row a study and pair; ``others`` fills with the other films' tokens, by encoder."""
    studies, rows = work.data.studies[split][start:end], []
    seen: dict[Encoder, VisualTokens] = {}
    for name in work.names:
        model = work.library.load(name)
        images = to_images(work.data.images(split, model.image_size, model.fit)[start:end])
        encoder = id(model.encoder), model.fit
        if encoder not in seen:
            seen[encoder] = encode_batch(model, images)
        if encoder not in others:
            source = open_source(work.others[0])
            others[encoder] = other_tokens(model, [model.reads(of_study(source, each)) for each in work.others[1]])
        reports = write_from_tokens(model, seen[encoder], model.write)
        measured = measure(model, images, seen[encoder], reports, others[encoder])
        for study, report, found in zip(studies, reports, measured, strict=True):
            labels = label_report(report.text)
            row = {"study": study.study_id, "pair": name, "warned": found.warned, "distance": _number(found.distance)}
            row["states"] = _kept(labels.states)
            row["sentences"] = [
                [_kept(sentence.states), _number(likelihood), _number(fall)]
                for sentence, likelihood, fall in zip(
                    sentences_of(report, labels), found.likelihood, found.fall, strict=True
                )
            ]
            rows.append(row)
    return rows


def _kept(states: Mapping[str, LabelState]) -> dict[str, str]:
    return {name: state.value for name, state in states.items() if state is not LabelState.BLANK}


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


# ---------------------------------------------------------------------------------------------------------- calibration


def judged_sentences(work: TrustWork, name: str, split: Split) -> Judged:
    """Sentences of a pair's reports that state an observation, of films that its gate does not warn of.

    Raises:
        CXRLensError: not all is measured yet, or a file is damaged.
    """
    rows = _rows(work, split)
    studies = {study.study_id: study for study in work.data.studies[split]}
    found: list[tuple[str, str, Kind, tuple[float, ...], bool]] = []
    for study_id, by_pair in rows.items():
        row, study = by_pair[name], studies[study_id]
        if row["warned"]:
            continue
        panel = [each["states"] for pair, each in by_pair.items() if pair != name]
        for states, likelihood, fall in row["sentences"]:
            sentence = Sentence(0, 0, states)
            if sentence.kind is not None:
                scores = (likelihood, fall, row["distance"], sentence.agreement(panel))
                found.append((study.subject_id, study_id, sentence.kind, scores, sentence.contradicts(study.labels)))
    patients, films, kinds = (np.array([each[place] for each in found], dtype=np.str_) for place in range(3))
    table = np.array([each[3] for each in found], dtype=np.float64).reshape(len(found), len(SCORES))
    return Judged(patients, films, kinds, table, np.array([each[4] for each in found], dtype=np.bool_))


def _rows(work: TrustWork, split: Split) -> dict[str, dict[str, Any]]:
    """By study and pair, with states as they were."""
    found: dict[str, dict[str, Any]] = {}
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for block in work.blocks():
        if block[0] == split:
            path = work.path(*block)
            if not path.is_file():
                raise CXRLensError(f"{path} is missing: not all sentences are measured yet. Run cxr-lens trust again.")
            for _, row in read_json_lines(path):
                row["states"] = blank | _named(row["states"])
                row["distance"] = _value(row["distance"])
                row["sentences"] = [
                    (_named(states), _value(likelihood), _value(fall)) for states, likelihood, fall in row["sentences"]
                ]
                found.setdefault(row["study"], {})[row["pair"]] = row
    return found


def _named(states: Mapping[str, str]) -> dict[str, LabelState]:
    return {name: LabelState(state) for name, state in states.items()}


def _value(value: float | None) -> float:
    return math.nan if value is None else value


def ways_of(work: TrustWork) -> list[tuple[str, ...]]:
    """Scores that are used together; agreement needs at least one pair beside the one that is judged."""
    return [way for way in WAYS if len(work.names) > 1 or "agreement" not in way]


def trust_pairs(work: TrustWork, alpha: float, confidence: float, seed: int) -> dict[str, list[Trust]]:
    """Calibrate each pair's ways on validation studies, and try them on test studies.

    Raises:
        CXRLensError: too few sentences, or numbers out of range.
    """
    found = {}
    for name in work.names:
        validation, test = (judged_sentences(work, name, split) for split in SPLITS)
        found[name] = [
            _tried(calibrate(validation, way, alpha=alpha, confidence=confidence, seed=seed), test)
            for way in ways_of(work)
        ]
    return found


def _counts(judged: Judged) -> dict[str, tuple[int, int]]:
    """Sentences and wrong ones among them, by kind."""
    kinds = {"all": np.ones(len(judged.wrong), dtype=np.bool_), **{kind.value: judged.kinds == kind for kind in Kind}}
    return {name: (int(own.sum()), int(judged.wrong[own].sum())) for name, own in kinds.items()}


def _tried(rule: Rule, test: Judged) -> Trust:
    kinds: dict[str, Kind | None] = {"all": None, **{kind.value: kind for kind in Kind}}
    return Trust(
        rule,
        {name: outcome(rule, test, kind) for name, kind in kinds.items()},
        {name: curve(rule, test, kind) for name, kind in kinds.items()},
    )


def write_family_trust(
    work: TrustWork, alpha: float, confidence: float, seed: int, out: Path, command: str
) -> tuple[Path, FamilyTrust]:
    """Measure what is missing, calibrate, and write the family's file; returns it and what it holds.

    Raises:
        CXRLensError: as of `measure_sentences` and `trust_pairs`.
        DiskError: it cannot be written.
    """
    measure_sentences(work)
    about = {
        "command": command,
        "seed": seed,
        "fingerprint": work.data.fingerprint(),
        "studies": {split: sum(end - start for each, start, end in work.blocks() if each == split) for split in SPLITS},
        "versions": versions(PACKAGES, python=True),
        "validation": {name: _counts(judged_sentences(work, name, "validate")) for name in work.names},
    }
    key, films = work.others
    trust = FamilyTrust(work.names, key, films, trust_pairs(work, alpha, confidence, seed), about)
    path = trust_file(out, work.family)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_trust(path, trust, {name: work.library.card(name) for name in work.names})
    return path, trust
