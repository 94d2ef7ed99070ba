"""What a reader writes in the editor: snapshots of the text with when and how it was typed, each an event.

Times are durations that the browser measured with a clock that nobody sets (``performance.now``), in bouts: from the
first key after the editor was opened, or after a long break, to the last. A bout that cannot be is not counted, which
is told; its text is stored all the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy.engine import Connection

from core.reviews.database import Database
from core.reviews.questions import Question, ReviewError
from core.reviews.rubric_library import rubric_of
from core.reviews.rubrics import Mark, slot_of
from core.reviews.schema import AnyRow
from core.reviews.store.actors import Actor
from core.reviews.store.changes import Change, change_once, check_on_screen, mark_of
from core.reviews.store.screens import SavedMark, saved

PAUSE = 2.0
"""Seconds without a key from which on a pause is one."""
LONGEST_BOUT = 4 * 3600.0
"""Seconds; more is a clock that jumped: after a break of ten minutes the browser begins a new bout."""
MOST_BOUTS, MOST_PAUSES, MOST_TYPED = 200, 500, 1_000_000

_ID = re.compile(r"[0-9a-f]{32}")
_NUMBERS = ("before", "seconds", "inserted", "deleted")
_SLACK = 1.5
"""Seconds by which pauses, which are rounded, may add up to more than their bout."""


@dataclass(frozen=True, slots=True)
class SavedEdit:
    """A text that is stored.

    Attributes:
        mark: as it is stored.
        told: why its time is not counted; empty where it is.
    """

    mark: SavedMark
    told: str


def save_edit(
    database: Database,
    who: Actor,
    screen_id: str,
    mark: Mark,
    *,
    key: str,
    slot: str = "",
    version: int = 0,
    bout: Mapping[str, Any] | None = None,
) -> SavedEdit:
    """Store the text of an edited report; when this returns it is on the disk.

    Args:
        mark: answer to a question of kind edit; the text as it is now, whole.
        key: of this change; the same key again changes nothing, and returns the same but for what was not counted.
        slot: of the text that is there; empty for the first.
        version: of it as the caller last saw it; 0 for the first.
        bout: of typing: "id", 32 hexadecimal digits; "before": seconds from opening the editor to its first key;
            "seconds": from the first key to the last; "inserted" and "deleted": characters; "pauses": [seconds since
            the first key, seconds] of each pause of `PAUSE` or more. None where nothing was typed.

    Raises:
        NotAllowedError: not the actor's screen.
        ConflictError: it was changed in another tab since; both texts are in the record.
        ReviewError: the session or the sitting is not open, or the text is too long.
    """
    told = {"why": ""}

    def apply(connection: Connection, screen: AnyRow, session: AnyRow) -> Change:
        rubric = rubric_of(session.design)
        check_on_screen(connection, screen, rubric, mark)
        if rubric.find(mark.value["question"]).kind != "edit":
            raise ReviewError("Only a report that is asked for is edited.")
        own_slot = slot_of(mark, "")
        if slot not in ("", own_slot):
            raise ReviewError(f"This text answers another question than '{slot}'.")
        found = mark_of(connection, screen_id, own_slot)
        if (found["version"] if found and not (found["deleted"] and not slot) else 0) != version:
            return Change(own_slot, found, None)
        before = found["value"] if found else {}
        bouts, doubted = dict(before.get("bouts", {})), int(before.get("not_counted", 0))
        if bout is not None:
            told["why"] = why_not_counted(bout, bouts)
            if told["why"]:
                doubted += 1
            else:
                bouts[bout["id"]] = {name: bout[name] for name in (*_NUMBERS, "pauses")}
        after = {
            "kind": mark.kind,
            "report": mark.report,
            "value": {**mark.value, "bouts": bouts, "not_counted": doubted},
            "version": (found["version"] if found else 0) + 1,
            "deleted": False,
        }
        return Change(own_slot, found, after)

    request = {"mark": asdict(mark), "slot": slot, "version": version, "bout": _plain(bout)}
    marked, after = change_once(database, who, screen_id, key, "edit", request, apply)
    return SavedEdit(saved(marked or "", after), told["why"])


def _plain(value: Any) -> Any:
    """What JSON can hold of what a browser sent; what it cannot becomes words."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def why_not_counted(bout: Mapping[str, Any], known: Mapping[str, Mapping[str, Any]]) -> str:
    """What is wrong with the times of a bout, in a sentence; empty where they can be.

    Args:
        bout: as the browser sent it.
        known: the bouts that are stored, by id.
    """
    kept = "The text is saved, this time of typing is not counted"
    if set(bout) != {"id", *_NUMBERS, "pauses"} or not _ID.fullmatch(str(bout.get("id"))):
        return f"{kept}: the page sent times that cannot be read. Load it again."
    if not all(_is_number(bout[name]) for name in _NUMBERS) or not isinstance(bout["pauses"], list):
        return f"{kept}: the page sent times that are no numbers. Load it again."
    if any(bout[name] < 0 for name in _NUMBERS):
        return f"{kept}: it is below zero, so a clock was set back."
    if max(bout["seconds"], bout["before"]) > LONGEST_BOUT:
        return f"{kept}: over {LONGEST_BOUT / 3600:g} hours without a break, so a clock jumped."
    if max(bout["inserted"], bout["deleted"]) > MOST_TYPED or len(bout["pauses"]) > MOST_PAUSES:
        return f"{kept}: more keys than anybody presses."
    if bout["id"] not in known and len(known) >= MOST_BOUTS:
        return f"{kept}: the editor was opened more than {MOST_BOUTS} times."
    for pause in bout["pauses"]:
        if not isinstance(pause, list) or len(pause) != 2 or not all(map(_is_number, pause)):
            return f"{kept}: the page sent pauses that cannot be read. Load it again."
    if any(at < 0 or length < 0 for at, length in bout["pauses"]):
        return f"{kept}: a pause is below zero, so a clock was set back."
    if sum(length for _, length in bout["pauses"]) > bout["seconds"] + _SLACK:
        return f"{kept}: its pauses are longer than all of it, so a clock jumped."
    if bout["seconds"] < known.get(bout["id"], {}).get("seconds", 0):
        return f"{kept}: it is shorter than it was before, so a clock was set back."
    return ""


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def edited_question(questions: tuple[Question, ...]) -> Question | None:
    """The question by which a report is edited, where a rubric has one."""
    return next((each for each in questions if each.kind == "edit"), None)
