"""What the explanation benchmark found: means with intervals, the answers to its questions, the table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from core.explain.methods import METHODS
from core.registry import token_names


@dataclass(frozen=True, slots=True)
class Variant:
    """A method as the benchmark runs it.

    Attributes:
        title: in the table.
        method: key of ``METHODS``.
        options: of the method.
    """

    title: str
    method: str
    options: Mapping[str, Any] = field(default_factory=dict)


VARIANTS: Mapping[str, Variant] = {
    **{name: Variant(method.title, name) for name, method in METHODS.items()},
    "layer-grad-cam": Variant("Grad-CAM, one stage earlier", "grad-cam"),
    "integrated-gradients-cells": Variant("Integrated gradients of cells", "integrated-gradients", {"over": "tokens"}),
}
"""What is compared; "layer-grad-cam" gets its layer from the CNN."""

PRIORS = ("random", "centre", "usual place")
"""What does not look at the image: noise, the middle, and where others have the same finding."""

USUAL_RANKING = "usual ranking"
"""What does not look at the image either: how a method ranks CCVE's filters in other studies, on average."""

RESAMPLES = 1000
"""Bootstrap resamples of studies."""

KINDS = {
    "mention": "the words that name the finding",
    "sentence": "the sentence that names it",
    "logit": "CDC's logit of it",
    "report": "the whole report",
    "reference": "the radiologist's report",
}
METRICS = {
    "pointing": "pointing game",
    "energy": "energy inside",
    "iou": "best IoU",
    "average_precision": "pixel AP",
    "deletion": "deletion",
    "insertion": "insertion",
    "comprehensiveness": "comprehensiveness",
    "usual_ranking": "the same ranking for every study",
    "sufficiency": "sufficiency",
    "sanity": "randomised model",
    "stability": "noisy image",
    "image": "attention for the image",
    "missing": "missing to the sum",
}
"""``usual_ranking`` is comprehensiveness too, of the method's mean ranking of the other studies' filters."""
RANKINGS = {"random": "a random ranking", USUAL_RANKING: "the method's own mean ranking of other studies"}
"""Rankings of CCVE's filters that do not look at the image."""
NEEDED = 0.2
"""How far the best map's pointing game must be above the centre prior's."""


def summarise(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Means with 95 % intervals, and the answers to the two questions of the benchmark.

    Args:
        rows: one a pair, method and question; see ``training.explain.benchmark``.
        seed: of the resamples.
    """
    frame = pd.DataFrame(rows)
    for metric in METRICS:
        if metric not in frame:
            frame[metric] = math.nan
    placed = frame[frame["observation"] != ""]
    return {
        "studies": int(frame["study"].nunique()),
        "rows": _grouped(frame, ["encoder", "decoder", "method", "kind"], seed),
        "by_encoder": _grouped(frame, ["encoder", "method", "kind"], seed),
        "gains": _gains(frame, seed),
        "by_observation": _grouped(placed, ["encoder", "method", "kind", "observation"], seed),
        "by_severity": _grouped(placed, ["encoder", "method", "kind", "severity"], seed),
        "pointing": [
            _pointing(part, str(encoder), seed)
            for encoder, part in frame.groupby("encoder", sort=False)
            if part["pointing"].notna().any()
        ],
        "filters": _filters(frame[frame["encoder"].map(lambda name: bool(token_names(name)))], seed),
    }


def _grouped(frame: pd.DataFrame, by: list[str], seed: int) -> list[dict[str, Any]]:
    rows = []
    for names, part in frame.groupby(by, sort=False):
        row: dict[str, Any] = dict(zip(by, names, strict=True))
        row["n"] = len(part)
        for metric in METRICS:
            mean, low, high = interval(part[metric].to_numpy(float), part["study"].to_numpy(), seed)
            if not math.isnan(mean):
                row.update({metric: mean, f"{metric}_low": low, f"{metric}_high": high})
        rows.append(row)
    return rows


def interval(values: npt.NDArray[np.float64], studies: npt.NDArray[Any], seed: int) -> tuple[float, float, float]:
    """Mean and its 95 % interval, by resampling studies: the findings of one study are not independent.

    Args:
        values: NaN where there is none.
        studies: of each value.
        seed: of the resamples.

    Returns:
        Mean, lower and upper end; NaN without values.
    """
    there = ~np.isnan(values)
    if not there.any():
        return math.nan, math.nan, math.nan
    _, index = np.unique(studies[there], return_inverse=True)
    sums, counts = np.bincount(index, values[there]), np.bincount(index)
    drawn = np.random.default_rng(seed).integers(len(sums), size=(RESAMPLES, len(sums)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(sums.sum() / counts.sum()), float(low), float(high)


def _difference(frame: pd.DataFrame, method: str, prior: str, metric: str, seed: int) -> tuple[float, float, float]:
    """Mean difference of a method and a prior on the same questions, with its interval."""
    if prior == USUAL_RANKING:
        part = frame[frame["method"] == method]
        return interval((part[metric] - part["usual_ranking"]).to_numpy(float), part["study"].to_numpy(), seed)
    on = ["study", "decoder", "kind", "observation"]
    ours, theirs = (frame[frame["method"] == each].set_index(on)[metric] for each in (method, prior))
    difference = (ours - theirs).dropna()
    studies = difference.index.get_level_values("study").to_numpy()
    return interval(difference.to_numpy(float), studies, seed)


def _pointing(frame: pd.DataFrame, encoder: str, seed: int) -> dict[str, Any]:
    """The method and kind of question whose maps point best over an encoder's decoders, against the centre prior."""
    ours = frame[~frame["method"].isin(PRIORS)].groupby(["method", "kind"])["pointing"].mean()
    method, kind = cast("tuple[str, str]", ours.idxmax())
    part = frame[frame["kind"] == kind]
    mean, low, high = _difference(part, method, "centre", "pointing", seed)
    return {
        "encoder": encoder,
        "method": method,
        "kind": kind,
        "accuracy": float(ours.max()),
        "centre": float(part[part["method"] == "centre"]["pointing"].mean()),
        "usual_place": float(part[part["method"] == "usual place"]["pointing"].mean()),
        "difference": mean,
        "low": low,
        "high": high,
        "reached": bool(mean >= NEEDED),
    }


def _gains(frame: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """What each method adds to maps and rankings that do not look at the image; filters also by decoder ("" is all)."""
    rows = []
    for names, part in frame.groupby(["encoder", "kind"], sort=False):
        encoder, kind = cast("tuple[str, str]", names)
        placed = part["pointing"].notna().any()
        metric = "pointing" if placed else "comprehensiveness"
        decoders = [("", part)] if placed else [("", part), *part.groupby("decoder", sort=False)]
        for decoder, asked in decoders:
            for method in asked["method"].unique():
                for prior in ("centre", "usual place") if placed else ("random", USUAL_RANKING):
                    mean, low, high = _difference(asked, method, prior, metric, seed)
                    if method not in PRIORS and not math.isnan(mean):
                        about = {"encoder": encoder, "decoder": decoder, "method": method, "kind": kind}
                        rows.append({**about, "prior": prior, "difference": mean, "low": low, "high": high})
    return rows


def _filters(frame: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """Comprehensiveness of rankings of CCVE's filters above that of random ones, and of usual ones."""
    rows = []
    for pair, part in frame.groupby(["decoder", "kind"], sort=False):
        decoder, kind = cast("tuple[str, str]", pair)
        for method in part["method"].unique():
            if method in PRIORS:
                continue
            for prior in ("random", USUAL_RANKING):
                mean, low, high = _difference(part, method, prior, "comprehensiveness", seed)
                if not math.isnan(mean):
                    verdict = (
                        f"beats {prior}" if low > 0 else f"worse than {prior}" if high < 0 else "no difference shown"
                    )
                    row = {"decoder": decoder, "kind": kind, "method": method, "prior": prior, "difference": mean}
                    rows.append({**row, "low": low, "high": high, "verdict": verdict})
    return rows


def compact(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results as ``core.explain.measured`` reads them: by encoder, method and kind; filters by decoder too."""
    gains: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for row in results["gains"]:
        key = tuple(row[part] for part in ("encoder", "decoder", "method", "kind"))
        gains.setdefault(key, {})[row["prior"]] = [round(row[end], 4) for end in ("difference", "low", "high")]
    entries = []
    for row in [*results["by_encoder"], *results["rows"]]:
        about = {part: row.get(part, "") for part in ("encoder", "decoder", "method", "kind")}
        if tuple(about.values()) in gains:
            numbers = {
                metric: [round(row[name], 4) for name in (metric, f"{metric}_low", f"{metric}_high")]
                for metric in METRICS
                if metric in row
            }
            entries.append({**about, "n": row["n"], "numbers": numbers, "gains": gains[tuple(about.values())]})
    kept = {key: results[key] for key in ("command", "fingerprint", "settings", "pairs", "studies")}
    return {**kept, "entries": entries}


# ---------------------------------------------------------------------------------------------------------------- table


def benchmark_markdown(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    rows = results["rows"]
    lines = [
        f"{results['studies']} held-out phantom studies; 95 % intervals from {RESAMPLES} resamples of studies.",
        "",
    ]
    lines += ["### Does the best map beat the middle of the image?", ""]
    for each in results["pointing"]:
        gained, low, high = (100 * each[key] for key in ("difference", "low", "high"))
        lines.append(
            f"- {each['encoder'].upper()}: {_title(each['method'])}, asked for {KINDS[each['kind']]}, points at the "
            f"finding in {each['accuracy']:.0%}, the centre prior in {each['centre']:.0%}, the usual place in "
            f"{each['usual_place']:.0%}. Above the centre: {gained:+.0f} points [{low:+.0f}, {high:+.0f}]; "
            f"{100 * NEEDED:.0f} were asked for: {'reached' if each['reached'] else 'not reached'}."
        )
    lines += ["", "### Does cls-attention beat a ranking of the filters that does not look at the image?", ""]
    asked = [each for each in results["filters"] if each["kind"] in ("report", "reference")]
    for each in (each for each in asked if each["method"] == "cls-attention"):
        lines.append(
            f"- CCVE, {each['decoder']}, {KINDS[each['kind']]}: comprehensiveness {each['difference']:+.4f} "
            f"[{each['low']:+.4f}, {each['high']:+.4f}] against {RANKINGS[each['prior']]}: {each['verdict']}."
        )
    for prior, ranking in RANKINGS.items():
        rows_of_prior = [each for each in asked if each["prior"] == prior]
        lines += ["", *_matrix(f"Filters of CCVE: comprehensiveness above {ranking}", rows_of_prior, "difference", 4)]
    for kind, meaning in KINDS.items():
        part = [row for row in rows if row["kind"] == kind]
        if not part:
            continue
        metrics = [metric for metric in METRICS if any(metric in row for row in part)]
        lines += ["", f"### {kind.capitalize()}: {meaning}", ""]
        lines.append("| encoder | decoder | method | n | " + " | ".join(METRICS[metric] for metric in metrics) + " |")
        lines.append("|---|---|---|---:|" + "---:|" * len(metrics))
        for row in part:
            cells = [_cell(row, metric) for metric in metrics]
            lines.append(
                f"| {row['encoder']} | {row['decoder']} | {_title(row['method'])} | {row['n']} | {' | '.join(cells)} |"
            )
    lines += _best_by(results, "observation") + _best_by(results, "severity")
    return "\n".join(lines) + "\n"


def _title(method: str) -> str:
    return f"*{method}*" if method in PRIORS else VARIANTS[method].title


def _cell(row: Mapping[str, Any], metric: str) -> str:
    return f"{row[metric]:.2f} [{row[f'{metric}_low']:.2f}, {row[f'{metric}_high']:.2f}]" if metric in row else ""


def _matrix(title: str, rows: Sequence[Mapping[str, Any]], value: str, digits: int) -> list[str]:
    """Methods down, decoder and kind across."""
    if not rows:
        return []
    columns = list(dict.fromkeys((row["decoder"], row["kind"]) for row in rows))
    lines = [f"{title}:", "", "| method | " + " | ".join(f"{decoder}, {kind}" for decoder, kind in columns) + " |"]
    lines.append("|---|" + "---:|" * len(columns))
    for method in dict.fromkeys(row["method"] for row in rows):
        found = {(row["decoder"], row["kind"]): row for row in rows if row["method"] == method}
        cells = [
            f"{found[each][value]:+.{digits}f} [{found[each]['low']:+.{digits}f}, {found[each]['high']:+.{digits}f}]"
            if each in found
            else ""
            for each in columns
        ]
        lines.append(f"| {_title(method)} | {' | '.join(cells)} |")
    return lines


def _best_by(results: Mapping[str, Any], what: str) -> list[str]:
    """Pointing game of each encoder's best method, by observation or severity, beside the priors."""
    lines = ["", f"### Pointing game by {what}, of each encoder's best method", ""]
    lines += [f"| encoder | {what} | n | best method | centre | usual place |", "|---|---|---:|---:|---:|---:|"]
    for best in results["pointing"]:
        rows = [r for r in results[f"by_{what}"] if (r["encoder"], r["kind"]) == (best["encoder"], best["kind"])]
        for row in (row for row in rows if row["method"] == best["method"]):
            priors = {
                other["method"]: other for other in rows if other["method"] in PRIORS and other[what] == row[what]
            }
            cells = [_cell(each, "pointing") for each in (row, priors.get("centre", {}), priors.get("usual place", {}))]
            lines.append(f"| {best['encoder']} | {row[what]} | {row['n']} | {' | '.join(cells)} |")
    return lines
