"""Commands that README, the documents and the program's own messages tell a reader to run."""

from __future__ import annotations

import ast
import re
import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[2]
PAGES = (*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "assets/README.md")), *ROOT.glob("docs/*.md"))
SOURCES = [each for folder in ("core", "training", "dashboard") for each in (ROOT / folder).rglob("*")]

PROGRAMS = ("cxr-lens", "make", "pip", "python", "pytest", "streamlit", "torchrun", "srun")
_FENCE = re.compile(r"(?ms)^(?P<indent> *)```(?P<language>[\w-]*)\n(?P<body>.*?)^(?P=indent)``` *$")
_INLINE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
_COMMENT = re.compile(r"(^|\s)#.*$")


@dataclass(frozen=True, slots=True)
class Found:
    """A command line of a page.

    Attributes:
        text: its words, a space between two, without comment.
        where: file and line.
        fenced: whether it stands in a block of its own, so that a reader copies it as it is.
    """

    text: str
    where: str
    fenced: bool


class NotACommandError(Exception):
    """A block without a language has a line that is no command."""


def commands_of(text: str, where: str) -> Iterator[Found]:
    """All command lines of a Markdown text.

    A block without a language holds command lines. If one begins with "$ ", the lines without it are output; comments
    are left out. Between single backticks a command begins with one of `PROGRAMS`.

    Raises:
        NotACommandError: such a block has another line; call its language "text".
    """
    rest = text
    for block in _FENCE.finditer(text):
        rest = rest.replace(block[0], "\n" * block[0].count("\n"), 1)
        if block["language"] not in ("", "bash", "sh", "console"):
            continue
        line = text[: block.start()].count("\n") + 2
        lines = textwrap.dedent(block["body"]).replace("\\\n", " \0").splitlines()
        prompted = any(each.startswith("$ ") for each in lines)
        for each in lines:
            at, line = line, line + 1 + each.count("\0")
            words = " ".join(_COMMENT.sub("", each.replace("\0", "")).split())
            if not words or (prompted and not words.startswith("$ ")):
                continue
            words = words.removeprefix("$ ")
            if words.split()[0] not in PROGRAMS:
                raise NotACommandError(f"{where}:{at}: '{words}' is no command; is the block's language 'text'?")
            yield Found(words, f"{where}:{at}", True)
    for span in _INLINE.finditer(rest):
        words = " ".join(span[1].split())
        if words.split()[:1] and words.split()[0] in PROGRAMS:
            yield Found(words, f"{where}:{rest[: span.start()].count(chr(10)) + 1}", False)


def blocks(page: str, language: str) -> list[str]:
    """Contents of a page's blocks of a language."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return [textwrap.dedent(each["body"]) for each in _FENCE.finditer(text) if each["language"] == language]


def all_commands() -> list[Found]:
    """Of all pages."""
    return [
        each
        for page in sorted(PAGES)
        for each in commands_of(page.read_text(encoding="utf-8"), str(page.relative_to(ROOT)))
    ]


# ------------------------------------------------------------------------------------ what the program tells its users

_SAID = re.compile(r"\bcxr-lens (?P<words>[a-z-]+(?: [^`\n]*)?)")


def messages() -> Iterator[tuple[str, str]]:
    """(text from "cxr-lens" to the end of its line or backticks, where) of strings and comments in the sources."""
    for path in sorted(SOURCES):
        if path.suffix not in (".py", ".toml"):
            continue
        where, text = str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")
        parts = [(line.partition("#")[2], number) for number, line in enumerate(text.splitlines(), 1) if "#" in line]
        if path.suffix == ".py":
            parts += _strings(ast.parse(text))
        for part, line in parts:
            for said in _SAID.finditer(part):
                yield said["words"].strip(), f"{where}:{line}"


def extras() -> Iterator[tuple[str, str]]:
    """(extra, where) of each ``pip install`` of ours that a page or a message names."""
    for path in (*PAGES, *SOURCES):
        if path.suffix in (".md", ".py", ".toml"):
            for names in re.findall(r"(?:cxr-lens|[\"' ]\.)\[([a-z,]+)\]", path.read_text(encoding="utf-8")):
                yield from ((name, str(path.relative_to(ROOT))) for name in names.split(","))


def _strings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Strings with their lines; what an f-string puts in is X."""
    inner: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            inner |= {id(each) for each in node.values}
            yield "".join(each.value if isinstance(each, ast.Constant) else "X" for each in node.values), node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value, node.lineno


# ---------------------------------------------------------------------------------------------- what the program takes


class UnknownError(Exception):
    """A command or an option that there is not."""


@cache
def _command(app: typer.Typer) -> Any:
    return typer.main.get_command(app)


def _leaf(app: typer.Typer, words: Sequence[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, a group if they stop there, and the words that are left."""
    command, left = _command(app), list(words)
    while getattr(command, "commands", None) and left and not left[0].startswith("-"):
        if left[0] not in command.commands:
            raise UnknownError(f"there is no command '{left[0]}' among {', '.join(command.commands)}")
        command = command.commands[left.pop(0)]
    return command, left


def is_whole(app: typer.Typer, words: Sequence[str]) -> bool:
    """Whether words after "cxr-lens" are a command that could run, read by the command line itself.

    Raises:
        UnknownError: an unknown command or option, a value of the wrong type, a word too many.
    """
    command, left = _leaf(app, words)
    if getattr(command, "commands", None):
        return left == ["--help"]
    if left == ["--help"]:
        return True
    try:
        command.make_context(command.name, list(left))
    except typer.BadParameter.__mro__[1] as error:  # the usage error of the click that this typer has
        message = error.format_message()
        if message.startswith("Missing") or message.endswith("requires an argument."):
            _options_exist(command, left)
            return False
        raise UnknownError(message) from error
    return True


def check_mention(app: typer.Typer, text: str) -> None:
    """Check the command that a sentence begins with: as far as words are commands, and all its options.

    Raises:
        UnknownError: an unknown command or option.
    """
    words = [word.strip("'\"().,:;") for word in text.replace("=", " ").split()]
    command = first = _command(app)
    for word in words:
        inner = getattr(command, "commands", None)
        if not inner:
            break
        if word in inner:
            command = inner[word]
        elif command is first or not word.startswith("-"):
            raise UnknownError(f"'cxr-lens {text}': there is no command '{word}'")
        else:
            break
    _options_exist(command, words)


def _options_exist(command: Any, words: Sequence[str]) -> None:
    if command.context_settings.get("ignore_unknown_options"):  # they are passed on to another program
        return
    known = {"--help"} | {name for each in command.params for name in (*each.opts, *each.secondary_opts)}
    for word in words:
        if word.startswith("--") and word.partition("=")[0] not in known:
            raise UnknownError(f"'{command.name}' has no option {word}")


def words_of(text: str) -> list[str]:
    """Words as a shell would pass them."""
    return shlex.split(text)
