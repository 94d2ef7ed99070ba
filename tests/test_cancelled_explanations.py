"""An explanation that is cancelled in the middle: the new question is answered, and nothing is left of the old one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

import core.explain.methods as methods
from core.cache import BoundedCache
from core.types import Attribution
from dashboard.components import viewer
from dashboard.read import questions
from dashboard.services import bundles, explanations, studies
from dashboard.services.explanations import Question
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on

pytestmark = [pytest.mark.numeric, needs_bundles]

FVE, CCVE = "phantom-fve-transformer", "phantom-ccve-transformer"
SLOW, NAME = "Integrated gradients", "integrated-gradients"  # over pixels, in many passes


@pytest.fixture(autouse=True)
def two_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FVE and CCVE with one decoder: cells and filters."""
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", FVE, CCVE, "shared")))
    bundles.cards()
    explanations._answers().clear()


def page_hash(name: str) -> str:
    """What Streamlit calls a page, in a run of the app."""
    context = get_script_run_ctx()
    assert context
    pages = context.pages_manager.get_pages()
    return next(key for key, each in pages.items() if each["url_pathname"] == name)


class Cancelling:
    """Counts the passes of each explanation; in the middle of the first, the reader goes on to something else."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, page: str = "", **address: str) -> None:
        self.passes: list[tuple[str, int, int]] = []
        self.maps: list[str] = []
        explain, heat = methods.explain, viewer._HEAT

        def counted(subject: Any, target: Any, method: str, **more: Any) -> tuple[Attribution, ...]:
            told: Callable[[int, int], None] = more.pop("progress")

            def progress(done: int, total: int) -> None:
                self.passes.append((target.name, done, total))
                if len(self.passes) == 1:
                    context = get_script_run_ctx()
                    assert context and context.script_requests
                    query = urlencode(address)
                    context.script_requests.request_rerun(
                        RerunData(page_script_hash=page_hash(page), query_string=query)
                    )
                told(done, total)

            few: dict[str, Any] = {"steps": 4, "batch": 1} if method == NAME else {}
            return explain(subject, target, method, progress=progress, **few, **more)

        def drawn(**given: Any) -> Any:
            self.maps.append(given["data"]["maps"])
            return heat(**given)

        monkeypatch.setattr(methods, "explain", counted)
        monkeypatch.setattr(viewer, "_HEAT", drawn)

    def of_first(self) -> list[tuple[str, int, int]]:
        """Passes of what was cancelled."""
        return [each for each in self.passes if each[0] == self.passes[0][0]]


def of_case(word: int) -> tuple[studies.Case, Any, Question]:
    case = studies.open_study(next(iter(studies.visible_studies())))
    return case, bundles.cards()["fve", "transformer"], Question("word", word)


@pytest.mark.parametrize(
    ("address", "title"),
    [
        ({"asked": FVE, "word": "6", "explain": SLOW}, "FVE + Transformer"),
        ({"asked": CCVE, "word": "2"}, "CCVE + Transformer"),
    ],
    ids=["another word", "another pair"],
)
def test_another_question_in_the_middle_is_answered_and_the_old_work_stops(
    monkeypatch: pytest.MonkeyPatch, address: dict[str, str], title: str
) -> None:
    cancelling = Cancelling(monkeypatch, **address)
    app = open_page("read", asked=FVE, word="4", explain=SLOW)
    asked_first = of_case(3)
    word = explanations.words_of(*asked_first[:2], asked_first[2])
    told = words_on(app)
    assert f"comes from · {title}" in told and f"Where {word} comes from · FVE" not in told
    assert not app.error and not app.warning
    (_, done, total) = cancelling.of_first()[-1]
    assert done < total and len(cancelling.of_first()) == 1  # the pass after which the reader clicked was its last
    assert explanations.known(*asked_first, NAME) is None
    # No other map was drawn than that of the new question, which is known now.
    (drawn,) = json.loads(cancelling.maps[-1])
    assert all(each in ("[]", cancelling.maps[-1]) for each in cancelling.maps)
    case = of_case(0)[0]
    card = next(each for each in bundles.cards().values() if each.name == address["asked"])
    found = explanations.known(case, card, Question("word", int(address["word"]) - 1), NAME)
    assert found is not None
    new = explanations.heat_map(found)
    assert new is not None and [drawn["height"], drawn["width"]] == list(new.values.shape)


def test_a_page_that_is_left_in_the_middle_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    cancelling = Cancelling(monkeypatch, "about")
    app = open_page("read", asked=FVE, word="4", explain=SLOW)
    assert "What CXR Lens is" in words_on(app) and "comes from" not in words_on(app)
    assert len(cancelling.passes) == 1
    assert explanations.known(*of_case(3), NAME) is None


def test_no_new_title_stands_above_the_old_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes time is done before the title is drawn, and the picture follows it at once."""
    done: list[str] = []
    show_title, answer = questions.show_title, explanations.answer

    def titled(*given: str) -> None:
        done.append("title")
        show_title(*given)

    def answered(*given: Any, **more: Any) -> tuple[Attribution, ...]:
        done.append("answer")
        return answer(*given, **more)

    monkeypatch.setattr(questions, "show_title", titled)
    monkeypatch.setattr(explanations, "answer", answered)
    open_page("read", asked=FVE, word="4", explain="Grad-CAM", compare="models")
    assert done and "title" in done
    assert done.index("title") > max(at for at, each in enumerate(done) if each == "answer")


def test_who_waits_for_anothers_answer_can_be_called_away() -> None:
    cache: BoundedCache[str, int] = BoundedCache(2)
    begun, end = threading.Event(), threading.Event()

    def make() -> int:
        begun.set()
        assert end.wait(30)
        return 1

    class ClickError(Exception):
        """As Streamlit ends a run."""

    def click() -> None:
        raise ClickError

    maker = threading.Thread(target=cache.get_or_make, args=("word", make))
    maker.start()
    assert begun.wait(30)
    try:
        with pytest.raises(ClickError):
            cache.get_or_make("word", lambda: 2, waiting=click)
        waited: list[int] = []
        waiter = threading.Thread(
            target=lambda: waited.append(cache.get_or_make("word", lambda: 3, waiting=lambda: None))
        )
        waiter.start()
    finally:
        end.set()
        maker.join(30)
    waiter.join(30)
    assert waited == [1] and cache.get("word") == 1
