"""By what an encoder is run: torch, or OpenVINO where it is installed and gives what torch gives.

Chosen here, once for each encoder that is loaded; a decoder is always run by torch, and so is all that is explained.
An encoder is converted once: what comes of it is kept by its weights in `core.paths.cache`, and checked against torch
each time that it is opened.
"""

from __future__ import annotations

import copy
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from core import paths
from core.devices import BY_TORCH, Precision
from core.encoders.folding import folded
from core.files import hash_of, own_folder, remove_forgotten
from core.packages import module, versions
from core.types import VisualTokens

if TYPE_CHECKING:
    from core.encoders.base import Encoder

TOLERANCE = 1e-3
"""Largest difference of a token from torch's that counts as the same, as a share of the largest token."""
ALIKE = 0.995
"""Least cosine of a token in bfloat16 with torch's in single precision that counts as alike; ours."""
_VERSION = 1  # raise it when encoders are converted in another way
_LIBRARIES = ("torch", "openvino")
_log = logging.getLogger(__name__)

Look = Callable[[Tensor], VisualTokens]
"""From images (B, 1, side, side) in [0, 1] to tokens."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How an encoder is run.

    Attributes:
        name: "torch", "openvino" or "openvino-bf16".
        why: one line, why it is this one.
        look: runs the encoder; safe from several threads.
    """

    name: str
    why: str
    look: Look


def choose(encoder: Encoder, weights: list[str], asked: Precision, device: torch.device) -> Engine:
    """The engine of an encoder, by what was asked for and what the machine has; never one that gives something else.

    Args:
        encoder: frozen, on its device.
        weights: what decides its output, as `core.bundles.card.encoder_weights` tells.
        asked: "fp32" and "bf16" are torch's own, "openvino" is OpenVINO in single precision, "openvino-bf16" in
            bfloat16 where the processor has it and tokens stay alike, else in single precision; "auto" the fastest
            that gives the same as torch in single precision.
        device: where torch computes.
    """
    if asked in BY_TORCH:
        return Engine("torch", f"{asked} is torch's", folded(encoder))
    if device.type != "cpu":
        return _torch(encoder, f"torch computes on {device.type}, where it is the fastest", told=asked != "auto")
    try:
        module("openvino")
    except ImportError:
        why = "OpenVINO is not installed (pip install --no-deps openvino)"
        return _torch(encoder, why, told=asked != "auto")
    try:
        if asked == "openvino-bf16" and (coarse := _in_bfloat16(encoder, weights)):
            return coarse
        look, expected, found = _opened(encoder, weights, "f32")
    except Exception as error:  # a converter can raise anything, and reports are written all the same
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return _torch(encoder, f"OpenVINO cannot run it ({lines[-1][:200]})")
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference <= TOLERANCE:  # also NaN
        return _torch(encoder, f"OpenVINO's tokens differ from torch's by {difference:.1g} of the largest")
    return Engine("openvino", f"OpenVINO gives torch's tokens to {difference:.1g} of the largest", look)


def _in_bfloat16(encoder: Encoder, weights: list[str]) -> Engine | None:
    """OpenVINO in bfloat16; None, with a line that says why, where single precision is the way."""
    name = type(encoder).__name__
    if "BF16" not in module("openvino").Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        _log.warning("%s is run in fp32: this processor does not compute in bfloat16.", name)
        return None
    look, expected, found = _opened(encoder, weights, "bf16")
    least = float(functional.cosine_similarity(found, expected, dim=-1).min())
    if not least >= ALIKE:  # also NaN
        _log.warning("%s is run in fp32: in bfloat16 a token has a cosine of %.3f with torch's.", name, least)
        return None
    return Engine("openvino-bf16", f"OpenVINO in bfloat16: tokens have a cosine of {least:.4f} or more", look)


def _torch(encoder: Encoder, why: str, *, told: bool = True) -> Engine:
    """Torch instead of what was asked for."""
    if told:
        _log.warning("%s is run by torch: %s.", type(encoder).__name__, why)
    return Engine("torch", why, folded(encoder))


class _Plain(nn.Module):
    """A part of an encoder, or all of it, whose output is a tensor."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor | VisualTokens = self.part(x)
        return found.tokens if isinstance(found, VisualTokens) else found


class _Run(nn.Module):
    """A part of an encoder that OpenVINO runs; safe from several threads."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        request = self.model.create_infer_request()  # a request belongs to one thread
        return torch.from_numpy(request.infer([x.contiguous().numpy()], share_outputs=False)[0])


@torch.inference_mode()
def _opened(encoder: Encoder, weights: list[str], precision: str) -> tuple[Look, Tensor, Tensor]:
    """An encoder as OpenVINO runs it; tokens (3, N, D) of three random images by torch and by it."""
    side: int = encoder.normalize.image_size  # type: ignore[assignment]
    probe = torch.rand(3, 1, side, side, generator=torch.Generator().manual_seed(0))
    part, seen = encoder.get_submodule(encoder.costly), list[Tensor]()
    hook = part.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        expected = encoder(probe)
    finally:
        hook.remove()
    core = module("openvino").Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    content = [_VERSION, side, encoder.costly, versions(_LIBRARIES), *weights]
    folder = paths.cache() / "engines" / hash_of(content, 32)
    run = _Run(core.compile_model(_converted(core, part, seen[0][:2], folder), "CPU", settings))
    twin = _with(encoder, encoder.costly, run) if encoder.costly else None

    def look(images: Tensor) -> VisualTokens:
        return replace(expected, tokens=run(images)) if twin is None else twin(images)

    found = torch.cat([look(probe[:1]).tokens, look(probe[1:]).tokens])  # batches of two sizes
    return look, expected.tokens, found


def _with(whole: nn.Module, path: str, part: nn.Module) -> nn.Module:
    """A module that shares all with another one, but for the part at a path."""
    twin, (first, _, rest) = copy.copy(whole), path.partition(".")
    old = whole.get_submodule(first)
    twin._modules = {**whole._modules, first: _with(old, rest, part) if rest else part}
    return twin


def _converted(core: Any, part: nn.Module, example: Tensor, folder: Path) -> Any:
    """OpenVINO's model of a part: read where it is kept, else made and kept."""
    try:
        return core.read_model(folder / "model.xml")
    except RuntimeError:  # not there, or damaged
        shutil.rmtree(folder, ignore_errors=True)
    model = _convert(part, example)
    own_folder(folder.parent)
    remove_forgotten(folder.parent)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    module("openvino").save_model(model, fresh / "model.xml", compress_to_fp16=False)
    try:
        fresh.replace(folder)
    except OSError:  # another process was first
        shutil.rmtree(fresh, ignore_errors=True)
    return core.read_model(folder / "model.xml")


def _convert(part: nn.Module, example: Tensor) -> Any:
    """Convert by OpenVINO's own reader of torch's graphs; ``openvino.convert_model`` would report its use."""
    frontend = module("openvino.frontend").FrontEndManager().load_by_framework("pytorch")
    read = module("openvino.frontend.pytorch.ts_decoder").TorchScriptPythonDecoder
    with warnings.catch_warnings(action="ignore"):  # of what a graph takes for constant; two sizes are checked
        traced = read(_Plain(part).eval(), example_input=(example,))
    model = frontend.convert(frontend.load(traced))
    model.reshape([-1, *example.shape[1:]])
    return model
