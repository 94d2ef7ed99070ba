"""Processes that write reports beside the server's own: what they write, how they end, who writes when readers wait."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from core.bundles.helpers import Helpers, Images, Written, images_for
from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.studies.model_image import Pixels, of_study
from core.studies.sources import open_source
from core.types import CXRLensError, Report
from dashboard.services import bundles, reports, studies, turns
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


# ------------------------------------------------------------------------------------------------------ who writes when


class Fake(Helpers):
    """Helpers whose answers the test gives."""

    def __init__(self, *, ready: bool) -> None:
        super().__init__(Path(), "cpu", "fp32", 1)
        self.is_ready, self.started, self.answers = ready, 0, list[Future[Written]]()

    @property
    def ready(self) -> bool:
        return self.is_ready

    def start(self, names: Any) -> None:
        self.started += 1

    def write(self, names: Any, images: Any) -> Future[Written]:
        self.answers.append(Future())
        return self.answers[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake(ready=True)
    monkeypatch.setattr(bundles, "helpers", lambda: fake)
    monkeypatch.setenv("CXR_DEVICE", "cpu")
    forget()
    yield fake
    forget()


def forget() -> None:
    turns.line.clear()
    turns._answers.clear()
    reports._written.clear()


@contextmanager
def another_waits(monkeypatch: pytest.MonkeyPatch, *readers: str) -> Iterator[None]:
    """Other readers wait for this process, each in a session of their own."""
    with ExitStack() as waiting:
        for reader in readers or ("another",):
            with monkeypatch.context() as other:
                other.setattr(turns, "_reader", lambda reader=reader: reader)
                waiting.enter_context(turns.line().turn())
        yield


def read(index: int) -> dict[str, str]:
    case = studies.open_study(studies.visible_ids("phantom")[index], "phantom")
    card = bundles.card_named(NAMES[0])
    assert card is not None
    found = dict(reports.read(case, [card]))
    return {name: each if isinstance(each, str) else each.report.text for name, each in found.items()}


def test_one_reader_is_served_here_and_the_second_by_a_helper_that_is_ready(
    fake: Fake, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = read(0)
    assert not fake.answers
    fake.is_ready = False
    with another_waits(monkeypatch):
        assert read(1)  # written here, while helpers load
    assert (fake.started, len(fake.answers)) == (1, 0)
    fake.is_ready = True
    reports._written.clear()

    def answer(names: Any, images: Any) -> Future[Written]:
        done: Future[Written] = Future()
        done.set_result({NAMES[0]: Report("From a helper.", ("from", "a", "helper", "."), 0.0, finished=True)})
        return done

    fake.write = answer  # type: ignore[method-assign]
    with another_waits(monkeypatch):
        assert read(0) == {NAMES[0]: "From a helper."}
        fake.write = lambda *given: pytest.fail("a report that is kept was asked for again")  # type: ignore[method-assign]
        assert read(0) == {NAMES[0]: "From a helper."} != own


def test_who_looks_through_studies_alone_starts_no_helper(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    with turns.line().turn():  # the study before, which is being written when the next one is asked for
        assert read(1)
    with another_waits(monkeypatch):
        pass  # somebody who has left
    assert read(2)
    assert (fake.started, len(fake.answers)) == (0, 0)


def test_a_helper_with_as_much_to_do_as_this_process_is_not_asked(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake._asked.add(Future())
    with another_waits(monkeypatch):
        assert NAMES[0] in read(0)
    assert not fake.answers


def test_where_helpers_break_for_good_this_process_writes(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(names: Any, images: Any) -> Future[Written]:
        answer: Future[Written] = Future()
        answer.set_exception(BrokenProcessPool("killed"))
        return answer

    fake.write = broken  # type: ignore[method-assign]
    with another_waits(monkeypatch):
        assert read(0)[NAMES[0]].endswith(".")


def test_who_waits_with_others_is_told_and_drawn_less_often(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns.told() == "" and turns.slice_of() == turns.SLICE
    turns.line().took(12.0, others=2)
    assert turns.line().seconds == 4
    with another_waits(monkeypatch, "a", "b", "c"):
        assert turns.told().startswith("Reports of 3 other X-rays are being written at the same time.")
        assert "about 8 s" in turns.told()  # four images of 4 s, two processes
        assert turns.slice_of() == 4 * turns.SLICE
    assert turns.told() == ""
