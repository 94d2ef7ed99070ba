"""The order of sentences that planners learn."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from core.labels.order import abnormal_first
from core.labels.rules import label_report
from core.studies.phantom import PhantomSource
from core.text import split_sentences, tokenize


def test_what_is_present_or_possible_comes_first_by_observation() -> None:
    text = (
        "The lungs are clear. No pleural effusion. Possible small nodule in the right upper lung. "
        "The trachea is midline. Mild cardiomegaly. The mediastinum is not widened."
    )
    assert abnormal_first(text) == (
        "Mild cardiomegaly. Possible small nodule in the right upper lung. The mediastinum is not widened. "
        "No pleural effusion. The lungs are clear. The trachea is midline."
    )


def test_an_empty_text_stays_empty() -> None:
    assert abnormal_first("") == ""


@given(st.permutations(["Mild cardiomegaly.", "No pneumothorax.", "Small left pleural effusion.", "Bones are intact."]))
def test_one_content_has_one_order(sentences: list[str]) -> None:
    expected = "Mild cardiomegaly. Small left pleural effusion. No pneumothorax. Bones are intact."
    assert abnormal_first(" ".join(sentences)) == expected


def test_no_sentence_and_no_label_is_lost() -> None:
    for study in PhantomSource(60, seed=3).studies("train"):
        ordered = abnormal_first(study.findings)
        before, after = (sorted(map(tuple, split_sentences(tokenize(text)))) for text in (study.findings, ordered))
        assert before == after
        assert label_report(ordered).states == label_report(study.findings).states
