"""Which sentences say again what a report has said: by hand, and what must never be taken for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.labels.repeats import clashes, content, contradicts_itself, last_says_again, repeated_denials
from core.text import split_sentences, tokenize


def again(report: str) -> bool:
    return last_says_again(split_sentences(tokenize(report)))


@pytest.mark.parametrize(
    "report",
    [
        "No pleural effusion. There is no effusion seen.",
        "There is no pneumothorax or pleural effusion. No pneumothorax.",
        "No pneumothorax. No pleural effusion or pneumothorax.",
        "The heart is normal in size. No effusion. Heart size is within normal limits.",
        "The lungs are clear. The lungs are clear.",
        "The lungs are clear bilaterally. Lungs clear.",
        "No acute bony abnormality. There are no acute bony abnormalities.",
        "There is a small left pleural effusion. Small pleural effusion.",
    ],
)
def test_the_same_in_other_words_is_said_again(report: str) -> None:
    assert again(report)


@pytest.mark.parametrize(
    "report",
    [
        "No pleural effusion.",
        "No pleural effusion. No pneumothorax.",
        "No pneumothorax. No focal consolidation, pleural effusion, or pneumothorax.",
        "The heart is normal in size. The lungs are clear.",
        "There is a small left pleural effusion. The effusion has increased.",
        "No pleural effusion. There is cardiomegaly without pleural effusion.",
        "There is no left effusion. There is a right effusion.",
        "No acute disease. The bones are intact.",
    ],
)
def test_what_adds_something_is_not(report: str) -> None:
    assert not again(report)


@given(st.permutations(["No effusion.", "The heart is large.", "Clear lungs.", "There is no pneumothorax."]))
def test_the_order_of_different_statements_does_not_matter(sentences: list[str]) -> None:
    assert not any(again(" ".join(sentences[:count])) for count in range(1, 5))
    assert again(" ".join([*sentences, sentences[0]]))


def test_denials_are_counted_by_sentence() -> None:
    def twice(report: str) -> set[str]:
        return set(repeated_denials(content(tuple(each)) for each in split_sentences(tokenize(report))))

    assert twice("No effusion, no pleural effusion.") == set()
    assert twice("No pneumothorax or effusion. Lungs clear. No pleural effusion is seen.") == {"Pleural Effusion"}
    assert twice("There is an effusion. No effusion on the left.") == set()


@pytest.mark.parametrize(
    ("report", "contradicts"),
    [
        ("Mild cardiomegaly. The heart is normal in size.", True),
        ("The heart is normal in size. Mild cardiomegaly.", True),
        ("Left base opacity. The lungs are clear.", True),
        ("Left base opacity. The lungs are otherwise clear.", False),
        ("Left base opacity. The right lung is clear.", False),
        ("Left base opacity. The left lung is clear.", True),
        ("Small left pleural effusion. The lungs are clear.", False),
        ("Small left pleural effusion. No right pleural effusion.", False),
        ("Possible pneumothorax. No pneumothorax.", True),
        ("Left chest tube, no pneumothorax. The heart is enlarged.", False),
        ("No pneumothorax. No effusion.", False),
        ("", False),
    ],
)
def test_contradictions_by_hand(report: str, contradicts: bool) -> None:
    sentences = [content(tuple(each)) for each in split_sentences(tokenize(report))]
    assert contradicts_itself(sentences) is contradicts
    assert any(clashes(one, other) for one in sentences for other in sentences) is contradicts
