"""Models that are alike write in one search: what each writes is what it writes alone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.bundles import inference
from core.bundles.inference import NOT_FINITE, write_batch, write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_batch, write_together
from core.decoders import Decoder, Memory, build_decoder
from core.decoders.search import GenerateConfig, generate, generate_together
from core.paths import EXAMPLES
from core.studies.model_image import Pixels, of_image
from core.studies.phantom import PhantomSource
from core.text import END, START, Vocabulary
from core.types import Report, VisualTokens
from tests.app_pages import needs_bundles
from tests.conftest import BUNDLES
from tests.tiny_models import random_image, tiny_pair

pytestmark = pytest.mark.numeric

TOKENS = (6, 4, 9)
"""Visual tokens of each model's encoder."""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer": ("transformer", {}),
    "m2": ("m2", {}),
    "cnn_rnn_rnn": ("cnn_rnn_rnn", {"max_sentence_words": 7}),
    "transformer, absent images": ("transformer", {"absent_images": True, "output_bias": True, "word_scale": 3.0}),
    "m2, absent images": ("m2", {"absent_images": True, "cls_token": False}),
    "cnn_rnn_rnn, looks before": ("cnn_rnn_rnn", {"looks_before": True}),
}
HOWS: list[dict[str, Any]] = [
    {"beam_size": 1},
    {"beam_size": 4},
    {"beam_size": 4, "no_repeat_ngram": 2, "min_sentence_words": 2, "end_penalty": 1.0},
    {"beam_size": 1, "no_repeat_ngram": 3, "min_sentence_words": 2, "say_again": False},
    {"beam_size": 3, "min_sentence_words": 2, "say_again": False, "end_penalty": 2.0},
]


def three(kind: str, vocabulary: Vocabulary) -> list[Decoder]:
    name, changes = KINDS[kind]
    decoders = []
    for seed, width in enumerate((10, 10, 14)):  # of their encoders' tokens, which need not be alike
        torch.manual_seed(seed)
        made = build_decoder(name, "tiny", token_width=width, vocabulary_size=len(vocabulary), **changes).eval()
        with torch.no_grad():
            made.output.weight.mul_(4)
            if made.sentences:
                made.to_stop.bias.fill_(9.0 if seed else -9.0)
        decoders.append(made)
    return decoders


def memories_of(decoders: Sequence[Decoder]) -> list[Memory]:
    generator = torch.Generator().manual_seed(1)
    return [
        decoder.encode(VisualTokens(torch.randn(1, count, width, generator=generator), (), ("x",) * count))
        for decoder, count, width in zip(decoders, TOKENS, (10, 10, 14), strict=True)
    ]


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_several_decoders_in_one_search_write_what_each_writes_alone(kind: str, vocabulary: Vocabulary) -> None:
    decoders = three(kind, vocabulary)
    assert len({decoder.likeness() for decoder in decoders}) == 1
    memories, lengths = memories_of(decoders), set()
    for how in HOWS:
        config = GenerateConfig(max_words=24, **how)
        together = generate_together(decoders, memories, config, vocabulary, return_attention=True)
        for decoder, memory, found in zip(decoders, memories, together, strict=True):
            (alone,) = generate(decoder, memory, config, vocabulary, return_attention=True)
            assert (found.ids, found.finished) == (alone.ids, alone.finished)
            assert found.log_probability == pytest.approx(alone.log_probability, abs=1e-3)
            torch.testing.assert_close(found.attention, alone.attention, atol=1e-5, rtol=1e-4)
            if config.beam_size == 1:
                (plain,) = generate(decoder, memory, config, vocabulary, cached=False)
                assert alone.ids == plain.ids
                assert alone.log_probability == pytest.approx(plain.log_probability, abs=1e-3)
        lengths.add(tuple(len(each.ids) for each in together))
    assert any(len(set(each)) > 1 for each in lengths)  # some models left before the others


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_steps_of_several_equal_the_whole_prefix_read_by_each(kind: str, vocabulary: Vocabulary) -> None:
    decoders = three(kind, vocabulary)
    memories = memories_of(decoders)
    state = type(decoders[0]).begin(decoders, memories, 2)
    ids = torch.tensor([[START, 7, 8, 9], [START, 9, 8, 8], [START, 7, 7, 4], [START, 10, 6, 5], [START, 6, 4, 7],
                        [START, 8, 4, 4]])  # fmt: skip
    for place in range(4):
        logits, state = decoders[1].step(ids[:, place], state)
        for index, (decoder, memory) in enumerate(zip(decoders, memories, strict=True)):
            rows = slice(2 * index, 2 * index + 2)
            both = Memory(memory.levels.expand(2, -1, -1, -1), memory.visual)
            expected = decoder.predict(both, ids[rows, : place + 1])
            torch.testing.assert_close(logits[rows], expected, atol=1e-4, rtol=1e-4)
    # Each study's second row goes on twice; then the middle model leaves.
    state = state.reorder(torch.tensor([1, 1, 3, 3, 5, 5]))
    state = state.reorder(torch.tensor([0, 1, 4, 5]))
    logits, _ = decoders[1].step(torch.tensor([11, 12, 11, 12]), state)
    for index, place in ((0, 0), (2, 2)):
        for row, word in enumerate((11, 12)):
            prefix = torch.tensor([[*ids[2 * index + 1].tolist(), word]])
            expected = decoders[index].predict(memories[index], prefix)[0]
            torch.testing.assert_close(logits[place + row], expected, atol=1e-4, rtol=1e-4)


def test_decoders_that_differ_in_anything_do_not_write_together(vocabulary: Vocabulary) -> None:
    def made(name: str = "transformer", size: Any = "tiny", words: int = 20, **changes: Any) -> Decoder:
        return build_decoder(name, size, token_width=10, vocabulary_size=words, **changes).eval()

    alike = made().likeness()
    assert alike == made().likeness()
    others = [made("m2"), made("cnn_rnn_rnn"), made(words=21), made(heads=2), made(layers=1), made(absent_images=True),
              made(word_scale=2.0), made(output_bias=True), made(feed_forward=64)]  # fmt: skip
    assert len({alike, *(each.likeness() for each in others)}) == len(others) + 1
    assert made("cnn_rnn_rnn").likeness() != made("cnn_rnn_rnn", max_sentences=3).likeness()
    assert made("r2gen").likeness() is None
    assert made(size="paper").likeness() is None  # arithmetic is all that it does


def look_alikes(count: int = 3) -> list[ReportModel]:
    vocabulary = Vocabulary.build(["no effusion . heart is large . lungs are clear ."], 1)
    models = [tiny_pair("dve", "transformer", vocabulary, seed=seed) for seed in range(count)]
    return [replace(model, card=replace(model.card, name=f"pair-{at}")) for at, model in enumerate(models)]


def one_by_one(models: Sequence[ReportModel], image: Pixels) -> list[tuple[str, Report]]:
    return [each for model in models for each in write_reports([model], image)]


def same(found: Sequence[tuple[str, Report]], expected: Sequence[tuple[str, Report]]) -> None:
    assert [name for name, _ in found] == [name for name, _ in expected]
    for (name, one), (_, other) in zip(found, expected, strict=True):
        assert one.ids == other.ids, name
        assert (one.text, one.words, one.finished, one.warnings) == (
            other.text,
            other.words,
            other.finished,
            other.warnings,
        )
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-3)
        for mine, its in ((one.word_attention, other.word_attention), (one.cls_attention, other.cls_attention)):
            assert (mine is None) == (its is None)
            if mine is not None:
                np.testing.assert_allclose(mine, its, atol=1e-4)


def test_a_first_report_waits_for_those_alike_and_for_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = look_alikes()
    other = tiny_pair("dve", "cnn_rnn_rnn", first.vocabulary)
    calls: list[list[str]] = []

    def counted(models: Sequence[ReportModel], *arguments: Any) -> list[Report]:
        calls.append([model.card.name for model in models])
        return write_together(models, *arguments)

    asked: list[int] = []
    monkeypatch.setattr(inference, "write_together", counted)
    monkeypatch.setattr(
        inference, "encode_batch", lambda *each: asked.append(id(each[0].encoder)) or encode_batch(*each)
    )
    models, image = [first, other, second, third], of_image(random_image())
    reports = write_reports(models, image)
    found = [next(reports)]
    assert calls == [["pair-0", "pair-1", "pair-2"]]
    assert id(other.encoder) not in asked
    found += reports
    assert len(calls) == 1
    assert len(asked) == 4
    same(found, one_by_one(models, image))


def test_a_batch_of_images_and_other_ways_to_write_keep_models_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, _ = look_alikes()
    monkeypatch.setattr(inference, "write_together", lambda *_: pytest.fail("these write alone"))
    longer = replace(second, card=replace(second.card, write={"beam_size": 1, "max_words": 13}))
    image = of_image(random_image())
    assert len(list(write_reports([first, longer], image))) == 2
    images = torch.rand(2, 1, first.image_size, first.image_size)
    assert len(list(write_batch([first, second], lambda *_: images))) == 2
    coarse = [replace(model, precision="bf16") for model in (first, second)]  # whose digits may change words
    assert len(list(write_reports(coarse, image))) == 2


def test_a_decoder_that_gives_nan_spares_those_alike() -> None:
    models = look_alikes()
    models[1] = replace(models[1], decoder=copy.deepcopy(models[1].decoder))
    with torch.no_grad():
        models[1].decoder.output.weight[END] = float("nan")  # type: ignore[union-attr, index, operator]
    image = of_image(random_image())
    found = list(write_reports(models, image))
    same(found, one_by_one(models, image))
    assert "NaN instead of word scores" in found[1][1].warnings[-1]
    assert not any("NaN" in each for place in (0, 2) for each in found[place][1].warnings)
    assert found[0][1].text


def test_an_encoder_that_gives_nan_spares_those_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    models, image = look_alikes(), of_image(random_image())
    whole = one_by_one(models, image)

    def breaks(model: ReportModel, batch: Tensor) -> VisualTokens:
        visual = encode_batch(model, batch)
        return replace(visual, tokens=visual.tokens * float("nan")) if model is models[1] else visual

    monkeypatch.setattr(inference, "encode_batch", breaks)
    found = list(write_reports(models, image))
    same([found[0], found[2]], [whole[0], whole[2]])
    assert (found[1][1].text, found[1][1].warnings) == ("", (NOT_FINITE,))


@needs_bundles
@pytest.mark.parametrize("family", ["phantom", pytest.param("openi", marks=pytest.mark.slow)])
def test_the_bundles_of_a_family_write_together_what_each_writes_alone(family: str) -> None:
    library = BundleLibrary(BUNDLES)
    models = [library.load(card.name) for card in library.cards() if card.family == family]
    assert len({model.writes_with for model in models}) == 3
    if family == "phantom":
        source = PhantomSource(200, 0)
        images = [source.image(source.study_ids[7], 512)]
    else:
        films = sorted((EXAMPLES / "images").iterdir())[:3]
        images = [np.asarray(Image.open(film).convert("L"), dtype=np.float32) / 255 for film in films]
    for pixels in images:
        same(list(write_reports(models, of_image(pixels))), one_by_one(models, of_image(pixels)))
