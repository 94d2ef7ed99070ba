"""A device that this machine does not have: it computes as the CPU does, and keeps apart as a GPU does.

Tensors of the device "meta" get values here, which lie in tensors of the CPU that nobody else sees. Between the two
kinds no operation is allowed that CUDA would refuse; what computes is told where it computes; and whatever the code of
`core` makes on the CPU is written down, with the function that makes it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

CORE = Path(__file__).resolve().parent.parent / "core"
DEVICE = "meta"
_aten = torch.ops.aten
_MOVES = {_aten._to_copy.default, _aten.copy_.default}
_INDEXING = {"index", "index_put", "index_put_", "_unsafe_index", "_index_put_impl_"}
"""Indices may lie on the CPU, also with CUDA."""
_COMPUTES = {"mm", "addmm", "bmm", "baddbmm", "convolution", "_scaled_dot_product_flash_attention_for_cpu"}
_MADE = {
    *("zeros", "ones", "full", "empty", "empty_strided", "arange", "linspace", "eye", "scalar_tensor"),
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "lift_fresh", "fft_fftfreq"),
}
"""Operations without a tensor before them; `lift_fresh` is `torch.tensor`'s."""


class Elsewhere(Tensor):
    """A tensor of the device; its values are in ``here``, on the CPU."""

    here: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, here: Tensor) -> Elsewhere:
        made: Elsewhere = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            here.size(),
            strides=here.stride(),
            storage_offset=here.storage_offset(),
            dtype=here.dtype,
            layout=here.layout,
            device=DEVICE,
        )
        made.here = here
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> Elsewhere:  # type: ignore[override]
        with _moving():
            made = memo[id(self)] = Elsewhere(self.here.detach().clone())
        made._is_param = isinstance(self, torch.nn.Parameter)  # type: ignore[attr-defined]
        return made.requires_grad_(self.requires_grad)  # type: ignore[return-value]

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"Elsewhere({self.here!r})"

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _dispatch(func, args, kwargs or {})


@cache
def _is_composite(func: Any) -> bool:
    key = torch._C.DispatchKey.CompositeImplicitAutograd
    return bool(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), key))


def _map(change: Callable[[Tensor], Any], value: Any) -> Any:
    """The value with each tensor changed; torch's own way through lists takes most of a test's time."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)([_map(change, each) for each in value])
    return value


def _dispatch(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the CPU, and put its result where CUDA would."""
    there: list[Elsewhere] = []
    others: list[Tensor] = []

    def inner(each: Tensor) -> Tensor:
        if isinstance(each, Elsewhere):
            there.append(each)
            return each.here
        if each.ndim > 0:
            others.append(each)
        return each

    if func is _aten._efficientzerotensor.default:  # has no values until an operation that is hidden here gives some
        func = _aten.zeros.default
    name, asked = func.overloadpacket.__name__, kwargs.get("device")
    plain = [_map(inner, each) for each in args]
    named = {key: _map(inner, value) for key, value in kwargs.items()}
    if there and others and func not in _MOVES and name not in _INDEXING:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cpu and {DEVICE} ({name})"
        )
    away = bool(there) if asked is None else torch.device(asked).type == DEVICE
    if asked is not None:
        named["device"] = torch.device("cpu")
    result = func(*plain, **named)
    if func is _aten.copy_.default:
        return args[0]
    known = {id(each.here): each for each in there}
    # As everywhere: what is looked at in inference mode, and was not made in it, stays a tensor of the usual kind.
    looks = any(each.alias_info and not each.alias_info.is_write for each in func._schema.returns)
    usual = looks and bool(there) and not there[0].is_inference()
    with torch.inference_mode(torch.is_inference_mode_enabled() and not usual):
        return _map(lambda each: _placed(each, known, away), result)


def _placed(result: Tensor, known: Mapping[int, Elsewhere], away: bool) -> Tensor:
    if id(result) in known:  # changed in place
        return known[id(result)]
    return Elsewhere(result) if away else result


class _Values(TorchFunctionMode):
    """What torch does for tensors without values before it asks for an operation, done for those that have some.

    `torch.tensor` and lists that stand for indices would have none, and `tolist` refuses.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        where = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and where is not None and torch.device(where).type == DEVICE:
            kwargs.pop("device")
            with _moving():
                return func(*args, **kwargs).to(DEVICE)
        if func is Tensor.tolist and isinstance(args[0], Elsewhere):
            return args[0].here.tolist()
        if func in (Tensor.__getitem__, Tensor.__setitem__) and isinstance(args[0], Elsewhere):
            with _moving():
                args = (args[0], _indices(args[1]), *args[2:])
        return func(*args, **kwargs)


def _indices(index: Any) -> Any:
    """An index with tensors where it has lists or arrays."""
    if isinstance(index, tuple):
        return tuple(_indices(each) for each in index)
    return torch.as_tensor(index) if isinstance(index, list | np.ndarray) else index


class _Watch(TorchDispatchMode):
    """Sees every operation, also those without a tensor of the device."""

    def __init__(self, seen: Seen) -> None:
        super().__init__()
        self.seen = seen

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if _is_composite(func):  # tensors of inference mode bring operations whole that others bring in parts
            with self:
                return func.decompose(*args, **(kwargs or {}))
        result = _dispatch(func, args, kwargs or {})
        name = func.overloadpacket.__name__
        if name in _COMPUTES or name in _MADE:
            first = result[0] if isinstance(result, list | tuple) else result
            if isinstance(first, Elsewhere) or _is_moving or not (where := _caller()):
                return result
            (self.seen.computed if name in _COMPUTES else self.seen.made).add(where)
        return result


_is_moving: list[bool] = []


@contextmanager
def _moving() -> Iterator[None]:
    _is_moving.append(True)
    try:
        yield
    finally:
        _is_moving.pop()


def _caller() -> str:
    """The function of `core` that asked, as "decoders/m2.py: look"; "" where none did."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(CORE):
            return f"{path.relative_to(CORE)}: {frame.f_code.co_qualname}"
        frame = frame.f_back  # type: ignore[assignment]
    return ""


class Seen:
    """What happened on the CPU.

    Attributes:
        computed: functions that multiplied matrices or convolved there.
        made: functions that made a tensor there.
    """

    def __init__(self) -> None:
        self.computed: set[str] = set()
        self.made: set[str] = set()


@contextmanager
def elsewhere() -> Iterator[Seen]:
    """There is the device now."""
    seen, of_array = Seen(), torch.from_numpy

    def read(values: Any) -> Tensor:
        with _moving():
            return of_array(values)

    torch.from_numpy = read  # type: ignore[assignment]  # of what was read, or computed by others: no habit
    try:
        with _Values(), _Watch(seen):
            yield seen
    finally:
        torch.from_numpy = of_array
