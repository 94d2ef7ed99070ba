"""Attention of the CLS token and of words: hand-worked values and the properties of paper-notes 2."""

from __future__ import annotations

import pytest
import torch

from core.decoders import Decoder, Memory, build_decoder
from core.decoders.attention_shares import (
    cls_attention,
    report_attention,
    rollout,
    word_attention,
    word_mass,
)
from core.decoders.search import GenerateConfig, generate
from core.text import START
from core.types import CXRLensError, VisualTokens

pytestmark = pytest.mark.numeric

# One layer, one head; CLS, two tokens, one memory slot.
ROWS = torch.tensor([[0.4, 0.3, 0.1, 0.2], [0.1, 0.5, 0.2, 0.2], [0.2, 0.2, 0.4, 0.2]])


def memory_of(*layers: torch.Tensor, first: int = 1) -> Memory:
    size = layers[0].shape[-2]
    return Memory(torch.zeros(1, 1, size, 4), slice(first, size), tuple(layer[None, None] for layer in layers))


def test_cls_attention_by_hand() -> None:
    torch.testing.assert_close(cls_attention(memory_of(ROWS), layer=0, head=0), torch.tensor([[0.75, 0.25]]))


def test_a_mean_is_taken_before_the_rest_is_left_out() -> None:
    other = torch.tensor([[0.0, 0.0, 1.0, 0.0], *ROWS[1:].tolist()])
    found = cls_attention(memory_of(ROWS, other))
    torch.testing.assert_close(found, torch.tensor([[0.3 / 1.4, 1.1 / 1.4]]))
    torch.testing.assert_close(cls_attention(memory_of(ROWS, other), layer=1), torch.tensor([[0.0, 1.0]]))


def test_rollout_by_hand() -> None:
    clean = ROWS[:, :3] / ROWS[:, :3].sum(1, keepdim=True)
    half = 0.5 * clean + 0.5 * torch.eye(3)
    row = (half @ half)[0, 1:]
    torch.testing.assert_close(rollout(memory_of(ROWS, ROWS))[0], row / row.sum())


def test_without_a_cls_token_the_mean_of_the_columns_stands_in() -> None:
    rows = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    torch.testing.assert_close(cls_attention(memory_of(rows, first=0)), torch.tensor([[0.6, 0.4]]))


def test_word_attention_by_hand() -> None:
    attention = torch.tensor([[[[0.5, 0.3, 0.2]], [[0.2, 0.2, 0.6]]]])  # one word, two layers, one head, CLS + 2
    torch.testing.assert_close(word_attention(attention, slice(1, 3)), torch.tensor([[0.25 / 0.65, 0.4 / 0.65]]))
    torch.testing.assert_close(word_attention(attention, slice(1, 3), layer=0), torch.tensor([[0.6, 0.4]]))
    torch.testing.assert_close(word_mass(attention, slice(1, 3)), torch.tensor([0.65]))


def test_report_attention_leaves_out_what_does_not_count() -> None:
    words = torch.tensor([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    torch.testing.assert_close(report_attention(words, [True, True, False]), torch.tensor([0.75, 0.25]))
    torch.testing.assert_close(report_attention(words, [False] * 3), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(("layer", "head", "message"), [(2, None, "layer 2"), (None, 9, "head 9"), (-1, None, "has 2")])
def test_a_layer_or_head_that_is_not_there(layer: int | None, head: int | None, message: str) -> None:
    with pytest.raises(CXRLensError, match=message):
        cls_attention(memory_of(ROWS, ROWS), layer, head)


@pytest.mark.parametrize("name", ["transformer", "m2"])
def test_shares_sum_to_one_and_follow_their_tokens(name: str, visual: VisualTokens) -> None:
    decoder = build_decoder(name, "tiny", token_width=10, vocabulary_size=20).eval()
    order = torch.tensor([3, 1, 5, 0, 4, 2])
    moved = VisualTokens(visual.tokens[:, order], visual.grids, visual.sources)
    with torch.no_grad():
        memory, other = (decoder.encode(each, return_attention=True) for each in (visual, moved))
    for read in (rollout, cls_attention):
        shares = read(memory)
        assert (shares >= 0).all()
        torch.testing.assert_close(shares.sum(-1), torch.ones_like(shares[..., 0]))
        torch.testing.assert_close(read(other), shares[..., order], atol=1e-5, rtol=1e-4)


def test_attention_read_back_equals_that_of_writing(decoder: Decoder, visual: VisualTokens) -> None:
    written = generate(decoder, visual, GenerateConfig(beam_size=3, max_words=9), return_attention=True)
    with torch.no_grad():
        memory = decoder.encode(visual)
        for study, hypothesis in enumerate(written):
            ids = torch.tensor([START, *hypothesis.ids[:-1]]).expand(3, -1)
            read = decoder.decode(memory, ids, return_attention=True).attention
            torch.testing.assert_close(read[study].permute(2, 0, 1, 3), hypothesis.attention, atol=1e-5, rtol=1e-4)
