"""What readers of a session cannot find out: letters, models, and studies on the other pages."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import streamlit as st
from streamlit.testing.v1 import AppTest

from core.reviews.adjudication import adjudicate
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.design import Case, plan
from core.reviews.rubrics import ReviewError
from core.reviews.schema import screens, sessions
from core.reviews.sources import candidates
from core.reviews.store import (
    Actor,
    being_read,
    close_session,
    create_session,
    read_screen,
    unblind,
)
from core.types import CXRLensError
from dashboard import access
from dashboard.reviews.reading import respond
from dashboard.services import cases as case_rows
from dashboard.services import evaluations, studies
from tests.app_pages import words_on
from tests.attacks.databases import rewrite
from tests.review_cases import (
    ANNA,
    MODELS,
    RITA,
    ROOT,
    ROOT_USER,
    cases,
    design,
    finish,
    open_app_page,
    open_file,
    screens_of,
    session,
)

# ------------------------------------------------------------------------------------------------------------ letters


def letters(database: Database, reader: str, session_id: str) -> dict[str, str]:
    with database.read() as connection:
        found = connection.scalars(
            sa.select(screens.c.shown).where(screens.c.session_id == session_id, screens.c.reader == reader)
        )
        return {model: name for shown in found for name, model in shown}


def test_a_closed_session_tells_no_letter_of_the_next(database: Database) -> None:
    """The same design again and again: what a reader learned of one says nothing of another."""
    models = tuple(f"pair-{number}" for number in range(6))
    made = [create_session(database, RITA, design(readers=("anna",)), cases(1, models)) for _ in range(12)]
    found = [letters(database, "anna", each) for each in made]
    assert len({tuple(sorted(each.items())) for each in found}) > 6
    (public,) = {
        tuple(screen.shown for screen in each) for each in plan(design(readers=("anna",)), cases(1, models)).values()
    }
    drawn = {model: name for shown in public for name, model in shown}
    assert sum(each == drawn for each in found) <= 2  # nobody can work them out from the design
    with database.read() as connection:
        secrets = list(connection.scalars(sa.select(sessions.c.secret)))
        told = connection.exec_driver_sql("SELECT * FROM events").all()
    assert len(set(secrets)) == 12 and all(len(each) == 32 for each in secrets)
    assert not any(each in str(told) for each in secrets)


def test_sides_and_order_cannot_be_worked_out_either(database: Database) -> None:
    wanted = design(rubric="preference", readers=("anna",))
    public = plan(wanted, cases(6))["anna"]
    sides, orders = [], []
    for _ in range(4):
        made = create_session(database, RITA, wanted, cases(6))
        with database.read() as connection:
            rows = connection.execute(
                sa.select(screens).where(screens.c.session_id == made).order_by(screens.c.position)
            ).all()
        sides.append({(row.study_id, tuple(model for _, model in row.shown)) for row in rows})
        orders.append([row.study_id for row in rows])
    open_to_all = {(screen.study_id, tuple(model for _, model in screen.shown)) for screen in public}
    assert all(each != open_to_all for each in sides)
    assert [screen.study_id for screen in public] not in orders


def test_a_session_of_the_first_release_keeps_its_letters(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "reviews.sqlite")) as old:
        old.executescript((ROOT / "tests" / "data" / "reviews-0001.sql").read_text(encoding="utf-8"))
        before = old.execute("SELECT id, shown FROM screens ORDER BY id").fetchall()
    opened = open_file(tmp_path)
    with opened.read() as connection:
        assert list(connection.scalars(sa.select(sessions.c.secret))) == [""]
        after = connection.exec_driver_sql("SELECT id, shown FROM screens ORDER BY id").all()
    assert [tuple(row) for row in after] == before
    opened.close()


def test_a_dump_of_the_first_release_is_read(database: Database, tmp_path: Path) -> None:
    made = session(database)
    with database.write() as connection:
        connection.execute(sessions.update().values(secret=""))
    with database.write() as connection:  # whose events held no hashes of rows
        rewrite(connection, lambda event: (event["after"] or {}).pop("rows", None) is None)
    backup(database, ROOT_USER, tmp_path / "new.jsonl.gz")
    with gzip.open(tmp_path / "new.jsonl.gz", "rt", encoding="utf-8") as file:
        head, *rows, _ = map(json.loads, file)
    assert head["schema"] == "0002"
    rows = [[name, {key: value for key, value in row.items() if key != "secret"}] for name, row in rows]
    lines = [json.dumps(each) + "\n" for each in ({**head, "schema": "0001"}, *rows)]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    with gzip.open(tmp_path / "old.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines([*lines, json.dumps({"sha256": digest}) + "\n"])
    restore(tmp_path / "restored.sqlite", tmp_path / "old.jsonl.gz")
    with closing(Database(tmp_path / "restored.sqlite")) as restored:
        assert verify(restored) == verify(database)
        assert letters(restored, "anna", made) == letters(database, "anna", made)


def test_a_third_reader_has_letters_of_the_same_secret(database: Database) -> None:
    made = session(database, count=2)
    for reader in ("anna", "boris"):
        for screen_id in screens_of(database, reader, made):
            finish(database, Actor(reader, "reader"), screen_id, errors=1 + (reader == "boris"))
    adjudicate(database, RITA, made, "carla")
    with database.read() as connection:
        secret = connection.scalar(sa.select(sessions.c.secret))
    laid_out = plan(design(readers=("carla",), models=MODELS), cases(2), str(secret))["carla"]
    assert letters(database, "carla", made) == {model: name for screen in laid_out for name, model in screen.shown}


# ----------------------------------------------------------------------------------------------------------- blinding


def test_what_goes_to_a_reader_names_no_study_no_model_and_no_bundle(database: Database) -> None:
    pool = [
        Case(f"study-{case.study_id}", case.image_sha256, case.reports, case.bundles, {}, {"age": "60"})
        for case in cases()
    ]
    made = create_session(database, RITA, design(source="phantom:40:3"), pool)
    told = json.dumps(respond(database, ANNA, made, None))
    for place, screen in enumerate(screens_of(database, "anna", made)):
        name = read_screen(database, ANNA, screen).reports[0][0]
        mark = {"kind": "error", "report": name, "value": {"error": "omission", "significant": True}}
        change = {"do": "mark", "key": str(place), "screen": screen, "mark": mark, "slot": "", "version": 0}
        told += json.dumps(respond(database, ANNA, made, {"tick": "t", "at": screen, "want": [], "change": change}))
    assert screens_of(database, "anna", made)[0] in told
    for secret in (
        "study-",
        "pair-one",
        "pair-two",
        "reference",
        "b" * 64,
        "phantom:",
        *(c.image_sha256 for c in pool),
    ):
        assert secret not in told, secret


def test_indexers_findings_are_no_context_of_a_reader() -> None:
    study = next(iter(studies.visible_studies().values()))
    told = replace(
        study, context={"age": "60", "indication": "cough", "title": "Study 17", "mesh": "Cardiomegaly/mild"}
    )
    (found,) = candidates([told])
    assert dict(found.context) == {"age": "60", "indication": "cough", "view": f"{study.view} view"}


def test_a_closed_session_names_nobody_while_its_radiographs_are_read_in_another(database: Database) -> None:
    first, second = session(database), session(database, title="Second", models=("pair-one", "pair-two"))
    other = create_session(database, RITA, design(title="Other", readers=("carla",)), cases())
    close_session(database, RITA, first)
    for reader in ("anna", "boris"):
        with pytest.raises(ReviewError, match="in a session that is open"):
            unblind(database, Actor(reader, "reader"), first)
    assert respond(database, ANNA, first, None)["names"] == {}
    app = open_app_page("review", reader="anna")
    assert not app.exception and "in a session that is open" in words_on(app) and not app.dataframe
    assert set(unblind(database, RITA, first)) == {"anna", "boris"}
    close_session(database, RITA, second)
    assert set(unblind(database, ANNA, first)["anna"].values()) == set(MODELS)
    assert being_read(database, "anna") == frozenset()
    assert being_read(database, "carla") == {f"s{number:03}" for number in range(6)}
    close_session(database, RITA, other)


PHANTOMS = ("P000002-1", "P000004-2")


@pytest.fixture
def reading_phantoms(database: Database) -> str:
    """A session of anna on two of the studies that the other pages show."""
    known = [each for each in PHANTOMS if each in studies.visible_studies()]
    assert len(known) == 2
    pool = [Case(name, "", {"pair-one": "The lungs are clear.", "reference": "Clear."}) for name in known]
    return create_session(database, RITA, design(readers=("anna",)), pool)


def page_as(name: str, who: Actor | None, monkeypatch: pytest.MonkeyPatch, **address: str) -> AppTest:
    """Open a page on a server whose identity provider says who it is; Read without bundles, which would write."""
    if name == "read":
        monkeypatch.setenv("CXR_BUNDLES", "/nowhere")
    if who is not None:
        monkeypatch.setattr(access, "has_login", lambda: True)
        monkeypatch.setattr(access, "_server_user", lambda: who)
    return open_app_page(name, **address)


def everything(app: AppTest) -> str:
    """All that a page sent, as it goes to the browser."""
    return str(app._tree) + "".join(str(node.proto) for node in walk(app._tree))


def walk(node: Any) -> Iterator[Any]:
    for child in getattr(node, "children", {}).values():
        if hasattr(child, "proto") and child.proto is not None:
            yield child
        yield from walk(child)


@pytest.mark.parametrize("page", ["read", "cases", "embeddings", "results", "filters"])
def test_a_reader_of_all_studies_finds_none_on_any_page(
    database: Database, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"pair-one": "The lungs are clear.", "reference": "Clear."}
    pool = [Case(name, "", texts) for name in studies.visible_studies()]
    create_session(database, RITA, design(readers=("anna",)), pool)
    monkeypatch.setattr(access.st, "page_link", lambda *args, **options: None)  # the other pages are not there
    reader = page_as(page, ANNA, monkeypatch)
    assert not reader.exception
    assert not re.findall(r"P\d{6}-\d", everything(reader))
    researcher = page_as(page, RITA, monkeypatch)
    assert not researcher.exception
    assert re.findall(r"P\d{6}-\d", everything(researcher)) or page == "filters"


@pytest.mark.parametrize("page", ["read", "cases"])
def test_pages_keep_studies_of_open_sessions_from_their_readers(
    database: Database, reading_phantoms: str, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, other = PHANTOMS
    address = {"study": wanted, "figure": ",".join(PHANTOMS), "picked": ",".join(PHANTOMS)}
    reader = page_as(page, ANNA, monkeypatch, **address)
    assert not reader.exception
    shown = everything(reader).replace(studies.KEPT_BACK.format(wanted), "")
    assert wanted not in shown.replace(f"Not among these studies, so not in the figure: {wanted}, {other}.", "")
    if page == "read":
        assert "is hidden here until that session is closed" in words_on(reader)
    researcher = page_as(page, RITA, monkeypatch, **address)
    assert "is hidden here" not in words_on(researcher)
    if page == "read":
        assert wanted in everything(researcher)
    close_session(database, RITA, reading_phantoms)
    access._kept_back.clear()
    assert "is hidden here" not in words_on(page_as(page, ANNA, monkeypatch, **address))


def test_lists_and_searches_leave_them_out(
    database: Database, reading_phantoms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluations.read_reports(evaluations.result_sets()[0]["phantom"])
    question = case_rows.Question(tuple(found.texts)[:1])
    places = case_rows.matching(found, question)
    monkeypatch.setattr(access, "has_login", lambda: True)
    monkeypatch.setattr(access, "_server_user", lambda: ANNA)
    left = case_rows.matching(found, question)
    assert {found.study_ids[place] for place in places} - {found.study_ids[place] for place in left} == set(PHANTOMS)
    assert len(case_rows.rows(found, question.pairs, places[:60])) == 60 - sum(
        found.study_ids[p] in PHANTOMS for p in places[:60]
    )
    assert not set(PHANTOMS) & set(studies.visible_studies())
    with pytest.raises(CXRLensError, match="hidden here"):
        studies.open_study(PHANTOMS[0])


@pytest.mark.parametrize("number", [1, 2])
def test_nobody_stays_signed_in_from_test_to_test(
    database: Database, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a reader of an earlier test may see would be kept for a while, and be stale once a session begins."""
    assert access._SEEN not in st.session_state
    monkeypatch.setattr(access, "has_login", lambda: True)
    monkeypatch.setattr(access, "_server_user", lambda: ANNA)
    assert access.identify() == ANNA and st.session_state[access._SEEN] == ANNA


def test_on_ones_own_machine_the_reader_of_this_browser_counts(
    database: Database, reading_phantoms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is hidden here" not in words_on(open_app_page("read", study=PHANTOMS[0]))  # nobody is chosen
    app = open_app_page("review", reader="anna")
    assert app.session_state[access._SEEN] == ANNA
    from streamlit.runtime.context import ContextProxy, StreamlitCookies

    cookies = StreamlitCookies({access._reader_cookie(): "anna"})
    monkeypatch.setattr(ContextProxy, "cookies", property(lambda self: cookies))
    assert "is hidden here" in words_on(open_app_page("read", study=PHANTOMS[0]))
