"""What the files for a server name is there, and nothing is open that need not be. No image is built here."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "docs" / "deploy"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
PAGE = (ROOT / "docs" / "deploy.md").read_text()


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    return found


def instructions(name: str) -> list[str]:
    joined = re.sub(r"\\\n\s*", "", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE))
    return [line.split(" ", 1)[1] for line in joined.splitlines() if line.startswith(f"{name} ")]


def test_the_image_copies_what_there_is_and_has_all_that_the_wheel_needs() -> None:
    copied = [word for line in instructions("COPY") if "--from" not in line for word in line.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}
    assert packages | {"assets", "pyproject.toml", "setup.py", "requirements.lock", "README.md"} <= set(copied)
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().split()
    assert not set(copied) & set(ignored)


def test_the_image_runs_as_a_user_without_rights_and_its_command_is_one() -> None:
    assert instructions("USER") == ["cxr"]
    (entry,) = instructions("ENTRYPOINT")
    words = yaml.safe_load(entry)
    assert words[:2] == ["cxr-lens", "dashboard"]
    from training.commands.dashboard import command

    options = command(words[2:])
    assert [each.partition("=")[0] for each in options] == ["--server.address", "--server.port"]
    (port,) = instructions("EXPOSE")
    assert f"--server.port={port}" in options
    health = next(line for line in DOCKERFILE.splitlines() if "/_stcore/health" in line)
    assert f"127.0.0.1:{port}/" in health
    check = yaml.safe_load(health.split("CMD ", 1)[1])
    failed = subprocess.run([sys.executable, *check[1:]], capture_output=True, check=False)
    assert b"URLError" in failed.stderr  # it runs, and finds no server here


def test_the_lock_file_has_the_lines_that_the_image_looks_for(tmp_path: Any) -> None:
    (run,) = [line for line in instructions("RUN") if "awk" in line]
    sort = re.search(r"awk '.*?' requirements\.lock", run)
    assert sort is not None
    kept = subprocess.run(shlex.split(sort[0]), cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = {line.split("==")[0] for line in kept.splitlines() if re.match("[a-z]", line)}
    assert {"streamlit", "timm", "authlib", "psycopg"} <= names
    assert not {"torch", "torchvision", "triton"} & names
    for package, asked in re.findall(r'"(torch|torchvision)==\$\((sed .*?)\)\+cpu"', run):
        version = subprocess.run(shlex.split(asked), cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert re.fullmatch(r"\d+\.\d+\.\d+\n", version), package


def test_only_the_proxy_is_open_and_the_database_is_inside(services: dict[str, Any]) -> None:
    found = services["services"]
    assert [name for name, each in found.items() if "ports" in each] == ["proxy"]
    assert found["database"]["networks"] == ["inside"]
    assert services["networks"]["inside"] == {"internal": True}
    assert "inside" not in found["proxy"]["networks"]
    for name, each in found.items():
        assert each["security_opt"] == ["no-new-privileges:true"], name
        assert "privileged" not in each and "network_mode" not in each and "pid" not in each
    for name in ("app", "proxy"):
        assert found[name]["read_only"] is True
        assert found[name]["cap_drop"] == ["ALL"]
    assert (FOLDER / "Caddyfile").read_text().count("reverse_proxy app:8501") == 1


def test_no_secret_has_a_default_and_none_can_be_committed(services: dict[str, Any]) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    for name, default in re.findall(r"\$\{(\w+)(:[-?][^}]*)?\}", text):
        assert name in PAGE, name
        if "PASSWORD" in name:
            assert default.startswith(":?"), name
    ignored = (FOLDER / ".gitignore").read_text().split()
    for secret in services["secrets"].values():
        assert secret["file"].removeprefix("./") in ignored
    assert ".env" in ignored


def test_variables_of_the_app_are_those_that_it_knows(services: dict[str, Any]) -> None:
    told = (ROOT / "docs" / "dashboard.md").read_text()
    named = set(services["services"]["app"]["environment"]) | set(re.findall(r"\b(CXR_\w+)=", DOCKERFILE))
    assert {name for name in named if f"`{name}`" not in told} == set()


def test_each_promise_names_tests_that_there_are() -> None:
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", PAGE))
    assert len(named) >= 5
    assert all((ROOT / name).is_file() for name in named)
