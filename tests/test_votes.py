"""What the number of systems that say a finding was worth."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping

import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as some

from core.evaluation.finds import Share
from core.evaluation.votes import alike, count_votes, right, votes_of
from core.observations import OBSERVATIONS, LabelState
from core.types import CXRLensError
from tests.conftest import ROOT

STATES = {"+": LabelState.POSITIVE, "?": LabelState.UNCERTAIN, "-": LabelState.NEGATIVE, " ": LabelState.BLANK}


def labels(edema: str) -> list[Mapping[str, LabelState]]:
    """Of studies, a sign each for Edema; nothing else is said."""
    return [{**dict.fromkeys(OBSERVATIONS, LabelState.BLANK), "Edema": STATES[sign]} for sign in edema]


def test_votes_are_counted_with_what_the_reference_says() -> None:
    counts = count_votes(labels("+-? +"), [labels("++?  "), labels("+ + -"), labels("+-+- ")])
    #                 votes of the studies: 3 1 3 0 0
    assert counts["Edema"] == [[2, 1], [1, 0], [0, 0], [2, 2]]
    assert counts["Fracture"] == [[5, 0], [0, 0], [0, 0], [0, 0]]


@given(some.integers(1, 40), some.data())
def test_numbers_that_are_told_as_one_are_thirds_without_gaps(of: int, data: some.DataObject) -> None:
    votes = data.draw(some.integers(0, of))
    first, last = alike(votes, of)
    assert first <= votes <= last
    assert {alike(each, of) for each in range(first, last + 1)} == {(first, last)}
    assert last - first <= of / 3
    assert alike(0, of) == (0, 0)


def test_thirds_of_twelve() -> None:
    assert [alike(each, 12) for each in (1, 4, 5, 8, 9, 12)] == [(1, 4), (1, 4), (5, 8), (5, 8), (9, 12), (9, 12)]


@given(some.lists(some.tuples(some.sampled_from("+?- "), some.text("+?- ", min_size=3, max_size=3)), max_size=30))
def test_each_study_is_counted_once(studies: list[tuple[str, str]]) -> None:
    said = labels("".join(reference for reference, _ in studies))
    systems = [labels("".join(written[place] for _, written in studies)) for place in range(3)]
    counts = count_votes(said, systems)["Edema"]
    whole = right(counts, 0, 3)
    assert (whole.among, whole.count) == (len(studies), sum(reference in "+?" for reference, _ in studies))


def test_counts_that_are_not_of_their_systems_are_refused() -> None:
    assert votes_of({}) == (frozenset(), {})
    good = {"of": ["a", "b"], "counts": {"Edema": [[1, 0], [2, 1], [0, 0]]}}
    assert votes_of({"votes": good}) == (frozenset("ab"), {"Edema": [(1, 0), (2, 1), (0, 0)]})
    for damaged in ({"of": ["a"], "counts": good["counts"]}, {"of": 3}, {"of": [], "counts": {"Edema": [1]}}, "x"):
        with pytest.raises(CXRLensError, match="Evaluate again"):
            votes_of({"votes": damaged})


@given(some.integers(1, 5000), some.data())
def test_the_interval_of_a_share_is_scipys(among: int, data: some.DataObject) -> None:
    count = data.draw(some.integers(0, among))
    peer = scipy.stats.binomtest(count, among).proportion_ci(method="wilson")
    assert Share(count, among).interval == pytest.approx((peer.low, peer.high), abs=1e-12)
    assert Share(0, 0).interval is None


def test_no_reader_waits_for_scipys_statistics_to_see_what_a_vote_is_worth() -> None:
    code = (
        "import sys; from dashboard.read import agreement; from dashboard.services.stored import Votes; "
        "found = agreement.worth('Edema', 1, Votes({'Edema': [[9, 1], [20, 5]]}, 'studies')); "
        "assert found.too == '25% of 20' and '95 % interval' in found.about; sys.exit('scipy.stats' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
