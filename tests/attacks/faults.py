"""Faults of the program itself, planted one at a time: the attacks of its kind must see each.

``python -m tests.attacks.faults`` plants all and prints what saw them; ``tests/test_faults.py`` does the same. Where an
attack sees nothing of its fault, that attack is worth nothing.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import logging
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from core import files as disk
from core.reviews import schema
from dashboard import guard, plain
from tests.attacks import Tally, bundles, caches, databases, dumps, kills, requests, texts
from tests.attacks import files as measurements
from tests.attacks.damage import HOSTILE, OF_ANY
from tests.attacks.reviews import world


@dataclass(frozen=True)
class Fault:
    """A fault of the program.

    Attributes:
        kind: of the attacks that must see it.
        what: is wrong, in words.
        place: module and name of what is replaced.
        instead: of it.
    """

    kind: str
    what: str
    place: str
    instead: Any


# ------------------------------------------------------------------------------------------ what must see the faults


def _few(kind: str) -> Callable[[Path], Tally]:
    """A small part of the attacks of a kind."""

    def run(folder: Path) -> Tally:
        tally = Tally(kind)
        if kind == "bundles":
            for name, damage in {"one bit": OF_ANY["one bit"], "a space more": bundles._with_a_space}.items():
                damage(bundles.make(folder) / bundles.NAME / "vocab.json")
                tally.attempt(f"vocab.json, {name}", lambda: bundles.use(folder))
        elif kind == "tokens":
            caches.attack_tokens(tally, folder)
        elif kind == "maps":
            caches.attack_maps(tally, folder)
        elif kind == "checkpoints":
            caches.attack_checkpoints(tally, folder)
        elif kind == "stages":
            with pytest.MonkeyPatch.context() as patch:  # a program that reads what it is given would not end otherwise
                patch.setattr(caches, "OF_ANY", {name: OF_ANY[name] for name in ("one bit", "half of it", "nothing")})
                caches.attack_stages(tally, _made(folder))
        elif kind == "measurements":
            return measurements.run(
                folder, 40, {"scores", "trust", "detection", "explanations", "a table", "an added system"}
            )
        elif kind == "databases":
            databases.attack_rows(
                tally, folder / "reviews.sqlite", world(_made(folder) / "reviews.sqlite"), ["first row"]
            )
        elif kind == "dumps":
            return dumps.run(_made(folder), 40)
        elif kind == "requests":
            requests.attack_pages(tally, requests.make(_made(folder)), 300)
        elif kind == "kills":
            kills.attack(tally, "folders", folder, 12)
        elif kind == "written files":
            tally.attempt("who may read a file", lambda: _is_private(_made(folder)))
        elif kind == "answers":
            tally.attempt("headers", _is_bound)
            tally.attempt("closed paths", lambda: all(guard.is_closed(f"{path}/x") for path in guard.CLOSED))
        elif kind == "texts":
            tally.attempt("a hostile text", lambda: not _markup(plain.plain(HOSTILE)))
            tally.attempt("a hostile message", lambda: not _markup(plain.plain_message(HOSTILE)))
        return tally

    return run


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _is_private(folder: Path) -> bool:
    disk.write_whole(folder / "x", "x")
    return stat.S_IMODE((folder / "x").stat().st_mode) & 0o077 == 0


def _is_bound() -> bool:
    """Whether an answer through the guard has what binds a browser."""
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"ALLOWALL")]})

    async def send(message: Any) -> None:
        told.extend(message.get("headers", []))

    asyncio.run(guard.Guard(app)({"type": "http", "path": "/"}, None, send))  # type: ignore[arg-type]
    found: Mapping[bytes, bytes] = dict(told)
    wanted = (b"content-security-policy", b"x-frame-options", b"x-content-type-options", b"referrer-policy")
    return all(found.get(name) for name in wanted) and found[b"x-frame-options"] == b"DENY"


def _markup(markdown: str) -> list[str]:
    return texts.marks_in(markdown)


# ------------------------------------------------------------------------------------------------------------- faults


def _nothing(*_: Any, **__: Any) -> list[Any]:
    return []


def _no_word(*_: Any, **__: Any) -> str:
    return ""


def _as_it_is(text: object) -> str:
    return str(text)


def _right(*_: Any, **__: Any) -> None:
    return None


def _anybodys(connection: sa.Connection, who: Any, screen_id: str) -> tuple[Any, Any]:
    """A screen of whoever it is."""
    screen = connection.execute(sa.select(schema.screens).where(schema.screens.c.id == str(screen_id))).first()
    if screen is None:
        raise ValueError("no screen")
    found = sa.select(schema.sessions).where(schema.sessions.c.id == screen.session_id)
    return screen, connection.execute(found).one()


@contextmanager
def _in_place(path: Path, **_: Any) -> Iterator[Path]:
    """A folder that is written where it stands."""
    path.mkdir(exist_ok=True)
    yield path


@contextmanager
def _for_everybody(path: Path, **_: Any) -> Iterator[Path]:
    """A file that all may read."""
    path.touch(mode=0o644)
    path.chmod(0o644)
    yield path


class _Same:
    """Equal to everything: a comparison that never finds a difference."""

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        return 0


def _same(*_: Any) -> Any:
    return _Same()


FAULTS: tuple[Fault, ...] = (
    Fault("bundles", "hashes of files are not compared", "core.bundles.card.sha256_of", _same),
    Fault("tokens", "checksums of tokens are not compared", "core.encoders.token_cache.sum_of", _same),
    Fault("tokens", "no shard is ever damaged when written again", "core.encoders.token_cache.damaged", _nothing),
    Fault("maps", "the sum of a map is not compared", "core.projection.job.fingerprint", lambda values: "x"),
    Fault("checkpoints", "checkpoints are not looked at", "training.checkpoints.fault_of", _no_word),
    Fault("stages", "files of a stage are not compared", "training.run_folder.other_file", _no_word),
    Fault("measurements", "files are not compared with their schema", "core.contents.check", _right),
    Fault("measurements", "JSON is read without bounds", "core.contents.parse_json", json.loads),
    Fault("databases", "hashes of rows are not compared", "core.reviews.verification.row_hash", _same),
    Fault("databases", "hashes of events are not compared", "core.reviews.verification.event_hash", _same),
    Fault("databases", "no seal is compared", "core.reviews.verification._check_seal", _right),
    Fault("databases", "rows are not compared with the events", "core.reviews.verification._fault_of", _no_word),
    Fault("dumps", "a restored dump is not verified", "core.reviews.verification._faults", _nothing),
    Fault("dumps", "no seal is compared", "core.reviews.verification._check_seal", _right),
    Fault("requests", "a reader reaches everybody's screens", "core.reviews.store.changes.own_screen", _anybodys),
    Fault("requests", "roles are not asked", "core.reviews.store.screens.require_role", _right),
    Fault("kills", "folders are written where they stand", "tests.attacks.kills.whole_folder", _in_place),
    Fault("written files", "files are for everybody", "core.files.whole_file", _for_everybody),
    Fault("answers", "no headers bind the browser", "dashboard.guard.headers", dict),
    Fault("answers", "nothing is closed", "dashboard.guard.is_closed", lambda path: False),
    Fault("texts", "the escape returns what it is given", "dashboard.plain._escaped", _as_it_is),
)


def seen(fault: Fault, folder: Path) -> Tally:
    """What the attacks of its kind say with the fault, and, before it, without: there nothing may be wrong."""
    sound = _few(fault.kind)(folder / "sound")
    assert sound.tried and not sound.wrong, f"{fault.kind} without a fault: {sound.wrong[:3]}"
    module, _, name = fault.place.rpartition(".")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.import_module(module), name, fault.instead)
        return _few(fault.kind)(folder / "planted")


def main() -> int:
    """Plant all, and print which were seen."""
    logging.disable(logging.CRITICAL)
    print("| fault planted | attacks | tried | wrong with it |\n|---|---|---:|---:|")  # noqa: T201
    unseen = 0
    for fault in FAULTS:
        with tempfile.TemporaryDirectory(prefix="cxr-lens-faults-") as folder:
            tally = seen(fault, Path(folder))
        unseen += not tally.wrong
        print(f"| {fault.what} | {fault.kind} | {tally.tried} | {len(tally.wrong)} |", flush=True)  # noqa: T201
    print(f"{len(FAULTS) - unseen} of {len(FAULTS)} seen")  # noqa: T201
    return int(unseen > 0)


if __name__ == "__main__":
    sys.exit(main())
