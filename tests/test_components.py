"""Modules of JavaScript in one text, as Streamlit takes a component's: their order, and what cannot be put together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dashboard.components.source import FRONTEND, script


def write(folder: Path, **modules: str) -> Path:
    for name, text in modules.items():
        path = folder / f"{name.replace('_', '/')}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def test_a_module_comes_once_and_after_what_it_imports(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        main='import { b } from "./sub/b.js"\nimport { c } from "./c.js"\nexport default function main() {}\n',
        sub_b='import { c } from "../c.js"\nexport const b = c\n',
        c="export const c = 3\n",
    )
    text = script("main.js", folder)
    places = [text.index(f'$modules["{name}"] = ') for name in ("c.js", "sub/b.js", "main.js")]
    assert places == sorted(places)
    assert text.count('$modules["c.js"] = ') == 1
    assert text.rstrip().endswith('export default $modules["main.js"].default')
    assert text.count("export ") == 1


def test_modules_that_import_each_other_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, a='import { b } from "./b.js"\n', b='import { a } from "./a.js"\n')
    with pytest.raises(ValueError, match=r"import each other: a\.js -> b\.js -> a\.js"):
        script("a.js", folder)


@pytest.mark.parametrize(
    "line",
    [
        'import b from "./b.js"',
        'import * as b from "./b.js"',
        'import { b as c } from "./b.js"',
        'import { b } from "b"',
        'import "./b.js"',
        "export let b = 1",
        "export { b }",
        'export * from "./b.js"',
        "export default 3",
    ],
)
def test_what_cannot_be_put_into_one_text_is_refused(tmp_path: Path, line: str) -> None:
    folder = write(tmp_path, a=f"const x = 1\n{line}\n", b="export const b = 1\n")
    with pytest.raises(ValueError, match=r"a\.js: cannot be put into one text: (import|export)"):
        script("a.js", folder)


def test_a_module_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"gone\.js"):
        script("a.js", write(tmp_path, a='import { b } from "./gone.js"\n'))


def test_every_module_is_part_of_a_component() -> None:
    mounted = [path for path in FRONTEND.rglob("*.js") if "export default" in path.read_text(encoding="utf-8")]
    texts = [script(path.relative_to(FRONTEND).as_posix()) for path in mounted]
    for path in set(FRONTEND.rglob("*.js")) - {FRONTEND / "first" / "first.js"}:  # of the start page, before any
        assert any(f'$modules["{path.relative_to(FRONTEND).as_posix()}"] = ' in text for text in texts), path
