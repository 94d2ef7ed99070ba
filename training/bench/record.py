"""What was measured, kept as JSON, shown as a page, and compared with what was kept before."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import json
import os
import platform
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Self, TypeAlias

import psutil
import torch

from core.contents import read_json
from core.files import write_whole
from core.types import CXRLensError
from training.bench.turns import Row

PACKAGES = ("torch", "numpy", "scikit-learn", "openTSNE", "transformers", "openvino")
HEAD = "| what | against | the other way | ours | times as fast | lowest to highest |\n|---|---|---:|---:|---:|---:|"
Line: TypeAlias = Row | str
"""What a part of the benchmark yields: a comparison, or a line of Markdown that says something else."""


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the benchmark as it was measured.

    Attributes:
        machine: where, in words.
        day: when, as 2026-01-31.
        lines: what came out.
    """

    machine: str
    day: str
    lines: tuple[Line, ...]

    @classmethod
    def of_now(cls, lines: Iterable[Line]) -> Self:
        """Of this machine, today."""
        return cls(machine(), datetime.datetime.now(datetime.UTC).date().isoformat(), tuple(lines))


def machine() -> str:
    """This machine in words: processor, what it can do, cores, threads of torch, memory, packages."""
    found = ", ".join(f"{name} {version}" for name in PACKAGES if (version := _version(name)))
    return (
        f"{_processor()}, {torch.backends.cpu.get_cpu_capability()}{_matrix_unit()}, {os.cpu_count()} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB; Python {platform.python_version()}, {found}"
    )


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _matrix_unit() -> str:
    """Whether the processor multiplies matrices of bfloat16 in a unit of its own, which decides its ratios to fp32."""
    return " and AMX" if torch.cpu.get_capabilities().get("amx_bf16") else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "a processor")


def table(lines: Iterable[Line]) -> Iterator[str]:
    """Lines of Markdown; rows that follow each other stand in one table, whose head comes before the first."""
    before = ""
    for line in lines:
        kind = "row" if isinstance(line, Row) else "table" if line.startswith("|") else "text"
        if kind != before:
            if before:
                yield ""
            if kind == "row":
                yield HEAD
        before = kind
        yield _told(line) if isinstance(line, Row) else line


def _told(row: Row) -> str:
    low, high = row.spread
    theirs, ours = (f"{median(each):.3g} {row.unit}" for each in (row.theirs, row.ours))
    return f"| {row.what} | {row.peer} | {theirs} | {ours} | {row.times:.2f} | {low:.2f} to {high:.2f} |"


def changes(last: Mapping[str, Part], now: Mapping[str, Part]) -> Iterator[str]:
    """A line for each row that became slower, or faster, by more than the spread of both runs.

    Ratios are compared, since machines differ; rows that only one of the runs has are left out.
    """
    for name, part in now.items():
        before = {
            (row.what, row.peer): row for row in (last[name].lines if name in last else ()) if isinstance(row, Row)
        }
        for row in part.lines:
            old = before.get((row.what, row.peer)) if isinstance(row, Row) else None
            if old is None or isinstance(row, str):
                continue
            if row.spread[1] < old.spread[0] or row.spread[0] > old.spread[1]:
                way = "slower" if row.times < old.times else "faster"
                yield f"- {way}: {row.what}, against {row.peer}: {row.times:.2f} times as fast, before {old.times:.2f}"


def save(path: Path, parts: Mapping[str, Part]) -> None:
    """Write parts as JSON."""
    plain = {
        name: {
            "machine": part.machine,
            "day": part.day,
            "lines": [line if isinstance(line, str) else dataclasses.asdict(line) for line in part.lines],
        }
        for name, part in parts.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(plain, indent=1) + "\n")


def load(path: Path) -> dict[str, Part]:
    """Parts of a file; none where there is no file.

    Raises:
        CXRLensError: it is not such a file.
    """
    if not path.is_file():
        return {}
    try:
        found: Any = read_json(path)
        return {
            name: Part(
                part["machine"],
                part["day"],
                tuple(line if isinstance(line, str) else Row(**line) for line in part["lines"]),
            )
            for name, part in found.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CXRLensError(f"{path} is not what the benchmark wrote. Measure again with --keep.") from error


def page(parts: Mapping[str, Part], titles: Mapping[str, str]) -> str:
    """The page of all parts that were measured.

    Args:
        parts: by name.
        titles: of the parts, in the order of the page.
    """
    blocks = [PREFACE]
    for name, title in titles.items():
        if name in parts:
            part = parts[name]
            blocks += [
                f"## {title}",
                f"`make bench PARTS={name}`, {part.day}. {part.machine}.",
                "\n".join(table(part.lines)),
            ]
    return "\n\n".join(blocks) + "\n"


PREFACE = """# Speeds

`make bench KEEP=1` writes this page and `docs/speeds.json`. Every row compares two ways in one run: they take turns on
the same machine. *The other way* and *ours* are medians, seconds of the clock or of processor time; *times as fast* is
their ratio, then the lowest and the highest ratio of the turns. Machines differ: compare ratios. `make bench` measures
again, writes to `build/bench/`, and names what is slower than here by more than the spread of both runs."""
