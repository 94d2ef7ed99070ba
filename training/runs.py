"""Run folders: what a stage was given, what it wrote, whether it is done; and the one training loop."""

from __future__ import annotations

import ctypes
import hashlib
import importlib.metadata
import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Self

import pytorch_lightning as lightning
import torch
from filelock import FileLock
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from core import ranks
from core.files import write_whole
from core.types import CXRLensError
from training import console
from training.launch import ONE, Placement

PACKAGES = ("torch", "timm", "open_clip_torch", "pytorch-lightning", "numpy", "scikit-learn")


QUIET = "CXR_LENS_QUIET"
"""Set in the processes of stages that train side by side."""


def use_threads_for(size: str) -> None:
    """Set torch's threads for a model size: tiny models lose time when threads wait for each other."""
    if size == "tiny":
        torch.set_num_threads(1)


def keep_memory() -> None:
    """Let this process keep what it frees, on Linux: getting it back for each step takes long."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            libc.mallopt(parameter, value)
    except (OSError, AttributeError):  # another C library
        return


_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # src: malloc.h of glibc


class StageError(CXRLensError):
    """A stage cannot run; the message says why and what to do."""


def say(text: str) -> None:
    """Tell the user on stderr; stdout is for results. Of processes that train together, only the first speaks."""
    if ranks.is_first():
        console.note(text)


def is_quiet() -> bool:
    """Whether stages train side by side, this process leaves the talking to another, or the user wants none."""
    return QUIET in os.environ or console.is_quiet() or not ranks.is_first()


def content_hash(value: Any) -> str:
    """Short hash of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_hash(path: Path) -> str:
    """Short hash of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def run_stage(folder: Path, inputs: Mapping[str, Any], work: Callable[[Path], None]) -> str:
    """Do a stage once.

    Skipped when it is done with the same inputs; resumed when it was interrupted with the same inputs; begun anew
    when the inputs changed. Where another process is at it, this one waits, and then finds it done. Processes that
    train together (`core.ranks`) all do the work; the first holds the lock and says when it is done.

    Args:
        folder: of the stage.
        inputs: everything that decides its result: config, data, hashes of the stages before.
        work: does it, into the folder.

    Returns:
        A hash of the inputs, for the stages after.

    Raises:
        StageError: processes that train together were given different inputs.
    """
    key = content_hash(inputs)
    if set(ranks.gather(key)) != {key}:
        raise StageError(
            f"{folder.name}: the processes see different data or settings. They must read the same folders."
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.parent / f".{folder.name}.lock") if ranks.is_first() else nullcontext():
        if ranks.from_first(ranks.is_first() and _begin(folder, key, inputs)):
            work(folder)
            ranks.wait()
            if ranks.is_first():
                write_whole(folder / "done.json", json.dumps({"key": key}))
            ranks.wait()
    return key


def _begin(folder: Path, key: str, inputs: Mapping[str, Any]) -> bool:
    """Prepare a stage's folder; False where it is done."""
    config, done = folder / "config.json", folder / "done.json"
    if done.is_file() and json.loads(done.read_text(encoding="utf-8"))["key"] == key:
        say(f"· {folder.name}: done before, skipped")
        return False
    if folder.exists() and (not config.is_file() or json.loads(config.read_text(encoding="utf-8"))["key"] != key):
        shutil.rmtree(folder)
    resumed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    about = {"key": key, "inputs": inputs, "versions": {"python": sys.version.split()[0], **versions}}
    write_whole(config, json.dumps(about, indent=2, default=str))
    say(f"▸ {folder.name}{' (resumed)' if resumed else ''}")
    return True


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
        say(f"  {self.name}: {epoch}, {self.monitor} {value:.4f}, {seconds:.0f} s")


GROUPED = 20
"""Batches among whose studies those of like length are put together."""


class EpochSampler(Sampler[int]):
    """A random order that depends on seed and epoch only, so that a resumed training sees what it would have seen.

    Processes that train together are dealt equal shares of it: their batches make up the batch of one alone.
    """

    def __init__(self, size: int, seed: int) -> None:
        """Order ``size`` items."""
        self.size, self.seed, self.epoch = size, seed, 0
        self.lengths: Sequence[int] = ()
        self.together = 1

    def group(self, lengths: Sequence[int], batch_size: int) -> Self:
        """Let a batch of all processes have texts of like ``lengths``: padding is computed for nothing."""
        self.lengths, self.together = lengths, batch_size
        return self

    def grouped(self) -> list[int]:
        """One epoch of all processes, in batches of like lengths where they are known, in random order."""
        order, size = self.order(), self.together
        if not self.lengths:
            return order
        whole = len(order) // size * size
        starts = range(0, whole, GROUPED * size)
        windows = [sorted(order[at : min(at + GROUPED * size, whole)], key=self.lengths.__getitem__) for at in starts]
        batches = [window[at : at + size] for window in windows for at in range(0, len(window), size)]
        shuffled = torch.randperm(len(batches), generator=self._generator(25_000)).tolist()
        return [place for batch in shuffled for place in batches[batch]] + order[whole:]

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning before each epoch."""
        self.epoch = epoch

    def order(self) -> list[int]:
        """One epoch of all processes."""
        order: list[int] = torch.randperm(self.size, generator=self._generator(0)).tolist()
        return order

    def _generator(self, offset: int) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed * 100_003 + self.epoch + offset)

    def __iter__(self) -> Iterator[int]:
        """Deal out this process's part of an epoch."""
        return iter(self.grouped()[ranks.rank() :: ranks.count()][: len(self)])

    def __len__(self) -> int:
        """Number of this process's items."""
        return self.size // ranks.count()


class ClassAwareSampler(EpochSampler):
    """Every second place is a positive of a class, all classes in turn; the other places are studies in random order.

    With a few hundred classes of which many are rare, a batch in random order has no positive of most of them, and the
    AUC margin loss has nothing to push apart (paper-notes 4.3). Its positive rates stay those of the data set.
    """

    def __init__(self, targets: Tensor, seed: int) -> None:
        """Order studies with ``targets`` (n, K) in {0, 1}; classes without a positive have no turn."""
        super().__init__(len(targets), seed)
        self.positives = [rows for column in targets.T if len(rows := column.nonzero().flatten())]

    def order(self) -> list[int]:
        """One epoch of all processes, as long as the data set."""
        order = super().order()
        generator = self._generator(50_000)
        turns: list[int] = []
        for place in range(1, len(order), 2) if self.positives else ():
            if not turns:
                turns = torch.randperm(len(self.positives), generator=generator).tolist()
            rows = self.positives[turns.pop()]
            order[place] = int(rows[int(torch.randint(len(rows), (1,), generator=generator))])
        return order


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
        from safetensors.torch import save_file

        path = self.folder / f"nan-batch-epoch{epoch}-batch{index}.safetensors"
        tensors = {
            key if place is None else f"{key}.{place}": part.detach().cpu().contiguous()
            for key, value in batch.items()
            for place, part in (enumerate(value) if isinstance(value, list) else [(None, value)])
        }
        try:
            save_file(tensors, path)
        except OSError as error:
            return f"The batch could not be kept ({error})."
        return f"The batch is kept in {path}."


Collate = Callable[[list[int]], dict[str, Tensor]]


def loaders(
    sizes: tuple[int, int],
    collate: tuple[Collate, Collate],
    batch_size: int,
    seed: int,
    positives: Tensor | None = None,
    lengths: Sequence[int] = (),
) -> tuple[DataLoader[int], DataLoader[int]]:
    """Training and validation loaders over places 0 to size - 1, which ``collate`` turns into batches.

    Args:
        sizes: of the training and the validation split.
        collate: for each.
        batch_size: of all processes that train together; each has an equal share.
        seed: of the order.
        positives: (size, K) targets for class-aware sampling; None takes studies in random order.
        lengths: of the training split's texts, to group them by; empty does not group.

    Raises:
        StageError: a split is empty, or the batch cannot be shared equally.
    """
    together = ranks.count()
    for size, split in zip(sizes, ("training", "validation"), strict=True):
        if size == 0:
            raise StageError(f"The {split} split has no study for this stage. Raise data.count.")
        if size < together:
            raise StageError(f"The {split} split has {size} studies for {together} processes. Use fewer (--devices).")
    if batch_size % together:
        raise StageError(
            f"A batch of {batch_size} cannot be shared equally by {together} processes. Set the stage's batch_size to "
            f"{batch_size // together * together or together} or {(batch_size // together + 1) * together}, or change "
            "--devices."
        )
    batch_size = min(batch_size, sizes[0])
    sampler = EpochSampler(sizes[0], seed) if positives is None else ClassAwareSampler(positives, seed)
    train: DataLoader[int] = DataLoader(
        range(sizes[0]),  # type: ignore[arg-type]
        batch_size=batch_size // together,
        sampler=sampler.group(lengths, batch_size // together * together),
        collate_fn=collate[0],
        drop_last=True,
    )
    validate: DataLoader[int] = DataLoader(
        range(ranks.rank(), sizes[1], together),  # type: ignore[arg-type]
        batch_size=64,
        collate_fn=collate[1],
    )
    return train, validate


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
    placement: Placement = ONE,
) -> None:
    """Train, or go on training, and leave the best weights in ``module``.

    A checkpoint is written each epoch; an interrupted training resumes from it to the same result.
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
            EpochLine(folder.name, monitor) if is_quiet() else TQDMProgressBar(refresh_rate=20),
        ],
        logger=CSVLogger(folder, name=None, version=_log_name(folder)),
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        enable_model_summary=False,
        enable_progress_bar=not is_quiet(),
        log_every_n_steps=50,
        deterministic="warn" if placement.gpu else True,  # some operations have no repeatable kernel on GPUs
    )
    last = folder / "last.ckpt"
    try:
        trainer.fit(module, *data, ckpt_path=str(last) if last.is_file() else None, weights_only=True)
    except SystemExit as interrupted:  # what Lightning makes of Ctrl-C
        raise KeyboardInterrupt from interrupted
    state = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state, strict=True)
    module.cpu().eval()
    score = best.best_model_score
    summary = {"monitor": monitor, "best": float(score) if score is not None else None, "epochs": trainer.current_epoch}
    say(f"  {folder.name}: best {monitor} {summary['best']:.4f} in {trainer.current_epoch} epochs")
    ranks.wait()  # until all have read the checkpoint
    if not ranks.is_first():
        return
    (folder / "summary.json").write_text(json.dumps(summary, indent=2), encoding="utf-8")
    for checkpoint in (last, folder / "best.ckpt"):  # in this order: without the last a killed stage begins anew,
        checkpoint.unlink(missing_ok=True)  # without the best it could not end. Weights are written as safetensors


def _log_name(folder: Path) -> str:
    """Name the log "log", or "log-2" and so on after an interruption: Lightning would delete the first part's lines."""
    parts = sum(1 for _ in folder.glob("log*/"))
    return "log" if not parts else f"log-{parts + 1}"


def save_weights(folder: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write weights as ``model.safetensors``, keys prefixed by part; of several processes the first does."""
    if not ranks.is_first():
        return
    from safetensors.torch import save_file

    tensors = {
        f"{part}.{key}": value.contiguous()
        for part, module in modules.items()
        for key, value in module.state_dict().items()
    }
    fresh = folder / "model.part"
    save_file(tensors, fresh)
    fresh.rename(folder / "model.safetensors")


def part_of(folder: Path, part: str) -> dict[str, Tensor]:
    """Weights of one part of a stage's ``model.safetensors``.

    Raises:
        StageError: the stage has not been run.
    """
    from safetensors.torch import load_file

    path = folder / "model.safetensors"
    if not path.is_file():
        raise StageError(f"{path} is missing. Run the stage '{folder.name}' first.")
    prefix = f"{part}."
    return {key.removeprefix(prefix): value for key, value in load_file(path).items() if key.startswith(prefix)}


def load_weights(folder: Path, part: str, module: nn.Module) -> None:
    """Fill a module from a stage's ``model.safetensors``, strictly."""
    module.load_state_dict(part_of(folder, part))


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of ids to (B, T), filled up with ``value``."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
