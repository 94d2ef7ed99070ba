"""A checkpoint's tensors by name, from PyTorch's format or safetensors. Nothing in a file is ever run."""

from __future__ import annotations

import gzip
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from core.types import CXRLensError

MOST_BYTES = 16 * 2**30
"""Of what a gzipped checkpoint may unpack to."""
_GZIP, _BLOCK = b"\x1f\x8b", 2**20
_FEW = 3
"""Names that a message tells; the rest is counted."""


class CheckpointError(CXRLensError):
    """A checkpoint, or what belongs to it, cannot become a bundle; the message says what differs."""


def read_checkpoint(path: Path, under: str) -> dict[str, Tensor]:
    """Read the tensors of a checkpoint by name, those of numbers with a point in single precision.

    Args:
        path: of a file that `torch.save` wrote, gzipped or not, or of safetensors.
        under: key of the tensors, in a file that holds more: "state_dict", "model".

    Raises:
        CheckpointError: there is no such file, it is cut short, it needs code to be read, or holds no tensors by name.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no file {path}.")
    try:
        content = _safetensors(path) if path.suffix == ".safetensors" else _saved_by_torch(path, under)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror or error}.") from error
    state = content.get(under, content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{path.name} holds no tensors by name: not at its top, and not under '{under}'.")
    strange = [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(f"{path.name} holds what is no tensor: {told(map(str, strange))}.")
    if all(key.startswith("module.") for key in state):  # of torch.nn.DataParallel
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return {key: _plain(key, value, path) for key, value in state.items()}


def told(names: Iterator[str] | list[str]) -> str:
    """Some of the names, for a message: "a, b, c and 7 more"."""
    names = [re.sub(r"[^\w.\-+<>/ ]", "?", name)[:80] for name in names]
    more = f" and {len(names) - _FEW:,} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more


def _plain(key: str, value: Tensor, path: Path) -> Tensor:
    """A tensor as weights are: stored whole, of numbers."""
    usual = value.layout == torch.strided and not (value.is_complex() or value.is_quantized or value.is_meta)
    if not usual or value.untyped_storage().nbytes() < value.numel() * value.element_size():
        raise CheckpointError(f"{path.name}: {told([key])} is no plain tensor.")
    return value.float() if value.is_floating_point() else value


def _safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path.name} cannot be read as safetensors ({error}): it may be cut short.") from error


def _saved_by_torch(path: Path, under: str) -> Any:
    with _unpacked(path) as file:
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch's reader has many ways to fail
            if code := _code_in(file, str(error)):
                raise CheckpointError(_needs_code(path, under, code)) from error
            raise CheckpointError(
                f"{path.name} cannot be read as a checkpoint of PyTorch ({type(error).__name__}): it is cut short, or "
                "something else."
            ) from error


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The file, or what a gzipped one holds."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        with gzip.open(file) as packed_file, tempfile.TemporaryFile() as whole:
            try:
                while block := packed_file.read(_BLOCK):
                    whole.write(block)
                    if whole.tell() > MOST_BYTES:
                        raise CheckpointError(f"{path.name} unpacks to more than {MOST_BYTES / 2**30:.0f} GB.")
            except (OSError, EOFError, zlib.error) as error:
                raise CheckpointError(f"{path.name} cannot be unpacked ({error}): it may be cut short.") from error
            whole.seek(0)
            yield whole


def _code_in(file: IO[bytes], message: str) -> list[str]:
    """What a checkpoint would call if it were unpickled; found by reading it, not by running it."""
    try:
        file.seek(0)
        found = torch.serialization.get_unsafe_globals_in_checkpoint(file)  # type: ignore[arg-type]
    except Exception:  # an older format, or damaged: what the reader refused
        found = re.findall(r"(?:GLOBAL|global:?) ([\w.]+\.[\w.]+)", message)
    return sorted(set(found))


def _needs_code(path: Path, under: str, code: list[str]) -> str:
    fresh = path.name.split(".")[0] + ".safetensors"
    return (
        f"{path.name} holds more than tensors ({told(code)}): unpickling it could run any code, so it was not read. If "
        "you trust it, save its weights anew where it was made and import that file: import torch; from "
        f"safetensors.torch import save_file; state = torch.load('{path.name}', map_location='cpu', "
        f"weights_only=False)['{under}']; save_file({{name: each.clone() for name, each in state.items()}}, '{fresh}')"
    )
