"""In: a function of a case and a bundle. Out: the same, with what it gave kept by the content of both."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from core.bundles.card import Card
from core.cache import BoundedCache
from dashboard.services import bundles
from dashboard.services.studies import Case

P = ParamSpec("P")
T = TypeVar("T")


def kept(
    size: int,
) -> Callable[[Callable[Concatenate[Case, Card, P], T]], Callable[Concatenate[Case, Card, P], T]]:
    """Keep the last ``size`` values of a function of a case, a bundle, and more that can be hashed."""

    def keep(make: Callable[Concatenate[Case, Card, P], T]) -> Callable[Concatenate[Case, Card, P], T]:
        values: BoundedCache[Hashable, T] = BoundedCache(size)

        @wraps(make)
        def found(case: Case, card: Card, /, *more: P.args, **named: P.kwargs) -> T:
            key = (case.key, bundles.bundle_key(card), more, *sorted(named.items()))
            return values.get_or_make(key, lambda: make(case, card, *more, **named))

        return found

    return keep
