"""The contract of the decoders. State is passed, never stored: one model serves many users at once."""

from __future__ import annotations

import importlib
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor, nn

from core.decoders.findings import FindingsFirst
from core.registry import DECODERS, Size, lookup
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.config import ExperimentConfig


@dataclass(frozen=True, slots=True)
class Memory:
    """What a decoder remembers of the image.

    Attributes:
        levels: (B, levels, M, width); M2 reads all levels of its encoder, the others have one.
        visual: columns of M that are visual tokens; the rest is the CLS token.
        attention: self-attention of each encoder layer, (B, A, M, M + slots), before dropout; empty unless asked for.
        found: (B, 14), 1 where an observation was found before anything is written; None for a decoder that reads the
            image alone.
    """

    levels: Tensor
    visual: slice
    attention: tuple[Tensor, ...] = ()
    found: Tensor | None = None


@dataclass(frozen=True, slots=True)
class DecoderOutput:
    """One teacher-forced pass.

    Attributes:
        logits: (B, T, V); position t predicts ids[:, t + 1].
        attention: (B, L, A, T, M), weights of each word over the memory; None unless asked for. Rows sum to 1, or to
            less where a decoder may look away from the image (the sentinel of CNN-RNN-RNN).
        stop_logits: (B, S), whether the report ends before sentence s; None for decoders that do not plan sentences.
        stop_targets: (B, S), 1 where there is no sentence s; None likewise.
    """

    logits: Tensor
    attention: Tensor | None = None
    stop_logits: Tensor | None = None
    stop_targets: Tensor | None = None


class DecoderState(Protocol):
    """What one decoding run remembers between words; belongs to the caller.

    A row is one hypothesis; rows of one study are neighbours. A step may write into the memory of its state, so of a
    run only the newest state is of use.
    """

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows`` (rows,); each comes from its own study's rows.

        By ``index_select``, which takes less than half the time of an index in brackets.
        """
        ...


class Decoder(nn.Module):
    """Visual tokens (B, N, D) to logits over words."""

    sentences = False
    """Whether targets need SENTENCE_END after each sentence."""
    longest = 512
    """Ids that it can read at most, START counted (`core.attention.WordInput`)."""

    def __init__(self, findings: FindingsFirst | None = None) -> None:
        """Build.

        Args:
            findings: finds observations in the tokens before they are read; None reads the tokens as they are.
        """
        super().__init__()
        self.findings = findings

    @classmethod
    def arguments(cls, config: ExperimentConfig) -> dict[str, Any]:
        """Arguments that a preset decides, beside those of the registry's row; none where it leaves all as they are."""
        return {}

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """Read the image once."""
        raise NotImplementedError

    def with_findings(self, visual: VisualTokens) -> tuple[Tensor, Tensor | None]:
        """The tokens (B, N, D) to read, and what was found (B, 14) where this decoder reads findings first."""
        if self.findings is None:
            return visual.tokens, None
        found = self.findings.found(visual)
        return self.findings(visual.tokens, found), found

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """Predict the word after each of ids (B, T), all at once; later words are never seen."""
        raise NotImplementedError

    def predict(self, memory: Memory, ids: Tensor) -> Tensor:
        """Logits (B, V) of the word after ids (B, T), without a cache: what ``step`` must equal."""
        return self.decode(memory, ids).logits[:, -1]

    def start(self, memory: Memory, beams: int = 1) -> DecoderState:
        """State before the first word, for ``beams`` hypotheses a study: B * beams rows."""
        raise NotImplementedError

    @classmethod
    def begin(cls, decoders: Sequence[Self], memories: Sequence[Memory], beams: int = 1) -> DecoderState:
        """State of several decoders of one `likeness`, each before the first word about a study of its own.

        Any of them takes the steps of all. The rows of a decoder are neighbours, those of a study too.
        """
        raise NotImplementedError

    def likeness(self) -> Hashable | None:
        """What decoders have in common that can `begin` together; None where it writes alone."""
        return None

    def step(self, ids: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one more word (rows,); returns logits (rows, V) of the next one and the new state."""
        raise NotImplementedError

    def forward(self, visual: VisualTokens, ids: Tensor) -> DecoderOutput:
        """Teacher forcing: encode, then decode."""
        return self.decode(self.encode(visual), ids)


def decoder_class(name: str) -> type[Decoder]:
    """The class of a row of the registry.

    Raises:
        CXRLensError: unknown name.
    """
    module, _, attribute = lookup(DECODERS, name, "decoder").build.partition(":")
    found: type[Decoder] = getattr(importlib.import_module(module), attribute)
    return found


def build_decoder(name: str, size: Size, *, token_width: int, vocabulary_size: int, **changes: Any) -> Decoder:
    """Build a row of the registry.

    Args:
        name: key in the registry.
        token_width: D of the encoder's tokens.
        vocabulary_size: V.
        changes: to the size's numbers.

    Raises:
        CXRLensError: unknown name or size.
    """
    arch = {**lookup(lookup(DECODERS, name, "decoder").sizes, size, "size"), **changes}
    return decoder_class(name)(token_width, vocabulary_size, **arch)  # type: ignore[call-arg, arg-type]
