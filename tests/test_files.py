"""Files and folders that are whole or not there, whoever else writes them and whatever fails."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from core.files import DiskError, hash_of, own_folder, remove_forgotten, whole_file, whole_folder, write_whole
from core.types import CXRLensError
from tests import needs


def test_several_writers_of_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, texts = tmp_path / "about.json", [letter * 1000 for letter in "abcdefgh"]

    def write(text: str) -> set[str]:
        seen = set()
        for _ in range(50):
            write_whole(path, text)
            seen.add(path.read_text(encoding="utf-8"))
        return seen

    with ThreadPoolExecutor(len(texts)) as pool:
        seen = set().union(*pool.map(write, texts))
    assert seen <= set(texts)
    assert [each.name for each in tmp_path.iterdir()] == ["about.json"]


@pytest.mark.parametrize(
    ("failure", "told"),
    [
        (OSError(28, "No space left on device"), DiskError),
        (CXRLensError("what was written is not sound"), CXRLensError),
        (ZeroDivisionError(), ZeroDivisionError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
)
@pytest.mark.parametrize("whole", [whole_file, whole_folder])
@pytest.mark.parametrize("there", [False, True])
def test_what_fails_half_way_leaves_what_was_there_and_nothing_else(
    tmp_path: Path,
    whole: Callable[[Path], AbstractContextManager[Path]],
    there: bool,
    failure: BaseException,
    told: type[BaseException],
) -> None:
    path = tmp_path / "result"

    def fill(place: Path, text: str) -> None:
        (place / "in.txt" if whole is whole_folder else place).write_text(text)

    if there:
        with whole(path) as fresh:
            fill(fresh, "before")
    with pytest.raises(told), whole(path) as fresh:
        fill(fresh, "half")
        raise failure
    assert [each.name for each in tmp_path.iterdir()] == (["result"] if there else [])
    if there:
        assert (path / "in.txt" if whole is whole_folder else path).read_text() == "before"


def test_a_folder_replaces_one_that_has_other_files(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    for name in ("old.txt", "new.txt"):
        with whole_folder(path) as fresh:
            (fresh / name).write_text(name)
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]
    assert [each.name for each in path.iterdir()] == ["new.txt"]


def test_a_file_that_cannot_be_written_is_told_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(DiskError, match=r"lacking/about\.json could not be written: No such file"):
        write_whole(tmp_path / "lacking" / "about.json", "{}")


def test_a_library_with_errors_of_its_own_is_told_as_a_disk_too(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    with pytest.raises(DiskError, match="could not be written"), whole_file(tmp_path / "a.safetensors"):
        save_file({"a": np.zeros(1)}, tmp_path / "lacking" / "a.safetensors")


def test_another_file_that_cannot_be_read_meanwhile_is_not_taken_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "table.csv") as fresh:
        fresh.write_text((tmp_path / "lacking.csv").read_text())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_came_meanwhile_is_not_replaced(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    if not links:  # as on a stick with exFAT
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "key"
    with whole_file(path, replace=False) as fresh:
        fresh.write_text("first")
    with pytest.raises(FileExistsError), whole_file(path, replace=False) as fresh:
        fresh.write_text("second")
    assert path.read_text() == "first"
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@needs.RIGHTS.unless(os.name == "posix")
def test_a_private_file_is_its_owners_from_its_first_byte(tmp_path: Path) -> None:
    with whole_file(tmp_path / "key") as fresh:
        assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
        fresh.write_text("secret")
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


@needs.RIGHTS.unless(os.name == "posix")
@hypothesis.given(
    names=st.lists(st.text("ab/", min_size=1, max_size=5).map(lambda name: name.strip("/") or "a"), max_size=4),
    mask=st.sampled_from([0, 0o022, 0o077]),
    private=st.booleans(),
    removed=st.booleans(),
)
@hypothesis.settings(max_examples=30)
def test_what_is_written_is_its_owners_alone_unless_it_is_given_away(
    names: list[str], mask: int, private: bool, removed: bool
) -> None:
    before = os.umask(mask)
    try:
        with tempfile.TemporaryDirectory() as place:
            folder = own_folder(Path(place, "one", "two"))
            write_whole(folder / "text", "x", private=private)
            with whole_file(folder / "array", private=private) as fresh:
                if removed:  # a library that writes beside and renames
                    fresh.unlink()
                fresh.write_bytes(b"x")
            with whole_folder(folder / "folder", private=private) as fresh:
                for name in names:
                    with suppress(FileExistsError, NotADirectoryError, IsADirectoryError):
                        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                        (fresh / name).write_text("x")
            for each in (folder.parent, folder):
                assert stat.S_IMODE(each.stat().st_mode) == 0o700 & ~mask
            for each in folder.rglob("*"):
                shared = stat.S_IMODE(each.stat().st_mode) & 0o077
                assert shared == 0 if private else bool(shared) == (mask != 0o077), each
    finally:
        os.umask(before)


def test_what_a_killed_writer_left_goes_and_what_is_being_written_stays(tmp_path: Path) -> None:
    killed = whole_file(tmp_path / "a.npy")
    left = killed.__enter__()
    os.utime(left, (time.time() - 7200,) * 2)
    with whole_file(tmp_path / "b.npy") as fresh:
        remove_forgotten(tmp_path)
        assert not left.exists()
        assert fresh.exists()
        assert not list(tmp_path.glob("*.npy"))  # no search for files of a kind finds either


def test_plain_values_have_the_hash_of_their_canonical_json() -> None:
    """Files, maps and the events of reviews are found again by it: it must never change."""
    expected = hashlib.sha256(b'{"a": [1, "\\u00e9"], "b": null}').hexdigest()
    assert hash_of({"b": None, "a": [1, "é"]}) == hash_of({"a": (1, "é"), "b": None}) == expected
    assert hash_of({"b": None, "a": [1, "é"]}, 16) == expected[:16]
    assert hash_of([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
