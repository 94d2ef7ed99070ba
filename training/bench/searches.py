"""The search and the decoders' words, against the way without each of their shortcuts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Self

import torch
from torch import Tensor

from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_images, write_from_tokens, write_together
from core.decoders import Decoder, Memory, build_decoder
from core.decoders.base import DecoderOutput
from core.decoders.beams import Hypothesis
from core.decoders.search import GenerateConfig, generate
from core.decoders.transformer import KeysValues, TransformerDecoder, chosen
from core.paths import BUNDLES
from core.studies.phantom import PhantomSource
from core.text import SPECIAL_TOKENS, TERMINATORS, Vocabulary
from core.types import VisualTokens
from training.bench.turns import Row, in_turns

WORDS = 60
VOCABULARY = Vocabulary((*SPECIAL_TOKENS, *TERMINATORS, *(f"w{number}" for number in range(1000))))
ENDLESS = GenerateConfig(max_words=WORDS, end_penalty=1e4)
"""Every report has 60 words, so that all ways do equal work."""


@dataclass(frozen=True, slots=True)
class PlainState:
    """Keys and values by layer, of each hypothesis's words and of the memory."""

    words: tuple[KeysValues, ...]
    memory: list[tuple[KeysValues, ...]]
    length: int

    def reorder(self, rows: Tensor) -> Self:
        """Keep hypotheses ``rows``, all of whose words move."""
        return replace(self, words=chosen(self.words, rows))


class PlainSteps(Decoder):
    """A Transformer that writes with the layers that read a whole text, whose keys and values grow at each word."""

    def __init__(self, whole: TransformerDecoder) -> None:
        """Write with ``whole``."""
        super().__init__()
        self.whole = whole

    def encode(self, visual: VisualTokens, *, return_attention: bool = False) -> Memory:
        """As ``whole``."""
        return self.whole.encode(visual, return_attention=return_attention)

    def decode(self, memory: Memory, ids: Tensor, *, return_attention: bool = False) -> DecoderOutput:
        """As ``whole``."""
        return self.whole.decode(memory, ids, return_attention=return_attention)

    def start(self, memory: Memory, beams: int = 1) -> PlainState:
        """State before the first word."""
        layers, rows = self.whole._layers(), len(memory.levels) * beams
        empty = memory.levels.new_zeros(rows, layers[0].words.heads, 0, layers[0].words.head_width)
        levels = self.whole._memory_keys_values(memory)
        return PlainState(((empty, empty),) * len(layers), levels, 0)

    def step(self, ids: Tensor, state: PlainState) -> tuple[Tensor, PlainState]:
        """Read one more word."""
        x, words = self.whole.embed(ids.unsqueeze(1), state.length), []
        for layer, (keys, values), memory in zip(self.whole._layers(), state.words, state.memory, strict=True):
            key, value = layer.words.keys_values(x)
            words.append((torch.cat([keys, key], dim=2), torch.cat([values, value], dim=2)))
            mixed, _ = layer.words.attend(x, *words[-1])
            x = layer.words_norm(x + layer.dropout(mixed))
            seen, _ = layer.look(x.view(len(memory[0][0]), -1, x.shape[2]), memory, return_weights=False)
            x = layer.feed_forward(seen.reshape(x.shape))
        new = PlainState(tuple(words), state.memory, state.length + 1)
        return self.whole.output(x[:, 0]), new


def words() -> Iterator[Row]:
    """What makes a word in few operators, against layers made for whole texts."""
    for name, size, studies, beams in (
        ("transformer", "small", 1, 1),
        ("transformer", "small", 1, 4),
        ("m2", "small", 1, 4),
        ("transformer", "small", 8, 4),
        ("transformer", "paper", 1, 4),
    ):
        decoder, visual = _random(name, size, studies)
        assert isinstance(decoder, TransformerDecoder)
        how = replace(ENDLESS, beam_size=beams)

        def write(decoder: Decoder, visual: VisualTokens = visual, how: GenerateConfig = how) -> Sequence[Hypothesis]:
            return generate(decoder, visual, how, VOCABULARY)

        plain = PlainSteps(decoder).eval()
        yield in_turns(
            f"{name}, {size} size, {studies} studies, beam {beams}, {WORDS} words",
            "layers made for whole texts",
            lambda: write(plain),  # noqa: B023 - called at once
            lambda: write(decoder),  # noqa: B023
            _same_words,
        )


def n_grams() -> Iterator[Row]:
    """Search that follows n-grams, against one that does not; every report has 60 words."""
    decoder, _ = _random("transformer", "small", 1)
    for studies in (1, 8):
        visual = VisualTokens(torch.randn(studies, 49, 512), ((7, 7),), ("x",) * 49)
        for least in (0, 3):
            how = replace(ENDLESS, min_sentence_words=least)

            def write(config: GenerateConfig, visual: VisualTokens = visual) -> Any:
                return generate(decoder, visual, config, VOCABULARY)

            rules = "with rules of sentences" if least else "without rules of sentences"
            yield in_turns(
                f"no 3-gram twice: beam 4, {studies} studies, small decoder {rules}",
                "n-grams that may come twice",
                lambda: write(how),  # noqa: B023 - called at once
                lambda: write(replace(how, no_repeat_ngram=3)),  # noqa: B023
                lambda one, other: len(one) == len(other),
            )


def together() -> Iterator[Row]:
    """The reports of one image by all pairs of a family: each alone after another, and those alike in one search."""
    library, source = BundleLibrary(BUNDLES), PhantomSource(400, 0)
    image = source.image(source.study_ids[0], 512)
    cards = sorted(library.cards(), key=lambda card: card.family)
    for family, members in groupby(cards, key=lambda card: card.family):
        models = [library.load(card.name) for card in members]
        if len({model.writes_with for model in models}) == len(models):
            continue
        seen = {id(model): encode_images(model, [image]) for model in models}
        groups: dict[Any, list[ReportModel]] = {}
        for model in models:
            groups.setdefault((model.writes_with, model.write), []).append(model)

        def alone(models: Sequence[ReportModel] = models, seen: dict[int, VisualTokens] = seen) -> list[Any]:
            written = {model.card.name: write_from_tokens(model, seen[id(model)], model.write)[0] for model in models}
            return [written[name].ids for name in sorted(written)]

        def at_once(groups: dict[Any, list[ReportModel]] = groups, seen: dict[int, VisualTokens] = seen) -> list[Any]:
            written = dict[str, Any]()
            for group in groups.values():
                reports = write_together(group, [seen[id(model)] for model in group], group[0].write)
                written.update(zip([model.card.name for model in group], reports, strict=True))
            return [written[name].ids for name in sorted(written)]

        what = f"reports of one image by {len(models)} pairs of {family}, from their tokens"
        yield in_turns(what, "one pair after another", alone, at_once)


def rows() -> Iterator[Row]:
    """All of them."""
    yield from words()
    yield from n_grams()
    yield from together()


def _random(name: str, size: Any, studies: int) -> tuple[Decoder, VisualTokens]:
    torch.manual_seed(0)
    decoder = build_decoder(name, size, token_width=512, vocabulary_size=len(VOCABULARY)).eval()
    return decoder, VisualTokens(torch.randn(studies, 49, 512), ((7, 7),), ("x",) * 49)


def _same_words(one: Sequence[Hypothesis], other: Sequence[Hypothesis]) -> bool:
    return [each.ids for each in one] == [each.ids for each in other]
