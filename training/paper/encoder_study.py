"""Does the paper's order of encoders hold, and was it the encoders or the published code's drifting batch norms?

Its code froze weights only: while a decoder trained, CLIP's batch norms went on, and CVE and CCVE were tested with
other statistics than they were trained with (paper-notes 1.5). FVE's ConvNeXt has none, and DVE is meant to learn. So
the study trains CVE and CCVE both ways, from the same encoders, over several seeds.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import stats

from core.config import ExperimentConfig
from core.evaluation.metrics import METRICS
from core.evaluation.reports import Evaluation, Known, read_evaluation
from core.evaluation.resampling import Comparison, StudyStatistics, compare, intervals, mean_of_seeds, spread
from core.evaluation.results import references_of
from core.paper.tables import Cell, PaperTable, Row, paper_numbers
from core.registry import DECODERS, ENCODERS
from core.types import CXRLensError
from training.data import StudyData
from training.launch import ONE, Placement
from training.paper.chain import run_chain, runs_of
from training.paper.tables import OTHER_DATA, read_results
from training.run_folder import StageError

ORDER = ("fve", "dve", "cve", "ccve")
"""The paper's, by clinical F1."""
DRIFT = "drifting_norms"
DRIFTING = ("cve", "ccve")
"""Encoders whose published network has batch norms, and is frozen."""
DRIFT_NOTE = (
    "Norms drifting: trained again as the published code does, whose frozen encoders' batch norms go on with the "
    "decoder's batches, from the first step on. FVE's and DVE's are not part of that fault."
)
FREQUENT_F1 = "f1_frequent"
SCORED = ("f1", FREQUENT_F1)
COLUMNS = {
    "f1": "macro F1",
    FREQUENT_F1: METRICS[FREQUENT_F1].title,
    "difference": "difference, over studies",
    "difference_frequent": f"difference in {METRICS[FREQUENT_F1].head}, over studies",
    "over_seeds": "difference, over seeds",
}


def train(
    config: ExperimentConfig,
    seeds: int,
    runs: Path,
    jobs: int,
    drifting: Sequence[str] = DRIFTING,
    placement: Placement = ONE,
) -> tuple[list[Path], list[Path]]:
    """Train and score every seed, then CLIP's encoders again with drifting norms; what is done is skipped.

    Args:
        config: the preset.
        seeds: how many.
        runs: folder of run folders; the drifting ones are in ``drifting_norms`` of each seed's.
        jobs: stages side by side.
        drifting: encoders to train the second way, of ``DRIFTING``. Each of their steps encodes its images.
        placement: where.

    Returns:
        The evaluations' folders of both kinds, one a seed; the second is empty where nothing drifts.

    Raises:
        StageError: the preset leaves nothing to compare.
    """
    kept = tuple(name for name in config.encoders if name in drifting)
    _refuse_nothing_to_compare(config, kept)
    steady, drifted = [], []
    for run in runs_of(config, seeds, runs, placement):
        steady.append(run_chain(run, run.folder / "bundles", jobs))
        if not kept:
            continue
        other = replace(run.config, encoders=kept, report=replace(config.report, drifting_norms=True))
        folder = run.folder / DRIFT
        for stage in ("backbone", *(f"clip_{name}" for name in kept)):  # the same encoders
            if (run.folder / stage).is_dir() and not (folder / stage).exists():
                shutil.copytree(run.folder / stage, folder / stage)
        drifted.append(run_chain(replace(run, config=other, folder=folder), folder / "bundles", jobs))
    return steady, drifted


def _refuse_nothing_to_compare(config: ExperimentConfig, drifting: Sequence[str]) -> None:
    if config.report.drifting_norms:
        raise StageError("The study trains encoders both ways itself: leave report.drifting_norms=true out.")
    if len([name for name in ORDER if name in config.encoders]) + len(drifting) < 2:
        raise StageError(
            f"The study compares at least two of the encoders {', '.join(ORDER)}; the preset trains "
            f"{', '.join(config.encoders)}."
        )


@dataclass(frozen=True, slots=True)
class Trained:
    """A pair of one kind, over all seeds.

    Attributes:
        encoder: its name.
        decoder: its name.
        drifting: whether its encoder's batch norms went on while the decoder trained.
        seeds: what each study adds to the scores of `SCORED`, one a seed.
    """

    encoder: str
    decoder: str
    drifting: bool
    seeds: Sequence[StudyStatistics]

    @property
    def title(self) -> str:
        """Of the encoder, as a reader sees it."""
        return ENCODERS[self.encoder].title + ", norms drifting" * self.drifting

    def values(self, score: str = "f1") -> list[float]:
        """A score of each seed."""
        return [each.scores()[score] for each in self.seeds]


def encoder_table(
    config: ExperimentConfig,
    data: StudyData,
    steady: Sequence[Path],
    drifted: Sequence[Path],
    paper: Path,
    command: str,
    drifting: Sequence[str] = DRIFTING,
) -> PaperTable:
    """Macro F1 of every pair over the seeds, each step of the paper's order, and what drifting norms change.

    Args:
        config: the preset.
        data: its studies.
        steady: folders of evaluations, one a seed.
        drifted: likewise, with drifting norms; may be empty.
        paper: folder of the paper's numbers.
        command: that writes the table again.
        drifting: encoders of the second kind.

    Raises:
        StageError: evaluations lack a pair, or are of other studies; the message names the file.
    """
    studies = data.studies["test"][: config.evaluate_studies or None]
    labelled = zip(studies, references_of(data.source, studies).states, strict=True)
    truth = {study.study_id: Known(study.subject_id, states) for study, states in labelled}
    subjects = [study.subject_id for study in studies]
    written = {kind: [_read(each, truth) for each in folders] for kind, folders in ((False, steady), (True, drifted))}

    def trained(encoder: str, decoder: str, *, drifting: bool) -> Trained:
        pair = f"{config.name}-{encoder}-{decoder}"
        return Trained(encoder, decoder, drifting, [_scored(*each, pair) for each in written[drifting]])

    printed = paper_numbers(paper, "encoders")
    order = [name for name in ORDER if name in config.encoders]
    rows = []
    for decoder in config.decoders:
        pairs = {name: trained(name, decoder, drifting=False) for name in order}
        others = {name: trained(name, decoder, drifting=True) for name in order if drifted and name in drifting}
        rows += [_score(each, subjects, printed) for each in (*pairs.values(), *others.values())]
        steps = list(pairwise(pairs.values()))
        steps += [(pairs[name], each) for name, each in others.items()]
        steps += [step for step in pairwise((pairs | others).values()) if step[1].drifting]
        rows += [_step(first, second, subjects, printed) for first, second in steps]
    notes = (
        "The paper's order by clinical F1: " + ", ".join(ENCODERS[name].title for name in ORDER) + ".",
        "Macro F1: mean over seeds, ± their standard deviation. Intervals of the mean over these seeds: of a score put "
        "together from an interval of each observation, of a difference over studies by the jackknife over patients "
        "(none where an observation has too few positives). Over seeds: Student's t of the seeds' differences.",
        *([DRIFT_NOTE] if drifted else []),
        OTHER_DATA,
        str(read_results(steady[0] / "results.json")["protocol"]),
    )
    return PaperTable(
        name="encoders",
        family=config.name,
        metrics=COLUMNS,
        rows=tuple(rows),
        n=len(studies),
        seeds=tuple(range(config.seed, config.seed + len(steady))),
        command=command,
        data=f"{config.name}, held-out split, fingerprint {data.fingerprint()}.",
        notes=notes,
    )


def _score(pair: Trained, subjects: Sequence[str], printed: Mapping[tuple[str, ...], Mapping[str, float]]) -> Row:
    ends = intervals(mean_of_seeds(pair.seeds), subjects=subjects)

    def cell(score: str, paper: float | None) -> Cell:
        values = pair.values(score)
        interval = ends[score]
        return Cell(value=float(np.mean(values)), low=interval.low, high=interval.high, sd=_sd(values), paper=paper)

    printed_f1 = {"f1": _papers(pair, printed)}
    return Row(
        name=f"{pair.title}, {DECODERS[pair.decoder].title}",
        keys={"encoder": pair.encoder, "decoder": pair.decoder} | ({"norms": "drifting"} if pair.drifting else {}),
        metrics={score: cell(score, printed_f1.get(score)) for score in _defined(pair)},
    )


def _step(
    first: Trained,
    second: Trained,
    subjects: Sequence[str],
    printed: Mapping[tuple[str, ...], Mapping[str, float]],
) -> Row:
    """How much the first is above the second."""
    measured = compare(mean_of_seeds(first.seeds), mean_of_seeds(second.seeds), subjects=subjects)
    values = [a - b for a, b in zip(first.values(), second.values(), strict=True)]
    mean, sd = float(np.mean(values)), _sd(values)
    both = [_papers(each, printed) for each in (first, second)]
    of_paper = None if both[0] is None or both[1] is None else both[0] - both[1]
    cells = {"difference": _difference(measured["f1"], of_paper)}
    if FREQUENT_F1 in _defined(first):
        cells["difference_frequent"] = _difference(measured[FREQUENT_F1], None)
    if sd is not None:
        half = float(stats.t.ppf(0.975, len(values) - 1)) * sd / len(values) ** 0.5
        cells["over_seeds"] = Cell(value=mean, low=mean - half, high=mean + half, sd=sd)
    above = sum(value > 0 for value in values)
    seeds = ", ".join(f"{value:+.3f}" for value in values)
    return Row(
        name=f"{first.title} less {second.title}, {DECODERS[first.decoder].title}",
        kind="control" if second.drifting else "system",
        keys={"first": first.encoder, "second": second.encoder, "decoder": first.decoder},
        metrics=cells,
        note=f"Above in {above} of {len(values)} seed{'s' * (len(values) != 1)}: {seeds}.",
    )


def _difference(measured: Comparison, paper: float | None) -> Cell:
    low, high = (None, None) if np.isnan(measured.low) else (measured.low, measured.high)
    return Cell(value=measured.difference, low=low, high=high, paper=paper)


def _defined(pair: Trained) -> list[str]:
    """Scores that these studies have: there may be no frequent observation."""
    return [score for score in SCORED if np.isfinite(pair.values(score)).all()]


def _papers(pair: Trained, printed: Mapping[tuple[str, ...], Mapping[str, float]]) -> float | None:
    """The paper's F1 of a pair; it has none with a choice of norms."""
    return None if pair.drifting else printed.get((pair.encoder, pair.decoder), {}).get("f1")


def _sd(values: Sequence[float]) -> float | None:
    return spread([{"f1": value} for value in values])["f1"].sd if len(values) > 1 else None


def _read(folder: Path, truth: Mapping[str, Known]) -> tuple[Path, Evaluation]:
    """An evaluation's reports of the held-out studies, labelled, and their file.

    Raises:
        StageError: the file is missing or damaged, or lacks a study.
    """
    path = folder / "reports.jsonl"
    if not path.is_file():
        raise StageError(f"{path} is missing: this seed is not evaluated. Run the study again.")
    try:
        found = read_evaluation(path, truth)
    except CXRLensError as error:
        raise StageError(f"{error} Delete {folder} and run the study again.") from error
    if lacking := sorted(set(truth) - set(found.study_ids)):
        raise StageError(_lacks(path, lacking[0]))
    return path, found


def _scored(path: Path, found: Evaluation, pair: str) -> StudyStatistics:
    if pair not in found.texts:
        raise StageError(_lacks(path, pair))
    return found.scored(pair, *SCORED)


def _lacks(path: Path, what: str) -> str:
    return f"{path} has no '{what}': it was written by another setting. Delete its folder and run the study again."
