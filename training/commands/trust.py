"""``cxr-lens trust``: which sentences of a pair's reports can be marked as reliable, and how often that is wrong."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.paths import BUNDLES, RUNS
from core.types import CXRLensError
from training.console import print_result, resumable
from training.options import AsJson, BundleNames, Bundles, Overrides, Preset, Runs, Seed, read_preset

if TYPE_CHECKING:
    from collections.abc import Sequence

    from core.evaluation.trust_files import FamilyTrust
    from core.evaluation.trust_outcomes import Draw, Found
    from training.stages.trust import TrustWork


def trust(
    preset: Preset = "phantom",
    overrides: Overrides = None,
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    runs: Runs = RUNS,
    out: Annotated[
        Path | None, typer.Option(help="Folder of <preset>-trust.json.", show_default="that of the bundles")
    ] = None,
    alpha: Annotated[float, typer.Option(help="Of marked sentences, the share of wrong ones at most.")] = 0.1,
    confidence: Annotated[float, typer.Option(help="Probability that this holds.")] = 0.9,
    studies: Annotated[int, typer.Option(min=0, help="Studies of each split at most, the first; 0: all.")] = 0,
    draws: Annotated[
        int, typer.Option(min=0, help="Also calibrate so often with patients drawn anew, and count how often it fails.")
    ] = 0,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Learn which sentences of reports to mark as reliable, on validation studies, and try that on test studies.

    The pairs that are named are also each other's panel: their agreement is one of the scores. Interrupted, it goes on
    where it stopped.
    """
    if not 0 < alpha < 1 or not 0 < confidence < 1:
        raise CXRLensError("--alpha and --confidence lie between 0 and 1, both excluded, as 0.1 and 0.9.")
    config = read_preset(preset, overrides)
    from core.bundles.library import BundleLibrary
    from training.evaluate import cards_of
    from training.stages.run import Run
    from training.stages.trust import TrustWork, write_family_trust
    from training.threads import use_threads_for

    use_threads_for(config.size)
    known = [card.name for card in cards_of(config.name, bundles)]
    if unknown := [name for name in bundle or () if name not in known]:
        raise CXRLensError(
            f"There is no bundle '{unknown[0]}' of {config.name} in {bundles}. Those: {', '.join(known)}."
        )
    names = tuple(name for name in known if not bundle or name in bundle)
    run = Run(config, runs / config.name)
    work = TrustWork(config.name, names, BundleLibrary(bundles), run.data, run.folder / "trust", studies)
    asked = [part for name in bundle or () for part in ("--bundle", name)]
    asked += ["--alpha", f"{alpha:g}", "--confidence", f"{confidence:g}", "--seed", str(seed)]
    command = shlex.join(["cxr-lens", "trust", "--preset", preset, *asked])
    with resumable():
        path, found = write_family_trust(work, alpha, confidence, seed, out or bundles, command)
        drawn = _draw(work, draws, alpha, confidence, seed)
    result = {"file": path, "bytes": path.stat().st_size, "pairs": _numbers(found), "draws": drawn}
    print_result(result, as_json, lambda: _text(path, found, drawn))


def _draw(work: TrustWork, draws: int, alpha: float, confidence: float, seed: int) -> list[dict[str, Any]]:
    """Of each pair and way, what calibrations with other patients did."""
    import numpy as np

    from core.evaluation.trust import Judged, Kind
    from core.evaluation.trust_outcomes import redraw
    from training.stages.trust import SPLITS, judged_sentences, ways_of

    found = []
    for name in work.names if draws else ():
        validation, test = (judged_sentences(work, name, split) for split in SPLITS)
        parts = (
            np.concatenate([getattr(each, part) for each in (validation, test)])
            for part in ("patients", "films", "kinds", "scores", "wrong")
        )
        both, patients = Judged(*parts), len(np.unique(validation.patients))
        for way in ways_of(work):
            done = redraw(both, way, patients, draws=draws, alpha=alpha, confidence=confidence, seed=seed)
            row: dict[str, Any] = {"pair": name, "scores": list(way), "draws": draws}
            row |= {kind or "all": _drawn([each[kind] for each in done], alpha) for kind in (None, *Kind)}
            found.append(row)
    return found


def _drawn(outcomes: Sequence[Draw], alpha: float) -> dict[str, float]:
    """Means over draws, and the shares of draws in which too many marked sentences were wrong."""
    count = len(outcomes)
    means = {name: sum(getattr(each, name) for each in outcomes) / count for name in ("marked", "by_patient", "error")}
    return means | {
        "above_by_patient": sum(each.by_patient > alpha for each in outcomes) / count,
        "above": sum(each.error > alpha for each in outcomes) / count,
    }


def _numbers(found: FamilyTrust) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        name: [{"scores": each.rule.scores, **{kind: asdict(one) for kind, one in each.found.items()}} for each in ways]
        for name, ways in found.pairs.items()
    }


def _text(path: Path, found: FamilyTrust, drawn: list[dict[str, Any]]) -> str:
    """For a reader, as tables in Markdown."""
    lines = [
        "| pair | scores | sentences | wrong, of validation | of test | marked | wrong, of marked | of a patient's |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, ways in found.pairs.items():
        for way in ways:
            for kind, each in way.found.items():
                count, wrong = found.about["validation"][name][kind]
                before = f"{wrong / count:.1%}" if count else "–"
                lines.append(
                    f"| {name} | {_of(way.rule.scores)} | {kind}: {each.sentences:,} | {before} | {_share(each)} |"
                )
    if drawn:
        lines += [
            "",
            f"Calibrated anew {drawn[0]['draws']} times, with as many patients as the validation split has, and tried "
            "on the others:",
            "",
            "| pair | scores | sentences | marked | wrong, of a patient's marked | draws above the limit | "
            "wrong, of all marked | draws above the limit |",
            "|---|---|---|---:|---:|---:|---:|---:|",
        ]
        lines += [
            f"| {row['pair']} | {_of(row['scores'])} | {kind} | {row[kind]['marked']:.0%} | "
            f"{row[kind]['by_patient']:.1%} | {row[kind]['above_by_patient']:.0%} | {row[kind]['error']:.1%} | "
            f"{row[kind]['above']:.0%} |"
            for row in drawn
            for kind in ("all", "present", "absent")
        ]
    return "\n".join([*lines, "", f"written: {path}, {path.stat().st_size / 1000:.0f} kB"])


def _of(scores: Any) -> str:
    return "with agreement" if "agreement" in scores else "alone"


def _share(found: Found) -> str:
    before = f"{found.all_wrong / found.sentences:.1%}" if found.sentences else "–"
    if not found.marked:
        return f"{before} | none | – | –"
    error = f"{found.error:.1%} [{found.low:.1%}, {found.high:.1%}]"
    return f"{before} | {found.marked:,} ({found.marked / found.sentences:.0%}) | {error} | {found.by_patient:.1%}"
