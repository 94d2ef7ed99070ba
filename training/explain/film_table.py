"""What was measured of explanations on real films: means with intervals, gains, the method that is best, the table."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from core.registry import token_names
from training.explain.summary import PRIORS, RESAMPLES, VARIANTS, interval

KINDS = {
    "sentence": "the report's own sentence, where it names the finding",
    "given": 'a given sentence that names finding and side, as "there is a left pleural effusion"',
    "logit": "the logit of the encoder's classifier (FVE's CDC)",
    "found": "the logit of the observation that the pair finds before it writes",
    "likeness": "the likeness of CLIP's image and the given sentence (CVE; CCVE through the finding's filter)",
}
"""How a finding in a box was asked for."""

OF_ENCODER = ("logit", "found", "likeness")
"""Kinds that are asked of one pair for its encoder; what was measured stands for all pairs with it."""

METRICS = {
    "pointing": "pointing game",
    "energy": "energy inside",
    "iou": "best IoU",
    "average_precision": "pixel AP",
    "sanity": "randomised model",
    "stability": "noisy image",
}

NEEDED = 0.1
"""How far the best map's pointing game should be above that of the usual place."""

_KEY = ["study", "decoder", "kind", "finding"]


def summarise(rows: Sequence[Mapping[str, Any]], seed: int) -> dict[str, Any]:
    """Means with 95 % intervals by resampled patients, gains above the priors, and the best method of each.

    Args:
        rows: one a pair, method and question; see ``training.explain.films``.
        seed: of the resamples.
    """
    frame = pd.DataFrame(rows)
    found = []
    for names, part in frame.groupby(["encoder", "decoder", "kind", "method"], sort=False):
        encoder, decoder, kind, method = cast("tuple[str, str, str, str]", names)
        row: dict[str, Any] = {"encoder": encoder, "decoder": decoder, "kind": kind, "method": method, "n": len(part)}
        for metric in METRICS:
            if metric in part and part[metric].notna().any():
                row[metric] = _interval(part[metric], part["patient"], seed)
        asked = frame[(frame["encoder"] == encoder) & (frame["decoder"] == decoder) & (frame["kind"] == kind)]
        row["gains"] = {} if method in PRIORS else _gains(asked, part, seed)
        found.append(row)
    return {
        "studies": int(frame["study"].nunique()),
        "named": _named(frame),
        "rows": found,
        "best": [
            best
            for names, part in frame.groupby(["encoder", "kind"], sort=False)
            if (best := best_of(part, *cast("tuple[str, str]", names), seed))
        ],
        "by_finding": _by(frame, "finding", seed),
        "by_size": _by(frame, "size", seed),
    }


def _interval(values: pd.Series, patients: pd.Series, seed: int) -> list[float]:
    return [round(each, 4) for each in interval(values.to_numpy(float), patients.to_numpy(), seed)]


def _gains(asked: pd.DataFrame, part: pd.DataFrame, seed: int) -> dict[str, list[float]]:
    """By prior: the pointing game of a method above the prior's, on the same questions."""
    found = {}
    for prior in PRIORS:
        theirs = asked[asked["method"] == prior][[*_KEY, "pointing"]]
        both = part.merge(theirs, on=_KEY, suffixes=("", "_prior"))
        if len(both):
            found[prior] = _interval(both["pointing"] - both["pointing_prior"], both["patient"], seed)
    return found


def _named(frame: pd.DataFrame) -> dict[str, dict[str, float]]:
    """By pair: in what share of the films that have it the report names a finding."""
    found: dict[str, dict[str, float]] = {}
    for names, part in frame[frame["method"] == "centre"].groupby(["encoder", "decoder"], sort=False):
        encoder, decoder = cast("tuple[str, str]", names)
        asked = part.drop_duplicates(["study", "finding"])["finding"].value_counts()
        named = part[part["kind"] == "sentence"]["finding"].value_counts()
        shares = (named.reindex(asked.index).fillna(0) / asked).round(3)
        found[f"{encoder}, {decoder}"] = {str(finding): float(share) for finding, share in shares.items()}
    return found


def _half(patient: object) -> int:
    """Which half a patient is in, always the same."""
    return hashlib.sha256(str(patient).encode()).digest()[0] % 2


def best_of(part: pd.DataFrame, encoder: str, kind: str, seed: int) -> dict[str, Any]:
    """The method that points best over an encoder's decoders, chosen on one half of the patients, scored on the other.

    Both halves are scored so, with the method that the other half chose: the choice does not flatter the result.
    """
    half = part["patient"].map(_half)
    ours = part[~part["method"].isin(PRIORS)]
    picked, kept = [], []
    for scored in (0, 1):
        means = ours[half[ours.index] != scored].groupby("method")["pointing"].mean()
        if means.empty:
            continue
        picked.append(str(means.idxmax()))
        kept.append(ours[(half[ours.index] == scored) & (ours["method"] == picked[-1])])
    chosen = pd.concat(kept) if kept else ours[:0]
    if chosen.empty:
        return {}
    gains = _gains(part, chosen, seed)
    return {
        "encoder": encoder,
        "kind": kind,
        "methods": list(dict.fromkeys(picked)),
        "n": len(chosen),
        "pointing": _interval(chosen["pointing"], chosen["patient"], seed),
        "gains": gains,
        "reached": bool(gains.get("usual place", [-1.0])[0] >= NEEDED),
    }


def _by(frame: pd.DataFrame, what: str, seed: int) -> list[dict[str, Any]]:
    """Pointing of every method and prior by finding or size of the box, over an encoder's decoders."""
    rows = []
    for names, part in frame.groupby(["encoder", "kind", what, "method"], sort=False):
        row: dict[str, Any] = dict(zip(("encoder", "kind", what, "method"), names, strict=True))
        rows.append({**row, "n": len(part), "pointing": _interval(part["pointing"], part["patient"], seed)})
    return rows


def compact(results: Mapping[str, Any]) -> dict[str, Any]:
    """The results as ``core.explain.measured`` reads them: pointing and gains, by pair, method and kind."""
    entries = []
    for row in results["rows"]:
        if "centre" not in row["gains"]:
            continue
        of_pixels = "-pixels" if token_names(row["encoder"]) else ""  # its other maps are rankings of filters
        entries.append(
            {
                "encoder": row["encoder"],
                "decoder": "" if row["kind"] in OF_ENCODER else row["decoder"],
                "method": row["method"] + of_pixels,
                "kind": row["kind"],
                "n": row["n"],
                "numbers": {name: _short(row[name]) for name in ("pointing", "sanity") if name in row},
                "gains": {name: _short(row["gains"][name]) for name in PRIORS[1:] if name in row["gains"]},
            }
        )
    kept = {key: results[key] for key in ("command", "fingerprint", "settings", "pairs", "studies", "films")}
    return {**kept, "entries": entries}


def _short(values: Sequence[float]) -> list[float]:
    return [round(each, 3) for each in values]


# ---------------------------------------------------------------------------------------------------------------- table


def films_markdown(results: Mapping[str, Any]) -> str:
    """The results as Markdown."""
    films, boxes = results["films"], results["boxes"]
    lines = [
        f"{results['studies']} films of {results['patients']} patients, {films['title']}, {films['truth']}: "
        + ", ".join(f"{finding} {count}" for finding, count in boxes.items())
        + f". Seed {results['settings']['seed']}; 95 % intervals from {RESAMPLES} resamples of patients.",
        *([f"Images: {films['credit']}."] if films["credit"] else []),
        "",
        "### Does the best map beat the usual place of the finding?",
        "",
    ]
    lines += [_answer(each) for each in results["best"]]
    for pair, sentences in results["unknown_words"].items():
        lines += [f"- {pair} lacks a word of, and was not asked for: {'; '.join(sentences)}"]
    lines += ["", "### How often the report names the finding in the box", ""]
    lines += ["| pair | " + " | ".join(boxes) + " |", "|---|" + "---:|" * len(boxes)]
    for pair, shares in results["named"].items():
        lines.append(f"| {pair} | " + " | ".join(f"{shares[f]:.0%}" if f in shares else "" for f in boxes) + " |")
    for kind, meaning in KINDS.items():
        part = [row for row in results["rows"] if row["kind"] == kind]
        if part:
            lines += ["", f"### Asked by {meaning}", "", *_table(part)]
    for what, title in (("finding", "finding"), ("size", "size of the box")):
        lines += ["", f"### Pointing game by {title}, of the best method of each encoder", "", *_split(results, what)]
    return "\n".join(lines) + "\n"


def _answer(best: Mapping[str, Any]) -> str:
    title = " or ".join(_title(method) for method in best["methods"])
    pointing = best["pointing"]
    text = (
        f"- {best['encoder'].upper()}, {best['kind']}: {title} points into the box in {pointing[0]:.0%} of {best['n']} "
        f"questions"
    )
    for prior, name in (("centre", "the middle"), ("usual place", "the usual place")):
        if prior in best["gains"]:
            gain, low, high = (100 * each for each in best["gains"][prior])
            text += f", {gain:+.0f} points [{low:+.0f}, {high:+.0f}] above {name}"
    return f"{text}; {100 * NEEDED:.0f} above the usual place: {'reached' if best['reached'] else 'not reached'}."


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    metrics = [metric for metric in METRICS if any(metric in row for row in rows)]
    heads = ["encoder", "decoder", "method", "n", *(METRICS[metric] for metric in metrics)]
    heads += ["above the middle", "above the usual place"]
    lines = ["| " + " | ".join(heads) + " |", "|---|---|---|---:|" + "---:|" * (len(metrics) + 2)]
    for row in rows:
        cells = [_cell(row.get(metric)) for metric in metrics]
        cells += [_cell(row["gains"].get(prior), "+") for prior in ("centre", "usual place")]
        about = [row["encoder"], row["decoder"], _title(row["method"]), str(row["n"])]
        lines.append("| " + " | ".join([*about, *cells]) + " |")
    return lines


def _split(results: Mapping[str, Any], what: str) -> list[str]:
    lines = [
        f"| encoder | asked by | {what} | n | best method | middle | usual place |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for best in results["best"]:
        rows = [
            row for row in results[f"by_{what}"] if (row["encoder"], row["kind"]) == (best["encoder"], best["kind"])
        ]
        found = {(row[what], row["method"]): row for row in rows}
        for name in dict.fromkeys(row[what] for row in rows):
            ours = found.get((name, best["methods"][0]))
            if ours is None:
                continue
            cells = [_cell(found.get((name, method), {}).get("pointing")) for method in PRIORS[1:]]
            about = [best["encoder"], best["kind"], name, str(ours["n"]), _cell(ours["pointing"])]
            lines.append("| " + " | ".join([*about, *cells]) + " |")
    return lines


def _title(method: str) -> str:
    return f"*{method}*" if method in PRIORS else VARIANTS[method].title


def _cell(values: Sequence[float] | None, sign: str = "") -> str:
    if values is None or math.isnan(values[0]):
        return ""
    mean, low, high = values
    return f"{mean:{sign}.2f} [{low:{sign}.2f}, {high:{sign}.2f}]"
