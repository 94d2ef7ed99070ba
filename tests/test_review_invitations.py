"""Invitations with one-time codes: what they open, once, and what they never open."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import streamlit as st
from streamlit.runtime.context import ContextProxy, StreamlitCookies
from streamlit.testing.v1 import AppTest

from core.reviews import invitations, local_key
from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.invitations import Guesses, invite, invited, list_invitations, redeem, withdraw_invitation
from core.reviews.progress import session_progress
from core.reviews.reminders import page_address, reminders
from core.reviews.rubrics import ReviewError
from core.reviews.store import (
    Actor,
    NotAllowedError,
    close_session,
    list_screens,
    list_sessions,
    next_screen,
    open_screen,
    progress,
    read_screen,
    save_mark,
    set_role,
    unblind,
    writers,
)
from core.types import CXRLensError
from dashboard import access
from tests.app_pages import words_on
from tests.commands import refused, run
from tests.review_cases import (
    ANNA,
    RALF,
    RITA,
    ROOT,
    ROOT_USER,
    all_events,
    error,
    fill,
    finish,
    name_on,
    page,
    screens_of,
    session,
    statements,
)

COST = dict(invitations.SCRYPT)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that take no time: what they cost is looked at below."""
    monkeypatch.setattr(invitations, "SCRYPT", {**COST, "n": 2})


class Watch:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def timed(tmp_path: Path, watch: Watch) -> Iterator[Database]:
    opened = Database(tmp_path / "timed.sqlite", clock=watch)
    fill(opened)
    yield opened
    opened.close()


def no(database: Database, code: str) -> str:
    with pytest.raises(NotAllowedError) as refusal:
        redeem(database, code, Guesses())
    return str(refusal.value)


def test_a_code_works_once_and_lets_its_reader_into_one_session(database: Database) -> None:
    trial, other = session(database), session(database, title="Other")
    made, code = invite(database, RITA, trial, "anna")
    assert (made.state, made.reader, made.used) == ("open", "anna", "")
    used = redeem(database, f"  {code}\n", Guesses())
    assert used.state == "used" and used.id == made.id
    who = invited(database, made.id)
    assert (who.name, who.role, who.only) == ("anna", "reader", trial)
    screen = screens_of(database, "anna", trial)[0]
    save_mark(database, who, screen, error(name_on(database, screen)), key="k")
    assert [each.id for each in list_sessions(database, who)] == [trial]
    foreign = screens_of(database, "anna", other)[0]
    boris = screens_of(database, "boris", trial)[0]
    attempts = [
        lambda: list_screens(database, who, other),
        lambda: next_screen(database, who, other),
        lambda: progress(database, who, other),
        lambda: unblind(database, who, other),
        lambda: read_screen(database, who, foreign),
        lambda: open_screen(database, who, foreign),
        lambda: writers(database, who, foreign),
        lambda: save_mark(database, who, foreign, error("A"), key="f"),
        lambda: read_screen(database, who, boris),
        lambda: save_mark(database, who, boris, error("A"), key="b"),
        lambda: invite(database, who, trial, "boris"),
        lambda: session_progress(database, who, trial),
        lambda: close_session(database, who, trial),
        lambda: set_role(database, who, "anna", "admin"),
    ]
    for attempt in attempts:
        with pytest.raises(NotAllowedError):
            attempt()
    assert no(database, code) == no(database, "x")  # used once; nothing is learned from the words
    verify(database)


def test_only_a_hash_of_the_code_is_kept(database: Database) -> None:
    trial = session(database)
    _, code = invite(database, RITA, trial, "anna")
    redeem(database, code, Guesses())
    secret = code.partition("-")[2]
    assert COST["n"] >= 2**14 and COST["r"] >= 8
    assert len(secret) == 32 and secret not in repr(all_events(database))
    for file in Path(database.name).parent.glob("reviews.sqlite*"):
        assert secret.encode() not in file.read_bytes()
    first, second = (invite(database, RITA, trial, "anna") for _ in range(2))
    assert first[1] != second[1]


@pytest.mark.parametrize(
    "what", ["forged", "short", "other's secret", "other's name", "withdrawn", "made anew", "none"]
)
def test_a_code_that_is_not_right_opens_nothing(what: str, database: Database) -> None:
    trial = session(database)
    _, code = invite(database, RITA, trial, "anna")
    _, boris = invite(database, RITA, trial, "boris")
    name, secret = code.split("-")
    tried = {
        "forged": f"{name}-{'a' * 32}",
        "short": code[:-1],
        "other's secret": f"{name}-{boris.split('-')[1]}",
        "other's name": f"{boris.split('-')[0]}-{secret}",
        "none": "",
    }.get(what, code)
    if what == "withdrawn":
        assert withdraw_invitation(database, RITA, trial, "anna") == 1
    if what == "made anew":
        invite(database, RITA, trial, "anna")
    assert "does not open a session" in no(database, tried)
    assert not any(each.used for each in list_invitations(database, RITA, trial))


def test_codes_and_the_access_that_they_give_expire(timed: Database, watch: Watch) -> None:
    trial = session(timed)
    made, code = invite(timed, RITA, trial, "anna", days=2)
    _, late = invite(timed, RITA, trial, "boris", days=2)
    redeem(timed, code, Guesses())
    watch.now += timedelta(days=2, seconds=1)
    assert list_invitations(timed, RITA, trial)[1].state == "expired"
    no(timed, late)
    assert invited(timed, made.id).name == "anna"
    watch.now += timedelta(days=29)
    with pytest.raises(NotAllowedError):
        invited(timed, made.id)


def test_who_was_let_in_is_out_when_the_invitation_or_the_role_is_gone(database: Database) -> None:
    trial = session(database)
    made, code = invite(database, RITA, trial, "anna")
    with pytest.raises(NotAllowedError):  # before it is used, its name opens nothing
        invited(database, made.id)
    redeem(database, code, Guesses())
    withdraw_invitation(database, RITA, trial, "anna")
    again, code = invite(database, RITA, trial, "anna")
    redeem(database, code, Guesses())
    with pytest.raises(NotAllowedError):
        invited(database, made.id)
    assert invited(database, again.id) == Actor("anna", "reader", trial)
    set_role(database, ROOT_USER, "anna", "researcher")  # never more than a reader, by a code
    with pytest.raises(NotAllowedError):
        invited(database, again.id)


def test_invitations_are_made_by_the_owner_for_readers_of_the_session(database: Database) -> None:
    trial = session(database, readers=("anna", "rita"))
    for who in (ANNA, RALF):
        with pytest.raises(NotAllowedError):
            invite(database, who, trial, "anna")
        with pytest.raises(NotAllowedError):
            list_invitations(database, who, trial)
        with pytest.raises(NotAllowedError):
            withdraw_invitation(database, who, trial, "anna")
    for reader, words in (("boris", "reads nothing"), ("rita", "is researcher"), ("nobody", "reads nothing")):
        with pytest.raises(ReviewError, match=words):
            invite(database, RITA, trial, reader)
    with pytest.raises(ReviewError, match="1 to 90"):
        invite(database, RITA, trial, "anna", days=0)
    close_session(database, RITA, trial)
    with pytest.raises(ReviewError, match="closed"):
        invite(database, RITA, trial, "anna")


def test_many_invitations_ask_no_more_of_the_database_than_one(database: Database) -> None:
    def asked(count: int) -> int:
        names = [f"reader {number}" for number in range(count)]
        fill(database, names)
        trial = session(database, 2, readers=tuple(names))
        for name in names:
            _, code = invite(database, RITA, trial, name)
            redeem(database, code, Guesses())
        withdraw_invitation(database, RITA, trial, names[0])
        with statements(database) as found:
            told = list_invitations(database, RITA, trial)
        assert [(each.reader, each.state) for each in told] == [
            (name, "used" if number else "withdrawn") for number, name in enumerate(names)
        ]
        assert all(each.used for each in told)
        return len(found)

    assert asked(1) == asked(20)


def test_guesses_are_few_and_a_right_code_waits_too(database: Database) -> None:
    clock = [0.0]
    trial = session(database)
    _, code = invite(database, RITA, trial, "anna")
    guesses = Guesses(most=3, seconds=60, now=lambda: clock[0])
    for _ in range(3):
        with pytest.raises(NotAllowedError):
            redeem(database, "guess", guesses)
    with pytest.raises(ReviewError, match="Wait a minute") as refusal:
        redeem(database, code, guesses)
    assert not isinstance(refusal.value, NotAllowedError)
    clock[0] = 61
    assert redeem(database, code, guesses).state == "used"


def test_two_who_bring_a_code_at_once_are_one(database: Database) -> None:
    trial = session(database)
    _, code = invite(database, RITA, trial, "anna")
    begin = threading.Barrier(4)
    found: list[str] = []

    def bring() -> None:
        begin.wait()
        try:
            found.append(redeem(database, code, Guesses()).state)
        except NotAllowedError:
            found.append("no")

    threads = [threading.Thread(target=bring) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == ["no", "no", "no", "used"]


# ------------------------------------------------------------------------------------------------------------ seals


def test_a_seal_is_of_this_machine_and_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "key"))
    sealed = local_key.seal("abc", 8501)
    assert local_key.unseal(sealed, 8501) == "abc"
    for wrong in ("", "abc", "abc.", sealed[:-1], sealed.replace("abc", "abd"), f".{sealed}", "é.\udcff"):
        assert local_key.unseal(wrong, 8501) == ""
    assert local_key.unseal(sealed, 8502) == ""
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "other"))
    assert local_key.unseal(sealed, 8501) == ""


# ------------------------------------------------------------------------------------------------------------ pages


def come(name: str = "review", **address: str) -> AppTest:
    """Open a page without the key of this machine."""
    app = AppTest.from_function(page, args=(str(ROOT / "dashboard" / "app_pages" / f"{name}.py"),), default_timeout=120)
    app.query_params.update(address)
    return app.run()


def with_cookie(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    cookies = StreamlitCookies({f"cxr-lens-{access.port()}-invited": value})
    monkeypatch.setattr(ContextProxy, "cookies", property(lambda self: cookies))


def test_a_link_opens_the_session_of_its_reader_and_leaves_the_address(database: Database) -> None:
    trial = session(database, title="Mine")
    session(database, title="Another of anna")
    made, code = invite(database, RITA, trial, "anna")
    app = come(invite=code, reader="boris")
    assert "invite" not in app.query_params and code not in words_on(app)
    assert list_invitations(database, RITA, trial)[0].state == "open"  # a mail program that opens it uses nothing up
    app.button(key="invited-begin").click().run()
    assert not app.exception
    words = words_on(app)
    assert "anna" in words and "Mine" in words
    assert "Another of anna" not in words and "New session" not in words
    assert list_invitations(database, RITA, trial)[0].state == "used"
    withdraw_invitation(database, RITA, trial, "anna")
    app.run()
    assert "Mine" not in words_on(app) and "does not open a session" in words_on(app)
    again = come(invite=code)
    again.button(key="invited-begin").click().run()
    assert "does not open a session" in words_on(again) and "Mine" not in words_on(again)
    assert made.id not in words_on(again)


def test_the_cookie_opens_it_again_and_a_forged_one_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = session(database, title="Mine")
    made, code = invite(database, RITA, trial, "anna")
    redeem(database, code, Guesses())
    sealed = local_key.seal(made.id, access.port())
    with_cookie(monkeypatch, sealed)
    app = come(reader="boris")
    assert "Mine" in words_on(app) and "anna" in words_on(app)
    app.button(key="leave").click().run()
    assert "Mine" not in words_on(app)
    for forged in (made.id, f"{made.id}.{'0' * 64}", local_key.seal(made.id, access.port() + 1)):
        with_cookie(monkeypatch, forged)
        assert "Mine" not in words_on(come())


def test_an_invited_reader_of_a_server_gets_nothing_else(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = session(database)
    made, code = invite(database, RITA, trial, "anna")
    redeem(database, code, Guesses())
    with_cookie(monkeypatch, local_key.seal(made.id, access.port()))
    monkeypatch.setattr(access, "has_login", lambda: True)
    monkeypatch.setattr(type(st.user), "is_logged_in", False, raising=False)

    asked: list[str] = []

    def nobody() -> None:
        raise access.NotSignedInError("no", lambda: asked.append("sign in here"))

    monkeypatch.setattr(access, "_server_user", nobody)
    access.admit("review")
    with pytest.raises(access.AccessError, match="one review session"):
        access.admit("cases")
    withdraw_invitation(database, RITA, trial, "anna")  # whoever has this browser may still sign in
    with pytest.raises(access.NotSignedInError, match="does not open a session") as refused:
        access.identify()
    refused.value.ask()
    assert asked == ["sign in here"]


def test_the_owner_makes_a_link_that_is_shown_once(database: Database) -> None:
    trial = session(database)
    app = AppTest.from_function(page, args=(str(ROOT / "dashboard" / "app_pages" / "review.py"),), default_timeout=120)
    app.query_params.update(token=local_key.token_of(access.port()), reader="rita", session=trial)
    app.run()
    app.button(key="invite").click().run()
    (shown,) = [each.value for each in app.code if "?invite=" in each.value]
    code = shown.split("?invite=")[1].split()[0]
    app.run()
    assert not [each for each in app.code if "?invite=" in each.value]
    assert redeem(database, code, Guesses()).reader == "anna"


# --------------------------------------------------------------------------------------------------------- commands


def test_by_command(database: Database) -> None:
    trial = session(database, title="Pilot")
    made = run("review", "invite", trial, "anna", "--address", "https://cxr.example:8443/review?x=1")
    assert made.exit_code == 0, made.output
    code = made.stdout.split("https://cxr.example:8443/review?invite=")[1].split()[0]
    assert "Pilot" in made.stdout
    assert "open" in run("review", "invite", trial).stdout
    assert "1 invitations of anna are withdrawn" in run("review", "invite", trial, "anna", "--withdraw").stdout
    no(database, code)
    assert "no address" in refused("review", "invite", trial, "anna", "--address", "javascript:alert(1)")


def test_reminders_say_what_is_left_and_nothing_of_a_case(database: Database) -> None:
    trial = session(database, title="Pilot")
    for screen in screens_of(database, "boris", trial):
        finish(database, Actor("boris", "reader"), screen)
    finish(database, ANNA, screens_of(database, "anna", trial)[0])
    texts = reminders(session_progress(database, RITA, trial), "https://cxr.example")
    assert set(texts) == {"anna"}
    assert "17 of 18 screens" in texts["anna"] and "https://cxr.example/review" in texts["anna"]
    assert "s000" not in texts["anna"] and "pair-one" not in texts["anna"]
    assert texts["anna"] in run("review", "remind", trial, "--address", "https://cxr.example").stdout
    for wrong in ("", "cxr.example", "ftp://x", "https://", "https://a b", "https://user@x"):
        with pytest.raises(CXRLensError, match="no address"):
            page_address(wrong)


def test_who_brings_nothing_opens_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "none.sqlite"))
    monkeypatch.setattr(access, "_local_user", lambda: (_ for _ in ()).throw(access.AccessError("closed here")))
    with_cookie(monkeypatch, "forged.0")
    assert "closed here" in words_on(come())
    assert not (tmp_path / "none.sqlite").exists()
