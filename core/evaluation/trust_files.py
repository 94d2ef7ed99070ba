"""What was measured of sentences to trust: one small file beside a family's bundles, ``<family>-trust.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.bundles.card import Card
from core.bundles.gates import gate_key
from core.evaluation.trust import Kind, Limit, Rule
from core.evaluation.trust_outcomes import Found, Point
from core.files import hash_of, write_whole
from core.labels.rules import RULES_VERSION
from core.paths import how_to_restore
from core.types import CXRLensError

VERSION = 1
"""Of the file: raised when it is to be read, or its sentences to be measured, in another way."""


@dataclass(frozen=True, slots=True)
class Trust:
    """One way to mark the sentences of a pair, and what it did on test films.

    Attributes:
        rule: the way.
        found: by the name of a kind of sentence, and "all".
        curves: likewise, see `core.evaluation.trust_outcomes.curve`.
    """

    rule: Rule
    found: Mapping[str, Found]
    curves: Mapping[str, Sequence[Point]]


@dataclass(frozen=True, slots=True)
class FamilyTrust:
    """What is known of a family's pairs.

    Attributes:
        panel: names of the pairs whose agreement is a score of the others' sentences.
        others: where the other films are from, as `core.studies.sources.open_source` takes it.
        other_films: ids of these films.
        pairs: by name of the pair, its ways, the one that needs the most first.
        about: plain values that tell what it was made from.
    """

    panel: tuple[str, ...]
    others: str
    other_films: tuple[str, ...]
    pairs: Mapping[str, Sequence[Trust]]
    about: Mapping[str, Any]


def trust_file(folder: Path, family: str) -> Path:
    """Where it lies, in a folder of bundles."""
    return folder / f"{family}-trust.json"


def trust_key(card: Card) -> str:
    """Names a pair with all that decides its scores: trained or set anew, what was measured of it holds no more."""
    return hash_of([card.made_of, gate_key(card), RULES_VERSION, VERSION], 16)


def write_trust(path: Path, trust: FamilyTrust, cards: Mapping[str, Card]) -> None:
    """Write it.

    Args:
        path: as `trust_file` gives it.
        trust: all of it.
        cards: of the pairs and of the panel.

    Raises:
        DiskError: it cannot be written.
    """
    content = {
        "version": VERSION,
        "about": trust.about,
        "panel": list(trust.panel),
        "others": [trust.others, *trust.other_films],
        "made_of": {name: trust_key(card) for name, card in cards.items()},
        "pairs": {name: [_plain(each) for each in ways] for name, ways in trust.pairs.items()},
    }
    write_whole(path, json.dumps(content, separators=(",", ":"), allow_nan=False) + "\n", private=False)


def read_trust(path: Path, cards: Mapping[str, Card]) -> FamilyTrust:
    """Read it; pairs that are not here, or are others than it was measured of, are left out.

    A way that needs agreement is left out where one of the panel is another.

    Raises:
        FileNotFoundError: there is none.
        CXRLensError: it is damaged, or of another version.
    """
    from core import schemas  # brings pydantic, which takes a while

    try:
        content = schemas.read_json(path)
        if isinstance(content, dict) and content.get("version", VERSION) != VERSION:
            raise CXRLensError(f"{path.name} was written by another version of CXR Lens. Make it anew: cxr-lens trust.")
        schemas.check(content, schemas.TrustFile)
        made = {name for name, key in content["made_of"].items() if name in cards and trust_key(cards[name]) == key}
        panel, (others, *films) = tuple(content["panel"]), content["others"]
        whole = made.issuperset(panel)
        pairs = {
            name: [each for each in map(_trust, ways) if whole or "agreement" not in each.rule.scores]
            for name, ways in content["pairs"].items()
            if name in made
        }
        return FamilyTrust(panel, str(others), tuple(films), pairs, content["about"])
    except (FileNotFoundError, CXRLensError):
        raise
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CXRLensError(f"{path.name} cannot be read ({error}). {how_to_restore(path)}") from error


def _plain(trust: Trust) -> dict[str, Any]:
    limits = {kind.value: _rounded(asdict(limit)) for kind, limit in trust.rule.limits.items()}
    return {
        "scores": list(trust.rule.scores),
        "alpha": trust.rule.alpha,
        "confidence": trust.rule.confidence,
        "limits": limits,
        "found": {name: _rounded(asdict(each)) for name, each in trust.found.items()},
        "curves": {
            name: [[_number(value, 4) for value in asdict(each).values()] for each in points]
            for name, points in trust.curves.items()
        },
    }


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: [_number(each, 6) for each in value] if isinstance(value, tuple) else _number(value, 6)
        for name, value in values.items()
    }


def _number(value: float, digits: int) -> float | None:
    """As JSON has it: null for what is not finite."""
    if isinstance(value, int):
        return value
    return round(value, digits) if math.isfinite(value) else None


def _trust(content: Mapping[str, Any]) -> Trust:
    limits = {Kind(kind): _limit(limit) for kind, limit in content["limits"].items()}
    found = {}
    for name, each in content["found"].items():
        values: dict[str, Any] = {key: math.nan if value is None else value for key, value in each.items()}
        found[name] = Found(**values)
    curves = {name: [Point(*each) for each in points] for name, points in content["curves"].items()}
    return Trust(Rule(tuple(content["scores"]), content["alpha"], content["confidence"], limits), found, curves)


def _limit(content: Mapping[str, Any]) -> Limit:
    values: dict[str, Any] = {name: tuple(each) if isinstance(each, list) else each for name, each in content.items()}
    values["least"] = math.inf if values["least"] is None else values["least"]
    values["evidence"] = -math.inf if values["evidence"] is None else values["evidence"]
    return Limit(**values)
