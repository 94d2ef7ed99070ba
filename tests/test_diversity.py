"""Diversity by hand, and a warning for each planted collapse."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.evaluation.diversity import collapse_warnings, diversity

REFERENCES = [f"The heart is normal. Nodule {place} in the left lung." for place in range(40)]


def test_diversity_by_hand() -> None:
    got = diversity(["No effusion. No effusion.", "no  effusion. No effusion.", "Large heart.", ""])
    assert (got.reports, got.distinct, got.most_frequent, got.empty) == (4, 3 / 4, 2 / 4, 1 / 4)
    assert got.words == (6 + 6 + 3) / 4
    assert got.vocabulary == len({"no", "effusion", ".", "large", "heart"})
    assert got.repeated_sentences == 2 / 5
    with pytest.raises(ValueError, match="no report"):
        diversity([])


@pytest.mark.parametrize(
    ("generated", "said"),
    [
        ([REFERENCES[0]] * 30 + REFERENCES[:10], "one report was written for 78%"),
        ([REFERENCES[place % 3] for place in range(40)], "only 7.5% of the reports are distinct"),
        ([text + " Nothing else is seen" * 5 for text in REFERENCES], r"ratio 2\.\d"),
        (["Nodule." for _ in REFERENCES], r"ratio 0\.1"),
        (["", *REFERENCES[1:]], "2.5% of the reports have no word"),
        (
            [text.split(". ")[0] + ". " + text.split(". ")[0] + "." for text in REFERENCES],
            "50% of the sentences repeat",
        ),
        ([f"{text} Clear lungs." for text in REFERENCES], "Contradiction: 100% of the reports"),
    ],
)
def test_each_collapse_is_named(generated: list[str], said: str) -> None:
    warnings = "\n".join(collapse_warnings(diversity(generated), diversity(REFERENCES)))
    assert re.search(said, warnings), warnings


def test_how_reports_read_by_hand() -> None:
    got = diversity(
        [
            "No pleural effusion. There is no effusion seen.",
            "The <unknown> is XXXX. The spine.",
            "Lungs are clear. .",
            "No pneumothorax, no pleural effusion.",
        ]
    )
    assert (got.repeated_denials, got.unknown, got.removed) == (1 / 4, 1 / 4, 1 / 4)
    assert (got.short, got.wordless) == (1 / 4, 1 / 4)
    assert got.repeated_sentences == got.contradictions == 0


def test_reworded_repeats_and_unknown_words_are_warned_of() -> None:
    reworded = [f"No effusion. No pleural effusion is seen. Nodule {place} in the left lung." for place in range(40)]
    (warning,) = collapse_warnings(diversity(reworded), diversity(REFERENCES))
    assert warning.startswith("Repetition: 100% of the reports deny the same observation twice")
    unknown = [f"{text} The <unknown> is normal." for text in REFERENCES[:10]] + REFERENCES[10:]
    (warning,) = collapse_warnings(diversity(unknown), diversity(REFERENCES))
    assert warning.startswith("Unknown words: 25.0%")


@given(
    st.lists(st.sampled_from(["No effusion.", "Large heart.", "Clear lungs. No fracture."]), min_size=1, max_size=30)
)
def test_references_themselves_are_no_collapse(texts: list[str]) -> None:
    assert collapse_warnings(diversity(texts), diversity(texts)) == []
