"""Studies that a rehearsal invents are as many as its design asks for."""

from __future__ import annotations

from dataclasses import replace

from core.reviews.rehearsal import STUDIES, invented_cases
from tests.test_review_rehearsal import design


def test_invented_studies_are_as_many_as_the_design_says() -> None:
    assert len(invented_cases(design(), 0)) == STUDIES
    named = replace(design().studies, how="listed", ids=("s1", "s2"))
    assert [case.study_id for case in invented_cases(replace(design(), studies=named), 0)] == ["s1", "s2"]
