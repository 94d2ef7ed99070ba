"""What a stage is known by: all that decides its result, as plain values, and why two such differ."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core.files import hash_of

VERSIONS: Mapping[str, int] = {
    "backbone": 1,
    "classifier": 1,
    "clip": 1,
    "tokens": 1,
    "decoder": 2,
    "table_2_row": 1,
    "table_2_cdc": 1,
    "table_3": 2,
    "export": 2,
    "evaluate": 1,
    "explanation": 2,
}
"""A number for each kind of stage, and for a part of the explanation benchmark. Raise it in the change that makes the
same settings give another result: that stage, and all that stand on it, are then made anew."""

_MOST_REASONS = 3
"""Differences that are told; of more, their number."""


def stage_identity(stage: str, **values: Any) -> dict[str, Any]:
    """What decides the result of a stage.

    Args:
        stage: a key of ``VERSIONS``.
        values: plain values of JSON; "after" has the keys of the stages before, by their folders' names.
    """
    return {"stage": stage, "version": VERSIONS[stage], **values}


def content_hash(value: Any) -> str:
    """Short hash of plain values; equal values have equal hashes, in whatever order dictionaries have their keys.

    Raises:
        TypeError: a value is none of JSON's: its text might change without its meaning, or stay where that changes.
    """
    for where, each in _leaves(value, ""):
        if not _is_plain(each):
            raise TypeError(f"{where.removeprefix('.') or 'the value'} is no plain value of JSON: {each!r}")
    return hash_of(value, 16)


def _is_plain(leaf: Any) -> bool:
    if type(leaf) is float:
        return math.isfinite(leaf)
    return leaf is None or isinstance(leaf, bool | int | str) or (isinstance(leaf, dict | list | tuple) and not leaf)


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    """Dotted names and values of what holds no other values; so is a dictionary with a key that is no text."""
    if isinstance(value, dict) and value and all(isinstance(key, str) for key in value):
        for key, each in value.items():
            yield from _leaves(each, f"{where}.{key}")
    elif isinstance(value, list | tuple) and value:
        for index, each in enumerate(value):
            yield from _leaves(each, f"{where}.{index}")
    else:
        yield where, value


def file_hash(path: Path) -> str:
    """Short hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def why_anew(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say in how far what a stage was made from differs from what it would be made from now."""
    old, new = (dict(_leaves(dict(each), "")) for each in (before, now))
    reasons = [_reason(key[1:], old, new) for key in {**new, **old} if old.get(key) != new.get(key)]
    more = len(reasons) - _MOST_REASONS
    return "; ".join(reasons[:_MOST_REASONS]) + (f"; and {more} more differences" if more > 0 else "")


def _reason(key: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    was, is_now = (json.dumps(each[f".{key}"]) if f".{key}" in each else "not set" for each in (old, new))
    if key.startswith("after."):
        return f"it stands on {key.removeprefix('after.')}, which is another now"
    if key == "data.studies":
        return "its studies are others now"
    if key == "version":
        return f"it is made in another way now (version {is_now}, was {was})"
    return f"{key} is {is_now}, was {was}"
