"""Tensors of a checkpoint as the states of our modules; what is missing, left over or of another shape is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from core.bundles.checkpoints.reading import CheckpointError, told

COUNTED = "num_batches_tracked"
"""Of a batch norm: it has no influence, and older checkpoints lack it."""


class Place(Protocol):
    """Where a tensor of ours stands in a checkpoint."""

    @property
    def key(self) -> str:
        """Its name there."""
        ...

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """The shape that it has there."""
        ...

    def value(self, theirs: Tensor) -> Tensor:
        """What we make of it."""
        ...


@dataclass(frozen=True, slots=True)
class Same:
    """The same tensor under another name."""

    key: str

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """See ``Place``."""
        return ours

    def value(self, theirs: Tensor) -> Tensor:
        """See ``Place``."""
        return theirs


@dataclass(frozen=True, slots=True)
class Part:
    """One of ``of`` equal parts of its rows: query, key and value in one matrix."""

    key: str
    part: int
    of: int

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """See ``Place``."""
        return (ours[0] * self.of, *ours[1:])

    def value(self, theirs: Tensor) -> Tensor:
        """See ``Place``."""
        return theirs.chunk(self.of)[self.part].clone()


@dataclass(frozen=True, slots=True)
class Rows:
    """Its rows in another order: row i of ours is ``rows[i]`` of theirs; None is one that they do not have.

    Attributes:
        key: of theirs.
        rows: by our index.
        count: rows of theirs.
        lacking: number in a row that they do not have.
    """

    key: str
    rows: Sequence[int | None]
    count: int
    lacking: float = 0.0

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """See ``Place``."""
        return (self.count, *ours[1:])

    def value(self, theirs: Tensor) -> Tensor:
        """See ``Place``."""
        made = theirs[[row or 0 for row in self.rows]]
        made[[row is None for row in self.rows]] = self.lacking
        return made


@dataclass(frozen=True, slots=True)
class Slots:
    """M2's memory slots: (slots, 1, width) there, and scaled whenever they are used."""

    key: str
    scale: float

    def shape(self, ours: tuple[int, ...]) -> tuple[int, ...]:
        """See ``Place``."""
        return (ours[1], ours[0], ours[2])

    def value(self, theirs: Tensor) -> Tensor:
        """See ``Place``."""
        return theirs.transpose(0, 1) * self.scale


class Checkpoint:
    """The tensors of a file, each of which has to find its place."""

    def __init__(self, tensors: Mapping[str, Tensor], file: str, kind: str) -> None:
        """Remember them; ``file`` and ``kind`` ("R2Gen") are for messages."""
        self.tensors, self.file, self.kind = tensors, file, kind
        self._used: set[str] = set()
        self._problems: list[str] = []
        self._missing: list[str] = []

    def __contains__(self, key: str) -> bool:
        """Whether there is such a tensor."""
        return key in self.tensors

    def shape(self, key: str, axes: int) -> tuple[int, ...]:
        """Shape of a tensor of which sizes are read.

        Raises:
            CheckpointError: it is missing, or has not so many axes.
        """
        if key not in self.tensors:
            raise CheckpointError(f"{self.file} is no checkpoint of {self.kind}: {key} is missing.")
        found = tuple(self.tensors[key].shape)
        if len(found) != axes or 0 in found:
            raise CheckpointError(f"{self.file}: {key} has the shape {found}, where {axes} axes are needed.")
        return found

    def count(self, pattern: str) -> int:
        """How many there are of numbered parts, "decoder.layers.{}.": from 0, without a gap."""
        before, after = pattern.split("{}")
        whole = re.compile(re.escape(before) + r"(\d{1,4})" + re.escape(after))
        numbers = {int(found[1]) for key in self.tensors if (found := whole.match(key))}
        return next(number for number in range(len(numbers) + 1) if number not in numbers)

    def take(self, key: str) -> Tensor:
        """A tensor that is not put into a module; it must be there."""
        self._used.add(key)
        return self.tensors[key]

    def state(self, module: nn.Module, place: Callable[[str], Place | Tensor]) -> dict[str, Tensor]:
        """The state of a module, which may lie on the meta device; what does not fit is kept for `close`."""
        found = {}
        for ours, value in module.state_dict().items():
            where = place(ours)
            if isinstance(where, Tensor):
                found[ours] = where
                continue
            theirs = self.tensors.get(where.key)
            if theirs is None:
                if ours.endswith(COUNTED):
                    found[ours] = torch.zeros((), dtype=torch.long)
                else:
                    self._missing.append(where.key)
                continue
            self._used.add(where.key)
            wanted = where.shape(tuple(value.shape))
            if tuple(theirs.shape) != wanted:
                self._problems.append(f"{where.key} has the shape {tuple(theirs.shape)}, not {wanted}")
            elif theirs.is_floating_point() != value.is_floating_point():
                self._problems.append(f"{where.key} has numbers of another kind ({theirs.dtype})")
            elif not torch.isfinite(theirs).all():
                self._problems.append(f"{where.key} has numbers that are not finite")
            else:
                found[ours] = where.value(theirs)
        return found

    def close(self, idle: Iterable[str] = ()) -> None:
        """Refuse the checkpoint unless every tensor had its place.

        Args:
            idle: beginnings of names that may be there without use.

        Raises:
            CheckpointError: some are missing, left over, or of another shape.
        """
        left = [key for key in self.tensors if key not in self._used and not key.startswith(tuple(idle))]
        missing = list(dict.fromkeys(self._missing))
        problems = [f"missing is {told(missing)}"] if missing else []
        problems += [f"not known is {told(left)}"] if left else []
        shapes = list(dict.fromkeys(self._problems))
        problems += shapes[:3] + ([f"and so have {len(shapes) - 3:,} more"] if len(shapes) > 3 else [])
        if problems:
            raise CheckpointError(f"{self.file} does not fit {self.kind}: {'; '.join(problems)}.")


def renamed(key: str, rules: Iterable[tuple[str, str]]) -> str:
    """A name by the first rule, a pattern and its replacement, that fits its beginning.

    Raises:
        KeyError: none does.
    """
    for pattern, replacement in rules:
        new, count = re.subn(f"^{pattern}", replacement, key)
        if count:
            return new
    raise KeyError(key)


def same_positions(theirs: Tensor, ours: Tensor) -> bool:
    """Whether a table of positions (T, width), of any length, is ours as far as both go."""
    length = min(len(theirs), len(ours))
    return theirs.shape[1:] == ours.shape[1:] and torch.allclose(theirs[:length], ours[:length], atol=1e-3)
