"""The rule labeler decides a sentence once: the same mentions as if every statement were decided where it stands."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.labels import report_text, rules
from core.labels.rules import LabeledReport, label_report
from core.studies.phantom import PhantomSource
from training.bench.shortcuts import ENDS

SENTENCES = (
    "No effusion.",
    "small effusion",
    "Heart size is normal and the lungs are clear.",
    "Possible pneumonia or atelectasis",
    "pneumothorax: none",
    "A right PICC ends in the SVC.",
    "one cannot be excluded",
    "fracture of the left wrist",
)
BEFORE = ("", "FINDINGS: ", "HISTORY: ", "LEFT HAND:\n", "- ", "2) ", "\u2022", "_", "x", "e\u0301")


@pytest.fixture
def anew(monkeypatch: pytest.MonkeyPatch) -> object:
    """Labels a text with every statement decided where it stands."""

    def label(text: str) -> LabeledReport:
        with monkeypatch.context() as patched:
            patched.setattr(rules, "_mentions", rules._read_statement)
            return label_report(text)

    return label


def test_reports_are_labelled_as_if_nothing_were_remembered(anew) -> None:  # type: ignore[no-untyped-def]
    texts = [study.findings for study in PhantomSource(150, 0).studies("train")]
    assert [label_report(text) for text in texts] == [anew(text) for text in texts]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(BEFORE), st.sampled_from(SENTENCES)), max_size=8), st.sampled_from(" \n;"))
def test_a_sentence_that_stands_elsewhere_is_read_by_what_stands_there(
    parts: list[tuple[str, str]], between: str
) -> None:
    text = between.join(before + sentence for before, sentence in parts)
    remembered = label_report(text)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rules, "_mentions", rules._read_statement)
        assert label_report(text) == remembered


@pytest.mark.parametrize("head", ["x" * 999, "_" * 999, "\u00e9" * 999, "1" * 999, "-" * 999])
def test_what_is_cut_within_a_word_is_no_sentence_of_its_own(head: str, anew) -> None:  # type: ignore[no-untyped-def]
    text = f"{head}xeffusion is seen"  # a statement is cut after 1,000 characters
    label_report("effusion is seen")  # remembered, as a sentence
    assert label_report(text) == anew(text)


def test_how_much_is_remembered_has_a_limit() -> None:
    for number in range(3 * rules._REMEMBERED // 2):
        rules._remembered(f"it is {number}", 0)
    assert rules._remembered.cache_info().currsize <= rules._REMEMBERED


PIECES = st.sampled_from([*".!?\n|#()*\u2022 abeivx123s\t\"'", "vs", "vs.", " . ", "1)", " a) ", "#1 ", " * ", "(1) "])


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=16).map("".join))
def test_statements_end_where_one_expression_finds_their_ends(text: str) -> None:
    cuts = [0, *(found.end() for found in ENDS.finditer(text)), len(text)]
    expected = [text[start:end].strip().lstrip(report_text._BULLETS) for start, end in pairwise(cuts)]
    found = [text[start:end] for start, end in report_text._spans(text, text)]
    assert found == [each for each in expected if each]
