"""The pages of what was measured of sentences: marks on Read, curves on Results, and nothing where nothing is known."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.bundles.library import BundleLibrary
from core.evaluation.trust_files import trust_file, write_trust
from core.gate.gate import Gate
from core.observations import LabelState
from core.studies.phantom import PhantomSource
from core.types import CXRLensError
from dashboard.read import marks
from dashboard.services import sentence_trust
from dashboard.services.sentence_trust import Marks
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.test_trust import a_family

pytestmark = [pytest.mark.numeric, needs_bundles]
NAMES = ("phantom-fve-m2", "phantom-fve-transformer")
FILES = ("shared", "phantom-gate.safetensors", "phantom-results.json", "phantom-reports.jsonl", "phantom-labels.npz")
TOLD = "● before a sentence: at most 1 in 10 sentences marked so was wrong on films like those it was measured on"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = linked_bundles(tmp_path / "bundles", *NAMES, *FILES)
    monkeypatch.setenv("CXR_BUNDLES", str(found))
    sentence_trust._measured.clear()  # kept for the whole process: another test may have opened the same study
    return found


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, Any]]]:
    """The cards of each run of the Read page, by name."""
    runs: list[dict[str, dict[str, Any]]] = []
    monkeypatch.setattr(
        "dashboard.components.report.report_cards",
        lambda cards, **_: runs.append({each["name"]: each for each in cards}),
    )
    return runs


def measured(folder: Path, least: float, panel: Sequence[str] = NAMES) -> Path:
    """What was measured, with limits from which on all is marked, or nothing."""
    path, cards = trust_file(folder, "phantom"), {name: BundleLibrary(folder).card(name) for name in NAMES}
    write_trust(path, replace(a_family(NAMES, least), panel=tuple(panel)), cards)
    return path


def test_sentences_above_the_limit_get_a_mark_and_one_sentence_says_what_it_means(
    folder: Path, drawn: list[dict[str, dict[str, Any]]]
) -> None:
    measured(folder, -1e9)
    page = open_page("read")
    assert f"{TOLD} (validation: 180 sentences)." in words_on(page)
    assert all(not each["reliable"] for each in drawn[0].values())  # reports first, marks when they are there
    for card in drawn[-1].values():
        assert card["reliable"]
        assert set(card["reliable"]) <= set(card["sentences"])
        # A sentence is marked when it states something, and only then.
        stating = {
            max(start for start in card["sentences"] if start <= piece["first"])
            for piece in card["pieces"]
            if piece.get("state") in (LabelState.POSITIVE, LabelState.NEGATIVE)
        }
        assert set(card["reliable"]) <= stating


def test_sentences_below_the_limit_get_none_and_nothing_is_said(
    folder: Path, drawn: list[dict[str, dict[str, Any]]]
) -> None:
    measured(folder, math.inf)
    page = open_page("read")
    assert "before a sentence" not in words_on(page)
    assert all(not each["reliable"] for run in drawn for each in run.values())


def test_without_a_measurement_there_is_no_mark(folder: Path, drawn: list[dict[str, dict[str, Any]]]) -> None:
    page = open_page("read")
    assert "sentence" not in "".join(each.value for each in page.caption if "reliable" in each.value)
    assert all(not each["reliable"] for each in drawn[-1].values()) and len(drawn) == 1


def test_a_film_that_the_gate_warns_of_gets_no_mark_and_one_sentence_says_so(
    folder: Path, drawn: list[dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(folder, -1e9)
    monkeypatch.setattr(Gate, "warnings", lambda self, images, tokens: [("It is turned.",)] * len(images))
    page = open_page("read", study="P000004-1")
    assert words_on(page).count(marks.UNLIKE) == 1
    assert TOLD not in words_on(page)
    assert all(not each["reliable"] for each in drawn[-1].values())


def test_a_damaged_file_costs_the_marks_alone(folder: Path, drawn: list[dict[str, dict[str, Any]]]) -> None:
    measured(folder, -1e9).write_text("{")
    page = open_page("read")
    (told,) = [each.value for each in page.caption if "No sentence is marked as reliable" in each.value]
    assert "phantom-trust.json cannot be read" in told and str(folder) not in told
    assert drawn[-1][NAMES[0]]["pieces"]
    other = open_page("results", view="Sentences to trust")
    assert any("phantom-trust.json cannot be read" in each.value for each in other.error)


def test_what_cannot_be_measured_is_said_and_not_tried_again(
    folder: Path, drawn: list[dict[str, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(folder, -1e9)
    tried = []

    def fail(case: Any, reading: Any) -> None:
        tried.append(reading.card.name)
        raise CXRLensError(f"{folder}/shared is damaged")

    monkeypatch.setattr("dashboard.services.sentence_trust.measure", fail)
    page = open_page("read", study="P000012-1")
    assert sum("No sentence is marked as reliable: shared is" in e.value for e in page.caption) == 1
    page.run()
    assert sorted(tried) == sorted(NAMES)
    assert drawn[-1][NAMES[0]]["pieces"]


def test_results_show_how_often_sentences_are_wrong(folder: Path) -> None:
    found = open_page("results", view="Sentences to trust")
    assert any("was not measured for these models" in each.value for each in found.info)
    measured(folder, 0.0)
    page = open_page("results", view="Sentences to trust", of="FVE + Transformer")
    told = words_on(page)
    assert "How often sentences of FVE + Transformer are wrong, the surest first" in told
    (table,) = [each.value for each in page.dataframe if "Wrong, of marked" in each.value]
    row = table.iloc[-1]
    known = a_family(NAMES).pairs[NAMES[1]][0].found["all"]
    assert (row["Sentences"], row["Marked"]) == (known.sentences, known.marked)
    assert row["Wrong, of marked"] == pytest.approx(known.error, abs=1e-5)
    assert np.isclose(row["From"], known.low, atol=1e-5) and np.isclose(row["To"], known.high, atol=1e-5)
    assert "with a probability of 90% at most 10% of marked sentences are wrong" in told
    assert "The other models: FVE + M2." in told


@pytest.mark.slow
def test_reports_stand_as_soon_with_marks_as_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the next study, with -s: processor time until its reports stand, and until the marks do, against without."""
    spent: dict[str, list[float]] = {"without": [], "reports": [], "marks": []}
    shown: list[float] = []
    monkeypatch.setattr("dashboard.components.report.report_cards", lambda *_, **__: shown.append(time.process_time()))
    ids = PhantomSource(4000, 0).ids("test")[20:36]
    for place, study in enumerate(ids):
        if place == len(ids) // 2:
            measured(folder, -1e9)
        shown.clear()
        begun = time.process_time()
        open_page("read", study=study)
        if place % (len(ids) // 2) >= 2:  # a new file beside the bundles: all is read anew
            spent["without" if place < len(ids) // 2 else "reports"].append(shown[0] - begun)
            if place > len(ids) // 2:
                spent["marks"].append(shown[-1] - begun)
    medians = {name: float(np.median(each)) for name, each in spent.items()}
    told = ", ".join(f"{name} {value:.2f} s" for name, value in medians.items())
    ratios = ", ".join(f"{name} {medians[name] / medians['without']:.2f}" for name in ("reports", "marks"))
    sys.stdout.write(f"{told}; against without: {ratios}\n")
    assert medians["reports"] < 1.4 * medians["without"]


def test_families_of_which_one_knows_no_such_films_are_told_apart() -> None:
    trust = a_family(NAMES).pairs[NAMES[0]][0]
    both = marks._told([Marks((0,), trust), Marks((), trust, unlike=True)])
    assert both.startswith(TOLD) and both.endswith(marks.SOME_UNLIKE)
    assert marks._told([Marks((), trust, unlike=True)]) == marks.UNLIKE
    assert marks._told([Marks((), trust)]) == marks._told([]) == ""
