"""Who may import whom, and what the cheap modules must not pull in."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"core", "training", "dashboard"}
MAY_IMPORT = {"core": {"core"}, "training": {"core", "training"}, "dashboard": {"core", "dashboard"}}
NEVER = {"core": {"streamlit", "plotly"}, "training": {"streamlit", "plotly"}, "dashboard": set()}


def imports(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0], node.lineno


@pytest.mark.parametrize("folder", sorted(MAY_IMPORT))
def test_imports_point_one_way(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for name, line in imports(path)
        if (name in OURS - MAY_IMPORT[folder]) or name in NEVER[folder]
    ]
    assert not wrong, "\n".join(wrong)


def test_a_wrong_import_would_be_seen(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from training import runs\n    import streamlit.web\n")
    assert dict(imports(planted)) == {"training": 2, "streamlit": 3}


@pytest.mark.parametrize("module", ["core.registry", "core.config", "core.observations", "core.bundles.library"])
def test_cheap_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


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
