"""How far an explanation can be believed: what ``cxr-lens explain-benchmark`` measured, read for the pages.

A family of bundles has one file, ``assets/explain/<family>.json``. Only the phantom's true places are known, so other
families have none, and ``measured`` says None.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.types import CXRLensError

Trust = Literal["better", "usual", "unproven", "worse"]
"""Better than maps or rankings that do not look at the image; better than the middle, but no better than the finding's
usual place; no difference shown; worse."""

Interval = tuple[float, float, float]
"""Mean, lower and upper end of its 95 % interval."""

SMOOTHING = 0.04
"""Gaussian that maps of pixels get before they are shown, and all maps before they are compared with a mask, share of
the side; src: Fong and Vedaldi 2017 smooth gradients too. It lets maps of single pixels point at places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of a method for an encoder.

    Attributes:
        method: key of ``training.explain.summary.VARIANTS``: a method of ``core.explain.methods.METHODS``, or a
            variant.
        kind: what was asked: "mention", "sentence", "logit", "report" or "reference".
        questions: how many explanations were scored.
        studies: of how many phantom studies.
        numbers: by name: pointing, energy, iou, average_precision, deletion, insertion, comprehensiveness, sufficiency,
            sanity, stability; see docs/explanations.md.
        gains: above what does not look at the image, on the same questions: of the pointing game over "centre" and
            "usual place"; for filters, of comprehensiveness over "random" rankings.
        trust: see ``Trust``.
        verdict: the same for a radiologist, in one or two sentences.
        command: that measured it.
    """

    method: str
    kind: str
    questions: int
    studies: int
    numbers: Mapping[str, Interval]
    gains: Mapping[str, Interval]
    trust: Trust
    verdict: str
    command: str


def measured(folder: Path, family: str, encoder: str, method: str, kind: str, decoder: str = "") -> Measured | None:
    """Look up a method.

    Args:
        folder: of the results, ``assets/explain``.
        family: of the bundles, "phantom".
        encoder: key in the registry.
        method: see ``Measured.method``.
        kind: see ``Measured.kind``; a word is nearest to "mention".
        decoder: key in the registry; only CCVE's filters are kept by decoder, "" is over all of them.

    Returns:
        None where it was not measured.

    Raises:
        CXRLensError: the file is damaged.
    """
    path = folder / f"{family}.json"
    if not path.is_file():
        return None
    content = _read(path, path.stat().st_mtime_ns)
    wanted = {"encoder": encoder, "decoder": decoder, "method": method, "kind": kind}
    try:
        for entry in content["entries"]:
            if all(entry[key] == value for key, value in wanted.items()):
                numbers, gains = (
                    {name: (float(m), float(low), float(high)) for name, (m, low, high) in entry[part].items()}
                    for part in ("numbers", "gains")
                )
                if not gains:
                    return None
                trust = trust_of(gains)
                studies = int(content["studies"])
                return Measured(
                    method=method,
                    kind=kind,
                    questions=int(entry["n"]),
                    studies=studies,
                    numbers=numbers,
                    gains=gains,
                    trust=trust,
                    verdict=verdict(trust, numbers, gains, studies),
                    command=str(content["command"]),
                )
    except (KeyError, TypeError, ValueError) as error:
        raise CXRLensError(
            f"{path.parent.name}/{path.name} is damaged ({error}). Write it again: cxr-lens explain-benchmark."
        ) from error
    return None


def trust_of(gains: Mapping[str, Interval]) -> Trust:
    """Judge a method by its gains; what the interval leaves open is not claimed."""
    _, low, high = gains["random"] if "random" in gains else gains["centre"]
    if high < 0:
        return "worse"
    if low <= 0:
        return "unproven"
    return "usual" if "usual place" in gains and gains["usual place"][1] <= 0 else "better"


def verdict(trust: Trust, numbers: Mapping[str, Interval], gains: Mapping[str, Interval], studies: int) -> str:
    """Say in plain words how far to trust a method: the advice, then what was measured."""
    if "random" in gains:
        fall, by_chance = numbers["comprehensiveness"][0], numbers["comprehensiveness"][0] - gains["random"][0]
        advice = {
            "better": "It says something about what the report depends on",
            "usual": "It says something about what the report depends on",
            "unproven": "Not shown to be better than chance, so do not read it as the reason for the report",
            "worse": "Worse than chance, so do not read it as the reason for the report",
        }[trust]
        found = (
            f"removing the filters that it ranks first {_changed(fall)} the words' probability by "
            f"{100 * abs(fall):.1f} percentage points, random filters {_changed(by_chance)} it by "
            f"{100 * abs(by_chance):.1f}"
        )
    else:
        hit, middle = numbers["pointing"][0], numbers["pointing"][0] - gains["centre"][0]
        advice = {
            "better": "It shows where the finding is, also away from the usual place of such findings",
            "usual": "Not shown to be better than knowing where such findings usually lie",
            "unproven": "Not shown to beat the image's centre, so do not read it as the place of the finding",
            "worse": "Do not read it as the place of the finding",
        }[trust]
        found = (
            f"its peak hit the finding {100 * hit:.0f} times in 100, the image's centre would hit it "
            f"{100 * middle:.0f} times"
        )
    return f"{advice}: in tests on {studies} synthetic X-rays, {found}.{_caution(numbers)}"


def _changed(fall: float) -> str:
    return "lowered" if fall >= 0 else "raised"


ALIKE = 0.5
"""Rank correlation from which on the map of a model with shuffled weights counts as nearly the same."""


def _caution(numbers: Mapping[str, Interval]) -> str:
    if numbers.get("sanity", (0.0,))[0] >= ALIKE:
        return (
            " A model with shuffled weights gives nearly the same picture, so it shows the image more than the model."
        )
    return ""


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["entries"], list):
            raise ValueError("'entries' is not a list")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CXRLensError(
            f"{path.parent.name}/{path.name} is damaged ({error}). Write it again: cxr-lens explain-benchmark."
        ) from error
    return content
