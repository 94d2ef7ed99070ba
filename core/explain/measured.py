"""How far an explanation can be believed: what ``cxr-lens explain-benchmark`` measured, read for the pages.

A family of bundles has one file, ``assets/explain/<family>.json``. Pairs of the phantom were asked about phantoms,
whose true places are known, others about real films, on which radiologists drew boxes. Of a family without a file
``measured`` says None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from core.types import CXRLensError

Trust = Literal["better", "usual", "unproven", "worse"]
"""Better than maps or rankings that do not look at the image; better than the middle or than a random ranking, but no
better than the finding's usual place or the usual ranking; no difference shown; worse."""

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
        kind: what was asked: "mention", "sentence", "given" (a sentence that the report need not have), "logit",
            "likeness", "report" or "reference".
        questions: how many explanations were scored.
        studies: of how many phantoms, or films.
        numbers: by name: pointing, energy, iou, average_precision, deletion, insertion, comprehensiveness, sufficiency,
            sanity, stability; see docs/explanations.md.
        gains: above what does not look at the image, on the same questions: of the pointing game over "centre" and
            "usual place"; for filters, of comprehensiveness over "random" rankings and over the "usual ranking", which
            is the same for every study.
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


_NEAREST = {"mention": ("mention", "sentence", "given"), "sentence": ("sentence", "given")}
"""Kinds of question whose results also stand for a kind; few reports name what is in a box."""

_ENOUGH = 20
"""Questions from which on a kind's own result counts, and not that of the next kind; ours."""


def measured(folder: Path, family: str, encoder: str, method: str, kind: str, decoder: str = "") -> Measured | None:
    """Look up a method.

    Args:
        folder: of the results, ``assets/explain``.
        family: of the bundles, "phantom".
        encoder: key in the registry.
        method: see ``Measured.method``; of an encoder of filters, "-pixels" is added where the map is of pixels.
        kind: see ``Measured.kind``; a word is nearest to "mention". Where it was asked too seldom, the nearest kind.
        decoder: key in the registry; where the pair has no result of its own, that over all decoders is taken.

    Returns:
        None where it was not measured.

    Raises:
        CXRLensError: the file is damaged.
    """
    path = folder / f"{family}.json"
    if not path.is_file():
        return None
    content = _read(path, path.stat().st_mtime_ns)
    try:
        for of in dict.fromkeys((decoder, "")):
            asked = [
                entry
                for each in _NEAREST.get(kind, (kind,))
                if (entry := content["by_key"].get((encoder, of, method, each))) and entry["gains"]
            ]
            if asked:
                enough = (entry for entry in asked if int(entry["n"]) >= _ENOUGH)
                entry = next(enough, None) or max(asked, key=lambda entry: int(entry["n"]))
                return _of_entry(content, entry)
    except (KeyError, TypeError, ValueError) as error:
        raise CXRLensError(
            f"{path.parent.name}/{path.name} is damaged ({error}). Write it again: cxr-lens explain-benchmark."
        ) from error
    return None


def _of_entry(content: Mapping[str, Any], entry: Mapping[str, Any]) -> Measured:
    numbers, gains = (
        {name: (float(m), float(low), float(high)) for name, (m, low, high) in entry[part].items()}
        for part in ("numbers", "gains")
    )
    trust, studies = trust_of(gains), int(content["studies"])
    tested = f"{studies} synthetic X-rays"
    if films := content.get("films"):
        tested = f"{studies} X-rays of patients with {films['truth']} ({films['title']})"
        if entry["kind"] == "given":
            tested += ", asked for a sentence that was given and named the finding"
    return Measured(
        method=str(entry["method"]),
        kind=str(entry["kind"]),
        questions=int(entry["n"]),
        studies=studies,
        numbers=numbers,
        gains=gains,
        trust=trust,
        verdict=verdict(trust, numbers, gains, tested),
        command=str(content["command"]),
    )


_RANKS: Mapping[Trust | None, int] = {"better": 0, "usual": 1, "unproven": 2, None: 3, "worse": 4}


def best_first(found: Mapping[str, Measured | None]) -> list[str]:
    """Names of methods, by what was measured of each: the best first, those that were not measured before the worse."""

    def rank(name: str) -> tuple[int, float]:
        each = found[name]
        if each is None:
            return _RANKS[None], 0.0
        gained = each.gains["random"] if "random" in each.gains else each.gains["centre"]
        return _RANKS[each.trust], -gained[0]

    return sorted(found, key=rank)


def shows_a_place(found: Iterable[Measured | None]) -> bool:
    """Whether one of several methods was measured to point better than the middle, or none was measured on places."""
    placed = [each for each in found if each is not None and "centre" in each.gains]
    return not placed or any(each.trust in ("better", "usual") for each in placed)


def trust_of(gains: Mapping[str, Interval]) -> Trust:
    """Judge a method by its gains; what the interval leaves open is not claimed."""
    _, low, high = gains["random"] if "random" in gains else gains["centre"]
    if high < 0:
        return "worse"
    if low <= 0:
        return "unproven"
    usual = next((gains[name] for name in ("usual place", "usual ranking") if name in gains), None)
    return "usual" if usual is not None and usual[1] <= 0 else "better"


def verdict(trust: Trust, numbers: Mapping[str, Interval], gains: Mapping[str, Interval], tested: str) -> str:
    """Say in plain words how far to trust a method: the advice, then what was measured.

    Args:
        tested: on what, in words: "12 synthetic X-rays".
    """
    if "random" in gains:
        fall, by_chance = numbers["comprehensiveness"][0], numbers["comprehensiveness"][0] - gains["random"][0]
        advice = {
            "better": "It says something about what the report depends on",
            "usual": "Not shown to say more of this X-ray than an order of filters that is the same for every X-ray",
            "unproven": "Not shown to be better than chance, so do not read it as the reason for the report",
            "worse": "Worse than chance, so do not read it as the reason for the report",
        }[trust]
        found = (
            f"removing the filters that it ranks first {_changed(fall)} the words' probability by "
            f"{100 * abs(fall):.1f} percentage points, random filters {_changed(by_chance)} it by "
            f"{100 * abs(by_chance):.1f}"
        )
        if "usual ranking" in gains:
            usual = fall - gains["usual ranking"][0]
            found += f", the same filters for every X-ray {_changed(usual)} it by {100 * abs(usual):.1f}"
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
        if "usual place" in gains:
            found += f", the usual place of such findings {100 * (hit - gains['usual place'][0]):.0f} times"
    return f"{advice}: in tests on {tested}, {found}.{_caution(numbers)}"


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
    from core import schemas  # brings pydantic, which takes a while

    try:
        content: dict[str, Any] = schemas.read_json(path, schemas.Explanations)
        keys = ("encoder", "decoder", "method", "kind")
        content["by_key"] = {tuple(entry[key] for key in keys): entry for entry in content["entries"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CXRLensError(
            f"{path.parent.name}/{path.name} is damaged ({error}). Write it again: cxr-lens explain-benchmark."
        ) from error
    return content
