"""Run the numeric tests as other processors would compute them: ``make test-cpus``.

Libraries choose their kernels by the processor that they find; each rounds in its own way, and what a small training
ends with hangs on it. A variant tells torch or oneDNN to take the kernels of a smaller processor than this one, or
gives torch another number of threads. This machine's own kernels are tried by ``make test``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = (
    "ATEN_CPU_CAPABILITY=default",
    "ATEN_CPU_CAPABILITY=avx2",
    "ONEDNN_MAX_CPU_ISA=SSE41",
    "ONEDNN_MAX_CPU_ISA=AVX2",
    "OMP_NUM_THREADS=1",
    "OMP_NUM_THREADS=2",
)


def run(variant: str, options: Sequence[str]) -> bool:
    """Run the numeric tests with one setting of the environment; whether all passed."""
    name, value = variant.split("=")
    threads = int(value) if name == "OMP_NUM_THREADS" else 1
    processes = max(1, (os.cpu_count() or 1) // threads)
    command = [sys.executable, "-m", "pytest", "-m", "numeric and not slow and not browser", "-p", "no:cacheprovider"]
    command += ["-n", str(min(processes, 2)), "--dist", "loadfile", "--no-loadscope-reorder", *options]
    began = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, env={**os.environ, name: value}, check=False).returncode
    print(f"{variant}: {'passed' if code == 0 else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    return code == 0


def main() -> None:
    """Run the variants that are named, or all six; what stands behind -- goes on to pytest."""
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    parser = argparse.ArgumentParser(prog="python -m tests.cpus", description=main.__doc__)
    parser.add_argument("variants", nargs="*", metavar="variant", help=", ".join(VARIANTS))
    chosen = parser.parse_args(sys.argv[1:end]).variants or VARIANTS
    if unknown := [each for each in chosen if each not in VARIANTS]:
        parser.error(f"no such variant: {', '.join(unknown)}; choose from {', '.join(VARIANTS)}.")
    passed = {variant: run(variant, sys.argv[end + 1 :]) for variant in chosen}
    print("\n".join(f"{variant:28} {'passed' if fine else 'FAILED'}" for variant, fine in passed.items()))
    sys.exit(0 if all(passed.values()) else 1)


if __name__ == "__main__":
    main()
