"""Texts of people and files are never markup: one escape, and every page with a hostile text wherever it takes one."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.testing.v1 import AppTest

from dashboard.plain import code, plain, plain_message, shown
from tests.app_pages import APP, linked_bundles, needs_bundles
from tests.attacks.damage import HOSTILE

PAGES = ("read", "about", "filters", "results", "cases", "embeddings", "detection", "review", "reading")
MARKUP = ("![x](", "[a](", "<img", " :red[x]", "$x$", "**b**", "http://127")
"""What of `HOSTILE` must never stand in a text that is rendered as Markdown."""


def marks_in(markdown: str) -> list[str]:
    """What of `MARKUP` is markup in Markdown: neither escaped nor code."""
    bare = re.sub(r"\\.", "", re.sub(r"`[^`]+`", "", markdown))
    return [each for each in MARKUP if each in bare]


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


@given(st.text().map(lambda text: text.replace("\u2060", "")))
def test_any_text_is_read_again(text: str) -> None:
    assert shown(plain(text)) == " ".join(text.split())


def rendered(app: AppTest) -> Iterator[tuple[str, str]]:
    """(kind, text) of all that a page renders as Markdown: bodies, labels, helps, and options of groups of buttons."""
    for element in _all(app._tree):
        proto = getattr(element, "proto", None)
        kind = str(getattr(element, "type", ""))
        if proto is None:
            continue
        html = getattr(proto, "allow_html", False)
        for name in ("body", "label", "help", "text"):
            value = getattr(proto, name, "")
            if isinstance(value, str) and value and not html and kind not in ("code", "html", "text"):
                yield f"{kind}.{name}", value
        for option in (
            getattr(proto, "options", ()) if kind in ("button_group", "radio", "pills", "segmented_control") else ()
        ):
            yield f"{kind} option", str(getattr(option, "content", option))


def _all(node: Any) -> Iterator[Any]:
    yield node
    for child in getattr(node, "children", {}).values():
        yield from _all(child)


def wrong(app: AppTest) -> list[str]:
    """What of a page has markup of `HOSTILE` in it."""
    return [f"{kind}: {text[:120]!r}" for kind, text in rendered(app) if marks_in(text)]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hostile text wherever a card, a result, a table, a measurement or an added system has one."""
    bundles = linked_bundles(
        tmp_path / "bundles", "shared", "phantom-ccve-m2", "phantom-fve-m2", "phantom-results.json"
    )
    card = bundles / "phantom-ccve-m2"
    content = json.loads((card / "card.json").read_text("utf-8"))
    files = list(card.iterdir())
    card.unlink()
    card.mkdir()
    for file in files:
        if file.name != "card.json":
            (card / file.name).symlink_to(file.resolve())
    content["data"] |= {"description": HOSTILE, "name": HOSTILE}
    content |= {"licence": HOSTILE, "intended_use": HOSTILE, "created": HOSTILE, "fit_note": HOSTILE}
    (card / "card.json").write_text(json.dumps(content))
    (bundles / f"a {HOSTILE.replace('/', '|')}").mkdir()  # no bundle, but a name
    results = json.loads((bundles / "phantom-results.json").read_text("utf-8"))
    results["rows"] = [row for row in results["rows"] if row["name"] in ("phantom-ccve-m2", "phantom-fve-m2")]
    more = {"name": HOSTILE, "title": HOSTILE, "group": HOSTILE, "kind": HOSTILE, "warnings": [HOSTILE]}
    results["rows"].append(
        {key: value for key, value in results["rows"][0].items() if key not in ("encoder", "decoder")} | more
    )
    results |= {"command": HOSTILE, "protocol": HOSTILE, "told": [HOSTILE], "seed": HOSTILE}
    (bundles / "phantom-results.json").unlink()
    (bundles / "phantom-results.json").write_text(json.dumps(results))
    monkeypatch.setenv("CXR_BUNDLES", str(bundles))
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_REVIEWS", str(tmp_path / "reviews.sqlite"))
    system = tmp_path / "systems" / "mine"
    system.mkdir(parents=True)
    about = {
        "kind": "program",
        "title": HOSTILE,
        "group": HOSTILE,
        "command": [HOSTILE],
        "folder": HOSTILE,
        "timeout": 1.0,
    }
    (system / "system.json").write_text(json.dumps(about))
    damaged = tmp_path / "systems" / "other ![x](http:"
    damaged.mkdir()


ADDRESSES = {
    "read": ("study", "pair", "models", "ask", "region", "mention", "word", "sentence", "source", "families"),
    "results": ("evaluation", "view", "score", "pair", "by", "source"),
    "cases": ("q", "text", "observation", "outcome", "models", "source", "pair"),
    "embeddings": ("study", "colour", "encoder", "method", "picked", "source"),
    "filters": ("study", "pair", "filter", "off", "how"),
    "detection": ("finding", "models", "place"),
}


@needs_bundles
@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_no_page_takes_a_text_for_markup(page: str, hostile: None) -> None:
    app = AppTest.from_file(APP, default_timeout=300)
    if page != "read":
        app.switch_page(f"app_pages/{page}.py")
    for key in ADDRESSES.get(page, ("session", "screen", "source")):
        app.query_params[key] = HOSTILE
    app.run()
    assert not app.exception, [each.value for each in app.exception]
    assert not wrong(app)
    app.query_params.clear()
    app.run()
    assert not app.exception, [each.value for each in app.exception]
    assert not wrong(app)
