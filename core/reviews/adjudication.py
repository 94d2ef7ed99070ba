"""A third reader settles what two or more readers answered differently."""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from core.reviews.answers import ANSWER_COLUMNS, ANY_ERROR, answers_of, rows_of
from core.reviews.cover import cover
from core.reviews.database import Database
from core.reviews.design import models_of, plan, read_design
from core.reviews.rubrics import ReviewError, Rubric
from core.reviews.schema import screens, users
from core.reviews.store.actors import NO_ROLE, Actor
from core.reviews.store.sessions import owned_session, screen_row, stored_cases

Dispute = dict[str, Any]


def adjudicate(database: Database, who: Actor, session_id: str, adjudicator: str) -> int:
    """Give a third reader, blinded anew, the screens that first readings answered differently.

    The third reader sees which questions are disputed and which answers were given, not by whom. Calling it again adds
    what has been disputed since.

    Returns:
        How many screens were added.

    Raises:
        NotAllowedError: it is not the actor's session.
        ReviewError: it is closed, the adjudicator is no user or reads in it, or nobody disagrees.
    """
    with database.write() as connection:
        session = owned_session(connection, who, session_id)
        design = read_design(session.design)
        if session.state != "open":
            raise ReviewError("This session is closed; disagreements are settled before.")
        if design.editing.arms:
            raise ReviewError("Readers edited reports here: each text is its own, and there is nothing to settle.")
        if adjudicator in design.readers:
            raise ReviewError(f"{adjudicator} reads in this session and cannot settle it. Choose a third reader.")
        has_role = (users.c.name == adjudicator) & (users.c.role != NO_ROLE)
        if connection.scalar(sa.select(users.c.name).where(has_role)) is None:
            raise ReviewError(f"There is no user '{adjudicator}'. An admin can add one.")
        screen_rows, mark_rows = rows_of(connection, session_id)
        first = [row for row in screen_rows if row.repeats is None and row.disputed is None]
        disputes = _disputes(answers_of(design.questions, first, mark_rows))
        all_cases = stored_cases(connection, session_id)
        stored = [case for case in all_cases if case.study_id not in design.practice_studies]
        by_id = {case.study_id: case for case in stored}
        # The models that took part first; the others' stored reports are not read.
        own = replace(design, readers=(adjudicator,), repeats=0, models=models_of(design, stored))
        settled = [row for row in screen_rows if row.reader == adjudicator]
        known = {(row.study_id, frozenset(model for _, model in row.shown)) for row in settled}
        added: list[Mapping[str, Any]] = []
        for screen in plan(own, stored, session.secret)[adjudicator]:
            models = frozenset(model for _, model in screen.shown)
            name_of = {model: name for name, model in screen.shown}
            asked = _blind(design.questions, disputes.get(screen.study_id, []), name_of)
            if asked and (screen.study_id, models) not in known:
                added.append(
                    screen_row(
                        session_id,
                        adjudicator,
                        len(settled) + len(added),
                        screen.study_id,
                        id=uuid.uuid4().hex,
                        shown=[list(pair) for pair in screen.shown],
                        repeats=None,
                        disputed=asked,
                        image_sha256=by_id[screen.study_id].image_sha256,
                        bundles={model: by_id[screen.study_id].bundles.get(model, "") for model in models},
                    )
                )
        if not added:
            raise ReviewError(
                "There is nothing new to settle: no two readers finished a screen with different answers."
            )
        connection.execute(screens.insert(), added)
        ids = [row["id"] for row in added]
        after = {"adjudicator": adjudicator, "screens": ids, **cover(connection, session_id, screens.c.id.in_(ids))}
        key = f"adjudicate/{session_id}/{adjudicator}/{len(settled)}"
        database.record(connection, who.name, key, "adjudicate", session_id=session_id, after=after)
    return len(added)


def _disputes(rows: list[tuple[Any, ...]]) -> dict[str, list[Dispute]]:
    """By study: the questions that have more than one answer; models by name."""
    given: dict[tuple[str, str, str], set[Any]] = defaultdict(set)
    for row in rows:
        answer = dict(zip(ANSWER_COLUMNS, row, strict=True))
        if answer["question"] != ANY_ERROR:
            given[answer["study"], answer["model"], answer["question"]].add(answer["value"])
    found: dict[str, list[Dispute]] = defaultdict(list)
    for (study, model, question), values in sorted(given.items()):
        if len(values) > 1:
            found[study].append({"model": model, "question": question, "answers": sorted(values, key=_rank)})
    return found


def _rank(value: Any) -> tuple[bool, Any]:
    """Numbers first, then words, such as "cannot judge"."""
    return isinstance(value, str), value


def _blind(rubric: Rubric, disputes: list[Dispute], name_of: Mapping[str, str]) -> list[Dispute]:
    """What of a study's disputes belongs to a screen, with models under the adjudicator's names for them."""
    if rubric.mark == "answer":
        return [found for each in disputes if (found := _blind_answer(rubric, each, name_of))]
    asked = []
    for each in disputes:
        compared = each["question"].split(" / ")
        if each["model"]:
            if each["model"] in name_of:
                asked.append(
                    {"report": name_of[each["model"]], "question": each["question"], "answers": each["answers"]}
                )
        elif not name_of:
            asked.append({"report": "", "question": each["question"], "answers": each["answers"]})
        elif set(compared) == set(name_of):
            answers = sorted(name_of.get(value, value) for value in each["answers"])
            asked.append({"report": "", "question": " / ".join(sorted(name_of.values())), "answers": answers})
    return asked


def _blind_answer(rubric: Rubric, dispute: Dispute, name_of: Mapping[str, str]) -> Dispute | None:
    """The same of a rubric of questions, whose answers name all models that they are about."""
    question = rubric.of_label(dispute["question"])
    models = set(dispute["model"].split(" / ")) - {""}
    if not (models <= set(name_of) if question.of_text else not models or models == set(name_of)):
        return None
    report = name_of[dispute["model"]] if question.of_text else ""
    answers = dispute["answers"]
    if question.kind == "preference":
        answers = sorted(name_of.get(value, value) for value in answers)
    return {"report": report, "question": dispute["question"], "answers": answers}
