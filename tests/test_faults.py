"""Attacks see faults: with one planted in the program, those of its kind say that something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import needs
from tests.attacks.faults import FAULTS, Fault, seen
from tests.conftest import BUNDLES

pytestmark = pytest.mark.numeric
QUICK = ("written files", "answers", "texts")


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(fault, id=f"{fault.kind}: {fault.what}", marks=() if fault.kind in QUICK else pytest.mark.slow)
        for fault in FAULTS
    ],
)
def test_a_planted_fault_is_seen(fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    assert seen(fault, tmp_path).wrong
