"""In: how a module is built. Out: the module, without the random numbers that its weights would start from.

Weights of a bundle replace them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

# Those of init that are told a mode of; its other functions call Tensor's.
_DRAWS = (Tensor.normal_, Tensor.uniform_, init.normal_, init.uniform_, init.kaiming_normal_, init.kaiming_uniform_)


class Unstarted(TorchFunctionMode):
    """While it is entered, parameters are not drawn at random: they hold whatever was in memory."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave a parameter that would be drawn as it is."""
        given = kwargs or {}
        first = args[0] if args else given.get("tensor")
        return first if isinstance(first, nn.Parameter) and func in _DRAWS else func(*args, **given)
