"""Open-i's human codes ("Opacity/lung/base/left") as states of the observations: a reference for labelers.

The table is in `mesh.toml`. Codes say what is there, never what is absent, so no state is NEGATIVE.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from core.observations import OBSERVATIONS, LabelState, no_finding_state, stronger

NOT_CODED = "No Indexing"


@dataclass(frozen=True, slots=True)
class Code:
    """A code of Open-i: its heading and its qualifiers, lower case, in order."""

    heading: str
    qualifiers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Entry:
    heading: str
    means: tuple[str, ...]
    wanted: frozenset[str]
    barred: frozenset[str]
    uncertain: bool

    def fits(self, code: Code) -> bool:
        qualifiers = set(code.qualifiers)
        return (
            code.heading == self.heading
            and not qualifiers & self.barred
            and (not self.wanted or bool(qualifiers & self.wanted))
        )


_TABLE = tuple(
    _Entry(
        entry["heading"].lower(),
        tuple(entry["means"]),
        frozenset(entry.get("with", ())),
        frozenset(entry.get("without", ())),
        entry.get("uncertain", False),
    )
    for entry in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["code"]
)


def read_code(text: str) -> Code:
    """Split "Cardiomegaly/mild" into heading and qualifiers."""
    heading, *qualifiers = (part.strip().lower() for part in text.split("/"))
    return Code(heading, tuple(qualifiers))


def names_of_codes(codes: Iterable[str]) -> frozenset[str] | None:
    """Return what was coded: each heading, and each "heading/qualifier", lower case; None where no one has coded it.

    Args:
        codes: as of `states_of_codes`.
    """
    read = [code for code in map(read_code, codes) if code.heading]
    if not read or any(code.heading == NOT_CODED.lower() for code in read):
        return None
    pairs = {f"{code.heading}/{qualifier}" for code in read for qualifier in code.qualifiers}
    return frozenset({code.heading for code in read} | pairs)


def states_of_codes(codes: Iterable[str]) -> dict[str, LabelState] | None:
    """Return what the codes of a report say of the 14 observations, or None where no one has coded it.

    Args:
        codes: as in the tags `major` of the XML release, or in the column `MeSH` of the CSV, split at ";".

    Returns:
        by observation name: POSITIVE, UNCERTAIN or BLANK; No Finding is worked out from the others.
    """
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for code in map(read_code, codes):
        if code.heading == NOT_CODED.lower():
            return None
        for entry in _TABLE:
            if entry.fits(code):
                uncertain = entry.uncertain or "borderline" in code.qualifiers
                state = LabelState.UNCERTAIN if uncertain else LabelState.POSITIVE
                for name in entry.means:
                    states[name] = stronger(states[name], state)
    return states | {"No Finding": no_finding_state(states)}
