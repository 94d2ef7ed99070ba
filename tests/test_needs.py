"""What a machine lacks is said in the last line, and is red in CI; a browser is found wherever it is, or brought."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests import needs, orthanc
from tests.browser import find

TESTS = Path(__file__).parent
REAL = find.candidates(os.environ, Path.home())[0]
"""A browser of this machine; None: there is none but perhaps playwright's own."""

# ------------------------------------------------------------------------------------------------- what was left out

MODULE = """
import pytest
from tests import needs, orthanc

def test_here():
    pass

@needs.BROWSER.unless({browser})
@pytest.mark.parametrize("each", [1, 2])
def test_page(each):
    pass

@needs.CATBOOST.packages({package!r})
def test_study():
    pass

@pytest.mark.xfail
def test_known():
    assert False
"""


class Run:
    """Runs of a few tests in this process."""

    def __init__(self, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
        self.pytester, self.monkeypatch = pytester, monkeypatch

    def __call__(
        self, *options: str, ci: str = "", browser: bool = True, package: str = "json"
    ) -> tuple[str, pytest.ExitCode]:
        """The last line, and how it ended."""
        self.monkeypatch.setenv("CI", ci)
        self.pytester.makepyfile(test_few=MODULE.format(browser=browser, package=package))
        done = self.pytester.runpytest_inprocess("-q", "-p", "tests.needs", "-p", "no:cacheprovider", *options)
        return [line for line in done.outlines if line][-1], pytest.ExitCode(done.ret)


@pytest.fixture
def few(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PYTHONPATH", str(TESTS.parent))
    return Run(pytester, monkeypatch)


def test_the_last_line_names_what_was_left_out_and_how_to_have_it(few: Run) -> None:
    line, code = few("-n", "1", browser=False, package="no_such_package")
    assert code == pytest.ExitCode.OK
    assert line.startswith("Tests left out: 2 for want of a browser (install Chromium, Chrome or Edge, or name its")
    assert "; 1 for want of CatBoost (pip install -e '.[study]' -c constraints.txt)." in line


def test_nothing_is_said_where_all_ran(few: Run) -> None:
    assert "left out" not in few()[0]


def test_ci_fails_without_what_it_promises_and_only_then(few: Run) -> None:
    line, code = few(ci="true", browser=False)
    assert (code, line.endswith("CI needs them.")) == (pytest.ExitCode.TESTS_FAILED, True)
    line, code = few(ci="true", package="no_such_package")
    assert (code, line.endswith("constraints.txt).")) == (pytest.ExitCode.OK, True)


def test_no_test_is_skipped_but_by_a_need() -> None:
    """A skip of pytest's own says nothing of how to have what is missing."""
    own = re.compile(r"importorskip|mark\.skip|pytest\.skip\(")
    for path in TESTS.rglob("*.py"):
        if path.name not in ("needs.py", Path(__file__).name):
            assert not own.search(path.read_text(encoding="utf-8")), f"{path}: use tests/needs.py"
    assert len({need.reason for need in needs.ALL}) == len(needs.ALL)


# -------------------------------------------------------------------------------------------------- finding a browser


def program(path: Path, script: str = "exit 0") -> Path:
    """A program that does what a line of shell says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize("name", find.NAMES)
def test_a_browser_on_the_path_is_found_by_each_of_its_names(name: str, tmp_path: Path) -> None:
    there = program(tmp_path / "bin" / name)
    assert find.candidates({"PATH": str(tmp_path / "bin")}, tmp_path)[0] == there


@pytest.mark.parametrize("name", ["Chromium", "Google Chrome", "Microsoft Edge"])
def test_an_application_of_the_users_own_is_found(name: str, tmp_path: Path) -> None:
    there = program(tmp_path / "Applications" / f"{name}.app" / "Contents" / "MacOS" / name)
    assert there in find.candidates({"PATH": ""}, tmp_path)


def test_the_one_that_is_named_is_the_only_one(tmp_path: Path) -> None:
    program(tmp_path / "chromium")
    named = program(tmp_path / "edge")
    path = str(tmp_path)
    assert find.candidates({"PATH": path, "CXR_BROWSER": str(named)}, tmp_path) == [named]
    assert find.candidates({"PATH": path, "CXR_BROWSER": "edge"}, tmp_path) == [named]
    assert find.candidates({"PATH": path, "CXR_BROWSER": "/none"}, tmp_path) == [Path("/none")]


def test_two_names_of_one_program_are_tried_once_and_playwrights_own_last(tmp_path: Path) -> None:
    there = program(tmp_path / "google-chrome-stable")
    (tmp_path / "google-chrome").symlink_to(there)
    (tmp_path / "chromium").write_text("not executable")
    found = find.candidates({"PATH": str(tmp_path)}, tmp_path)
    assert [each for each in found if each and each.parent == tmp_path] == [tmp_path / "google-chrome"]
    assert found[-1] is None


@pytest.mark.browser
def test_a_stub_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ubuntu's chromium-browser, without its snap, says so and ends."""
    with sync_playwright() as playwright:
        try:
            find.start(playwright).close()
        except find.NoBrowserError:
            needs.BROWSER.skip()
        stub = program(tmp_path / "chromium", "echo 'requires the chromium snap to be installed' >&2; exit 10")
        monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
        browser = find.start(playwright)
        assert browser.version
        browser.close()
        monkeypatch.setenv("CXR_BROWSER", str(stub))
        with pytest.raises(find.NoBrowserError, match=str(stub)):
            find.start(playwright)


# ------------------------------------------------------------------------------------------------- bringing a browser


def commands(path: Path, *, root: bool) -> list[list[str]]:
    return [[" ".join(command) for command in way] for way in find.ways(str(path), root)]


def test_the_superuser_asks_debians_packages_first(tmp_path: Path) -> None:
    program(tmp_path / "apt-get")
    first, second, last = commands(tmp_path, root=True)
    assert first[0].endswith("update")
    assert re.search(r"apt-get .*install -y --no-install-recommends chromium fonts-dejavu-core$", first[1])
    assert [each.partition("playwright ")[2] for each in second] == ["install chromium", "install-deps chromium"]
    assert [each.partition("playwright ")[2] for each in last] == ["install chromium"]


def test_sudo_is_used_only_where_it_asks_for_no_password(tmp_path: Path) -> None:
    program(tmp_path / "apt-get")
    program(tmp_path / "sudo", "exit 1")
    assert [each[0].partition("playwright ")[2] for each in commands(tmp_path, root=False)] == ["install chromium"]
    program(tmp_path / "sudo", 'test "$1" = -n')
    first, *_ = commands(tmp_path, root=False)
    assert all(each.startswith(f"{tmp_path / 'sudo'} -n env DEBIAN_FRONTEND=noninteractive") for each in first)


@pytest.mark.parametrize("there", [True, False])
def test_orthanc_is_brought_and_where_it_cannot_be_the_tests_go_on(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    brought = tmp_path / "brought"
    monkeypatch.setattr(orthanc, "program", lambda: ("Orthanc", brought) if brought.exists() else None)
    program(tmp_path / "apt-get", f"/bin/echo $* && {'/bin/touch ' + str(brought) if there else 'exit 100'}")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(find.os, "geteuid", lambda: 0)
    monkeypatch.setattr(find.shutil, "which", lambda name, path: str(tmp_path / name) if name == "apt-get" else None)
    monkeypatch.setattr(find, "debian", find.debian)
    program(tmp_path / "env", 'shift; exec "$@"')
    orthanc.bring()
    told = capfd.readouterr()
    assert ("install -y --no-install-recommends orthanc orthanc-dicomweb" in told.out) == there
    assert ("Orthanc for the tests: Orthanc" in told.out) == there
    assert ("none could be brought: theirs are left out" in told.err) != there
    orthanc.bring()
    assert ("apt-get" in capfd.readouterr().err) != there  # found, nothing is brought


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those in a folder."""
    monkeypatch.setattr(find, "ELSEWHERE", ())
    monkeypatch.delenv("CXR_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "none"))
    return tmp_path


@pytest.mark.parametrize("works", [True, False])
def test_what_was_brought_is_used_and_where_nothing_could_be_the_tests_go_on(
    works: bool, bare: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    if REAL is None:
        needs.BROWSER.skip()
    program(bare / "good", f"/bin/ln -s {REAL} {bare / 'chromium'}")
    program(bare / "bad", "echo no network >&2; exit 1")
    monkeypatch.setattr(
        find,
        "ways",
        lambda path, root: iter(
            [[[str(bare / "bad")], ["/none"]], [["/none"]], *([[[str(bare / "good")]]] if works else [])]
        ),
    )
    find.bring()
    told = capfd.readouterr()
    assert ("Browser for the tests: chromium" in told.out) == works
    assert ("none could be brought: theirs are left out" in told.err) != works
    assert "no network" in told.err


def test_a_named_browser_that_does_not_start_is_an_error(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BROWSER", "/none")
    with pytest.raises(SystemExit, match="CXR_BROWSER names a browser that does not start"):
        find.bring()
