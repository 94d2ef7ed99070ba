"""What a report may look like: rules of words and sentences that all decoders share, by known answers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.decoders import Decoder, Memory
from core.decoders.base import DecoderOutput
from core.decoders.beams import Hypothesis
from core.decoders.rules import Rules, Written
from core.decoders.search import GenerateConfig, generate
from core.text import END, PAD, SENTENCE_END, SPECIAL_TOKENS, START, UNKNOWN, Vocabulary, count_words, split_sentences
from core.types import CXRLensError, VisualTokens

pytestmark = pytest.mark.numeric

WORDS = (
    *("the", "lungs", "are", "clear", ".", "no", "pleural", "effusion", "is", "seen", "there", "heart", "normal", ","),
    *("xxxx", "___", "1", "5", "cm", "or", "pneumothorax", "spine", "bones", "intact", "small", "left"),
)
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *WORDS))
STOP = VOCABULARY.words.index(".")
ONE = VisualTokens(torch.zeros(1, 3, 4), (), ("x",) * 3)


class Wish(Decoder):
    """A decoder that knows which words it would like to write, in order of preference, after each prefix.

    Where a planner is played, a prefix is that of its sentence, and sentences come in their order.
    """

    def __init__(self, wishes: Mapping[str, Sequence[str]], *, planned: Sequence[str] = ()) -> None:
        super().__init__()
        self.wishes = {tuple(prefix.split()): list(wanted) for prefix, wanted in wishes.items()}
        self.planned = [tuple(each.split()) for each in planned]
        self.sentences = bool(planned)

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        return Memory(visual.tokens.unsqueeze(1), slice(0, visual.tokens.shape[1]))

    def start(self, memory: Memory, beams: int = 1) -> Prefixes:
        return Prefixes([()] * (len(memory.levels) * beams))

    def step(self, ids: Tensor, state: Prefixes) -> tuple[Tensor, Prefixes]:
        prefixes = [(*prefix, index) for prefix, index in zip(state.prefixes, ids.tolist(), strict=True)]
        logits = torch.stack([self.logits(prefix) for prefix in prefixes])
        return logits, Prefixes(prefixes)

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        # The attention counts the words that were read.
        count = torch.arange(1.0, ids.shape[1] + 1)[None, None, None, :, None]
        return DecoderOutput(torch.zeros(*ids.shape, 1), count.expand(len(ids), 1, 1, -1, 3))

    def logits(self, prefix: tuple[int, ...]) -> Tensor:
        words = tuple(VOCABULARY.words[index] for index in prefix if index != START)
        logits = torch.full((len(VOCABULARY),), -50.0)
        logits[END] = -99.0
        if self.sentences:
            done = words.count("<sentence-end>")
            inside = words[len(words) - words[::-1].index("<sentence-end>") :] if done else words
            if not inside and done == len(self.planned):
                wanted = ["<end>"]
                logits[:] = -math.inf
            else:
                plan = (*self.planned[done], "<sentence-end>")
                wanted = [plan[len(inside)]] if len(inside) < len(plan) else ["<sentence-end>"]
                logits[[PAD, START, END]] = -math.inf
        else:
            as_wished = not words or words[-1] in self.wishes.get(words[:-1], ())
            wanted = self.wishes.get(words, ["<end>"] if as_wished else [])
        for rank, word in enumerate(wanted):
            logits[VOCABULARY.words.index(word)] = 10.0 - rank
        return logits


class Prefixes:
    def __init__(self, prefixes: list[tuple[int, ...]]) -> None:
        self.prefixes = prefixes

    def reorder(self, rows: Tensor) -> Prefixes:
        return Prefixes([self.prefixes[row] for row in rows.tolist()])


def path(text: str, *then: str) -> dict[str, list[str]]:
    """Wishes that write a text word for word, and after it what is given."""
    words = text.split()
    return {" ".join(words[:length]): [words[length]] for length in range(len(words))} | {text: list(then)}


def text_of(found: Hypothesis) -> str:
    return " ".join(VOCABULARY.decode(found.ids))


def write(decoder: Decoder, beams: int = 1, **changes: object) -> Hypothesis:
    config = GenerateConfig(beam_size=beams, max_words=40, **changes)  # type: ignore[arg-type]
    return generate(decoder, ONE, config, VOCABULARY, return_attention=True)[0]


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        # after the decimal point come its digits, though a new sentence is likelier
        (path("there is 1 .", "no", "5") | {"there is 1 . 5": ["cm"], "there is 1 . 5 cm": ["effusion"]},
         "there is 1 . 5 cm effusion"),
        # neither report nor sentence ends with a number
        (path("there is 1", "<end>", "cm") | {"there is 1 cm": ["effusion"]}, "there is 1 cm effusion"),
        (path("there is 1 . 5", ".", "cm") | {"there is 1 . 5 cm": ["effusion"]}, "there is 1 . 5 cm effusion"),
        # nor does one begin with it, the first or another
        (path("", "5", "no") | {"no": ["effusion"], "no effusion": ["seen"]}, "no effusion seen"),
        (path("lungs are clear .", "5", "no") | {"lungs are clear . no": ["effusion"],
         "lungs are clear . no effusion": ["seen"]}, "lungs are clear . no effusion seen"),
        # others are as ever
        (path("small 1 cm effusion . no effusion .", "<end>"), "small 1 cm effusion . no effusion ."),
    ],
)  # fmt: skip
def test_no_sentence_begins_or_ends_with_a_number_where_that_is_asked_for(
    wishes: dict[str, list[str]], expected: str, beams: int
) -> None:
    asked = {"min_sentence_words": 2, "edge_numbers": False}
    assert text_of(write(Wish(wishes), beams, **asked)) == expected
    if beams == 1 and "no" in wishes.get("there is 1 .", ()):
        assert text_of(write(Wish(wishes), beams, min_sentence_words=2)).startswith("there is 1 . no")


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("never", ["<unknown>", "<pad>", "<start>", "<sentence-end>", "xxxx", "___"])
def test_some_words_are_never_written(never: str, beams: int) -> None:
    wishes = {"": ["the"], "the": [never, "lungs"], "the lungs": ["are"], "the lungs are": ["clear"]}
    assert text_of(write(Wish(wishes), beams)) == "the lungs are clear"


def test_what_stands_for_removed_words_may_be_asked_for() -> None:
    wishes = {"": ["xxxx"], "xxxx": ["<unknown>", "___"]}
    assert text_of(write(Wish(wishes), removed_words=True)) == "xxxx ___"


@pytest.mark.parametrize(
    ("wishes", "expected"),
    [
        # a fragment goes on, here with the next best word
        (path("the spine") | {"the spine": [".", "is"], "the spine is": ["normal"], "the spine is normal": ["."]},
         "the spine is normal ."),
        # the end of the report is no way out of a fragment
        (path("the spine") | {"the spine": ["<end>", "is"], "the spine is": ["normal"], "the spine is normal": ["."]},
         "the spine is normal ."),
        # short sentences that readers write stay
        (path("no effusion .", "<end>"), "no effusion ."),
        # no lone full stop, no second one, no punctuation before the first word
        (path("lungs are clear .") | {"lungs are clear .": [".", ",", "no"], "lungs are clear . no": ["effusion"],
                                      "lungs are clear . no effusion": ["."]}, "lungs are clear . no effusion ."),
        ({"": [".", ",", "<end>", "heart"], "heart": ["is"], "heart is": ["normal"], "heart is normal": ["."]},
         "heart is normal ."),
        # a decimal point ends nothing, and a number alone is no sentence
        (path("small 1 . 5 cm effusion .", "<end>"), "small 1 . 5 cm effusion ."),
        ({**path("lungs are clear . 1 ."), "lungs are clear . 1 .": ["<end>", "no", "5"],
          "lungs are clear . 1 . 5": [".", "cm"], "lungs are clear . 1 . 5 cm": ["effusion"],
          "lungs are clear . 1 . 5 cm effusion": ["."]}, "lungs are clear . 1 . 5 cm effusion ."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("beams", [1, 3])
def test_sentences_are_whole(wishes: dict[str, list[str]], expected: str, beams: int) -> None:
    found = write(Wish(wishes), beams, min_sentence_words=3, short_sentences=["no effusion"])
    assert text_of(found) == expected
    assert found.finished


def test_without_the_rule_a_fragment_is_written() -> None:
    assert text_of(write(Wish(path("the spine .", "<end>")))) == "the spine ."


def test_a_planned_sentence_is_whole_too() -> None:
    found = write(Wish({}, planned=["the lungs are clear .", ". heart is normal .", "the heart"]), min_sentence_words=3)
    sentences = [count_words(each) for each in split_sentences(VOCABULARY.decode(found.ids))]
    assert min(sentences) >= 3
    assert found.ids[-1] == END


def test_rules_give_way_where_a_decoder_allows_nothing_else(vocabulary: Vocabulary) -> None:
    class Forced(Wish):
        def logits(self, prefix: tuple[int, ...]) -> Tensor:
            logits = torch.full((len(VOCABULARY),), -math.inf)
            logits[VOCABULARY.words.index("the") if len(prefix) == 1 else END] = 0.0
            return logits

    assert text_of(write(Forced({}), min_sentence_words=3)) == "the"

    class Mad(Wish):
        def logits(self, prefix: tuple[int, ...]) -> Tensor:
            logits = torch.full((len(VOCABULARY),), -math.inf)
            logits[UNKNOWN] = 0.0
            return logits

    with pytest.raises(CXRLensError, match="no word that may be written"):
        write(Mad({}))


AGAIN = "no effusion is seen . the lungs are clear . there is no pleural effusion . the heart is normal ."


@pytest.mark.parametrize("beams", [1, 3])
def test_a_decoder_that_reads_its_words_ends_where_it_says_something_again(beams: int) -> None:
    wishes = path(AGAIN, "<end>") | {"no effusion is seen . the lungs are clear .": ["there", "<end>"]}
    assert text_of(write(Wish(wishes), beams)) == AGAIN
    found = write(Wish(wishes), beams, say_again=False)
    assert text_of(found) == "no effusion is seen . the lungs are clear ."
    assert found.finished
    assert found.ids[-1] == END
    before = text_of(found).split()
    prefixes = [tuple(VOCABULARY.ids(before[:length])) for length in range(len(before) + 1)]
    by_hand = sum(
        float(Wish(wishes).logits((START, *prefix)).log_softmax(0)[word])
        for prefix, word in zip(prefixes, [*VOCABULARY.ids(before), END], strict=True)
    )
    assert found.log_probability == pytest.approx(by_hand, abs=1e-3)
    assert found.attention[:, 0, 0, 0].tolist() == list(range(1, len(found.ids) + 1))


def test_a_beam_that_says_something_new_outlives_one_that_repeats() -> None:
    start = "no effusion is seen . "
    wishes = path("no effusion is seen .") | {
        start.strip(): ["there", "the"],
        **{prefix: each for prefix, each in path(f"{start}there is no pleural effusion .", "<end>").items()
           if prefix.startswith(start) and prefix.strip() != start.strip()},
        **{prefix: each for prefix, each in path(f"{start}the bones are intact .", "<end>").items()
           if prefix.startswith(start) and prefix.strip() != start.strip()},
    }  # fmt: skip
    assert text_of(write(Wish(wishes), 2)) == f"{start}there is no pleural effusion ."
    assert text_of(write(Wish(wishes), 2, say_again=False)) == f"{start}the bones are intact ."


@pytest.mark.parametrize("beams", [1, 3])
def test_a_planner_leaves_out_what_it_said_and_goes_on(beams: int) -> None:
    planned = [f"{each} ." for each in AGAIN.removesuffix(" .").split(" . ")]
    found = write(Wish({}, planned=planned), beams, say_again=False)
    assert text_of(found) == "no effusion is seen . the lungs are clear . the heart is normal ."
    ends = [index for index, each in enumerate(found.ids) if each == SENTENCE_END]
    assert len(ends) == 4  # its third sentence is empty: what it planned after it keeps its place
    assert ends[2] == ends[1] + 1
    said = [word for each in planned for word in (*each.split(), "|")]
    third = range(13, 19)  # steps at which its words were written; that of its end stays
    steps = [step for step in range(1, len(said) + 2) if step not in third]
    assert found.attention[:, 0, 0, 0].tolist() == steps


def test_no_study_depends_on_its_batch(decoder: Decoder, visual: VisualTokens, vocabulary: Vocabulary) -> None:
    for beams in (1, 4):
        config = GenerateConfig(beam_size=beams, max_words=24, no_repeat_ngram=3, min_sentence_words=2, say_again=False)
        together = generate(decoder, visual, config, vocabulary)
        uncached = generate(decoder, visual, config, vocabulary, cached=False)
        alone = [
            generate(decoder, VisualTokens(row, visual.grids, visual.sources), config, vocabulary)[0]
            for row in visual.tokens.split(1)
        ]
        assert [each.ids for each in together] == [each.ids for each in alone] == [each.ids for each in uncached]
        for each in together:
            assert PAD not in each.ids


def test_impossible_settings_of_sentences_are_refused() -> None:
    with pytest.raises(CXRLensError, match="min_sentence_words"):
        GenerateConfig(min_sentence_words=-1)


@given(st.data())
@settings(max_examples=80, deadline=None)
def test_what_would_repeat_an_n_gram_is_what_a_search_through_each_sentence_finds(data: st.DataObject) -> None:
    size, rows = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    config = GenerateConfig(no_repeat_ngram=size, min_sentence_words=data.draw(st.sampled_from([0, 2])))
    written = Written(Rules(config, VOCABULARY, len(VOCABULARY), torch.device("cpu"), plans=False), rows)
    ids = st.integers(len(SPECIAL_TOKENS), len(SPECIAL_TOKENS) + 5)
    for words in data.draw(st.lists(st.lists(ids, min_size=rows, max_size=rows), max_size=12)):
        written.follow(np.arange(rows), np.array(words))
    expected = set()
    for row, whole in enumerate(written.ids.tolist()):
        sentence = whole[len(whole) - whole[::-1].index(STOP) :] if STOP in whole else whole
        last = sentence[len(sentence) - size + 1 :]
        grams = [sentence[start : start + size] for start in range(len(sentence) - size + 1)]
        expected |= {(row, gram[-1]) for gram in grams if gram[:-1] == last}
    found = written._repeats()
    assert set(zip(*(each.tolist() for each in found), strict=True)) == expected
