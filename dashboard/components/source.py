"""The browser's half of a component: files of this folder, one after another."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path(__file__).parent


def source(*names: str) -> str:
    """Text of files of this folder, joined; what they share stands in ``dom.js``, ``marks.js`` and ``marks.css``."""
    return "\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in names)
