"""Who may import whom, and what the cheap modules must not pull in."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import needs
from tests.conftest import BUNDLES

ROOT = Path(__file__).resolve().parent.parent
OURS = {"cxr_lens", "core", "training", "dashboard"}
MAY_IMPORT = {
    "cxr_lens": {"core"},
    "core": {"core"},
    "training": {"core", "training"},
    "dashboard": {"core", "dashboard"},
}
# Rooms in their order: each imports those before it, and what lies in the folder itself, which imports no room.
ROOMS = {
    "core": (
        "labels",
        "studies",
        "encoders",
        "decoders",
        "gate",
        "bundles",
        "systems",
        "evaluation",
        "detection",
        "explain",
        "projection",
        "paper",
        "reviews",
        "exports",
        "api",
    ),
    "training": ("modules", "stages", "paper", "explain", "bench", "commands"),
    "dashboard": ("services", "components", "read", "maps", "results", "reviews", "app_pages"),
}
DOORS = {"training.plan", "training.cli", "dashboard.app"}
"""Modules outside the rooms that use them: what a preset costs, the command line, the router of the pages."""
MOST_LINES = 500
NEVER = {
    "cxr_lens": {"streamlit", "plotly"},
    "core": {"streamlit", "plotly"},
    "training": {"streamlit", "plotly"},
    "dashboard": set(),
}


def modules_imported(path: Path) -> Iterator[tuple[str, int]]:
    """Full names: of ``from core import ranks`` core.ranks, where that is a module."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                is_module = (ROOT / full.replace(".", "/")).with_suffix(".py").is_file()
                yield (full if is_module else node.module), node.lineno


def imports(path: Path) -> Iterator[tuple[str, int]]:
    yield from ((name.split(".")[0], line) for name, line in modules_imported(path))


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_imports_point_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in imports(path)
        if (name in OURS - MAY_IMPORT[folder]) or name in NEVER[folder]
    ]
    assert not wrong, "\n".join(wrong)


def room_of(module: str) -> int:
    """Place of a module's room in the order of its folder; -1 outside the rooms."""
    folder, _, rest = module.partition(".")
    name = rest.partition(".")[0]
    return ROOMS[folder].index(name) if name in ROOMS[folder] else -1


@pytest.mark.parametrize("folder", sorted(ROOMS))
def test_rooms_import_those_before_them(folder: str) -> None:
    wrong = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module in DOORS:
            continue
        wrong += [
            f"{path.relative_to(ROOT)}:{line} imports {name}"
            for name, line in modules_imported(path)
            if name.split(".")[0] == folder and room_of(name) > room_of(module)
        ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("folder", sorted(ROOMS))
def test_every_room_says_in_a_sentence_what_comes_in_and_goes_out(folder: str) -> None:
    rooms = {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")} - {"presets"}
    assert rooms == set(ROOMS[folder])
    for room in rooms:
        said = ast.get_docstring(ast.parse((ROOT / folder / room / "__init__.py").read_text(encoding="utf-8")))
        assert said
        assert len(said.splitlines()[0]) > 40


def test_a_wrong_import_would_be_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from training import runs\n    import streamlit.web\n")
    assert dict(imports(planted)) == {"training": 2, "streamlit": 3}


@pytest.mark.parametrize("module", ["core.registry", "core.config", "core.observations", "core.bundles.library"])
def test_cheap_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize(("chosen", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_that_wait_give_their_core_away_unless_somebody_chose_otherwise(chosen: str | None, found: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if chosen is None else {"OMP_WAIT_POLICY": chosen}
    code = "import os, core; print(os.environ['OMP_WAIT_POLICY'])"  # nothing of ours imports torch without core
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE)
    assert done.stdout.decode().strip() == found


@pytest.mark.parametrize("name", ["phantom-fve-m2", "phantom-ccve-cnn_rnn_rnn"])
def test_a_report_is_written_without_what_takes_long_to_import(name: str) -> None:
    needs.BUNDLES.unless(BUNDLES.is_dir())
    film = next((ROOT / "assets" / "examples" / "images").glob("*.jpg"))
    code = f"""
import contextlib, io, sys
from training.cli import main
sys.argv = ["cxr-lens", "report", {str(film)!r}, "--bundle", {name!r}]
said = io.StringIO()
with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
    main()
assert {name!r} in said.getvalue(), said.getvalue()
loaded = {{"torch._dynamo", "sympy", "pandas", "sklearn", "scipy", "transformers"}} & set(sys.modules)
if {name == "phantom-fve-m2"}:  # what was not imported is there for whoever asks for it; once, for it takes long
    import torch, torchvision
    assert float(torchvision.ops.roi_align(torch.ones(1, 1, 4, 4), torch.tensor([[0.0, 0, 0, 4, 4]]), 1)) == 1
    assert torch._dynamo.__file__ and not torch.compiler.is_compiling()
    from core.packages import module
    assert module("transformers").BertConfig().hidden_size
sys.exit(" ".join(loaded) or 0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-300:]


def test_dashboard_files_do_not_shadow_the_standard_library() -> None:
    # Streamlit puts the script's folder first in sys.path.
    names = {path.stem for path in (ROOT / "dashboard").glob("*.py")}
    assert not names & set(sys.stdlib_module_names)
    assert not names & OURS


def test_nothing_is_unpickled() -> None:
    for folder in OURS:
        for path in (ROOT / folder).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "import pickle" not in text, path
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load":
                    safe = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
                    assert safe.get("weights_only") == "True", f"{path}:{node.lineno}"


def test_no_python_file_is_too_long() -> None:
    files = [*ROOT.glob("*.py"), *(path for folder in (*OURS, "tests") for path in (ROOT / folder).rglob("*.py"))]
    lines = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in files}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


def test_what_is_cited_of_the_paper_is_in_our_notes() -> None:
    notes = (ROOT / "docs" / "paper-notes.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^#+ (\d(?:\.\d)?)", notes, re.MULTILINE))
    cited = {
        (path.relative_to(ROOT), number)
        for folder in (*OURS, "tests", "docs")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".toml")
        for number in re.findall(
            r"paper-notes(?:\]\(paper-notes\.md\))? (\d(?:\.\d)?)", path.read_text(encoding="utf-8")
        )
    }
    assert cited
    assert {number for _, number in cited} <= sections, sorted(each for each in cited if each[1] not in sections)


def test_no_javascript_file_is_too_long() -> None:
    lines = {path: path.read_text(encoding="utf-8").count("\n") for path in (ROOT / "dashboard").rglob("*.js")}
    assert len(lines) > 10
    assert not {path.name: count for path, count in lines.items() if count > 500}


def test_places_in_the_code_that_a_document_names_are_there() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "assets/README.md")] + [*ROOT.glob("docs/*.md")]
    gone = {
        (page.name, place)
        for page in pages
        for place in re.findall(r"`((?:core|training|dashboard|tests)/[\w./]*\w/?)`", page.read_text(encoding="utf-8"))
        if not (ROOT / place).exists()
    }
    assert not gone
