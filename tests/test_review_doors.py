"""The door of one's own machine: its key, and who comes without."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest
from typer.testing import CliRunner

from core.reviews import local_key
from core.reviews.database import Database
from core.types import CXRLensError
from dashboard import access
from tests.app_pages import words_on
from tests.review_cases import open_app_page, session
from training.cli import app as command_line


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the key will be."""
    monkeypatch.setenv("CXR_KEY", str(tmp_path / "home" / "review-key"))
    return tmp_path / "home" / "review-key"


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
    assert "key of this machine" in words_on(app)
    assert ("not the key of this dashboard" in words_on(app)) is True
    assert "token" not in app.query_params
    assert not app.button and not app.dataframe and "Trial" not in words_on(app)
    assert local_key.token_of(8501) not in words_on(app)


def test_the_key_can_be_pasted_and_its_address_too(database: Database) -> None:
    app = open_app_page("review", token="")
    app.text_input(key="local-key").input("http://127.0.0.1:8501/review?token=" + "0" * 64).run()
    assert "not the key of this dashboard" in words_on(app)
    app.text_input(key="local-key").input(local_key.local_address(8501) + "&reader=rita").run()
    assert "Who are you?" in words_on(app)


def test_a_key_that_was_made_anew_closes_tabs_that_are_open(database: Database, key: Path) -> None:
    app = open_app_page("review", reader="root")
    assert "key of this machine" not in words_on(app)
    key.unlink()
    assert "key of this machine" in words_on(app.run())


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
