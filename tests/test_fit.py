"""How training goes on: it resumes to the same weights, stops at a NaN, orders studies, and does a stage once."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as lightning
import torch
from safetensors.torch import load_file
from torch import nn

from core.settings import GENTLE
from training.console import QUIET
from training.fit import fit
from training.loaders import EpochSampler, loaders
from training.modules.augmentation import augment
from training.run_folder import StageError, run_stage

pytestmark = pytest.mark.numeric


class Regression(lightning.LightningModule):
    """A small module with dropout: any lost random state shows in its weights."""

    def __init__(self, stop_at: int | None = None, nan_at: int | None = None) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))
        self.stop_at, self.nan_at = stop_at, nan_at

    def training_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> torch.Tensor:
        if self.current_epoch == self.stop_at:
            raise KeyboardInterrupt
        loss = (self.net(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean()
        return loss * float("nan") if self.current_epoch == self.nan_at else loss

    def validation_step(self, batch: dict[str, torch.Tensor], batch_index: int) -> None:
        self.log("val_loss", (self.net(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=0.01)


def train_regression(folder: Path, **faults: Any) -> Regression:
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(7)
    module = Regression(**faults)
    collate = lambda places: {"x": x[places]}  # noqa: E731
    data = loaders((32, 32), (collate, collate), 8, seed=3)
    fit(folder, module, data, epochs=5, monitor="val_loss", mode="min", patience=9, seed=3)
    return module


def test_an_interrupted_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    whole = train_regression(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_regression(tmp_path / "cut", stop_at=3)
    assert (tmp_path / "cut" / "last.ckpt").is_file()
    torch.rand(5)  # whatever happened to the random state meanwhile
    resumed = train_regression(tmp_path / "cut")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


def test_a_nan_loss_stops_with_a_message_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"loss became nan at epoch 2, batch 0.*learning_rate") as error:
        train_regression(tmp_path, nan_at=2)
    assert (tmp_path / "last.ckpt").is_file()
    path = tmp_path / "nan-batch-epoch2-batch0.safetensors"
    assert str(path) in str(error.value)
    kept = load_file(path)["x"]
    assert kept.shape == (8, 3)
    everything = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
    sampler = EpochSampler(32, 3)
    sampler.set_epoch(2)
    assert torch.equal(kept, everything[list(sampler)[:8]])  # the very batch


def test_an_empty_split_is_refused() -> None:
    with pytest.raises(StageError, match="validation split has no study"):
        loaders((4, 0), (lambda p: {}, lambda p: {}), 2, 0)


def test_orders_differ_by_epoch_and_repeat_by_seed() -> None:
    sampler, again = EpochSampler(50, 1), EpochSampler(50, 1)
    first = list(sampler)
    sampler.set_epoch(1)
    assert first != list(sampler)
    assert first == list(again)
    assert sorted(first) == list(range(50))


def test_batches_of_like_lengths_hold_every_study_once() -> None:
    lengths = torch.randint(5, 128, (203,), generator=torch.Generator().manual_seed(0)).tolist()
    alone = EpochSampler(203, 1).group(lengths, 8)
    order = list(alone)
    assert sorted(order) == list(range(203))
    assert list(EpochSampler(203, 1).group(lengths, 8)) == order

    def padded(places: list[int]) -> int:
        return sum(8 * max(lengths[place] for place in places[at : at + 8]) for at in range(0, 200, 8))

    real = sum(lengths[place] for place in order[:200])
    assert padded(order) < 1.15 * real < 1.4 * real < padded(list(EpochSampler(203, 1)))
    longest = [max(lengths[place] for place in order[at : at + 8]) for at in range(0, 200, 8)]
    assert longest != sorted(longest)  # long and short batches take turns
    alone.set_epoch(1)
    assert list(alone) != order


def test_a_stage_is_skipped_resumed_or_begun_anew(tmp_path: Path) -> None:
    done: list[list[str]] = []

    def work(folder: Path) -> None:
        done.append(sorted(path.name for path in folder.iterdir()))
        (folder / "half").write_text("x")

    def fail(folder: Path) -> None:
        work(folder)
        raise RuntimeError("power cut")

    folder = tmp_path / "stage"
    with pytest.raises(RuntimeError):
        run_stage(folder, {"a": 1}, fail)
    run_stage(folder, {"a": 1}, work)  # resumed: what was there stays
    run_stage(folder, {"a": 1}, work)  # skipped
    run_stage(folder, {"a": 2}, work)  # other inputs: begun anew
    assert done == [["config.json"], ["config.json", "half"], ["config.json"]]
    about = json.loads((folder / "config.json").read_text())
    assert about["identity"] == {"a": 2}
    assert "torch" in about["versions"]


def test_augmentation_keeps_range_and_side() -> None:
    image = torch.zeros(64, 1, 32, 32)
    image[:, :, 8:24, 20:28] = 1.0
    torch.manual_seed(0)
    moved = augment(image, GENTLE)
    assert moved.min() >= 0
    assert moved.max() <= 1
    assert (moved[..., 16:].sum((1, 2, 3)) > 3 * moved[..., :16].sum((1, 2, 3))).all()  # never a flip


def test_two_processes_do_a_stage_once(tmp_path: Path) -> None:
    begun: list[int] = []

    def work(folder: Path) -> None:
        begun.append(1)
        time.sleep(0.2)

    threads = [threading.Thread(target=run_stage, args=(tmp_path / "stage", {"a": 1}, work)) for _ in range(3)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(begun) == 1


def test_progress_lines_replace_bars_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(QUIET, "1")
    train_regression(tmp_path / "stage")
    err = capsys.readouterr().err
    assert err.count("val_loss") == 6  # five epochs and the summary
