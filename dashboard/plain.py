"""Texts that a person or a file wrote, for Streamlit's Markdown: shown as they are, and never markup.

Whatever a page shows of a card, a study, an address, a file's name, a session or a message goes through `plain` or
`plain_message`, and nothing of it becomes a link, an image, a heading, a formula, a colour or an icon.
"""

from __future__ import annotations

import re
from pathlib import Path

_JOINER = "\u2060"
"""Word joiner: has no width, and parts what else would be taken for an address, an icon or a colour."""
_ANYWHERE = re.compile(r"[\\`*\[\]<>$~|{}]|(?<!\w)_|_(?!\w)|&(?=#?\w+;)")
_AT_START = re.compile(r"^(?=[#+=-])|^(\d+)(?=[.)])")
_COLON = re.compile(r":(?=//|[\w+-]+(?:/\w+)?:|[\w-]+\\[\[{])")
_ADDRESS = re.compile(r"(\bwww)(?=\.)|(@)(?=\w)", re.IGNORECASE)
_PATH = re.compile(r"(?<![\w:/.~])(/[\w.+@-]+)(?:/[\w.+@-]+)+/?")
_CODE = re.compile(r"(`[^`]+`)")


def plain(text: object) -> str:
    """A text as Markdown that shows it as it is, in one line.

    Args:
        text: of a person or a file.
    """
    return _at_start(_escaped(" ".join(str(text).split())))


def plain_message(message: object) -> str:
    """A message as Markdown: commands between backticks stay code, all else is shown as it is.

    Args:
        message: in which names and values of others may stand. Code is never more than code;
            of paths on this server the last name is shown.
    """
    parts = _CODE.split(" ".join(str(message).split()))
    return _at_start(
        "".join(part if index % 2 else _escaped(without_folders(part)) for index, part in enumerate(parts))
    )


def without_folders(message: str) -> str:
    """A message with the last names of paths on this server: a page says what is wrong, not where a disk has it.

    From the name of a command on it stays as it is: with parts of its paths the command would not work.
    """
    told, command, rest = message.partition("cxr-lens ")
    return _PATH.sub(lambda found: Path(found[0]).name if Path(found[1]).is_dir() else found[0], told) + command + rest


def code(command: object) -> str:
    """A command as code, whatever it holds."""
    text = " ".join(str(command).split()).replace("`", "'")
    return f"`{text}`" if text else ""


def shown(markdown: str) -> str:
    """What is read of Markdown that `plain` made."""
    return re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", markdown).replace(_JOINER, "")


def _escaped(text: str) -> str:
    escaped = _ANYWHERE.sub(r"\\\g<0>", text)
    return _ADDRESS.sub(rf"\g<0>{_JOINER}", _COLON.sub(f":{_JOINER}", escaped))


def _at_start(text: str) -> str:
    """What begins a line may not make it a heading or an item of a list."""
    return _AT_START.sub(lambda found: f"{found.group(1)}\\" if found.group(1) else "\\", text)
