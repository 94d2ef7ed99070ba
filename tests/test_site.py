"""The documentation as a site: `make docs` builds it without a warning, and every link of it leads somewhere."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from tests import documented, needs
from tests.conftest import ROOT

pytestmark = needs.SITE.packages("sphinx", "myst_nb", "furo")


class Page(HTMLParser):
    """Where a page leads, and which places of it can be led to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name == "id" and value:
                self.places.add(value)


def dead_links(site: Path) -> Iterator[str]:
    """Links between pages, and to files, that lead nowhere."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            there = target.is_file() and (
                not parts.fragment or target not in pages or unquote(parts.fragment) in pages[target].places
            )
            if not there:
                yield f"{path.relative_to(site)}: {link}"


def make_docs(out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """What `make docs` runs, into another folder."""
    (line,) = re.findall(r"^\t\$\(BIN\)/python (-m sphinx .*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    words = line.replace("build/docs.cache", str(out / "cache")).replace("build/docs", str(out / "site")).split()
    return subprocess.run([sys.executable, *words, *options], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = make_docs(out)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""
    return out / "site"


@pytest.mark.slow
def test_every_link_leads_somewhere(site: Path) -> None:
    assert list(dead_links(site)) == []
    assert (site / "index.html").read_text("utf-8") == (site / "README.html").read_text("utf-8")


@pytest.mark.slow
def test_all_pages_names_and_modules_are_there(site: Path) -> None:
    for page in documented.PAGES:
        assert (site / page.relative_to(ROOT)).with_suffix(".html").is_file(), page
    door = (site / "docs" / "api" / "cxr_lens.html").read_text("utf-8")
    names = ast.parse((ROOT / "cxr_lens" / "__init__.py").read_text("utf-8"))
    (listed,) = (
        ast.literal_eval(node.value)
        for node in ast.walk(names)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    for name in listed:
        assert re.search(rf'<span class="pre">{name}</span>', door), name
    reference = "".join(path.read_text("utf-8") for path in (site / "docs" / "api").glob("*.html"))
    for path in (ROOT / "core").rglob("*.py"):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        if "migrations" not in name and not name.startswith(("core.api", "core.__init__")):
            assert f'id="module-{name}"' in reference, name
    assert "data:image/jpeg;base64," in (site / "docs" / "notebook.html").read_text("utf-8")


def test_every_document_and_every_room_has_its_place() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import conf
    finally:
        sys.path.remove(str(ROOT / "docs"))
    named = {page for pages in conf.CONTENTS.values() for page in pages}
    assert named == {path.stem for kind in ("*.md", "*.ipynb") for path in (ROOT / "docs").glob(kind)}
    assert {path.stem for path in (ROOT / "docs" / "api").glob("*.md")} == {"cxr_lens", "core", *conf.rooms()}


def test_a_dead_link_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "one.html").write_text('<a href="two.html#here">x</a><a href="two.html#gone">x</a><img src="no.png">')
    (tmp_path / "two.html").write_text('<p id="here">x</p><a href="https://nowhere.invalid">x</a>')
    assert list(dead_links(tmp_path)) == ["one.html: two.html#gone", "one.html: no.png"]
