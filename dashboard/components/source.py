"""The browser's half of a component: files of the folder ``frontend``.

Streamlit takes a component's JavaScript as one text, and a text cannot import a file. The files are ES modules all the
same, which ``node --test`` imports as they are; `script` puts one and those that it imports into one text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

FRONTEND = Path(__file__).parent / "frontend"
_IMPORT = re.compile(r'^import \{((?:\s*\w+\s*,)*\s*\w+\s*,?\s*)\} from "(\.{1,2}/[\w./-]+\.js)"$', re.MULTILINE)
_EXPORT = re.compile(r"^export (default )?(?=(?:(?:async )?function|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*", re.MULTILINE)


def source(*names: str) -> str:
    """Text of files, joined: of HTML or CSS."""
    return "\n".join((FRONTEND / name).read_text(encoding="utf-8") for name in names)


def script(name: str, folder: Path = FRONTEND) -> str:
    """One module that does what a module and those that it imports do together.

    Each becomes a function that is called once and gives what the module exports, after those that it imports.

    Args:
        name: path of the module in the folder; it exports a default, what the browser mounts.
        folder: where the modules are.

    Raises:
        ValueError: an import or export of another form than ``import { a, b } from "./c.js"``, ``export function a``,
            ``export class A``, ``export const a``, ``export default function a``; or modules import each other.
        FileNotFoundError: a module that is imported is not there.
    """
    modules: dict[str, str] = {}
    _add(name, folder, modules, ())
    return "\n".join(["const $modules = {}", *modules.values(), f'export default $modules["{name}"].default\n'])


def _add(name: str, folder: Path, modules: dict[str, str], importers: tuple[str, ...]) -> None:
    """Add a module to those that run before, behind all that it imports."""
    if name in importers:
        raise ValueError(f"Modules import each other: {' -> '.join([*importers, name])}")
    if name in modules:
        return
    text = (folder / name).read_text(encoding="utf-8")
    exported = ", ".join(f"default: {what}" if default else what for default, what in _EXPORT.findall(text))

    def take(found: re.Match[str]) -> str:
        imported = posixpath.normpath(posixpath.join(posixpath.dirname(name), found[2]))
        _add(imported, folder, modules, (*importers, name))
        return f'const {{{found[1]}}} = $modules["{imported}"]'

    text = _EXPORT.sub("", _IMPORT.sub(take, text))
    if other := _OTHER.search(text):
        raise ValueError(f"{name}: cannot be put into one text: {other[0]}")
    modules[name] = f'$modules["{name}"] = (() => {{\n{text}\nreturn {{ {exported} }}\n}})()'
