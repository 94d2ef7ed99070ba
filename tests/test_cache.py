"""A cache that threads share: bounded, each value made once, no failure kept."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.cache import BoundedCache


def test_the_value_that_was_not_asked_for_longest_goes() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    cache.put("a", 1)
    cache.put("b", 2)
    assert cache.get("a") == 1
    assert cache.get_or_make("c", lambda: 3) == 3
    assert (cache.get("a"), cache.get("b"), cache.get("c"), len(cache)) == (1, None, 3, 2)
    cache.clear()
    assert (cache.get("a"), len(cache)) == (None, 0)


def test_what_two_ask_for_at_once_is_made_once_and_others_need_not_wait() -> None:
    cache: BoundedCache[str, object] = BoundedCache(4)
    begun, may_end = threading.Event(), threading.Event()
    made = []

    def slow() -> object:
        begun.set()
        assert may_end.wait(10)
        made.append(object())
        return made[-1]

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(cache.get_or_make, "slow", slow) for _ in range(4)]
        assert begun.wait(10)
        assert cache.get_or_make("quick", lambda: "quick") == "quick"  # while the other is being made
        assert cache.get("slow") is None
        may_end.set()
        found = [each.result(10) for each in asked]
    assert len(made) == 1
    assert all(each is made[0] for each in found)


def test_a_failure_is_not_kept_and_who_waited_makes_the_value() -> None:
    cache: BoundedCache[str, str] = BoundedCache(4)
    begun, may_fail = threading.Event(), threading.Event()

    def fail() -> str:
        begun.set()
        assert may_fail.wait(10)
        raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get_or_make, "key", fail)
        assert begun.wait(10)
        second = pool.submit(cache.get_or_make, "key", lambda: "made")
        time.sleep(0.05)  # it waits for the first
        assert not second.done()
        may_fail.set()
        with pytest.raises(KeyboardInterrupt):
            first.result(10)
        assert second.result(10) == "made"
    assert cache.get("key") == "made"


def test_none_is_a_value_too() -> None:
    cache: BoundedCache[str, None] = BoundedCache(4)
    calls = []
    for _ in range(2):
        cache.get_or_make("key", lambda: calls.append(1))
    assert calls == [1]


def test_threads_that_put_and_ask_at_once_leave_it_whole() -> None:
    cache: BoundedCache[int, int] = BoundedCache(8)

    def use(start: int) -> None:
        for step in range(2000):
            key = (start * 7 + step) % 16
            assert cache.get_or_make(key, lambda key=key: key * key) == key * key
            cache.put(key, key * key)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    assert len(cache) == 8


def test_a_cache_for_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        BoundedCache(0)
