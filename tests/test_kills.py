"""A command that is killed once in every stage, and started again each time, ends as one that nobody disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from core.registry import ENCODERS
from tests import needs
from tests.test_training import FEW
from training.backbones import BACKBONES

pytestmark = pytest.mark.numeric

FITTED = ("backbone", "clip_cve", "clip_ccve", "cdc_fve", "fgc_fve", *(f"{name}-transformer" for name in ENCODERS))
# What must be there before a stage is killed: of every second training a checkpoint, else something half done.
TRAINED = {name: f"{name}/{'config.json' if place % 2 else 'last.ckpt'}" for place, name in enumerate(FITTED)}
CHAIN = {
    **TRAINED,
    **{f"tokens_{name}": f"tokens_{name}/train" for name in ("fve", "cve", "ccve")},
    "export": "bundles/shared",
    "evaluate": "evaluate/config.json",
}
ROWS = (*(f"table2/{name}" for name in BACKBONES), "table3")
TABLES = {
    **{name: f"{name}/{'last.ckpt' if place % 2 else 'config.json'}" for place, name in enumerate(ROWS)},
    "table2/cdc": "table2/cdc/config.json",
    "study_ccve": "study_ccve/ccve/train",
}


# The command, but for a stage of which the test has not seen yet that it began: that one does not end.
HELD = """
import json, sys, time
from pathlib import Path
from training import cli, run_folder

preset, seen, stages = Path(sys.argv.pop(1)), Path(sys.argv.pop(1)), json.loads(sys.argv.pop(1))
write_whole = run_folder.write_whole

def held(path, text):
    stage = path.parent.relative_to(preset).as_posix() if path.name == "done.json" else ""
    while stage in stages and not (seen / stage).exists():
        time.sleep(0.01)
    write_whole(path, text)

run_folder.write_whole = held
cli.main()
"""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_in_each_stage_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    names = _killed_and_whole("train", CHAIN, tmp_path)
    assert {path.parts[1] for path in names} >= {*FITTED, "bundles", "evaluate"}


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 25 minutes where other work runs beside it
@needs.CATBOOST.packages("catboost")
def test_killed_in_each_table_it_ends_with_the_same_tables(tmp_path: Path) -> None:
    names = _killed_and_whole("paper", TABLES, tmp_path)
    written = {path.name for path in names if path.parts[0] == "out"}
    assert written >= {"table-1.json", "table-2.json", "table-3.md", "ccve.csv"}


def _killed_and_whole(command: str, stages: Mapping[str, str], folder: Path) -> list[Path]:
    """Run a command whole, and another killed in each stage; what both wrote, which must be equal.

    Args:
        command: of the command line.
        stages: name -> what must be there, in the preset's folder, before it is killed.
        folder: for both.
    """
    whole, killed = folder / "whole", folder / "killed"
    assert _start(command, whole).wait() == 0
    begun: set[str] = set()
    seen = folder / "seen"
    held = ["-c", HELD, str(killed / "phantom"), str(seen), json.dumps(list(stages))]
    for _ in range(len(stages) + 1):
        process = _start(command, killed, held)
        stage = _kill_in_a_new_stage(process, killed / "phantom", stages, begun)
        if stage is None:
            assert process.returncode == 0
            break
        begun.add(stage)
        (seen / stage).mkdir(parents=True)
    assert begun == set(stages)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*") if _is_result(path))
    for name in names:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    return names


def _start(name: str, runs: Path, program: Sequence[str] = ("-m", "training.cli")) -> subprocess.Popen[bytes]:
    options = [part for each in ('decoders=["transformer"]', *FEW) for part in ("--set", each)]
    command = [sys.executable, *program, name, "--preset", "phantom", "--runs", str(runs), "--jobs", "1"]
    command += ["--out", str(runs / "out")] if name == "paper" else []
    log = (runs.parent / f"{runs.name}.log").open("ab")
    return subprocess.Popen([*command, *options], cwd=Path(__file__).parent.parent, stdout=log, stderr=log)


def _kill_in_a_new_stage(
    process: subprocess.Popen[bytes], folder: Path, stages: Mapping[str, str], begun: set[str]
) -> str | None:
    """Kill the process in a stage where it was not killed before: the name; None if it came to its end."""
    while process.poll() is None:
        for stage in stages.keys() - begun:
            if (folder / stages[stage]).exists() and not (folder / stage / "done.json").is_file():
                process.kill()
                process.wait()
                return stage
        time.sleep(0.01)
    return None


def _is_result(path: Path) -> bool:
    if path.name in ("model.safetensors", "table.md", "reports.jsonl") or path.name.endswith("-results.json"):
        return True
    return path.parent.parent.name == "out"
