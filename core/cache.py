"""A cache of bounded size that threads share: what two of them ask for at once is made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

LISTEN = 0.1
"""Seconds between two moments at which whoever waits can be called away."""


class BoundedCache(Generic[K, V]):
    """Keeps the values that were asked for last; the one that was not asked for longest goes first."""

    def __init__(self, size: int) -> None:
        """Keep up to ``size`` values, at least one."""
        if size < 1:
            raise ValueError(f"a cache keeps at least one value, not {size}")
        self.size = size
        self._values: OrderedDict[K, V] = OrderedDict()
        self._making: set[K] = set()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Count the values that are kept."""
        return len(self._values)

    def get(self, key: K) -> V | None:
        """The value of a key; None where none is kept. It does not wait for one that is being made."""
        with self._changed:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value, instead of one that was there."""
        with self._changed:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.size:
                self._values.popitem(last=False)

    def get_or_make(self, key: K, make: Callable[[], V], waiting: Callable[[], None] | None = None) -> V:
        """The value of a key, made now if none is kept. Values of other keys can be made and read meanwhile.

        Args:
            make: called by one thread at a time for a key; others wait for its value. If it raises, nothing is kept,
                and the next thread that waits makes the value itself. It must not ask for its own key.
            waiting: called every tenth of a second while another thread makes the value; what it raises ends the wait.
        """
        while True:
            with self._changed:
                if key in self._making:
                    self._changed.wait(None if waiting is None else LISTEN)
                if key not in self._making:
                    if key in self._values:
                        self._values.move_to_end(key)
                        return self._values[key]
                    self._making.add(key)
                    break
            if waiting is not None:
                waiting()
        try:
            value = make()
            self.put(key, value)
            return value
        finally:
            with self._changed:
                self._making.remove(key)
                self._changed.notify_all()

    def clear(self) -> None:
        """Keep nothing of what was made so far."""
        with self._changed:
            self._values.clear()
