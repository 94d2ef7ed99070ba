"""In: a name for a bundle of a model from elsewhere. Out: nothing, or why it cannot have that name."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from core.bundles.card import BundleError
from core.bundles.library import BundleLibrary

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}")


def check_name(name: str, bundles: Path, *, taken: Collection[str] = (), replace: bool = False) -> None:
    """Refuse a name that a bundle cannot have.

    Args:
        name: of the bundle, and of its family.
        bundles: folder of bundles.
        taken: names of other things.
        replace: an imported bundle of this name may be there; a pair that was trained here is never replaced.

    Raises:
        BundleError: it is no name of a folder, or is taken.
    """
    if not _NAME.fullmatch(name):
        raise BundleError(
            f"'{name[:80]}' cannot be the name of a bundle: letters, digits and signs of . _ + -, up to 64, the first "
            "a letter or a digit."
        )
    cards = BundleLibrary(bundles).cards()
    families = {card.family for card in cards if card.name != name}
    if name.casefold() in {each.casefold() for each in ("shared", *families, *taken)}:
        raise BundleError(f"{name} is the name of something else, or of a group of models. Choose another name.")
    if any(card.name == name and card.trained_here for card in cards):
        raise BundleError(f"{name} is a pair that was trained here, and is not replaced. Choose another name.")
    there = [each.name for each in bundles.iterdir()] if bundles.is_dir() else []
    for each in there:
        if each.casefold() == name.casefold() and not (replace and each == name):
            again = ", or give --replace" if each == name else ""
            raise BundleError(f"There is a bundle {each} in {bundles} already. Choose another name{again}.")
