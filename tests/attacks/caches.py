"""What is made once and kept: tokens, images, maps, embeddings, checkpoints and the outputs of stages."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch

from core.encoders import token_cache
from core.encoders.token_cache import TokenCache, damaged_shards, write_token_cache
from core.projection import job
from core.projection.methods import ProjectionConfig
from core.types import CXRLensError, VisualTokens
from tests.attacks import Tally
from tests.attacks.damage import OF_ANY, OF_JSON, Damage, flip
from training import checkpoints
from training.run_folder import part_of, run_stage, save_weights

STUDIES = 600
"""Three shards, the last of 88."""


def _encode(images: torch.Tensor) -> VisualTokens:
    return VisualTokens(images.flatten(1)[:, :64].reshape(len(images), 4, 16), ((2, 2),), ("x",) * 4)


def _images(start: int, end: int) -> torch.Tensor:
    return torch.arange(start, end).float()[:, None, None, None].expand(end - start, 1, 8, 8) / 1000


def write_tokens(folder: Path) -> None:
    """Write tokens, or mend them."""
    write_token_cache(folder, "key", _encode, _images, STUDIES)  # type: ignore[arg-type]


def _exchange(first: str, second: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / first).rename(folder / "x")
        (folder / second).rename(folder / first)
        (folder / "x").rename(folder / second)

    return damage


def _rows(change: Callable[[np.ndarray], None]) -> Damage:  # type: ignore[type-arg]
    def damage(folder: Path) -> None:
        values = np.load(folder / "key-00001.npy")
        change(values)
        np.save(folder / "key-00001.npy", values)

    return damage


def _turn(values: np.ndarray) -> None:  # type: ignore[type-arg]
    values[[3, 9]] = values[[9, 3]]


OF_TOKENS: Mapping[str, Damage] = {
    "two shards exchanged": _exchange("key-00000.npy", "key-00001.npy"),
    "two studies exchanged": _rows(_turn),
    "a shard of zeros, with its head": _rows(lambda values: values.fill(0)),
    "other values, with their checksums' places": _rows(lambda values: values["tokens"].fill(1)),
    "a shard of fewer studies": lambda folder: np.save(
        folder / "key-00001.npy", np.load(folder / "key-00001.npy")[:100]
    ),
    "a shard of plain numbers": lambda folder: np.save(folder / "key-00001.npy", np.zeros((256, 4, 16), np.float16)),
    "pickled objects": lambda folder: np.save(folder / "key-00001.npy", np.array([{"a": 1}]), allow_pickle=True),
    "a part left over": lambda folder: (folder / ".key-00001.npy.0123456789abcdef.part").write_bytes(b"x") and None,
}
"""Damage to a folder of tokens."""


def of_tokens() -> Iterator[tuple[str, Damage]]:
    """All damage to a folder of tokens, by name; single bits all over a shard too."""
    yield from OF_TOKENS.items()
    for name, damage in OF_ANY.items():
        yield f"shard, {name}", lambda folder, damage=damage: damage(folder / "key-00001.npy")  # type: ignore[misc]
    for name, damage in {**OF_ANY, **OF_JSON}.items():
        yield f"about.json, {name}", lambda folder, damage=damage: damage(folder / "about.json")  # type: ignore[misc]
    for place in range(40):

        def bit(folder: Path, place: int = place) -> None:
            path = folder / "key-00001.npy"
            path.write_bytes(flip(path.read_bytes(), (place + 0.5) / 40, place % 8))

        yield f"bit {place}", bit


def attack_tokens(tally: Tally, folder: Path) -> None:
    """Read damaged tokens, then write them again: what is whole stays, and all is right."""
    whole = folder / "whole"
    write_tokens(whole)
    places = list(range(STUDIES))
    wanted = TokenCache.open(whole, "key").tokens(places)
    for name, damage in of_tokens():
        damaged = folder / "damaged"
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole, damaged)
        first = (damaged / "key-00000.npy").stat().st_mtime_ns
        damage(damaged)

        def read(damaged: Path = damaged) -> bool:
            return torch.equal(TokenCache.open(damaged, "key").tokens(places), wanted)

        def mend(damaged: Path = damaged, name: str = name, first: int = first) -> bool:
            write_tokens(damaged)
            same = "exchanged" in name or (damaged / "key-00000.npy").stat().st_mtime_ns == first
            try:
                return read() and same and not damaged_shards(damaged, "key")
            except CXRLensError:  # it was told that the command would mend it
                return False

        tally.attempt(f"tokens, {name}, read", read)
        tally.attempt(f"tokens, {name}, written again", mend)


def attack_maps(tally: Tally, folder: Path) -> None:
    """Ask for a map whose file is damaged: it is computed again."""
    import os

    os.environ["CXR_CACHE"] = str(folder)
    features = np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32)
    config = ProjectionConfig(method="PCA")
    wanted = job.compute(features, config).coordinates
    path = job.cache_folder() / f"{job.content_key(features, config)}.safetensors"
    whole = path.read_bytes()
    bits = {
        f"bit {place}": lambda path, place=place: path.write_bytes(flip(whole, (place + 0.5) / 40, place % 8))
        for place in range(40)
    }
    for name, damage in {**OF_ANY, **bits}.items():
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(whole)
        damage(path)  # type: ignore[operator]
        tally.attempt(f"map, {name}", lambda: np.array_equal(job.compute(features, config).coordinates, wanted))


def attack_checkpoints(tally: Tally, folder: Path) -> None:
    """Look at damaged checkpoints: what is not whole is told, for a training to begin anew."""
    folder.mkdir()
    last = folder / checkpoints.LAST
    torch.save({"state_dict": {"a": torch.randn(200, 200)}, "epoch": 3}, folder / checkpoints.BEST)
    whole = (folder / checkpoints.BEST).read_bytes()
    wanted = torch.load(folder / checkpoints.BEST, weights_only=True)["state_dict"]["a"]
    bits = {
        f"bit {place}": lambda path, place=place: path.write_bytes(flip(whole, (place + 0.5) / 40, place % 8))
        for place in range(40)
    }
    for name, damage in {**OF_ANY, **bits}.items():
        if last.is_dir() and not last.is_symlink():
            last.rmdir()
        last.unlink(missing_ok=True)
        last.write_bytes(whole)
        damage(last)  # type: ignore[operator]

        def use() -> bool:
            if fault := checkpoints.fault_in(folder):
                raise CXRLensError(fault)
            if not last.is_file():
                return True  # there is none, so a training begins anew
            return torch.equal(torch.load(last, weights_only=True)["state_dict"]["a"], wanted)

        tally.attempt(f"checkpoint, {name}", use)


def attack_stages(tally: Tally, folder: Path) -> None:
    """Do a stage again whose files are damaged: it is made anew, and ends as before."""
    stage = folder / "stage"
    torch.manual_seed(0)
    module = torch.nn.Linear(30, 30)

    def work(folder: Path) -> None:
        save_weights(folder, {"part": module})
        (folder / "summary.json").write_text('{"best": 0.5}')

    for file in ("model.safetensors", "summary.json", "config.json", "done.json", "files.json"):
        for name, damage in OF_ANY.items():
            shutil.rmtree(stage, ignore_errors=True)
            run_stage(stage, {"a": 1}, work)
            damage(stage / file)

            def again() -> bool:
                run_stage(stage, {"a": 1}, work)
                found = part_of(stage, "part")["weight"]
                return torch.equal(found, module.weight) and (stage / "summary.json").read_text() == '{"best": 0.5}'

            def read() -> bool:
                return torch.equal(part_of(stage, "part")["weight"], module.weight)

            if file == "model.safetensors":
                tally.attempt(f"{file}, {name}, read", read)
            tally.attempt(f"{file}, {name}, run again", again)


def run(folder: Path, most: int) -> Tally:
    """Attack tokens and maps; the others are in `tests.attacks.runs`."""
    tally = Tally("caches of tokens and maps")
    token_cache.BATCH = STUDIES
    attack_tokens(tally, folder / "tokens")
    attack_maps(tally, folder / "maps")
    return tally
