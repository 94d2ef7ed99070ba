"""A place in which every text is markup, wherever a card, a result, a system or a review session has one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

import streamlit as st
from streamlit import config
from streamlit.testing.v1 import AppTest

from core.reviews import local_key
from core.reviews.database import Database
from core.reviews.design import Case
from core.reviews.store import Actor, annotate, create_session, first_admin, open_screen, set_role
from tests.app_pages import APP, linked_bundles
from tests.attacks import Tally
from tests.attacks.damage import HOSTILE
from tests.review_cases import design, screens_of

PAGES = ("read", "about", "filters", "results", "cases", "embeddings", "detection", "review", "reading")
ADDRESSES = {
    "read": ("study", "pair", "models", "ask", "region", "mention", "word", "sentence", "source", "families"),
    "results": ("evaluation", "view", "score", "pair", "by", "source"),
    "cases": ("q", "text", "observation", "outcome", "models", "source", "pair"),
    "embeddings": ("study", "colour", "encoder", "method", "picked", "source"),
    "filters": ("study", "pair", "filter", "off", "how"),
    "detection": ("finding", "models", "place"),
}
"""What the addresses of pages may name."""
OTHERS = ("session", "screen", "source")
"""What the addresses of the other pages may name."""
MARKUP = ("![x](", "[a](", "<img", " :red[x]", "$x$", "**b**", "http://127")
"""What of `HOSTILE` must never stand in a text that is rendered as Markdown."""
_TAG = "place {} of it"


def told(place: int) -> str:
    """The hostile text of a place; what it is found by stands at its end."""
    return f"{HOSTILE} {_TAG.format(place)}"


def marks_in(markdown: str) -> list[str]:
    """What of `MARKUP` is markup in Markdown: neither escaped nor code."""
    bare = re.sub(r"\\.", "", re.sub(r"`[^`]+`", "", markdown))
    return [each for each in MARKUP if each in bare]


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


# -------------------------------------------------------------------------------------------------------------- places


def hostile_place(folder: Path) -> dict[str, str]:
    """Make it.

    Returns:
        the environment of a dashboard that reads it.
    """
    bundles = linked_bundles(folder / "bundles", "shared", "phantom-ccve-m2", "phantom-fve-m2", "phantom-results.json")
    card = bundles / "phantom-ccve-m2"
    content = json.loads((card / "card.json").read_text("utf-8"))
    files = list(card.iterdir())
    card.unlink()
    card.mkdir()
    for file in files:
        if file.name != "card.json":
            (card / file.name).symlink_to(file.resolve())
    content["data"] |= {"description": told(0), "name": told(1)}
    content |= {"licence": told(2), "intended_use": told(3), "created": told(4), "fit_note": told(5)}
    (card / "card.json").write_text(json.dumps(content))
    (bundles / f"a {told(6).replace('/', '|')}").mkdir()  # no bundle, but a name
    results = json.loads((bundles / "phantom-results.json").read_text("utf-8"))
    results["rows"] = [row for row in results["rows"] if row["name"] in ("phantom-ccve-m2", "phantom-fve-m2")]
    more = {"name": told(7), "title": told(8), "group": told(9), "kind": told(10), "warnings": [told(11)]}
    results["rows"].append(
        {key: value for key, value in results["rows"][0].items() if key not in ("encoder", "decoder")} | more
    )
    results |= {"command": told(12), "protocol": told(13), "told": [told(14)], "seed": told(15)}
    (bundles / "phantom-results.json").unlink()
    (bundles / "phantom-results.json").write_text(json.dumps(results))
    system = folder / "systems" / "mine"
    system.mkdir(parents=True)
    about = {"kind": "program", "title": told(16), "group": told(17), "command": [told(18)], "folder": told(19)}
    (system / "system.json").write_text(json.dumps(about | {"timeout": 1.0}))
    (folder / "systems" / "other ![x](http:").mkdir()
    places = {"CXR_BUNDLES": bundles, "CXR_REVIEWS": folder / "reviews.sqlite"}
    places |= {f"CXR_{name.upper()}": folder / name for name in ("systems", "evaluations", "cache")}
    return {name: str(place) for name, place in places.items()}


READER = told(20).replace("/", "|")
OF_SESSIONS = 32
"""Places with a number below this are made by `hostile_place` or by `hostile_session`; above are those of addresses."""


def hostile_session(location: Path, admin: str) -> str:
    """Add a review session in which every text is markup; its id."""
    database = Database(location)
    first_admin(database, admin)
    set_role(database, Actor(admin, "admin"), READER, "reader")
    texts = {"reference": told(21), told(22): told(23)}
    context = {"age": told(24), "indication": told(25), told(26): told(27)}
    made = create_session(
        database,
        Actor(admin, "admin"),
        design(title=told(28)[:200], instructions=told(29), readers=(READER, admin)),
        [Case(f"study {number} {HOSTILE}"[:200], "", texts, {}, {}, context) for number in range(2)],
    )
    for screen in screens_of(database, READER, made)[:2]:
        open_screen(database, Actor(READER, "reader"), screen)
    first, second = screens_of(database, READER, made)[:2]
    who = Actor(READER, "reader")
    annotate(database, who, first, key="a", version=1, flagged=True, comment=told(30))
    annotate(database, who, second, key="b", version=1, state="skipped", skip_reason=told(31))
    database.close()
    return made


def _look(tally: Tally, page: str, app: AppTest, places: Mapping[int, str]) -> None:
    """Count what of each place a page takes for markup; what cannot be told apart counts too."""
    if app.exception:
        tally.wrong.append(f"{page}: {app.exception[0].value[:200]}")
        return
    marked = [text for _, text in rendered(app) if marks_in(text)]
    for place, name in places.items():
        found = [text for text in marked if _TAG.format(place) in text]
        tally.attempt(f"{page}, {name}: {found[:1]}", lambda found=found: not found)  # type: ignore[misc]
        marked = [text for text in marked if text not in found]
    tally.wrong.extend(f"{page}: {text[:200]}" for text in marked)


def run(folder: Path, most: int) -> Tally:
    """Open every page on the hostile place, without and with a hostile address."""
    tally, before = Tally("hostile texts, by page and place"), dict(os.environ)
    config._main_script_path = APP  # as `streamlit run` does: the dashboard's settings, which listen here alone
    config.get_config_options(force_reparse=True)
    os.environ.update(hostile_place(folder), LOGNAME="root")
    made = hostile_session(folder / "reviews.sqlite", "root")
    names = {place: f"place {place} of files and sessions" for place in range(OF_SESSIONS)}
    try:
        for page in PAGES:
            key = {local_key.TOKEN: local_key.token_of(int(st.get_option("server.port")))}
            own = {"session": made} if page in ("review", "reading") else {}
            key |= {"reader": READER if page == "reading" else "root"} if own else {}
            fields = ADDRESSES.get(page, OTHERS)
            tagged = {name: told(OF_SESSIONS + number) for number, name in enumerate(fields)}
            for query, places in (
                (own, names),
                (
                    tagged,
                    names | {OF_SESSIONS + number: f"{name} of the address" for number, name in enumerate(fields)},
                ),
            ):
                app = AppTest.from_file(APP, default_timeout=300)
                if page != "read":
                    app.switch_page(f"app_pages/{page}.py")
                for name, value in (key | query).items():
                    app.query_params[name] = value
                with patch.object(type(st.context), "ip_address", None):  # of `AppTest` it is a mock
                    _look(tally, page, app.run(), places)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return tally
