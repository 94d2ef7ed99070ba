"""Words and regions on the Read page, without a browser."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.bundles.card import Card
from core.types import Attribution, CXRLensError, Geometry
from dashboard import settings
from dashboard.components.trust import verdict
from dashboard.services import bundles, explanations, studies
from dashboard.services.explanations import Question
from tests.app_pages import linked_bundles, needs_bundles, open_page

pytestmark = pytest.mark.numeric

PAIRS = ("phantom-fve-transformer", "phantom-ccve-transformer")


@pytest.fixture(autouse=True)
def two_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FVE and CCVE with one decoder: cells and filters."""
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", *PAIRS, "shared")))


def opened(encoder: str) -> tuple[studies.Case, Card]:
    case = studies.open_study(next(iter(studies.visible_studies())))
    return case, bundles.cards()[encoder, "transformer"]


def test_a_map_of_a_wide_image_covers_its_square_and_owns_up_to_padding() -> None:
    # The square of a radiograph twice as wide as tall: a quarter of it is padding above, a quarter below.
    values = np.array([[4, 4], [0, 0], [0, 0], [0, 0]], dtype=np.float32).repeat(2, axis=1)
    found = Attribution(values, True, "grad-cam", "word", Geometry(height=50, width=100, size=64), "dve")
    drawn = explanations.heat_map((found,))
    assert drawn is not None
    assert drawn.place == (-0.5, 0.0, 2.0, 1.0)
    assert drawn.padding == 1.0
    inside = Attribution(np.roll(values, 1, axis=0), True, "grad-cam", "word", found.geometry, "dve")
    drawn = explanations.heat_map((inside,))
    assert drawn is not None
    assert drawn.padding == 0.0
    assert drawn.values[1].tolist() == [2.0] * 4  # half of the radiograph has all of it: twice the mean
    assert explanations.heat_map((Attribution(np.ones(13, np.float32), False, "attention", "word"),)) is None


@pytest.mark.parametrize("box", [(1.2, 0.1, 1.5, 0.4), (0.5, 0.5, 0.4, 0.6), (float("nan"), 0, 1, 1)])
def test_a_region_that_is_none_or_outside_is_refused(box: explanations.Box) -> None:
    with pytest.raises(CXRLensError, match="region"):
        explanations.region_mask(box, np.zeros((40, 30), np.float32))


def test_a_region_is_cut_at_the_edge_of_the_image() -> None:
    mask = explanations.region_mask((0.5, -1.0, 3.0, 0.5), np.zeros((40, 30), np.float32))
    assert mask[:19, 16:].all()
    assert not mask[:, :14].any()
    assert not mask[22:].any()


@needs_bundles
def test_a_word_has_maps_with_cells_and_bars_with_filters() -> None:
    case, card = opened("fve")
    found = explanations.answer(case, card, Question("word", 0), "attention")
    drawn = explanations.heat_map(found)
    assert drawn is not None and drawn.values.shape == (4, 4) and not drawn.signed
    assert drawn.values.mean() == pytest.approx(1, abs=1e-5)
    assert explanations.answer(case, card, Question("word", 0), "attention") is found
    case, card = opened("ccve")
    assert "grad-cam" not in explanations.choices(case, card, Question("word", 0))
    values = explanations.filter_values(explanations.answer(case, card, Question("word", 0), "attention"))
    assert values is not None and values.shape == (13,)
    assert values.sum() == pytest.approx(1, abs=1e-4)
    with pytest.raises(CXRLensError, match="Grad-CAM"):
        explanations.answer(case, card, Question("word", 0), "grad-cam")


@needs_bundles
def test_two_who_click_at_once_wait_for_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import core.explain.methods as methods

    explain, begun = methods.explain, []

    def counted(*arguments: Any, **options: Any) -> tuple[Attribution, ...]:
        begun.append(threading.get_ident())
        time.sleep(0.2)  # the other asks meanwhile
        return explain(*arguments, **options)

    monkeypatch.setattr(methods, "explain", counted)
    case, card = opened("fve")
    explanations.words_of(case, card, Question("word", 2))
    with ThreadPoolExecutor(2) as threads:
        jobs = [threads.submit(explanations.answer, case, card, Question("word", 2), "attention") for _ in range(2)]
        first, second = (job.result() for job in jobs)
    assert first is second
    assert len(begun) == 1


@needs_bundles
def test_an_answer_that_is_interrupted_is_not_kept() -> None:
    class StopError(Exception):
        """As Streamlit ends a run at the next progress."""

    def interrupt(done: int, total: int) -> None:
        raise StopError

    case, card = opened("fve")
    question = Question("word", 3)
    with pytest.raises(StopError):
        explanations.answer(case, card, question, "occlusion", interrupt)
    assert explanations.known(case, card, question, "occlusion") is None
    assert explanations.answer(case, card, question, "attention")


@needs_bundles
def test_trust_is_what_was_measured_or_says_that_nothing_was() -> None:
    _, ccve = opened("ccve")
    found = explanations.trust(ccve, "attention", Question("word", 0))
    sign, told = verdict(found, "nothing was measured")
    assert found is not None and told == found.verdict and "synthetic X-rays" in told
    assert (sign == ":material/verified:") == (found.trust == "better")
    assert explanations.trust(ccve, "occlusion", Question("word", 0)) is None  # of pixels
    assert verdict(None, "nothing was measured") == (":material/help:", "nothing was measured")


def told(tmp_path: Path, encoder: str, hits: dict[str, float]) -> None:
    """Plant what was measured: the pointing game of methods, of the middle 0.5, of the usual place 0.6."""
    entries = [
        {
            "encoder": encoder, "decoder": "", "method": method, "kind": "sentence", "n": 50,
            "numbers": {"pointing": [hit, hit - 0.05, hit + 0.05]},
            "gains": {
                prior: [hit - other, hit - other - 0.05, hit - other + 0.05]
                for prior, other in (("centre", 0.5), ("usual place", 0.6))
            },
        }
        for method, hit in hits.items()
    ]  # fmt: skip
    content = {"command": "cxr-lens explain-benchmark", "studies": 50, "entries": entries}
    (tmp_path / "phantom.json").write_text(json.dumps(content), encoding="utf-8")


@needs_bundles
def test_the_method_that_was_measured_best_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "explanations", lambda: tmp_path)
    case, card = opened("fve")
    for kind in ("word", "sentence"):
        question = Question(kind, 0)  # type: ignore[arg-type]
        told(tmp_path, "fve", {"attention": 0.1, "occlusion": 0.9, "grad-cam": 0.5, "smoothgrad": 0.7})
        order = list(explanations.choices(case, card, question))
        assert order[:3] == ["occlusion", "smoothgrad", "grad-cam"] and order[-1] == "attention"
        assert explanations.shows_a_place(card, question, order)
        told(tmp_path, "fve", {"attention": 0.1, "grad-cam": 0.5})
        assert not explanations.shows_a_place(card, question, order)
    (tmp_path / "phantom.json").write_text("{}", encoding="utf-8")
    assert len(explanations.choices(case, card, Question("word", 0))) == len(order)  # damaged: the page says so


@needs_bundles
def test_where_no_method_marks_the_finding_no_map_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "explanations", lambda: tmp_path)
    for hit, filled in ((0.1, False), (0.9, True)):
        told(tmp_path, "fve", {"grad-cam": hit})
        test = open_page("read", asked=PAIRS[0], word="2", explain="Grad-CAM")
        said = any("no map is coloured" in each.value for each in test.caption)
        assert said is not filled
        sign = ":material/verified:" if filled else ":material/block:"
        assert any(each.value.startswith(sign) for each in test.caption)


@needs_bundles
def test_an_address_asks_about_a_word_and_errors_are_said() -> None:
    test = open_page("read", asked=PAIRS[0], word="2", explain="Grad-CAM")
    assert test.selectbox(key="explain").value == "Grad-CAM"
    assert any("comes from" in each.value for each in test.markdown)
    test = open_page("read", asked=PAIRS[1], word="1")
    assert any("cxr-bars" in each.value for each in test.html)
    test = open_page("read", asked=PAIRS[0], word="zebra")
    assert any("does not have the word 'zebra'" in each.value for each in test.error)
    test.button(key="close").click().run()
    assert not test.error
    assert "asked" not in test.query_params
    test = open_page("read", asked="phantom-nobody", word="1")
    assert any("not among these models" in each.value for each in test.warning)


@needs_bundles
def test_a_region_in_the_address_is_answered_or_refused() -> None:
    test = open_page("read", region="0.2,0.4,0.5,0.8")
    case, card = opened("fve")
    changed = explanations.known_without(case, card, (0.2, 0.4, 0.5, 0.8), "blank")
    assert changed is not None
    assert len(changed.word_changes) == len(changed.before.words)
    test = open_page("read", region="2,2,3,3")
    assert any("outside the image" in each.value for each in test.error)
    test = open_page("read", region="left")
    assert any("four numbers" in each.value for each in test.warning)


@needs_bundles
@pytest.mark.slow  # speeds
def test_explanations_are_fast_enough(record_property) -> None:
    case, card = opened("fve")
    explanations.answer(case, card, Question("word", 0), "attention")  # loads and encodes
    most = {"grad-cam": 0.5, "integrated-gradients": 3.0, "occlusion": 4.0}
    taken = dict.fromkeys(most, 99.0)
    for word in (1, 2, 3):
        for how in most:
            started = time.perf_counter()
            explanations.answer(case, card, Question("word", word), how)
            taken[how] = min(taken[how], time.perf_counter() - started)
    started = time.perf_counter()
    explanations.answer(case, card, Question("word", 1), "occlusion")
    again = time.perf_counter() - started
    record_property("explanation_seconds", taken | {"again": again})
    assert all(taken[how] <= most[how] for how in most), taken
    assert again < 0.3
