"""How the documented commands about systems are run: files of reports, programs, other metrics and labelers."""

from __future__ import annotations

import sys

import pytest

from core.paths import BUNDLES
from tests.documented.place import STUDIES
from tests.documented.programs import Row, _words, elsewhere

THEIR_FILE = "cxr-lens systems add NAME theirs.csv"
THEIRS = {"NAME": lambda place: "Theirs", "theirs.csv": lambda place: "one-column.csv"}
PHANTOMS = {
    "reports.jsonl": lambda place: BUNDLES / "phantom-reports.jsonl",
    "data/mine": lambda place: "phantom:4000:0",
}


def system_rows(
    small: str, training: str, bert: pytest.MarkDecorator, transformers: pytest.MarkDecorator
) -> dict[str, Row]:
    """A row a command.

    Args:
        small: what makes an evaluation of the preset "phantom" small.
        training: the command after which there is a pair to evaluate.
        bert: the mark of what needs CheXbert's packages.
        transformers: the mark of what needs those of Hugging Face.
    """
    return {
        "cxr-lens systems add NAME theirs.csv": Row(
            " --replace", THEIRS, says=f"Theirs: {STUDIES} reports in 'findings', by 'study_id'"
        ),
        "cxr-lens systems add NAME theirs.csv --id dicom_id --report report --source data/mine": Row(
            " --replace",
            THEIRS
            | {
                "dicom_id": lambda place: "study_id",
                "report": lambda place: "findings",
                "data/mine": lambda place: "phantom:40:0",
            },
            says="of the 40 studies",
        ),
        "cxr-lens import hf FOLDER --name NAME": Row(
            " --bundles imported --replace",
            {"FOLDER": lambda place: place.hugging_face, "NAME": lambda place: "reader"},
            says="reader: a bundle in imported",
            needs=transformers,
        ),
        "cxr-lens systems list": Row(says="(?s)Theirs .*file of reports.*reference", after=THEIR_FILE),
        "cxr-lens systems remove NAME": Row(
            given=_words(NAME=lambda place: "Theirs"), says="is removed", after=THEIR_FILE
        ),
        'cxr-lens systems add NAME --command "python inference.py" --timeout 3600': Row(
            " --replace",
            THEIRS | {"python inference.py": lambda place: f"{sys.executable} -c 0"},
            says="Theirs: a program",
        ),
        "cxr-lens import r2gen model_best.pth --name r2gen-mimic --annotations annotation.json": Row(
            " --bundles imported --replace", {"model_best.pth": lambda place: place.r2gen}, says="DVE . R2Gen"
        ),
        "cxr-lens import ifcc model.dict.gz --name ifcc-m2 --vocabulary glove.txt.gz": Row(
            " --bundles imported --replace", {"model.dict.gz": lambda place: place.ifcc}, says="DVE . M2"
        ),
        "cxr-lens rexrank INPUT.json OUTPUT.json IMAGES --bundle openi-fve-m2": Row(
            given={
                "INPUT.json": lambda place: place.rexrank,
                "OUTPUT.json": lambda place: "out.json",
                "IMAGES": lambda place: place.folder,
            },
            slow=True,
            says="1 of 1 reports in out.json",
        ),
        "cxr-lens export radeval phantom --out radeval": Row(" --force", says="12 files in radeval"),
        "cxr-lens export rexrank reports.jsonl --system NAME --out rexrank": Row(
            given=PHANTOMS | {"NAME": lambda place: "phantom-fve-m2"}, says="1 file in rexrank"
        ),
        "cxr-lens export label-studio reports.jsonl --source data/mine --out tasks": Row(
            " --study P000002-1", PHANTOMS, says="3 files in tasks"
        ),
        "cxr-lens export fhir --source data/mine --system openi-fve-m2 --out fhir": Row(
            " --study P000002-1", PHANTOMS, slow=True, says="1 file in fhir"
        ),
        "cxr-lens export hf openi-fve-m2 --out openi-fve-m2-hf": Row(says="5 files in openi-fve-m2-hf"),
        **{
            each: Row(instead=elsewhere, as_far="the command's name in a sentence")
            for each in ("cxr-lens evaluate", "cxr-lens evaluate --labeler chexbert", "cxr-lens evaluate --seeds 3")
        },
        "cxr-lens evaluate --preset phantom --labeler chexbert --checkpoint chexbert.pth": Row(
            small,
            {"chexbert.pth": lambda place: place.chexbert},
            slow=True,
            says="Generated reports: CheXbert",
            after=training,
            needs=bert,
        ),
        "cxr-lens evaluate --preset phantom --scores scores.csv --out DIR": Row(
            small,
            {"scores.csv": lambda place: place.outside, "DIR": lambda place: "scored"},
            slow=True,
            says=r"Scores of outside.csv.*(?s:.)*GREEN",
            after=training,
        ),
        "cxr-lens evaluate --preset phantom --reports NAME=theirs.csv": Row(
            small,
            {"NAME=theirs.csv": lambda place: "Theirs=one-column.csv"},
            slow=True,
            says=r"\*Theirs\*",
            after=training,
        ),
        "cxr-lens evaluate --source data/mine --system NAME --system openi-fve-m2": Row(
            " --split test",
            {"data/mine": lambda place: f"phantom:{STUDIES}:0", "NAME": lambda place: "Theirs"},
            slow=True,
            says="Theirs",
            after=THEIR_FILE,
        ),
    }
