"""Reports of others to test systems with: files in every form, and programs that behave or do not."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

PROGRAM = """
import json, os, sys, time
given, out, images = sys.argv[1:4]
cases = json.load(open(given))
{before}
answer = {{}}
for name, case in cases.items():
    size = os.path.getsize(os.path.join(images, case["image_path"][0]))
    assert "reference" not in case and "findings" not in case
    answer[name] = {{**case, "model_prediction": {text}}}
json.dump(answer, open(out, "w"))
"""
"""A program as ReXrank runs it."""


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def write_jsonl(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def program(folder: Path, text: str = '"There is a small left pleural effusion."', before: str = "") -> str:
    """Write a program; returns its command line."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "inference.py"
    path.write_text(PROGRAM.format(text=text, before=before), encoding="utf-8")
    return f'"{sys.executable}" "{path}"'
