"""The start page with a film in it: what is told, to whom, and what of it is kept for the next server."""

from __future__ import annotations

import ast
import base64
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from core.studies.sources import open_source
from dashboard import access, first_paint, guard, serve
from dashboard.first_paint import PAGES, FirstPaint
from dashboard.services import first_studies, sources
from dashboard.services.studies import Case, open_case

SHIPPED = first_paint.SHIPPED


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """As in a server that has just started, with an empty cache, and where nothing ships."""
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(first_paint, "SHIPPED", tmp_path / "none.json")
    monkeypatch.setattr(first_paint, "WAIT", 0.05)
    yield from as_new(monkeypatch)


def as_new(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(first_paint, "_READY", type(first_paint._READY)())
    monkeypatch.setattr(first_paint, "_told", [b"null"])
    yield


@pytest.fixture(scope="module")
def case() -> Case:
    source = open_source("phantom:40:9")
    return open_case(source, "phantom", source.ids("test")[0])


def client() -> TestClient:
    async def other(_: Any) -> PlainTextResponse:
        return PlainTextResponse("Streamlit")

    routes = [Route("/{path:path}", other, methods=["GET", "POST"])]
    return TestClient(Starlette(routes=routes, middleware=[Middleware(guard.Guard), Middleware(FirstPaint)]))


def told_in(page: str) -> Any:
    found = re.search(r'<script type="application/json" id="cxr-told">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1]) if found[1] else None


def test_the_film_and_its_reference_stand_in_the_start_page(case: Case) -> None:
    first_paint.keep(first_studies.told_of(case))
    answer = client().get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-store"
    told = told_in(answer.text)
    assert told == client().get("/_cxr/first.json").json()
    assert told["title"] == case.title
    assert dict(told["sections"])["Findings"] == case.study.findings
    picture = Image.open(io.BytesIO(base64.b64decode(told["film"].partition(",")[2])))
    assert max(picture.size) <= first_studies.SIDE
    drawn = np.asarray(picture, dtype=np.float32) / 255
    whole = Image.fromarray((np.clip(case.pixels, 0, 1) * 255).astype(np.uint8)).resize(picture.size)
    assert np.abs(drawn - np.asarray(whole, dtype=np.float32) / 255).mean() < 0.02
    assert first_paint.NOTICE in answer.text


def test_a_page_that_comes_before_the_film_asks_for_it(case: Case) -> None:
    assert told_in(client().get("/").text) is None
    assert client().get("/_cxr/first.json").json() is None  # waited for in vain
    first_paint.keep(first_studies.told_of(case))
    assert client().get("/_cxr/first.json").json()["title"] == case.title


@pytest.mark.parametrize("path", ["/?source=example", "/filters", "/_stcore/health", "/read"])
def test_other_requests_are_left_alone(path: str, case: Case) -> None:
    first_paint.keep(first_studies.told_of(case))
    assert client().get(path).text == "Streamlit"
    assert client().post("/").text == "Streamlit"


def test_below_a_base_path(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first_paint.keep(first_studies.told_of(case))
    monkeypatch.setattr(
        first_paint.config, "get_option", lambda name: "lens/" if name == "server.baseUrlPath" else None
    )
    first_paint._frame.cache_clear()
    assert told_in(client().get("/lens/").text)["title"] == case.title
    assert client().get("/").text == "Streamlit"
    first_paint._frame.cache_clear()


def test_its_script_is_the_only_further_one_that_may_run(case: Case) -> None:
    first_paint.keep(first_studies.told_of(case))
    answer = client().get("/")
    allowed = guard.policy(answer.text)
    assert set(re.findall(r"'sha256-[^']+'", allowed)) == set(
        re.findall(r"'sha256-[^']+'", answer.headers["content-security-policy"])
    )


def test_a_text_cannot_end_the_script_that_it_stands_in(case: Case) -> None:
    first_paint.keep(
        first_studies.told_of(replace(case, study=replace(case.study, findings="</script><script>alert(1)</script>")))
    )
    page = client().get("/").text
    assert "<script>alert" not in page
    assert dict(told_in(page)["sections"])["Findings"].startswith("</script>")


def test_a_patients_film_is_never_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_studies.studies, "open_case", lambda *_: replace(case, synthetic=False))
    assert first_studies.open_film() is None
    first_paint.keep(first_studies.open_film())
    assert told_in(client().get("/").text) is None
    assert not list(Path(first_paint.paths.cache()).glob("first-page*"))


def test_nothing_is_told_where_people_sign_in(monkeypatch: pytest.MonkeyPatch) -> None:
    assert first_studies.open_film() is not None
    monkeypatch.setattr(access, "has_login", lambda: True)
    assert first_studies.open_film() is None


def test_the_next_server_tells_at_once_what_this_one_told(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    first_paint.keep(first_studies.told_of(case))
    told = client().get("/_cxr/first.json").json()
    next(as_new(monkeypatch))
    first_paint.recall()
    assert told_in(client().get("/").text) == told


@pytest.mark.parametrize("spoil", ["cut", "other bundles", "other code", "no film"])
def test_what_is_kept_of_another_first_study_is_not_told(
    spoil: str, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_paint.keep(first_studies.told_of(case))
    file = first_paint._file()
    content = file.read_text(encoding="utf-8")
    if spoil == "cut":
        file.write_text(content[: len(content) // 2], encoding="utf-8")
    elif spoil == "no film":
        file.write_text(json.dumps(json.loads(content) | {"told": {"film": "https://elsewhere"}}), encoding="utf-8")
    elif spoil == "other bundles":
        monkeypatch.setenv("CXR_BUNDLES", "/data/other")
    else:
        monkeypatch.setattr(first_paint, "sha256_of", lambda path: "another")
    next(as_new(monkeypatch))
    first_paint.recall()
    assert told_in(client().get("/").text) is None


def test_what_ships_is_told_at_once_and_is_what_would_be_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_paint, "SHIPPED", SHIPPED)
    first_paint.recall()
    told, drawn = told_in(client().get("/").text), first_studies.open_film()
    assert told is not None, "it is of another code: python -m dashboard.services.first_studies"
    assert drawn is not None
    one, other = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(each.pop("film").partition(",")[2]))), dtype=np.float32)
        for each in (told, drawn)
    )
    assert told == json.loads(json.dumps(drawn))
    assert one.shape == other.shape
    assert np.abs(one - other).mean() < 0.5  # of 255: processors round differently


@pytest.mark.parametrize("login", [False, True, None], ids=["nobody", "people", "who knows"])
def test_what_ships_is_not_told_where_people_sign_in(login: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    def has_login() -> bool:
        if login is None:
            raise access.AccessError("secrets.toml cannot be read")
        return login

    monkeypatch.setattr(first_paint, "SHIPPED", SHIPPED)
    monkeypatch.setattr(access, "has_login", has_login)
    serve.tell_again()
    assert (told_in(client().get("/").text) is None) is (login is not False)


def test_its_links_are_the_navigation() -> None:
    """Titles and addresses as `app.py` gives them to Streamlit, those that the navigation shows."""
    tree = ast.parse((first_paint.HERE / "app.py").read_text(encoding="utf-8"))
    pages = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "st.Page"]
    options = [
        {each.arg: ast.literal_eval(each.value) for each in page.keywords if each.arg != "help"} for page in pages
    ]
    shown = {each["title"]: each["url_path"] for each in options if each.get("visibility") != "hidden"}
    assert shown == {name: "" if name == PAGES[0] else name.lower() for name in PAGES}
    page = client().get("/").text
    assert all(f'<a href="./{path}">{name}</a>' in page for name, path in shown.items())


def test_the_first_study_is_the_one_that_the_page_opens() -> None:
    found = first_studies.open_film()
    name = next(iter(sources.catalogue().specs))
    assert found is not None
    assert found["title"] == sources.source(name).ids("test")[0]
