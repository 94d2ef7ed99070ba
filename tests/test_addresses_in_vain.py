"""Addresses that ask for what there is not: one sentence each, and the page shows something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on

pytestmark = [pytest.mark.numeric, needs_bundles]

CCVE = "phantom-ccve-transformer"
NOT_OFFERED = "The address asks for the {} '{}', which is not offered here. Showing another."


@pytest.fixture
def one_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CCVE with one decoder."""
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", CCVE, "shared")))


@pytest.mark.usefixtures("one_pair")
@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ({"word": "999"}, "The report has no word 999: it has"),
        ({"word": "0"}, "The report has no word 0: it has"),
        ({"word": "9" * 5000}, "The report does not have the word"),
        ({"sentence": "zebra"}, "The report has no sentence 'zebra': it has"),
        ({"sentence": "99"}, "The report has no sentence 99: it has"),
        ({"mention": "zebra"}, "zebra"),
        ({"word": "2", "explain": "nobody"}, NOT_OFFERED.format("method", "nobody")),
        ({"word": "2", "beside_pairs": "nobody"}, NOT_OFFERED.format("system", "nobody")),
    ],
)
def test_a_question_that_cannot_be_answered_is_told(address: dict[str, str], sentence: str) -> None:
    app = open_page("read", asked=CCVE, **address)
    said = [each.value for each in (*app.error, *app.warning)]
    assert len(said) == 1 and sentence in words_on(app)


def test_a_pair_of_other_models_is_named_as_the_pages_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = linked_bundles(tmp_path / "both", CCVE, "openi-fve-m2", "shared")
    monkeypatch.setenv("CXR_BUNDLES", str(both))
    app = open_page("read", asked="openi-fve-m2", word="1")
    (told,) = [each.value for each in app.warning]
    assert "FVE + M2, real X-rays (Open-i), which is not among these models" in told


@pytest.mark.usefixtures("one_pair")
def test_the_detection_page_names_what_it_does_not_offer() -> None:
    app = open_page("detection", extent="0", chest="0", detected="nobody", place="nowhere", models="nobody")
    asked = {"extent": "0", "chest": "0", "finding": "nobody", "place": "nowhere", "model": "nobody"}
    told = words_on(app)
    assert len(app.warning) == len(asked)
    assert all(NOT_OFFERED.format(*each) in told for each in asked.items())
    assert app.number_input(key="chest").value == 1 and not app.error


def test_other_pages_name_it_too() -> None:
    app = open_page("cases", case_page="²", case_observation="nothing")
    assert NOT_OFFERED.format("observation", "nothing") in words_on(app) and len(app.warning) == 1
    app = open_page("results", view="nothing", of="nobody")
    assert NOT_OFFERED.format("view", "nothing") in words_on(app)
