"""What this machine can do at most, by the libraries that are here: ``make bench PARTS=ceilings``."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from core.packages import module


def fastest(work: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of some runs, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def matrix_rates(side: int = 3072) -> dict[str, float]:
    """Operations a second of one large matrix product in float32, by the library whose kernel did it.

    No single one is the machine's peak: on one processor torch's own product is the fastest, on another it is half of
    what oneDNN does, which torch takes for convolutions.

    Args:
        side: of the matrices; a multiple of 64.

    Returns:
        Rates of torch's product, of the same product as a convolution, and of NumPy's, each with torch's threads.
    """
    a, b = torch.rand(side, side), torch.rand(side, side)
    blas = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    works: dict[str, Callable[[], object]] = {f"torch's product ({blas[1] if blas else 'BLAS'})": lambda: a @ b}
    if torch.backends.mkldnn.is_available():
        pixels, kernel = b.view(1, side, 64, side // 64), a.view(side, side, 1, 1)
        works["torch's convolution (oneDNN)"] = lambda: torch.nn.functional.conv2d(pixels, kernel)
    library = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]  # type: ignore[index, call-overload]
    works[f"NumPy's product ({library})"] = lambda: np.matmul(a.numpy(), b.numpy())
    with threadpool_limits(torch.get_num_threads(), user_api="blas"), torch.no_grad():
        return {name: 2 * side**3 / fastest(work, 3) for name, work in works.items()}


def coarse_rates(side: int = 3072) -> dict[str, float]:
    """As `matrix_rates`, in bfloat16 by torch, and in both precisions by OpenVINO where it is installed."""
    a, b = (torch.rand(side, side) for _ in range(2))
    short, other = a.bfloat16(), b.bfloat16()
    works: dict[str, Callable[[], object]] = {"torch's product in bfloat16": lambda: short @ other}
    try:
        library: Any = module("openvino")
        made = module("openvino.opset13")
    except ImportError:
        library = None
    if library:
        left = made.parameter([side, side])
        whole = library.Model([made.matmul(left, made.constant(b.numpy()), False, False)], [left])
        for precision in ("f32", "bf16"):
            settings = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
            run = library.Core().compile_model(whole, "CPU", settings)
            works[f"OpenVINO's product in {precision}"] = lambda run=run: run([a.numpy()])  # type: ignore[misc]
    with torch.no_grad():
        return {name: 2 * side**3 / fastest(work, 3) for name, work in works.items()}


def copied(megabytes: int = 512) -> float:
    """Bytes a second that one thread copies within memory, read and written bytes together."""
    source = np.ones(megabytes << 20, np.uint8)
    target = np.empty_like(source)
    return 2 * source.nbytes / fastest(lambda: np.copyto(target, source))


def report() -> Iterator[str]:
    """A table."""
    yield "| the most that was reached | |"
    yield "|---|---:|"
    for name, rate in {**matrix_rates(), **coarse_rates()}.items():
        yield f"| {name}, 3072 x 3072, {torch.get_num_threads()} thread(s) | {rate / 1e9:,.0f} GFLOPS |"
    yield f"| memory copied by one thread, read and written | {copied() / 1e9:.1f} GB/s |"
