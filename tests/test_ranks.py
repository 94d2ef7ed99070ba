"""Two processes that train together (gloo, CPU) end with the weights of one alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from safetensors.torch import load_file
from torch import Tensor, nn

from core import ranks
from core.config import load_config
from core.decoders import build_decoder
from core.encoders import build_encoder, token_cache
from core.encoders.base import Normalize
from core.encoders.classifier import ImageClassifier
from core.encoders.token_cache import TokenCache, write_token_cache
from core.registry import CLIP
from core.text import END, PAD, SPECIAL_TOKENS, Vocabulary
from core.types import CXRLensError, VisualTokens
from tests import needs
from tests.test_training import FEW
from training.fit import SameNorms, fit
from training.launch import ONE, Placement, leave, place
from training.loaders import loaders, pad
from training.modules.classifier import ClassifierModule
from training.modules.clip import ClipModule
from training.modules.report import ReportModule
from training.options import PRESETS
from training.run_folder import StageError, run_stage, save_weights
from training.stages.clip import clip
from training.stages.run import Run

pytestmark = pytest.mark.numeric

ROOT = Path(__file__).resolve().parent.parent
TRAIN, VALIDATE, BATCH = 21, 9, 8  # neither is a multiple of two: shares differ
WORDS = Vocabulary((*SPECIAL_TOKENS, "the", "lungs", "are", "clear", "no", "effusion", "heart", "is", "large", "."))


def train_all(folder: Path, placement: Placement) -> None:
    """Train a classifier, cluster CLIP and a decoder for two epochs each, and write a token cache.

    Augmentation and dropout are off: their random numbers are each process's own. Batch norms are absent or frozen.
    """
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(TRAIN, 1, 32, 32, generator=generator)
    config = load_config(PRESETS, "phantom", FEW)
    steps: dict[str, Any] = {"epochs": 2, "patience": 9, "seed": 3, "placement": placement}

    def stage(name: str, module: Any, batch: Any, monitor: str, mode: str) -> None:
        def work(folder: Path) -> None:
            data = loaders((TRAIN, VALIDATE), (batch, batch), BATCH, 3)
            fit(folder, module, data, monitor=monitor, mode=mode, **steps)
            save_weights(folder, {"module": module})

        run_stage(folder / name, {"name": name}, work)

    torch.manual_seed(1)
    targets = (torch.rand(TRAIN, 2, generator=generator) < 0.5).float()
    network = ImageClassifier(
        "convnext_atto", num_classes=2, backbone_args={"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8)}
    )
    settings = replace(config.classifier, augment=False, learning_rate=3e-3)
    module = ClassifierModule(Normalize(32, **CLIP), network, torch.tensor([0.5, 0.4]), settings)
    stage("classifier", module, lambda p: {"images": images[p], "targets": targets[p]}, "val_auc", "max")

    torch.manual_seed(1)
    ids = torch.zeros(TRAIN, 77, dtype=torch.long)
    ids[:, :5] = torch.randint(len(SPECIAL_TOKENS), len(WORDS), (TRAIN, 5), generator=generator)
    ids[5], ids[:, 5] = ids[4], END  # two alike are no negatives of each other
    clusters = torch.randint(0, 13, (TRAIN,), generator=generator)
    arch = {
        "embed_dim": 8,
        "pretrained": None,
        "text": {"kind": "transformer", "tokenizer": "words", "width": 8, "heads": 2, "layers": 1},
    }
    tower = {"layers": (1, 1, 1, 1), "channels": (8, 8, 8, 8), "stem_type": "deep", "stem_width": 4}
    image = {
        "kind": "timm",
        "image_size": 32,
        "features": 8,
        "heads": 2,
        "backbone": "resnet18",
        "backbone_args": tower,
        "pretrained": None,
    }
    encoder = build_encoder("ccve", "tiny", vocabulary=WORDS, clip={**arch, "image": image})
    encoder.normalize.image_size = 32
    clip = ClipModule(encoder, replace(config.cluster_clip, augment=False, freeze_norms=True, absent=False))  # type: ignore[arg-type]
    stage("clip", clip, lambda p: {"images": images[p], "ids": ids[p], "clusters": clusters[p]}, "val_loss", "min")

    for name in ("transformer", "cnn_rnn_rnn"):
        torch.manual_seed(1)
        tokens = torch.randn(TRAIN, 4, 6, generator=torch.Generator().manual_seed(2))
        texts = [["the lungs are clear .", "heart is large . no effusion ."][place % 2] for place in range(TRAIN)]
        rows = [WORDS.encode(text, 20, sentences=name == "cnn_rnn_rnn") for text in texts]
        decoder = build_decoder(name, "tiny", token_width=6, vocabulary_size=len(WORDS), dropout=0.0)
        report = ReportModule(None, [VisualTokens(tokens[:0], ((2, 2),), ("x",) * 4)], decoder, WORDS, config.report)
        batch = lambda p, rows=rows, tokens=tokens: {"tokens": [tokens[p]], "ids": pad([rows[each] for each in p], PAD)}  # noqa: E731
        stage(name, report, batch, "val_bleu_4", "max")

    token_cache.SHARD = 4
    write_token_cache(
        folder / "cache",
        "k",
        nn.Sequential(nn.Flatten(), _Tokens()),  # type: ignore[arg-type]
        lambda start, end: images[start:end],
        TRAIN,
        rank=ranks.rank(),
        ranks=ranks.count(),
    )
    ranks.wait()


class _Tokens(nn.Module):
    def forward(self, rows: Tensor) -> VisualTokens:
        return VisualTokens(rows.unsqueeze(1), (), ("x",))


def _one_of_two(rank: int, folder: Path, port: int) -> None:
    torch.set_num_threads(1)
    environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}
    os.environ |= {key: str(value) for key, value in environment.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    placement = place("cpu", None, None)
    train_all(folder, placement)

    norm = nn.BatchNorm1d(2)
    norm.running_mean = torch.full((2,), float(rank))
    SameNorms().on_validation_start(None, norm)
    problems = []
    for wrong in (lambda: loaders((8, 1), (pad, pad), 4, 0), lambda: loaders((8, 8), (pad, pad), 5, 0)):  # type: ignore[arg-type, return-value]
        with pytest.raises(StageError) as error:
            wrong()
        problems.append(str(error.value))
    with pytest.raises(StageError) as error:
        run_stage(folder / "differs", {"rank": rank}, lambda folder: None)
    problems.append(str(error.value))
    heard = {
        "rows": ranks.gather_rows(torch.arange(7)[rank::2]).tolist(),
        "first": ranks.from_first(rank),
        "norm": norm.running_mean.tolist(),
        "weight": float(ranks.weight(torch.tensor([3, 1][rank]))),
        "problems": problems,
        "placement": [placement.devices, placement.num_nodes],
        "threads": _threads_of_the_group(),
    }
    leave()
    heard |= {"left": not torch.distributed.is_initialized(), "threads left": _threads_of_the_group()}
    (folder / f"heard-{rank}.json").write_text(json.dumps(heard))


def _threads_of_the_group() -> list[str]:
    """Names of gloo's threads and its store's in this process; none where the system has no /proc."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sorted(name for name in names if "gloo" in name or "store" in name)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import socket

    folder = tmp_path_factory.mktemp("together")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(_one_of_two, (folder, port), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, shard = tmp_path_factory.mktemp("alone"), token_cache.SHARD
    try:
        train_all(folder, ONE)
    finally:
        token_cache.SHARD = shard
    return folder


@pytest.mark.parametrize("stage", ["classifier", "clip", "transformer", "cnn_rnn_rnn"])
def test_two_processes_get_the_weights_of_one(stage: str, alone: Path, together: Path) -> None:
    one, two = (load_file(folder / stage / "model.safetensors") for folder in (alone, together))
    assert one.keys() == two.keys()
    for key, value in one.items():
        torch.testing.assert_close(two[key], value, rtol=1e-3, atol=2e-5, msg=lambda text, key=key: f"{key}: {text}")
    best = [json.loads((folder / stage / "summary.json").read_text()) for folder in (alone, together)]
    assert best[1]["best"] == pytest.approx(best[0]["best"], rel=1e-4)
    assert best[1]["epochs"] == best[0]["epochs"]
    assert (together / stage / "done.json").read_text() == (alone / stage / "done.json").read_text()
    assert not list((together / stage).glob("*.ckpt"))


def test_two_processes_write_the_token_cache_of_one(
    alone: Path, together: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_cache, "SHARD", 4)
    one, two = (TokenCache.open(folder / "cache", "k").tokens(list(range(TRAIN))) for folder in (alone, together))
    assert torch.equal(one, two)


def test_what_processes_tell_each_other(together: Path) -> None:
    heard = [json.loads((together / f"heard-{rank}.json").read_text()) for rank in range(2)]
    for each in heard:
        assert each["rows"] == list(range(7))
        assert each["first"] == 0
        assert each["norm"] == [0.5, 0.5]
        assert each["placement"] == [2, 1]
        few, uneven, different = each["problems"]
        assert "validation split has 1 studies for 2 processes" in few
        assert "batch of 5 cannot be shared equally by 2 processes. Set the stage's batch_size to 4 or 6" in uneven
        assert "see different data or settings" in different
    assert [each["weight"] for each in heard] == [1.5, 0.5]


def test_processes_end_their_groups_threads_before_they_end(together: Path) -> None:
    """A thread that outlives Python's end aborts its process, now and then."""
    for rank in range(2):
        heard = json.loads((together / f"heard-{rank}.json").read_text())
        assert heard["left"]
        assert heard["threads left"] == []
        if sys.platform == "linux":
            assert any("gloo" in name for name in heard["threads"])  # they would be seen


def test_synchronised_norms_keep_timms_activations() -> None:
    """On GPUs norms are synchronised; torch's own conversion would drop the activation inside timm's norms."""
    import timm
    from timm.layers import convert_sync_batchnorm

    torch.manual_seed(0)
    network = timm.create_model("efficientnet_lite0", num_classes=2).eval()
    images = torch.rand(2, 3, 64, 64)
    before, keys = network(images), list(network.state_dict())
    converted = convert_sync_batchnorm(network)
    assert any(isinstance(each, nn.SyncBatchNorm) for each in converted.modules())
    torch.testing.assert_close(converted(images), before)
    assert list(converted.state_dict()) == keys


def test_wrong_placements_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CXRLensError, match="start it on every node"):
        place("cpu", 2, 2)
    if not torch.cuda.is_available():
        with pytest.raises(CXRLensError, match="sees no GPU"):
            place("gpu", 1, 1)
    for key, value in {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 4, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with pytest.raises(CXRLensError, match="does not fit what was started: 4 processes, 2 a node"):
        place("cpu", 4, 1)


# The command thirty times by two processes each, which are forks of this one: it has imported what takes long.
TWICE_THIRTY = """
import json, os, socket, sys
from training import cli, evaluate, launch
from training.paper import chain

def go(rank, port):
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ |= {"GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "x"}
    os.dup2(2, 1)
    cli.main()  # and on to Python's own end

codes = []
for _ in range(30):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(2):
        child = os.fork()
        if not child:
            go(rank, port)
            sys.exit()
        started.append(child)
    codes += [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in started]
print(json.dumps(codes))
"""


@pytest.mark.slow
@pytest.mark.timeout(1200)
@needs.FORK.unless(hasattr(os, "fork"))
def test_the_command_trains_with_two_processes(tmp_path: Path) -> None:
    pair = ["encoders=['cve']", "decoders=['transformer']"]
    arguments = [part for each in (*FEW, *pair) for part in ("--set", each)]
    command = [sys.executable, "-m", "training.cli", "train", "--preset", "phantom", "--runs", str(tmp_path)]
    command += ["--devices", "2", "--accelerator", "cpu", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    first = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert first.returncode == 0, first.stderr[-3000:]
    assert first.stdout.count("held-out studies. ") == 1  # one process speaks
    keys = {path.parent.name: json.loads(path.read_text())["key"] for path in tmp_path.glob("phantom/*/done.json")}
    run = Run(load_config(PRESETS, "phantom", [*FEW, *pair]), tmp_path / "phantom")
    assert clip(run, "cve")["clip_cve"] == keys["clip_cve"]  # one process finds the stage done
    again = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert again.returncode == 0, again.stderr[-3000:]
    assert "done before, skipped" in again.stderr
    assert "▸" not in again.stderr  # no stage began anew

    # Where all is done, processes end soon after they met: the end of one must not reach into that of another.
    arguments = ["train", "--preset", "phantom", "--runs", str(tmp_path), "--accelerator", "cpu", *arguments]
    ends = subprocess.run(
        [sys.executable, "-c", TWICE_THIRTY, *arguments], capture_output=True, text=True, cwd=ROOT, env=environment
    )
    assert ends.returncode == 0, ends.stderr[-3000:]
    assert json.loads(ends.stdout.splitlines()[-1]) == [0] * 60
