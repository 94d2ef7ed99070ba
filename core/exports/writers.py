"""Who wrote reports, as far as it is recorded: beside a file of them, or on the card of a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core import __version__
from core.bundles.card import INTENDED_USE, PAIR, Card
from core.evaluation.own import Asked
from core.files import hash_of
from core.systems.pairs import KINDS
from core.types import CXRLensError

SOFTWARE = "CXR Lens"
RESEARCH = f"Written by software and read by nobody. {INTENDED_USE}"
"""What stands beside every report that leaves."""
UNKNOWN = "not recorded"


@dataclass(frozen=True, slots=True)
class Writer:
    """A system that wrote reports, as far as it is recorded.

    Attributes:
        name: of the system, unique among those that are exported.
        kind: "pair", "file of reports", "program"; `UNKNOWN` where nothing tells it.
        content: SHA-256 of what decides its reports (of a pair: hashes of its files, its encoder, how it fits images
            and writes); `UNKNOWN` where it is not recorded.
        seed: of its training.
        settings: how it wrote.
    """

    name: str
    kind: str = UNKNOWN
    content: str = UNKNOWN
    seed: str = UNKNOWN
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def hash(self) -> str:
        """The first digits of its content, to be read by people."""
        return self.content if self.content == UNKNOWN else self.content[:16]

    def __str__(self) -> str:
        """For a field of free text."""
        settings = f", settings {json.dumps(self.settings, sort_keys=True)}" if self.settings else ""
        return f"{SOFTWARE} {__version__}, system {self.name}, hash {self.hash}, seed {self.seed}{settings}"


@dataclass(frozen=True, slots=True)
class Recorded:
    """What stands beside a file of reports.

    Attributes:
        source: key of the source; "" where it is not told.
        title: of the source, likewise.
        fingerprint: of the source.
        seed: of the training of all pairs.
        contents: by system; of pairs the hash of `core.bundles.card.Card.made_of`.
        kinds: by system.
        settings: by system.
    """

    source: str = ""
    title: str = ""
    fingerprint: str = UNKNOWN
    seed: str = UNKNOWN
    contents: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def recorded_beside(path: Path) -> Recorded:
    """What stands beside a file of reports: of one's own evaluation, of `cxr-lens write`, of a preset's evaluation.

    Raises:
        CXRLensError: it is damaged.
    """
    try:
        if (asked := _asked(path)) is not None:
            return _of_own(asked, path)
        if beside := _json(path.with_name(f"{path.name}.about.json")):
            return _of_writing(beside)
        results = _json(path.with_name(path.name.removesuffix("reports.jsonl") + "results.json"))
        rows = {row["name"]: row for row in results.get("rows", ())}
        return Recorded(
            title=str(results.get("family", "")),
            fingerprint=str(results.get("fingerprint") or UNKNOWN),
            seed=str(results.get("seed", UNKNOWN)),
            contents=dict.fromkeys((name for name, row in rows.items() if "encoder" in row), UNKNOWN)
            | results.get("made_of", {}),
            kinds={name: row.get("kind", KINDS[PAIR]) for name, row in rows.items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CXRLensError(f"What stands beside {path} is damaged ({error}). Write these reports again.") from error


def _asked(path: Path) -> Asked | None:
    """What an evaluation of one's own is of; None of another file."""
    about = _json(path.with_name("about.json"))
    return Asked(**about) if {"family", "pairs", "source"} <= set(about) else None


def _of_own(asked: Asked, path: Path) -> Recorded:
    results = _json(path.with_name("results.json"))
    rows = {row["name"]: row.get("kind", UNKNOWN) for row in results.get("rows", ()) if row["name"] in asked.systems}
    return Recorded(
        asked.source,
        asked.title,
        str(results.get("fingerprint") or UNKNOWN),
        str(results.get("seed", UNKNOWN)),
        {name: hash_of(made_of) for name, made_of in asked.pairs.items()} | dict(asked.systems),
        dict.fromkeys(asked.pairs, KINDS[PAIR]) | rows,
        {
            name: _settings(json.loads(made_of["write"]), json.loads(made_of["fit"]))
            for name, made_of in asked.pairs.items()
        },
    )


def _of_writing(about: Mapping[str, Any]) -> Recorded:
    pairs = about["pairs"]
    how = {
        name: _settings(about["write"][name], about["fit"][name])
        | {"beam_size": about["beam_size"] or about["write"][name].get("beam_size"), "precision": about["precision"]}
        for name in pairs
    }
    made_of = {
        name: {
            **sha256,
            "encoder": json.dumps(encoder, sort_keys=True),
            "fit": json.dumps(about["fit"][name], sort_keys=True),
            "write": json.dumps(about["write"][name], sort_keys=True),
        }
        for name, (sha256, encoder) in pairs.items()
    }
    contents = {name: hash_of(each) for name, each in made_of.items()}
    return Recorded(
        about["source"], "", about["fingerprint"], UNKNOWN, contents, dict.fromkeys(pairs, KINDS[PAIR]), how
    )


def _settings(write: Mapping[str, Any], fit: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a pair writes and fits images; lists of words of its data are left out, its hash covers them."""
    return {name: value for name, value in write.items() if not isinstance(value, list)} | {"fit": fit}


def writer_of_card(card: Card) -> Writer:
    """A pair, as its bundle's card tells."""
    seed = str(card.content.get("config", {}).get("seed", UNKNOWN))
    return Writer(
        card.name,
        KINDS.get(card.kind, card.kind),
        hash_of(card.made_of),
        seed,
        _settings(card.write, card.content.get("fit")),
    )


def writer_of(name: str, recorded: Recorded, cards: Mapping[str, Card]) -> Writer:
    """A system of a file; its bundle tells more, where the one that is here is the one that wrote."""
    content = recorded.contents.get(name, UNKNOWN)
    known = writer_of_card(cards[content]) if content in cards else Writer(name, content=content)
    return replace(
        known,
        name=name,
        kind=recorded.kinds.get(name, known.kind),
        seed=known.seed if known.seed != UNKNOWN or name not in recorded.contents else recorded.seed,
        settings=recorded.settings.get(name) or known.settings,
    )


def _json(path: Path) -> dict[str, Any]:
    """A JSON object beside a file; empty where there is none."""
    from core import schemas  # brings pydantic, which takes a while

    try:
        content = schemas.read_json(path)
    except OSError:
        return {}
    except ValueError as error:
        raise CXRLensError(f"{path} is damaged: {error}. Evaluate again.") from error
    return content if isinstance(content, dict) else {}
