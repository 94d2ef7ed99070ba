"""Modules whose weights a bundle replaces are built without drawing what they would start from."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from core.bundles.unstarted import Unstarted
from core.decoders import build_decoder
from core.encoders import build_encoder
from core.registry import ENCODERS
from core.text import Vocabulary
from tests.conftest import ROOT

pytestmark = pytest.mark.numeric


def built(name: str, vocabulary: Vocabulary) -> nn.Module:
    if name in ENCODERS:
        given = {"vocabulary": vocabulary} if name in ("cve", "ccve") else {}
        return build_encoder(name, "tiny", **given)
    return build_decoder(name, "tiny", token_width=8, vocabulary_size=len(vocabulary), findings_first=True)


@pytest.mark.parametrize("name", ["dve", "fve", "cve", "ccve", "transformer", "m2", "cnn_rnn_rnn"])
def test_nothing_is_drawn_and_with_its_weights_it_is_the_same(name: str, vocabulary: Vocabulary) -> None:
    torch.manual_seed(3)
    usual = built(name, vocabulary)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    with Unstarted():
        bare = built(name, vocabulary)
    # open_clip's tower of ResNet draws one of its parameters before it is a parameter.
    assert torch.equal(torch.get_rng_state(), before) or name in ("cve", "ccve")
    bare.load_state_dict(usual.state_dict())
    here, there = dict(bare.named_buffers()), dict(usual.named_buffers())
    assert here.keys() == there.keys()
    assert all(torch.equal(here[key], there[key]) for key in here)  # those too that no file has


def test_what_is_no_parameter_is_drawn() -> None:
    with Unstarted():
        assert torch.empty(100).normal_().std() > 0.5
        assert nn.init.uniform_(torch.zeros(100)).max() > 0.5
        weight = nn.init.kaiming_uniform_(nn.Parameter(torch.zeros(9, 9)))
    assert not weight.any()


def test_what_stands_for_sympy_and_the_compiler_becomes_them_for_whoever_kept_it() -> None:
    """In its own process: nothing there has imported them."""
    code = """
import sys
from core.packages import without_compiler
with without_compiler():
    import sympy
    assert not hasattr(sympy, "__file__")
    assert str(sympy.Symbol("x") + 1) == "x + 1"  # more than the stand-in knows: it is imported
assert sympy.Basic is sys.modules["sympy"].Basic
assert isinstance(sympy.Symbol("x"), sympy.Basic)
with without_compiler():
    from torch.fx.experimental import symbolic_shapes
    assert symbolic_shapes.guard_or_false(3 == 3) is True
    assert symbolic_shapes.ShapeEnv is not None
assert symbolic_shapes.expect_true is sys.modules["torch.fx.experimental.symbolic_shapes"].expect_true
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
