"""How the documented commands are run that measure what pairs report, how reports read, and what filters do."""

from __future__ import annotations

import csv
import json
from pathlib import Path

from core.paths import BUNDLES
from tests.documented.place import Place
from tests.documented.programs import Row, elsewhere

_READING = {"reports.jsonl": lambda place: BUNDLES / "phantom-reports.jsonl"}
_SMALL = " --extent 0:1:2 -n 2 --jobs 1 --out detected"
_FILMS = "cxr-lens detect --finding pneumothorax -n 40 --extent 0:1:8 --images films"
_TRAIN = "cxr-lens train --preset phantom --set 'encoders=[\"ccve\"]'"
_COPY = "it rewrites cards: tests/test_cards_command.py runs it on a copy"
_MINUTES = "minutes of both cores: tests/test_filter_bank.py runs the parts"
_TAKEN = "tests/test_findings_first.py trains pairs, and others on the encoders of their bundles"
_HOURS = "hours of training: tests/test_filter_bank.py runs the parts"


def _their_reports(place: Place) -> Path:
    """What another system wrote of the films."""
    films = place.folder / "films" / "films.csv"
    path = place.folder / "theirs.csv"
    with films.open(encoding="utf-8") as file, path.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(("study_id", "report"))
        table.writerows((row["study_id"], "No pneumothorax.") for row in csv.DictReader(file))
    return path


def _of_seed(place: Place, seed: int) -> Path:
    """The demo's evaluation, as that of another training."""
    path = place.folder / f"seed-{seed}.json"
    told = json.loads((BUNDLES / "phantom-results.json").read_text(encoding="utf-8"))
    path.write_text(json.dumps(told | {"seed": seed}), encoding="utf-8")
    return path


DAMAGE_TESTS = (
    "tests/test_damage.py -m slow -s -k checksums",
    "tests/test_damage.py -m slow -k neighbours",
    "tests/browser/test_hostile.py",
    "tests/browser/test_patients_names.py",
    "tests/browser/test_many_readers.py -n0 -s",
    "tests/test_review_evidence.py -m slow -k postgres",
)
"""Arguments of pytest in the document on damage."""


_QUICK = ("attention", "cls-attention", "grad-cam", "layer-grad-cam")


def measuring_rows() -> dict[str, Row]:
    """A row a command."""
    detect = "cxr-lens detect --finding"
    attacks = {
        f"python -m tests.attacks{kind}": Row(instead=elsewhere, as_far="minutes: tests/test_damage.py runs a part")
        for kind in (
            "",
            " caches",
            " runs",
            " bundles",
            " files",
            " databases",
            " dumps",
            " requests",
            " kills",
            " texts",
            ".faults",
        )
    }
    quick = " ".join(f"--method {each}" for each in _QUICK)
    explained = {
        f"cxr-lens explain-benchmark --preset openi --films data/nih --studies 0 --checked 3 {quick}": Row(
            instead=elsewhere, as_far="half an hour: the command for all methods is run with two films"
        )
    }
    return (
        attacks
        | explained
        | {
            "python -m tests.browser.reports_at_once": Row(
                instead=elsewhere, as_far="minutes of a machine of its own: tests/test_batches.py has its parts"
            ),
            "python -m tests.browser.screenshots systems": Row(
                instead=elsewhere, as_far="it trains a model: tests/test_systems_pages.py has pages with such systems"
            ),
            "python -m tests.long": Row(
                instead=elsewhere, as_far="it writes the list that is committed: tests/test_long.py has its parts"
            ),
            "python -m dashboard.services.first_studies": Row(
                instead=elsewhere, as_far="it writes what ships: tests/test_first_paint.py draws it and compares"
            ),
            "pip install --no-deps openvino": Row(instead=elsewhere, as_far="installed packages stay as they are"),
            "cxr-lens reading reports.jsonl": Row(given=_READING, says="reports with"),
            "cxr-lens reading FILE": Row(
                given={"FILE": lambda place: BUNDLES / "phantom-reports.jsonl"}, says="reports with"
            ),
            "cxr-lens table seeds --results FIRST --results SECOND": Row(
                given={"FIRST": lambda place: _of_seed(place, 1), "SECOND": lambda place: _of_seed(place, 2)},
                says="FVE . Transformer",
            ),
            "cxr-lens rewrite-cards --preset openi": Row(instead=elsewhere, as_far=_COPY),
            "cxr-lens rewrite-cards --preset openi --bundles FOLDER": Row(instead=elsewhere, as_far=_COPY),
            "cxr-lens bundles": Row(says="phantom-fve-m2"),
            "cxr-lens study filters": Row(instead=elsewhere, as_far=_HOURS),
            "cxr-lens study filters --preset phantom": Row(instead=elsewhere, as_far=_HOURS),
            "cxr-lens study filters --preset phantom --design bundles": Row(instead=elsewhere, as_far=_MINUTES),
            "cxr-lens study filters --preset openi --design bundles --studies 300": Row(
                instead=elsewhere, as_far=_MINUTES
            ),
            _TRAIN: Row(instead=elsewhere, as_far=_HOURS),
            "cxr-lens train --preset openi --bundles runs/openi/first": Row(
                " --dry-run", says='"findings_first": true', as_far=_TAKEN
            ),
            "cxr-lens train --preset openi --set encoders_from=runs/openi/first --runs runs/again": Row(
                " --dry-run", says='"encoders_from": "runs/openi/first"', as_far=_TAKEN
            ),
            "python -m training.bench.readings openi BEFORE NOW": Row(
                instead=elsewhere, as_far="minutes for each encoder: tests/test_findings_first.py runs it"
            ),
            f"{detect} pneumothorax": Row(f"{_SMALL} --bundle phantom-fve-m2", says="Pneumothorax: 2 chests"),
            f"{detect} lung-lesion --site mid --extent 0:1:8 -n 40 --bundle phantom-fve-m2": Row(
                _SMALL, says="Lung Lesion: 2 chests"
            ),
            f"{detect} pleural-effusion --films data/openi --extent 0:1:7 -n 30": Row(
                f"{_SMALL}3 --bundle phantom-fve-m2",
                {"data/openi": lambda place: "example"},
                says=r"Pleural Effusion in real films \(Example radiographs\): 2 chests",
            ),
            _FILMS: Row(" --extent 0:1:2 -n 2", says="10 films in films"),
            f"{detect} pneumothorax -n 40 --extent 0:1:8 --reports theirs=theirs.csv": Row(
                f"{_SMALL}2",
                {"theirs=theirs.csv": lambda place: f"theirs={_their_reports(place)}"},
                after=_FILMS,
                says="theirs",
            ),
            "cxr-lens write graded:pneumothorax --out graded.jsonl": Row(
                " --bundle phantom-fve-m2 --jobs 1",
                {"graded:pneumothorax": lambda place: "graded:pneumothorax:0:1:2:right:none:2:0"},
                says="6 of 6 studies",
            ),
        }
    )
