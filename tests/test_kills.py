"""A chain that is killed once in every stage, and started again each time, ends as one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.test_training import FEW

ENCODERS = ("dve", "fve", "cve", "ccve")
FITTED = ("backbone", "clip_cve", "clip_ccve", "cdc", "fgc", *(f"{name}-transformer" for name in ENCODERS))
STAGES = {*FITTED, "tokens_fve", "tokens_cve", "tokens_ccve", "export", "evaluate"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_in_each_stage_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert _start(whole).wait() == 0
    begun: set[str] = set()
    for _ in range(2 * len(STAGES)):
        process = _start(killed)
        stage = _kill_in_a_new_stage(process, killed / "phantom", begun)
        if stage is None:
            assert process.returncode == 0
            break
        begun.add(stage)
    assert begun == STAGES
    names = sorted(path.relative_to(whole) for path in (whole / "phantom").rglob("*") if _is_result(path))
    assert {path.parts[1] for path in names} >= {*FITTED, "bundles", "evaluate"}
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name


def _start(runs: Path) -> subprocess.Popen[bytes]:
    chosen = ['decoders=["transformer"]', *FEW]
    options = [part for each in chosen for part in ("--set", each)]
    command = [sys.executable, "-m", "training.cli", "train", "--preset", "phantom", "--runs", str(runs), "--jobs", "1"]
    log = (runs.parent / f"{runs.name}.log").open("ab")
    return subprocess.Popen([*command, *options], cwd=Path(__file__).parent.parent, stdout=log, stderr=log)


def _kill_in_a_new_stage(process: subprocess.Popen[bytes], folder: Path, begun: set[str]) -> str | None:
    """Kill the process in a stage where it was not killed before: the name; None if it came to its end."""
    while process.poll() is None:
        for stage in STAGES - begun:
            if (folder / stage / "config.json").is_file() and _sign(folder, stage).exists():
                if (folder / stage / "done.json").is_file():
                    continue
                process.kill()
                process.wait()
                return stage
        time.sleep(0.01)
    return None


def _sign(folder: Path, stage: str) -> Path:
    """What must be there before a stage is killed: of every second training a checkpoint, else something half done."""
    if stage in FITTED and FITTED.index(stage) % 2 == 0:
        return folder / stage / "last.ckpt"
    if stage.startswith("tokens"):
        return folder / stage / "train"
    return folder / ("bundles/shared" if stage == "export" else f"{stage}/config.json")


def _is_result(path: Path) -> bool:
    return path.name in ("model.safetensors", "table.md", "reports.jsonl") or path.name.endswith("-results.json")
