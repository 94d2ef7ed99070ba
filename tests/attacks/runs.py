"""Run folders: checkpoints of an interrupted training, and the outputs of stages."""

from __future__ import annotations

from pathlib import Path

from tests.attacks import Tally
from tests.attacks.caches import attack_checkpoints, attack_stages


def run(folder: Path, most: int) -> Tally:
    """Attack both."""
    tally = Tally("run folders: checkpoints and stages")
    attack_checkpoints(tally, folder / "checkpoints")
    attack_stages(tally, folder / "stages")
    return tally
