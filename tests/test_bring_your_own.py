"""From the installed command to reports of one's own images on Cases: the three commands of the documents."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.studies.phantom import PhantomSource
from dashboard.services import own as jobs
from tests import documented
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.conftest import ROOT
from tests.served import serving

pytestmark = [needs_bundles, pytest.mark.slow]

COUNT, SIDE = 50, 96
PAIRS = ("phantom-fve-m2", "phantom-ccve-m2")


def write_own(folder: Path) -> dict[str, str]:
    """Make 50 images and the table of their reports, as the page has them; returns the reports by study."""
    drawn = PhantomSource(COUNT, 5)
    ids = drawn.all_ids()
    (folder / "scans").mkdir()
    texts = {}
    for number, study_id in enumerate(ids):
        name = f"S{number:02}"
        pixels = np.round(drawn.image(study_id, SIDE) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "scans" / f"{name}.png")
        texts[name] = drawn.study(study_id).findings
    with (folder / "reports.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("study", "report"))
        writer.writerows(texts.items())
    return texts


def rows_of(app: Any) -> list[dict[str, Any]]:
    """What the table of Cases shows."""
    (table,) = [each.proto for each in app.get("bidi_component") if each.proto.component_name == "cxr_cases"]
    return list(json.loads(table.json)["rows"])


def plain(pieces: list[dict[str, Any]]) -> str:
    return "".join(piece["text"] for piece in pieces).strip()


def test_three_commands_lead_from_nothing_to_reports_of_ones_own_images_on_cases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install, index, start = documented.blocks("docs/bring-your-own.md", "")[0].splitlines()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(each in readme for each in (install, index, start))
    assert install.startswith("pip install cxr_lens-")  # .ci/wheel installs it so
    (command,) = entry_points(group="console_scripts", name="cxr-lens")
    assert command.value == "training.cli:main"

    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name, value in {
        "PYTHONPATH": str(ROOT),
        "CXR_CACHE": str(tmp_path / "cache"),
        "CXR_EVALUATIONS": str(tmp_path / "evaluations"),
        "CXR_REVIEWS": str(tmp_path / "reviews.sqlite"),
        "CXR_BUNDLES": str(linked_bundles(tmp_path / "bundles", *PAIRS, "shared")),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("CXR_SOURCES", "CXR_INDEX", "CXR_DICOMWEB"):
        monkeypatch.delenv(name, raising=False)
    texts = write_own(here)

    program = [sys.executable, "-m", "training.cli"]
    told = subprocess.run([*program, *index.split()[1:]], capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert f"{COUNT} kept" in told.stdout
    with serving([*program, *start.split()[1:]], here, tmp_path / "log") as (port, _):
        assert port  # it is healthy; its pages are looked at here, in the same folder
    assert [each.name for each in (here / "data").iterdir()] == ["mine"]

    app = open_page("cases", source="mine")
    (button,) = [each for each in app.button if each.key == "own_start"]
    assert button.label == f"Write and score the reports of these {COUNT} studies with these 2 models"
    button.click().run()
    until = time.monotonic() + 240
    while jobs.under_way("mine") is not None:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert jobs.failures("mine") == []

    seen: dict[str, dict[str, Any]] = {}
    app = open_page("cases", source="mine")
    assert f"**{COUNT} studies**" in words_on(app)
    while True:
        rows = rows_of(app)
        seen |= {row["id"]: row for row in rows}
        if app.button(key="page_on").disabled:
            break
        app.button(key="page_on").click().run()
        assert not app.exception
    assert seen.keys() == texts.keys()
    assert all(row["picture"] and row["here"] for row in seen.values())
    assert len({row["picture"] for row in seen.values()}) == COUNT  # each has its own
    for name, text in texts.items():
        assert plain(seen[name]["reference"]) == text
    written = {name: [plain(cell["pieces"]) for cell in row["cells"]] for name, row in seen.items()}
    assert {len(each) for each in written.values()} == {len(PAIRS)}
    assert all(len(report.split()) > 3 for each in written.values() for report in each)
    assert len({tuple(each) for each in written.values()}) > COUNT // 2
