"""A pair computes on its device, whatever makes tensors for it; nothing is made on the CPU by habit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from core.bundles.inference import decoder_states, pooled_embedding
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_images, write_from_tokens, write_together
from core.decoders import m2
from core.decoders.search import GenerateConfig
from core.devices import computing, open_device
from core.encoders.random_filters import with_random_filters
from core.explain import filters, targets
from core.explain.counterfactuals import polygon, without_filters, without_region
from core.explain.faithfulness import cover_curve, erasure, sanity, stability, token_values
from core.explain.methods import METHODS, explain, possible
from core.explain.subject import Subject, open_subject
from core.observations import CLUSTERS, OBSERVATIONS
from core.projection import embeddings
from core.studies import model_image
from core.text import Vocabulary
from core.types import Attribution, CXRLensError, Report, VisualTokens
from tests import needs
from tests.conftest import BUNDLES
from tests.elsewhere import DEVICE, Elsewhere, Seen, elsewhere
from tests.tiny_models import random_image, report_of, tiny_pair

pytestmark = pytest.mark.numeric

MADE_ON_THE_CPU = {
    "explain/perturbations.py: random_masks": "random: the same masks on every device",
    "explain/perturbations.py: smooth_masks": "random: the same masks on every device",
    "explain/gradients.py: smooth_grad": "random: the same noise on every device",
    "explain/faithfulness.py: randomised": "random: the same order of weights on every device",
    "explain/faithfulness.py: stability": "random: the same noise on every device",
    "explain/gradients.py: integrated_gradients": "captum's weights of the quadrature, which it moves",
    "explain/on_image.py: on_square": "a map that is finished",
    "explain/faithfulness.py: token_values": "a map that is finished",
    "encoders/random_filters.py: with_random_filters": "random: the same filters on every device",
    "encoders/clip.py: TextTower.tokenize": "ids of a text that was typed, before they are moved",
}
"""Functions that may make a tensor on the CPU, and why. Each moves it to the pair's device, or the tests would fail."""

PAIRS = [("fve", "m2"), ("ccve", "transformer"), ("cve", "cnn_rnn_rnn")]
JOINT = [("fve+ccve", "m2"), ("dve", "transformer")]
HOW = {
    "greedy": GenerateConfig(beam_size=1, max_words=5),
    "beam": GenerateConfig(beam_size=3, max_words=5, no_repeat_ngram=2, end_penalty=0.5),
}


def moved(model: ReportModel) -> ReportModel:
    """The pair on the other device."""
    return replace(model, encoder=model.encoder.to(DEVICE), decoder=model.decoder.to(DEVICE))


@contextmanager
def on_its_device() -> Iterator[Seen]:
    """Fail where something is computed on the CPU, or made there without a reason."""
    with elsewhere() as seen:
        yield seen
    assert not seen.computed
    assert seen.made <= MADE_ON_THE_CPU.keys()


def same(found: Any, expected: Any) -> None:
    """Equal, but for the last digits of sums."""
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)


# --------------------------------------------------------------------------------------------- the device itself


def test_the_device_refuses_what_cuda_refuses_and_has_values() -> None:
    with elsewhere():
        there = torch.tensor([[1.0, 2.0], [3.0, 4.0]], device=DEVICE)
        assert isinstance(there, Elsewhere)
        assert (there @ there)[[1]].cpu().tolist() == [[15.0, 22.0]]
        assert (there * torch.tensor(2.0)).sum().item() == 20.0  # a number may come from the CPU
        with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
            there + torch.ones(2)
        with pytest.raises((TypeError, RuntimeError), match="numpy"):
            there.numpy()


@pytest.mark.parametrize(
    "habit",
    [
        lambda x: x + torch.zeros(x.shape[-1]),  # meets the image's: a GPU would refuse
        lambda x: x * float(torch.ones(x.shape[-1]).mean()),  # meets nothing: a GPU would wait for it
        lambda x: x[:, torch.arange(x.shape[1])],  # an index may lie on the CPU, and is sent for every time
        lambda x: x + torch.tensor([1.0] * x.shape[-1]),
    ],
)
def test_a_tensor_made_on_the_cpu_by_habit_is_caught(
    habit: Any, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = m2.MeshedLayer.look
    source = compile("def planted(x):\n    return habit(x)\n", m2.__file__, "exec")
    scope: dict[str, Any] = {"habit": _as_of(m2.__file__, habit)}
    exec(source, scope)
    monkeypatch.setattr(
        m2.MeshedLayer, "look", lambda self, x, memory, **how: look(self, scope["planted"](x), memory, **how)
    )
    model = tiny_pair("fve", "m2", vocabulary)
    with pytest.raises((RuntimeError, AssertionError)) as caught, on_its_device():
        away = moved(model)
        write_from_tokens(away, encode_images(away, [random_image()]), HOW["greedy"])
    assert "same device" in str(caught.value) or "decoders/m2.py" in str(caught.value)


def _as_of(path: str, function: Any) -> Any:
    """The same function, as if it stood in a file."""
    return type(function)(function.__code__.replace(co_filename=path), {"torch": torch})


def test_a_part_that_stays_on_the_cpu_is_caught(vocabulary: Vocabulary) -> None:
    model = tiny_pair("fve", "m2", vocabulary)
    with pytest.raises(AssertionError, match="bundles/pair.py|encoders|decoders"), on_its_device():
        write_from_tokens(model, encode_images(model, [random_image()]), HOW["greedy"])


# ---------------------------------------------------------------------------------------- writing and embedding


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize(("encoder", "decoder"), [*PAIRS, *JOINT])
def test_reports_are_written_on_the_device(encoder: str, decoder: str, how: str, vocabulary: Vocabulary) -> None:
    model = tiny_pair(encoder, decoder, vocabulary)
    images = [random_image(1), random_image(2)]
    here = write_from_tokens(model, encode_images(model, images), HOW[how])
    with on_its_device():
        away = moved(model)
        there = write_from_tokens(away, encode_images(away, images), HOW[how])
    all_same(here, there)


def all_same(here: Sequence[Report], there: Sequence[Report]) -> None:
    for one, other in zip(here, there, strict=True):
        assert one.ids == other.ids
        same(other.log_probability, one.log_probability)
        same(other.word_attention, one.word_attention)
        if one.cls_attention is not None:
            same(other.cls_attention, one.cls_attention)


@pytest.mark.parametrize("decoder", ["m2", "cnn_rnn_rnn"])
def test_pairs_that_are_alike_write_together_on_the_device(decoder: str, vocabulary: Vocabulary) -> None:
    models = [tiny_pair("dve", decoder, vocabulary, seed=seed) for seed in range(2)]
    seen = [encode_images(model, [random_image()]) for model in models]
    seen[0] = VisualTokens(seen[0].tokens[:, 3:], (), seen[0].sources[3:])
    here = write_together(models, seen, HOW["beam"])
    with on_its_device():
        there = [replace(each, tokens=each.tokens.to(DEVICE)) for each in seen]
        all_same(here, write_together([moved(model) for model in models], there, HOW["beam"]))


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_embeddings_and_states_are_computed_on_the_device(encoder: str, decoder: str, vocabulary: Vocabulary) -> None:
    model, images = tiny_pair(encoder, decoder, vocabulary), [random_image(1)]

    def all_of(pair: ReportModel) -> list[Any]:
        visual = encode_images(pair, images)
        batch = [model_image.model_image(each, pair.image_size)[0] for each in images]
        sample = torch.from_numpy(np.stack(batch))[:, None]
        control = with_random_filters(pair.encoder, sample) if encoder == "ccve" else None  # type: ignore[arg-type]
        kept = embeddings._embed_batch(embeddings._Encoders(pair, control), batch, 0)
        states = decoder_states(pair, visual, HOW["greedy"])
        return [pooled_embedding(pair, images[0]), states.cpu().numpy(), *(kept[key].numpy() for key in sorted(kept))]

    before = torch.get_rng_state()
    here = all_of(model)
    with on_its_device():
        there = all_of(moved(model))
    for one, other in zip(here, there, strict=True):
        same(other, one)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_a_library_gives_pairs_on_its_device_that_write_what_the_cards_expect() -> None:
    with elsewhere() as seen:
        library = BundleLibrary(BUNDLES, DEVICE)
        model = library.load("phantom-dve-transformer")
        assert model.device.type == DEVICE
        assert next(model.decoder.parameters()).device.type == DEVICE
        seen.made.clear()  # of loading: weights are read into the CPU's memory, and moved
        assert library.verify("phantom-dve-transformer") < 2e-3
    assert not seen.computed
    assert not seen.made


# ------------------------------------------------------------------------------------------------- explanations


def _explained(subject: Subject) -> dict[str, Any]:
    """Everything that can be asked of a subject, small."""
    asked: list[Any] = [targets.word(subject, 1), targets.reference(subject, "no effusion .")]
    sources = set(subject.visual.sources)
    if "fve.cdc" in sources:
        asked.append(targets.logit(subject, "cdc", OBSERVATIONS[0]))
    if sources & {"cve", "ccve"}:
        asked.append(targets.similarity(subject, "large effusion", CLUSTERS[0] if "ccve" in sources else None))
    small: dict[str, dict[str, Any]] = {
        "integrated-gradients": {"steps": 2},
        "smoothgrad": {"samples": 2},
        "occlusion": {"windows": 2},
        "random-masks": {"masks": 3, "batch": 2},
    }
    values: dict[str, Any] = {}

    def keep(what: str, found: Sequence[Attribution]) -> None:
        values.update({f"{what} {number}": each.values for number, each in enumerate(found)})

    word = asked[0]
    for target in asked:
        values[target.name] = float(target.of_images(subject, subject.square).detach().cpu()[0])
    for method, overs in possible(subject, word).items():
        for over in overs:
            keep(f"{method} over {over}", explain(subject, word, method, over=over, **small.get(method, {})))
    for target in asked[2:]:
        keep(target.name, explain(subject, target, "grad-cam"))
    for baseline in ("blur", "black") if subject.visual.grids else ():
        keep(baseline, explain(subject, word, "occlusion", over="pixels", windows=2, baseline=baseline))
    found = explain(subject, word, "attention")
    ranked = token_values(subject, found)
    if ranked is not None:
        taken = erasure(subject, word, ranked)
        values["erasure"] = [taken.comprehensiveness, taken.sufficiency]

    def again(of: Subject) -> tuple[Attribution, ...]:
        return explain(of, word, "attention")

    values["sanity"] = sanity(subject, found, again)
    values["stability"] = stability(subject, found, again, repeats=1)
    if subject.visual.grids:
        values["deletion"] = cover_curve(subject, word, found, "deletion").values
    return values


@pytest.mark.parametrize(("encoder", "decoder"), [*PAIRS, pytest.param(*JOINT[0], marks=pytest.mark.slow)])
def test_explanations_are_computed_on_the_device(encoder: str, decoder: str, vocabulary: Vocabulary) -> None:
    model, report = tiny_pair(encoder, decoder, vocabulary), report_of(vocabulary)
    here = _explained(open_subject(model, random_image(), report))
    with on_its_device():
        there = _explained(open_subject(moved(model), random_image(), report))
    assert here.keys() == there.keys()
    for what, expected in here.items():
        atol = 2e-3 * max(1e-3, float(np.abs(expected).max()))
        np.testing.assert_allclose(there[what], expected, rtol=0.02, atol=atol, err_msg=what)


def test_all_methods_are_among_those_explained(vocabulary: Vocabulary) -> None:
    subject = open_subject(tiny_pair("fve", "m2", vocabulary), random_image(), report_of(vocabulary))
    assert possible(subject, targets.word(subject, 1)).keys() == METHODS.keys()


@pytest.mark.parametrize("encoder", ["fve", "ccve"])
def test_changes_and_filters_are_computed_on_the_device(encoder: str, vocabulary: Vocabulary) -> None:
    model, report, image = tiny_pair(encoder, "m2", vocabulary), report_of(vocabulary), random_image()

    def all_of(pair: ReportModel) -> list[Any]:
        subject = open_subject(pair, image, report, HOW["greedy"])
        region = polygon([(10, 10), (60, 10), (60, 60)], *image.shape)
        changes = [without_region(subject, region, how=how, reference="no effusion .") for how in ("blank", "blur")]
        values: list[Any] = []
        if encoder == "ccve":
            changes += [without_filters(subject, CLUSTERS[:2], how=how) for how in ("token", "filter")]
            values += [filters.filter_views(pair, image).filtered, filters.frequency_responses(pair, image)]
            for each in (subject, filters.with_control(subject)):
                looks = filters.filter_attention(each, roll=True)
                values += [looks.summary, looks.words]
        for change in changes:
            values += [change.word_changes, change.after.ids, change.report_change]
        return values

    here = all_of(model)
    with on_its_device():
        there = all_of(moved(model))
    for one, other in zip(here, there, strict=True):
        np.testing.assert_allclose(other, one, rtol=0.02, atol=1e-4)


# ---------------------------------------------------------------------------------------------------- precision


def _seen_by(model: ReportModel) -> tuple[ReportModel, list[torch.dtype]]:
    """A pair that tells in which precision its decoder's last layer computes."""
    seen: list[torch.dtype] = []
    model.decoder.get_submodule("output").register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    return model, seen


def test_a_pair_writes_in_its_precision_and_is_explained_in_fp32(vocabulary: Vocabulary) -> None:
    model, seen = _seen_by(replace(tiny_pair("fve", "m2", vocabulary), precision="bf16"))
    assert encode_images(model, [random_image()]).tokens.dtype == torch.bfloat16
    subject = open_subject(model, random_image())
    assert set(seen) == {torch.bfloat16}  # its report was written
    assert subject.visual.tokens.dtype == torch.float32
    seen.clear()
    target = targets.whole_report(subject)
    exact = open_subject(replace(model, precision="fp32"), random_image(), subject.report)
    for method, options in (("grad-cam", {}), ("occlusion", {"windows": 2})):
        both = (explain(each, target, method, **options) for each in (subject, exact))
        for one, other in zip(*both, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(("encoder", "decoder"), PAIRS)
def test_every_decoder_writes_and_is_embedded_in_bf16(encoder: str, decoder: str, vocabulary: Vocabulary) -> None:
    model = replace(tiny_pair(encoder, decoder, vocabulary), precision="bf16")
    visual = encode_images(model, [random_image()])
    assert visual.tokens.dtype == torch.bfloat16
    for config in HOW.values():
        (report,) = write_from_tokens(model, visual, config)
        assert report.ids
        assert report.word_attention is None or report.word_attention.dtype == np.float32
    assert decoder_states(model, visual, HOW["greedy"]).isfinite().all()
    exact = pooled_embedding(replace(model, precision="fp32"), random_image())
    np.testing.assert_allclose(pooled_embedding(model, random_image()), exact, atol=0.05 * np.abs(exact).max())


def test_what_is_written_again_is_written_in_the_precision_of_the_report(vocabulary: Vocabulary) -> None:
    """Else what rounding changes would seem to come of the covered region."""
    model = replace(tiny_pair("fve", "m2", vocabulary), precision="bf16")
    subject = open_subject(model, random_image())
    region = np.zeros(subject.image.shape, dtype=bool)
    region[:2, :2] = True
    _, seen = _seen_by(subject.model)
    after = without_region(subject, region).after
    assert torch.bfloat16 in seen
    changed = subject.square.clone()
    changed[..., :2, :2] = changed.mean()
    assert after.ids == open_subject(model, changed[0, 0].numpy()).report.ids


def test_an_unknown_device_or_precision_is_told_when_a_pair_is_loaded() -> None:
    with pytest.raises(CXRLensError, match="device 'cuda:77' cannot be used here.* Use cpu"):
        BundleLibrary(BUNDLES, "cuda:77").load("phantom-fve-m2")
    with pytest.raises(CXRLensError, match="fp32, bf16, openvino, openvino-bf16 or auto, not 'fp8'"):
        BundleLibrary(BUNDLES, precision="fp8").load("phantom-fve-m2")  # type: ignore[arg-type]
    with pytest.raises(CXRLensError, match="fp32, bf16, openvino, openvino-bf16 or auto"):
        computing(open_device("cpu"), "fp8")  # type: ignore[arg-type]
