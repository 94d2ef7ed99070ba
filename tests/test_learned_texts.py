"""What models learn from: texts without removed words, the short sentences of their readers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

from core.config import DataConfig, load_config
from core.settings import WriteConfig
from core.text import UNKNOWN
from training.data import StudyData
from training.options import PRESETS

CONFIG = load_config(PRESETS, "openi", ["data.min_word_count=2"])
TEXTS = [
    "The XXXX are intact. No XXXX focal opacity. No pneumothorax.",
    "No focal opacity. No pneumothorax. Chest.",
    "No focal opacity. Heart is normal.",
]


@dataclass(frozen=True)
class Data(StudyData):
    """Studies with these findings, and the same impressions."""

    @cached_property
    def studies(self):  # type: ignore[no-untyped-def, override]
        made = [SimpleNamespace(findings=text, impression=text, cluster_texts={"Pneumothorax": text}) for text in TEXTS]
        return {"train": made, "validate": made[:1], "test": made[:1]}


def data(*, removed_words: bool) -> Data:
    return Data(replace(CONFIG.data, removed_words=removed_words), Path("unused"))


def test_removed_words_are_learned_only_where_asked_for() -> None:
    without, with_them = data(removed_words=False), data(removed_words=True)
    assert not without.vocabulary.removed
    assert with_them.vocabulary.removed
    assert UNKNOWN not in without.vocabulary.encode("no focal opacity . no pneumothorax .", 20)
    for pairs in (without.pairs("train"), without.cluster_pairs("train")):
        assert pairs[0][2] == "No focal opacity. No pneumothorax."
    assert with_them.pairs("train")[0][2] == TEXTS[0]
    assert with_them.studies["train"][0].findings == without.studies["train"][0].findings == TEXTS[0]  # references stay


def test_what_was_learned_with_removed_words_is_not_taken_for_what_was_not(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(Data, "fingerprint", lambda self: "studies")
    assert data(removed_words=False).identity() != data(removed_words=True).identity()


def test_short_sentences_are_those_that_readers_write_often() -> None:
    write = WriteConfig(beam_size=1, max_words=9, length_penalty=1.0, no_repeat_ngram=0, min_sentence_words=3)
    assert data(removed_words=False).write_settings(write)["short_sentences"] == ["no pneumothorax"]
    assert "short_sentences" not in data(removed_words=False).write_settings(replace(write, min_sentence_words=0))


def test_presets_say_what_becomes_of_removed_words() -> None:
    assert isinstance(CONFIG.data, DataConfig)
    assert not CONFIG.data.removed_words
    assert not CONFIG.write.removed_words
    paper = load_config(PRESETS, "paper")
    assert paper.data.removed_words
    assert paper.write.removed_words
