"""The command line: its answers, its errors, its exit codes."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core import __version__
from core.bundles.library import BundleLibrary
from core.studies.phantom import PhantomSource
from tests import needs
from tests.commands import cxr_lens, in_its_own_process
from tests.conftest import BUNDLES
from tests.images import making
from tests.images.ramps import windowed

pytestmark = pytest.mark.numeric
needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = PhantomSource(40, 0)
    path = tmp_path_factory.mktemp("image") / "study.png"
    pixels = source.image(source.studies("train")[0].study_id, 256)
    Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(path)
    return path


@needs_bundles
def test_report_prints_text(image: Path) -> None:
    done = in_its_own_process("report", str(image), "--bundle", "phantom-fve-m2")
    assert done.returncode == 0
    assert "phantom-fve-m2 (trained on: Computed phantom radiographs" in done.stdout
    assert "Not for use in diagnostic procedures" in done.stdout
    assert len(done.stdout.split()) > 30


@needs_bundles
def test_report_prints_json_of_all_pairs(image: Path) -> None:
    done = cxr_lens("report", str(image), "--json", "--beam-size", "1")
    content = json.loads(done.stdout)
    assert {each["bundle"] for each in content["reports"]} == {card.name for card in BundleLibrary(BUNDLES).cards()}
    assert "Not a medical device" in content["intended_use"]
    assert all(report["findings"] for report in content["reports"])


@needs_bundles
def test_report_says_the_view_and_warns_of_a_lateral_one(tmp_path: Path) -> None:
    path, arguments = tmp_path / "film.dcm", ("--bundle", "phantom-dve-transformer", "--beam-size", "1")
    path.write_bytes(windowed(ViewPosition="LL", PixelSpacing=[0.2, 0.1]))
    done = cxr_lens("report", str(path), *arguments)
    assert (done.returncode, done.stdout.splitlines()[0]) == (0, "film.dcm: lateral view")
    assert "this is a lateral view; the models know frontal views" in done.stdout
    content = json.loads(cxr_lens("report", str(path), "--json", *arguments).stdout)
    assert (content["view"], content["pixel_spacing_mm"]) == ("LATERAL", [0.2, 0.1])
    assert "the models know frontal views" in content["notes"][0]
    path.write_bytes(windowed(ViewPosition="PA"))
    done = cxr_lens("report", str(path), *arguments)
    assert done.stdout.startswith("film.dcm: PA view\n") and "this is a lateral view" not in done.stdout
    path.write_bytes(windowed())
    assert cxr_lens("report", str(path), *arguments).stdout.startswith("film.dcm: the file does not tell the view\n")


@needs_bundles
def test_report_tells_what_the_reader_of_the_file_knows(tmp_path: Path) -> None:
    path = tmp_path / "IM000016"
    path.write_bytes(making.dicom(making.CHEST12, ViewPosition="LL", PhotometricInterpretation="MONOCHROME1"))
    asked = ("report", str(path), "--bundle", "phantom-fve-m2", "--beam-size", "1")
    notes = json.loads(cxr_lens(*asked, "--json").stdout)["notes"]
    assert "lateral view" in notes[0]
    assert "looks inverted" in notes[1]
    printed = cxr_lens(*asked).stdout
    assert all(f"Note: {note}" in printed for note in notes)


@needs_bundles
@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty"), (b"not an image at all", "not a PNG, JPEG or DICOM"), (b"\x89PNG\r\n\x1a\n", "study.png")],
)
def test_a_bad_image_is_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "study.png"
    path.write_bytes(content)
    done = cxr_lens("report", str(path))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr


@needs_bundles
def test_bundles_verify(tmp_path: Path) -> None:
    done = cxr_lens("bundles", "--verify")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("verified") == len(BundleLibrary(BUNDLES).cards())


@needs_bundles
def test_a_damaged_bundle_makes_verify_fail(tmp_path: Path) -> None:
    name = "phantom-dve-transformer"
    shutil.copytree(BUNDLES / name, tmp_path / name)
    path = tmp_path / name / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5] + b"abcde")
    done = cxr_lens("bundles", "--verify", "--bundles", str(tmp_path))
    assert done.returncode == 1
    assert f"{name}: Bundle {name}: model.safetensors differs from the hash on its card" in done.stderr


def test_no_bundles_is_an_error(tmp_path: Path) -> None:
    done = cxr_lens("bundles", "--bundles", str(tmp_path / "none"))
    assert done.returncode == 1
    assert "There is no bundle in" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--preset", "phantm"], "There is no preset 'phantm'"),
        (["train", "--preset", "phantom", "--set", "report.epoch=3"], "report.epoch: no such key"),
        (["evaluate", "--preset", "phantom", "--set", "size=big"], "size: expected one of"),
        (["train", "--preset", "phantom", "--seeds", "2", "--bundles", "x"], "--bundles: several seeds keep"),
    ],
)
def test_a_wrong_preset_key_is_one_line(arguments: list[str], message: str) -> None:
    done = cxr_lens(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_dry_run_prints_the_resolved_configuration() -> None:
    done = cxr_lens("train", "--preset", "phantom", "--set", "report.epochs=3", "--dry-run")
    assert json.loads(done.stdout)["report"]["epochs"] == 3


def test_evaluate_without_bundles_says_what_to_run(tmp_path: Path) -> None:
    done = cxr_lens("evaluate", "--preset", "phantom", "--bundles", str(tmp_path), "--runs", str(tmp_path))
    assert done.returncode == 2
    assert "Run: cxr-lens train --preset phantom" in done.stderr


def test_phantom_writes_studies(tmp_path: Path) -> None:
    done = cxr_lens("phantom", "--out", str(tmp_path / "set"), "-n", "6", "--seed", "3", "--size", "64")
    assert done.returncode == 0, done.stderr
    images = sorted((tmp_path / "set" / "images").glob("*.png"))
    assert len(images) == 6
    assert Image.open(io.BytesIO(images[0].read_bytes())).size == (64, 64)
    about = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert about["seed"] == 3


def test_commands_are_listed_in_the_order_in_which_a_person_needs_them() -> None:
    text = cxr_lens("--help").stdout
    places = [text.index(f" {name} ") for name in ("report", "dashboard", "bundles", "evaluate", "train", "agreement")]
    assert places == sorted(places)
    assert "--install-completion" in text


def test_every_command_has_a_place_in_the_order() -> None:
    import typer.main

    from training.cli import ORDER, app

    assert sorted(typer.main.get_command(app).commands) == sorted(ORDER)  # type: ignore[attr-defined]


def test_every_command_that_prints_a_table_has_json() -> None:
    import typer.main

    from training.cli import app

    def commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
        for name, each in group.commands.items():
            if hasattr(each, "commands"):
                yield from commands(each, (*path, name))
            else:
                yield " ".join((*path, name)), each

    lacking = {
        name
        for name, each in commands(typer.main.get_command(app))
        if not any("--json" in parameter.opts for parameter in each.params)
    }
    # These print a line, or nothing.
    assert lacking == {
        "dashboard",
        "phantom",
        "data labels",
        "data move",
        "review key",
        "review sheet",
        "rexrank",
        "systems add",
        "systems remove",
        "import hf",
    } | {
        f"review {name}"
        for name in ("create", "role", "adjudicate", "close", "export", "backup", "restore", "verify", "import-marks")
    } | {"review simulate", "review rubric show", "review rubric check"}


def test_version_and_completion(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cxr_lens("--version").stdout == f"cxr-lens {__version__}\n"
    # Typer asks which shell it was started from, and under a test runner there may be none.
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    assert "complete" in cxr_lens("--show-completion").stdout


@needs_bundles
def test_json_of_bundles_and_of_no_review_session(tmp_path: Path) -> None:
    content = json.loads(cxr_lens("bundles", "--json").stdout)
    assert {each["name"] for each in content["bundles"]} == {card.name for card in BundleLibrary(BUNDLES).cards()}
    assert content["problems"] == {}
    done = cxr_lens("review", "list", "--json", "--database", str(tmp_path / "reviews.sqlite"))
    assert json.loads(done.stdout) == []


def test_quiet_leaves_results_and_verbose_says_where_an_error_arose(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_LENS_VERBOSITY", "0")
    texts = tmp_path / "reports.csv"
    texts.write_text("impression\nNo acute disease.\nSmall left pleural effusion.\n")
    usual = cxr_lens("clusters", "--from", str(texts))
    assert "say nothing and give no pair" in usual.stderr
    quiet = cxr_lens("-q", "clusters", "--from", str(texts))
    assert quiet.stdout == usual.stdout
    assert "say nothing" not in quiet.stderr
    assert "count as training reports" in quiet.stderr  # a warning is no note
    phantoms = in_its_own_process("-q", "phantom", "--out", str(tmp_path / "phantoms"), "-n", "1", "--size", "64")
    assert (phantoms.returncode, phantoms.stderr) == (0, "")  # no progress
    assert "ConfigError" in cxr_lens("-v", "plan", "--preset", "nobody").stderr
    assert "ConfigError" not in cxr_lens("plan", "--preset", "nobody").stderr
    assert "opposite" in cxr_lens("-v", "-q", "bundles").stderr
