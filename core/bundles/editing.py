"""Changes what a bundle's card says of how the pair is used; its weights, and their hashes, stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.bundles.card import read_card, read_content
from core.config import from_dict
from core.files import write_whole
from core.settings import WriteConfig
from core.types import CXRLensError, Fit

SECTIONS = ("fit", "write")
"""What can be changed: how images are fitted, how reports are written."""
OF_THE_DATA = ("short_sentences", "finding_sentences")
"""Settings of how reports are written that are of the studies that a pair learned from, and in no preset."""


def edit_card(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Change settings on a bundle's card, in one piece.

    Args:
        folder: of the bundle.
        changes: section -> setting -> value; settings that are not named stay.

    Returns:
        what the card says now.

    Raises:
        CXRLensError: no such section or setting, a value that it cannot have, or a card that is damaged.
        DiskError: it cannot be written.
    """
    content = read_content(folder)
    for section, values in changes.items():
        if section not in SECTIONS:
            raise CXRLensError(f"A card's {' and '.join(SECTIONS)} can be changed, not '{section}'.")
        content[section] = _checked(section, {**content.get(section, {}), **values})
    read_card(folder)
    write_whole(folder / "card.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n", private=False)
    return content


def _checked(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    from core import schemas  # brings pydantic, which takes a while

    if section == "write":
        preset = {name: value for name, value in values.items() if name not in OF_THE_DATA}
        own = {name: values[name] for name in OF_THE_DATA if name in values}
        try:
            schemas.check(own, schemas.Write)
        except ValueError as error:
            raise CXRLensError(f"write: {error}.") from error
        return asdict(from_dict(WriteConfig, preset, "write.")) | own
    try:
        return asdict(Fit(**values))
    except (TypeError, ValueError) as error:
        raise CXRLensError(f"fit: {error}.") from error
