"""Review sessions in a real browser: a whole session of two readers, and sign-in with a real identity provider."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator
from contextlib import closing
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
    list_sessions,
    open_screen,
    save_mark,
    spend,
)
from dashboard import settings
from tests.browser.conftest import Server, Watched, free_port, start_server, watch
from tests.review_cases import cases, design, error, fill, screens_of, session

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

WAIT = 60_000


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Server]:
    """A server on this machine, with an empty database; its admin is "root"."""
    if not any(settings.bundles().glob("*/card.json")):
        pytest.skip(f"no bundles in {settings.bundles()}")
    yield from start_server(tmp_path, LOGNAME="root")


def database_of(server: Server) -> Database:
    return Database(server.log.parent / "reviews.sqlite")


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
def test_a_whole_session_of_two_readers_and_its_exported_numbers(browser: Browser, local: Server) -> None:
    watched = watch(browser, local.url)
    page = watched.page
    watched.open("review?reader=root")
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
    with closing(database_of(local)) as database:
        (info,) = list_sessions(database, Actor("root", "admin"))
        assert (info.title, info.screens) == ("Pilot", 2 * 2 * 3)
        read_some(database, "anna", info.id, 0, 4)
    page.close()  # in the middle

    with closing(database_of(local)) as database:
        anna = watch(browser, local.url)
        anna.open("review?reader=anna")
        expect(anna.page.get_by_text("4 of 6 cases")).to_be_visible(timeout=WAIT)
        expect(anna.page.get_by_role("button", name="Go on")).to_be_visible(timeout=WAIT)
        for hidden in ("phantom-", "boris", "New session"):
            assert anna.page.get_by_text(hidden).count() == 0
        anna.page.close()
        read_some(database, "anna", info.id, 4, 6)
        read_some(database, "boris", info.id, 0, 6)

        root = watch(browser, local.url)
        root.open(f"review?reader=root&session={info.id}")
        root.page.get_by_text(re.compile("all screens are read")).click()
        root.page.get_by_role("button", name="Close and unblind").click()
        expect(root.page.get_by_role("heading", name="Errors")).to_be_visible(timeout=WAIT)
        root.settle()
        assert root.page.get_by_test_id("stException").count() == 0
        root.page.get_by_role("button", name="Prepare the files").click()
        download_button = root.page.get_by_role("button", name="All files (zip)")
        expect(download_button).to_be_visible(timeout=2 * WAIT)
        with root.page.expect_download(timeout=WAIT) as download:
            download_button.click()
        archive = local.log.parent / "files.zip"
        download.value.save_as(archive)
        assert root.errors == []
        root.page.close()
    check_files(zipfile.ZipFile(archive))
    assert "Traceback" not in local.log.read_text()


def check_files(files: zipfile.ZipFile) -> None:
    """The exported numbers are those of `read_some`."""
    kinds = list(ERROR_KINDS)
    marks = pd.read_csv(files.open("marks.csv"), skiprows=1)
    for reader in ("anna", "boris"):
        of_reader = marks[marks["reader"] == reader]
        assert of_reader.groupby("position").size().to_dict() == {1: 1, 2: 2, 4: 1, 5: 2}
        values = [json.loads(value) for value in of_reader.sort_values("position")["value"]]
        assert sorted(value["error"] for value in values) == sorted(kinds[n] for n in (1, 2, 2, 4, 5, 5))
        assert sum(value["significant"] for value in values) == 2
    analysis = json.loads(files.read("analysis.json"))["analysis"]
    every = [row for row in analysis["errors"] if row["error"] == "all kinds"]
    assert sum(row["errors"] for row in every if not row["significant"]) == 12
    assert sum(row["errors"] for row in every if row["significant"]) == 4
    assert {row["model"] for row in every} >= {"reference"}
    screens = json.loads(files.read("screens.json"))["screens"]
    assert {row["comment"] for row in screens} == {"=1+1"}
    assert {row["seconds"] for row in screens} == {12.5}
    report = files.read("report.html").decode()
    assert report.count("data:image/png") == 2  # each study was commented on
    assert "Not a medical device" in report


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
            watched.open(address)
            expect(watched.page.get_by_role("note").filter(has_text="Research use only")).to_be_visible(timeout=WAIT)
            expected = {"asks": "Who are you?", "reader": "Waiting for you", "results": "Take away"}[name]
            expect(watched.page.get_by_role("heading", name=expected)).to_be_visible(timeout=WAIT)
            overhang = watched.page.evaluate(
                "() => { const main = document.querySelector('[data-testid=stMain]');"
                " return main.scrollWidth - main.clientWidth }"
            )
            assert overhang <= 0, name
            assert watched.page.get_by_test_id("stException").count() == 0
            assert watched.errors == []
            watched.page.close()


def test_a_server_that_others_reach_refuses_reviews_without_sign_in(browser: Browser, tmp_path: Path) -> None:
    for server in start_server(tmp_path, "--server.address=0.0.0.0", LOGNAME="root"):
        watched = watch(browser, server.url)
        watched.open("review?reader=root")
        expect(watched.page.get_by_text("Review sessions are closed here")).to_be_visible(timeout=WAIT)
        assert watched.page.get_by_text("New session").count() == 0
        assert not (tmp_path / "reviews.sqlite").exists()
        watched.page.close()


# ----------------------------------------------------------------------------------------------------------- sign-in

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
    provider_mock = pytest.importorskip("oidc_provider_mock")
    pytest.importorskip("authlib")
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
    stranger = sign_in(browser, guarded, "stranger")
    expect(stranger.page.get_by_text("stranger@elsewhere.org has no role")).to_be_visible(timeout=WAIT)
    stranger.page.context.close()
    # Who claims an address that the provider has not verified gets nothing of its owner.
    eve = sign_in(browser, guarded, "eve")
    expect(eve.page.get_by_text("no verified e-mail address")).to_be_visible(timeout=WAIT)
    eve.page.context.close()

    rita = sign_in(browser, guarded, "rita")
    expect(rita.page.get_by_text("rita@hospital.org").first).to_be_visible(timeout=WAIT)
    expect(rita.page.get_by_text("New session")).to_be_visible(timeout=WAIT)
    with closing(database_of(guarded)) as database:
        owner = actor(database, "rita@hospital.org")
        made = create_session(database, owner, design(title="Of anna", readers=("anna@hospital.org",)), cases())
        assert actor(database, "boris@hospital.org").role == "reader"  # from the file, before he ever came
    rita.page.context.close()

    anna = sign_in(browser, guarded, "anna")
    expect(anna.page.get_by_text("Of anna")).to_be_visible(timeout=WAIT)
    expect(anna.page.get_by_role("button", name="Begin")).to_be_visible(timeout=WAIT)
    assert anna.page.get_by_text("New session").count() == 0
    anna.page.context.close()

    boris = sign_in(browser, guarded, "boris")
    expect(boris.page.get_by_text("No session waits for you")).to_be_visible(timeout=WAIT)
    for address in (f"review?session={made}", f"review?session={made}&reader=anna@hospital.org"):
        boris.open(address)
        assert boris.page.get_by_text("Of anna").count() == 0
        assert boris.page.get_by_text("pair-one").count() == 0
    expect(boris.page.get_by_text("This address is of another reader")).to_be_visible(timeout=WAIT)
    boris.open("review")
    boris.page.get_by_role("button", name="Sign out").click()
    boris.page.wait_for_url(re.compile(r"^(?!.*/review)"), wait_until="commit", timeout=WAIT)
    boris.open("review")
    expect(boris.page.get_by_role("button", name="Sign in")).to_be_visible(timeout=WAIT)
    boris.page.context.close()
