"""Shared fixtures: small vocabularies, tiny models with random weights, the demo bundles."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a hub
# The key of this machine that tests, and the servers they start, use: not the one of who runs them.
os.environ.setdefault("CXR_KEY", str(Path(tempfile.mkdtemp(prefix="cxr-lens-tests-")) / "review-key"))

import pytest
import torch

from core.decoders import Decoder, build_decoder
from core.registry import DECODERS
from core.text import SPECIAL_TOKENS, Vocabulary
from core.types import VisualTokens

torch.set_num_threads(1)  # tiny models lose time when threads wait for each other

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ROOT / "assets" / "bundles"


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    words = ("the", ".", "lungs", "are", "clear", "no", "effusion", "heart", "is", "large", "small", "left", "right")
    return Vocabulary((*SPECIAL_TOKENS, *words))


@pytest.fixture
def visual() -> VisualTokens:
    generator = torch.Generator().manual_seed(3)
    return VisualTokens(torch.randn(3, 6, 10, generator=generator), ((2, 3),), ("test",) * 6)


@pytest.fixture(params=list(DECODERS))
def decoder(request: pytest.FixtureRequest, vocabulary: Vocabulary) -> Decoder:
    torch.manual_seed(5)
    built = build_decoder(request.param, "tiny", token_width=10, vocabulary_size=len(vocabulary)).eval()
    # Random weights write one word for ever; sharper output makes searches branch and end.
    with torch.no_grad():
        built.output.weight.mul_(4)
    return built


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file in one process, and all of the browser in one: two browsers starve each other."""
    from xdist.scheduler import LoadFileScheduling

    class OneBrowser(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/browser" if file.startswith("tests/browser/") else file

    return OneBrowser(config, log)
