"""The benchmark: what it keeps, shows and compares. No test asserts a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from core.types import CXRLensError
from training.bench import speeds
from training.bench.record import Line, Part, changes, load, page, save, table
from training.bench.turns import Row, in_turns


def row(theirs: Sequence[float], ours: Sequence[float], what: str = "a search") -> Row:
    return Row(what, "a plain one", theirs, ours)


def part(*lines: Line) -> Part:
    return Part("a machine", "2026-01-31", lines)


def test_a_row_tells_the_ratio_of_medians_and_that_of_each_turn() -> None:
    found = row([4.0, 6.0, 50.0], [2.0, 2.0, 10.0])
    assert found.times == 3.0
    assert found.spread == (2.0, 5.0)
    once = row([8.0], [2.0, 4.0])  # the other way takes too long for a second turn
    assert once.times == pytest.approx(8 / 3)
    assert once.spread == (2.0, 4.0)


def test_both_ways_take_turns_and_must_give_the_same() -> None:
    done: list[str] = []
    way = lambda name, value: lambda: done.append(name) or value  # type: ignore[func-returns-value] # noqa: E731
    found = in_turns("what", "peer", way("plain", 1), way("ours", 1), turns=3)
    assert done == ["plain", "ours"] * 4  # the first two warm up
    assert (len(found.theirs), len(found.ours), found.unit) == (3, 3, "s of CPU")
    with pytest.raises(RuntimeError, match="what: both ways must give the same"):
        in_turns("what", "peer", way("plain", 1), way("ours", 2))
    done.clear()
    found = in_turns("what", "peer", way("plain", 1), way("ours", 2), None, clock=True, turns=3, plain_turns=1)
    assert done.count("plain") == 1
    assert (len(found.theirs), len(found.ours), found.unit) == (1, 3, "s")


def test_only_what_changed_by_more_than_the_spread_of_both_runs_is_named() -> None:
    before = {"searches": part(row([2.0, 2.2], [1.0, 1.0]), row([3.0], [1.0], "a map"), row([9.0], [1.0], "gone"))}
    same = {"searches": part(row([2.1, 2.3], [1.0, 1.0]), "a line", row([1.0], [9.0], "new"))}
    assert list(changes(before, same)) == []
    slower = {"searches": part(row([1.5, 1.9], [1.0, 1.0]), row([4.0], [1.0], "a map"))}
    first, second = changes(before, slower)
    assert first == "- slower: a search, against a plain one: 1.70 times as fast, before 2.10"
    assert second.startswith("- faster: a map")
    assert list(changes({}, slower)) == []


def test_what_was_kept_is_read_again_and_what_is_damaged_is_told(tmp_path: Path) -> None:
    path, parts = tmp_path / "deep" / "speeds.json", {"searches": part("One image: 3 s.", row([2.0], [1.0]))}
    assert load(path) == {}
    save(path, parts)
    found = load(path)["searches"]
    assert (found.machine, found.day, found.lines[0]) == ("a machine", "2026-01-31", "One image: 3 s.")
    assert isinstance(found.lines[1], Row)
    assert found.lines[1].times == 2.0
    for damaged in ('{"a": 1}', '{"a": {"machine": "", "day": "", "lines": [{"what": 1}]}}', "[]", "{"):
        path.write_text(damaged)
        with pytest.raises(CXRLensError, match=r"speeds\.json"):
            load(path)


def test_rows_that_follow_each_other_stand_in_one_table() -> None:
    lines = list(
        table([row([2.0], [1.0]), row([3.0], [1.0], "b"), "| a |", "|---|", "| 1 |", "Text.", row([1.0], [1.0])])
    )
    assert [line[:6] for line in lines if line.startswith("| what")] == ["| what"] * 2
    blanks = [place for place, line in enumerate(lines) if not line]
    assert [lines[place + 1][:5] for place in blanks] == ["| a |", "Text.", "| wha"]


def test_the_page_has_each_part_under_its_title_with_its_command_and_machine() -> None:
    text = page({"b": part(row([2.0], [1.0]))}, {"a": "First", "b": "Second"})
    assert "First" not in text
    assert "## Second\n\n`make bench PARTS=b`, 2026-01-31. a machine.\n\n| what |" in text
    assert "| a search | a plain one | 2 s | 1 s | 2.00 | 2.00 to 2.00 |" in text


@pytest.fixture
def parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Two parts, whose speeds a test decides."""
    ours = {"fast": 1.0, "slow": 1.0}

    def measure(name: str) -> Callable[[], Iterator[Line]]:
        return lambda: iter(["a line", row([2.0, 2.0], [ours[name]] * 2, name)])

    monkeypatch.setattr(speeds, "PARTS", {name: (name.title(), measure(name)) for name in ours})
    monkeypatch.setattr(speeds, "KEPT", tmp_path / "kept" / "speeds")
    return ours


def test_a_part_is_measured_alone_kept_and_compared_the_next_time(
    parts: dict[str, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        speeds.main(["rate"])
    assert "no such part: rate; choose from fast, slow" in capsys.readouterr().err
    speeds.main(["--keep"])
    assert "Nothing changed" in capsys.readouterr().out
    kept = tmp_path / "kept" / "speeds.json"
    before = kept.read_text()
    parts["slow"] = 4.0
    speeds.main(["slow", "--out", str(tmp_path / "now")])
    told = capsys.readouterr().out
    assert "- slower: slow, against a plain one: 0.50 times as fast, before 2.00" in told
    assert "## Fast" not in told
    assert kept.read_text() == before
    assert "| slow |" in (tmp_path / "now" / "speeds.md").read_text()
    speeds.main(["slow", "--keep"])
    assert set(json.loads(kept.read_text())) == {"fast", "slow"}  # the other part stays
    assert "## Fast" in (tmp_path / "kept" / "speeds.md").read_text()


def test_an_interruption_keeps_the_parts_before(
    parts: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops() -> Iterator[Line]:
        yield "a line"
        raise KeyboardInterrupt

    monkeypatch.setattr(speeds, "PARTS", {"fast": speeds.PARTS["fast"], "slow": ("Slow", stops)})
    with pytest.raises(KeyboardInterrupt):
        speeds.main(["--out", str(tmp_path / "now")])
    assert set(load(tmp_path / "now" / "speeds.json")) == {"fast"}


def test_the_page_that_ships_is_the_one_of_its_numbers() -> None:
    found = load(speeds.KEPT.with_suffix(".json"))
    assert found.keys() <= speeds.PARTS.keys() and len(found) > 3
    titles = {name: title for name, (title, _) in speeds.PARTS.items()}
    assert speeds.KEPT.with_suffix(".md").read_text(encoding="utf-8") == page(found, titles)
