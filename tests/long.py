"""Tests that take long: their times in a run's output in, ``long.txt`` out, and which tests it names.

``python -m tests.long LOG ...``, where the logs are what ``PYTEST_ADDOPTS=--durations=0 make test`` printed, and what
``make test-long`` did; they are read as one.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

LIMIT = 3.0
"""Seconds, beside another process of tests on two cores, from which a test is long."""
SHARED = 10.0
"""Seconds from which what tests of a file share makes all of them long; a server that a browser opens does not."""
LIST = Path(__file__).with_name("long.txt")
_TIME = re.compile(r"\s*([\d.]+)s (call|setup|teardown)\s+(tests/\S.*?)\s*$")


def listed() -> frozenset[str]:
    """Node ids, and files all of whose tests are long."""
    return frozenset(LIST.read_text(encoding="utf-8").splitlines())


def is_long(node: str) -> bool:
    """Whether a test is among them."""
    return not _LONG.isdisjoint((node, node.partition("::")[0]))


def found(lines: Iterable[str]) -> list[str]:
    """What is long in a run's output: tests, and files in which something takes long that several tests share."""
    seconds: Counter[str] = Counter()
    shared = set()
    for line in lines:
        if (told := _TIME.match(line)) is None:
            continue
        seconds[told[3]] += float(told[1])
        if told[2] == "setup" and float(told[1]) >= SHARED and not told[3].startswith("tests/browser/"):
            shared.add(told[3].partition("::")[0])
    tests = {node for node, each in seconds.items() if each >= LIMIT and node.partition("::")[0] not in shared}
    return sorted(shared | tests)


def main(logs: Sequence[str]) -> None:
    """Write the list."""
    lines = [line for log in logs for line in Path(log).read_text(encoding="utf-8").splitlines()]
    names = found(lines)
    if not names:
        sys.exit(f"No times in {', '.join(logs) or 'no log'}: give what pytest --durations=0 printed.")
    LIST.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    sys.stdout.write(f"{len(names)} long tests and files in {LIST}\n")


_LONG = listed() if LIST.is_file() else frozenset[str]()

if __name__ == "__main__":
    main(sys.argv[1:])
