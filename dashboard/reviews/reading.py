"""The server's half of the reading page: changes of a reader in, screens and what became of the changes out.

The browser keeps each change until it is told that it is stored, and sends it again, with the same key, until then; the
store does it once. What goes to the browser names no model, no other reader and no study: with a study's name its
reports could be looked up elsewhere. There a case is the number of its screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from core.labels.rules import label_report
from core.observations import LabelState
from core.reviews.database import Database
from core.reviews.questions import Condition, Question, Rubric
from core.reviews.rubrics import (
    COMMENT_LIMIT,
    Mark,
    ReviewError,
    StorageError,
    answer_in_words,
    question_in_words,
)
from core.reviews.store import (
    Actor,
    ConflictError,
    NotAllowedError,
    ReaderScreen,
    annotate,
    next_screen,
    open_screen,
    progress,
    read_screen,
    remove_mark,
    save_edit,
    save_mark,
    spend,
    unblind,
    undo,
)
from core.reviews.store.edits import edited_question
from core.text import sentence_spans
from core.types import CXRLensError

MOST_SCREENS = 8
"""That one answer carries; the browser asks for the open one and its neighbours."""

FOUND: Mapping[LabelState, str] = {
    LabelState.POSITIVE: "present",
    LabelState.UNCERTAIN: "uncertain",
    LabelState.NEGATIVE: "absent",
}
"""States of an observation, as a reader is told what a text says."""

Request = Mapping[str, Any]
"""Of the browser: "tick" names it, "at" is the id of the open screen, "want" are ids of screens to have at hand,
"change" is None or what the reader did: "do", "key", "screen" and what `_DO` reads."""


def respond(database: Database, who: Actor, session_id: str, request: Request | None) -> dict[str, Any]:
    """Do what the reader did, and give the screens asked for, as plain values.

    Args:
        database: of the session.
        who: its reader.
        session_id: of the session.
        request: None when the page opens: the answer is the screen where the reader stopped, and the next.

    Raises:
        NotAllowedError: the session is not the actor's to read.
    """
    request = request or {}
    change = request.get("change")
    answer: dict[str, Any] = {"tick": request.get("tick", ""), "ack": None, "problem": "", "at": request.get("at")}
    if isinstance(change, Mapping):
        answer["ack"] = _do(database, who, change)
    try:
        known = progress(database, who, session_id)
        ids = [screen for screen, _, _ in known.screens]
        if answer["at"] not in ids:
            following = next_screen(database, who, session_id)
            answer["at"] = following if following in ids else ids[-1]
        position = ids.index(answer["at"])
        wanted = [answer["at"], *texts_of(request.get("want")), *ids[position + 1 : position + 2]]
        if answer["ack"] is not None and answer["ack"]["screen"] in ids:
            wanted.insert(0, answer["ack"]["screen"])
        wanted = [screen for screen in dict.fromkeys(wanted) if screen in ids][:MOST_SCREENS]
        read = [read_screen(database, who, screen) for screen in wanted]
        answer |= {
            "session": session_id,
            "reader": who.name,
            "open": known.state == "open",
            "places": [list(each) for each in known.screens],
            "sitting": known.sitting,
            "following": known.following,
            "seconds": known.seconds,
            "usual": known.usual,
            "practice": known.practice,
            "seconds_left": read[0].seconds_left,
            "title": read[0].title,
            "kind": read[0].rubric.mark,
            "question": read[0].rubric.question,
            "questions": [asked(each) for each in read[0].rubric.questions],
            "instructions": read[0].instructions,
            "screens": {screen.id: _view(screen) for screen in read},
            "comment_limit": COMMENT_LIMIT,
            "names": {} if known.state == "open" else _names(database, who, session_id),
        }
    except StorageError as error:
        answer["problem"] = str(error)
    return answer


def refused(request: Request | None, error: CXRLensError) -> dict[str, Any]:
    """What an open page is told when its reader may not go on: it keeps what was typed, and asks again by itself."""
    request = request or {}
    change = request.get("change")
    ack = None
    if isinstance(change, Mapping):
        ack = {"key": str(change.get("key", "")), "screen": "", "status": "again", "message": str(error)}
    return {"tick": request.get("tick", ""), "ack": ack, "problem": str(error), "at": request.get("at"), "plates": {}}


def _names(database: Database, who: Actor, session_id: str) -> dict[str, str]:
    """Model by name of a closed session, as far as this reader may know them."""
    try:
        return unblind(database, who, session_id).get(who.name, {})
    except StorageError:
        raise
    except ReviewError:
        return {}


def asked(question: Question) -> dict[str, Any]:
    """What the browser knows of a question: its options are pairs of a name, or a step, and words."""
    steps = question.kind in ("scale", "confidence")
    rest = question.rest
    return {
        "id": question.id,
        "ask": question.ask,
        "kind": question.kind,
        "of": question.of,
        "options": [[int(name) if steps else name, words] for name, words in question.options.items()],
        "explained": dict(question.explained),
        "items": list(question.items),
        "required": question.required,
        "cannot_judge": question.cannot_judge,
        "key": question.key.lower(),
        "when": None if question.when is None else _condition(question.when),
        "finding": question.finding,
        "on": list(question.on),
        "tie": question.tie,
        "alone": list(question.alone),
        "limit": question.limit,
        "rest": None
        if rest is None
        else {
            "answer": rest.answer,
            "nothing": rest.nothing,
            "nothing_answer": rest.nothing_answer,
            "beside": list(rest.beside),
        },
    }


def _condition(condition: Condition) -> dict[str, Any]:
    return {"question": condition.question, "answers": list(condition.answers), "items": list(condition.items)}


def _view(screen: ReaderScreen) -> dict[str, Any]:
    """What the browser knows of a screen. Fields are named one by one: a new one stays on the server."""
    rubric, texts = screen.rubric, dict(screen.reports)
    return {
        "id": screen.id,
        "position": screen.position,
        "context": dict(screen.context),
        "reports": [
            {"name": name, "text": text, "sentences": [list(span) for span in sentence_spans(text)]}
            for name, text in screen.reports
        ],
        "marks": [
            {
                "slot": saved.slot,
                "version": saved.version,
                "kind": saved.mark.kind,
                "report": saved.mark.report,
                "value": dict(saved.mark.value),
            }
            for saved in screen.marks
        ],
        "disputed": [
            {
                "report": each["report"],
                "question": each["question"],
                "words": question_in_words(rubric, each["question"], texts.get(each["report"], "")),
                "answers": [_answer(rubric, each["question"], answer) for answer in each["answers"]],
                "counts": _counts(rubric, each),
            }
            for each in screen.disputed
        ],
        "state": screen.state,
        "skip_reason": screen.skip_reason,
        "flagged": screen.flagged,
        "comment": screen.comment,
        "seconds": screen.seconds,
        "version": screen.version,
        "findings": _findings(screen),
        "practice": screen.position < 0,
        "feedback": None if screen.feedback is None else [asdict(each) for each in screen.feedback],
        "why": screen.why,
    }


def _findings(screen: ReaderScreen) -> list[list[Any]]:
    """What an edited text, as it is stored, says: observation, state in words, and the characters that say so."""
    question = edited_question(screen.rubric.questions)
    if question is None or not screen.findings:
        return []
    written = [saved.mark.value["answer"] for saved in screen.marks if saved.mark.value.get("question") == question.id]
    text = written[0] if written else screen.reports[0][1]
    return [
        [each.observation, FOUND[each.state], each.start, each.end]
        for each in label_report(text).mentions
        if each.state in FOUND
    ]


def _answer(rubric: Rubric, question: str, answer: Any) -> str:
    words = answer_in_words(rubric, answer, question)
    compares = rubric.mark == "answer" and rubric.of_label(question).kind == "preference"
    return f"report {words}" if compares and words == answer else words


def _counts(rubric: Rubric, dispute: Mapping[str, Any]) -> list[int]:
    """The numbers that readers gave, where they counted; a third reader gives one."""
    counted = rubric.mark == "error" or (
        rubric.mark == "answer" and rubric.of_label(dispute["question"]).kind == "mark"
    )
    return list(dispute["answers"]) if counted else []


def _do(database: Database, who: Actor, change: Mapping[str, Any]) -> dict[str, Any]:
    """Do one change; whatever happens, the answer says what became of it."""
    key, screen = str(change.get("key", "")), str(change.get("screen", ""))
    ack: dict[str, Any] = {"key": key, "screen": screen, "status": "saved", "message": ""}
    try:
        does = _DO.get(str(change.get("do")))
        if does is None:
            raise ReviewError(f"The page sent '{change.get('do')}', which it should not. Load the page again.")
        ack |= does(database, who, screen, key, change)
    except StorageError as error:
        ack |= {"status": "again", "message": str(error)}
    except ConflictError as error:
        ack |= {"status": "conflict", "message": str(error)}
    except NotAllowedError as error:
        ack |= {"status": "refused", "screen": "", "message": str(error)}
    except CXRLensError as error:
        ack |= {"status": "refused", "message": str(error)}
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        ack |= {
            "status": "refused",
            "message": f"The page sent something that cannot be read ({error!r}). Load it again.",
        }
    return ack


Change = Mapping[str, Any]


def _mark(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    mark = Mark(change["mark"]["kind"], change["mark"]["report"], dict(change["mark"]["value"]))
    saved = save_mark(
        database, who, screen, mark, key=key, slot=str(change.get("slot", "")), version=int(change["version"])
    )
    return {"slot": saved.slot, "version": saved.version}


def _edit(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    mark = Mark("answer", change["mark"]["report"], dict(change["mark"]["value"]))
    edit = save_edit(
        database,
        who,
        screen,
        mark,
        key=key,
        slot=str(change.get("slot", "")),
        version=int(change["version"]),
        bout=change.get("bout"),
    )
    return {"slot": edit.mark.slot, "version": edit.mark.version, "told": edit.told}


def _unmark(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    remove_mark(database, who, screen, str(change["slot"]), key=key, version=int(change["version"]))
    return {}


def _annotate(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    fields = {
        name: change["fields"][name]
        for name in ("state", "skip_reason", "flagged", "comment")
        if name in change["fields"]
    }
    if "flagged" in fields and not isinstance(fields["flagged"], bool):
        raise ReviewError("A flag is set or not.")
    return {"version": annotate(database, who, screen, key=key, version=int(change["version"]), **fields)}


def _undo(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    undo(database, who, screen, key=key)
    return {}


def _time(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    spend(database, who, screen, float(change["seconds"]), key=key)
    return {}


def _open(database: Database, who: Actor, screen: str, key: str, change: Change) -> dict[str, Any]:
    open_screen(database, who, screen)
    return {}


_DO: Mapping[str, Callable[[Database, Actor, str, str, Change], dict[str, Any]]] = {
    "mark": _mark,
    "edit": _edit,
    "unmark": _unmark,
    "annotate": _annotate,
    "undo": _undo,
    "time": _time,
    "open": _open,
}


def texts_of(values: Any) -> Sequence[str]:
    """The texts of a list that a browser sent; none where it is no list."""
    return [each for each in values if isinstance(each, str)] if isinstance(values, list) else []
