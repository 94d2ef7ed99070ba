"""Programs as systems: they write once for each picture, and what fails is told in a sentence."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.studies.sources import open_source
from core.systems import added
from core.systems.program import Program, read_command
from core.systems.system import Ability
from core.types import CXRLensError
from tests.systems_files import program

PHANTOM = "phantom:40:0"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of systems of this test alone."""
    monkeypatch.setenv("CXR_SYSTEMS", str(tmp_path / "systems"))
    return tmp_path


def with_program(here: Path, timeout: float = 60, **how: str) -> Program:
    command = read_command(program(here / "theirs", **how), here / "theirs", timeout)
    found = added.add_program("Theirs", command, replace=True)
    assert isinstance(found, Program)
    return found


def test_a_program_writes_once_for_each_image_and_again_when_it_is_another(here: Path) -> None:
    source = open_source(PHANTOM)
    ids = source.ids("test")[:3]
    count = here / "runs.txt"
    before = f'open({str(count)!r}, "a").write(f"{{len(cases)}} ")'
    theirs = with_program(here, before=before)
    assert theirs.abilities == {Ability.WRITE}
    assert theirs.seconds_a_study() is None
    first = theirs.reports(source, ids[:2])
    assert dict(first.texts) == dict.fromkeys(ids[:2], "There is a small left pleural effusion.")
    assert theirs.seconds_a_study() > 0
    assert dict(theirs.reports(source, ids).texts).keys() == set(ids)
    assert count.read_text() == "2 1 "
    first_hash = theirs.content_hash()
    other = with_program(here, text='"Clear."', before=before)
    assert other.content_hash() != first_hash
    assert set(other.reports(source, ids).texts.values()) == {"Clear."}


def test_a_program_gets_images_and_context_and_never_the_reference(here: Path) -> None:
    source = open_source(PHANTOM)
    study_id = source.ids("test")[0]
    kept = here / "kept"
    copy = f"import shutil; shutil.copytree(images, {str(kept)!r}); shutil.copy(given, {str(here / 'given.json')!r})"
    with_program(here, before=copy).reports(source, [study_id])
    case = json.loads((here / "given.json").read_text(encoding="utf-8"))[study_id]
    assert set(case) == {"image_path", "key_image_path", "context"}
    assert source.study(study_id).findings not in json.dumps(case)
    assert "Indication: " in case["context"]
    pixels = np.asarray(Image.open(kept / case["key_image_path"]))
    assert pixels.dtype == np.uint8
    assert np.abs(pixels / 255 - source.original(study_id).pixels).max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize(
    ("before", "message"),
    [
        ("sys.exit('no such weights')", r"ended with an error \(code 1\). Its last words: no such weights"),
        ("os.kill(os.getpid(), 9)", "was ended by signal 9"),
        ("sys.exit(0)", "wrote no answer"),
        (
            "open(out, 'w').write('Traceback'); sys.exit(0)",
            "answered what is no file of reports: reports.json is damaged",
        ),
        ("json.dump({}, open(out, 'w')); sys.exit(0)", "answered what is no file of reports"),
        ("json.dump([1, 2], open(out, 'w')); sys.exit(0)", "answered what is no file of reports"),
    ],
)
def test_a_program_that_fails_says_so_in_a_sentence(here: Path, before: str, message: str) -> None:
    source = open_source(PHANTOM)
    with pytest.raises(CXRLensError, match=message) as raised:
        with_program(here, before=before).reports(source, source.ids("test")[:1])
    assert "\n" not in str(raised.value)


def test_a_program_that_hangs_is_ended_with_all_that_it_started(here: Path) -> None:
    source = open_source(PHANTOM)
    child = here / "child.txt"
    before = (
        "import subprocess\n"
        f"open({str(child)!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))\n"
        "time.sleep(600)"
    )
    began = time.monotonic()
    with pytest.raises(CXRLensError, match="took more than 1 seconds. Add it again with a longer --timeout"):
        with_program(here, 1, before=before).reports(source, source.ids("test")[:1])
    assert time.monotonic() - began < 30
    pid = int(child.read_text())
    until = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < until
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_study_without_an_answer_lacks_its_report_and_the_others_have_theirs(here: Path) -> None:
    source = open_source(PHANTOM)
    ids = source.ids("test")[:3]
    found = with_program(here, before=f"cases.pop({ids[1]!r})").reports(source, ids)
    assert set(found.texts) == {ids[0], ids[2]}
    assert found.lacking == {ids[1]: f"Theirs gave no report of study {ids[1]}."}


def test_what_is_no_command_is_refused(here: Path) -> None:
    with pytest.raises(CXRLensError, match="The command is empty"):
        read_command(" ", here)
    with pytest.raises(CXRLensError, match="Close its quotes"):
        read_command("python 'x", here)
    with pytest.raises(CXRLensError, match="There is no program 'no-such-program'"):
        added.add_program("X", read_command("no-such-program x", here))
    placed = read_command("run --in={input} {output} -d {images}", here).filled(Path("a"), Path("b"), Path("c"))
    assert placed == ["run", "--in=a", "b", "-d", "c"]
