"""How a process uses its processor and memory."""

from __future__ import annotations

import ctypes

import torch

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # src: malloc.h of glibc


def use_threads_for(size: str) -> None:
    """Set torch's threads for a model size: tiny models lose time when threads wait for each other."""
    if size == "tiny":
        torch.set_num_threads(1)


def keep_memory() -> None:
    """Let this process keep what it frees, on Linux: getting it back for each step takes long."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        for parameter, value in ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 2**28)):
            libc.mallopt(parameter, value)
    except (OSError, AttributeError):  # another C library
        return
