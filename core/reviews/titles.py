"""What readers of a report call the systems of a session, instead of the names of their files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from core.bundles.library import BundleLibrary
from core.paths import BUNDLES
from core.reviews.design import REFERENCE
from core.types import CXRLensError


def titles_of(names: Iterable[str]) -> dict[str, str]:
    """Title by name; a name that nothing tells the title of stands for itself, and no two have the same."""
    from core.systems.added import system

    known = {card.name: card.title for card in BundleLibrary(BUNDLES).cards()}
    found = {}
    for name in names:
        try:
            found[name] = "Reference report" if name == REFERENCE else known.get(name) or system(name).title
        except CXRLensError:
            found[name] = name
    times = Counter(found.values())
    return {name: title if times[title] == 1 or title == name else f"{title} ({name})" for name, title in found.items()}
