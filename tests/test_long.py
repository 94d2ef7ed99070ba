"""Which tests are long: read from measured times, and of tests that are there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.long import LIMIT, LIST, found, is_long, listed, main

LOG = """
============================= slowest durations ==============================
2.00s call     tests/test_a.py::test_both
1.50s setup    tests/test_a.py::test_both
9.00s call     tests/test_a.py::test_words[two words, and 3.5]
0.10s call     tests/test_a.py::test_short
11.00s setup    tests/test_b.py::test_first
0.01s call     tests/test_b.py::test_first
12.00s setup    tests/browser/test_c.py::test_page
(3 durations < 0.005s hidden.  Use -vv to show these durations.)
"""


def test_times_are_of_a_test_and_what_tests_share_of_all_of_them() -> None:
    assert found(LOG.splitlines()) == [
        "tests/browser/test_c.py::test_page",
        "tests/test_a.py::test_both",
        "tests/test_a.py::test_words[two words, and 3.5]",
        "tests/test_b.py",
    ]
    assert LIMIT == 3


def test_a_log_without_times_writes_nothing(tmp_path: Path) -> None:
    before = LIST.read_bytes()
    (tmp_path / "log").write_text("4596 passed in 1264.84s\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="No times in"):
        main([str(tmp_path / "log")])
    assert LIST.read_bytes() == before


def test_all_that_is_listed_is_there() -> None:
    """A test that got another name would come back to the quick ones unseen."""
    for name in listed():
        file, _, test = name.partition("::")
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert not test or test.partition("[")[0] in there, name


def test_a_listed_test_has_the_mark(request: pytest.FixtureRequest) -> None:
    assert is_long(next(name for name in sorted(listed()) if "[" not in name))
    assert not is_long(request.node.nodeid)
    marked = [each for each in request.session.items if each.get_closest_marker("long")]
    assert {each.nodeid for each in marked} == {each.nodeid for each in request.session.items if is_long(each.nodeid)}
