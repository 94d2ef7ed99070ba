"""Changes what a bundle's card says of how the pair is used; its weights stay as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.bundles.card import BundleError, read_card, read_content
from core.config import WriteConfig, from_dict
from core.files import sha256_of, write_whole
from core.types import CXRLensError, Fit

SECTIONS = ("fit", "write")
"""What can be changed: how images are fitted, how reports are written."""


def edit_card(folder: Path, changes: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Change settings on a bundle's card, and hash its files anew.

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
    missing = [name for name in content["sha256"] if not (folder / name).is_file()]
    if missing:
        raise BundleError(f"Bundle {folder.name}: {missing[0]} is missing.")
    content["sha256"] = {name: sha256_of(folder / name) for name in content["sha256"]}
    write_whole(folder / "card.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return content


def _checked(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    if section == "write":
        return asdict(from_dict(WriteConfig, values, "write."))
    try:
        return asdict(Fit(**values))
    except (TypeError, ValueError) as error:
        raise CXRLensError(f"fit: {error}.") from error
