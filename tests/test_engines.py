"""What runs an encoder: OpenVINO where it gives what torch gives, else torch with the reason."""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from core.bundles.pair import ReportModel, encode_images, write_from_tokens
from core.decoders.search import GenerateConfig
from core.encoders import engines
from core.encoders.engines import ALIKE, TOLERANCE, choose
from core.encoders.folding import folded
from core.explain import targets
from core.explain.methods import explain
from core.explain.subject import open_subject
from core.text import Vocabulary
from tests import needs
from tests.tiny_models import random_image, tiny_pair

pytestmark = pytest.mark.numeric
CPU = torch.device("cpu")
WITH = needs.OPENVINO.packages("openvino")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path))
    return tmp_path


def by_openvino(model: ReportModel) -> ReportModel:
    engine = choose(model.encoder, ["a"], "openvino", CPU)
    assert engine.name == "openvino", engine.why
    return replace(model, precision="openvino", engine=engine)


@WITH
@pytest.mark.parametrize("encoder", [pytest.param("fve", marks=pytest.mark.slow), "ccve"])
def test_openvino_gives_the_tokens_and_reports_of_torch(encoder: str, vocabulary: Vocabulary) -> None:
    model, how = tiny_pair(encoder, "transformer", vocabulary), GenerateConfig(beam_size=2, max_words=12)
    fast, images = by_openvino(model), [random_image(seed) for seed in range(5)]
    expected, found = encode_images(model, images), encode_images(fast, images)
    assert (found.tokens - expected.tokens).abs().max() <= TOLERANCE * expected.tokens.abs().max()
    assert not torch.equal(found.tokens, expected.tokens)  # it was OpenVINO that computed
    assert (found.grids, found.sources, found.summaries) == (expected.grids, expected.sources, expected.summaries)
    here, there = write_from_tokens(model, expected, how), write_from_tokens(fast, found, how)
    assert [each.ids for each in there] == [each.ids for each in here]


@WITH
def test_in_bfloat16_tokens_are_alike_and_decoders_compute_as_before(vocabulary: Vocabulary) -> None:
    model = tiny_pair("fve", "m2", vocabulary)
    engine = choose(model.encoder, ["a"], "openvino-bf16", CPU)
    if engine.name == "openvino":  # a processor without it; the next test has that
        return
    assert engine.name == "openvino-bf16", engine.why
    coarse, images = replace(model, precision="openvino-bf16", engine=engine), [random_image(seed) for seed in range(5)]
    expected, found = (encode_images(each, images).tokens for each in (model, coarse))
    assert torch.nn.functional.cosine_similarity(expected, found, dim=-1).min() > ALIKE
    assert (found - expected).abs().max() > TOLERANCE * expected.abs().max()  # it was bfloat16
    assert coarse.writes_with == replace(model, precision="openvino-bf16").writes_with is not None


@WITH
@pytest.mark.parametrize("why", ["a cosine of", "does not compute in bfloat16"])
def test_where_bfloat16_is_not_alike_or_not_there_fp32_runs(
    why: str, vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = needs.OPENVINO.package("openvino")
    if "cosine" in why:
        monkeypatch.setattr(engines, "ALIKE", 1.1)
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32", "BF16"])
    else:
        monkeypatch.setattr(openvino.Core, "get_property", lambda *_: ["FP32"])
    encoder = tiny_pair("dve", "transformer", vocabulary).encoder
    with caplog.at_level(logging.WARNING):
        assert choose(encoder, ["a"], "openvino-bf16", CPU).name == "openvino"
    (line,) = caplog.messages
    assert why in line


@WITH
@pytest.mark.slow
def test_what_is_explained_is_computed_by_torch(vocabulary: Vocabulary) -> None:
    model = tiny_pair("fve", "m2", vocabulary)
    both = []
    for each in (model, by_openvino(model)):
        subject = open_subject(each, random_image())
        both.append(explain(subject, targets.whole_report(subject), "grad-cam"))
    for one, other in zip(*both, strict=True):
        assert (one.values == other.values).all()


@WITH
def test_an_encoder_is_converted_once_and_again_where_the_file_is_damaged(
    vocabulary: Vocabulary, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, made = tiny_pair("dve", "transformer", vocabulary).encoder, []
    convert = engines._convert
    monkeypatch.setattr(engines, "_convert", lambda *given: made.append(1) or convert(*given))
    for _ in range(2):
        assert choose(encoder, ["a"], "openvino", CPU).name == "openvino"
    assert len(made) == 1
    (kept,) = own_cache.glob("engines/*/model.xml")
    kept.write_text("broken")
    assert choose(encoder, ["a"], "auto", CPU).name == "openvino"
    assert choose(encoder, ["b"], "openvino", CPU).name == "openvino"  # of other weights
    assert len(made) == 3
    assert {path.name for path in own_cache.glob("engines/*/*")} == {"model.xml", "model.bin"}


@WITH
def test_another_encoder_under_the_same_name_is_found_out(vocabulary: Vocabulary) -> None:
    pairs = [tiny_pair("dve", "transformer", vocabulary) for _ in range(2)]
    with torch.no_grad():
        for weight in pairs[1].encoder.parameters():
            weight.mul_(1.1)
    assert choose(pairs[0].encoder, ["a"], "openvino", CPU).name == "openvino"
    found = choose(pairs[1].encoder, ["a"], "openvino", CPU)
    assert found.name == "torch"
    assert "differ from torch's" in found.why
    assert found.look is folded(pairs[1].encoder)


@WITH
def test_a_converter_that_fails_leaves_torch_and_one_line(
    vocabulary: Vocabulary, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*given: object) -> None:
        raise RuntimeError("Check failed\nno such operation")

    monkeypatch.setattr(engines, "_convert", fails)
    encoder = tiny_pair("dve", "transformer", vocabulary).encoder
    with caplog.at_level(logging.WARNING):
        found = choose(encoder, ["a"], "openvino", CPU)
    assert found.look is folded(encoder)
    (line,) = caplog.messages
    assert "no such operation" in line
    assert "\n" not in line


@pytest.mark.parametrize(("asked", "lines"), [("openvino", 1), ("auto", 0)])
def test_where_openvino_is_missing_torch_runs(
    asked: engines.Precision,
    lines: int,
    vocabulary: Vocabulary,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    encoder = tiny_pair("dve", "transformer", vocabulary).encoder
    with caplog.at_level(logging.WARNING):
        found = choose(encoder, ["a"], asked, CPU)
    assert found.look is folded(encoder)
    assert "pip install --no-deps openvino" in found.why
    assert len(caplog.messages) == lines


def test_a_pair_that_asks_for_no_engine_is_run_by_torch(vocabulary: Vocabulary) -> None:
    model = tiny_pair("dve", "transformer", vocabulary)
    for precision in ("fp32", "bf16"):
        assert choose(model.encoder, ["a"], precision, CPU).look is folded(model.encoder)  # type: ignore[arg-type]
    other = engines.Engine("openvino", "", lambda images: pytest.fail("it was asked"))
    encode_images(replace(model, engine=other), [random_image()])
