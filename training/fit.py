"""The one training loop: it resumes, stops before a loss that is no number, and keeps the best weights."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from safetensors.torch import save_file
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.utils.data import DataLoader

from core import ranks
from core.files import write_whole
from core.wording import counted
from training import checkpoints
from training.console import has_no_bars, note
from training.launch import ONE, Placement
from training.run_folder import StageError


def fit(
    folder: Path,
    module: lightning.LightningModule,
    data: tuple[DataLoader[int], DataLoader[int]],
    *,
    epochs: int,
    monitor: str,
    mode: str,
    patience: int,
    seed: int,
    gradient_clip: float = 1.0,
    placement: Placement = ONE,
) -> None:
    """Train, or go on training, and leave the best weights in ``module``.

    A checkpoint is written each epoch; an interrupted training resumes from it to the same result. Where all weights'
    gradient together is longer than ``gradient_clip`` it is cut to that length; 0 leaves it.
    """
    torch.manual_seed(seed)
    if placement.gpu and ranks.count() > 1:
        convert_sync_batchnorm(module)  # timm's: torch's own would lose the activations inside timm's norms
    best = ModelCheckpoint(
        folder, filename="best", monitor=monitor, mode=mode, save_last=True, enable_version_counter=False
    )
    trainer = lightning.Trainer(
        max_epochs=epochs,
        **placement.trainer_arguments(),
        use_distributed_sampler=False,  # ours deals out
        callbacks=[
            best,
            EarlyStopping(monitor, mode=mode, patience=patience),
            StepSeed(seed),
            StopOnNaN(folder),
            SameNorms(),
            EpochLine(folder.name, monitor) if has_no_bars() else TQDMProgressBar(refresh_rate=20),
        ],
        plugins=[checkpoints.WholeCheckpoints()],
        logger=CSVLogger(folder, name=None, version=_log_name(folder)),
        gradient_clip_val=gradient_clip or None,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=not has_no_bars(),
        log_every_n_steps=50,
        deterministic="warn" if placement.gpu else True,  # some operations have no repeatable kernel on GPUs
    )
    last, best_file = folder / checkpoints.LAST, folder / checkpoints.BEST
    if ranks.is_first() and (fault := checkpoints.fault_in(folder)):
        note(f"  {folder.name}: {fault}. Its training begins anew.")
        checkpoints.remove(folder)
    ranks.wait()  # all go on from the same
    try:
        trainer.fit(module, *data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from interrupted
    if fault := checkpoints.fault_of(best_file):
        raise StageError(f"{best_file} is damaged: {fault}. Run the same command again: this training begins anew.")
    state = torch.load(best_file, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state, strict=True)
    module.cpu().eval()
    score = best.best_model_score
    summary = {"monitor": monitor, "best": float(score) if score is not None else None, "epochs": trainer.current_epoch}
    note(
        f"  {folder.name}: best {monitor} {summary['best']:.4f} in {counted(trainer.current_epoch, 'epoch', 'epochs')}"
    )
    ranks.wait()  # until all have read the checkpoint
    if not ranks.is_first():
        return
    write_whole(folder / "summary.json", json.dumps(summary, indent=2))
    checkpoints.remove(folder)  # weights are written as safetensors


def _log_name(folder: Path) -> str:
    """Name the log "log", or "log-2" and so on after an interruption: Lightning would delete the first part's lines."""
    parts = sum(1 for _ in folder.glob("log*/"))
    return "log" if not parts else f"log-{parts + 1}"


class EpochLine(Callback):
    """One line an epoch, where several stages train side by side and bars would overwrite each other."""

    def __init__(self, name: str, monitor: str) -> None:
        """Name the stage, and what it watches."""
        self.name, self.monitor, self.began = name, monitor, time.monotonic()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Say how it goes."""
        value = float(trainer.callback_metrics.get(self.monitor, torch.tensor(math.nan)))
        seconds = time.monotonic() - self.began
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        note(f"  {self.name}: {epoch}, {self.monitor} {value:.4f}, {seconds:.0f} s")


class StepSeed(Callback):
    """Seed torch at each step: dropout and augmentation resume as they would have gone on.

    Each process has numbers of its own; otherwise all would turn their images alike.
    """

    def __init__(self, seed: int) -> None:
        """Remember the run's seed."""
        self.seed = seed

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Seed."""
        torch.manual_seed(self.seed * 100_003 + trainer.global_step + (ranks.rank() << 40))


class SameNorms(Callback):
    """Average the statistics of batch norms over all processes before each validation: one model is validated."""

    def on_validation_start(self, trainer: Any, pl_module: Any) -> None:
        """Average."""
        norms = [each for each in pl_module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        ranks.average([each for norm in norms for each in (norm.running_mean, norm.running_var) if each is not None])


class StopOnNaN(Callback):
    """Stop before a NaN loss reaches the weights' checkpoint, and keep the batch that made it."""

    def __init__(self, folder: Path) -> None:
        """Remember the stage's folder."""
        self.folder = folder

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Check the loss.

        Raises:
            StageError: it is no finite number; the message names the file with the batch.
        """
        loss = outputs["loss"] if isinstance(outputs, Mapping) else outputs
        if loss is not None and not torch.isfinite(loss):
            kept = self._keep(batch, trainer.current_epoch, batch_idx)
            raise StageError(
                f"The loss became {float(loss)} at epoch {trainer.current_epoch}, batch {batch_idx}. {kept} The last "
                "checkpoint is kept. Look whether the batch has odd values; else lower the stage's learning_rate and "
                "run again."
            )

    def _keep(self, batch: Mapping[str, Any], epoch: int, index: int) -> str:
        path = self.folder / f"nan-batch-epoch{epoch}-batch{index}.safetensors"
        tensors = {
            key if part_index is None else f"{key}.{part_index}": part.detach().cpu().contiguous()
            for key, value in batch.items()
            for part_index, part in (enumerate(value) if isinstance(value, list) else [(None, value)])
        }
        try:
            save_file(tensors, path)
        except OSError as error:
            return f"The batch could not be kept ({error})."
        return f"The batch is kept in {path}."
