"""The Review page through Streamlit's own test runner: who may see what, making a session, its results."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.reviews.analysis import analyse
from core.reviews.answers import load_results
from core.reviews.database import Database
from core.reviews.design import Choice
from core.reviews.metrics import automatic_metrics
from core.reviews.progress import session_progress
from core.reviews.rubrics import ReviewError
from core.reviews.sources import open_source
from core.reviews.store import (
    Actor,
    NotAllowedError,
    annotate,
    close_session,
    create_session,
    enrol,
    list_sessions,
    list_users,
    open_screen,
    read_screen,
    save_mark,
    spend,
)
from dashboard import access
from dashboard.reviews import results
from tests.app_pages import needs_bundles, words_on
from tests.review_cases import (
    ANNA,
    RALF,
    RITA,
    ROOT_USER,
    cases,
    design,
    error,
    finish,
    open_app_page,
    screens_of,
    session,
)


def open_page(**address: str) -> AppTest:
    return open_app_page("review", **address)


def read(database: Database, reader: str, session_id: str, *, count: int | None = None, errors: int = 1) -> None:
    """Read screens as a reader who marks ``errors`` in each report but the reference."""
    who = Actor(reader, "reader")
    for place, screen_id in enumerate(screens_of(database, reader, session_id)[:count]):
        screen = open_screen(database, who, screen_id)
        for name, text in screen.reports:
            for number in range(errors if "enlarged. There" not in text else 0):
                save_mark(database, who, screen_id, error(name), key=f"{place}-{name}-{number}")
        spend(database, who, screen_id, 20.0 - place, key=f"time-{place}")
        annotate(
            database,
            who,
            screen_id,
            key=f"done-{place}",
            version=read_screen(database, who, screen_id).version,
            state="done",
            comment="Discuss" if place == 0 else None,
        )


def test_a_reader_sees_what_waits_and_nothing_of_a_researcher(database: Database) -> None:
    session(database, title="For anna")
    session(database, title="For carla", readers=("carla",))
    app = open_page(reader="anna")
    assert not app.exception
    text = words_on(app)
    assert "For anna" in text
    assert "For carla" not in text
    assert [button.label for button in app.button if button.key and button.key.startswith("read-")] == ["Begin"]
    assert not app.segmented_control
    assert not any(model in text for model in ("pair-one", "pair-two"))


def test_without_a_name_the_page_asks_who_it_is(database: Database) -> None:
    session(database)
    app = open_page()
    assert "Who are you?" in words_on(app)
    assert not app.dataframe
    app.button(key="who-rita").click().run()
    assert app.query_params["reader"] == "rita"
    assert "Trial" in words_on(app)
    app.button(key="not-you").click().run()
    assert "Who are you?" in words_on(app)


def test_a_name_that_is_not_there_is_refused(database: Database) -> None:
    assert "There is no user 'mallory'" in words_on(open_page(reader="mallory"))


def test_another_researchers_session_is_not_opened_by_its_address(database: Database) -> None:
    theirs = session(database, title="Secret of rita")
    app = open_page(reader="ralf", session=theirs)
    assert not app.exception
    assert "Secret of rita" not in words_on(app)
    with pytest.raises(NotAllowedError):
        session_progress(database, RALF, theirs)
    with pytest.raises(NotAllowedError):
        session_progress(database, ANNA, theirs)
    with pytest.raises(NotAllowedError):
        list_users(database, ANNA)


def test_progress_counts_what_readers_did(database: Database) -> None:
    made = session(database)
    read(database, "anna", made, count=3)
    progress = session_progress(database, RITA, made)
    anna, boris = progress.readers
    assert (anna.reader, anna.screens, anna.done, anna.skipped, anna.seconds) == ("anna", 18, 3, 0, 57.0)
    shown = [read_screen(database, ANNA, each) for each in screens_of(database, "anna", made)[:3]]
    assert anna.marks == sum(len(screen.marks) for screen in shown)
    assert anna.pace == 19.0
    assert anna.last and not boris.last
    assert boris.pace is None
    own = list_sessions(database, ANNA, to_read=True)
    assert [(each.done, each.screens) for each in own] == [(3, 18)]
    assert list_sessions(database, RITA, to_read=True) == []


def test_a_researcher_closes_and_sees_results_and_files_equal_to_the_marks(database: Database) -> None:
    made = session(database)
    read(database, "anna", made)
    read(database, "boris", made, errors=2)
    app = open_page(reader="rita", session=made)
    assert not app.exception
    assert "pair-one" not in words_on(app)
    assert app.button(key="close").disabled  # until one is sure
    app.checkbox(key="close-sure").check().run()
    app.button(key="close").click().run()
    assert not app.exception
    assert session_progress(database, RITA, made).state == "closed"
    tables = [table.value for table in app.dataframe]
    errors = next(table for table in tables if "Significant errors per report" in table)
    found = dict(zip(errors["Model"], errors["Omission"], strict=True))
    # 6 studies, one error each by anna and two by boris; none in the reference.
    assert found == {"reference": "0 of 0", "pair-one": "18 of 18", "pair-two": "18 of 18"}
    assert errors["Model"].iloc[0] == "reference"
    questions = next(table for table in tables if "Settled as" in table)
    assert set(questions["Settled as"]) == {"not settled"}  # there was no third reader
    names = next(table for table in tables if list(table) == ["Reader", "Name", "Model"])
    assert len(names) == 6
    assert not any("Kendall's tau-b" in table for table in tables)
    app.toggle(key="metrics-wanted").set_value(True).run()
    assert not app.exception
    (compared,) = [table.value for table in app.dataframe if "Kendall's tau-b" in table.value]
    assert list(compared["Reports"]) == [12] * 5
    app.button(key="prepare").click().run()
    assert not app.exception
    files = zipfile.ZipFile(io.BytesIO(results._zip(app.session_state[f"{access.OF_ONE_USER}files-{made}-False"])))
    marks = pd.read_csv(files.open("marks.csv"), skiprows=1)
    assert marks.groupby(["reader", "model"]).size().to_dict() == {
        ("anna", "pair-one"): 6,
        ("anna", "pair-two"): 6,
        ("boris", "pair-one"): 12,
        ("boris", "pair-two"): 12,
    }
    assert "Not a medical device" in files.read("report.html").decode()
    assert json.loads(files.read("analysis.json"))["session"] == made
    reader = open_page(reader="anna", session=made)
    assert not reader.exception
    (table,) = [table.value for table in reader.dataframe]
    assert set(table["Model"]) == {"reference", "pair-one", "pair-two"}


def test_disagreements_go_to_a_third_reader_on_the_page(database: Database) -> None:
    made = session(database)
    read(database, "anna", made)
    read(database, "boris", made, errors=2)
    app = open_page(reader="rita", session=made)
    assert set(app.selectbox(key="adjudicator").options) == {"carla", "ralf", "rita", "root"}
    app.selectbox(key="adjudicator").select("carla").run()
    app.button(key="adjudicate").click().run()
    assert not app.exception
    third = session_progress(database, RITA, made).readers[-1]
    assert (third.reader, third.adjudicates, third.screens) == ("carla", True, 12)
    waiting = open_page(reader="carla")
    assert [button.label for button in waiting.button if str(button.key).startswith("read-")] == ["Settle"]
    # Once more: nothing is new, and the page says so.
    app.selectbox(key="adjudicator").select("carla").run()
    app.button(key="adjudicate").click().run()
    assert "nothing new to settle" in words_on(app)


@needs_bundles
def test_a_session_is_designed_previewed_and_made(database: Database) -> None:
    app = open_page(reader="root")
    app.segmented_control(key="review_view").set_value("New session").run()
    assert not app.exception

    def press(label: str) -> None:
        next(button for button in app.button if button.label == label).click().run()

    assert "Choose one reader" not in words_on(app)
    press("Make the session")
    assert "Give the session a title." in words_on(app) and "Choose one reader at least." in words_on(app)
    app.text_input(key="design-title").input("Pilot").run()
    app.multiselect(key="design-readers").set_value(["anna", "dora"]).run()
    app.number_input(key="design-count").set_value(2).run()
    models = next(each for each in app.multiselect if str(each.key).startswith("design-models"))
    models.set_value(["phantom-fve-cnn_rnn_rnn", "reference"]).run()
    app.number_input(key="design-repeats").set_value(3).run()
    press("Preview the first case")
    assert "Lower repeats or washout" in words_on(app)
    app.number_input(key="design-repeats").set_value(1).run()
    app.number_input(key="design-washout").set_value(2).run()
    assert "5 screens for each of 2 readers: about 5 min, at a minute a screen." in words_on(app)
    assert "Choose one reader" not in words_on(app)
    press("Preview the first case")
    assert not app.exception
    assert "First case of anna" in words_on(app)
    assert "fve" not in " ".join(each.value for each in app.text)
    press("Make the session")
    assert not app.exception
    (info,) = list_sessions(database, ROOT_USER)
    assert (info.title, info.screens) == ("Pilot", 2 * (4 + 1))
    assert list_users(database, ROOT_USER)["dora"] == "reader"
    screen = read_screen(database, ANNA, screens_of(database, "anna", info.id)[0])
    assert len(open_source(screen.source).image(screen.study_id, 64)) == 64
    assert "Pilot" in words_on(app)


def test_an_admin_adds_a_user_and_makes_a_backup(database: Database) -> None:
    app = open_page(reader="root")
    app.segmented_control(key="review_view").set_value("Users and backup").run()
    app.text_input(key="user-name").input("a/b").run()
    app.button(key="user-add").click().run()
    assert "slash" in words_on(app)
    app.text_input(key="user-name").input("dora").run()
    app.button(key="user-add").click().run()
    assert list_users(database, ROOT_USER)["dora"] == "reader"
    app.button(key="backup").click().run()
    assert not app.exception
    assert "Checked: 0 sessions" in words_on(app)


def test_a_broken_database_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken.sqlite").write_text("no database " * 1000)
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "broken.sqlite"))
    app = open_page()
    assert not app.exception
    assert "not a sound database" in words_on(app)


# ------------------------------------------------------------------------------------------------------- who is who


@pytest.mark.parametrize(
    ("address", "headers"),
    [
        (None, {"host": "localhost:8501"}),
        ("0.0.0.0", {"host": "localhost:8501"}),
        ("10.0.0.5", {}),
        ("127.0.0.1", {"host": "reviews.hospital.org"}),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-for": "10.0.0.9"}),
        ("127.0.0.1", {"host": "localhost", "forwarded": "for=10.0.0.9"}),
        ("127.0.0.1", {"host": "localhost", "x-forwarded-host": "reviews.hospital.org"}),
        ("127.0.0.1", {"host": "localhost", "x-real-ip": "10.0.0.9"}),
        ("127.0.0.1", {"host": "localhost", "via": "1.1 proxy"}),
        ("127.0.0.1", {"host": "localhost:8501", "origin": "https://reviews.hospital.org"}),
        ("127.0.0.1", {"host": "localhost:8501", "origin": "http://localhost:9999"}),
        ("127.0.0.1", {"host": "localhost:8501", "origin": "null"}),
        ("127.0.0.1", {"host": "[::1"}),
        ("127.0.0.1", {"host": ""}),
    ],
)
def test_without_sign_in_only_this_machine_may_review(address: str | None, headers: dict[str, str]) -> None:
    with pytest.raises(access.AccessError, match="closed here"):
        access.check_local(address, headers)


@pytest.mark.parametrize("peer", ["10.0.0.9", "2001:db8::1", "testclient", ""])
def test_a_peer_on_another_machine_may_not_review(peer: str) -> None:
    with pytest.raises(access.AccessError, match="closed here"):
        access.check_local("127.0.0.1", {"host": "localhost:8501"}, peer)


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
@pytest.mark.parametrize("host", ["localhost:8501", "127.0.0.1:8501", "[::1]:8501"])
def test_this_machine_may_review(address: str, host: str) -> None:
    access.check_local(address, {"host": host})
    access.check_local(address, {"host": host, "origin": f"http://{host}"}, "127.0.0.1")


ROLES = """
claim = "groups"
[users]
"Lead@hospital.org" = "admin"
[groups]
readers = "reader"
staff = "researcher"
"""


def test_roles_come_from_mail_addresses_and_groups(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text(ROLES)
    roles = access.read_roles(tmp_path / "roles.toml")

    def role_of(email: str, groups: object = None) -> tuple[str, str]:
        return roles.role_of({"email": email, "email_verified": True, "groups": groups})

    assert role_of("LEAD@hospital.org", ["readers"]) == ("lead@hospital.org", "admin")
    assert role_of("a@b.c", ["readers", "staff"]) == ("a@b.c", "researcher")
    assert role_of("a@b.c", "readers") == ("a@b.c", "reader")
    for groups in (None, ["others"], ["Readers"], "reader", 3, [None, 3, ["staff"]], {"staff": True}):
        with pytest.raises(access.AccessError, match="has no role"):
            role_of("a@b.c", groups)


UNPROVED = [False, None, 0, 1, "true", "True", "false", "yes", "", [True], {"verified": True}]


@pytest.mark.parametrize("switch", ["", 'unverified = "refuse"\n', 'unverified = "accept"\n'])
def test_only_a_verified_address_gets_the_role_of_its_owner(tmp_path: Path, switch: str) -> None:
    (tmp_path / "roles.toml").write_text(switch + ROLES)
    roles = access.read_roles(tmp_path / "roles.toml")
    lead = {"email": "lead@hospital.org", "groups": ["staff"]}
    assert roles.role_of(lead | {"email_verified": True}) == ("lead@hospital.org", "admin")
    refused = [lead | {"email_verified": said} for said in UNPROVED]
    refused += [{"email_verified": True}, *({"email": bad, "email_verified": True} for bad in ("", None, 3, ["a@b.c"]))]
    if "accept" in switch:  # of a provider that says nothing of any address
        assert roles.role_of(lead) == ("lead@hospital.org", "admin")
    else:
        refused += [lead, {}]
    for claims in refused:
        with pytest.raises(access.AccessError, match="no verified e-mail"):
            roles.role_of(claims)


@pytest.mark.parametrize(
    "email",
    [
        "kate\N{KELVIN SIGN}@hospital.org",
        "\N{KELVIN SIGN}ate.k@hospital.org",
        "kate.k@hosp\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}tal.org",
        "kate.k@hosp\N{LATIN SMALL LETTER DOTLESS I}tal.org",
        "kate.k@ho\N{LATIN SMALL LETTER LONG S}pital.org",
        "\N{FULLWIDTH LATIN SMALL LETTER K}ate.k@hospital.org",
        "kate.k@hospital.org\N{NO-BREAK SPACE}",
        " kate.k@hospital.org",
        "kate.k@hospital.org\n",
        "kate.k\N{ZERO WIDTH SPACE}@hospital.org",
    ],
)
def test_an_address_that_only_looks_like_another_is_nobodys(tmp_path: Path, email: str) -> None:
    (tmp_path / "roles.toml").write_text('[users]\n"Kate.K@Hospital.org" = "admin"\n"katek@hospital.org" = "admin"')
    roles = access.read_roles(tmp_path / "roles.toml")
    assert roles.role_of({"email": "KATE.k@hospital.ORG", "email_verified": True})[1] == "admin"
    with pytest.raises(access.AccessError, match="has no role"):
        roles.role_of({"email": email, "email_verified": True})


def test_letters_beyond_ascii_are_compared_exactly(tmp_path: Path) -> None:
    (tmp_path / "roles.toml").write_text('[users]\n"jos\u00e9@hospital.org" = "reader"', encoding="utf-8")
    roles = access.read_roles(tmp_path / "roles.toml")
    assert roles.role_of({"email": "jos\u00e9@hospital.org", "email_verified": True})[1] == "reader"
    for other in ("JOS\u00c9@hospital.org", "jose@hospital.org", "Jos\u00e9@hospital.org", "jose\u0301@hospital.org"):
        with pytest.raises(access.AccessError, match="has no role"):
            roles.role_of({"email": other, "email_verified": True})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("users = 3", "tables users and groups"),
        ('[users]\n"a@b.c" = "king"', "unknown roles: king"),
        ('[groups]\nx = "reader"', "name of their claim"),
        ("[[", "cannot be read"),
        ('unverified = "yes"', "'refuse' or 'accept'"),
        ("unverified = true", "'refuse' or 'accept'"),
        ('[users]\n"a@b.c" = "reader"\n"A@b.c" = "admin"', "names a@b.c twice"),
    ],
)
def test_a_wrong_file_of_roles_lets_nobody_in(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "roles.toml").write_text(text)
    with pytest.raises(access.AccessError, match=message):
        access.read_roles(tmp_path / "roles.toml")


def test_enrolling_follows_the_server_and_is_told(database: Database) -> None:
    assert enrol(database, "x@y.z", "reader") == Actor("x@y.z", "reader")
    enrol(database, "x@y.z", "researcher")
    assert list_users(database, RITA)["x@y.z"] == "researcher"
    with pytest.raises(ReviewError, match="no role 'king'"):
        enrol(database, "x@y.z", "king")  # type: ignore[arg-type]
    with pytest.raises(ReviewError, match="slash"):
        enrol(database, "x/y", "reader")


# ---------------------------------------------------------------------------------------------------------- figures


def test_metrics_of_a_perfect_report_are_best_and_fall_with_errors(database: Database) -> None:
    pool = cases(6, ("reference", "same", "other"))
    same = {each.study_id: each.reports["reference"] for each in pool}
    pool = [replace(each, reports={**each.reports, "same": same[each.study_id]}) for each in pool]
    made = create_session(database, RITA, design(readers=("anna",), studies=Choice("random", 6)), pool)
    for screen_id in screens_of(database, "anna", made):
        ((_, text),) = read_screen(database, ANNA, screen_id).reports
        finish(database, ANNA, screen_id, text == "The lungs are clear.")
    close_session(database, RITA, made)
    loaded = load_results(database, RITA, made)
    table = automatic_metrics(loaded)
    assert set(table["model"]) == {"same", "other"}
    of_same = table[table["model"] == "same"]
    assert of_same["BLEU-4"].min() == pytest.approx(1, abs=1e-6)
    assert of_same["ROUGE-L"].min() == pytest.approx(1)
    assert of_same["F1 of labels"].min() == 1
    assert table[table["model"] == "other"]["F1 of labels"].max() == 0
    tau = {row.metric: row.kendall.value for row in analyse(loaded, table, resamples=100).correlations}
    assert tau["ROUGE-L"] == pytest.approx(-1)
    assert tau["F1 of labels"] == pytest.approx(-1)
