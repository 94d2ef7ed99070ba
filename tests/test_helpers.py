"""Processes that write reports beside the server's own: what they write, and how they end."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.bundles.helpers import Helpers, Images, images_for
from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.studies.model_image import Pixels, of_study
from core.studies.sources import open_source
from core.types import CXRLensError, Report
from tests.app_pages import linked_bundles, needs_bundles

pytestmark = [needs_bundles, pytest.mark.numeric]
NAMES = ["phantom-fve-m2", "phantom-fve-transformer"]
PATIENCE = 120  # seconds; other work may be going on


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs, and one whose weights are damaged."""
    folder = linked_bundles(tmp_path_factory.mktemp("helpers") / "bundles", *NAMES, "phantom-dve-m2", "shared")
    damaged = folder / "phantom-dve-m2"
    whole = damaged.resolve()
    damaged.unlink()
    shutil.copytree(whole, damaged)
    weights = damaged / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    return folder


@pytest.fixture(scope="module")
def helpers(folder: Path) -> Iterator[Helpers]:
    helpers = Helpers(folder, "cpu", "fp32", 1)
    yield helpers
    helpers.end()


def image(index: int) -> Pixels:
    source = open_source("phantom")
    return of_study(source, source.ids("test")[index])


def images(folder: Path, index: int) -> Images:
    cards = [BundleLibrary(folder).card(name) for name in NAMES]
    return images_for(image(index), [(card.image_side, card.fit) for card in cards])


def test_a_helper_writes_what_this_process_writes_and_tells_what_cannot_write(folder: Path, helpers: Helpers) -> None:
    assert not helpers.ready
    written = helpers.write([*NAMES, "phantom-dve-m2"], images(folder, 0)).result(PATIENCE)
    own = dict(write_reports([BundleLibrary(folder).load(name) for name in NAMES], image(0)))
    assert list(written) == [*NAMES, "phantom-dve-m2"]
    for name in NAMES:
        found = written[name]
        assert isinstance(found, Report)
        assert found.text == own[name].text
        assert found.word_attention is not None
        assert found.word_attention.shape == own[name].word_attention.shape  # type: ignore[union-attr]
    assert isinstance(written["phantom-dve-m2"], CXRLensError)
    assert "phantom-dve-m2" in str(written["phantom-dve-m2"])
    assert helpers.ready
    assert helpers.asked == 0


def test_what_a_killed_helper_was_asked_for_is_written_by_its_successor(folder: Path, helpers: Helpers) -> None:
    helpers.write(NAMES, {}).result(PATIENCE)
    answers = [helpers.write(NAMES, images(folder, index)) for index in (1, 2)]
    for worker in helpers._pool._processes.values():
        os.kill(worker.pid, signal.SIGKILL)
    texts = [{name: report.text for name, report in answer.result(PATIENCE).items()} for answer in answers]  # type: ignore[union-attr]
    models = [BundleLibrary(folder).load(name) for name in NAMES]
    assert texts == [{name: each.text for name, each in write_reports(models, image(index))} for index in (1, 2)]
    assert helpers.asked == 0


def test_without_helpers_nothing_is_started(folder: Path) -> None:
    none = Helpers(folder, "cpu", "fp32", 0)
    none.start(NAMES)
    assert none.asked == 0
    with pytest.raises(ValueError, match="no helper"):
        none.write(NAMES, {})
