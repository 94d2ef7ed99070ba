"""The commands ``cxr-lens card`` and ``cxr-lens rewrite-cards``: how bundles are used, changed on their cards."""

from __future__ import annotations

import tomllib
from typing import Annotated, Any

import typer

from core.paths import BUNDLES
from core.types import CXRLensError
from training.console import print_result
from training.options import AsJson, BundleNames, Bundles, Overrides, Preset, read_preset


def card(
    changes: Annotated[list[str], typer.Argument(metavar="KEY=VALUE", help="fit.how=stretch, write.beam_size=3, ...")],
    bundle: BundleNames = None,
    family: Annotated[str | None, typer.Option(help="Only bundles of this family.")] = None,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
) -> None:
    """Change how images are fitted, or reports are written, on the cards of bundles."""
    from core.bundles.card import no_bundle
    from core.bundles.editing import SECTIONS, edit_card
    from core.bundles.library import BundleLibrary

    wanted: dict[str, dict[str, Any]] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        section, dot, setting = key.partition(".")
        if not (equals and dot and setting):
            raise CXRLensError(f"'{change}' is not of the form SECTION.SETTING=VALUE, with {' or '.join(SECTIONS)}.")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except ValueError:
            value = text.strip()
        wanted.setdefault(section, {})[setting] = value
    library = BundleLibrary(bundles)
    found = [library.card(name) for name in bundle] if bundle else library.cards()
    chosen = [each.name for each in found if family in (None, each.family)]
    if not chosen:
        raise no_bundle(bundles) if not found else CXRLensError(f"{bundles} has no bundle of the family '{family}'.")
    edited = {name: edit_card(bundles / name, wanted) for name in chosen}
    told = {name: {section: content[section] for section in wanted} for name, content in edited.items()}
    print_result(told, as_json, lambda: "\n".join(f"{name}: {_in_words(each)}" for name, each in told.items()))


def _in_words(settings: dict[str, dict[str, Any]]) -> str:
    """Settings on a line; of sentences only how many, or for how many observations."""
    each = ((f"{section}.{key}", value) for section, of in settings.items() for key, value in of.items())
    return "; ".join(f"{name} {len(value) if isinstance(value, list | dict) else value}" for name, value in each)


def rewrite_cards(
    preset: Preset,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
) -> None:
    """Put a preset's [write] into the cards of its bundles; weights stay. Their scores are then those of before.

    Score them again: cxr-lens evaluate.
    """
    from core.bundles.editing import edit_card
    from training.data import StudyData
    from training.evaluate import cards_of

    config = read_preset(preset, overrides)
    cards = cards_of(config.name, bundles)
    settings = StudyData(config.data, bundles).write_settings(config.write)
    for card in cards:
        edit_card(bundles / card.name, {"write": settings})
    written = {card.name: settings for card in cards}
    print_result(written, as_json, lambda: "\n".join(f"{name}: {_in_words({'write': settings})}" for name in written))


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(card)
    app.command()(rewrite_cards)
