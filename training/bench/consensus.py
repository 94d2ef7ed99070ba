"""Does a vote of pairs find more than the best of them? ``python -m training.bench.consensus PRESET REPORTS``.

In: the reports of held-out studies that ``cxr-lens evaluate --out`` wrote, a file a seed. Out: scores of the best pair,
of the vote, and of the report that is most like it. What is chosen for one half of the patients, the best pair and how
many votes say a finding, is chosen on the other half.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.evaluation.clinical import decision_statistics
from core.evaluation.resampling import compare
from core.evaluation.results import label_texts
from core.files import read_json_lines
from core.observations import OBSERVATIONS, LabelState
from training.options import read_preset
from training.stages.run import Run

SCORES = ("f1", "f1_frequent")
BEST, VOTE, ALIKE = "best pair", "vote", "report most like the vote"
Said = npt.NDArray[np.bool_]


def said_in(texts: Sequence[str]) -> Said:
    """Which findings reports state as present: (reports, observations)."""
    states = label_texts(texts).states
    return np.array([[each[name] is LabelState.POSITIVE for name in OBSERVATIONS] for each in states])


def f1(written: Said, references: Said) -> npt.NDArray[np.float64]:
    """Of each observation, 0 where nobody says it."""
    scores = decision_statistics(references, written).scores()
    return np.array([scores[f"f1[{name}]"] for name in OBSERVATIONS])


def votes_needed(votes: npt.NDArray[np.int64], references: Said, of: int) -> npt.NDArray[np.int64]:
    """For each observation the number of votes from which it is said, by the best F1; the most of equal ones."""
    scores = np.array([f1(votes >= needed, references) for needed in range(1, of + 1)])
    return of - np.argmax(scores[::-1], axis=0)


def consensus(written: Said, references: Said, second: npt.NDArray[np.bool_]) -> dict[str, Said]:
    """What is said by the best pair, by the vote, and by the report most like the vote: (studies, observations) each.

    Args:
        written: (pairs, studies, observations).
        references: (studies, observations).
        second: (studies,), which half each study is in.
    """
    votes = written.sum(0)
    found = {name: np.zeros_like(references) for name in (BEST, VOTE, ALIKE)}
    for half in (False, True):
        here, other = second == half, second != half
        order = np.argsort([-f1(each[other], references[other]).mean() for each in written], kind="stable")
        found[BEST][here] = written[order[0], here]
        vote = votes[here] >= votes_needed(votes[other], references[other], len(written))
        found[VOTE][here] = vote
        unlike = (written[order][:, here] != vote).sum(2)  # of equal ones the better pair's
        found[ALIKE][here] = written[order][np.argmin(unlike, axis=0), np.flatnonzero(here)]
    return found


def table(preset: str, path: Path) -> list[str]:
    """Lines of Markdown for one seed."""
    rows = [row for _, row in read_json_lines(path)]
    config = read_preset(preset, None)
    subjects = {each.study_id: each.subject_id for each in Run(config, Path("runs") / preset).data.studies["test"]}
    patients = [subjects[row["study_id"]] for row in rows]
    names = [name for name in rows[0] if name not in ("study_id", "reference")]
    references = said_in([row["reference"] for row in rows])
    written = np.array([said_in([row[name] for row in rows]) for name in names])
    place = {patient: number for number, patient in enumerate(dict.fromkeys(patients))}
    found = consensus(written, references, np.array([place[patient] % 2 == 1 for patient in patients]))
    counted = {name: decision_statistics(references, said) for name, said in found.items()}
    lines = [f"{path}: {len(names)} pairs, {len(rows)} studies of {len(place)} patients", ""]
    lines += ["| what | macro F1 | less the best pair's | at least 10 positives | less the best pair's |"]
    lines += ["|---|---:|---:|---:|---:|"]
    for name, each in counted.items():
        scores, cells = each.scores(), []
        less = compare(each, counted[BEST], subjects=patients)
        for score in SCORES:
            found_less = less[score]
            between = "" if np.isnan(found_less.low) else f" [{found_less.low:+.3f}, {found_less.high:+.3f}]"
            told = "" if name == BEST else f"{found_less.difference:+.3f}{between}, p {found_less.p_permutation:.3f}"
            cells += [f"{scores[score]:.3f}", told]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print a table a seed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset")
    parser.add_argument("reports", nargs="+", type=Path, help="reports.jsonl of an evaluation, one a seed")
    asked = parser.parse_args()
    for path in asked.reports:
        sys.stdout.write("\n".join([*table(asked.preset, path), "", ""]))


if __name__ == "__main__":
    main()
