"""Programs that are killed while they write: what was there is there, what is there is whole, and all goes on.

A child process is killed by itself at one of its steps on the file system, each step in its turn, so a kill is the same
one each time; writers of review sessions are killed by another process, at any moment. None of them runs a training.
"""

from __future__ import annotations

import io
import multiprocessing.connection
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from core.encoders import token_cache
from core.encoders.token_cache import TokenCache, damaged_shards
from core.exports.folder import LeftOut, write_folder
from core.files import is_unfinished, whole_folder, write_whole
from core.projection import job
from core.projection.methods import ProjectionConfig
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.store import Actor, read_screen, save_mark
from core.types import CXRLensError
from tests.attacks import Tally
from tests.attacks.caches import STUDIES, write_tokens
from tests.review_cases import ANNA, ROOT_USER, all_events, error, fill, killed, name_on, screens_of, session
from training import checkpoints
from training.run_folder import part_of, run_stage, save_weights

STEPS = (
    "open",
    "os.rename",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rmdir",
    "os.chmod",
    "os.truncate",
    "shutil.rmtree",
)
"""Audit events of Python at which a child is killed."""
READY = {
    "files": 30,
    "folders": 20,
    "exports": 20,
    "stages": 30,
    "tokens": 25,
    "checkpoints": 15,
    "maps": 20,
    "dumps": 15,
}
"""Kills of each kind; with `WRITERS` two hundred and more."""
WRITERS = 30


@dataclass(frozen=True)
class Kind:
    """What is written.

    Attributes:
        begin: makes what is there before.
        work: writes; run again, it ends what was begun.
        whole: whether what is there, if anything, is whole; asked after a kill, and after the work was done again.
        done: whether the work is done, asked after it was done again.
    """

    begin: Callable[[Path], None]
    work: Callable[[Path], None]
    whole: Callable[[Path], bool]
    done: Callable[[Path], bool]


def _child(work: Callable[[Path], None], folder: Path, last: int) -> int:
    """Do the work in a child, and kill it at a step; the number of steps it came to, or -1 where it was killed."""
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            count = 0
            own = os.getpid()

            def step(name: str, _: object) -> None:
                nonlocal count
                if name in STEPS and os.getpid() == own:
                    count += 1
                    if count == last:
                        os.kill(own, signal.SIGKILL)

            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                sys.addaudithook(step)
                work(folder)
            os.write(sender, str(count).encode())
            os._exit(0)
        except BaseException as problem:
            os.write(sender, f"! {problem!r}".encode())
            os._exit(1)
    os.close(sender)
    _, status = os.waitpid(child, 0)
    told = os.read(receiver, 1000).decode()
    os.close(receiver)
    if os.WIFSIGNALED(status):
        return -1
    if told.startswith("!"):
        raise RuntimeError(f"The work itself failed: {told}")
    return int(told)


# -------------------------------------------------------------------------------------------------------------- kinds


def _text(folder: Path) -> str:
    path = folder / "about.json"
    return path.read_text() if path.exists() else ""


def _files(folder: Path) -> None:
    for letter in "abc":
        write_whole(folder / "about.json", letter * 200_000)


OF_FILES = Kind(
    lambda folder: write_whole(folder / "about.json", "o" * 200_000),
    _files,
    lambda folder: _text(folder) in [letter * 200_000 for letter in "oabc"],
    lambda folder: _text(folder) == "c" * 200_000,
)


def _folder(folder: Path, letter: str) -> None:
    with whole_folder(folder / "made") as fresh:
        for name in ("one", "two", "three"):
            (fresh / name).write_text(letter * 10_000)


def _letters(folder: Path) -> str:
    found = [(folder / "made" / name).read_text() for name in ("one", "two", "three")]
    return found[0] if len(set(found)) == 1 else "mixed"


OF_FOLDERS = Kind(
    lambda folder: _folder(folder, "o"),
    lambda folder: [_folder(folder, letter) for letter in "ab"] and None,
    lambda folder: _letters(folder) in [letter * 10_000 for letter in "oab"],
    lambda folder: _letters(folder) == "b" * 10_000,
)


def _export(folder: Path, letter: str) -> None:
    files = [(f"reports/{number}.txt", letter.encode() * 5000) for number in range(4)]
    write_folder(folder / "out", "kind", {}, files, LeftOut(), force=True)


def _exported(folder: Path) -> set[str]:
    return {path.read_text() for path in (folder / "out" / "reports").iterdir()}


OF_EXPORTS = Kind(
    lambda folder: _export(folder, "o"),
    lambda folder: _export(folder, "a"),
    lambda folder: len(_exported(folder)) == 1 and len(list((folder / "out" / "reports").iterdir())) == 4,
    lambda folder: _exported(folder) == {"a" * 5000},
)

_LAYER = torch.nn.Linear(30, 30)


def _stage(folder: Path) -> None:
    def work(stage: Path) -> None:
        save_weights(stage, {"part": _LAYER})
        write_whole(stage / "summary.json", '{"best": 0.5}')

    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        run_stage(folder / "stage", {"a": 1}, work)


def _is_stage(folder: Path) -> bool:
    if not (folder / "stage" / "model.safetensors").exists():
        return not (folder / "stage" / "done.json").exists()
    return torch.equal(part_of(folder / "stage", "part")["weight"], _LAYER.weight)


OF_STAGES = Kind(
    lambda folder: None,
    _stage,
    _is_stage,
    lambda folder: (folder / "stage" / "done.json").exists() and _is_stage(folder),
)


def _tokens(folder: Path) -> bool:
    found = TokenCache.open(folder / "tokens", "key").tokens(range(STUDIES))
    return len(found) == STUDIES and not damaged_shards(folder / "tokens", "key")


def _tokens_whole(folder: Path) -> bool:
    """A cache that can be opened is whole."""
    try:
        TokenCache.open(folder / "tokens", "key")
    except CXRLensError:
        return True
    return _tokens(folder)


OF_TOKENS = Kind(lambda folder: None, lambda folder: write_tokens(folder / "tokens"), _tokens_whole, _tokens)


def _checkpoint(folder: Path, epoch: int) -> None:
    state = {"state_dict": {"a": torch.full((300, 300), float(epoch))}, "epoch": epoch}
    checkpoints.WholeCheckpoints().save_checkpoint(state, folder / checkpoints.LAST)


def _epoch(folder: Path) -> int:
    if checkpoints.fault_of(folder / checkpoints.LAST):
        return -1
    found = torch.load(folder / checkpoints.LAST, weights_only=True)
    return int(found["epoch"]) if bool((found["state_dict"]["a"] == found["epoch"]).all()) else -1


OF_CHECKPOINTS = Kind(
    lambda folder: _checkpoint(folder, 1),
    lambda folder: [_checkpoint(folder, epoch) for epoch in (2, 3)] and None,
    lambda folder: _epoch(folder) in (1, 2, 3),
    lambda folder: _epoch(folder) == 3,
)

_FEATURES = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
_PCA = ProjectionConfig(method="PCA")


def _map(folder: Path) -> None:
    os.environ["CXR_CACHE"] = str(folder)
    job.compute(_FEATURES, _PCA)


def _is_map(folder: Path) -> bool:
    os.environ["CXR_CACHE"] = str(folder)
    path = job.cache_folder() / f"{job.content_key(_FEATURES, _PCA)}.safetensors"
    return not path.exists() or job.load(path.stem) is not None


OF_MAPS = Kind(
    lambda folder: None, _map, _is_map, lambda folder: _is_map(folder) and any(folder.rglob("*.safetensors"))
)


def _sessions(folder: Path) -> None:
    database = Database(folder / "reviews.sqlite")
    fill(database)
    session(database, count=3)
    database.close()


def _dump(folder: Path) -> None:
    database = Database(folder / "reviews.sqlite")
    for number in range(2):
        (folder / f"copy{number}.jsonl.gz").unlink(missing_ok=True)
        backup(database, ROOT_USER, folder / f"copy{number}.jsonl.gz")
    database.close()


def _restored(folder: Path, count: int) -> bool:
    there = sorted(folder.glob("copy*.jsonl.gz"))
    for path in there:
        (folder / "restored.sqlite").unlink(missing_ok=True)
        restore(folder / "restored.sqlite", path)
        for each in folder.glob("restored.sqlite*"):
            each.unlink()
    return len(there) >= count


OF_DUMPS = Kind(_sessions, _dump, lambda folder: _restored(folder, 0), lambda folder: _restored(folder, 2))

KINDS: Mapping[str, Kind] = {
    "files": OF_FILES,
    "folders": OF_FOLDERS,
    "exports": OF_EXPORTS,
    "stages": OF_STAGES,
    "tokens": OF_TOKENS,
    "checkpoints": OF_CHECKPOINTS,
    "maps": OF_MAPS,
    "dumps": OF_DUMPS,
}


def attack(tally: Tally, name: str, folder: Path, kills: int) -> None:
    """Kill the work of a kind at so many of its steps, spread evenly over all of them."""
    kind = KINDS[name]

    def afresh() -> Path:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        kind.begin(folder)
        return folder

    kind.work(afresh())  # brings its modules: reading those is no step of its own
    steps = _child(kind.work, afresh(), 0)
    assert steps > 3 and kind.done(folder), f"{name} takes {steps} steps"
    for number in range(kills):
        last = 1 + number * steps // kills
        afresh()
        killed = _child(kind.work, folder, last)

        def use(killed: int = killed) -> bool:
            if killed != -1 or not kind.whole(folder):
                return False
            kind.work(folder)
            return kind.done(folder)

        tally.attempt(f"{name}, killed at step {last} of {steps}", use)
    shutil.rmtree(folder, ignore_errors=True)


# ------------------------------------------------------------------------------------------------- review sessions


def _write(location: str, screen: str, blinded: str, start: int, sender: multiprocessing.connection.Connection) -> None:
    database = Database(location)
    for number in range(start, start + 1_000_000):
        save_mark(database, ANNA, screen, error(blinded), key=f"k{number}")
        sender.send(number)


def attack_writers(tally: Tally, folder: Path, kills: int) -> None:
    """Kill a writer of marks at any moment: what it was told to be saved is there, once, and the record is sound."""
    folder.mkdir(parents=True)
    location = str(folder / "reviews.sqlite")
    database = Database(location)
    fill(database)
    screen = screens_of(database, "anna", session(database, count=2))[0]
    blinded = name_on(database, screen)
    database.close()
    waits = np.random.default_rng(0).uniform(0, 0.05, kills)
    told = killed(_write, lambda turn: (location, screen, blinded), waits.tolist(), "fork")
    for turn, acknowledged in enumerate(told):

        def use(acknowledged: set[str] = acknowledged) -> bool:
            opened = Database(location)
            try:
                written = [each.key.removeprefix("anna/") for each in all_events(opened) if each.action == "mark"]
                shown = len(read_screen(opened, Actor("anna", "reader"), screen).marks)
                return acknowledged <= set(written) and verify(opened).marks == len(set(written)) == shown
            finally:
                opened.close()

        tally.attempt(f"a writer of marks, killed the {turn + 1}th time", use)


def run(folder: Path, most: int) -> Tally:
    """Kill writers of all kinds.

    Args:
        folder: for all of them.
        most: kills, spread over the kinds; 0 for all.
    """
    tally = Tally("kills")
    torch.set_num_threads(1)  # threads do not come along into a child
    token_cache.BATCH = STUDIES
    before = os.environ.get("CXR_CACHE")
    share = most / (sum(READY.values()) + WRITERS) if most else 1.0
    try:
        for name, kills in READY.items():
            attack(tally, name, folder / name, max(1, round(kills * share)))
        attack_writers(tally, folder / "writers", max(1, round(WRITERS * share)))
    finally:
        os.environ.pop("CXR_CACHE", None) if before is None else os.environ.update(CXR_CACHE=before)
    left = [path for path in folder.rglob("*") if path.is_file() and is_unfinished(path) and path.suffix != ".lock"]
    tally.attempt("nothing half is under a name of its own", lambda: all(path.name.startswith(".") for path in left))
    return tally
