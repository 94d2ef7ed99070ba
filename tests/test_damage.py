"""Damaged files are refused in a sentence or made anew: never a traceback, never another result without a word."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

from core.bundles.card import BundleError
from core.bundles.library import BundleLibrary
from core.contents import parse_json
from core.decoders import build_decoder
from core.rows import damaged, sums_of
from core.types import VisualTokens
from tests import needs
from tests.app_pages import APP, words_on
from tests.attacks import Tally, bundles, caches, files, kills, requests
from tests.attacks.__main__ import KINDS
from tests.attacks.damage import OF_ANY, OF_JSON
from tests.conftest import BUNDLES
from tests.test_fit import train_regression
from training import checkpoints

pytestmark = pytest.mark.numeric
needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())


def right(tally: Tally) -> None:
    assert tally.tried > 10 and not tally.wrong, "\n".join(tally.wrong)


def test_a_tally_sees_what_is_wrong() -> None:
    tally = Tally("x")
    tally.attempt("traceback", lambda: bool(1 / 0))
    tally.attempt("another result", lambda: False)
    tally.attempt("right", lambda: True)
    assert (tally.tried, tally.right, len(tally.wrong)) == (3, 1, 2)


@needs_bundles
def test_damaged_files_are_refused_one_by_one(tmp_path: Path) -> None:
    right(files.run(tmp_path, 4, {"scores", "trust", "an added system", "its reports"}))


@needs_bundles
@pytest.mark.parametrize("name", ["no hashes", "no hash of the words", "a hash of a file elsewhere"])
def test_a_damaged_card_leaves_the_others(name: str, tmp_path: Path) -> None:
    folder = bundles.make(tmp_path / "bundles")
    bundles.OF_CARDS[name](folder / bundles.NAME / "card.json")
    library = BundleLibrary(folder)
    assert list(library.problems()) == [bundles.NAME]
    assert library.card(bundles.OTHER).name == bundles.OTHER
    with pytest.raises(BundleError, match=bundles.NAME):
        library.load(bundles.NAME)


@needs_bundles
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a tensor more, of no part", "1 tensors of no part of this model, the first is 'somewhere'"),
        ("a tensor more, of the encoder", "of no part of this model"),
        ("a scale more", "is no scale of the rows"),
        ("scales of one row", "is no scale of the rows"),
        ("scales that are no numbers", "values in '.*' that are no numbers"),
    ],
)
def test_other_tensors_are_told_whoever_sealed_them(name: str, message: str, tmp_path: Path) -> None:
    folder = bundles.make(tmp_path / "bundles")
    bundles.OF_WEIGHTS[name](folder / bundles.NAME / "model.safetensors")
    bundles.reseal(folder / bundles.NAME)
    with pytest.raises(BundleError, match=message):
        BundleLibrary(folder).load(bundles.NAME)


@needs_bundles
def test_a_half_written_bundle_is_nobody(tmp_path: Path) -> None:
    folder = bundles.make(tmp_path / "bundles")
    shutil.copytree(folder / bundles.NAME, folder / f"{bundles.NAME}.part")
    library = BundleLibrary(folder)
    assert library.problems() == {} and len(library.cards()) == 2


@pytest.mark.parametrize("content", [b"[" * 100_000, b"[1e999]", b"NaN", b'"\\ud800"', b"\xff", b"[" * 40 + b"]" * 40])
def test_json_that_is_none_is_a_sentence(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it is|number|half a character"):
        parse_json(content)


def test_a_sum_knows_its_place() -> None:
    rows = np.arange(12, dtype=np.float16).reshape(4, 3)
    sums = sums_of(rows, 5)
    assert damaged(rows, sums, range(4), 5) == []
    assert damaged(rows[[1, 0, 2, 3]], sums[[1, 0, 2, 3]], range(4), 5) == [0, 1]
    assert damaged(rows * 0, sums * 0, range(4), 5) == [0, 1, 2, 3]


def test_damaged_tokens_are_noticed_and_only_they_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = list(caches.of_tokens())
    monkeypatch.setattr(caches, "of_tokens", lambda: iter([*every[:12], *every[-4:]]))
    tally = Tally("tokens")
    caches.attack_tokens(tally, tmp_path)
    right(tally)
    assert tally.refused >= 12


def test_damaged_maps_checkpoints_and_stages_are_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    few = ("half of it", "a hole of zeros", "one bit", "a folder", "nothing", "a pipe")
    monkeypatch.setattr(caches, "OF_ANY", {name: OF_ANY[name] for name in few})
    tally = Tally("others")
    caches.attack_maps(tally, tmp_path / "maps")
    caches.attack_checkpoints(tally, tmp_path / "checkpoints")
    caches.attack_stages(tally, tmp_path / "stages")
    right(tally)


def test_forged_requests_let_nobody_in(tmp_path: Path) -> None:
    tally, world = Tally("requests"), requests.make(tmp_path)
    requests.attack_pages(tally, world, 60)
    world.database.close()
    right(tally)


def test_killed_writers_leave_what_is_whole(tmp_path: Path) -> None:
    tally = Tally("kills")
    for kind in ("files", "folders", "stages", "checkpoints"):
        kills.attack(tally, kind, tmp_path / kind, 4)
    right(tally)


@pytest.mark.parametrize("file", [checkpoints.LAST, pytest.param(checkpoints.BEST, marks=pytest.mark.slow)])
def test_a_cut_checkpoint_is_told_and_its_training_begins_anew(
    file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train_regression(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_regression(tmp_path / "cut", stop_at=3)
    path = tmp_path / "cut" / file
    path.write_bytes(path.read_bytes()[:-1000])
    again = train_regression(tmp_path / "cut")
    told = capsys.readouterr()
    assert f"{file} is damaged" in told.out + told.err and "begins anew" in told.out + told.err
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in whole.state_dict().items())


# ---------------------------------------------------------------------------------------------------------------- slow


@needs_bundles
@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", KINDS)
def test_attacks_in_numbers(kind: str, tmp_path: Path) -> None:
    right(importlib.import_module(f"tests.attacks.{kind}").run(tmp_path, KINDS[kind]))


@pytest.mark.slow
def test_looking_at_checksums_costs_little() -> None:
    """Tokens are looked at once a training; that is compared with a single epoch of the smallest decoder on a CPU."""
    studies, batch = 64, 16
    tokens = np.random.default_rng(0).normal(size=(studies, 49, 768)).astype(np.float16)
    sums = sums_of(tokens)
    decoder = build_decoder("transformer", "small", token_width=768, vocabulary_size=500)
    ids = torch.randint(5, 500, (batch, 60), generator=torch.Generator().manual_seed(0))
    began = time.process_time()
    for start in range(0, studies, batch):
        rows = torch.from_numpy(tokens[start : start + batch]).float()
        memory = decoder.encode(VisualTokens(rows, ((7, 7),), ("x",) * 49))
        decoder.decode(memory, ids).logits.sum().backward()
    epoch = time.process_time() - began
    began = time.process_time()
    assert not damaged(tokens, sums, range(studies))
    looked = time.process_time() - began
    print(f"looking at the checksums takes {looked / epoch:.2%} of one epoch")  # noqa: T201
    assert looked < 0.03 * epoch


WHEN_OPENED = {
    "a beam of a thousand million", "a width of 65,536", "an unknown setting", "an unknown decoder",
    "an unknown encoder", "an unknown size", "an unknown kind", "a shared encoder of another hash",
}  # fmt: skip
"""Faults of cards that are told where the bundle is opened, not in the list of bundles."""


@needs_bundles
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    "page", ["read", "about", "filters", "results", "cases", "embeddings", "detection", "review", "reading"]
)
def test_damaged_neighbours_stop_no_page(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged bundle, evaluation, measurement and system of each kind, beside whole ones."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    for each in BUNDLES.iterdir():
        if each.name == "shared" or each.name.startswith(("phantom-ccve-m2", "phantom-fve-m2")) or each.is_file():
            (folder / each.name).symlink_to(each)
    damages = {**OF_ANY, **OF_JSON}
    content = json.loads((BUNDLES / bundles.NAME / "card.json").read_text("utf-8"))
    names = []
    for number, (name, damage) in enumerate([*damages.items(), *bundles.OF_CARDS.items()]):
        neighbour = folder / f"neighbour-{number}"
        neighbour.mkdir()
        for file in (BUNDLES / bundles.NAME).iterdir():
            (neighbour / file.name).symlink_to(file)
        (neighbour / "card.json").unlink()
        (neighbour / "card.json").write_text(json.dumps(content | {"name": neighbour.name}))
        damage(neighbour / "card.json")
        if name not in WHEN_OPENED:
            names.append(neighbour.name)
    for number, damage in enumerate(damages.values()):
        for kind, original in (
            ("results", BUNDLES / "phantom-results.json"),
            ("trust", BUNDLES / "phantom-trust.json"),
        ):
            path = folder / f"family{number}-{kind}.json"
            shutil.copyfile(original, path)
            damage(path)
        system = tmp_path / "systems" / f"system{number}"
        system.mkdir(parents=True)
        (system / "system.json").write_text('{"kind": "file"}')
        damage(system / "system.json")
        detection = tmp_path / "detections" / f"finding{number}" / "detection.json"
        detection.parent.mkdir(parents=True)
        shutil.copyfile(files.ASSETS / "detection" / "pneumothorax" / "detection.json", detection)
        damage(detection)
        own = tmp_path / "evaluations" / f"evaluation{number}" / "about.json"
        own.parent.mkdir(parents=True)
        own.write_text("{}")
        damage(own)
    for name, value in {
        "CXR_BUNDLES": folder,
        "CXR_SYSTEMS": tmp_path / "systems",
        "CXR_EVALUATIONS": tmp_path / "evaluations",
        "CXR_CACHE": tmp_path / "cache",
        "CXR_REVIEWS": tmp_path / "reviews.sqlite",
    }.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.chdir(tmp_path)  # where new measurements of detection are looked for
    app = AppTest.from_file(APP, default_timeout=300)
    if page != "read":
        app.switch_page(f"app_pages/{page}.py")
    app.run()
    assert not app.exception, [each.value for each in app.exception]
    if page in ("read", "about"):
        told = words_on(app)
        assert [name for name in names if f"{name}:" not in told and name not in told] == []
