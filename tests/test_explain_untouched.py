"""Explaining leaves the model as it was: when it ends, when it fails, when it is stopped."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core.bundles.pair import ReportModel
from core.explain import targets
from core.explain.faithfulness import randomised
from core.explain.methods import (
    METHODS,
    explain,
    possible,
)
from core.explain.subject import open_subject, twin
from core.text import Vocabulary
from core.types import CXRLensError, Report
from tests.tiny_models import random_image, report_of, snapshot, tiny_pair

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def fve(vocabulary: Vocabulary) -> ReportModel:
    return tiny_pair("fve", "m2", vocabulary)


# ------------------------------------------------------------------------------------------- the model stays as it was

FAST = {
    "integrated-gradients": {"steps": 4},
    "smoothgrad": {"samples": 2},
    "occlusion": {"windows": 3},
    "random-masks": {"masks": 4},
}


class Stop(Exception):  # noqa: N818
    """What a caller raises to stop."""


class Bomb(nn.Module):
    """Passes on what it gets, a few times."""

    def __init__(self, inner: nn.Module, fuse: int) -> None:
        super().__init__()
        self.inner, self.fuse = inner, fuse

    def forward(self, values: Tensor) -> Tensor:
        self.fuse -= 1
        if self.fuse < 0:
            raise RuntimeError("planted")
        return self.inner(values)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_leaves_the_model_untouched(method: str, fve: ReportModel, vocabulary: Vocabulary) -> None:
    before = snapshot(fve)
    subject = open_subject(fve, random_image(), report_of(vocabulary))
    target = targets.word(subject, 1)
    calls: list[tuple[int, int]] = []
    done = explain(subject, target, method, progress=lambda *call: calls.append(call), **FAST.get(method, {}))
    assert all(np.isfinite(each.values).all() for each in done)
    if calls:
        assert calls == sorted(calls)
        assert calls[-1][0] <= calls[-1][1]
    assert snapshot(fve) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("fuse", [0, 1])
def test_a_method_that_fails_leaves_the_model_untouched(
    method: str, fuse: int, fve: ReportModel, vocabulary: Vocabulary
) -> None:
    planted = replace(fve, decoder=twin(fve).decoder)
    planted.decoder.output = Bomb(planted.decoder.output, fuse)  # type: ignore[arg-type]
    before = snapshot(planted)
    subject = open_subject(planted, random_image(), report_of(vocabulary))
    options = {**FAST.get(method, {}), **({"batch": 1} if method in FAST else {})}
    layers = [{}, {"layer": "layer2"}] if method == "grad-cam" else [{}]
    for layer in layers:
        if fuse == 0 and method != "cls-attention":  # which needs no word
            with pytest.raises(RuntimeError, match="planted"):
                explain(subject, targets.word(subject, 1), method, **options, **layer)
        elif method in FAST:
            with pytest.raises(RuntimeError, match="planted"):
                explain(subject, targets.word(subject, 1), method, **options)
    assert snapshot(planted) == before
    assert not any(module._forward_hooks for module in subject.model.encoder.modules())


@pytest.mark.parametrize("method", FAST)
def test_work_can_be_stopped(method: str, fve: ReportModel, vocabulary: Vocabulary) -> None:
    subject, before = open_subject(fve, random_image(), report_of(vocabulary)), snapshot(fve)

    def stop(done: int, total: int) -> None:
        assert done < total
        raise Stop

    with pytest.raises(Stop):
        explain(subject, targets.word(subject, 1), method, progress=stop, batch=1, **FAST[method])
    assert snapshot(fve) == before


def test_a_twin_shares_weights_unless_it_should_not(fve: ReportModel) -> None:
    same, own = twin(fve), twin(fve, own_weights=True)
    weights = [next(each.encoder.parameters()) for each in (fve, same, own)]
    assert weights[0] is weights[1]
    assert weights[0] is not weights[2]
    assert same.encoder is not fve.encoder
    assert not same.encoder.training


@pytest.mark.parametrize("encoder", ["fve", "cve", "ccve"])
def test_a_randomised_model_leaves_every_weight_where_it_was(encoder: str, vocabulary: Vocabulary) -> None:
    """Shuffled values have the same sum, so `snapshot` would not see it."""
    model = tiny_pair(encoder, "m2", vocabulary)
    named = {**dict(model.encoder.named_parameters()), **dict(model.decoder.named_parameters(prefix="decoder"))}
    before = {name: weights.detach().clone() for name, weights in named.items()}
    randomised(open_subject(model, random_image(), report_of(vocabulary)), ("decoder", "encoder"), 0)
    assert [name for name, weights in named.items() if not torch.equal(weights, before[name])] == []


@pytest.mark.parametrize("method", METHODS)
def test_a_model_that_gives_nan_is_named(method: str, vocabulary: Vocabulary) -> None:
    model = tiny_pair("dve", "transformer", vocabulary)
    report = report_of(vocabulary)
    with torch.no_grad():
        model.decoder.input.linear.bias.fill_(float("nan"))  # type: ignore[union-attr]
    subject = open_subject(model, random_image(), report)
    with pytest.raises(CXRLensError, match="test-dve-transformer gives NaN or infinity.*verify"):
        explain(subject, targets.word(subject, 1), method, **FAST.get(method, {}))
    with torch.no_grad():
        model.encoder.model.layer1[0].conv1.weight.fill_(float("nan"))  # type: ignore[union-attr, index]
    with pytest.raises(CXRLensError, match="encoder of test-dve-transformer gives NaN"):
        open_subject(model, random_image(), report)


def test_a_report_without_ids_cannot_be_explained(fve: ReportModel) -> None:
    with pytest.raises(CXRLensError, match="Write it anew"):
        open_subject(fve, random_image(), Report("Clear.", ("clear", "."), -1.0, True))


def test_what_is_possible_is_possible_and_the_rest_is_refused(vocabulary: Vocabulary) -> None:
    for encoder in ("fve", "cve", "ccve", "ccve+fve"):
        subject = open_subject(tiny_pair(encoder, "m2", vocabulary), random_image(), report_of(vocabulary))
        asked: list[targets.Target] = [targets.word(subject, 1)]
        asked += [targets.logit(subject, "cdc", "Edema")] if "fve" in encoder else []
        asked += (
            [targets.similarity(subject, "heart", "Edema" if "ccve" in encoder else None)] if "cve" in encoder else []
        )
        for target in asked:
            can = possible(subject, target)
            for method, row in METHODS.items():
                for over in row.over:
                    options = {"over": over, **FAST.get(method, {})}
                    if over in can.get(method, ()):
                        assert explain(subject, target, method, **options)
                    elif method != "cls-attention":  # it explains the image, whatever is asked
                        with pytest.raises(CXRLensError):
                            explain(subject, target, method, **options)
            first = explain(subject, target, "occlusion", windows=2)
            assert (first[0].geometry is None) == (encoder == "ccve" and isinstance(target, targets.WordTarget))
