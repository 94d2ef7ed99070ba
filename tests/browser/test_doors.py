"""Doors of review sessions with a real server, browser and proxy: who comes in, and what a reader's browser learns."""

from __future__ import annotations

import getpass
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from core.reviews import local_key
from core.reviews.database import Database
from core.reviews.design import Case, Design
from core.reviews.store import NO_ROLE, Actor, create_session, first_admin, list_screens, read_screen, set_role
from tests.browser.conftest import WAIT, Server, at, saved, start_server, sync_api, watch, with_key
from tests.browser.proxy import reverse_proxy
from tests.review_cases import ANNA, phantom_cases
from tests.served import free_port

expect = sync_api.expect
pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]
BUNDLE = "0123456789abcdef" * 4
TEXTS = {
    "secret-pair": "The heart is enlarged. There is a small left pleural effusion.",
    "reference": "The heart is normal in size. The lungs are clear.",
}


@dataclass
class Trial:
    """A server on this machine with one session of anna."""

    server: Server
    database: Database
    admin: Actor
    session: str
    source: str
    cases: list[Case]

    @property
    def port(self) -> int:
        return int(self.server.url.rpartition(":")[2])

    def marks(self) -> list[str]:
        screens = [screen for screen, _, _ in list_screens(self.database, ANNA, self.session)]
        return [
            str(mark.mark.value["error"]) for each in screens for mark in read_screen(self.database, ANNA, each).marks
        ]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    folder = tmp_path_factory.mktemp("doors")
    database = Database(folder / "reviews.sqlite")
    admin = first_admin(database, getpass.getuser())
    set_role(database, admin, "anna", "reader")
    name, cases = phantom_cases(TEXTS, {"secret-pair": BUNDLE})
    design = Design("Trial", "report-quality", ("anna",), source=name)
    made = create_session(database, admin, design, cases)
    for server in start_server(folder):
        yield Trial(server, database, admin, made, name, cases)
    database.close()


def words_of(port: int, page: str, query: str = "", **headers: str) -> str:
    """Everything that a page sends to who has no browser, and so sets what headers it likes."""
    address = f"ws://127.0.0.1:{port}/_stcore/stream"
    with connect(address, subprotocols=["streamlit"], additional_headers=headers, max_size=None) as socket:  # type: ignore[list-item]
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = query
        socket.send(message.SerializeToString())
        told = ""
        while True:
            answer = ForwardMsg.FromString(bytes(socket.recv(timeout=60)))  # type: ignore[arg-type]
            told += str(answer)
            if answer.WhichOneof("type") == "script_finished":
                return told


def test_nobody_is_admin_through_a_proxy_that_looks_like_this_machine(browser: sync_api.Browser, trial: Trial) -> None:
    right = f"{local_key.TOKEN}={local_key.token_of(trial.port)}"
    name, value = local_key.cookie_of(trial.port)
    with reverse_proxy(trial.port, origin=False) as proxy:
        for page, query in (
            ("review", ""),
            ("review", "reader=anna"),
            ("reading", f"session={trial.session}&reader=anna"),
            ("review", f"{local_key.TOKEN}={local_key.token_of(proxy)}"),  # of another port
            ("review", f"{local_key.TOKEN}={'0' * 64}"),
        ):
            told = words_of(proxy, page, query)
            assert "key of this machine" in told, (page, query)
            for hidden in ("New session", "Who are you", "anna", "Trial", right):
                assert hidden not in told.replace(query, ""), (page, query, hidden)
        assert "Who are you" in words_of(proxy, "review", right)  # the proof is what counts
        assert "Who are you" in words_of(proxy, "review", Cookie=f"{name}={value}")
        other = local_key.cookie_of(proxy)
        for cookie in (f"{name}={other[1]}", f"{other[0]}={other[1]}", f"{name}={local_key.token_of(trial.port)}"):
            assert "key of this machine" in words_of(proxy, "review", Cookie=cookie)
        # A proxy in front of a browser passes its Origin on.
    with reverse_proxy(trial.port) as proxy:
        watched = watch(browser, f"http://127.0.0.1:{proxy}")
        watched.page.goto(f"{watched.url}/review?{right}")
        expect(watched.page.get_by_text("Review sessions are closed here")).to_be_visible(timeout=WAIT)
        assert watched.page.get_by_text("New session").count() == 0
        watched.page.close()
    log = trial.server.log.read_text()
    assert log.count(local_key.local_address(trial.port)) == 1  # for who sits at the terminal
    assert "Traceback" not in log


def test_one_click_comes_in_and_the_browser_is_known_from_then_on(browser: sync_api.Browser, trial: Trial) -> None:
    context = browser.new_context()
    watched = watch(context, trial.server.url)
    watched.page.goto(local_key.local_address(trial.port))
    expect(watched.page.get_by_text("Who are you?")).to_be_visible(timeout=WAIT)
    watched.page.wait_for_url(lambda url: local_key.TOKEN not in url, timeout=WAIT)
    name = local_key.cookie_of(trial.port)[0]
    watched.page.wait_for_function("name => document.cookie.includes(name)", arg=name, timeout=WAIT)
    (cookie,) = [each for each in context.cookies() if each["name"] == local_key.cookie_of(trial.port)[0]]
    assert cookie["value"] == local_key.cookie_of(trial.port)[1] and cookie["sameSite"] == "Strict"
    again = watch(context, trial.server.url)
    again.open("review")
    expect(again.page.get_by_text("Who are you?")).to_be_visible(timeout=WAIT)
    other = watch(browser, trial.server.url)  # another browser of the same machine
    other.open(f"review?{local_key.TOKEN}={local_key.token_of(free_port())}")
    expect(other.page.get_by_text("not the key of this dashboard")).to_be_visible(timeout=WAIT)
    assert local_key.TOKEN not in other.page.url
    other.page.get_by_label("Or paste that address here").fill(local_key.local_address(trial.port))
    other.page.keyboard.press("Enter")
    expect(other.page.get_by_text("Who are you?")).to_be_visible(timeout=WAIT)
    other.page.wait_for_function("name => document.cookie.includes(name)", arg=name, timeout=WAIT)
    other.open("review")
    expect(other.page.get_by_text("Who are you?")).to_be_visible(timeout=WAIT)
    for each in (watched, again, other):
        assert each.errors == []
        each.page.close()
    context.close()


def test_a_readers_browser_learns_no_study_no_model_and_no_bundle(browser: sync_api.Browser, trial: Trial) -> None:
    """Everything that comes in is kept: answers over HTTP, and each frame of the WebSocket."""
    watched = watch(browser, trial.server.url)
    page, heard = watched.page, [b""]

    def hear(payload: str | bytes) -> None:
        heard.append(payload.encode() if isinstance(payload, str) else payload)

    page.on("websocket", lambda socket: socket.on("framereceived", hear))
    answers: list[sync_api.Response] = []
    page.on("response", lambda answer: answers.append(answer))
    watched.open_review("review?reader=anna")
    page.get_by_role("button", name=re.compile("Begin|Go on")).click(timeout=WAIT)
    expect(page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    start = int(str(page.locator(".reading").get_attribute("data-position")))
    page.keyboard.press("Enter")
    for position in range(start, 4):
        at(watched, position)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("1")
        saved(watched)
        page.keyboard.press("n")
    expect(page.locator(".sheet")).to_contain_text("All cases are read", timeout=WAIT)
    shown = page.evaluate(
        """() => [...document.querySelectorAll("*")].map((each) => each.shadowRoot?.innerHTML ?? "").join("")"""
    )
    for answer in answers:
        heard.append(answer.url.encode())
        heard.append(repr(answer.all_headers()).encode())
        if "/static/" not in answer.url and answer.request.resource_type != "websocket":
            heard.append(answer.body())
    received = b"\n".join([*heard, shown.encode(), page.content().encode(), page.url.encode()])
    assert received.count(TEXTS["secret-pair"][:20].encode()) >= 2  # the reports were in it
    assert len(received) > 1_000_000  # and the images
    for case in trial.cases:
        for secret in (case.study_id, case.image_sha256):
            assert secret.encode() not in received, secret
    for secret in ("secret-pair", BUNDLE, BUNDLE[:12], trial.source, '"reference"'):
        assert secret.encode() not in received, secret
    assert watched.errors == []
    page.close()


@pytest.mark.slow  # without a browser: tests/test_review_doors.py
def test_an_open_tab_of_whose_role_is_gone_says_so_and_keeps_what_was_typed(
    browser: sync_api.Browser, trial: Trial
) -> None:
    watched = watch(browser, trial.server.url)
    page = watched.page
    page.goto(f"{watched.url}/{with_key(watched.url, f'reading?session={trial.session}&reader=anna')}")
    expect(page.locator(".reading[data-position]")).to_be_visible(timeout=WAIT)
    page.keyboard.press("Enter")
    page.keyboard.press("g")
    page.keyboard.press("Escape")
    saved(watched)
    before = trial.marks()
    screen = str(page.locator(".reading").get_attribute("data-screen"))
    set_role(trial.database, trial.admin, "anna", NO_ROLE)
    try:
        page.keyboard.press("6")
        expect(page.locator(".saved")).to_have_attribute("data-state", "unsaved", timeout=WAIT)
        expect(page.locator(".notice")).to_contain_text("There is no user 'anna' here")
        expect(page.locator(".notice")).to_contain_text("kept in this browser")
        page.keyboard.press("c")
        page.keyboard.type("typed in vain?")
        page.wait_for_timeout(1500)
        expect(page.locator(".typing textarea")).to_have_value("typed in vain?")
    finally:
        set_role(trial.database, trial.admin, "anna", "reader")
    assert trial.marks() == before
    saved(watched)  # by itself
    assert sorted(trial.marks()) == sorted([*before, "missing comparison"])
    assert read_screen(trial.database, ANNA, screen).comment == "typed in vain?"
    assert watched.errors == []
    page.close()
