"""Files that lie beside bundles, or that a user has of his own: scores, measurements, tables, systems, presets."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from core.bundles.card import Card
from core.bundles.gates import read_gates
from core.bundles.library import BundleLibrary
from core.config import load_config
from core.detection.results import read_result
from core.evaluation.trust_files import read_trust
from core.explain.measured import measured
from core.files import hash_of
from core.paper.filter_map import read_map
from core.paper.tables import read_table, to_csv, to_markdown
from core.projection.embeddings import read_embeddings
from core.systems.added import _opened as open_added
from core.types import CXRLensError
from dashboard.services import evaluations
from tests.attacks import Tally
from tests.attacks.damage import OF_ANY, Damage, of_json
from tests.conftest import BUNDLES, ROOT

ASSETS = ROOT / "assets"
_stamps = count()


@dataclass(frozen=True)
class Target:
    """A kind of file.

    Attributes:
        original: a whole one.
        use: reads one, as pages and commands do, and uses what it says.
        json: whether single values of it can be changed.
    """

    original: Path
    use: Callable[[Path], Any]
    json: bool = True


def _results(path: Path) -> None:
    found = evaluations._result_set(path.name, str(path), str(path), next(_stamps))
    assert found.titles and all(row["f1"] >= 0 or row["f1"] < 0 for row in found.rows.values())
    found.data  # noqa: B018 - a property that reads


@cache
def _cards() -> dict[str, Card]:
    return {card.name: card for card in BundleLibrary(BUNDLES).cards() if card.family == "phantom"}


def _trust(path: Path) -> None:
    for ways in read_trust(path, _cards()).pairs.values():
        for way in ways:
            assert isinstance(way.rule.marks_some, bool)
            assert all(each.share >= 0 or each.share < 0 for points in way.curves.values() for each in points)


def _detection(path: Path) -> None:
    result = read_result(path)
    for system in result.systems.values():
        for each in system.detections:
            assert np.isfinite([point.mentioned / point.reports for point in each.points]).all()
            each.curve.share(np.linspace(0, 1, 11))


def _explanations(path: Path) -> None:
    for encoder in ("ccve", "fve"):
        for kind in ("mention", "sentence", "report"):
            found = measured(path.parent, path.stem, encoder, "attention", kind)
            assert found is None or found.verdict


def _table(path: Path) -> None:
    table = read_table(path)
    to_csv(table), to_markdown(table)


def _map(path: Path) -> None:
    assert np.isfinite(read_map(path).trained).all()


def _system(path: Path) -> None:
    assert open_added(str(path), (next(_stamps),)).title


def _embeddings(path: Path) -> None:
    assert all(np.isfinite(each).all() for each in read_embeddings(path)[1].values())


def targets(folder: Path) -> Mapping[str, Target]:
    """What is attacked; what does not come with the program is made in a folder."""
    system = folder / "system"
    system.mkdir(parents=True, exist_ok=True)
    lines = json.dumps({"ids": ["a"], "report": "No effusion."}) + "\n"
    (system / "reports.jsonl").write_text(lines)
    hashes = {"reports.jsonl": hashlib.sha256(lines.encode()).hexdigest()}
    about = {"kind": "file", "title": "Mine", "group": "Others", "origin": "x.csv", "columns": ["a", "b"]}
    (system / "system.json").write_text(json.dumps({"schema": 1, "created": "2026-01-01", **about, "sha256": hashes}))
    return {
        "scores": Target(BUNDLES / "phantom-results.json", _results),
        "trust": Target(BUNDLES / "phantom-trust.json", _trust),
        "detection": Target(ASSETS / "detection" / "pneumothorax" / "detection.json", _detection),
        "explanations": Target(ASSETS / "explain" / "phantom.json", _explanations),
        "a table": Target(ASSETS / "results" / "phantom" / "encoders.json", _table),
        "the filters' map": Target(ASSETS / "results" / "phantom" / "ccve-map.json", _map),
        "an added system": Target(system / "system.json", _system),
        "its reports": Target(
            system / "reports.jsonl", lambda path: _system(path.with_name("system.json")), json=False
        ),
        "a gate": Target(BUNDLES / "phantom-gate.safetensors", read_gates, json=False),
        "embeddings": Target(BUNDLES / "phantom-embeddings-dve.safetensors", _embeddings, json=False),
        "a preset": Target(
            ROOT / "training" / "presets" / "phantom.toml", lambda path: load_config(path.parent, str(path)), json=False
        ),
    }


def attack(tally: Tally, folder: Path, name: str, target: Target, damages: Mapping[str, Damage]) -> None:
    """Damage copies of a file in each way, and use them."""
    for of, damage in damages.items():
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(target.original.parent, folder) if name in (
            "an added system",
            "its reports",
        ) else folder.mkdir()
        path = folder / target.original.name
        if not path.exists():
            shutil.copyfile(target.original, path)
        damage(path)

        def use(path: Path = path) -> bool:
            try:
                target.use(path)
            except OSError:  # what is not there is nobody's, and callers ask for it first
                if path.is_file():
                    raise
                raise CXRLensError("It is not there.") from None
            return True

        tally.attempt(f"{name}, {of}", use)


def run(folder: Path, most: int, only: Collection[str] = ()) -> Tally:
    """Attack files that are read one by one."""
    tally = Tally("measurements, scores and settings")
    for name, target in targets(folder).items():
        if only and name not in only:
            continue
        damages = of_json(target.original, most) if target.json else OF_ANY
        attack(tally, folder / f"damaged-{hash_of(name, 8)}", name, target, damages)
    return tally
