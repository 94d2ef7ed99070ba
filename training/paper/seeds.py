"""In: evaluations of trainings that differ in their seed. Out: each pair's scores over them, less the nearest report's.

``cxr-lens table seeds`` prints it; the same as JSON is `as_json`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.evaluation.claims import LEVEL
from core.evaluation.metrics import METRICS
from core.evaluation.resampling import spread
from core.evaluation.scored import FILE, Scored, read_scored
from core.evaluation.seeds import OverSeeds, over_seeds
from core.registry import pair_title
from training.paper.tables import refuse_other_trainings
from training.run_folder import StageError

AGAINST = {"differences": "the nearest report's", "differences_own": "the nearest report's by its own embeddings"}
SCORES = ("f1", "f1_frequent")


def read_seeds(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """Rows of each evaluation by the system's name.

    Raises:
        StageError: fewer than two, not of the same family and studies, twice the same seed, or no system in common.
    """
    if len(results) < 2:
        raise StageError("Seeds are compared of two evaluations or more: name each with --results.")
    refuse_other_trainings(results)
    rows = [{str(row["name"]): row for row in each["rows"]} for each in results]
    if not set.intersection(*(set(each) for each in rows)):
        raise StageError("These evaluations have no system in common. Score the same ones: cxr-lens evaluate.")
    return rows


def read_labels(results: Sequence[Path]) -> list[Scored] | None:
    """The labels beside each results.json; None where one has none.

    Raises:
        CXRLensError: a file is damaged.
    """
    beside = [path.parent / FILE for path in results]
    return [read_scored(path) for path in beside] if all(path.is_file() for path in beside) else None


def as_json(results: Sequence[Mapping[str, Any]], labels: Sequence[Scored] | None = None) -> dict[str, Any]:
    """Scores -> what they are compared with -> name of a system -> `OverSeeds`, as plain values.

    Raises:
        StageError: as `read_seeds`.
        CXRLensError: the labels are not those of the results.
    """
    rows = read_seeds(results)
    return {
        score: {
            against: {name: asdict(each) for name, each in over_seeds(rows, score, against, labels).items()}
            for against in AGAINST
        }
        for score in SCORES
    }


def as_table(results: Sequence[Mapping[str, Any]], labels: Sequence[Scored] | None = None) -> str:
    """Markdown: a row a pair, the highest mean first.

    Raises:
        StageError: as `read_seeds`.
        CXRLensError: the labels are not those of the results.
    """
    rows, compared = read_seeds(results), SCORES[-1]
    values = {score: {name: each.values for name, each in over_seeds(rows, score).items()} for score in SCORES}
    means = {
        score: spread([{name: each[seed] for name, each in of.items()} for seed in range(len(rows))])
        for score, of in values.items()
    }
    differences = {kind: over_seeds(rows, compared, kind, labels) for kind in AGAINST}
    seeds = ", ".join(str(each.get("seed", "?")) for each in results)
    heads = ["system"]
    for score in SCORES:
        heads += [f"{METRICS[score].title}, mean ± SD", f"seed {seeds}"]
    heads += [f"{METRICS[compared].title} less {words}" for words in AGAINST.values()]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for name in sorted(means[SCORES[0]], key=lambda name: -means[SCORES[0]][name].mean):
        cells = [_title(rows[0][name])]
        for score in SCORES:
            told = means[score][name]
            cells += [f"{told.mean:.3f} ± {told.sd:.3f}", ", ".join(f"{each:.3f}" for each in values[score][name])]
        for kind, found in differences.items():
            cells.append(_less(found[name], [each[name].get(kind, {}).get(compared) for each in rows]))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", BY_ENDS if labels is None else BY_STUDY, EACH])


BY_STUDY = (
    "Differences: the mean over the seeds with a 95 % interval by the jackknife over patients, each left out in all "
    "seeds at once; * where the permutation test of the mean has p < 0.05 after Holm's correction."
)
BY_ENDS = (
    "Differences: the mean over the seeds with a 95 % interval over patients, whose ends are the means of the seeds' "
    f"ends (never too narrow). Results that have {FILE} beside them, as today's evaluations, get a narrower one."
)
EACH = "After the colon those of each seed, * where that seed's permutation test has p < 0.05 after Holm's correction."


def _title(row: Mapping[str, Any]) -> str:
    return pair_title(row["encoder"], row["decoder"]) if "encoder" in row else str(row.get("title", row["name"]))


def _less(found: OverSeeds, seeds: Sequence[Mapping[str, Any] | None]) -> str:
    if found.difference is None:
        return "not compared"
    ends = "" if found.low is None or found.high is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    each = [f"{seed['difference']:+.3f}{'*' * over}" for seed, over in zip(seeds, found.above, strict=True) if seed]
    over_all = "*" * (found.p_holm is not None and found.difference > 0 and found.p_holm < LEVEL)
    return f"{found.difference:+.3f}{over_all}{ends}: {', '.join(each)}"
