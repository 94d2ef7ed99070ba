"""Texts of people and files are never markup: one escape, and every page with a hostile text wherever it takes one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard.plain import code, plain, plain_message, shown
from tests.app_pages import APP, needs_bundles
from tests.attacks.damage import HOSTILE
from tests.attacks.texts import ADDRESSES, MARKUP, OTHERS, PAGES, hostile_place, marks_in, rendered


def test_a_text_is_shown_as_it_is_and_is_no_markup() -> None:
    assert not marks_in(plain(HOSTILE)) and len(marks_in(HOSTILE)) == len(MARKUP)
    assert shown(plain(HOSTILE)) == HOSTILE
    for text in ("# head", "- item", "12. item", "1) item", "a_b_c", "_b_", "x\n\n# y", "&lt;", "www.x.org", "a@b.org"):
        assert shown(plain(text)) == " ".join(text.split())
    assert plain("phantom-cnn_rnn_rnn (12, 3.5 %)") == "phantom-cnn_rnn_rnn (12, 3.5 %)"
    assert plain("# head").startswith("\\") and plain("12. x") == "12\\. x" and plain("_b_") == "\\_b\\_"
    assert ":material/x:" not in plain(":material/x:") and ":smile:" not in plain(":smile:")


def test_commands_in_messages_stay_code_and_nothing_else_does() -> None:
    said = plain_message(f"`{HOSTILE}` is none. Run `cxr-lens train --x`. {HOSTILE} ` {HOSTILE}")
    assert "`cxr-lens train --x`" in said
    assert not marks_in(said)
    assert code("a ` b\n\nc") == "`a ' b c`"


def test_messages_keep_the_names_of_files_and_not_where_they_lie(tmp_path: Path) -> None:
    said = plain_message(f"{tmp_path}/a/card.json is damaged, and so is '{tmp_path}/b-c.txt'. See https://x.org/tmp/y")
    assert shown(said) == "card.json is damaged, and so is 'b-c.txt'. See https://x.org/tmp/y"
    assert shown(plain_message("12/05/2020, and/or /nowhere/at/all; `cxr-lens x /tmp/y`")).startswith(
        "12/05/2020, and/or"
    )
    assert plain_message("It moved: cxr-lens data move x --to /tmp/y").endswith("--to /tmp/y")
    assert "/nowhere/at/all" in plain_message("/nowhere/at/all") and "`x /tmp/y`" in plain_message("`x /tmp/y`")


@given(st.text().map(lambda text: text.replace("\u2060", "")))
def test_any_text_is_read_again(text: str) -> None:
    assert shown(plain(text)) == " ".join(text.split())


def wrong(app: AppTest) -> list[str]:
    """What of a page has markup of `HOSTILE` in it."""
    return [f"{kind}: {text[:120]!r}" for kind, text in rendered(app) if marks_in(text)]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile text wherever a card, a result or an added system has one."""
    for name, value in hostile_place(tmp_path).items():
        monkeypatch.setenv(name, value)


@needs_bundles
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_no_page_takes_a_text_for_markup(page: str, hostile: None) -> None:
    app = AppTest.from_file(APP, default_timeout=300)
    if page != "read":
        app.switch_page(f"app_pages/{page}.py")
    for key in ADDRESSES.get(page, OTHERS):
        app.query_params[key] = HOSTILE
    app.run()
    assert not app.exception, [each.value for each in app.exception]
    assert not wrong(app)
    app.query_params.clear()
    app.run()
    assert not app.exception, [each.value for each in app.exception]
    assert not wrong(app)
