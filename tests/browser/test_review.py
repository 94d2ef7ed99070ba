"""Review sessions in a real browser: a whole session of two readers, and sign-in with a real identity provider."""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import pytest
from playwright.sync_api import Browser, expect

from core.reviews.database import Database
from core.reviews.rubrics import ERROR_KINDS
from core.reviews.store import (
    Actor,
    actor,
    annotate,
    close_session,
    create_session,
    first_admin,
    list_sessions,
    open_screen,
    save_mark,
    set_role,
    spend,
)
from dashboard import settings
from tests import needs
from tests.browser.conftest import WAIT, Server, Watched, at, overhang, saved, start_server, watch
from tests.review_cases import ROOT_USER, cases, design, error, fill, phantom_cases, screens_of, session
from tests.served import free_port

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


def database_of(server: Server) -> Database:
    return Database(server.log.parent / "reviews.sqlite")


# ------------------------------------------------------------------------------------------------- a whole session


@dataclass(frozen=True, slots=True)
class Made:
    """A mark as the reader made it: what was seen on the page, and what was pressed."""

    reader: str
    position: int
    report: str
    text: str
    error: str
    significant: bool
    words: str | None


def enter(browser: Browser, server: Server, reader: str, button: str, position: int) -> Watched:
    """From the Review page to the case where the reader is."""
    watched = watch(browser, server.url)  # a browser of its own: nothing is left from before
    watched.open_review(f"review?reader={reader}")
    for hidden in ("phantom-", "secret-", "New session"):
        assert watched.page.get_by_text(hidden).count() == 0
    watched.page.get_by_role("button", name=button).click(timeout=WAIT)
    at(watched, position)
    if button == "Begin":
        expect(watched.page.locator(".sheet")).to_contain_text("Every mark is saved at once", timeout=WAIT)
        watched.page.keyboard.press("Enter")
    return watched


def chosen_words(watched: Watched) -> str:
    """The word or sentence that is chosen, without the numbers of marks that stand in it."""
    word = watched.page.locator(".body .word-here")
    place = word if word.count() else watched.page.locator(".body .sentence.here")
    expect(place).to_have_count(1)
    bare = "e => { const copy = e.cloneNode(true); copy.querySelectorAll('sup').forEach(n => n.remove());"
    return str(place.evaluate(f"{bare} return copy.textContent }}")).strip()


def mark_case(watched: Watched, reader: str, position: int) -> list[Made]:
    """Mark the case in sight: anna by keyboard, boris by mouse; how many and what differs from case to case."""
    page, kinds = watched.page, list(ERROR_KINDS)
    head = page.locator(".body h2").first.evaluate("head => head.firstChild.textContent").strip()
    sentences = [each.strip() for each in page.locator(".body .sentence").all_text_contents()]
    text, made = " ".join(sentences), []
    for number in range((position + 2 * (reader == "boris")) % 3):
        kind = (2 * position + number) % len(kinds)
        significant = number == 0
        whole = number == 1 and position % 2 == 1
        if reader == "anna":
            for key in ["ArrowUp"] * (len(sentences) + 1) if whole else ["ArrowDown"]:
                page.keyboard.press(key)
        elif whole:
            page.locator(".body h2").first.click()
        else:  # the second time it is the word that is clicked
            page.locator(".body .sentence").nth(min(1, len(sentences) - 1)).locator("span").first.click()
        words = None if whole else chosen_words(watched)
        if reader == "anna":
            page.keyboard.press(str(kind + 1))
        else:
            page.locator(".palette button").nth(kind).click()
        if not significant and reader == "anna":
            page.keyboard.press("s")
        elif not significant:
            page.locator(".marks li.here .weight").click()
        made.append(Made(reader, position, head.removeprefix("Report "), text, kinds[kind], significant, words))
    expect(page.locator(".marks li")).to_have_count(len(made))
    return made


def whole_session(browser: Browser, server: Server, session_id: str, cases_of_each: int) -> None:
    """Two readers read all cases on the page, one in two sittings; the researcher closes, unblinds, takes the files."""
    made: list[Made] = []
    anna = enter(browser, server, "anna", "Begin", 0)
    middle = cases_of_each // 2
    for position in range(middle):
        made += mark_case(anna, "anna", position)
        anna.page.keyboard.press("n")
        at(anna, position + 1)
    anna.page.keyboard.press("c")
    anna.page.keyboard.type("=1+1")
    anna.page.keyboard.press("Control+Enter")
    half = mark_case(anna, "anna", middle)
    saved(anna)
    anna.page.close()  # in the middle of a case
    assert anna.errors == []

    boris = enter(browser, server, "boris", "Begin", 0)
    for position in range(cases_of_each):
        if position == 1:
            boris.page.locator('[data-go="skip"]').click()
            boris.page.locator(".typing textarea").fill("motion <b>blur</b>")
            boris.page.locator('[data-go="typed"]').click()
        else:
            made += mark_case(boris, "boris", position)
            boris.page.locator('[data-go="next"]').click()
        if position + 1 < cases_of_each:
            at(boris, position + 1)
    expect(boris.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
    saved(boris)
    boris.close()

    anna = enter(browser, server, "anna", "Go on", middle)
    expect(anna.page.locator(".marks li")).to_have_count(len(half))
    expect(anna.page.locator(".comment")).to_contain_text("=1+1")
    made += half
    anna.page.keyboard.press("n")
    for position in range(middle + 1, cases_of_each):
        at(anna, position)
        made += mark_case(anna, "anna", position)
        anna.page.keyboard.press("n")
    expect(anna.page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
    saved(anna)
    anna.close()

    root = watch(browser, server.url)
    root.open_review(f"review?reader=root&session={session_id}")
    expect(root.page.get_by_role("button", name="Close and unblind")).to_be_disabled(timeout=WAIT)
    root.page.get_by_text("all cases are read").click()
    root.page.get_by_role("button", name="Close and unblind").click()
    expect(root.page.get_by_role("heading", name="Errors")).to_be_visible(timeout=WAIT)
    root.settle()
    assert root.page.get_by_test_id("stException").count() == 0
    root.page.get_by_role("button", name="Prepare the files").click()
    download_button = root.page.get_by_role("button", name="All files (zip)")
    expect(download_button).to_be_visible(timeout=2 * WAIT)
    with root.page.expect_download(timeout=WAIT) as download:
        download_button.click()
    archive = server.log.parent / f"{session_id}.zip"
    download.value.save_as(archive)
    assert root.errors == []
    root.page.close()
    check_files(zipfile.ZipFile(archive), made, cases_of_each)
    assert "Traceback" not in server.log.read_text()


def check_files(files: zipfile.ZipFile, made: list[Made], cases_of_each: int) -> None:
    """The exported numbers are those of the marks made, in each format."""
    screens = json.loads(files.read("screens.json"))["screens"]
    by_place = {(row["reader"], row["position"]): row for row in screens}
    assert len(by_place) == len(screens) == 2 * cases_of_each
    assert Counter(row["state"] for row in screens) == {"done": 2 * cases_of_each - 1, "skipped": 1}
    assert by_place["boris", 1]["skip_reason"] == "motion <b>blur</b>"
    assert by_place["anna", cases_of_each // 2]["comment"] == "=1+1"
    # Who wrote a text is known from the file only; it must be the same for all who saw that text.
    model_of = {(each.reader, each.position): dict(by_place[each.reader, each.position]["shown"]) for each in made}
    assert all(by_place[place]["seconds"] > 0 for place in model_of)
    table = pd.read_csv(files.open("marks.csv"), skiprows=1)
    for exported in (
        table.to_dict("records"),
        json.loads(files.read("marks.json"))["marks"],
        pd.read_parquet(io.BytesIO(files.read("marks.parquet"))).to_dict("records"),
    ):
        found = []
        for row in exported:
            value = json.loads(row["value"]) if isinstance(row["value"], str) else row["value"]
            assert row["model"] == model_of[row["reader"], row["position"]][row["report"]]
            assert row["study"] == by_place[row["reader"], row["position"]]["study"]
            found.append((row["reader"], row["position"], row["report"], value["error"], value["significant"], value))
        text_of = {(each.reader, each.position): each.text for each in made}
        words = [text_of[row[0], row[1]][slice(*row[5]["span"])] if "span" in row[5] else None for row in found]
        assert sorted((*row[:5], str(said)) for row, said in zip(found, words, strict=True)) == sorted(
            (each.reader, each.position, each.report, each.error, each.significant, str(each.words)) for each in made
        )

    done = {place for place, row in by_place.items() if row["state"] == "done"}
    shown = Counter(model for place in done for _, model in by_place[place]["shown"])
    analysis = json.loads(files.read("analysis.json"))["analysis"]
    for row in analysis["errors"]:
        of_model = [each for each in made if model_of[each.reader, each.position][each.report] == row["model"]]
        if row["error"] != "all kinds":
            of_model = [each for each in of_model if each.error == row["error"]]
        if row["significant"]:
            of_model = [each for each in of_model if each.significant]
        assert (row["errors"], row["readings"]) == (len(of_model), shown[row["model"]])
    assert {row["model"] for row in analysis["errors"]} == set(shown)

    report = files.read("report.html").decode()
    discussed = {by_place["boris", 1]["study"], by_place["anna", cases_of_each // 2]["study"]}
    assert report.count("data:image/png") == len(discussed)
    assert "motion &lt;b&gt;blur&lt;/b&gt;" in report
    for name in ("report.html", "analysis.json", "marks.csv", "screens.json"):
        assert "Not a medical device" in files.read(name).decode()


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Server]:
    """A server on this machine, with an empty database; its admin is "root"."""
    yield from start_server(tmp_path, LOGNAME="root")


def test_two_readers_read_a_session_and_its_files_hold_what_they_marked(browser: Browser, local: Server) -> None:
    texts = {
        "secret-one": "The heart is enlarged. No pneumothorax.",
        "secret-two": "The heart is normal. There is a left pleural effusion.",
        "reference": "The lungs are clear. No effusion.",
    }
    source, pool = phantom_cases(texts, count=1)
    with closing(database_of(local)) as database:
        admin = first_admin(database, "root")
        for name in ("anna", "boris"):
            set_role(database, admin, name, "reader")
        made = create_session(database, admin, design(source=source), pool)
    whole_session(browser, local, made, 3)


@pytest.mark.slow
def test_a_session_made_on_the_page_with_reports_of_the_bundles(browser: Browser, local: Server) -> None:
    if not any(settings.bundles().glob("*/card.json")):
        needs.BUNDLES.skip()
    watched = watch(browser, local.url)
    page = watched.page
    watched.open_review("review?reader=root")
    page.get_by_role("radio", name="New session").click()
    title = page.get_by_role("textbox", name="Title")
    title.fill("Pilot", timeout=WAIT)
    title.press("Enter")
    watched.settle()
    readers = page.get_by_role("combobox", name=re.compile("Readers"))
    for name in ("anna", "boris"):
        readers.fill(name)
        readers.press("Enter")
        watched.settle()
    count = page.locator('input[aria-label="How many"]')
    count.fill("2")
    count.press("Enter")
    watched.settle()
    page.get_by_role("button", name="Make the session").click()
    expect(page.get_by_text("The session is made")).to_be_visible(timeout=3 * WAIT)
    assert watched.errors == []
    page.close()
    with closing(database_of(local)) as database:
        (info,) = list_sessions(database, ROOT_USER)
    assert (info.title, info.screens) == ("Pilot", 2 * 2 * 3)
    whole_session(browser, local, info.id, 6)


def read_some(database: Database, reader: str, session_id: str, first: int, last: int) -> None:
    """Read screens ``first`` to ``last``: in screen n, n % 3 errors of kind n, the first not significant."""
    who = Actor(reader, "reader")
    kinds = list(ERROR_KINDS)
    for place, screen_id in list(enumerate(screens_of(database, reader, session_id)))[first:last]:
        screen = open_screen(database, who, screen_id)
        for number in range(place % 3):
            mark = error(screen.reports[0][0], kinds[place % len(kinds)], significant=number > 0)
            save_mark(database, who, screen_id, mark, key=f"{screen_id}-{number}")
        spend(database, who, screen_id, 12.5, key=f"time-{screen_id}")
        annotate(
            database, who, screen_id, key=f"done-{screen_id}", version=screen.version, state="done", comment="=1+1"
        )


@pytest.mark.slow
def test_readers_and_results_at_a_desk_and_on_a_phone(browser: Browser, local: Server) -> None:
    with closing(database_of(local)) as database:
        fill(database)
        made = session(database)
        read_some(database, "anna", made, 0, 18)
        read_some(database, "boris", made, 0, 9)
        session(database, title="Still open")
        close_session(database, actor(database, "rita"), made)
    for width, height in ((1440, 900), (390, 844)):
        for name, address in {
            "asks": "review",
            "reader": "review?reader=anna",
            "results": f"review?reader=rita&session={made}",
        }.items():
            watched = watch(browser, local.url, width, height)
            watched.open_review(address)
            expect(watched.page.get_by_role("note").filter(has_text="Research use only")).to_be_visible(timeout=WAIT)
            expected = {"asks": "Who are you?", "reader": "Waiting for you", "results": "Take away"}[name]
            expect(watched.page.get_by_role("heading", name=expected)).to_be_visible(timeout=WAIT)
            assert overhang(watched.page) <= 0, name
            assert watched.page.get_by_test_id("stException").count() == 0
            assert watched.errors == []
            watched.page.close()


def test_a_server_that_others_reach_refuses_reviews_without_sign_in(browser: Browser, tmp_path: Path) -> None:
    for server in start_server(tmp_path, "--server.address=0.0.0.0", LOGNAME="root"):
        watched = watch(browser, server.url)
        watched.open_review("review?reader=root")
        expect(watched.page.get_by_text("Review sessions are closed here")).to_be_visible(timeout=WAIT)
        assert watched.page.get_by_text("New session").count() == 0
        assert not (tmp_path / "reviews.sqlite").exists()
        watched.page.close()


# ----------------------------------------------------------------------------------------------------------- sign-in

STUDY = "P000002-1"
"""One that the Read page shows."""
USERS = {
    "anna": {"email": "anna@hospital.org", "email_verified": True},
    "boris": {"email": "Boris@hospital.org", "email_verified": True},
    "rita": {"email": "rita@hospital.org", "email_verified": True},
    "eve": {"email": "rita@hospital.org", "email_verified": False},
    "stranger": {"email": "stranger@elsewhere.org", "email_verified": True},
}
ROLES = """
[users]
"anna@hospital.org" = "reader"
"boris@hospital.org" = "reader"
"rita@hospital.org" = "researcher"
"lead@hospital.org" = "admin"
"""
SECRETS = """
[auth]
redirect_uri = "{url}/oauth2callback"
cookie_secret = "only for this test, and as long as it has to be"
client_id = "cxr-lens"
client_secret = "secret"
server_metadata_url = "http://localhost:{provider}/.well-known/openid-configuration"
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    """A server with sign-in, and a real identity provider beside it."""
    provider_mock = needs.DEVELOPER.package("oidc_provider_mock")
    needs.DEVELOPER.package("authlib")
    users = [provider_mock.User(sub=name, claims=claims) for name, claims in USERS.items()]
    port = free_port()
    (tmp_path / "roles.toml").write_text(ROLES)
    (tmp_path / ".streamlit").mkdir()
    with provider_mock.run_server_in_thread(user_claims=users) as provider:
        secrets = tmp_path / "secrets.toml"
        secrets.write_text(SECRETS.format(url=f"http://127.0.0.1:{port}", provider=provider.server_port))
        roles = str(tmp_path / "roles.toml")
        yield from start_server(tmp_path, f"--secrets.files={secrets}", port=port, CXR_ROLES=roles)


def sign_in(browser: Browser, server: Server, name: str) -> Watched:
    """Sign in on a browser of its own."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    watched = Watched(page, server.url)
    watched.open("review")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name=name, exact=True).click(timeout=WAIT)
    # The provider sends back to the first page, which need not be waited for.
    page.wait_for_url(re.compile(re.escape(server.url) + "/(?!oauth2callback)"), wait_until="commit", timeout=WAIT)
    watched.open("review")
    return watched


@pytest.mark.slow
def test_sign_in_gives_each_user_the_own_part_only(browser: Browser, guarded: Server) -> None:
    nobody = watch(browser, guarded.url)
    for path in ("", f"?study={STUDY}", "filters", "embeddings", "cases", "results", "about", "reading", "review"):
        nobody.open(path)
        expect(nobody.page.get_by_role("button", name="Sign in")).to_be_visible(timeout=WAIT)
        assert nobody.page.get_by_text(STUDY).count() == 0
    nobody.page.close()
    stranger = sign_in(browser, guarded, "stranger")
    expect(stranger.page.get_by_text("stranger@elsewhere.org has no role")).to_be_visible(timeout=WAIT)
    stranger.open("cases")
    expect(stranger.page.get_by_text("stranger@elsewhere.org has no role")).to_be_visible(timeout=WAIT)
    stranger.page.context.close()
    # Who claims an address that the provider has not verified gets nothing of its owner.
    eve = sign_in(browser, guarded, "eve")
    expect(eve.page.get_by_text("no verified e-mail address")).to_be_visible(timeout=WAIT)
    eve.page.context.close()

    rita = sign_in(browser, guarded, "rita")
    expect(rita.page.get_by_text("rita@hospital.org").first).to_be_visible(timeout=WAIT)
    expect(rita.page.get_by_role("radio", name="New session")).to_be_visible(timeout=WAIT)
    with closing(database_of(guarded)) as database:
        owner = actor(database, "rita@hospital.org")
        pool = [replace(case, study_id=name) for case, name in zip(cases(2), (STUDY, "s001"), strict=True)]
        made = create_session(database, owner, design(title="Of anna", readers=("anna@hospital.org",)), pool)
        assert actor(database, "boris@hospital.org").role == "reader"  # from the file, before he ever came
    rita.open(f"?study={STUDY}&fve=&cve=&dve=&ccve=")
    expect(rita.page.get_by_text(STUDY).first).to_be_visible(timeout=WAIT)
    rita.page.context.close()

    anna = sign_in(browser, guarded, "anna")
    expect(anna.page.get_by_text("Of anna")).to_be_visible(timeout=WAIT)
    expect(anna.page.get_by_role("button", name="Begin")).to_be_visible(timeout=WAIT)
    assert anna.page.get_by_text("New session").count() == 0
    anna.open(f"?study={STUDY}")
    expect(anna.page.get_by_text(f"Study {STUDY} is in one of your open review sessions")).to_be_visible(timeout=WAIT)
    anna.open(f"cases?case_text={STUDY}")
    assert anna.page.get_by_text(STUDY).count() == 0
    # Signing out in one tab ends what is open in another.
    anna.open("review")
    other = Watched(anna.page.context.new_page(), guarded.url)
    other.open(f"reading?session={made}")
    expect(other.page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    other.page.keyboard.press("Enter")
    saved(other)
    anna.page.get_by_role("button", name="Sign out").click()
    anna.page.wait_for_url(re.compile(r"^(?!.*/review)"), wait_until="commit", timeout=WAIT)
    other.page.keyboard.press("1")
    expect(other.page.locator(".notice")).to_contain_text("You signed out in another tab", timeout=WAIT)
    expect(other.page.locator(".notice")).to_contain_text("kept in this browser")
    anna.page.context.close()

    boris = sign_in(browser, guarded, "boris")
    expect(boris.page.get_by_text("No session is waiting for you")).to_be_visible(timeout=WAIT)
    for address in (f"review?session={made}", f"review?session={made}&reader=anna@hospital.org"):
        boris.open(address)
        assert boris.page.get_by_text("Of anna").count() == 0
        assert boris.page.get_by_text("pair-one").count() == 0
    expect(boris.page.get_by_text("This link is of another reader")).to_be_visible(timeout=WAIT)
    boris.open("review")
    boris.page.get_by_role("button", name="Sign out").click()
    boris.page.wait_for_url(re.compile(r"^(?!.*/review)"), wait_until="commit", timeout=WAIT)
    boris.open("review")
    expect(boris.page.get_by_role("button", name="Sign in")).to_be_visible(timeout=WAIT)
    boris.page.context.close()
