"""The decoders keep their contract: cached steps, causality, order of sentences, attention."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from core.attention import Attention
from core.decoders import Decoder, build_decoder
from core.decoders.attention_shares import cls_attention, rollout, word_attention
from core.decoders.cnn_rnn_rnn import _positions
from core.text import END, PAD, SENTENCE_END, START
from core.types import VisualTokens

pytestmark = pytest.mark.numeric

IDS = torch.tensor(
    [
        [START, 7, 8, 9, SENTENCE_END, 10, 11, SENTENCE_END, END],
        [START, 12, SENTENCE_END, 13, 5, 6, 7, SENTENCE_END, END],
        [START, 8, 8, 8, 8, SENTENCE_END, END, PAD, PAD],
    ]
)


def test_a_step_equals_the_whole_prefix_read_anew(decoder: Decoder, visual: VisualTokens) -> None:
    memory = decoder.encode(visual)
    state = decoder.start(memory)
    for place in range(5):
        logits, state = decoder.step(IDS[:, place], state)
        torch.testing.assert_close(logits, decoder.predict(memory, IDS[:, : place + 1]), atol=1e-4, rtol=1e-4)


def test_teacher_forcing_never_sees_later_words(decoder: Decoder, visual: VisualTokens) -> None:
    changed = IDS.clone()
    changed[:, 4:] = torch.where(IDS[:, 4:] > END, 17, IDS[:, 4:])
    before, after = decoder(visual, IDS).logits, decoder(visual, changed).logits
    torch.testing.assert_close(before[:, :4], after[:, :4])
    assert not torch.allclose(before[:, 4:6], after[:, 4:6])


def test_a_study_does_not_depend_on_its_batch(decoder: Decoder, visual: VisualTokens) -> None:
    # The published CNN-RNN-RNN trained sentences of one patient on the image of another (paper-notes 3.3).
    together = decoder(visual, IDS).logits
    for row in range(3):
        alone = decoder(VisualTokens(visual.tokens[row : row + 1], visual.grids, visual.sources), IDS[row : row + 1])
        length = int((IDS[row] != PAD).sum()) - 1
        torch.testing.assert_close(together[row, :length], alone.logits[0, :length], atol=1e-5, rtol=1e-4)


def test_attention_sums_to_one_and_follows_the_tokens(decoder: Decoder, visual: VisualTokens) -> None:
    memory = decoder.encode(visual)
    weights = decoder.decode(memory, IDS, return_attention=True).attention
    assert weights is not None
    total = weights.sum(-1)
    assert (total <= 1 + 1e-5).all()
    assert (weights >= 0).all()
    words = word_attention(weights[0].permute(2, 0, 1, 3), memory.visual)
    torch.testing.assert_close(words.sum(1), torch.ones(len(words)))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    moved = decoder.encode(VisualTokens(visual.tokens[:, order], visual.grids, visual.sources))
    moved_weights = decoder.decode(moved, IDS, return_attention=True).attention
    moved_words = word_attention(moved_weights[0].permute(2, 0, 1, 3), moved.visual)
    torch.testing.assert_close(moved_words, words[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["transformer", "m2"])
def test_cls_attention_is_as_defined(name: str, visual: VisualTokens) -> None:
    torch.manual_seed(2)
    decoder = build_decoder(name, "tiny", token_width=10, vocabulary_size=20).eval()
    memory = decoder.encode(visual, return_attention=True)
    slots = 16 if name == "m2" else 0
    assert all(weights.shape == (3, 4, 7, 7 + slots) for weights in memory.attention)
    for layer, head in itertools.product(range(2), range(4)):
        rows = memory.attention[layer][:, head, 0, 1:7]
        torch.testing.assert_close(cls_attention(memory, layer, head), rows / rows.sum(1, keepdim=True))
    # Rollout by hand, with loops (paper-notes 2, item 3).
    expected = torch.empty(3, 6)
    for study in range(3):
        total = torch.eye(7)
        for weights in memory.attention:
            mean = weights[study].mean(0)[:, :7]
            mean = mean / mean.sum(1, keepdim=True)
            total = (0.5 * mean + 0.5 * torch.eye(7)) @ total
        expected[study] = total[0, 1:] / total[0, 1:].sum()
    torch.testing.assert_close(rollout(memory), expected)


def test_rollout_refuses_a_decoder_without_cls(visual: VisualTokens) -> None:
    decoder = build_decoder("cnn_rnn_rnn", "tiny", token_width=10, vocabulary_size=20).eval()
    with pytest.raises(ValueError, match="no CLS token"):
        rollout(decoder.encode(visual, return_attention=True))


def test_attention_gives_all_to_a_dominant_key() -> None:
    attention = Attention(8, 2, dropout=0.0)
    query = torch.ones(1, 1, 8)
    with torch.no_grad():
        for layer in (attention.query, attention.key):
            layer.weight.copy_(torch.eye(8))
            layer.bias.zero_()
    source = torch.zeros(1, 5, 8)
    source[0, 3] = 30.0
    _, weights = attention.attend(query, *attention.keys_values(source), return_weights=True)
    assert weights[0, :, 0, 3].min() > 0.999


def test_attention_with_weights_equals_torchs_own() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2, dropout=0.0).eval()
    x = torch.randn(2, 5, 8)
    with_weights, _ = attention.attend(x, *attention.keys_values(x), causal=True, return_weights=True)
    without, _ = attention.attend(x, *attention.keys_values(x), causal=True)
    torch.testing.assert_close(with_weights, without, atol=1e-6, rtol=1e-5)


def test_m2_memory_slots_begin_as_the_paper_says() -> None:
    torch.manual_seed(0)
    attention = Attention(512, 8, 0.1, slots=40)
    assert attention.slot_keys.std().item() == pytest.approx(math.sqrt(64) / 64, rel=0.05)
    assert attention.slot_values.std().item() == pytest.approx(math.sqrt(40) / 40, rel=0.05)


def test_sentences_are_placed_by_hand() -> None:
    sentence, word = _positions(IDS[:1])
    assert sentence.tolist() == [[0, 0, 0, 0, 1, 1, 1, 2, 2]]
    assert word.tolist() == [[0, 1, 2, 3, 0, 1, 2, 0, 0]]


def test_stop_targets_ask_to_stop_after_the_last_sentence(visual: VisualTokens) -> None:
    decoder = build_decoder("cnn_rnn_rnn", "tiny", token_width=10, vocabulary_size=20).eval()
    targets = decoder(visual, IDS).stop_targets
    assert targets[:, :4].tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 1, 1]]


@pytest.mark.parametrize(("bias", "sentences"), [(50.0, 1), (-50.0, 12)])
def test_stop_control_decides_the_number_of_sentences(bias: float, sentences: int, visual: VisualTokens) -> None:
    from core.decoders.search import GenerateConfig, generate

    torch.manual_seed(0)
    decoder = build_decoder("cnn_rnn_rnn", "tiny", token_width=10, vocabulary_size=20, max_sentence_words=3).eval()
    with torch.no_grad():
        decoder.to_stop.bias.fill_(bias)
    (found, *_) = generate(decoder, visual, GenerateConfig(beam_size=1, max_words=100))
    assert found.finished
    assert found.ids.count(SENTENCE_END) == sentences
