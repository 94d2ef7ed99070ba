"""Tokens, sentences, vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.text import (
    END,
    SENTENCE_END,
    SPECIAL_TOKENS,
    START,
    UNKNOWN,
    Vocabulary,
    split_sentences,
    to_text,
    tokenize,
    without_removed,
)
from core.types import CXRLensError


def test_tokens_are_words_and_punctuation() -> None:
    assert tokenize("No pleural-effusion, or 1.5 cm nodule.") == [
        "no", "pleural", "-", "effusion", ",", "or", "1", ".", "5", "cm", "nodule", ".",
    ]  # fmt: skip


def test_a_decimal_point_ends_no_sentence() -> None:
    assert [len(each) for each in split_sentences(tokenize("A 1.5 cm nodule. Heart is normal."))] == [7, 4]


def test_text_is_written_as_prose() -> None:
    text = "No pleural-effusion, or 1.5 cm nodule. Heart is normal (see above)."
    assert to_text(tokenize(text)) == text


@given(st.lists(st.sampled_from(["heart", "lungs", "is", ",", "."]), max_size=20))
def test_sentences_lose_no_token(tokens: list[str]) -> None:
    assert [token for sentence in split_sentences(tokens) for token in sentence] == tokens


@given(st.text(max_size=80), st.integers(3, 20), st.booleans())
def test_encoding_begins_and_ends_as_promised(text: str, limit: int, sentences: bool) -> None:
    vocabulary = Vocabulary.build(["the heart is normal ."], 1)
    ids = vocabulary.encode(text, limit, sentences=sentences)
    assert ids[0] == START
    assert ids[-1] == END  # the published code cut it off long reports
    assert len(ids) <= limit
    if sentences and len(ids) > 2:
        assert ids[-2] == SENTENCE_END


def test_vocabulary_counts_and_sorts() -> None:
    vocabulary = Vocabulary.build(["b b a", "b c a"], 2)
    assert vocabulary.words[5:] == ("b", "a")
    assert vocabulary.encode("a c b", 10) == [START, 6, UNKNOWN, 5, END]
    assert vocabulary.decode([START, 6, SENTENCE_END, 5, END, 5]) == ["a", "b"]


def test_vocabulary_survives_its_file(tmp_path: Path) -> None:
    vocabulary = Vocabulary.build(["größe the heart"], 1)
    vocabulary.save(tmp_path / "vocab.json")
    assert Vocabulary.load(tmp_path / "vocab.json") == vocabulary


@pytest.mark.parametrize("content", ["", "{}", "[1, 2]", '["a"]', '["<pad>", '])
def test_a_damaged_vocabulary_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "vocab.json"
    path.write_text(content)
    with pytest.raises(CXRLensError):
        Vocabulary.load(path)


@pytest.mark.parametrize(
    ("text", "learned"),
    [
        ("No XXXX focal opacity. Clear lungs.", "No focal opacity. Clear lungs."),
        ("The XXXX are intact. Heart is normal.", "Heart is normal."),  # it was the noun
        ("Stable XXXX. Heart is normal.", "Heart is normal."),
        ("There are XXXX XXXX opacities, XXXX-shaped ones.", "There are opacities, ones."),
        ("Compared to ___, no change. Lungs are clear.", "Lungs are clear."),
        ("A 1.5 cm XXXX nodule is seen.", "A 1.5 cm nodule is seen."),
        ("XXXX intact. Heart is normal.", "Heart is normal."),
        ("XXXX.", ""),
        ("Lungs are XXXX.", "Lungs are."),  # there is nothing else
        ("Lungs are clear.", "Lungs are clear."),
        ("  Two\n lines. ", "  Two\n lines. "),
    ],
)
def test_removed_words_are_left_out_with_what_misses_them(text: str, learned: str) -> None:
    assert without_removed(text) == learned


def test_a_vocabulary_knows_which_words_stand_for_removed_ones() -> None:
    vocabulary = Vocabulary.build(["XXXX ___ lungs xxxxx exxon"], 1)
    assert {vocabulary.words[index] for index in vocabulary.removed} == {"xxxx", "___", "xxxxx"}


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Right-sided effusion.", ["right-sided", "effusion", "."]),
        ("right -sided", ["right", "-", "sided"]),
        ("left-sided", ["left", "-", "sided"]),
        ("end-to-end", ["end-to-end"]),
        ("end-to", ["end-to"]),
        ("end-to-endless", ["end-to", "-", "endless"]),
        ("x right-sided-", ["x", "right-sided", "-"]),
        ("", []),
    ],
)
def test_a_word_with_punctuation_stays_whole_where_it_is_one(text: str, tokens: list[str]) -> None:
    vocabulary = Vocabulary((*SPECIAL_TOKENS, "right-sided", "end-to", "end-to-end", "effusion", "."))
    assert vocabulary.tokens(text) == tokens
    assert Vocabulary((*SPECIAL_TOKENS, "right", "-", "sided")).tokens(text) == tokenize(text)
