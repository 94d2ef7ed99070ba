"""Damage, by name: what a disk, a person or a stranger does to a file. Each is done to a file in place."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Damage = Callable[[Path], None]
Place = tuple[str | int, ...]

HOSTILE = "![x](http://127.0.0.1:9/x.png) [a](http://b) <img src=http://127.0.0.1:9/y.png> :red[x] $x$ **b**"
"""A text that is markup wherever it is not taken for what it is."""

VALUES: Mapping[str, Any] = {
    "null": None,
    "a text": "x",
    "a list": [],
    "an object": {},
    "a number": -7,
    "true": True,
    "a huge number": 10**30,
    "a fraction": 0.5,
    "markup": HOSTILE,
    "a way out": "../../../../etc/passwd",
}
"""What is put in the place of a value."""


def _write(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content) and None


def _change(change: Callable[[bytes], bytes]) -> Damage:
    return lambda path: path.write_bytes(change(path.read_bytes())) and None


def _instead(make: Callable[[Path], None]) -> Damage:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def flip(content: bytes, place: float, bit: int = 6) -> bytes:
    """Turn one bit round, at a share of the way through."""
    changed = bytearray(content)
    changed[min(int(len(changed) * place), len(changed) - 1)] ^= 1 << bit
    return bytes(changed)


def zeroed(content: bytes, start: float, end: float) -> bytes:
    """A hole of zeros, as a disk leaves it."""
    first, last = int(len(content) * start), int(len(content) * end)
    return content[:first] + b"\0" * (last - first) + content[last:]


OF_ANY: Mapping[str, Damage] = {
    "empty": _write(b""),
    "half of it": _change(lambda content: content[: len(content) // 2]),
    "the last byte cut": _change(lambda content: content[:-1]),
    "a byte": _write(b"x"),
    "noise": _write(bytes(range(256)) * 64),
    "zeros": _change(lambda content: b"\0" * len(content)),
    "a hole of zeros": _change(lambda content: zeroed(content, 0.6, 0.7)),
    "one bit": _change(lambda content: flip(content, 0.77)),
    "one bit at the start": _change(lambda content: flip(content, 0.0)),
    "UTF-16": _change(lambda content: content.decode("utf-8", "replace").encode("utf-16")),
    "bytes that are no UTF-8": _change(lambda content: content[:2] + b"\xff\xfe" + content[2:]),
    "a pickle": _write(b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "a folder": _instead(lambda path: path.mkdir()),
    "nothing": lambda path: path.unlink(),
    "a link to nowhere": _instead(lambda path: path.symlink_to("/nowhere/at/all")),
    "a link to itself": _instead(lambda path: path.symlink_to(path.name)),
    "a link to an endless file": _instead(lambda path: path.symlink_to("/dev/zero")),
    "a pipe": _instead(lambda path: os.mkfifo(path)),
}
"""Done to any file."""

OF_JSON: Mapping[str, Damage] = {
    "a list": _write(b"[]"),
    "an empty object": _write(b"{}"),
    "null": _write(b"null"),
    "a number": _write(b"5"),
    "NaN": _write(b"NaN"),
    "100,000 brackets": _write(b"[" * 100_000),
    "100,000 brackets, closed": _write(b"[" * 100_000 + b"]" * 100_000),
    "500 objects deep": _change(lambda content: b'{"a":' * 500 + content + b"}" * 500),
    "100 MB": lambda path: os.truncate(path, 100_000_000),
    "half a character": _write(b'"\\ud800"'),
    "a number of 5,000 digits": _write(b"9" * 5000),
    "a number beyond all": _write(b"[1e999]"),
}
"""Done to a JSON file as a whole."""


def places(content: Any, at: Place = ()) -> Iterator[Place]:
    """Where something stands in plain values; of a list the first and the last element."""
    if at:
        yield at
    if isinstance(content, dict):
        for key in content:
            yield from places(content[key], (*at, key))
    elif isinstance(content, list) and content:
        for index in sorted({0, len(content) - 1}):
            yield from places(content[index], (*at, index))


def replaced(content: Any, at: Place, value: Any) -> Any:
    """A copy with a value in a place."""
    changed = copy.deepcopy(content)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


def without(content: Any, at: Place) -> Any:
    """A copy without a place."""
    changed = copy.deepcopy(content)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    del inner[at[-1]]
    return changed


def _dump(make: Callable[[], Any]) -> Damage:
    return lambda path: path.write_text(json.dumps(make()), encoding="utf-8") and None


def of_values(content: Any, most: int) -> dict[str, Damage]:
    """Damage to single values of a JSON file, at most so many, spread evenly over all there are."""
    every: list[tuple[str, Damage]] = []
    for at in places(content):
        where = ".".join(map(str, at))
        every.append((f"without {where}", _dump(lambda at=at: without(content, at))))  # type: ignore[misc]
        for name, value in VALUES.items():
            every.append((f"{where} is {name}", _dump(lambda at=at, value=value: replaced(content, at, value))))  # type: ignore[misc]
        every.append((f"{where} is NaN", _dump(lambda at=at: replaced(content, at, float("nan")))))  # type: ignore[misc]
    return dict(spread(every, most))


def spread(every: Sequence[Any], most: int) -> list[Any]:
    """So many of a sequence, evenly."""
    if len(every) <= most:
        return list(every)
    return [every[index * len(every) // most] for index in range(most)]


def of_json(path: Path, most: int) -> dict[str, Damage]:
    """All damage to a JSON file, with at most ``most`` changes of single values."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {**OF_ANY, **{f"JSON: {name}": each for name, each in OF_JSON.items()}, **of_values(content, most)}
