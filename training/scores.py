"""What an evaluation is given beside its preset: reports from elsewhere, another labeler, scores of other programs."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.evaluation.labelers import RULES, Labeler, chexbert
from core.files import sha256_of
from core.systems.added import Reports, system
from core.systems.pairs import pairs
from core.systems.report_files import read_report_file
from core.types import CXRLensError
from training.console import warn

if TYPE_CHECKING:
    from core.evaluation.outside import OutsideScores
    from core.systems.system import System

_SHOWN = 5


def read_others(files: Sequence[str], names: Sequence[str], taken: Sequence[str], bundles: Path) -> list[System]:
    """The systems that are scored beside pairs.

    Args:
        files: NAME=FILE each.
        names: of systems that were added, or of bundles.
        taken: names that mean something else.
        bundles: folder of bundles.

    Raises:
        CXRLensError: one is not NAME=FILE, cannot be read, is not there, or two have one name.
    """
    known = {each.name: each for each in pairs(bundles)} if names else {}
    found: list[System] = [*read_files(files, taken), *(known.get(name) or system(name) for name in names)]
    _refuse_twice(found, taken)
    return found


def read_files(files: Sequence[str], taken: Sequence[str]) -> list[Reports]:
    """Files of reports as systems; rows that are left out are told.

    Args:
        files: NAME=FILE each.
        taken: names that mean something else.

    Raises:
        CXRLensError: one is not NAME=FILE, cannot be read, or two have one name.
    """
    found: list[Reports] = []
    for each in files:
        name, equals, path = each.partition("=")
        if not (equals and name.strip() and path.strip()):
            raise CXRLensError(f"--reports {each}: it should be NAME=FILE, as --reports mine=mine.csv.")
        file = Path(path).expanduser()
        read = read_report_file(file)
        for problem in read.problems[:_SHOWN]:
            warn(f"note: {problem}")
        found.append(
            Reports(name, name, "Reports from elsewhere", f"Read from {file.name}.", read.rows, sha256_of(file))
        )
    _refuse_twice(found, taken)
    return found


def _refuse_twice(found: Sequence[System], taken: Sequence[str]) -> None:
    twice = [
        each.name for number, each in enumerate(found) if each.name in [*taken, *(one.name for one in found[:number])]
    ]
    if twice:
        raise CXRLensError(f"Two systems are called '{twice[0]}'. Call one of them otherwise: --reports NAME=FILE.")


def read_labeler(name: str, checkpoint: Path | None, device: str) -> Labeler:
    """The labeler of this name.

    Raises:
        CXRLensError: CheXbert cannot be loaded.
    """
    if name != "chexbert":
        return RULES
    if checkpoint is None:
        raise CXRLensError(
            "CheXbert needs its published checkpoint: --checkpoint FILE, or CXR_CHEXBERT. See docs/chexbert.md."
        )
    return chexbert(checkpoint, device)


def scores_markdown(scores: OutsideScores, subjects: Sequence[str], name: str) -> str:
    """Scores of other programs as a Markdown table: mean, 95 % interval, and the difference from the first system."""
    systems = list(scores.values)
    lines = [f"Scores of {name}, with 95 % intervals:", "", f"| system | {' | '.join(scores.metrics)} |"]
    lines.append("|---|" + "---:|" * len(scores.metrics))
    for each in systems:
        cells = []
        for metric in scores.metrics:
            mean, studies = scores.mean(each, metric)
            ends = scores.interval(each, metric, subjects)
            cells.append(f"{mean:.3f}" + (f" ({ends.low:.3f} to {ends.high:.3f})" if ends else "") if studies else "–")
        lines.append(f"| {each} | {' | '.join(cells)} |")
    for other in systems[1:]:
        for metric in scores.metrics:
            test = scores.against(systems[0], other, metric, subjects)
            if test is not None:
                lines.append(
                    f"- {metric}: {systems[0]} {test.difference:+.3f} against {other} ({test.low:+.3f} to "
                    f"{test.high:+.3f}; p = {test.p_permutation:.3f}, paired permutation test)"
                )
    return "\n".join([*lines, "", *scores.told]).rstrip() + "\n"


def keep_scores(path: Path, out: Path) -> None:
    """Put a table of scores beside the results, where pages look for it."""
    target = out / "scores.csv"
    if path.resolve() != target.resolve():
        shutil.copyfile(path, target)
