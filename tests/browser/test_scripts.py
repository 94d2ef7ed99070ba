"""The text that a component's modules are put into does in a browser what the modules do."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.components.source import FRONTEND, script
from tests.browser.conftest import sync_api

LOAD = """async (text) => {
    const address = URL.createObjectURL(new Blob([text], { type: "text/javascript" }))
    return await (await import(address)).default.%s
}"""
MOUNTED = sorted(
    path.relative_to(FRONTEND).as_posix()
    for path in FRONTEND.rglob("*.js")
    if "export default" in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def page(browser: sync_api.Browser) -> sync_api.Page:
    return browser.new_page()


def test_names_of_one_module_are_unknown_to_others(page: sync_api.Page, tmp_path: Path) -> None:
    (tmp_path / "one.js").write_text("const name = 1\nexport function ask() {\n  return name\n}\n")
    (tmp_path / "two.js").write_text(
        "const name = 2\nexport class Two {\n  name = name\n}\nexport const both = [name]\n"
    )
    (tmp_path / "main.js").write_text(
        'import { ask } from "./one.js"\nimport {\n  Two, both,\n} from "./two.js"\n'
        "const name = 3\nexport default async function main() {\n  return [ask(), new Two().name, ...both, name]\n}\n"
    )
    assert page.evaluate(LOAD % "call()", script("main.js", tmp_path)) == [1, 2, 2, 3]


@pytest.mark.parametrize("name", MOUNTED)
def test_every_component_is_a_module_with_a_function_to_mount(page: sync_api.Page, name: str) -> None:
    assert page.evaluate(LOAD % "name", script(name)) == "mount"
