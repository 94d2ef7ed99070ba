"""Attacks on what the program reads: damage made on purpose, and what became of it, counted.

``python -m tests.attacks`` runs all kinds and writes the table of docs/trust.md; ``python -m tests.attacks caches``
runs one. All is deterministic, on this machine alone, and in temporary folders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from core.types import CXRLensError


@dataclass
class Tally:
    """What became of the attacks of a kind.

    Attributes:
        kind: of what was attacked.
        refused: it was said what is wrong, in a sentence.
        right: the result was that of undamaged files.
        wrong: a traceback, or another result and not a word; what was tried, and what happened.
    """

    kind: str
    refused: int = 0
    right: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        return self.refused + self.right + len(self.wrong)

    def attempt(self, name: str, use: Callable[[], bool]) -> None:
        """Use what was damaged.

        Args:
            name: of the damage.
            use: does what a user would; whether its result is right.
        """
        try:
            if use():
                self.right += 1
            else:
                self.wrong.append(f"{name}: another result, and nothing was said")
        except CXRLensError as error:
            if str(error).strip():
                self.refused += 1
            else:
                self.wrong.append(f"{name}: refused without a word")
        except Exception as error:
            self.wrong.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
