"""Shared fixtures: small vocabularies, tiny models with random weights, the demo bundles."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may reach a hub
# The key of this machine that tests, and the servers they start, use: not the one of who runs them.
os.environ.setdefault("CXR_KEY", str(Path(tempfile.mkdtemp(prefix="cxr-lens-tests-")) / "review-key"))
# Nor are his evaluations among those that pages show.
os.environ.setdefault("CXR_EVALUATIONS", tempfile.mkdtemp(prefix="cxr-lens-tests-"))
os.environ.setdefault("CXR_SYSTEMS", tempfile.mkdtemp(prefix="cxr-lens-tests-"))
# Many sessions come and go; processes that load all models for one that waits would take the core of other tests.
os.environ.setdefault("CXR_HELPERS", "0")

# As `core` has it, which comes after torch below.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Tiny models lose time when threads wait for each other, and so do tiny matrices; read when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))

import hypothesis
import pytest
import streamlit as st
import torch
from streamlit.runtime import context as streamlit_context
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from core.decoders import Decoder, build_decoder
from core.registry import DECODERS
from core.text import SPECIAL_TOKENS, Vocabulary
from core.types import VisualTokens
from tests.long import is_long

# The client of Streamlit's `AppTest` is a mock, with mocks for its address and cookies, and review pages ask for both.
# Without a client the answer is that of a new browser on this machine.
streamlit_context._get_client_context = lambda: None

# `make test-cpus` asks for two all the same.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
torch.set_num_threads(THREADS)

ROOT = Path(__file__).resolve().parent.parent
BUNDLES = ROOT / "assets" / "bundles"

# How long an example takes hangs on the machine, and on what else it does.
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

pytest_plugins = ["tests.needs", "tests.review_cases", "pytester"]

# A shell starts what runs in its background with SIGINT ignored, and Python and its children leave it so. Tests that
# press Ctrl-C need it as it is at a terminal.
if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGINT, signal.default_int_handler)


_ran: set[str] = set()
"""Kinds of networks that the test at hand has run."""


@register_module_forward_pre_hook
def _note(module: nn.Module, inputs: tuple[Any, ...]) -> None:
    seen = (*inputs, next(module.parameters(), None))
    computed = not any(isinstance(each, torch.Tensor) and each.is_meta for each in seen)
    if computed and threading.current_thread() is threading.main_thread():
        _ran.add(type(module).__name__)


@pytest.fixture(autouse=True)
def _numeric_tests_say_so(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a network computes hangs on the processor's kernels: `make test-cpus` has to find every such test."""
    torch.set_num_threads(THREADS)  # commands choose for their process, which here is everybody's
    _ran.clear()
    yield
    if _ran and request.node.get_closest_marker("numeric") is None:
        pytest.fail(f"A network ran here ({min(_ran)}). Write `pytestmark = pytest.mark.numeric` below the imports.")


@pytest.fixture(autouse=True)
def _no_session_is_left() -> None:
    """Outside of pages Streamlit has one session for the whole process: who was signed in there is so no longer."""
    st.session_state.clear()


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    words = ("the", ".", "lungs", "are", "clear", "no", "effusion", "heart", "is", "large", "small", "left", "right")
    return Vocabulary((*SPECIAL_TOKENS, *words))


@pytest.fixture
def visual() -> VisualTokens:
    generator = torch.Generator().manual_seed(3)
    return VisualTokens(torch.randn(3, 6, 10, generator=generator), ((2, 3),), ("test",) * 6)


@pytest.fixture(autouse=True, scope="session")
def dashboard_settings() -> None:
    """AppTest reads the settings beside the dashboard's script as `streamlit run` does."""
    from streamlit import config

    config._main_script_path = str(ROOT / "dashboard" / "app.py")
    config.get_config_options(force_reparse=True)


@pytest.fixture(params=list(DECODERS))
def decoder(request: pytest.FixtureRequest, vocabulary: Vocabulary) -> Decoder:
    torch.manual_seed(5)
    built = build_decoder(request.param, "tiny", token_width=10, vocabulary_size=len(vocabulary)).eval()
    # Random weights write one word for ever; sharper output makes searches branch and end.
    with torch.no_grad():
        built.output.weight.mul_(4)
    return built


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_long(item.nodeid):
            item.add_marker(pytest.mark.long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file in one process, and all of the browser in one: two browsers starve each other."""
    from xdist.scheduler import LoadFileScheduling

    class OneBrowser(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return "tests/browser" if file.startswith("tests/browser/") else file

    return OneBrowser(config, log)
