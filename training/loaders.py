"""In which order studies are seen, and how they become batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Self

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from core import ranks
from training.run_folder import StageError

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
        return [row for batch in shuffled for row in batches[batch]] + order[whole:]

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
    """Every second study is a positive of a class, all classes in turn; the others are studies in random order.

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
        for index in range(1, len(order), 2) if self.positives else ():
            if not turns:
                turns = torch.randperm(len(self.positives), generator=generator).tolist()
            rows = self.positives[turns.pop()]
            order[index] = int(rows[int(torch.randint(len(rows), (1,), generator=generator))])
        return order


Collate = Callable[[list[int]], dict[str, Tensor]]


def loaders(
    sizes: tuple[int, int],
    collate: tuple[Collate, Collate],
    batch_size: int,
    seed: int,
    positives: Tensor | None = None,
    lengths: Sequence[int] = (),
) -> tuple[DataLoader[int], DataLoader[int]]:
    """Training and validation loaders over the indices 0 to size - 1, which ``collate`` turns into batches.

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


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Rows of ids to (B, T), filled up with ``value``."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows])
