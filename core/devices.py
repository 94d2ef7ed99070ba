"""Where torch computes and in which precision, as a user names them: checked before any work begins."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from core.types import CXRLensError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["fp32", "bf16"]
"""bf16: torch computes in bfloat16 where it is safe (autocast); weights and sums stay in fp32."""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def open_device(name: str = "auto") -> torch.device:
    """The device of a name.

    Args:
        name: torch's, as "cpu", "cuda", "cuda:1", "mps"; "auto" is a GPU where torch sees one, else the CPU.

    Raises:
        CXRLensError: there is no such device here.
    """
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise CXRLensError(
            f"The device '{name}' cannot be used here: {str(error).splitlines()[0].rstrip('.')}. Use cpu, or auto."
        ) from error
    return device


def computing(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """The context in which a model computes in a precision.

    Raises:
        CXRLensError: there is no such precision.
    """
    import torch

    if precision not in PRECISIONS:
        raise CXRLensError(f"A precision is {' or '.join(PRECISIONS)}, not '{precision}'.")
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, dtype=torch.bfloat16)
