"""Twenty readers at once on one real server on loopback, who speak to it as a page does, without a browser."""

from __future__ import annotations

import io
import itertools
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, expect
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

from core.reviews.backup import verify
from core.reviews.database import Database
from core.reviews.editing_design import Editing
from core.reviews.store import Actor, create_session, first_admin, read_screen, set_role
from core.studies.sources import open_source
from tests.app_pages import needs_bundles
from tests.browser.conftest import Server, start_server, watch, with_key
from tests.browser.reports_at_once import FAMILY_SIZE, SOURCE, read
from tests.browser.test_read import cards, radiograph, viewer
from tests.review_cases import at_a_pace, design, phantom_cases, screens_of
from tests.test_review_at_once import on_postgres as on_postgres
from tests.test_review_at_once import postgres as postgres

READERS, MARKS, EDITS = 20, 100, 60
DRAFT = "The heart is mildly enlarged. There is a small left pleural effusion. Mild pulmonary edema. No pneumothorax."


class Tab:
    """A tab on the reading page; `answer` is what the page was last told."""

    def __init__(self, server: Server, reader: str, session_id: str) -> None:
        address = server.url.replace("http", "ws") + "/_stcore/stream"
        self.socket = connect(address, subprotocols=["streamlit"], max_size=None, open_timeout=60)  # type: ignore[list-item]
        self.query = with_key(server.url, f"?session={session_id}&reader={reader}")[1:]
        self.component = self.fragment = ""
        self.ticks = itertools.count()
        self.answer = self._send(BackMsg(), "")

    def mark(self, screen: str, report: str, key: str) -> None:
        """Mark an omission; returns when the page is told that it is saved."""
        said = {"kind": "error", "report": report, "value": {"error": "omission", "significant": True}}
        change = {"do": "mark", "key": key, "screen": screen, "mark": said, "slot": "", "version": 0}
        assert self.ask(at=screen, change=change)["ack"]["status"] == "saved"

    def edit(self, screen: str, report: str, number: int) -> None:
        """Send a text as the editor does; returns when the page is told that it is saved."""
        text = DRAFT + " No pleural effusion."[: number % 22]
        bout = {
            "id": f"{1:032x}",
            "before": 1.0,
            "seconds": float(number),
            "inserted": number,
            "deleted": 0,
            "pauses": [],
        }
        said = {"kind": "answer", "report": report, "value": {"question": "report", "answer": text}}
        slot = f"answer/report/{report}/" if number else ""
        change = {"do": "edit", "key": f"{number}", "screen": screen, "mark": said, "slot": slot, "version": number}
        assert self.ask(at=screen, change={**change, "bout": bout})["ack"]["status"] == "saved"

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        tick = str(next(self.ticks))
        message = BackMsg()
        message.rerun_script.fragment_id = self.fragment
        state = message.rerun_script.widget_states.widgets.add(id=self.component)
        state.json_value = json.dumps({"request": {"tick": tick, "want": [], "plates": [], "change": None, **request}})
        self.answer = self._send(message, tick)
        return self.answer

    def _send(self, message: BackMsg, tick: str) -> dict[str, Any]:
        message.rerun_script.query_string = self.query
        message.rerun_script.page_name = "reading"
        self.socket.send(message.SerializeToString())
        while True:
            told = ForwardMsg.FromString(bytes(self.socket.recv(timeout=120)))  # type: ignore[arg-type]
            element = told.delta.new_element.bidi_component
            if told.WhichOneof("type") == "delta" and element.component_name.endswith("cxr_reading"):
                self.component, self.fragment = element.id, told.delta.fragment_id
                answer: dict[str, Any] = json.loads(element.json)
                if answer["tick"] == tick:
                    return answer


class Uploads:
    """A browser that gives the Read page one new radiograph after another, for twelve reports each."""

    def __init__(self, browser: Browser, server: Server) -> None:
        self.watched = watch(browser, server.url)
        self.watched.open("?source=upload")
        self.given = self.done = 0

    def next(self, seconds: float) -> None:
        """Give one more, and wait for its reports, no longer than so many seconds."""
        picture = io.BytesIO()
        noise = np.random.default_rng(self.given).normal(0, 0.02, (300, 300))
        Image.fromarray((np.clip(radiograph() + noise, 0, 1) * 255).astype(np.uint8)).save(picture, "PNG")
        given = {"name": f"{self.given}.png", "mimeType": "image/png", "buffer": picture.getvalue()}
        page = self.watched.page
        page.locator('[data-testid="stFileUploader"] input[type="file"]').set_input_files([given])  # type: ignore[list-item]
        self.given += 1
        expect(viewer(self.watched)).to_have_attribute("data-study", f"File {self.given}", timeout=seconds * 1000)
        expect(cards(self.watched)).to_have_count(12, timeout=seconds * 1000)
        self.done += 1


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["SQLite", "PostgreSQL"])
@pytest.mark.parametrize("beside", ["nothing", "twelve reports of uploads"])
def test_twenty_readers_mark_two_thousand_times_on_one_server(
    kind: str, beside: str, browser: Browser, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    location = str(tmp_path / "reviews.sqlite") if kind == "SQLite" else request.getfixturevalue("on_postgres")
    names = tuple(f"reader {number}" for number in range(READERS))
    source, pool = phantom_cases()
    with closing(Database(location)) as database:
        admin = first_admin(database, "root")
        for name in names:
            set_role(database, admin, name, "reader")
        trial = create_session(database, admin, design(readers=names, source=source), pool)
        own = {name: screens_of(database, name, trial) for name in names}
        blinded = {
            screen: read_screen(database, Actor(name, "reader"), screen).reports[0][0]
            for name in names
            for screen in own[name]
        }
        servers = start_server(tmp_path, LOGNAME="root", CXR_REVIEWS=location)
        server = next(servers)
        tabs = [Tab(server, name, trial) for name in names]

        def mark(reader: int, number: int) -> None:
            screens = own[names[reader]]
            screen = screens[number * len(screens) // MARKS]
            tabs[reader].mark(screen, blinded[screen], f"{number}")

        time.sleep(3)  # the first images are drawn meanwhile
        uploads = None if beside == "nothing" else Uploads(browser, server)
        if uploads is not None:
            uploads.next(240)  # the models are loaded
        with ThreadPoolExecutor(1) as pool_of_one:
            told = pool_of_one.submit(at_a_pace, READERS, MARKS, mark)
            while uploads is not None and not told.done():
                with suppress(AssertionError):  # the marks come to their end meanwhile
                    uploads.next(60)
        load, written = os.getloadavg()[0], 0 if uploads is None else uploads.done - 1
        sys.stdout.write(f"\n{kind}, beside {beside} ({written} uploads read; load of the machine {load:.1f})")
        sys.stdout.write(told.result())
        for tab in tabs:
            tab.socket.close()
        if uploads is not None:
            uploads.watched.page.close()
        servers.close()
        assert "Traceback" not in server.log.read_text()
        assert verify(database).marks == READERS * MARKS
        for name in names:
            who = Actor(name, "reader")
            assert sum(len(read_screen(database, who, screen).marks) for screen in own[name]) == MARKS


@needs_bundles
@pytest.mark.parametrize("helpers", [0, 1])
def test_readers_who_click_while_they_wait_get_all_their_reports(helpers: int, tmp_path: Path) -> None:
    studies = open_source(SOURCE).ids("test")[:5]
    with closing(start_server(tmp_path, CXR_HELPERS=str(helpers))) as started, ThreadPoolExecutor(5) as readers:
        server = next(started)
        read(server, studies[0])  # the models are loaded
        asked = [readers.submit(read, server, study, (0.2, 0.7, 1.1)) for study in studies[1:]]
        assert [each.result(240)[1] for each in asked] == [FAMILY_SIZE] * 4
        assert "Traceback" not in server.log.read_text()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_twenty_readers_type_on_one_server(tmp_path: Path) -> None:
    """Each text is sent once a second, by every reader: none is lost, and the last one stands."""
    names = tuple(f"reader {number}" for number in range(READERS))
    source, pool = phantom_cases({"pair-one": DRAFT})
    with closing(Database(tmp_path / "reviews.sqlite")) as database:
        admin = first_admin(database, "root")
        for name in names:
            set_role(database, admin, name, "reader")
        wanted = design(readers=names, source=source, rubric="draft-editing", editing=Editing(("pair-one",)))
        trial = create_session(database, admin, wanted, pool)
        own = [screens_of(database, name, trial)[0] for name in names]
        servers = start_server(tmp_path, LOGNAME="root")
        server = next(servers)
        tabs = [Tab(server, name, trial) for name in names]

        def type_on(reader: int, number: int) -> None:
            tabs[reader].edit(own[reader], "A", number)

        time.sleep(3)  # the first images are drawn meanwhile
        sys.stdout.write(at_a_pace(READERS, EDITS, type_on, "a text", 50))
        for tab in tabs:
            tab.socket.close()
        servers.close()
        assert "Traceback" not in server.log.read_text()
        assert verify(database).marks == READERS
        for name, screen in zip(names, own, strict=True):
            (saved,) = read_screen(database, Actor(name, "reader"), screen).marks
            assert saved.version == EDITS and saved.mark.value["not_counted"] == 0
            assert saved.mark.value["bouts"][f"{1:032x}"]["seconds"] == EDITS - 1
