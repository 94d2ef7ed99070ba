"""What the decoder attended to: to write words, and in its CLS token."""

from __future__ import annotations

import torch
from torch.nn import functional

from core.decoders.attention_shares import cls_attention as cls_shares
from core.decoders.attention_shares import report_attention, rollout, word_attention, word_mass
from core.encoders.token_cache import Progress
from core.explain.passes import Over, over_tokens
from core.explain.subject import Subject
from core.explain.targets import Target, WordTarget, whole_report
from core.text import START
from core.types import Attribution, CXRLensError


def attention(
    subject: Subject,
    target: Target,
    *,
    layer: int | None = None,
    head: int | None = None,
    over: Over = "tokens",
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """Where the decoder looked when it wrote the words: shares that sum to 1 over all tokens.

    Several words give the mean over those that are not punctuation. ``details["image"]`` is how much of the attention
    went to visual tokens at all; the rest went to the CLS token, or to the sentinel of CNN-RNN-RNN.

    Args:
        target: words.
        layer: of the decoder; None is the mean.
        head: of the layer; None is the mean.
        over: tokens.

    Raises:
        CXRLensError: the target is no words, or there is no such layer or head.
    """
    if not isinstance(target, WordTarget):
        raise CXRLensError(f"Attention explains words of a report, not the {target.name}.")
    decoder, positions = subject.model.decoder, list(target.positions)
    with torch.no_grad():
        memory = decoder.encode(subject.visual)
        ids = torch.tensor([[START, *target.ids[:-1]]], device=subject.model.device)
        output = decoder.decode(memory, ids, return_attention=True)
    assert output.attention is not None
    rows = output.attention[0].permute(2, 0, 1, 3)[positions]  # (L, A, T, M) -> (words, L, A, M)
    words = word_attention(rows, memory.visual, layer, head)
    counts = [is_word(subject, target.ids[position]) for position in positions]
    details = {"image": float(word_mass(rows, memory.visual).mean())}
    shares = functional.pad(report_attention(words, counts), (subject.visual.summaries, 0))
    return over_tokens(subject, shares, "attention", target.name, details, signed=False)


def cls_attention(
    subject: Subject,
    target: Target | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    over: Over = "tokens",
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """What the CLS token gathered, whatever word was written: shares that sum to 1 over all tokens.

    Rollout through all layers, or the attention of one layer or head. CNN-RNN-RNN has no CLS token: the mean attention
    of the report's words stands in, and the result's method says so.

    Args:
        target: without influence.
        layer: of the memory encoder; None, with no head, is the rollout.
        head: of the layer, or of all layers' mean.
        over: tokens.

    Raises:
        CXRLensError: there is no such layer or head.
    """
    with torch.no_grad():
        memory = subject.model.decoder.encode(subject.visual, return_attention=True)
    if not memory.attention:
        parts = attention(subject, whole_report(subject), layer=layer, head=head)
        return tuple(
            Attribution(
                each.values, False, "attention (no CLS token)", each.target, each.geometry, each.source, each.details
            )
            for each in parts
        )
    rolled = layer is None and head is None
    shares = rollout(memory) if rolled else cls_shares(memory, layer, head)
    return over_tokens(subject, shares[0], "cls-attention", "the whole image", {}, signed=False)


def is_word(subject: Subject, index: int) -> bool:
    """Whether an id is neither special nor punctuation."""
    return any(character.isalnum() for word in subject.model.vocabulary.decode([index]) for character in word)
