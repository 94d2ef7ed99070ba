"""The dashboard's settings hold however and wherever it is started; where they cannot, it serves nothing."""

from __future__ import annotations

import base64
import hashlib
import socket
import sys
import threading
import tomllib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.message import Message
from http.client import HTTPConnection
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from websockets.exceptions import InvalidStatus

from core.reviews.local_key import local_address
from core.types import CXRLensError
from dashboard import settings
from dashboard.guard import policy
from dashboard.server import refusal_of
from dashboard.services import bundles
from tests.conftest import ROOT
from tests.served import listens_elsewhere, messages, serving
from tests.test_processes import until
from training.commands.dashboard import command, review_address

APP = ROOT / "dashboard" / "app.py"
SETTINGS = tomllib.loads((APP.parent / ".streamlit" / "config.toml").read_text())
OURS = [sys.executable, "-P", "-m", "training.cli", "dashboard"]  # -P: as the console scripts, which do not look here
STREAMLIT = [sys.executable, "-P", "-m", "streamlit", "run"]


@contextmanager
def started(command: Sequence[str], folder: Path, **environment: str) -> Iterator[int]:
    """The port of a dashboard that is started in a folder, which is the user's home."""
    own = {"PYTHONPATH": str(ROOT), "HOME": str(folder)} | environment
    with serving(command, folder, folder / "server.log", **own) as (port, _):
        yield port


@pytest.mark.parametrize("start", [OURS, [*STREAMLIT, str(APP)]], ids=["cxr-lens dashboard", "streamlit run"])
def test_the_settings_hold_from_any_folder(start: list[str], tmp_path: Path) -> None:
    (tmp_path / ".streamlit").mkdir()  # of another project: it must not open the server
    (tmp_path / ".streamlit" / "config.toml").write_text('[server]\naddress = "0.0.0.0"\n')
    for name in ("core", "dashboard", "streamlit"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not ours')")
    with started(start, tmp_path) as port:
        assert not listens_elsewhere(port)
        session = next(messages(port)).new_session
    assert not session.config.gather_usage_stats
    assert session.custom_theme.background_color == SETTINGS["theme"]["backgroundColor"]
    assert "usage statistics" not in (tmp_path / "server.log").read_text()


def test_an_option_of_streamlit_is_passed_on_and_wins(tmp_path: Path) -> None:
    options = ["--theme.base", "light", "--browser.gatherUsageStats=true", "--server.address", "0.0.0.0"]
    with started([*OURS, *options], tmp_path) as port:
        assert listens_elsewhere(port)
        page = messages(port)
        first = next(page)
        assert any(each.WhichOneof("type") == "navigation" for each in page)  # a server on purpose serves
        page.close()
    light = tomllib.loads((APP.parent / "themes" / "light.toml").read_text())["theme"]
    assert first.new_session.custom_theme.background_color == light["backgroundColor"]
    assert first.new_session.config.gather_usage_stats


def test_a_server_without_the_settings_serves_nothing_but_why(tmp_path: Path) -> None:
    other = tmp_path / "other.py"  # the settings stand beside our script, not beside this one
    other.write_text(f"import runpy\nrunpy.run_path({str(APP)!r}, run_name='__main__')\n")
    start = [*STREAMLIT, str(other), "--server.headless=true"]
    with started(start, tmp_path) as port:
        assert listens_elsewhere(port)
        served = list(messages(port))
    elements = [each.delta.new_element for each in served if each.WhichOneof("type") == "delta"]
    assert [each.WhichOneof("type") for each in elements] == ["alert"]
    assert "Nothing is shown. Start it with `cxr-lens dashboard`" in elements[0].alert.body
    assert not any(each.WhichOneof("type") == "navigation" for each in served)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("CXR_THREADS", "two", "CXR_THREADS is 'two': expected a whole number from 1 to 256."),
        ("CXR_THREADS", "0", "from 1 to 256"),
        ("CXR_HELPERS", "-1", "CXR_HELPERS is '-1': expected a whole number from 0 to 256."),
        ("CXR_HELPERS", "1e3", "from 0 to 256"),
        ("CXR_PRECISION", "fp8", "A precision is fp32, bf16"),
    ],
)
def test_an_environment_that_cannot_be_used_is_told_on_every_page(
    name: str, value: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    found = AppTest.from_file(str(APP), default_timeout=30).run()
    assert not found.exception
    (told,) = found.error
    assert says in told.value
    assert "correct it there and start again" in told.value
    assert not found.title


def test_numbers_of_the_environment_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, asked in (("CXR_THREADS", settings.threads), ("CXR_HELPERS", settings.helpers)):
        monkeypatch.setenv(name, " 3 ")
        assert asked() == 3
        monkeypatch.setenv(name, "")
        assert asked() >= 0
    monkeypatch.setenv("CXR_HELPERS", "0")
    assert settings.helpers() == 0


@pytest.mark.parametrize(
    ("address", "lost", "guarded", "refused"),
    [
        (None, ["server.address"], True, True),
        ("0.0.0.0", ["client.showErrorDetails"], True, True),  # opened on purpose, but the inside of errors would show
        ("::", ["browser.gatherUsageStats"], True, True),
        ("hospital.org", ["client.showErrorDetails"], True, True),
        ("0.0.0.0", [], True, False),
        (None, [], True, False),
        ("127.0.0.1", ["client.showErrorDetails"], True, False),
        ("::1", ["client.showErrorDetails"], True, False),
        ("localhost", ["client.showErrorDetails"], True, False),
        ("unix:///run/cxr.sock", ["client.showErrorDetails"], True, False),
        ("0.0.0.0", [], False, True),  # started by streamlit itself
        (None, [], False, True),
        ("127.0.0.1", [], False, False),
    ],
)
def test_who_is_refused(address: str | None, lost: list[str], guarded: bool, refused: bool) -> None:
    assert bool(refusal_of(address, lost, guarded)) is refused


def test_streamlit_alone_serves_nobody_else(tmp_path: Path) -> None:
    with started([*STREAMLIT, str(APP), "--server.address=0.0.0.0"], tmp_path) as port:
        elements = [each.delta.new_element for each in messages(port) if each.WhichOneof("type") == "delta"]
    assert [each.WhichOneof("type") for each in elements] == ["alert"]
    assert "without what keeps a page from loading others' files" in elements[0].alert.body


def test_answers_bind_the_browser_and_the_inside_is_closed(tmp_path: Path) -> None:
    with listener() as (proxy, calls):
        through = {"http_proxy": proxy, "https_proxy": proxy}
        with started([*OURS, "--server.address", "0.0.0.0"], tmp_path, **through) as port:
            page = messages(port, origin="http://elsewhere.example")
            with pytest.raises(InvalidStatus):  # nor is it asked whether this machine is elsewhere.example
                next(page)
            assert next(messages(port)).HasField("new_session")
            for path in ("/", "/results", "/_stcore/health", "/static/no-such.js", "/_stcore/host-config"):
                _, told = ask(port, path)
                assert told["X-Content-Type-Options"] == "nosniff"
                assert told["X-Frame-Options"] == "DENY"
                assert told["Referrer-Policy"] == "no-referrer"
                policy = told["Content-Security-Policy"]
                assert "default-src 'self'" in policy and "frame-ancestors 'none'" in policy
                assert "http" not in policy and "*" not in policy
            assert ask(port, "/_stcore/health")[0] == 200
            closed = ("/_stcore/metrics", "/_stcore/metrics/", "//_stcore//metrics", "/_stcore/agent/openapi.json")
            for path in (*closed, "/_stcore/metrics?families=cache", "/x/_stcore/metrics", "/_stcore/%6detrics"):
                assert ask(port, path)[0] == 404, path
        assert not calls  # neither to print its address nor to compare an origin with it

        with started([*STREAMLIT, str(APP), "--server.address=0.0.0.0"], tmp_path, **through):
            assert calls  # as Streamlit does alone


def test_scripts_of_the_start_page_are_allowed_by_what_they_are() -> None:
    digest = base64.b64encode(hashlib.sha256(b"alert(1)").digest()).decode()
    assert f"script-src 'self' blob: 'unsafe-eval' 'sha256-{digest}';" in policy("<p><script>alert(1)</script>")
    assert "'unsafe-inline'" not in policy("").split("style-src")[0]


@contextmanager
def listener() -> Iterator[tuple[str, list[bytes]]]:
    """A proxy that lets nothing through and keeps what it was asked."""
    calls: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def listen() -> None:
            with suppress(OSError):  # closed
                while True:
                    with listening.accept()[0] as client:
                        calls.append(client.recv(4096))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", calls


def ask(port: int, path: str) -> tuple[int, Message]:
    """Status and headers of an answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers
    finally:
        connection.close()


def test_a_theme_stands_above_the_dark_settings(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(
        '[theme]\nbase = "light"\nheadingFontSizes = ["2rem", "1rem"]\n[theme.sidebar]\ntextColor = "red"\n'
    )
    passed = command(["--server.port", "8600", f"--theme.base={mine}", "--theme.font=serif"])
    assert passed == [
        "--server.port",
        "8600",
        "--theme.base=light",
        "--theme.headingFontSizes=2rem",
        "--theme.headingFontSizes=1rem",
        "--theme.sidebar.textColor=red",
        "--theme.font=serif",
    ]
    with pytest.raises(CXRLensError, match="expected light, dark, or the TOML file of a theme"):
        command(["--theme.base", "pink"])


def test_the_review_page_opens_by_the_address_that_is_printed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "key"))
    monkeypatch.delenv("STREAMLIT_SERVER_PORT", raising=False)
    assert review_address([]).endswith(local_address(8501))
    assert review_address(["--server.port", "8600"]).endswith(local_address(8600))
    assert review_address(["--theme.base=light", "--server.port=8700"]).endswith(local_address(8700))
    monkeypatch.setenv("STREAMLIT_SERVER_PORT", "8800")
    assert review_address([]).endswith(local_address(8800))
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "key" / "inside a file"))
    assert "Name a file that you can write with CXR_KEY" in review_address([])


class InOrder:
    """A lock that is given in the order in which it was asked for, and tells who has it and who waits."""

    def __init__(self, name: Callable[[], str]) -> None:
        self.name, self.changing = name, threading.Lock()
        self.queue = deque[tuple[str, threading.Event]]()

    def __enter__(self) -> None:
        mine = self.name(), threading.Event()
        with self.changing:
            self.queue.append(mine)
            self.queue[0][1].set()
        mine[1].wait()

    def __exit__(self, *raised: object) -> None:
        with self.changing:
            self.queue.popleft()
            if self.queue:
                self.queue[0][1].set()


def test_many_tabs_of_one_user_are_one_among_all(monkeypatch: pytest.MonkeyPatch) -> None:
    who, order = threading.local(), list[str]()
    shared = InOrder(lambda: str(who.name))
    monkeypatch.setattr(bundles, "user", lambda: str(who.name))
    monkeypatch.setattr(bundles, "_inference_lock", lambda: shared)

    def ask(name: str) -> None:
        who.name = name
        with bundles.inference():
            order.append(name)

    who.name = "holder"
    asking = [threading.Thread(target=ask, args=(name,)) for name in "aaaaaaaab"]
    with bundles.inference():
        for each in asking:
            each.start()
        until(lambda: {name for name, _ in list(shared.queue)} == {"holder", "a", "b"}, "not both wait")
    for each in asking:
        each.join()
    assert sorted(order) == list("aaaaaaaab") and order.index("b") <= 2
