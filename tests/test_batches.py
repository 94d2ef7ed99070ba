"""Readers who wait for reports at once: who is written for in one batch, when, and by which process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import core.bundles.inference
from core.bundles.card import Card
from core.bundles.helpers import Helpers, Images, Written
from core.bundles.library import BundleLibrary
from core.types import CXRLensError, Report
from dashboard.services import batches, bundles, reports, studies, turns
from dashboard.services.batches import Batch, Batches, Request
from tests.app_pages import needs_bundles
from tests.conftest import BUNDLES

pytestmark = [needs_bundles, pytest.mark.numeric]
NAMES = ["phantom-fve-m2", "phantom-fve-transformer"]


def said(level: int) -> Report:
    return Report(f"Grey {level}.", ("grey", str(level), "."), 0.0, finished=True)


class Fake(Helpers):
    """Helpers whose answers the test gives."""

    def __init__(self) -> None:
        super().__init__(Path(), "cpu", "fp32", 1)
        self.is_ready, self.started = False, 0
        self.answers: list[Future[Written]] = []

    @property
    def ready(self) -> bool:
        return self.is_ready

    @property
    def free(self) -> bool:
        return all(answer.done() for answer in self.answers)

    def start(self, names: Any) -> None:
        self.started += 1

    def write(self, names: Any, images: Any) -> Future[Written]:
        self.answers.append(Future())
        return self.answers[-1]


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    fake = Fake()
    monkeypatch.setattr(bundles, "helpers", lambda: fake)
    monkeypatch.setenv("CXR_DEVICE", "cpu")
    for each in (turns.line, batches.batches, reports._written):
        each.clear()  # type: ignore[attr-defined]
    yield fake
    for each in (turns.line, batches.batches, reports._written):
        each.clear()  # type: ignore[attr-defined]


# ----------------------------------------------------------------------------------------------------- with real models


def case(index: int) -> studies.Case:
    return studies.open_study(studies.visible_ids("phantom")[index], "phantom")


def cards() -> list[Card]:
    return [BundleLibrary(BUNDLES).card(name) for name in NAMES]


def read(index: int) -> dict[str, str]:
    found = dict(reports.read(case(index), cards()))
    return {name: each if isinstance(each, str) else each.report.text for name, each in found.items()}


def test_readers_at_once_get_the_reports_that_each_would_get_alone(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.count = 0
    alone = [read(index) for index in range(6)]
    assert len({each[NAMES[0]] for each in alone}) > 1
    reports._written.clear()  # type: ignore[attr-defined]
    seen, encode = [], core.bundles.inference.encode_batch
    monkeypatch.setattr(
        core.bundles.inference, "encode_batch", lambda model, images: seen.append(len(images)) or encode(model, images)
    )
    with ThreadPoolExecutor(6) as readers:
        with bundles._inference_lock():  # until all wait, nobody gets on
            started = [readers.submit(read, index) for index in range(6)]
            while len(batches.batches()._waiting) < 6:
                time.sleep(0.05)
        assert [each.result(100) for each in started] == alone
    assert seen == [batches.MOST, 1]  # images of a batch, encoded once for both models


# --------------------------------------------------------------------------------------------- who writes for whom when


class Writing:
    """What `write_batch` is asked for; an image is one grey level, which its report names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[list[int]] = []
        self.fails: Callable[[list[int]], None] = lambda levels: None
        monkeypatch.setattr(core.bundles.inference, "write_batch", self.write)
        monkeypatch.setattr(bundles, "open_usable", lambda cards: ([each.name for each in cards], {}))
        self.users = iter(())
        monkeypatch.setattr(bundles, "user", lambda: next(self.users, ""))

    def write(self, models: Sequence[str], images: Callable[..., torch.Tensor]) -> Iterator[tuple[str, list[Report]]]:
        levels = [round(each.max().item() * 255) for each in images(8, cards()[0].fit)]
        self.batches.append(levels)
        for name in models:
            self.fails(levels)
            yield name, [said(level) for level in levels]


class Desk:
    """Readers by the grey level of their image."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches
        self.requests: dict[int, Request] = {}
        self.leaving: dict[int, ExitStack] = {}
        self.kept: list[tuple[int, str]] = []

    def ask(self, *levels: int, cards: Sequence[Card] | None = None) -> None:
        for level in levels:
            fitting = self.images(level)
            asked = self.batches.request(
                f"image {level}",
                cards or globals()["cards"](),
                fitting,
                lambda name, report, level=level: self.kept.append((level, name)),  # type: ignore[misc]
            )
            self.leaving[level] = ExitStack()
            self.requests[level] = self.leaving[level].enter_context(asked)

    def leave(self, level: int) -> None:
        self.leaving.pop(level).close()

    @staticmethod
    def images(level: int) -> Images:
        return {(8, cards()[0].fit): np.full((8, 8), level / 255, np.float32)}

    def take(self, level: int) -> list[str]:
        return [f"{name} {each.text}" for name, each in self.requests[level].take().items()]  # type: ignore[union-attr]


@pytest.fixture
def writing(monkeypatch: pytest.MonkeyPatch) -> Writing:
    return Writing(monkeypatch)


@pytest.fixture
def desk(fake: Fake, writing: Writing) -> Desk:
    return Desk(Batches())


def test_who_waits_longest_is_served_first_and_a_batch_is_not_left_in_its_middle(desk: Desk, writing: Writing) -> None:
    desk.ask(1)
    desk.batches.step()
    desk.ask(2, 3, 4, 5, 6, 7)
    for _ in range(4):  # whoever of them comes by
        desk.batches.step()
    assert writing.batches == [[1], [2, 3, 4, 5, 6], [7]]
    assert desk.take(1) == [f"{name} Grey 1." for name in NAMES]
    assert desk.take(6) == [f"{name} Grey 6." for name in NAMES]
    assert desk.take(7) == [f"{NAMES[0]} Grey 7."]
    assert desk.take(7) == []


def test_many_tabs_of_one_do_not_keep_another_waiting(desk: Desk, writing: Writing) -> None:
    writing.users = iter(["anna"] * 8 + ["boris"])
    desk.ask(*range(1, 10))
    desk.batches.step()
    assert writing.batches == [[1, 9, 2, 3, 4]]


def test_only_those_who_ask_the_same_models_are_written_for_together(desk: Desk, writing: Writing) -> None:
    desk.ask(1)
    desk.ask(2, cards=cards()[:1])
    desk.ask(3)
    for _ in range(3):
        desk.batches.step()
    assert writing.batches == [[1, 3], [2]]


def test_who_leaves_takes_nothing_from_the_others_and_comes_back_to_what_is_there(desk: Desk, writing: Writing) -> None:
    desk.ask(1, 2)
    desk.batches.step()
    assert desk.take(1) == [f"{NAMES[0]} Grey 1."]
    desk.leave(1)
    desk.ask(1, cards=cards()[1:])  # the first is written
    desk.ask(2)  # in another tab: all of it anew
    desk.batches.step()
    assert desk.take(1) == [f"{NAMES[1]} Grey 1."]
    assert writing.batches == [[1, 2]]
    assert desk.kept == [(level, name) for name in NAMES for level in (1, 2)]
    desk.ask(3)
    desk.leave(2)
    desk.leave(3)
    desk.batches.step()
    assert writing.batches == [[1, 2]]  # nobody waits any more


def test_what_is_left_behind_is_not_kept_for_ever(desk: Desk) -> None:
    for level in range(1, 40):
        desk.ask(level)
        desk.batches.step()
        desk.leave(level)
    assert len(desk.batches._batches) <= batches.KEPT


def test_a_batch_may_be_forgotten_while_it_is_written(desk: Desk, writing: Writing) -> None:
    def leaves(levels: list[int]) -> None:
        if 50 in levels:
            desk.leave(50)
            for level in range(1, batches.KEPT + 2):  # so many others have left since
                desk.batches._batches.append(Batch([desk.requests[50]], desk.batches._changed))
                desk.batches._batches[-1].requests.clear()
                desk.ask(level)
                desk.leave(level)
            writing.fails = lambda levels: None

    desk.ask(50, cards=cards()[:1])
    writing.fails = leaves
    desk.batches.step()
    assert len(desk.batches._batches) <= batches.KEPT


def test_an_image_that_cannot_be_written_for_stops_no_other(desk: Desk, writing: Writing) -> None:
    def fails(levels: list[int]) -> None:
        if 2 in levels:
            raise CXRLensError("The image holds NaN.")

    writing.fails = fails
    desk.ask(1, 2, 3)
    for _ in range(6):
        desk.batches.step()
    assert writing.batches == [[1, 2, 3], [1], [2], [3]]
    for level in (1, 3):
        assert desk.take(level) == [f"{name} Grey {level}." for name in NAMES]
    with pytest.raises(CXRLensError, match="NaN"):
        desk.take(2)
    assert desk.take(1) == []


def test_a_run_that_ends_in_the_middle_ends_for_itself_alone(desk: Desk, writing: Writing) -> None:
    class EndOfRun(BaseException):
        """As Streamlit ends a run."""

    def ends(levels: list[int]) -> None:
        writing.fails = lambda levels: None
        raise EndOfRun

    writing.fails = ends
    desk.ask(1, 2)
    with pytest.raises(EndOfRun):
        desk.batches.step()
    for _ in range(4):
        desk.batches.step()
    assert [desk.take(level) for level in (1, 2)] == [[f"{name} Grey {level}." for name in NAMES] for level in (1, 2)]


# -------------------------------------------------------------------------------------------------------------- helpers


def test_the_second_image_is_a_helpers_and_the_third_waits_for_who_is_free(
    desk: Desk, fake: Fake, writing: Writing
) -> None:
    fake.is_ready = True
    desk.ask(1)
    desk.batches.wait(desk.requests[1])
    assert not fake.answers
    desk.ask(2, 3, 4, 5)
    desk.batches.wait(desk.requests[2])
    desk.batches.hand_over()
    assert len(fake.answers) == 1
    assert writing.batches == [[1]]
    fake.answers[0].set_result({name: said(2) for name in NAMES})
    assert len(fake.answers) == 2  # the third, at once
    assert desk.take(2) == [f"{name} Grey 2." for name in NAMES]
    assert {(2, name) for name in NAMES} <= set(desk.kept)
    for _ in range(2):
        desk.batches.wait(desk.requests[4])
    assert writing.batches == [[1], [4]]
    assert len(fake.answers) == 2


def test_who_comes_back_waits_for_what_a_helper_writes_already(desk: Desk, fake: Fake) -> None:
    fake.is_ready = True
    desk.ask(1)
    desk.batches.step()
    desk.ask(2)
    desk.batches.hand_over()
    desk.leave(2)
    desk.ask(2)
    desk.batches.hand_over()
    assert len(fake.answers) == 1
    fake.answers[0].set_result({name: said(2) for name in NAMES})
    assert desk.take(2) == [f"{name} Grey 2." for name in NAMES]


def test_who_looks_through_studies_alone_starts_no_helper(desk: Desk, fake: Fake) -> None:
    fake.is_ready = True
    for level in (1, 2, 3):
        desk.ask(level)
        desk.batches.wait(desk.requests[level])
        desk.leave(level)  # before the second model has written
    assert (fake.started, len(fake.answers)) == (0, 0)
    fake.is_ready = False
    desk.ask(4)
    desk.ask(4)  # in another window
    desk.batches.wait(desk.requests[4])
    assert (fake.started, len(fake.answers)) == (0, 0)
    desk.ask(5)
    desk.batches.wait(desk.requests[5])  # written here, while helpers load
    assert (fake.started, len(fake.answers)) == (1, 0)


def test_where_helpers_break_for_good_this_process_writes(desk: Desk, fake: Fake, writing: Writing) -> None:
    fake.is_ready = True
    desk.ask(1)
    desk.batches.step()
    desk.ask(2)
    desk.batches.hand_over()
    fake.answers[0].set_exception(BrokenProcessPool("killed"))
    desk.batches.hand_over()
    assert len(fake.answers) == 1
    for _ in range(3):
        desk.batches.step()
    assert writing.batches == [[1], [2]]
    assert desk.take(2) == [f"{name} Grey 2." for name in NAMES]


@pytest.mark.parametrize("answer", [OSError("no memory for another process"), {}, {NAMES[0]: said(2)}])
def test_a_helper_that_cannot_be_asked_or_answers_amiss_keeps_nobody_waiting(
    desk: Desk, fake: Fake, writing: Writing, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def asked(names: Any, images: Any) -> Future[Written]:
        if isinstance(answer, OSError):
            raise answer
        done: Future[Written] = Future()
        done.set_result(answer)
        return done

    fake.is_ready = True
    monkeypatch.setattr(fake, "write", asked)
    desk.ask(1)
    desk.batches.step()
    desk.ask(2)
    desk.batches.hand_over()
    taken = []
    for _ in range(4):
        desk.batches.wait(desk.requests[2])
        taken += desk.take(2)
    assert taken == [f"{name} Grey 2." for name in NAMES]


@contextmanager
def another_waits(monkeypatch: pytest.MonkeyPatch, *readers: str) -> Iterator[None]:
    """Other readers wait for this process, each in a session of their own."""
    with ExitStack() as waiting:
        for reader in readers:
            with monkeypatch.context() as other:
                other.setattr(turns, "_reader", lambda reader=reader: reader)
                waiting.enter_context(turns.line().turn())
        yield


def test_who_waits_with_others_is_told_and_drawn_less_often(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns.told() == "" and turns.slice_of() == turns.SLICE
    turns.line().took(12.0, others=2)
    assert turns.line().seconds == 4
    with another_waits(monkeypatch, "a", "b", "c"):
        assert turns.told().startswith("Reports of 3 other X-rays are being written at the same time.")
        assert "about 8 s" in turns.told()  # four images of 4 s, two processes
        assert turns.slice_of() == 4 * turns.SLICE
    assert turns.told() == ""
