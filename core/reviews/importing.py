"""Marks made elsewhere (on paper, in another tool), read from a CSV file in one piece or not at all."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from core.files import hash_of
from core.reviews.database import Database
from core.reviews.rubric_library import rubric_of
from core.reviews.rubrics import Mark, ReviewError, slot_of
from core.reviews.schema import events, screens
from core.reviews.store.actors import Actor
from core.reviews.store.changes import Change, check_on_screen, mark_of, write_change
from core.reviews.store.sessions import owned_session

IMPORT_COLUMNS = ("screen", "report", "kind", "value")
"""``report`` is the blinded name; ``value`` is JSON, as in `rubrics.Mark`."""


def import_marks(database: Database, who: Actor, session_id: str, path: Path) -> tuple[int, int]:
    """Add the marks of a CSV file to an open session; screens stay unfinished. The same file again adds nothing.

    Returns:
        Marks added, and marks that an earlier import of the same rows had added.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: foreign or missing columns, or a row that does not fit; nothing was added.
    """
    rows = _read(path)
    seen: Counter[str] = Counter()
    added = known = 0
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        if session.state != "open":
            raise ReviewError("This session is closed; nothing can be added any more.")
        for line, (screen_id, mark) in rows:
            where = f"{path}, line {line}"
            screen = connection.execute(
                sa.select(screens).where(screens.c.id == screen_id, screens.c.session_id == session_id)
            ).first()
            if screen is None:
                raise ReviewError(f"{where}: there is no screen '{screen_id}' in this session. Nothing was added.")
            request = hash_of([session_id, screen_id, mark.kind, mark.report, dict(mark.value)])
            seen[request] += 1  # two equal errors of one report are two marks
            key = f"import/{request}/{seen[request]}"
            if connection.scalar(sa.select(events.c.sequence).where(events.c.key == f"{who.name}/{key}")):
                known += 1
                continue
            try:
                check_on_screen(connection, screen, rubric_of(session.design), mark)
            except ReviewError as error:
                raise ReviewError(f"{where}: {error} Nothing was added.") from error
            slot = slot_of(mark, key)
            if mark_of(connection, screen_id, slot) is not None:
                raise ReviewError(f"{where}: the reader answered this question already. Nothing was added.")
            value = {
                "kind": mark.kind,
                "report": mark.report,
                "value": dict(mark.value),
                "version": 1,
                "deleted": False,
            }
            write_change(
                database,
                connection,
                who,
                screen,
                Change(slot, None, value),
                key=key,
                action="import",
                request=request,
                content=value,
            )
            added += 1
    return added, known


def _read(path: Path) -> list[tuple[int, tuple[str, Mark]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            table = csv.DictReader(file, strict=True)
            names = list(table.fieldnames or [])
            missing = [name for name in IMPORT_COLUMNS if name not in names]
            foreign = [name for name in names if name not in IMPORT_COLUMNS]
            if missing or foreign or len(set(names)) != len(names):
                raise ReviewError(
                    f"{path}: the columns must be {', '.join(IMPORT_COLUMNS)}; missing {missing or 'none'}, foreign "
                    f"{foreign[:10] or 'none'}. Nothing was added."
                )
            return [(table.line_num, _row(path, table.line_num, row)) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ReviewError(f"{path} cannot be read as CSV in UTF-8 ({error}). Nothing was added.") from error


def _row(path: Path, line: int, row: dict[Any, Any]) -> tuple[str, Mark]:
    if None in row or None in row.values():
        raise ReviewError(f"{path}, line {line}: not {len(IMPORT_COLUMNS)} cells. Nothing was added.")
    try:
        value = json.loads(row["value"])
    except ValueError as error:
        raise ReviewError(f"{path}, line {line}: 'value' is not JSON ({error}). Nothing was added.") from error
    if not isinstance(value, dict):
        raise ReviewError(f"{path}, line {line}: 'value' is not a JSON object. Nothing was added.")
    return row["screen"], Mark(row["kind"], row["report"], value)
