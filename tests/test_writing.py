"""Reports of a whole source: the same as one by one, kept through interruptions, with what could not be read named."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from core import paths
from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.devices import computing, open_device
from core.evaluation import writing
from core.evaluation.reports import read_evaluation
from core.evaluation.writing import Work, write_source
from core.studies.model_image import of_study
from core.studies.sources import open_source
from core.types import CXRLensError

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).resolve().parent.parent
PAIRS = ("phantom-fve-m2", "phantom-dve-cnn_rnn_rnn")


def work(source: str = "phantom:10:3", **changes: Any) -> Work:
    return Work(**{"source": source, "split": None, "bundles": paths.BUNDLES, "pairs": PAIRS, "batch": 3, **changes})


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks of four studies; the list fills with those that are written."""
    written: list[int] = []
    write_block = writing._write_block

    def counted(work: Work, parts: Path, start: int, **how: Any) -> int:
        written.append(start)
        return write_block(work, parts, start, **how)

    monkeypatch.setattr(writing, "BLOCK", 4)
    monkeypatch.setattr(writing, "_write_block", counted)
    return written


def test_reports_are_those_that_are_written_one_by_one(tmp_path: Path) -> None:
    census = write_source(work(), tmp_path / "r.jsonl")
    source, library = open_source("phantom:10:3"), BundleLibrary(paths.BUNDLES)
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["study_id"] for row in rows] == [each for split in source.splits() for each in source.ids(split)]
    for row in rows:
        alone = write_reports([library.load(name) for name in PAIRS], of_study(source, row["study_id"]))
        assert {name: report.text for name, report in alone} == {name: row[name] for name in PAIRS}
        assert row["reference"] == source.study(row["study_id"]).findings
    assert (census.studies, census.written, census.unreadable) == (10, 10, {})
    assert census.pairs[PAIRS[0]].words == pytest.approx(
        np.mean([len(row[PAIRS[0]].split()) for row in rows]), abs=0.01
    )
    assert read_evaluation(tmp_path / "r.jsonl").study_ids == tuple(row["study_id"] for row in rows)
    write_source(work(), tmp_path / "r.csv")
    with (tmp_path / "r.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == rows
    about = json.loads((tmp_path / "r.jsonl.about.json").read_text())
    assert about["fingerprint"] == source.fingerprint()
    assert about["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_an_interruption_costs_a_block_and_the_end_is_the_same(
    tmp_path: Path, blocks: list[int], monkeypatch: Any
) -> None:
    write_source(work(), tmp_path / "whole.jsonl")
    assert blocks == [0, 4, 8]
    write_batch, calls = writing._write_batch, []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:  # in the second block
            raise KeyboardInterrupt
        return write_batch(*arguments)

    monkeypatch.setattr(writing, "_write_batch", fails)
    with pytest.raises(KeyboardInterrupt):
        write_source(work(), tmp_path / "cut.jsonl")
    assert not (tmp_path / "cut.jsonl").exists()
    blocks.clear()
    heard: list[tuple[int, int]] = []
    write_source(work(), tmp_path / "cut.jsonl", progress=lambda done, total: heard.append((done, total)))
    assert blocks == [4, 8]
    assert heard == [(4, 10), (8, 10), (10, 10)]
    assert (tmp_path / "cut.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("cut.jsonl", "cut.jsonl.about.json", "whole.jsonl", "whole.jsonl.about.json")
    ]


def test_a_file_that_is_there_is_not_written_again_and_other_settings_write_it_anew(
    tmp_path: Path, blocks: list[int]
) -> None:
    first = write_source(work("phantom:5:3"), tmp_path / "r.jsonl")
    blocks.clear()
    assert write_source(work("phantom:5:3"), tmp_path / "r.jsonl") == first
    assert not blocks
    assert write_source(work("phantom:5:3", pairs=PAIRS[:1]), tmp_path / "r.jsonl").pairs.keys() == {PAIRS[0]}
    assert blocks == [0, 4]


def test_a_study_whose_image_cannot_be_read_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)
    for name in ("a", "b", "c"):
        Image.fromarray(noise).save(folder / f"{name}.png")
    (folder / "b.png").write_bytes((folder / "b.png").read_bytes()[:900])
    census = write_source(work(str(folder), pairs=PAIRS[:1]), tmp_path / "r.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert [row["study_id"] for row in rows] == ["a", "c"]
    assert rows[0][PAIRS[0]] == rows[1][PAIRS[0]]  # the same film
    assert "reference" not in rows[0]
    assert (census.studies, census.written, list(census.unreadable)) == (3, 2, ["b"])


def test_a_study_that_came_since_the_last_time_is_written_too(tmp_path: Path) -> None:
    folder = tmp_path / "films"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (64, 80), dtype=np.uint8)
    for count, name in enumerate(("a", "b"), start=1):
        Image.fromarray(noise).save(folder / f"{name}.png")
        assert write_source(work(str(folder), pairs=PAIRS[:1]), tmp_path / "r.jsonl").written == count


@pytest.mark.parametrize(
    ("changes", "out", "message"),
    [
        ({}, "r.txt", r"r.txt should end in .jsonl or .csv"),
        ({"pairs": ("phantom-fve-m3",)}, "r.jsonl", r"no bundle 'phantom-fve-m3'"),
        ({"source": "phantom:1:3", "split": "validate"}, "r.jsonl", r"has no studies in its split 'validate'"),
        ({"source": "phantoms"}, "r.jsonl", r"no studies at 'phantoms'"),
        ({"device": "cuda:77"}, "r.jsonl", r"device 'cuda:77' cannot be used here.* Use cpu"),
        ({"device": "quantum"}, "r.jsonl", r"device 'quantum' cannot be used here"),
    ],
)
def test_what_cannot_be_done_is_said(tmp_path: Path, changes: dict[str, Any], out: str, message: str) -> None:
    with pytest.raises(CXRLensError, match=message):
        write_source(work(**changes), tmp_path / out)
    assert not (tmp_path / out).exists()


def test_bf16_computes_in_bfloat16_and_an_unknown_precision_is_refused() -> None:
    device, one = open_device("cpu"), torch.ones(4, 4)
    with computing(device, "bf16"):
        assert (one @ one).dtype == torch.bfloat16
    with computing(device, "fp32"):
        assert (one @ one).dtype == torch.float32
    with pytest.raises(CXRLensError, match="fp32, bf16, openvino, openvino-bf16 or auto, not 'fp8'"):
        computing(device, "fp8")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("how", [["--jobs", "2"], ["--device", "cpu", "--devices", "2"]])
def test_processes_that_share_the_work_write_the_same_file(tmp_path: Path, how: list[str]) -> None:
    write_source(work("phantom:140:3", pairs=PAIRS[:1], batch=16), tmp_path / "alone.jsonl")
    command = [sys.executable, "-m", "training.cli", "write", "phantom:140:3", "--out", str(tmp_path / "shared.jsonl")]
    command += ["--bundle", PAIRS[0], *how]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("140 of 140 studies") == 1
    assert (tmp_path / "shared.jsonl").read_bytes() == (tmp_path / "alone.jsonl").read_bytes()
