"""Where a pair computes and in which precision, as a user names them: checked before any work begins.

A pair knows both (`core.bundles.library.BundleLibrary` puts it there), and what makes tensors for it asks it.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from core.types import CXRLensError

if TYPE_CHECKING:
    import torch

Precision: TypeAlias = Literal["fp32", "bf16", "openvino", "openvino-bf16", "auto"]
"""How a pair computes.

bf16: torch computes in bfloat16 where it is safe (autocast); weights and sums stay in fp32. openvino: its encoder is
run by OpenVINO in fp32, where that gives what torch gives, else by torch in fp32. openvino-bf16: likewise in bfloat16,
where the tokens are alike enough and the processor has it, else in fp32. auto: as openvino, but that OpenVINO may be
missing, or a GPU compute, without a word (`core.encoders.engines`).
"""
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
BY_TORCH: frozenset[Precision] = frozenset({"fp32", "bf16"})
"""Those in which torch runs encoders too; in the others an engine is chosen for them. Decoders are always torch's."""


def named_device() -> str:
    """The device that the environment names, for `open_device`: CXR_DEVICE, or auto."""
    return os.environ.get("CXR_DEVICE") or "auto"


def named_precision() -> Precision:
    """The precision that the environment names, CXR_PRECISION, or fp32; checked where a pair is loaded."""
    return cast(Precision, os.environ.get("CXR_PRECISION") or "fp32")


def check_precision(name: str) -> Precision:
    """The precision of a name.

    Raises:
        CXRLensError: there is none.
    """
    for precision in PRECISIONS:
        if name == precision:
            return precision
    raise CXRLensError(f"A precision is {', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}, not '{name}'.")


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

    return torch.autocast(device.type, dtype=torch.bfloat16) if check_precision(precision) == "bf16" else nullcontext()
