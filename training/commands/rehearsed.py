"""What ``cxr-lens review simulate`` rehearses: a session, a design, or a folder with a design and what is planted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.reviews.case_files import read_cases
from core.reviews.design import Case, Design, read_design
from core.reviews.planted import NOTHING_PLANTED, Planted, read_planted
from core.reviews.rehearsal import copied, invented_cases
from core.types import CXRLensError
from training.commands.review import find_session, open_database, read_toml, with_rubric

DESIGN, REHEARSAL = "design.toml", "rehearsal.toml"
"""Files of a folder."""


@dataclass(frozen=True, slots=True, eq=False)
class Rehearsed:
    """What is rehearsed.

    Attributes:
        design: of the session.
        pool: cases to choose from.
        seed: of all that is drawn.
        planted: effects that are not drawn.
        folder: with the design; None where it is not of a folder.
    """

    design: Design
    pool: Sequence[Case]
    seed: int
    planted: Planted = NOTHING_PLANTED
    folder: Path | None = None

    def notes(self) -> list[str]:
        """What stands above its tables: that no reader was there, and what they were made from."""
        made = f"Seed {self.seed}; {len(self.design.readers)} readers in the design"
        if self.folder is not None:
            made += f"; made from files with the hash `{inputs_hash(self.folder)}`"
        return [
            "Answered by synthetic readers: it says how the tables look, and nothing of any report.",
            f"{made}.",
        ]


def inputs_hash(folder: Path) -> str:
    """16 digits of what a folder's tables are made from: its TOML files."""
    files = sorted(folder.glob("*.toml"))
    content = b"".join(each.name.encode() + b"\0" + each.read_bytes().replace(b"\r\n", b"\n") + b"\0" for each in files)
    return hashlib.sha256(content).hexdigest()[:16]


def read_rehearsed(
    what: str, cases: Path | None, seed: int | None, studies: int | None, database: str | None, user: str | None
) -> Rehearsed:
    """Read what a user names.

    Args:
        what: the beginning of a session's id, a design's file, or a folder.
        cases: of a design; None invents them.
        seed: None takes that of the folder, else 0.
        studies: so many of them only; None takes all.
        database: of a session.
        user: whose session it is.

    Raises:
        CXRLensError: it cannot be read, or contradicts itself.
    """
    path, folder, planted, kept_seed = Path(what), None, NOTHING_PLANTED, 0
    if path.is_dir():
        folder, path = path, path / DESIGN
        if (folder / REHEARSAL).exists():
            kept_seed, planted = read_planted(read_toml(folder / REHEARSAL))
    seed = kept_seed if seed is None else seed
    if path.suffix == ".toml" or path.is_file():
        design = read_design(with_rubric(read_toml(path), path.parent))
        design = _fewer(design, studies)
        return Rehearsed(design, read_cases(cases) if cases else invented_cases(design, seed), seed, planted, folder)
    if cases:
        raise CXRLensError("--cases goes with a design: a session has its cases.")
    with open_database(database, user) as (opened, who):
        design, pool = copied(opened, who, find_session(opened, who, what))
    return Rehearsed(_fewer(design, studies), pool, seed)


def _fewer(design: Design, studies: int | None) -> Design:
    """A design with so many studies only, and no hidden repeats, for which there may be too few screens."""
    if studies is None:
        return design
    chosen = design.studies
    if chosen.how == "listed":
        chosen = replace(chosen, ids=chosen.ids[:studies], count=0)
    else:
        chosen = replace(chosen, count=min(studies, chosen.count or studies))
    return replace(design, studies=chosen, repeats=0)
