"""Words that messages on pages and of commands share."""

from __future__ import annotations


def counted(number: int, one: str, many: str) -> str:
    """A number with its noun, "1 study" or "2 studies"."""
    return f"{number:,} {one if number == 1 else many}"
