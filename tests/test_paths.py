"""Where files are found and made: in a clone, in an installed wheel, from any working directory."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from core import paths
from dashboard import settings
from tests.conftest import ROOT

Run = Callable[..., subprocess.CompletedProcess[str]]


def run(folder: Path, *arguments: str, code: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(code)} | environment
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The packages as a wheel has them: assets inside core, the larger part left out."""
    site = tmp_path / "site"
    for name in ("core", "training", "dashboard"):
        shutil.copytree(ROOT / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    assets = site / "core" / "assets"
    shutil.copytree(ROOT / "assets" / "paper", assets / "paper")
    bundle, shared = "phantom-dve-m2", ROOT / "assets" / "bundles" / "shared"
    shutil.copytree(ROOT / "assets" / "bundles" / bundle, assets / "bundles" / bundle)
    assert shared.is_dir()
    return site


def test_a_clone_has_its_assets_beside_the_packages() -> None:
    assert paths.ASSETS == ROOT / "assets"
    assert settings.bundles() == ROOT / "assets" / "bundles" == paths.BUNDLES
    assert "git checkout" in paths.how_to_restore(paths.BUNDLES / "x")
    assert "Restore it" in paths.how_to_restore(Path("/tmp/mine"))


def test_no_module_looks_for_assets_by_itself() -> None:
    code = [path for name in ("core", "training", "dashboard") for path in (ROOT / name).rglob("*.py")]
    for path in code:
        text = path.read_text(encoding="utf-8")
        if path.name != "paths.py":
            assert '/ "assets"' not in text, path
        assert '"tests"' not in text, path


def test_an_installed_wheel_has_its_assets_inside_and_makes_files_in_the_working_directory(
    installed: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    code = (
        "from core import paths; from training.commands.tables import RESULTS; import json;"
        "print(json.dumps([str(paths.BUNDLES), str(paths.RUNS), str(RESULTS), str(paths.INDEX)]))"
    )
    done = run(work, "-c", code, code=installed)
    assert done.stderr == ""
    inside = str(installed / "core" / "assets" / "bundles")
    assert json.loads(done.stdout) == [inside, "runs", "results", str(Path("data", "openi"))]
    (work / "assets" / "results").mkdir(parents=True)  # as in the root of a clone
    assert json.loads(run(work, "-c", code, code=installed).stdout)[2] == str(Path("assets", "results"))


@pytest.mark.parametrize(
    ("lost", "arguments", "words"),
    [
        ("core/assets", ("bundles",), "There is no bundle in"),
        ("core/assets/bundles/phantom-dve-m2/vocab.json", ("bundles",), "phantom-dve-m2/vocab.json is missing"),
        ("dashboard/.streamlit", ("dashboard",), "The dashboard's settings are missing"),
        ("training/presets", ("plan", "--preset", "phantom"), "presets holds no preset"),
        ("core/evaluation/label_sentences.tsv", ("label-quality", "-n", "10"), "label_sentences.tsv is not there"),
        ("core/labels/rules.toml", ("label-quality", "-n", "10"), "rules.toml is missing from this installation"),
    ],
)
def test_half_a_wheel_says_in_one_line_what_to_do(
    installed: Path, lost: str, arguments: tuple[str, ...], words: str
) -> None:
    path = installed / lost
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    done = run(installed.parent, "-m", "training.cli", *arguments, code=installed)
    assert done.returncode in (1, 2)
    said = done.stderr.strip()
    assert words in said
    assert "\n" not in said
    assert "install that again" in said


def test_a_module_or_a_package_that_is_missing_is_said_in_words() -> None:
    from training.cli import _in_words

    assert "training.plan is missing" in str(_in_words(ModuleNotFoundError(name="training.plan")))
    assert "The package timm is missing" in str(_in_words(ModuleNotFoundError(name="timm.models")))
    assert _in_words(OSError("of a library")) is None


def test_a_python_that_is_too_old_is_refused_in_one_sentence() -> None:
    code = "import sys; sys.version_info = (3, 10, 4, 'final', 0); import training.cli"
    done = run(ROOT, "-c", code)
    assert done.returncode == 1
    assert done.stderr.strip().startswith("CXR Lens needs Python 3.11 or newer; this is")
    assert "\n" not in done.stderr.strip()


def test_a_home_that_cannot_be_written_is_said_and_a_report_needs_none(tmp_path: Path) -> None:
    nowhere = {"HOME": "/proc/none", "XDG_DATA_HOME": "", "XDG_CACHE_HOME": "", "CXR_REVIEWS": "", "CXR_CACHE": ""}
    done = run(tmp_path, "-m", "training.cli", "review", "list", **nowhere)
    assert done.returncode == 2
    assert "cannot be made" in done.stderr
    assert "CXR_REVIEWS" in done.stderr
    assert done.stderr.strip().count("\n") == 0
    code = "from core.projection.job import cache_folder, writable; writable(cache_folder())"
    assert "CXR_CACHE to a folder" in run(tmp_path, "-c", code, **nowhere).stderr.strip().splitlines()[-1]


def test_roles_stand_beside_the_secrets_that_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamlit import config

    monkeypatch.delenv("CXR_ROLES", raising=False)
    monkeypatch.chdir(tmp_path)
    named = tmp_path / "etc" / "secrets.toml"
    named.parent.mkdir()
    named.write_text("")
    monkeypatch.setattr("streamlit.get_option", lambda name: [str(tmp_path / "home" / "secrets.toml"), str(named)])
    assert settings.roles() == named.with_name("roles.toml")
    named.unlink()
    assert settings.roles() == Path(".streamlit", "roles.toml")
    monkeypatch.setenv("CXR_ROLES", "mine.toml")
    assert settings.roles() == Path("mine.toml")
    assert config.get_option("server.address") == "127.0.0.1"  # the tests have the dashboard's settings
