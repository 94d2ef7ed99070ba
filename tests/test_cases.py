"""The Cases page: which studies it finds, the figure it exports, and the page itself without a browser."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.evaluation.reports import Evaluation
from core.labels.rules import label_report
from core.types import CXRLensError
from dashboard.services import case_figure, cases, evaluations
from dashboard.services.cases import Question, matching
from tests.app_pages import needs_bundles, open_page

EFFUSION = "There is a small left pleural effusion."
NONE = "The lungs are clear. No pleural effusion."
HEART = "The heart is enlarged."


def evaluated(references: list[str], **texts: list[str]) -> Evaluation:
    ids = tuple(f"S{n}" for n in range(len(references)))
    return Evaluation(
        ids,
        ids,
        tuple(references),
        tuple(label_report(text).states for text in references),
        {name: tuple(each) for name, each in texts.items()},
        {name: tuple(label_report(text).states for text in each) for name, each in texts.items()},
    )


FOUND = evaluated(
    [EFFUSION, EFFUSION, NONE, NONE],
    a=[EFFUSION, NONE, NONE, HEART],
    b=[NONE, NONE, NONE, NONE],
)


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        ({}, [0, 1, 2, 3]),
        ({"agreement": cases.DISAGREE}, [0, 3]),
        ({"agreement": cases.ALL_WRONG}, [1]),
        ({"agreement": cases.ALL_RIGHT}, [2]),
        ({"observation": "Pleural Effusion"}, [0, 1]),
        ({"observation": "Pleural Effusion", "outcome": "found"}, [0]),
        ({"observation": "Pleural Effusion", "outcome": "opposite"}, [0, 1]),
        ({"outcome": "invented"}, [3]),
        ({"observation": "Cardiomegaly", "outcome": "missed"}, []),
        ({"text": " HEART  is"}, [3]),
        ({"order": cases.MOST_ERRORS}, [1, 0, 3, 2]),
        ({"order": cases.MOST_DISAGREEMENT}, [0, 3, 1, 2]),
        ({"order": cases.FEWEST_ERRORS}, [2, 0, 3, 1]),
    ],
)
def test_matching_studies_and_their_order(asked: dict[str, str], places: list[int]) -> None:
    assert matching(FOUND, Question(("a", "b"), **asked)) == places


def test_only_chosen_pairs_count_and_a_slice_limits() -> None:
    assert matching(FOUND, Question(("b",), agreement=cases.DISAGREE)) == []
    assert matching(FOUND, Question(("b",), text="heart")) == []
    within = np.array([False, True, True, False])
    assert matching(FOUND, Question(("a", "b")), within) == [1, 2]


def figure(text: str, count: int = 1) -> case_figure.Figure:
    found = evaluated([EFFUSION] * count, a=[text] * count)
    rows = cases.rows(found, ["a"], range(count))
    return case_figure.Figure("openi", ["A + B"], ["a 0123"], rows, "all studies")


def test_html_says_outcomes_in_signs_and_lets_no_markup_through() -> None:
    page = case_figure.to_html(figure("<script>x</script> " + HEART)).decode()
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert re.search(r'<mark class="invented bold"[^>]*>\+heart', page)
    assert "○Pleural Effusion" in page
    assert case_figure.RESEARCH in page
    assert "a 0123" in page
    assert "http" not in page


def test_pdf_lines_keep_all_words_within_their_column_and_break_at_spaces_only() -> None:
    text = f"{HEART[:-1]}, {EFFUSION} " * 6
    (cell,) = figure(text).rows[0].cells
    lines = case_figure._wrapped(case_figure._stretches(cell.pieces), 150.0)
    said = " ".join("".join((" " if run[0] else "") + run[1][0] for run in line) for line in lines)
    assert re.sub(r"[\s✓+]", "", said) == re.sub(r"\s", "", text)
    for line in lines:
        assert line[-1][0] + case_figure._advance(line[-1][1][0], bold=line[-1][1][1]) <= 150.0
        assert not line[0][1][0].startswith((",", "."))


def test_pdf_shares_studies_among_pages() -> None:
    def pages(content: bytes) -> int:
        assert content.startswith(b"%PDF")
        return len(re.findall(rb"/Type /Page\b", content))

    assert pages(case_figure.to_pdf(figure(HEART))) == 1
    assert pages(case_figure.to_pdf(figure(f"{HEART} " * 40, count=5))) == 3


# ------------------------------------------------------------------------------------------------------------ page


def page(**address: str | list[str]) -> AppTest:
    return open_page("cases", **{cases.KEYS.get(name, name): value for name, value in address.items()})


def heading(test: AppTest) -> str:
    return next(each.value for each in test.markdown if "page" in each.value)


@needs_bundles
def test_a_page_turns_and_a_new_question_begins_at_the_first() -> None:
    test = page(pairs=["FVE + M2", "CVE + M2"], agreement=cases.DISAGREE)
    assert test.multiselect(key=cases.KEYS["pairs"]).value == ["FVE + M2", "CVE + M2"]
    first = heading(test)
    assert " page 1 of " in first
    test.button(key="page_on").click().run()
    assert " page 2 of " in heading(test)
    assert test.query_params["case_page"] == "2"
    test.selectbox(key=cases.KEYS["observation"]).set_value("Pneumothorax").run()
    assert " page 1 of " in heading(test)
    assert "case_page" not in test.query_params
    test.text_input(key=cases.KEYS["text"]).set_value("no such words").run()
    assert any("No study fits" in each.value for each in test.info)
    test.multiselect(key=cases.KEYS["pairs"]).set_value([]).run()
    assert any("No model is chosen" in each.value for each in test.info)
    test.switch_page("app_pages/results.py").run()
    assert not test.exception


@needs_bundles
def test_unknown_addresses_do_no_harm() -> None:
    test = page(page="99999", figure="nobody,P000002-1", observation="Flu", pairs=["x"])
    assert any("nobody" in each.value for each in test.caption)
    assert "page 50 of 50" in heading(test)


@needs_bundles
def test_patients_reports_that_are_not_here_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = evaluations.result_sets()[0]["openi"]
    with pytest.raises(CXRLensError, match="Choose your copy of these studies as the source on the Cases page"):
        evaluations.read_reports(found)
    assert "400 studies" in heading(page())
