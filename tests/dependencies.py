"""The tables of docs/dependencies.md: every package that an install can bring, its licence, and what brings it.

`make dependencies` writes them anew. pyproject.toml and constraints.txt tell the packages and what brings them, the
installed packages' metadata their licences. What no metadata tells is kept as it stands in the document: why we need a
package, and the licence of one that is not installed here or names none. An empty cell is for a person to fill.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
DOCUMENT = ROOT / "docs" / "dependencies.md"
ALWAYS = "every install"
DIRECT = "| package | licence | comes with | why |"
OTHERS = "| package | licence | comes with | needed by |"


@dataclass(frozen=True)
class Row:
    """A package: its name, licence, what brings it, and why we need it or who else does."""

    name: str
    licence: str
    comes_with: str
    why: str

    def __str__(self) -> str:
        return f"| `{self.name}` | {self.licence} | {self.comes_with} | {self.why} |"


def requirements() -> list[tuple[str, Requirement]]:
    """What pyproject.toml asks for, with `ALWAYS` or the extra that asks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {ALWAYS: project["dependencies"]} | project["optional-dependencies"]
    return [(group, Requirement(text)) for group, texts in groups.items() for text in texts]


def direct() -> dict[str, list[str]]:
    """The packages that pyproject.toml names: `ALWAYS` or the extras that bring each."""
    found: dict[str, list[str]] = {}
    for group, requirement in requirements():
        found.setdefault(canonicalize_name(requirement.name), []).append(group)
    return found


def pins(path: Path) -> dict[str, str]:
    """Versions in a lock file, by package."""
    lines = re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text("utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in lines}


def needed_by() -> dict[str, list[str]]:
    """Which packages need each package, whatever the system, as the resolver noted in constraints.txt."""
    lines = re.findall(r"^([\w.-]+)==.*# via (.*)$", (ROOT / "constraints.txt").read_text("utf-8"), re.MULTILINE)
    return {
        canonicalize_name(name): [canonicalize_name(each) for each in via.split(", ") if "pyproject.toml" not in each]
        for name, via in lines
    }


def brought_by() -> dict[str, list[str]]:
    """What brings each package in the end: `ALWAYS`, or the extras that do."""
    parents, roots = needed_by(), direct()
    found: dict[str, set[str]] = {name: set(roots.get(name, ())) for name in parents}
    while True:
        grown = {name: found[name].union(*(found[parent] for parent in parents[name])) for name in parents}
        if grown == found:
            break
        found = grown
    return {name: [ALWAYS] if ALWAYS in groups else sorted(groups) for name, groups in found.items()}


def closure(*extras: str) -> dict[str, metadata.Distribution]:
    """The installed packages that an installed cxr-lens needs on this system with these extras, by their metadata."""
    found: dict[str, metadata.Distribution] = {}
    seen: set[tuple[str, str]] = set()
    open_ = [("cxr-lens", extra) for extra in ("", *extras)]
    while open_:
        name, extra = open_.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                open_ += [(canonicalize_name(requirement.name), each) for each in ("", *requirement.extras)]
    del found["cxr-lens"]
    return found


def licence_names(package: metadata.Distribution) -> list[str]:
    """What a package's metadata calls its licence, the most exact first; whole texts of licences are no names."""
    fields = package.metadata
    kinds = [each for each in fields.get_all("Classifier") or () if each.startswith("License ::")]
    named = [fields.get("License-Expression"), fields.get("License"), *(each.split(" :: ")[-1] for each in kinds)]
    return [name.strip() for name in named if name and name != "UNKNOWN" and "\n" not in name.strip()]


def licence(package: metadata.Distribution) -> str | None:
    """The licence's name as the package's metadata has it, None if it names none."""
    return next(iter(licence_names(package)), None)


def read(text: str) -> dict[str, Row]:
    """The rows of the tables in a document, by package."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*?) \| (.*?) \| (.*?) \|$", text, re.MULTILINE)
    return {name: Row(name, *cells) for name, *cells in rows}


def rows(kept: Mapping[str, Row]) -> tuple[list[Row], list[Row]]:
    """What the tables must say: the packages that we name, and those that these need."""
    named, parents = direct(), needed_by()
    here = closure(*{extra for extras in named.values() for extra in extras} - {ALWAYS})
    tables: tuple[list[Row], list[Row]] = ([], [])
    for name, groups in sorted(brought_by().items()):
        row = kept.get(name, Row(name, "", "", ""))
        row = replace(row, comes_with=", ".join(group if group == ALWAYS else f"`{group}`" for group in groups))
        if name in here:
            row = replace(row, licence=licence(here[name]) or row.licence)
        if name not in named:
            row = replace(row, why=", ".join(parents[name]))
        tables[name not in named].append(row)
    return tables


def written(text: str) -> str:
    """The document with its tables written anew."""
    tables = rows(read(text))
    for head, table in zip((DIRECT, OTHERS), tables, strict=True):
        start = text.index(head)
        end = text.index("\n\n", start) if "\n\n" in text[start:] else len(text.rstrip("\n"))
        text = text[:start] + "\n".join([head, "|---|---|---|---|", *map(str, table)]) + text[end:]
    return text


if __name__ == "__main__":
    DOCUMENT.write_text(written(DOCUMENT.read_text("utf-8")), encoding="utf-8")
