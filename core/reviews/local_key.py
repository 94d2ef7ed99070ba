"""The key of one's own machine: what the person at it has, and nobody who comes in through a proxy.

A secret in a file that only its owner can read. From it follow, for each port, a token for the address of the Review
page and the value of the cookie that is kept afterwards: what is right at one port opens nothing at another.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from core import paths
from core.files import DiskError, own_folder, whole_file
from core.types import CXRLensError

TOKEN = "token"
"""Parameter of the address that holds the token."""

_LONGEST = 200  # characters; no key is longer


def key_file() -> Path:
    """CXR_KEY, or ``review-key`` in the user's data folder."""
    return Path(os.environ.get("CXR_KEY") or paths.own_data() / "review-key")


def token_of(port: int) -> str:
    """What the address of the Review page of a dashboard at this port ends in.

    Raises:
        CXRLensError: the key can be neither read nor made.
    """
    return _derived("address", port)


def cookie_of(port: int) -> tuple[str, str]:
    """Name and value of the cookie that a browser keeps once it brought the token.

    Raises:
        CXRLensError: as `token_of`.
    """
    return f"cxr-lens-{port}", _derived("cookie", port)


def local_address(port: int) -> str:
    """The address that opens the Review page of this machine's dashboard. It holds the token: for its owner's eyes.

    Raises:
        CXRLensError: as `token_of`.
    """
    return f"http://127.0.0.1:{port}/review?{TOKEN}={token_of(port)}"


def seal(word: str, port: int) -> str:
    """A word with a seal that only this machine can make, for a cookie of a dashboard at this port.

    Args:
        word: without a point.

    Raises:
        CXRLensError: as `token_of`.
    """
    return f"{word}.{_derived(f'seal of {word}', port)}"


def unseal(sealed: str, port: int) -> str:
    """The word of a seal that this machine made for this port; empty of any other.

    Raises:
        CXRLensError: as `token_of`.
    """
    word = sealed.partition(".")[0][:_LONGEST]
    return word if word and same(sealed, seal(word, port)) else ""


def same(given: str, right: str) -> bool:
    """Whether two secrets are equal; the comparison takes the same time whether they are or not."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), right.encode())


def _derived(what: str, port: int) -> str:
    return hmac.new(_key().encode(), f"cxr-lens {what} {port}".encode(), hashlib.sha256).hexdigest()


def _key() -> str:
    path = key_file()
    found = _read(path)
    return _make(path) if found is None else found


def _read(path: Path) -> str | None:
    """The key; None where there is none, or somebody else could have read it."""
    try:
        # A link could lead to a file that somebody else knows; a pipe would never answer.
        file = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        about, content = os.fstat(file), os.read(file, _LONGEST).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        os.close(file)
    private = os.name == "nt" or (about.st_uid == os.geteuid() and not about.st_mode & 0o077)
    return content if private and stat.S_ISREG(about.st_mode) and re.fullmatch("[0-9a-f]{64}", content) else None


def _make(path: Path) -> str:
    """Make a key, instead of whatever is there; of two programs that do so at once, both get the same."""
    try:
        own_folder(path.parent)
        if os.path.lexists(path) and _read(path) is None:
            path.unlink(missing_ok=True)
        with suppress(FileExistsError), whole_file(path, replace=False) as fresh:
            fresh.write_text(secrets.token_hex(32), encoding="ascii")
    except (OSError, DiskError) as error:
        raise CXRLensError(
            f"Review sessions stay closed: the key of this machine cannot be kept ({error}). "
            "Name a file that you can write with CXR_KEY."
        ) from error
    found = _read(path)
    if found is None:
        raise CXRLensError(
            f"Review sessions stay closed: others can read the key of this machine in {path}, or change it. Name a "
            "file in a folder of your own with CXR_KEY."
        )
    return found
