"""What is done once instead of again, against the way without it in the same run: ``make bench PARTS=shortcuts``.

The results of both ways are compared before anything is measured. CPU time, medians of runs that take turns.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from csv import DictReader
from pathlib import Path
from statistics import median
from unittest.mock import patch

from core.labels import report_text, rules
from core.paths import BUNDLES

OPENI = Path(__file__).resolve().parents[3] / "shared" / "data" / "openi" / "indiana_reports.csv"
"""Open-i's reports beside the clone; without them its row is left out."""
TURNS = 5
ENDS = re.compile(
    r"(?<!\bvs)(?<!\d )\.(?=[\s.a-z]|$)|(?<=\d )\.(?! ?\d)|!(?=\s|$)|(?<=[\w)\"'])\?(?=\s|$)|\n"
    r"|(?<=\s)(?=#?\d{1,2}\)\s)|(?<=\s)(?=\([1-9]\)\s*[a-z])|(?<=\s)(?=#\d{1,2}\s)|(?=\u2022)"
    r"|(?<=\s)(?=(?:[a-e]|[ivx]{1,4})\)\s)|(?<=\s)(?=\*\s)|\|"
)
"""Where statements end, in one expression, which tries every alternative at every character."""


def in_turns(plain: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Seconds of CPU of two ways to do the same, medians of runs that take turns, so that both meet the same machine.

    Raises:
        RuntimeError: they do not give the same.
    """
    if plain() != ours():
        raise RuntimeError("Both ways must give the same result.")
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(TURNS):
        for work, found in zip((plain, ours), times, strict=True):
            began = time.process_time()
            work()
            found.append(time.process_time() - began)
    return median(times[0]), median(times[1])


def _openi() -> list[str]:
    with OPENI.open(newline="", encoding="utf-8") as file:
        return [row[part] for row in DictReader(file) for part in ("findings", "impression") if row[part]]


def _generated() -> list[str]:
    lines = (BUNDLES / "phantom-reports.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in lines for name, text in json.loads(line).items() if name.startswith("phantom-")]


def labels() -> Iterator[tuple[str, float, float]]:
    """The rule labeler, which remembers sentences, against every statement decided anew, its end sought everywhere."""

    def anew(texts: list[str]) -> list[rules.LabeledReport]:
        with patch.object(rules, "_mentions", rules._read_statement), patch.object(report_text, "_END", ENDS):
            return rules.label_reports(texts)

    def first_time(texts: list[str]) -> list[rules.LabeledReport]:
        rules._remembered.cache_clear()
        return rules.label_reports(texts)

    for what, texts in (("of Open-i", _openi() if OPENI.is_file() else []), ("that pairs wrote", _generated())):
        if texts:
            name = f"rule labeler, {len(texts):,} reports {what}, nothing remembered"
            yield name, *in_turns(lambda texts=texts: anew(texts), lambda texts=texts: first_time(texts))  # type: ignore[misc]


def report() -> Iterator[str]:
    """A table: seconds of CPU without a shortcut and with it, and how many times faster."""
    yield "| what | without, s | with, s | times faster |\n|---|---:|---:|---:|"
    for rows in (labels(),):
        for name, plain, ours in rows:
            yield f"| {name} | {plain:.3f} | {ours:.3f} | {plain / ours:.1f} |"
