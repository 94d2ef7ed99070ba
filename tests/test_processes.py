"""On a machine with GPUs, each command computes where it was told, with the right number of processes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import core.devices
import core.evaluation.writing
import core.projection.embeddings
import training.evaluate
import training.explain.benchmark
import training.launch
import training.paper.chain
import training.paper.probes
from core import ranks
from core.evaluation.own import Asked
from core.types import CXRLensError
from dashboard import settings
from dashboard.services import bundles
from tests import needs
from tests.commands import cxr_lens, refused, run
from tests.conftest import BUNDLES
from training.launch import Placement, place

CORES, GPUS = 6, 2
BUNDLE = "phantom-fve-m2"


class Began(Exception):  # noqa: N818 - no error
    """The work of a command would begin now."""

    def __init__(self, device: str, jobs: int, precision: str = "fp32") -> None:
        super().__init__(device, jobs, precision)
        self.asked = device, jobs, precision


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with two GPUs, whose commands stop where their work begins, and say how they would do it."""

    def begin_writing(work: Any, out: Path, jobs: int, progress: Any) -> None:
        raise Began(work.device, jobs, work.precision)

    def begin_embedding(work: Any, progress: Any) -> None:
        raise Began(work.device, 1, work.precision)

    def begin_evaluation(*arguments: Any, device: str, precision: str) -> None:
        raise Began(device, arguments[4], precision)

    def begin_explaining(*arguments: Any, jobs: int, device: str, **how: Any) -> None:
        raise Began(device, jobs, arguments[3].precision)

    def begin_training(run: Any, bundles: Path, jobs: int) -> None:
        raise Began(str(run.placement.device), jobs)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: GPUS)
    monkeypatch.setattr(os, "cpu_count", lambda: CORES)
    monkeypatch.setattr(core.devices, "open_device", lambda name="auto": torch.device({"auto": "cuda"}.get(name, name)))
    monkeypatch.setattr(core.evaluation.writing, "write_source", begin_writing)
    monkeypatch.setattr(core.projection.embeddings, "embed", begin_embedding)
    monkeypatch.setattr(training.evaluate, "evaluate", begin_evaluation)
    monkeypatch.setattr(training.explain.benchmark, "explain_benchmark", begin_explaining)
    monkeypatch.setattr(training.paper.chain, "run_chain", begin_training)
    monkeypatch.setattr(training.paper.probes, "require_catboost", lambda: None)
    for name in ("CXR_DEVICE", "CXR_PRECISION"):
        monkeypatch.delenv(name, raising=False)


def began(command: str, folder: Path) -> tuple[str, int, str]:
    result = run(*command.replace("{here}", str(folder)).split())
    assert isinstance(result.exception, Began), (result.output, result.exception)
    return result.exception.asked


WRITE = f"write phantom:10:3 --bundle {BUNDLE} --out {{here}}/r.jsonl"
DETECT = f"detect --finding edema --count 2 --bundle {BUNDLE} --out {{here}}"
EXPLAIN = "explain-benchmark --preset phantom --jobs 0"


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (WRITE, ("cuda", 1, "fp32")),
        (f"{WRITE} --device cuda:1 --precision bf16", ("cuda:1", 1, "bf16")),
        (f"{WRITE} --device cpu", ("cpu", CORES, "fp32")),
        (f"{WRITE} --device cpu --jobs 2", ("cpu", 2, "fp32")),
        (f"{WRITE} --jobs 3", ("cuda", 3, "fp32")),
        (DETECT, ("cuda", 1, "fp32")),
        (f"{DETECT} --device cpu --precision bf16", ("cpu", CORES, "bf16")),
        (f"embed phantom:10:3 --bundle {BUNDLE}", ("cuda", 1, "fp32")),
        (f"embed phantom:10:3 --bundle {BUNDLE} --device cpu --precision bf16", ("cpu", 1, "bf16")),
        ("evaluate --preset phantom", ("cuda", 1, "fp32")),
        ("evaluate --preset phantom --device cpu", ("cpu", CORES, "fp32")),
        ("evaluate --preset phantom --device cuda:1 --precision bf16", ("cuda:1", 1, "bf16")),
        (EXPLAIN, ("cuda", 1, "fp32")),
        (f"{EXPLAIN} --device cpu --precision bf16", ("cpu", CORES, "bf16")),
        ("train --preset phantom --runs {here}", ("cuda:0", 1, "fp32")),
        ("train --preset phantom --runs {here} --accelerator cpu", ("cpu", CORES, "fp32")),
        ("paper --preset phantom --runs {here}", ("cuda:0", 1, "fp32")),
        ("paper --preset phantom --runs {here} --accelerator cpu", ("cpu", CORES, "fp32")),
    ],
)
def test_processes_follow_the_device(
    command: str, expected: tuple[str, int, str], machine: None, tmp_path: Path
) -> None:
    assert began(command, tmp_path) == expected


@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_the_environment_names_the_device_where_no_option_does(
    machine: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXR_DEVICE", "cuda:1")
    monkeypatch.setenv("CXR_PRECISION", "bf16")
    for command in (WRITE, f"embed phantom:10:3 --bundle {BUNDLE}", "evaluate --preset phantom", EXPLAIN):
        assert began(command, tmp_path) == ("cuda:1", 1, "bf16")
    assert began("evaluate --preset phantom --device cpu --precision fp32", tmp_path) == ("cpu", CORES, "fp32")
    work = Asked("phantom:10:3", "", None, str(BUNDLES), "phantom", {BUNDLE: {}}).work()
    assert (work.device, work.precision) == ("cuda:1", "bf16")
    assert (settings.device(), settings.precision()) == ("cuda:1", "bf16")


def test_a_gpu_for_each_process(machine: None, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    place("gpu", GPUS, None)
    assert f"--nproc-per-node={GPUS}" in started[0]
    with pytest.raises(CXRLensError, match=f"--devices 3: this machine has {GPUS} GPU"):
        place("auto", 3, None)
    monkeypatch.setattr(ranks, "rank", lambda: 3)
    assert Placement("auto", GPUS, 2).device == torch.device("cuda", 1)
    assert Placement("cpu", GPUS, 2).device == torch.device("cpu")


def test_without_a_gpu_one_that_is_asked_for_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for command in ("train --preset phantom", "paper --preset phantom", "table 2", "table 3", "study encoders"):
        assert "torch sees no GPU here" in refused(*command.split(), "--runs", tmp_path, "--accelerator", "gpu")
    for command in (WRITE, "evaluate --preset phantom", EXPLAIN, "study ccve"):
        words = command.replace("{here}", str(tmp_path)).split()
        assert "device 'cuda:7' cannot be used here" in refused(*words, "--device", "cuda:7")


def test_the_dashboard_is_told_where_to_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_DEVICE", "auto")
    monkeypatch.setenv("CXR_PRECISION", "fp32")
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append(words))
    words = ["--device", "cpu", "--precision", "bf16", "--server.port", "8600"]
    assert cxr_lens("dashboard", *words).returncode == 0
    assert (os.environ["CXR_DEVICE"], os.environ["CXR_PRECISION"]) == ("cpu", "bf16")
    assert started[0][-2:] == ["--server.port", "8600"]
    assert "--device" not in started[0]
    ended = cxr_lens("dashboard", "--device", "cuda:7")
    assert ended.returncode == 2
    assert "device 'cuda:7' cannot be used here" in ended.stderr
    assert len(started) == 1


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("CXR_DEVICE", "cuda:7", "device 'cuda:7' cannot be used"), ("CXR_PRECISION", "fp8", "fp32 or bf16, not 'fp8'")],
)
def test_pages_say_what_is_wrong_with_the_environment(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    models, damaged = bundles.open_usable(list(bundles.cards("phantom").values())[:2])
    assert not models
    assert len(damaged) == 2
    assert all(message in each for each in damaged.values())
    monkeypatch.delenv(name)
    monkeypatch.setenv("CXR_PRECISION", "bf16")
    models, damaged = bundles.open_usable(list(bundles.cards("phantom").values())[:1])
    assert [each.precision for each in models] == ["bf16"]
    assert not damaged
