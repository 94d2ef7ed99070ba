"""Read the corpus, each file in its own process: ``python -m tests.images.run`` prints the table of `docs/images.md`.

Ends with 1 if any file is read wrongly without a word, ends in anything but an image or an ImageError, takes more than
the limits, or is not treated as the corpus says.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import select
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from core.studies.images import ImageError, fit_square, read_image
from tests.images.corpus import corpus
from tests.images.kinds import Odd
from tests.images.making import CHEST

SECONDS, GIGABYTES = 5.0, 1.0
PATIENCE = 120.0  # seconds of the clock: the machine may be busy
SIZE = 224  # of a model's input


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Attributes:
        kind: "right", "told" (another picture than the formula, with a note), "wrong" (without), "refused", or
            "ended" with anything else.
        words: notes, or the message.
        seconds: of one core.
        gigabytes: largest memory of the process.
    """

    kind: str
    words: str
    seconds: float = 0.0
    gigabytes: float = 0.0

    def faults(self, odd: Odd) -> list[str]:
        """What is not as it must be."""
        found = [] if self.kind in odd.allowed else [f"is {self.kind}, not {' or '.join(sorted(odd.allowed))}"]
        if odd.says and odd.says not in self.words:
            found.append(f"does not say {odd.says!r}")
        if "SECRET" in self.words:
            found.append("repeats what the file says")
        if self.seconds > SECONDS:
            found.append(f"took {self.seconds:.1f} s")
        if self.gigabytes > GIGABYTES:
            found.append(f"took {self.gigabytes:.2f} GB")
        return [f"{odd.name} {fault}: {self.words[:200]}" for fault in found]


def outcome(odd: Odd, data: bytes) -> Outcome:
    """Read a file in this process."""
    try:
        radiograph = read_image(data)
    except ImageError as error:
        return Outcome("refused", str(error))
    fit_square(radiograph.pixels, SIZE)
    expected = 1 - CHEST if odd.inverse else CHEST
    words = " ".join(radiograph.warnings)
    right = radiograph.pixels.shape == expected.shape
    right = right and float(np.abs(radiograph.pixels - expected).max()) <= odd.tolerance
    if right and not odd.inverse:
        return Outcome("right", words)
    return Outcome("told" if words else "wrong", words)


def apart(odd: Odd) -> Outcome:
    """Read a file in a process of its own; what it writes to its log or screen is a fault."""
    data = odd.make()
    inlet, outlet = os.pipe()
    log = os.memfd_create("log")
    began = time.monotonic()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        os.dup2(log, 1)
        os.dup2(log, 2)
        logging.basicConfig(level=logging.DEBUG, force=True)
        before = time.process_time()
        try:
            found = outcome(odd, data)
        except BaseException as error:
            found = Outcome("ended", repr(error))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        os.write(outlet, json.dumps([found.kind, found.words, time.process_time() - before, peak]).encode())
        os._exit(0)
    os.close(outlet)
    answer = b""
    while (left := began + PATIENCE - time.monotonic()) > 0 and select.select([inlet], [], [], left)[0]:
        part = os.read(inlet, 65536)
        if not part:
            break
        answer += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(inlet)
    _, status = os.waitpid(child, 0)
    os.lseek(log, 0, 0)
    written = os.read(log, 1 << 20).decode(errors="replace")
    os.close(log)
    if not answer:
        return Outcome("ended", f"status {status}")
    found = Outcome(*json.loads(answer))
    if "SECRET" in written or "Traceback" in written:
        return Outcome(found.kind, f"{found.words} SECRET in the log", found.seconds, found.gigabytes)
    return found


def table(outcomes: Iterable[tuple[Odd, Outcome]]) -> str:
    """Counts of each group, in Markdown."""
    groups: dict[str, Counter[str]] = {}
    slowest = largest = 0.0
    for odd, found in outcomes:
        kind = "not to be told" if found.kind == "wrong" and "wrong" in odd.allowed else found.kind
        groups.setdefault(odd.group, Counter())[kind] += 1
        slowest, largest = max(slowest, found.seconds), max(largest, found.gigabytes)
    kinds = ("refused", "right", "told", "not to be told", "wrong", "ended")
    lines = [
        f"| | tried | {' | '.join(kinds[:4])} | wrong silently | crashed |",
        f"|---|{'---:|' * 7}",
        *(
            f"| {group} | {sum(counts.values())} | {' | '.join(str(counts[kind]) for kind in kinds)} |"
            for group, counts in [*groups.items(), ("**all**", sum(groups.values(), Counter()))]
        ),
    ]
    return "\n".join([*lines, "", f"Most time {slowest:.1f} s of one core, most memory {largest:.2f} GB."])


def main() -> int:
    """Read all files whose name contains the argument, if there is one."""
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    outcomes = [(odd, apart(odd)) for odd in corpus() if wanted in odd.name]
    faults = [fault for odd, found in outcomes for fault in found.faults(odd)]
    print(*faults, table(outcomes), sep="\n")  # noqa: T201
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
