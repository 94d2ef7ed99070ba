"""Peak memory of a Python program, its own alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEAK_IS_TOLD = Path("/proc/self/status").is_file()

# Not getrusage: its peak goes back to before the program began, to what the process that started it had at the fork.
_AT_THE_END = """
import re, sys
from pathlib import Path
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def run_measured(program: str, *arguments: str) -> tuple[str, int]:
    """Run a Python program in a process of its own.

    Returns:
        What it printed, and the most memory that it had at any time, bytes (Linux's VmHWM).
    """
    command = [sys.executable, "-c", program + _AT_THE_END, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout, int(done.stderr.split()[-1]) * 1024
