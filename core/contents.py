"""JSON files, read with care: bounded in size and depth, and compared with a schema before any of it is used."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from core.files import open_plain

MOST_BYTES = 64 * 2**20
"""Of a file; the largest that the program writes itself have some megabytes."""
DEEPEST = 24
"""Levels of lists and objects; the deepest that the program writes itself has 8."""


class Content(BaseModel):
    """What a file, or a part of it, must hold; it may hold more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


def read_json(path: Path, schema: type[Content] | None = None, most: int = MOST_BYTES) -> Any:
    """Read a JSON file, and check it before anything is made of it.

    Args:
        path: of the file.
        schema: what it must hold; anything unless given.
        most: bytes that are read.

    Returns:
        its plain values, all of them, also those that the schema does not name.

    Raises:
        FileNotFoundError: there is none.
        OSError: it is a folder or a device, or cannot be read.
        ValueError: it is too large, not UTF-8, no JSON, nested too deep, has a number that is none, or is not as the
            schema says; the message is a part of a sentence.
    """
    value = parse_json(read_bounded(path, most))
    if schema is not None:
        check(value, schema)
    return value


def read_bounded(path: Path, most: int = MOST_BYTES) -> bytes:
    """The bytes of a plain file of at most ``most`` bytes.

    Raises:
        OSError: as of `open_plain`.
        ValueError: it is larger.
    """
    with open_plain(path) as file:
        found = file.read(most + 1)
    if len(found) > most:
        raise ValueError(f"it has more than {most / 2**20:.0f} MB")
    return found


def parse_json(content: bytes) -> Any:
    """Values of a JSON text.

    Raises:
        ValueError: as of `read_json`.
    """
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 ({error.reason} at byte {error.start})") from error
    try:
        value = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not valid JSON ({error})") from error
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    level, depth = [value], 0
    while level:
        if depth > DEEPEST:
            raise ValueError(f"it is nested more than {DEEPEST} levels deep")
        inner = [each.values() if isinstance(each, dict) else each for each in level if isinstance(each, dict | list)]
        level, depth = [part for each in inner for part in each], depth + 1
    if "\\u" in text:  # half of a pair of surrogates is no text: whoever prints it fails
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("a text has half a character in it") from error
    return value


def check(value: Any, schema: type[Content]) -> None:
    """Check plain values.

    Raises:
        ValueError: they are not as the schema says; the message names the first places, and no value.
    """
    try:
        schema.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        places = [".".join(map(str, each["loc"][:8]))[:80] or "the whole" for each in found[:3]]
        told = "; ".join(_says(place, each) for place, each in zip(places, found, strict=False))
        more = f"; and {len(found) - 3} more" if len(found) > 3 else ""
        raise ValueError(f"{told}{more}") from error


def _says(place: str, error: Any) -> str:
    return f"it has no field '{place}'" if error["type"] == "missing" else f"'{place}': {str(error['msg'])[:100]}"


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large a number")
    return value


# ------------------------------------------------------------------------------------------------------ kinds of values


def _in_bounds(value: Any) -> Any:
    """Whole numbers in settings of a model: none larger than any that a model has."""
    if isinstance(value, bool) or not isinstance(value, int | list | dict):
        return value
    if isinstance(value, int):
        if abs(value) > LARGEST:
            raise ValueError(f"a number is larger than {LARGEST:,}")
        return value
    for each in value.values() if isinstance(value, dict) else value:
        _in_bounds(each)
    return value


LARGEST = 65_536
"""Number in the settings of a model."""
Text = Annotated[str, StringConstraints(max_length=10_000)]
Name = Annotated[str, StringConstraints(pattern=r"^[^/\\\x00-\x1f]{1,200}$")]
"""Of a folder or a file in one; no way to another place."""
PlainName = Annotated[Name, AfterValidator(lambda value: _no_dots(value))]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Settings = Annotated[dict[str, Any], AfterValidator(_in_bounds)]
Whole = Annotated[int, Field(ge=-(2**53), le=2**53)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Number = float
Pair = Annotated[list[Number], Field(min_length=2, max_length=2)]
Triple = Annotated[list[Number], Field(min_length=3, max_length=3)]
Scalar = str | int | float | bool | None


def _no_dots(value: str) -> str:
    if value in (".", ".."):
        raise ValueError("it is no name")
    return value
