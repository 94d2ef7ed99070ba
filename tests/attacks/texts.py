"""A place of files in which every text is markup, wherever a card, a result or an added system has a text."""

from __future__ import annotations

import json
from pathlib import Path

from tests.app_pages import linked_bundles
from tests.attacks.damage import HOSTILE

PAGES = ("read", "about", "filters", "results", "cases", "embeddings", "detection", "review", "reading")
ADDRESSES = {
    "read": ("study", "pair", "models", "ask", "region", "mention", "word", "sentence", "source", "families"),
    "results": ("evaluation", "view", "score", "pair", "by", "source"),
    "cases": ("q", "text", "observation", "outcome", "models", "source", "pair"),
    "embeddings": ("study", "colour", "encoder", "method", "picked", "source"),
    "filters": ("study", "pair", "filter", "off", "how"),
    "detection": ("finding", "models", "place"),
}
"""What the addresses of pages may name."""
OTHERS = ("session", "screen", "source")
"""What the addresses of the other pages may name."""


def hostile_place(folder: Path) -> dict[str, str]:
    """Make it.

    Returns:
        the environment of a dashboard that reads it.
    """
    bundles = linked_bundles(folder / "bundles", "shared", "phantom-ccve-m2", "phantom-fve-m2", "phantom-results.json")
    card = bundles / "phantom-ccve-m2"
    content = json.loads((card / "card.json").read_text("utf-8"))
    files = list(card.iterdir())
    card.unlink()
    card.mkdir()
    for file in files:
        if file.name != "card.json":
            (card / file.name).symlink_to(file.resolve())
    content["data"] |= {"description": HOSTILE, "name": HOSTILE}
    content |= {"licence": HOSTILE, "intended_use": HOSTILE, "created": HOSTILE, "fit_note": HOSTILE}
    (card / "card.json").write_text(json.dumps(content))
    (bundles / f"a {HOSTILE.replace('/', '|')}").mkdir()  # no bundle, but a name
    results = json.loads((bundles / "phantom-results.json").read_text("utf-8"))
    results["rows"] = [row for row in results["rows"] if row["name"] in ("phantom-ccve-m2", "phantom-fve-m2")]
    more = {"name": HOSTILE, "title": HOSTILE, "group": HOSTILE, "kind": HOSTILE, "warnings": [HOSTILE]}
    results["rows"].append(
        {key: value for key, value in results["rows"][0].items() if key not in ("encoder", "decoder")} | more
    )
    results |= {"command": HOSTILE, "protocol": HOSTILE, "told": [HOSTILE], "seed": HOSTILE}
    (bundles / "phantom-results.json").unlink()
    (bundles / "phantom-results.json").write_text(json.dumps(results))
    system = folder / "systems" / "mine"
    system.mkdir(parents=True)
    about = {"kind": "program", "title": HOSTILE, "group": HOSTILE, "command": [HOSTILE], "folder": HOSTILE}
    (system / "system.json").write_text(json.dumps(about | {"timeout": 1.0}))
    (folder / "systems" / "other ![x](http:").mkdir()
    places = {"CXR_BUNDLES": bundles, "CXR_REVIEWS": folder / "reviews.sqlite"}
    places |= {f"CXR_{name.upper()}": folder / name for name in ("systems", "evaluations", "cache")}
    return {name: str(place) for name, place in places.items()}
