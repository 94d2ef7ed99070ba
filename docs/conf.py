"""How Sphinx makes a site of README and the documents: `make docs`.

The pages are those that GitHub shows, so the source folder is the clone itself and README its front page. What a page
of `docs/api/` describes is listed here, from the folders of `core`.
"""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from core import __version__  # noqa: E402

project = "CXR Lens"
version = release = __version__
author = copyright = "the authors of CXR Lens"  # noqa: A001, the name is Sphinx's

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "assets/README.md", "docs/**"]
exclude_patterns = ["docs/screenshots", ".git", "build", "runs", "data", "**/node_modules"]

html_theme = "furo"
html_title = f"CXR Lens {version}"
html_favicon = "../dashboard/icon.svg"
html_static_path: list[str] = []
html_show_sourcelink = html_copy_source = False
html_theme_options = {"footer_icons": [], "top_of_page_buttons": []}

highlight_language = "bash"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = [
    "myst.header",  # explanations-measured.md has the headings that its command prints
    "ref.python",  # two modules have a class of one name: the first is linked
]
nb_execution_mode = "off"  # the notebook is kept with what it shows; tests/test_notebook.py runs it

default_role = "code"  # single backticks in docstrings are code, as on all other pages
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_google_docstring, napoleon_numpy_docstring = True, False
napoleon_use_ivar = True
python_use_unqualified_type_names = True

CONTENTS = {
    "Use it": ("install", "notebook", "dashboard", "commands", "systems", "reviews", "review-statistics", "deploy"),
    "Your data": ("bring-your-own", "data", "images", "labels", "fine-labels", "chexbert"),
    "How good it is": (
        "results",
        "metrics",
        "explanations",
        "explanations-measured",
        "explanations-films",
        "detection",
        "experiments",
    ),
    "How it works": ("architecture", "training", "scale", "speeds", "trust", "paper-notes", "dependencies"),
}
"""The pages of `docs/` by what a reader wants. One that is missing here is a warning, and so an error."""


def contents() -> str:
    """The tables of contents that stand in the margin of every page, as Markdown."""
    parts = {title: [f"docs/{page}" for page in pages] for title, pages in CONTENTS.items()}
    studies = sorted(ROOT.glob("docs/studies/**/*.md"))
    parts["Reader studies"] = [str(each.relative_to(ROOT).with_suffix("")) for each in studies]
    parts["In Python"] = ["docs/api/cxr_lens", "docs/api/core", *(f"docs/api/{room}" for room in rooms())]
    parts["The project"] = ["CONTRIBUTING", "CHANGELOG", "SECURITY", "assets/README"]
    return "".join(
        "\n```{{toctree}}\n:hidden:\n:caption: {}\n\n{}\n```\n".format(title, "\n".join(pages))
        for title, pages in parts.items()
    )


def rooms() -> list[str]:
    """Folders of `core` in alphabetical order; `api` has a page of its own kind."""
    return sorted(each.parent.name for each in ROOT.glob("core/*/__init__.py") if each.parent.name != "api")


def modules(room: str) -> list[str]:
    """Full names of a room's modules, the room itself first; of "core" those that lie in the folder itself."""
    folder = ROOT / "core" / ("" if room == "core" else room)
    found = folder.glob("*.py") if room == "core" else folder.rglob("*.py")
    names = {".".join(each.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for each in found}
    return sorted(name for name in names if "migrations" not in name)


# Now, not when each is described: autodoc writes into pydantic's annotations, and then no further class can be made.
for _room in ("core", *rooms()):
    for _name in modules(_room):
        importlib.import_module(_name)


def described(names: list[str]) -> str:
    """Sections with what autodoc says of modules, as Markdown."""
    first, *rest = names
    text = f"```{{eval-rst}}\n.. automodule:: {first}\n   :no-members:\n```\n"
    for name in rest:  # a folder hands on what its modules have, where it is described
        folder = ROOT.joinpath(*name.split(".")).is_dir()
        text += f"\n## `{name}`\n\n```{{eval-rst}}\n.. automodule:: {name}\n"
        text += "   :no-members:\n```\n" if folder else "```\n"
    return text


def fences(app: Sphinx, what: str, name: str, described: object, options: object, lines: list[str]) -> None:
    """Blocks between triple backticks in a docstring, as blocks of reStructuredText."""
    inside, found = False, []
    for line in lines:
        if line.strip().startswith("```"):
            inside = not inside
            found += ["", ".. code-block:: text", ""] if inside else [""]
        else:
            found.append(f"   {line}" if inside else line)
    lines[:] = found


def add(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the tables of contents below README, and descriptions below the pages of `docs/api/`."""
    folder, _, name = docname.rpartition("/")
    if docname == app.config.root_doc:
        source[0] += contents()
    elif folder == "docs/api" and name != "cxr_lens":
        source[0] += "\n" + described(modules(name))


def read_again(app: Sphinx, *changes: object) -> list[str]:
    """Pages that are read at each build: what stands below README changes with the folders, and not with its file."""
    return [app.config.root_doc]


def front_page(app: Sphinx, failed: Exception | None) -> None:
    """README is also what a browser shows of the folder."""
    if failed is None:
        shutil.copy(Path(app.outdir, "README.html"), Path(app.outdir, "index.html"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("env-get-outdated", read_again)
    app.connect("source-read", add)
    app.connect("autodoc-process-docstring", fences)
    app.connect("build-finished", front_page)
