"""Files that are whole or not there, whoever else writes them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from core.files import write_whole


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
