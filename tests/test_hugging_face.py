"""Models of transformers behind our contract: the same texts, weights, likelihoods and images as the library's own."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from core.bundles.hugging_face import import_folder
from core.bundles.inference import decoder_states, pooled_embedding, write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_images, write_from_tokens
from core.decoders.search import GenerateConfig, generate
from core.explain import targets
from core.explain.methods import METHODS, explain, possible
from core.explain.subject import Subject, open_subject, token_runs, twin
from core.packages import module
from core.studies.model_image import of_image
from core.text import END, SPECIAL_TOKENS, START
from core.types import CXRLensError, Fit
from tests import needs
from tests.hugging_face_models import MODELS, processor, write_folder
from tests.test_devices import moved, on_its_device

pytestmark = [pytest.mark.numeric, needs.TRANSFORMERS.packages("transformers", "tokenizers")]

IMAGES = [np.random.default_rng(seed).random((50, 40)).astype(np.float32) for seed in range(3)]


@dataclass(frozen=True)
class Both:
    """A model as a bundle, and as transformers has it."""

    ours: ReportModel
    theirs: Any
    tokenizer: Any
    pixels: torch.Tensor
    """(3, 3, side, side), as transformers prepares the images."""

    @property
    def silent(self) -> list[int]:
        """What no report has: the token for unknown words, where it is one of its own."""
        unknown = self.tokenizer.unk_token_id
        return [] if unknown == self.theirs.generation_config.eos_token_id else [unknown]

    def as_theirs(self, ids: tuple[int, ...]) -> list[int]:
        return [self.ours.vocabulary.numbers.theirs[each] for each in ids]  # type: ignore[attr-defined]


@pytest.fixture(scope="module", params=sorted(MODELS))
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    from transformers import AutoTokenizer, VisionEncoderDecoderModel, ViTImageProcessor

    folder = write_folder(tmp_path_factory.mktemp("theirs") / "model", request.param)
    bundles = tmp_path_factory.mktemp("bundles")
    import_folder(folder, request.param, bundles)
    pictures = [Image.fromarray(np.round(image * 255).astype(np.uint8)).convert("RGB") for image in IMAGES]
    prepared = ViTImageProcessor.from_pretrained(folder)(pictures, return_tensors="pt")
    model = VisionEncoderDecoderModel.from_pretrained(folder, attn_implementation="eager").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    yield Both(BundleLibrary(bundles).load(request.param), model, tokenizer, prepared["pixel_values"])


@pytest.fixture
def subject(both: Both) -> Subject:
    return open_subject(both.ours, IMAGES[0], write=GenerateConfig(beam_size=1, max_words=12, removed_words=True))


def test_images_are_prepared_as_the_model_was_used_to(both: Both) -> None:
    from core.bundles.pair import to_batch

    ours = both.ours.encoder.normalize(to_batch(IMAGES, both.ours.image_size, both.ours.fit))
    levels = (ours - both.pixels).abs() * both.ours.encoder.normalize.std * 255
    assert both.ours.fit == Fit("stretch")
    assert float(levels.max()) < 1.01  # one of 256 grey levels: both round
    assert float(levels.mean()) < 0.3


@pytest.mark.parametrize("beams", [1, 3])
def test_texts_are_those_of_generate(both: Both, beams: int) -> None:
    visual = encode_images(both.ours, IMAGES)
    seen = both.ours.encoder.normalize(_batch(both))
    with torch.no_grad():
        theirs = both.theirs.generate(
            seen,
            num_beams=beams,
            max_length=24,
            early_stopping=beams > 1,
            do_sample=False,
            length_penalty=1.0,
            suppress_tokens=both.silent or None,
        )
    ours = write_from_tokens(both.ours, visual, GenerateConfig(beam_size=beams, max_words=23, removed_words=True))
    wanted = [text.strip() for text in both.tokenizer.batch_decode(theirs, skip_special_tokens=True)]
    assert [each.text for each in ours] == wanted
    assert len(set(wanted)) > 1


def _batch(both: Both) -> torch.Tensor:
    from core.bundles.pair import to_batch

    return to_batch(IMAGES, both.ours.image_size, both.ours.fit)


def test_attention_is_the_models_own_and_of_words_the_mean_of_their_pieces(both: Both) -> None:
    visual = encode_images(both.ours, IMAGES[:1])
    (report,) = write_from_tokens(both.ours, visual, GenerateConfig(beam_size=2, max_words=12, removed_words=True))
    start = both.theirs.generation_config.decoder_start_token_id
    with torch.no_grad():
        found = both.theirs(
            pixel_values=both.ours.encoder.normalize(_batch(both)[:1]),
            decoder_input_ids=torch.tensor([[start, *both.as_theirs(report.ids)[:-1]]]),
            output_attentions=True,
        )
    own = torch.stack(found.cross_attentions).mean((0, 1, 2))[:, visual.summaries :]  # (T, cells)
    own = own / own.sum(1, keepdim=True)
    assert report.word_attention is not None
    places = both.ours.vocabulary.read(report.ids).positions
    assert len(places) == len(report.words) == len(report.word_attention)
    assert max(map(len, places)) > 1  # pieces were joined
    for row, of in zip(report.word_attention, places, strict=True):
        np.testing.assert_allclose(row, own[list(of)].mean(0), rtol=1e-4, atol=1e-5)


def test_a_cached_step_equals_the_prefix_and_leaves_its_state_as_it_was(both: Both) -> None:
    decoder = both.ours.decoder
    with torch.no_grad():
        memory = decoder.encode(encode_images(both.ours, IMAGES))
        ids = torch.randint(5, len(both.ours.vocabulary), (3, 6), generator=torch.Generator().manual_seed(1))
        ids[:, 0] = START
        whole, state = decoder.decode(memory, ids), decoder.start(memory)
        for place in range(6):
            before = state
            logits, state = decoder.step(ids[:, place], state)
            largest = float(whole.logits[:, place, len(SPECIAL_TOKENS) :].abs().max())
            torch.testing.assert_close(logits, whole.logits[:, place], atol=1e-5 * largest, rtol=0)
            again, _ = decoder.step(ids[:, place], before)
            torch.testing.assert_close(again, logits, atol=0, rtol=0)
        with pytest.raises(CXRLensError, match="at most 39 pieces"):
            decoder.decode(memory, torch.full((3, 41), 7))


def test_studies_do_not_influence_each_other_and_the_cache_changes_nothing(both: Both) -> None:
    config = GenerateConfig(beam_size=3, max_words=14, removed_words=True)
    visual = encode_images(both.ours, IMAGES)
    batched = [each.ids for each in generate(both.ours.decoder, visual, config)]
    assert [each.ids for each in generate(both.ours.decoder, visual, config, cached=False)] == batched
    alone = [replace(visual, tokens=row) for row in visual.tokens.split(1)]
    assert [generate(both.ours.decoder, each, config)[0].ids for each in alone] == batched


def test_the_likelihood_of_a_text_is_the_models_loss(both: Both, subject: Subject) -> None:
    text = "the heart is enlarged."
    asked = targets.reference(subject, text)
    end = both.theirs.generation_config.eos_token_id
    labels = both.tokenizer(text)["input_ids"]  # with BERT's, [CLS] first and [SEP] last
    labels = labels if labels[-1] == end else [*labels, end]
    assert both.as_theirs(asked.ids) == labels
    with torch.no_grad():
        loss = both.theirs(pixel_values=both.ours.encoder.normalize(subject.square), labels=torch.tensor([labels])).loss
        ours = asked.of_tokens(subject, subject.visual.tokens)
    assert float(ours) == pytest.approx(-float(loss) * len(labels), rel=1e-5)
    with pytest.raises(CXRLensError, match="can be asked for 1 to 38"):
        targets.reference(subject, "heart " * 60)


def test_a_report_is_as_likely_as_its_log_probability_says(both: Both, subject: Subject) -> None:
    whole = targets.whole_report(subject)
    with torch.no_grad():
        words = subject.by_word(whole.by_word(subject, subject.visual.tokens)[0])
        one = [targets.word(subject, place).of_tokens(subject, subject.visual.tokens) for place in range(len(words))]
    torch.testing.assert_close(words, torch.cat(one), atol=1e-4, rtol=1e-4)


def test_gradients_reach_tokens_and_pixels(both: Both, subject: Subject) -> None:
    target = targets.whole_report(subject)
    tokens = subject.visual.tokens.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(target.of_tokens(subject, tokens).sum(), tokens)
    step = 1e-3 * functional.normalize(gradient, dim=(1, 2))
    with torch.no_grad():
        ends = [float(target.of_tokens(subject, tokens + sign * step)) for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(1e-3 * float(gradient.norm()), rel=0.05)
    square = subject.square.clone().requires_grad_()
    (pixels,) = torch.autograd.grad(target.of_images(subject, square).sum(), square)
    assert float(pixels.abs().max()) > 0


def test_every_method_explains_its_words_over_cells_of_the_image(both: Both, subject: Subject) -> None:
    target = targets.word(subject, 0)
    ways = possible(subject, target)
    assert set(ways) == set(METHODS)
    few = {"random-masks": {"masks": 6}, "smoothgrad": {"samples": 2}, "integrated-gradients": {"steps": 4}}
    for name, overs in ways.items():
        for over in overs:
            (found,) = explain(subject, target, name, over=over, **few.get(name, {}))
            assert found.geometry is not None
            assert found.values.shape == ((32, 32) if over == "pixels" else (4, 4))
            assert np.isfinite(found.values).all()
    (looked,) = explain(subject, target, "attention")
    assert float(looked.values.sum()) == pytest.approx(1, abs=1e-5)
    assert looked.details["image"] < 1 if subject.visual.summaries else looked.details["image"] == pytest.approx(1)


def test_tokens_are_the_encoders_own_and_a_cls_token_is_no_cell(both: Both, subject: Subject) -> None:
    with torch.no_grad():
        own = both.theirs.encoder(pixel_values=both.ours.encoder.normalize(subject.square)).last_hidden_state
    torch.testing.assert_close(subject.visual.tokens, own, atol=1e-5, rtol=1e-4)
    (run,) = token_runs(subject.visual)
    assert run.grid == (4, 4)
    assert run.columns.stop == own.shape[1]
    np.testing.assert_allclose(pooled_embedding(both.ours, IMAGES[0]), own[0].mean(0), rtol=1e-4, atol=1e-5)


def test_states_of_the_decoder_are_there_for_maps(both: Both) -> None:
    states = decoder_states(both.ours, encode_images(both.ours, IMAGES), GenerateConfig(beam_size=1, max_words=8))
    assert len(states) == 3
    assert torch.isfinite(states).all()


def test_writing_again_is_the_same_in_another_batch_and_warns_that_nothing_is_known(both: Both) -> None:
    ((name, report),) = write_reports([both.ours], of_image(IMAGES[0]))
    assert name == both.ours.card.name
    assert any("nothing is known of its training films" in each for each in report.warnings)
    assert report.finished is (END in report.ids)


def test_it_computes_on_its_device_and_in_bfloat16(both: Both, subject: Subject) -> None:
    how = GenerateConfig(beam_size=3, max_words=6, removed_words=True)
    visual = encode_images(both.ours, IMAGES)
    wanted = [each.text for each in write_from_tokens(both.ours, visual, how)]
    copied = twin(both.ours, own_weights=True)
    with on_its_device():  # it refuses what a GPU refuses
        there = moved(copied)
        assert [each.text for each in write_from_tokens(there, encode_images(there, IMAGES), how)] == wanted
        target = targets.whole_report(subject)
        opened = open_subject(there, IMAGES[0], subject.report)
        explain(opened, target, "attention")
        score = target.of_images(opened, opened.square)
    torch.testing.assert_close(score.cpu(), target.of_images(subject, subject.square), atol=1e-3, rtol=1e-4)
    half = replace(both.ours, precision="bf16")
    written = write_from_tokens(half, encode_images(half, IMAGES), how)
    assert all(each.word_attention is None or np.isfinite(each.word_attention).all() for each in written)


def test_an_imported_model_is_verified_and_says_what_it_is(both: Both) -> None:
    library = BundleLibrary(Path(_folder(both)))
    card = both.ours.card
    assert library.problems() == {}
    assert library.verify(card.name) < 1e-4
    assert (card.kind, card.family, card.pair, card.title) == ("hf", card.name, None, card.name)
    assert "model.safetensors" in card.content["sha256"]
    assert "tokenizer.json" in card.content["sha256"]


def _folder(both: Both) -> str:
    return str(Path(both.ours.vocabulary.tokenizer.name_or_path).parent)  # type: ignore[attr-defined]


def test_weights_in_several_files_give_the_same_model(tmp_path: Path) -> None:
    whole = write_folder(tmp_path / "whole")
    model, tokenizer = MODELS["vit-gpt2"](0)
    parts = tmp_path / "parts"
    model.save_pretrained(parts, max_shard_size="20KB")
    tokenizer.save_pretrained(parts)
    processor().save_pretrained(parts)
    assert not (parts / "model.safetensors").exists()
    for folder in (whole, parts):
        import_folder(folder, folder.name, tmp_path / "bundles")
    library = BundleLibrary(tmp_path / "bundles")
    first, second = (library.load(each.name) for each in (whole, parts))
    for ours, theirs in zip(first.decoder.parameters(), second.decoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert library.verify("parts") < 1e-4


def test_a_package_that_two_threads_import_at_once_is_whole_for_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As transformers does: it waits for other imports, and then puts another object in its own place.
    (tmp_path / "swapping.py").write_text(
        "import sys, time, types\ntime.sleep(0.3)\nwhole = types.ModuleType(__name__)\nwhole.__spec__ = __spec__\n"
        "whole.name = 'there'\nsys.modules[__name__] = whole\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found: list[str] = []

    def second() -> None:
        while "swapping" not in sys.modules:
            time.sleep(0.001)
        found.append(module("swapping").name)

    threads = [threading.Thread(target=each) for each in (second, lambda: found.append(module("swapping").name))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    del sys.modules["swapping"]
    assert found == ["there"] * 2
