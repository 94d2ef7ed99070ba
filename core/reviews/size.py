"""How much a session asks of each reader, before it is made: screens, and minutes as far as they can be told."""

from __future__ import annotations

from math import ceil, comb
from statistics import median

import sqlalchemy as sa

from core.reviews.database import Database
from core.reviews.design import Design
from core.reviews.schema import is_practice, screens, sessions
from core.reviews.store.actors import Actor

ASSUMED_SECONDS = 60
"""Of a screen, where nobody has read one with that rubric yet."""
FEWEST = 5
"""Screens that must have been read until their median is told."""


def screens_each(design: Design, studies: int, models: int) -> int:
    """Screens that each reader gets.

    Args:
        design: of the session.
        studies: that are read.
        models: whose reports are shown.
    """
    shown = design.reports_per_screen or design.questions.reports_per_screen
    groups = 1
    if design.editing.arms:
        shown = 0  # one arm a screen
    if shown and design.questions.compares:
        groups = comb(models, shown)
        groups = min(groups, design.comparisons) if design.comparisons else groups
    elif shown:
        groups = ceil(models / shown)
    return studies * groups * design.editing.sittings + design.repeats


def usual_seconds(database: Database, who: Actor, rubric: str) -> float | None:
    """Median of active seconds of a screen in the actor's sessions with a rubric; None where few were read."""
    own = sa.select(sessions.c.id, sessions.c.design)
    if who.role != "admin":
        own = own.where(sessions.c.owner == who.name)
    read = (screens.c.state == "done", screens.c.seconds > 0, screens.c.disputed.is_(None), ~is_practice)
    with database.read() as connection:  # a design is large: once a session, not once a screen
        ids = [row.id for row in connection.execute(own) if row.design["rubric"] == rubric]
        query = sa.select(screens.c.seconds).where(*read, screens.c.session_id.in_(ids))
        found = list(connection.scalars(query))
    return median(found) if len(found) >= FEWEST else None


def size_in_words(design: Design, studies: int, models: int, usual: float | None) -> str:
    """The size in a sentence.

    Args:
        design: of the session.
        studies: that are read.
        models: whose reports are shown.
        usual: `usual_seconds`.
    """
    each = screens_each(design, studies, models)
    minutes = max(1, round(each * (usual or ASSUMED_SECONDS) / 60))
    basis = "at a minute a screen" if usual is None else f"at {usual:.0f} s a screen, as in earlier sessions"
    readers = len(design.readers)
    every = f"each of {readers} readers" if readers > 1 else "the reader"
    return f"{each} screens for {every}: about {minutes} min, {basis}."
