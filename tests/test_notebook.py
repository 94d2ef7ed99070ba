"""docs/notebook.ipynb runs, and shows what it is kept with."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import pytest

from tests import needs
from tests.conftest import BUNDLES

needs.NOTEBOOK.package("nbclient")
needs.NOTEBOOK.package("ipykernel")

from tests import notebook  # noqa: E402, it imports them

pytestmark = [pytest.mark.numeric, needs.BUNDLES.unless(BUNDLES.is_dir())]

MOST_BYTES = 300_000
PICTURES = 3


def cpu_seconds() -> float:
    """Of processes that this one started and that have ended: what else the machine does is not counted."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, float]:
    fresh = notebook.read()
    begun = cpu_seconds()
    notebook.run(fresh, tmp_path_factory.mktemp("notebook"))
    return fresh, cpu_seconds() - begun


@pytest.mark.slow
def test_every_cell_runs_in_a_minute_and_shows_what_it_is_kept_with(ran: tuple[Any, float]) -> None:
    fresh, seconds = ran
    assert 1 < seconds < 60  # about 14
    cells = [(old, new) for old, new in zip(notebook.read().cells, fresh.cells, strict=True) if new.cell_type == "code"]
    assert 9 <= len(cells) <= 11
    for kept, new in cells:
        before, now = notebook.outputs(kept), notebook.outputs(new)
        assert set(before) == set(now), kept.source
        assert "stderr" not in now, now["stderr"]
        if notebook.EXACT in kept.metadata.get("tags", ()):
            assert before.get("text/plain") == now.get("text/plain"), kept.source
            assert before.get("stdout") == now.get("stdout"), kept.source
    exact = sum(notebook.EXACT in kept.metadata.get("tags", ()) for kept, _ in cells)
    assert exact >= 5


def test_it_is_small_has_pictures_and_names_no_machine() -> None:
    text = notebook.NOTEBOOK.read_text(encoding="utf-8")
    assert len(text.encode()) < MOST_BYTES
    assert text.count("data:image/jpeg;base64,") >= PICTURES
    for name in (str(Path.home()), "/tmp", "/work", "Traceback"):
        assert name not in text
