"""Who may do what in review sessions: roles in the database, roles from a file, and roles that are taken away."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import dashboard.components.reading as reading_component
from core.reviews.adjudication import adjudicate
from core.reviews.answers import load_results
from core.reviews.backup import backup, verify
from core.reviews.database import Database
from core.reviews.importing import import_marks
from core.reviews.rubrics import ReviewError
from core.reviews.store import (
    NO_ROLE,
    Actor,
    NotAllowedError,
    actor,
    annotate,
    close_session,
    create_session,
    enrol,
    first_admin,
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
from tests.app_pages import words_on
from tests.review_cases import (
    ANNA,
    BORIS,
    RALF,
    RITA,
    ROOT_USER,
    TEXTS,
    all_events,
    cases,
    csv_of_marks,
    design,
    error,
    name_on,
    open_app_page,
    screens_of,
    session,
)

# ------------------------------------------------------------------------------------------------------- who is who


def test_a_reader_reaches_nothing_of_another_reader(database: Database, trial: str) -> None:
    theirs = screens_of(database, "boris", trial)[0]
    saved = save_mark(database, BORIS, theirs, error(name_on(database, theirs, BORIS)), key="1")
    mark = error("A")
    before = all_events(database)
    for attempt in (
        lambda: read_screen(database, ANNA, theirs),
        lambda: open_screen(database, ANNA, theirs),
        lambda: save_mark(database, ANNA, theirs, mark, key="x"),
        lambda: save_mark(database, ANNA, theirs, mark, key="x", slot=saved.slot, version=1),
        lambda: remove_mark(database, ANNA, theirs, saved.slot, key="x", version=1),
        lambda: annotate(database, ANNA, theirs, key="x", version=1, comment="x"),
        lambda: spend(database, ANNA, theirs, 1, key="x"),
        lambda: undo(database, ANNA, theirs, key="x"),
        lambda: load_results(database, ANNA, trial),
        lambda: close_session(database, ANNA, trial),
        lambda: create_session(database, ANNA, design(), cases()),
        lambda: set_role(database, ANNA, "anna", "admin"),
        lambda: adjudicate(database, ANNA, trial, "carla"),
        lambda: import_marks(database, ANNA, trial, csv_of_marks(database, [])),
        lambda: backup(database, ANNA, Path(database.name + ".jsonl.gz")),
    ):
        with pytest.raises(NotAllowedError):
            attempt()
    assert all_events(database) == before
    assert list_sessions(database, Actor("carla", "reader")) == []


def test_a_role_is_what_the_database_says(database: Database, trial: str) -> None:
    with pytest.raises(NotAllowedError):
        close_session(database, Actor("anna", "admin"), trial)
    with pytest.raises(NotAllowedError):
        list_sessions(database, Actor("nobody", "admin"))
    with pytest.raises(NotAllowedError):
        actor(database, "nobody")
    with pytest.raises(NotAllowedError):
        first_admin(database, "second")
    set_role(database, ROOT_USER, "rita", "reader")  # takes effect at once
    with pytest.raises(NotAllowedError):
        close_session(database, RITA, trial)
    with pytest.raises(CXRLensError, match="last admin"):
        set_role(database, ROOT_USER, "root", "reader")


def test_a_researcher_reaches_own_sessions_and_an_admin_all(database: Database, trial: str) -> None:
    assert [info.id for info in list_sessions(database, RITA)] == [trial]
    assert list_sessions(database, RALF) == []
    assert [info.id for info in list_sessions(database, ROOT_USER)] == [trial]
    for attempt in (close_session, load_results, unblind):
        with pytest.raises(NotAllowedError):
            attempt(database, RALF, trial)
    unread = screens_of(database, "anna", trial)[0]
    with pytest.raises(NotAllowedError):
        read_screen(database, RITA, unread)


def test_nothing_of_models_is_seen_before_closing_and_nothing_changes_after(database: Database, trial: str) -> None:
    own = screens_of(database, "anna", trial)
    seen = "".join(map(repr, (read_screen(database, ANNA, screen) for screen in own)))
    assert not any(f"{model!r}" in seen for model in TEXTS)
    assert "b" * 64 not in seen
    for who in (ANNA, RITA, ROOT_USER):
        with pytest.raises(CXRLensError, match="closed"):
            unblind(database, who, trial)
    with pytest.raises(CXRLensError, match="closed"):
        load_results(database, RITA, trial)
    close_session(database, RITA, trial)
    names = unblind(database, ANNA, trial)
    assert set(names) == {"anna"}
    assert set(names["anna"].values()) == set(TEXTS)
    assert set(unblind(database, RITA, trial)) == {"anna", "boris"}
    with pytest.raises(NotAllowedError):
        unblind(database, Actor("carla", "reader"), trial)
    with pytest.raises(CXRLensError, match="closed"):
        save_mark(database, ANNA, own[0], error("A"), key="late")


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
    assert not app.exception and not app.segmented_control and "Checked:" not in words_on(app)
    assert f"{access.OF_ONE_USER}backup" not in app.session_state  # nor can the copy be fetched any more


def test_a_withdrawn_user_is_told_in_the_events(database: Database) -> None:
    withdraw(database, "anna")
    withdraw(database, "anna")
    withdraw(database, "nobody")
    with database.read() as connection:
        rows = connection.exec_driver_sql("SELECT actor, after FROM events WHERE actor = 'sign-in'").all()
    assert [(row[0], json.loads(row[1])) for row in rows] == [("sign-in", {"name": "anna", "role": NO_ROLE})]
