"""Forged requests: to the reading page as another reader, and to a real server on loopback by who has no key to it."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from core.reviews import local_key
from core.reviews.database import Database
from core.reviews.schema import events, screens
from core.reviews.store import NO_ROLE, Actor, read_screen, save_mark, set_role
from core.reviews.verification import verify
from core.types import CXRLensError
from dashboard.reviews.reading import respond
from tests.attacks import Tally
from tests.attacks.damage import HOSTILE, spread
from tests.conftest import ROOT
from tests.review_cases import ANNA, BORIS, RITA, error, fill, name_on, screens_of, session
from tests.served import serving

TITLE = "A title that nobody outside may see"
SECRETS = (
    TITLE,
    "pair-one",
    "pair-two",
    "small left pleural effusion",
    "SQLite format 3",
    "root:x:0:0",
    "Traceback (most",
)
"""Of the world below, of its files, and of the machine."""
IN_PROCESS, OVER_HTTP, OVER_SOCKETS, AS_READER = 3500, 1100, 150, 250
"""Requests of each way; together 5,000."""


@dataclass(frozen=True)
class World:
    """A session of anna and boris, each with a mark.

    Attributes:
        folder: of the database.
        database: of the session.
        trial: its id.
        own: anna's screens.
        others: boris's screens.
    """

    folder: Path
    database: Database
    trial: str
    own: list[str]
    others: list[str]

    def marked_by_others(self) -> int:
        """Events of somebody on a screen of somebody else."""
        stray = (
            sa.select(sa.func.count())
            .select_from(events.join(screens, screens.c.id == events.c.screen_id))
            .where(events.c.actor != screens.c.reader)
        )
        with self.database.read() as connection:
            return int(connection.scalar(stray) or 0)

    def count(self) -> int:
        """All events."""
        with self.database.read() as connection:
            return int(connection.scalar(sa.select(sa.func.count()).select_from(events)) or 0)


def make(folder: Path) -> World:
    """Make it."""
    database = Database(folder / "reviews.sqlite")
    fill(database)
    trial = session(database, title=TITLE)
    own, others = (screens_of(database, name, trial) for name in ("anna", "boris"))
    for who, screen in ((ANNA, own[0]), (BORIS, others[0])):
        save_mark(database, who, screen, error(name_on(database, screen, who)), key=screen)
    return World(folder, database, trial, own, others)


# --------------------------------------------------------------------------------------------------- what a page sends


def junk(world: World) -> list[Any]:
    """Values in the place of any other."""
    deep: Any = "x"
    for _ in range(200):
        deep = [deep]
    return [
        None, "", 0, -1, 2**70, 1.5, float("nan"), float("inf"), True, [], {}, "A", "x" * 300, "\0", "\ud800",
        "'; DROP TABLE marks;--", ["a"], [["a"]], {"a": 1}, world.others[0], world.own[0], "../..", "__proto__",
        {"$ne": 1}, HOSTILE, deep,
    ]  # fmt: skip


def well_formed(world: World, draw: random.Random, number: int) -> dict[str, Any]:
    """A change as a reader makes it, of somebody else's screen."""
    mark = {"kind": "error", "report": "A", "value": {"error": "omission", "significant": True}}
    change = draw.choice(
        [
            {"do": "mark", "mark": mark, "slot": "", "version": 0},
            {"do": "annotate", "version": 1, "fields": {"comment": "mine"}},
            {"do": "time", "seconds": 30.0},
            {"do": "undo"},
            {"do": "open"},
        ]
    )
    screen = draw.choice(world.others)
    return {
        "tick": "t",
        "at": screen,
        "want": world.others,
        "change": {"key": f"w{number}", "screen": screen, **change},
    }


def forged(world: World, draw: random.Random, number: int) -> dict[str, Any]:
    """A request as the reading page could send it: right but for whose screen it is, or with anything in it."""
    if number % 3 == 0:
        return well_formed(world, draw, number)
    odd, every = junk(world), [*world.own, *world.others]
    one = draw.choice
    value = {"error": "omission", "significant": True}
    odd_value = value | {name: one(odd) for name in ("words", "region", "span", "start")}
    mark = {
        "kind": one(["error", "preference", "label", "answer", *odd]),
        "report": one(["A", "B", "C", *odd]),
        "value": one([value, odd_value, *odd]),
    }
    fields = {
        "state": one(["done", "skipped", *odd]),
        "comment": one(odd),
        "flagged": one(odd),
        "skip_reason": one(odd),
    }
    change = {
        "do": one(["mark", "unmark", "annotate", "undo", "open", "time", "nonsense", None, 5, []]),
        "key": one([*odd, *[f"k{number}"] * 20]),
        "screen": one([*every, *odd]),
        "version": one([0, 1, 2, *odd]),
        "slot": one(odd),
        "seconds": one(odd),
        "mark": one([mark, *odd]),
        "fields": one([fields, *odd]),
    }
    return {
        "tick": one(odd),
        "at": one([*every, *odd]),
        "want": one([world.others, world.own, odd, *odd]),
        "plates": one([world.others, odd, *odd]),
        "change": one([change, change, change, change, None, 5, []]),
    }


def _tells(world: World, answer: Mapping[str, Any]) -> bool:
    """Whether an answer to anna has anything of another reader, or of who wrote what."""
    text = json.dumps({**answer, "tick": "", "ack": None, "at": ""}, default=str)
    ack = answer["ack"] or {}
    told = {**ack, "key": "", "screen": "", "message": ""}
    return any(each in text for each in world.others) or "pair-" in text or "pair-" in json.dumps(told, default=str)


def attack_pages(tally: Tally, world: World, count: int) -> None:
    """Send forged requests to the server's half of the reading page, as each kind of user."""
    draw = random.Random(5)
    strangers = (
        Actor("nobody", "admin"),
        Actor("carla", "reader"),
        Actor("anna", "admin"),
        RITA,
        Actor("carl", "reader"),
    )
    set_role(world.database, Actor("root", "admin"), "carl", "reader")
    set_role(world.database, Actor("root", "admin"), "carl", NO_ROLE)
    for number in range(count):
        who = ANNA if number % 4 else strangers[number // 4 % len(strangers)]
        request = forged(world, draw, number)
        before, session_id = world.marked_by_others(), world.trial if number % 7 else draw.choice(["", "x", "%"])

        def use(who: Actor = who, request: Any = request, session_id: str = session_id, before: int = before) -> bool:
            answer = respond(world.database, who, session_id, request)
            ack = answer["ack"] or {}
            if who is not ANNA or _tells(world, answer) or world.marked_by_others() != before:
                return False
            if ack.get("status") in ("refused", "conflict"):
                raise CXRLensError(str(ack["message"]))
            return True

        tally.attempt(f"{who.name} ({who.role}): {json.dumps(request, default=str)[:300]}", use)


# ------------------------------------------------------------------------------------------------------ a real server

PATHS = (
    "/", "/review", "/reading", "/read", "/nonsense", "/_stcore/health", "/_stcore/host-config", "/_stcore/stream",
    "/_stcore/metrics", "/_stcore/%6detrics", "/_stcore/agent/openapi.json", "/_stcore/upload_file/x/y",
    "/_stcore/upload_file/../../reviews.sqlite/y", "/_stcore/allowed-message-origins", "/media/x.png",
    "/media/../../../../etc/passwd", "/media/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd", "/component/x/index.html",
    "/component/streamlit/../../../../../../etc/passwd", "/_stcore/bidi-components/x/../../../../../../etc/passwd",
    "/app/static/../app.py", "/app/static/%2e%2e/access.py", "/static/../../../../../../../etc/passwd",
    "/static/..%2f..%2f..%2f..%2f..%2fetc%2fpasswd", "/static/....//....//etc/passwd", "//etc/passwd",
    "/reviews.sqlite", "/../reviews.sqlite", "/%2e%2e/reviews.sqlite", "/review-key", "/.streamlit/secrets.toml",
    "/auth/login", "/auth/logout", "/oauth2callback", "/oauth2callback?code=x&state=y", "/review?token=",
    "/review?token=%00", "/review?token=" + "0" * 64, "/reading?session=%27%20OR%201=1--", "/\0", "/%ff",
    "/" + "a" * 5000,
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD", "TRACE")
HEADERS: tuple[Mapping[str, str], ...] = (
    {},
    {"Host": "evil.example"},
    {"Origin": "http://evil.example"},
    {"X-Forwarded-For": "127.0.0.1", "Forwarded": "for=127.0.0.1"},
    {"Cookie": "cxr-lens-1=" + "0" * 64},
    {"Cookie": "_streamlit_user=x; _streamlit_xsrf=y"},
    {"Authorization": "Bearer x"},
    {"X-Original-URL": "/_stcore/metrics", "X-Rewrite-URL": "/_stcore/metrics"},
    {"Content-Type": "application/json", "X-HTTP-Method-Override": "DELETE"},
    {"Range": "bytes=0-99999999999", "If-Range": "x"},
)


def over_http(port: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """(name, request) of all paths, each with all headers, by each method in turn."""
    for path, (method, headers) in itertools.product(PATHS, zip(itertools.cycle(METHODS), HEADERS * 4, strict=False)):
        name = f"{method} {path[:60]} {dict(headers)}"

        def ask(path: str = path, method: str = method, headers: Mapping[str, str] = headers) -> bool:
            asking = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            try:
                raw = f"{method} {path} HTTP/1.1\r\n".encode("latin-1")
                given = {"Host": f"127.0.0.1:{port}", "Connection": "close"} | dict(headers)
                raw += "".join(f"{key}: {value}\r\n" for key, value in given.items()).encode() + b"\r\n"
                asking.connect()
                asking.sock.sendall(raw)
                answer = http.client.HTTPResponse(asking.sock, method=method)
                answer.begin()
                body, told = answer.read(2_000_000), str(answer.headers)
            except (OSError, http.client.HTTPException) as error:
                raise CXRLensError(f"The server hung up: {error!r}") from error
            finally:
                asking.close()
            words = body.decode("utf-8", "replace") + told
            if (answer.status >= 500 and answer.status not in (501, 505)) or _leaks(words) or "evil.example" in told:
                return False
            if answer.status >= 400:
                raise CXRLensError(f"status {answer.status}")
            return True

        yield name, ask


def _leaks(words: str) -> bool:
    return any(each in words for each in SECRETS)


def over_sockets(world: World, port: int, count: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """(name, request) of who opens pages of reviews without the key: nothing of them may come back."""
    draw = random.Random(7)
    tokens = ["", "0" * 64, local_key.token_of(port + 1), "\0", "%", HOSTILE]
    queries = ["", "reader=anna", "reader=root", f"session={world.trial}&reader=anna", f"session={world.trial}"]
    headers: list[dict[str, str]] = [{}, {"Cookie": f"cxr-lens-{port}={'0' * 64}"}, {"X-Forwarded-For": "127.0.0.1"}]
    for number in range(count):
        page, query, token = draw.choice(["review", "reading"]), draw.choice(queries), draw.choice(tokens)
        message = BackMsg()
        message.rerun_script.page_name = page
        message.rerun_script.query_string = f"{query}&{local_key.TOKEN}={token}"
        state = message.rerun_script.widget_states.widgets.add(
            id=draw.choice(["$$ID-x-reading", "$$ID-0-None", "$$ID-x-close"])
        )
        state.json_value = json.dumps({"request": forged(world, draw, number)}, default=str)
        if number % 10 == 0:
            message.rerun_script.fragment_id = "0" * 32
        given = draw.choice(headers)

        def ask(message: BackMsg = message, given: dict[str, str] = given) -> bool:
            words = said(port, message, given)
            if _leaks(words):
                return False
            if "key of this machine" in words or "closed here" in words:
                raise CXRLensError("The page asks for the key.")
            return True

        yield f"{page}?{query}&token={token[:12]} {given}", ask


def said(port: int, message: BackMsg, headers: Mapping[str, str]) -> str:
    """All that a page says to a message."""
    address = f"ws://127.0.0.1:{port}/_stcore/stream"
    told, wait = "", 3 if message.rerun_script.fragment_id else 60
    try:
        with connect(address, subprotocols=["streamlit"], additional_headers=dict(headers), max_size=None) as socket:  # type: ignore[list-item]
            socket.send(message.SerializeToString())
            while True:
                try:
                    answer = ForwardMsg.FromString(bytes(socket.recv(timeout=wait)))  # type: ignore[arg-type]
                except TimeoutError:  # of a part of a page that is not there nothing is said
                    return told
                told += str(answer)
                if answer.WhichOneof("type") == "script_finished":
                    return told
    except (WebSocketException, OSError) as error:
        raise CXRLensError(f"The server hung up: {error!r}") from error


class Reader:
    """A tab of anna, who has the key, on the reading page; it sends what her page never would."""

    def __init__(self, world: World, port: int) -> None:
        self.socket = connect(f"ws://127.0.0.1:{port}/_stcore/stream", subprotocols=["streamlit"], max_size=None)  # type: ignore[list-item]
        self.query = f"session={world.trial}&reader=anna&{local_key.TOKEN}={local_key.token_of(port)}"
        self.component = self.fragment = ""
        self.heard(BackMsg())

    def heard(self, message: BackMsg) -> str:
        """All that comes back until the page is done."""
        message.rerun_script.query_string = self.query
        message.rerun_script.page_name = "reading"
        self.socket.send(message.SerializeToString())
        told = ""
        while True:
            answer = ForwardMsg.FromString(bytes(self.socket.recv(timeout=120)))  # type: ignore[arg-type]
            element = answer.delta.new_element.bidi_component
            if answer.WhichOneof("type") == "delta" and element.component_name.endswith("cxr_reading"):
                self.component, self.fragment = element.id, answer.delta.fragment_id
            told += str(answer)
            if answer.WhichOneof("type") == "script_finished":
                return told

    def send(self, request: Mapping[str, Any]) -> str:
        """What comes back to a request."""
        message = BackMsg()
        message.rerun_script.fragment_id = self.fragment
        state = message.rerun_script.widget_states.widgets.add(id=self.component)
        state.json_value = json.dumps({"request": request})
        return self.heard(message)


def as_reader(world: World, port: int, count: int) -> Iterator[tuple[str, Callable[[], bool]]]:
    """(name, request) of a reader who has the key and asks for what is another's."""
    draw, tab = random.Random(9), Reader(world, port)
    for number in range(count):
        request = forged(world, draw, number) | {"tick": f"t{number}"}

        def ask(request: Mapping[str, Any] = request) -> bool:
            before = world.marked_by_others()
            told = tab.send(request)
            echoed = json.dumps(request)
            leaks = [each for each in ("pair-one", "pair-two", "Traceback (most", "exception {") if each in told]
            theirs = [each for each in world.others if each in told and each not in echoed]
            return not leaks and not theirs and world.marked_by_others() == before

        yield f"anna: {json.dumps(request)[:300]}", ask
    tab.socket.close()


def attack_server(tally: Tally, world: World, http_count: int, sockets: int, reader: int) -> None:
    """Start the dashboard on this world, and send it forged requests."""
    settings = {"CXR_CACHE": world.folder / "cache", "CXR_REVIEWS": world.folder / "reviews.sqlite"}
    settings |= {"CXR_EVALUATIONS": world.folder / "evaluations", "CXR_KEY": world.folder / "review-key"}
    own = {name: str(path) for name, path in settings.items()} | {"LOGNAME": "root"}
    before_key = os.environ.get("CXR_KEY")
    os.environ["CXR_KEY"] = own["CXR_KEY"]  # by which the reader's token is made here
    command, log = [sys.executable, "dashboard/serve.py"], world.folder / "server.log"
    try:
        with serving(command, ROOT, log, **own) as (port, _):
            before = world.count()
            for name, ask in spread(list(over_http(port)), http_count):
                tally.attempt(name, ask)
            for name, ask in over_sockets(world, port, sockets):
                tally.attempt(name, ask)
            tally.attempt("nothing was changed by who has no key", lambda: world.count() == before)
            for name, ask in as_reader(world, port, reader):
                tally.attempt(name, ask)
    finally:
        os.environ.pop("CXR_KEY") if before_key is None else os.environ.update(CXR_KEY=before_key)
    tally.attempt("nothing of this is in the server's log", lambda: "Traceback" not in log.read_text())


def run(folder: Path, most: int) -> Tally:
    """Attack both; ``most`` is 0 for all, or how many in all."""
    tally, share = Tally("forged requests"), min(1.0, most / 5000) if most else 1.0
    world = make(folder)
    attack_pages(tally, world, int(IN_PROCESS * share))
    attack_server(tally, world, *(int(each * share) for each in (OVER_HTTP, OVER_SOCKETS, AS_READER)))
    tally.attempt(
        "boris's marks are as they were", lambda: len(read_screen(world.database, BORIS, world.others[0]).marks) == 1
    )
    tally.attempt("the record is sound", lambda: verify(world.database).events > 0)
    world.database.close()
    return tally
