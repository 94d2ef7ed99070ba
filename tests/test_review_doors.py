"""Doors of review sessions without a browser: the key of one's own machine, blinding, and roles that are taken away."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy as sa
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

import dashboard.components.reading as reading_component
from core.reviews import local_key
from core.reviews.adjudication import adjudicate
from core.reviews.backup import backup, restore, verify
from core.reviews.database import Database
from core.reviews.design import Case, plan
from core.reviews.rubrics import ReviewError
from core.reviews.schema import screens, sessions
from core.reviews.sources import candidates
from core.reviews.store import (
    NO_ROLE,
    Actor,
    NotAllowedError,
    annotate,
    being_read,
    close_session,
    create_session,
    enrol,
    list_screens,
    list_sessions,
    list_users,
    next_screen,
    open_screen,
    progress,
    read_screen,
    remove_mark,
    save_mark,
    set_role,
    spend,
    unblind,
    undo,
    withdraw,
)
from core.types import CXRLensError
from dashboard import access
from dashboard.reviews.reading import respond
from dashboard.services import cases as case_rows
from dashboard.services import evaluations, studies
from tests.review_cases import MODELS, ROOT, cases, design, error, fill, open_app_page, open_file, screens_of, session
from training.cli import app as command_line

ANNA, RITA, ROOT_USER = Actor("anna", "reader"), Actor("rita", "researcher"), Actor("root", "admin")


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """A database with its users, which the pages use too; the login name is its admin."""
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "reviews.sqlite"))
    monkeypatch.setenv("LOGNAME", "root")
    opened = open_file(tmp_path)
    fill(opened)
    yield opened
    opened.close()


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key will be."""
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "home" / "review-key"))
    return tmp_path / "home" / "review-key"


def text_of(app: AppTest) -> str:
    parts = [*app.markdown, *app.caption, *app.error, *app.info, *app.warning, *app.subheader, *app.success]
    return "\n".join(str(each.value) for each in parts)


# ------------------------------------------------------------------------------------------ the key of this machine


def test_the_key_is_made_once_and_for_its_owner_only(key: Path) -> None:
    token = local_key.token_of(8501)
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o077 == 0
    assert [each.name for each in key.parent.iterdir()] == [key.name]
    assert local_key.token_of(8501) == token
    assert local_key.local_address(8501) == f"http://127.0.0.1:8501/review?token={token}"
    others = {local_key.token_of(8502), *local_key.cookie_of(8501), *local_key.cookie_of(8502), key.read_text()}
    assert len(others) == 6 and token not in others  # what opens one port opens no other, and says nothing of the key


def spoil_mode(key: Path) -> None:
    key.chmod(0o640)


def spoil_link(key: Path) -> None:
    key.rename(key.with_name("elsewhere"))
    key.symlink_to(key.with_name("elsewhere"))


def spoil_empty(key: Path) -> None:
    key.write_text("")


def spoil_text(key: Path) -> None:
    key.write_bytes(b"\xff" * 64)


def spoil_pipe(key: Path) -> None:
    key.unlink()
    os.mkfifo(key, 0o600)


@pytest.mark.parametrize("spoil", [spoil_mode, spoil_link, spoil_empty, spoil_text, spoil_pipe])
def test_a_key_that_others_may_know_is_made_anew(key: Path, spoil: Callable[[Path], None]) -> None:
    before = local_key.token_of(8501)
    spoil(key)
    after = local_key.token_of(8501)
    assert after != before
    assert local_key.token_of(8501) == after
    assert not key.is_symlink() and key.is_file() and key.stat().st_mode & 0o777 == 0o600


def test_many_who_start_at_once_get_one_key(key: Path) -> None:
    found: list[str] = []
    begin = threading.Barrier(16)

    def start() -> None:
        begin.wait()
        found.append(local_key.token_of(8501))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(found) == {local_key.token_of(8501)} and len(found) == 16


def broken_page() -> None:
    """The Review page, opened by nobody in particular."""
    from tests.review_cases import ROOT, page

    page(str(ROOT / "dashboard" / "app_pages" / "review.py"))


def test_a_home_that_cannot_be_written_is_one_sentence(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "file" / "review-key"))  # no folder can be made there, by root neither
    with pytest.raises(CXRLensError, match="CXR_KEY"):
        local_key.token_of(8501)
    monkeypatch.setenv("CXR_KEY", str(tmp_path))  # a folder
    with pytest.raises(CXRLensError, match="CXR_KEY"):
        local_key.token_of(8501)
    page = AppTest.from_function(broken_page, default_timeout=60).run()
    assert not page.exception and "CXR_KEY" in page.error[0].value


def test_the_command_prints_the_address(key: Path) -> None:
    told = CliRunner().invoke(command_line, ["review", "key", "--port", "8601"])
    assert told.output.strip() == local_key.local_address(8601) == access.local_address(8601)


@pytest.mark.parametrize("page", ["review", "reading"])
@pytest.mark.parametrize("token", ["", "0" * 64, "8502", "key"])
def test_without_the_key_of_this_port_nobody_is_anybody(database: Database, page: str, token: str) -> None:
    made = session(database)
    local_key.token_of(8501)
    wrong = {"8502": local_key.token_of(8502), "key": local_key.key_file().read_text()}.get(token, token)
    app = open_app_page(page, token=wrong, reader="root", session=made)
    assert not app.exception
    assert "key of this machine" in text_of(app)
    assert ("not the key of this dashboard" in text_of(app)) is True
    assert "token" not in app.query_params
    assert not app.button and not app.dataframe and "Trial" not in text_of(app)
    assert local_key.token_of(8501) not in text_of(app)


def test_the_key_can_be_pasted_and_its_address_too(database: Database) -> None:
    app = open_app_page("review", token="")
    app.text_input(key="local-key").input("http://127.0.0.1:8501/review?token=" + "0" * 64).run()
    assert "not the key of this dashboard" in text_of(app)
    app.text_input(key="local-key").input(local_key.local_address(8501) + "&reader=rita").run()
    assert "Who are you?" in text_of(app)


def test_a_key_that_was_made_anew_closes_tabs_that_are_open(database: Database, key: Path) -> None:
    app = open_app_page("review", reader="root")
    assert "key of this machine" not in text_of(app)
    key.unlink()
    assert "key of this machine" in text_of(app.run())


def test_a_damaged_file_of_secrets_lets_nobody_in(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Damaged:
        def __contains__(self, name: str) -> bool:
            raise FileNotFoundError("Streamlit says this of a file that cannot be parsed, too")

    (tmp_path / "secrets.toml").write_text("[auth")
    monkeypatch.setattr(access.st, "secrets", Damaged())
    known = access.st.get_option
    files = [str(tmp_path / "none.toml"), str(tmp_path / "secrets.toml")]
    monkeypatch.setattr(access.st, "get_option", lambda name: files if name == "secrets.files" else known(name))
    for act in (access.has_login, access.admit, access.identify, access.kept_back):
        with pytest.raises(access.AccessError, match="secrets.toml cannot be read"):
            act()
    files.pop()
    assert not access.has_login()


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
        for place, screen_id in enumerate(screens_of(database, reader, made)):
            shown = read_screen(database, Actor(reader, "reader"), screen_id)
            for number in range(1 + (reader == "boris")):
                mark = error(shown.reports[0][0])
                save_mark(database, Actor(reader, "reader"), screen_id, mark, key=f"{place}-{number}")
            annotate(database, Actor(reader, "reader"), screen_id, key=f"{place}", version=1, state="done")
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
    study = next(iter(studies.all_studies().values()))
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
    assert not app.exception and "in a session that is open" in text_of(app) and not app.dataframe
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
    known = [each for each in PHANTOMS if each in studies.all_studies()]
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
    pool = [Case(name, "", texts) for name in studies.all_studies()]
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
        assert "is kept from you here until the session is closed" in text_of(reader)
    researcher = page_as(page, RITA, monkeypatch, **address)
    assert "is kept from you" not in text_of(researcher)
    if page == "read":
        assert wanted in everything(researcher)
    close_session(database, RITA, reading_phantoms)
    access._kept_back.clear()
    assert "is kept from you" not in text_of(page_as(page, ANNA, monkeypatch, **address))


def test_lists_and_searches_leave_them_out(
    database: Database, reading_phantoms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = evaluations.read_reports("phantom")
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
    with pytest.raises(CXRLensError, match="kept from you"):
        studies.open_study(PHANTOMS[0])


def test_on_ones_own_machine_the_reader_of_this_browser_counts(
    database: Database, reading_phantoms: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is kept from you" not in text_of(open_app_page("read", study=PHANTOMS[0]))  # nobody is chosen
    app = open_app_page("review", reader="anna")
    assert app.session_state[access._SEEN] == ANNA
    from streamlit.runtime.context import ContextProxy, StreamlitCookies

    cookies = StreamlitCookies({access._reader_cookie(): "anna"})
    monkeypatch.setattr(ContextProxy, "cookies", property(lambda self: cookies))
    assert "is kept from you" in text_of(open_app_page("read", study=PHANTOMS[0]))


# ------------------------------------------------------------------------------------------------ roles taken away


def test_after_a_role_is_taken_away_nothing_can_be_done_or_seen(database: Database) -> None:
    made = session(database)
    screen = screens_of(database, "anna", made)[0]
    name = read_screen(database, ANNA, screen).reports[0][0]
    saved = save_mark(database, ANNA, screen, error(name), key="before")
    set_role(database, ROOT_USER, "anna", NO_ROLE)
    acts: list[Callable[[Actor], object]] = [
        lambda who: save_mark(database, who, screen, error(name), key="1"),
        lambda who: save_mark(database, who, screen, error(name), key="before"),
        lambda who: save_mark(database, who, screen, error(name), key="2", slot=saved.slot, version=1),
        lambda who: remove_mark(database, who, screen, saved.slot, key="3", version=1),
        lambda who: annotate(database, who, screen, key="4", version=1, comment="late"),
        lambda who: spend(database, who, screen, 5.0, key="5"),
        lambda who: undo(database, who, screen, key="6"),
        lambda who: open_screen(database, who, screen),
        lambda who: read_screen(database, who, screen),
        lambda who: list_screens(database, who, made),
        lambda who: list_sessions(database, who),
        lambda who: next_screen(database, who, made),
        lambda who: progress(database, who, made),
        lambda who: unblind(database, who, made),
    ]
    for who in (ANNA, Actor("anna", "admin"), Actor("anna", NO_ROLE)):  # type: ignore[arg-type]
        for act in acts:
            with pytest.raises(NotAllowedError, match="anna has no role"):
                act(who)
    assert "anna" not in list_users(database, RITA)
    with pytest.raises(ReviewError, match="anna are no users"):
        session(database)
    with pytest.raises(ReviewError, match="last admin"):
        set_role(database, ROOT_USER, "root", NO_ROLE)
    with pytest.raises(ReviewError, match="no user 'nobody'"):
        set_role(database, ROOT_USER, "nobody", NO_ROLE)
    set_role(database, ROOT_USER, "anna", "reader")
    assert [each.slot for each in read_screen(database, ANNA, screen).marks] == [saved.slot]  # nothing was lost
    verify(database)


def test_names_that_look_alike_are_not_made(database: Database) -> None:
    for name in (" anna", "anna ", "an\u200bna", "anna\u202e", "jose\u0301", "a\nb", "\u212aate", "a\u00adb"):
        for make in (
            lambda name=name: set_role(database, ROOT_USER, name, "reader"),
            lambda name=name: enrol(database, name, "reader"),
        ):
            with pytest.raises(ReviewError, match="Type it again"):
                make()
    set_role(database, ROOT_USER, "jos\u00e9", "reader")


ROLES = '[users]\n"anna@hospital.org" = "{}"\n"lead@hospital.org" = "admin"\n'


class Provider:
    """A server with sign-in, as its pages see it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.roles = folder / "roles.toml"
        self.claims = {"email": "anna@hospital.org", "email_verified": True, "sub": "anna", "nonce": str(folder)}
        monkeypatch.setenv("CXR_ROLES", str(self.roles))
        monkeypatch.setattr(access, "has_login", lambda: True)
        monkeypatch.setattr(access.st, "user", SimpleNamespace(is_logged_in=True, to_dict=lambda: dict(self.claims)))
        monkeypatch.setattr(access.st, "logout", lambda: None)
        self.stamp = 0
        self.say(ROLES.format("reader"))

    def say(self, text: str) -> None:
        self.roles.write_text(text)
        self.stamp += 1
        os.utime(self.roles, ns=(self.stamp * 10**9, self.stamp * 10**9))


@pytest.fixture
def provider(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Provider:
    return Provider(tmp_path, monkeypatch)


class OpenTab:
    """The reading page, open; `told` is what its browser was told last."""

    def __init__(self, session_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.told: dict[str, Any] = {}
        monkeypatch.setattr(reading_component, "reading", self._hear)
        self.app = open_app_page("reading", session=session_id)
        self.count = 0

    def _hear(self, answer: dict[str, Any], *, key: str) -> None:
        self.told = dict(answer)

    def mark(self, key: str) -> dict[str, Any]:
        """Mark on the first screen, as the browser sends it; what became of it."""
        self.count += 1
        change = {"do": "mark", "key": key, "screen": self.screen, "mark": self.error, "slot": "", "version": 0}
        request = {"tick": str(self.count), "at": self.screen, "want": [], "plates": [], "change": change}
        self.app.session_state["reading"] = {"request": request}
        self.app.run()
        assert not self.app.exception and not self.app.error  # the page stays, with all that was typed in it
        assert self.told["tick"] == str(self.count)
        return dict(self.told["ack"])

    def begin(self) -> None:
        self.screen = self.told["at"]
        name = self.told["screens"][self.screen]["reports"][0]["name"]
        self.error = {"kind": "error", "report": name, "value": {"error": "omission", "significant": True}}


@pytest.fixture
def tab(database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> OpenTab:
    enrol(database, "anna@hospital.org", "reader")
    tab = OpenTab(session(database, readers=("anna@hospital.org",)), monkeypatch)
    tab.begin()
    assert tab.mark("first")["status"] == "saved"
    return tab


def marks_in(database: Database) -> int:
    return verify(database).marks


def test_an_open_tab_marks_no_more_when_the_role_is_taken_from_the_file(
    database: Database, provider: Provider, tab: OpenTab
) -> None:
    provider.say('[users]\n"lead@hospital.org" = "admin"\n')
    for _ in range(2):
        told = tab.mark("second")
        assert told["status"] == "again"  # which the browser keeps, and sends again
        assert "anna@hospital.org has no role" in told["message"]
    assert marks_in(database) == 1
    with pytest.raises(NotAllowedError, match="has no role"):  # whoever asks the database knows it too
        read_screen(database, Actor("anna@hospital.org", "reader"), tab.screen)
    provider.say(ROLES.format("reader"))
    assert tab.mark("second")["status"] == "saved"
    assert marks_in(database) == 2


def test_an_open_tab_marks_no_more_after_signing_out_in_another(
    database: Database, provider: Provider, tab: OpenTab
) -> None:
    access._sign_out()
    told = tab.mark("second")
    assert told["status"] == "again" and "signed out" in told["message"]
    assert marks_in(database) == 1
    provider.claims["nonce"] += "again"  # signed in anew
    assert tab.mark("second")["status"] == "saved"


def test_a_file_of_roles_that_is_damaged_meanwhile_is_told(
    database: Database, provider: Provider, tab: OpenTab
) -> None:
    provider.say("[[")
    assert "cannot be read" in tab.mark("second")["message"]
    assert marks_in(database) == 1
    assert list_users(database, RITA)["anna@hospital.org"] == "reader"  # a slip of the pen takes nobody's role away


def test_whoever_claims_an_unverified_address_does_not_take_its_owners_role(
    database: Database, provider: Provider, tab: OpenTab
) -> None:
    provider.claims["email_verified"] = "true"
    assert "no verified e-mail" in tab.mark("second")["message"]
    assert list_users(database, RITA)["anna@hospital.org"] == "reader"


def test_an_admins_open_page_is_a_readers_once_the_role_changes(
    database: Database, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.say(ROLES.format("admin"))
    app = open_app_page("review")
    app.segmented_control(key="review_view").set_value("Users and backup").run()
    app.button(key="backup").click().run()
    assert app.session_state[f"{access.OF_ONE_USER}backup"]
    provider.say(ROLES.format("reader"))
    app.button(key="backup").click().run()
    assert not app.exception and not app.segmented_control and "Checked:" not in text_of(app)
    assert f"{access.OF_ONE_USER}backup" not in app.session_state  # nor can the copy be fetched any more


def test_a_withdrawn_user_is_told_in_the_events(database: Database) -> None:
    withdraw(database, "anna")
    withdraw(database, "anna")
    withdraw(database, "nobody")
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT actor, after FROM events WHERE actor = 'sign-in'").all()
    assert [(row[0], json.loads(row[1])) for row in rows] == [("sign-in", {"name": "anna", "role": NO_ROLE})]
