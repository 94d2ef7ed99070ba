"""What must become of an odd file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

RIGHT = frozenset({"right"})
TOLD = frozenset({"told"})  # an image with a note
NOTED = frozenset({"right", "told"})
REFUSED = frozenset({"refused"})
RIGHT_OR_REFUSED = RIGHT | REFUSED
HONEST = RIGHT | TOLD | REFUSED  # never a wrong image without a word
ANY = HONEST | {"wrong"}  # damage that the format has no means to tell


@dataclass(frozen=True)
class Odd:
    """One file.

    Attributes:
        name: unique.
        group: a row of the table of counts.
        make: its bytes.
        allowed: what may become of it.
        says: words that its notes or its refusal must contain.
        tolerance: largest difference from the formula that is "right".
        inverse: whether the negative is right.
    """

    name: str
    group: str
    make: Callable[[], bytes]
    allowed: frozenset[str]
    says: str = ""
    tolerance: float = 0.005
    inverse: bool = False
