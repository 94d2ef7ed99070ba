"""Processes that train together: which one this is, and what they tell each other.

Alone, every function here does nothing and costs nothing. Together, each must be called by all processes, in the same
order. Items are dealt out like cards: process r of n has items r, r + n, r + 2 n, and so on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


def count() -> int:
    """How many processes train together; 1 is alone."""
    dist = sys.modules.get("torch.distributed")  # a process that has not asked for torch yet is alone
    return dist.get_world_size() if dist and dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which one this is, from 0."""
    if count() == 1:
        return 0
    import torch.distributed as dist

    return dist.get_rank()


def is_first() -> bool:
    """Whether this one writes files and talks to the user."""
    return rank() == 0


def wait() -> None:
    """Go on when all are here."""
    if count() > 1:
        import torch.distributed as dist

        dist.barrier()


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process do something alone, and the others after it: they find what it left on disk."""
    if not is_first():
        wait()
    yield
    if is_first():
        wait()


def from_first(value: T) -> T:
    """The first process's value."""
    if count() == 1:
        return value
    import torch.distributed as dist

    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


def gather(value: T) -> list[T]:
    """Every process's value, in their order."""
    if count() == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * count()
    dist.all_gather_object(values, value)
    return values


def gather_rows(rows: Tensor) -> Tensor:
    """Rows (n, ...) of all processes, on the CPU, in the order they had before they were dealt out."""
    import torch

    parts = gather(rows.cpu())
    whole = torch.empty(sum(map(len, parts)), *rows.shape[1:], dtype=rows.dtype)
    for rank, part in enumerate(parts):
        whole[rank :: len(parts)] = part
    return whole


def weight(items: Tensor) -> Tensor | float:
    """What to multiply a mean over ``items`` (a count) with, so that the mean over processes is that over all items."""
    if count() == 1:
        return 1.0
    import torch.distributed as dist

    total = items.double()
    dist.all_reduce(total)
    return (items * count() / total).float()


def average(tensors: Sequence[Tensor]) -> None:
    """Set each tensor to its mean over all processes; equal ones stay exactly as they are."""
    if count() == 1 or not tensors:
        return
    import torch
    import torch.distributed as dist

    flat = torch.cat([each.detach().flatten().double() for each in tensors])
    dist.all_reduce(flat)
    for each, mean in zip(tensors, (flat / count()).split([each.numel() for each in tensors]), strict=True):
        each.detach().copy_(mean.view_as(each))
