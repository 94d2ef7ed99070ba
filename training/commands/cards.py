"""The command ``cxr-lens rewrite-cards``: how bundles write, changed without training them again."""

from __future__ import annotations

import typer

from core.paths import BUNDLES
from training.options import AsJson, Bundles, Overrides, Preset, read_preset


def rewrite_cards(
    preset: Preset,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    as_json: AsJson = False,
) -> None:
    """Put a preset's [write] into the cards of its bundles; weights stay. Their scores are then those of before.

    Score them again: cxr-lens evaluate.
    """
    from core.bundles.card import rewrite_card
    from training.console import print_result
    from training.data import StudyData
    from training.evaluate import cards_of

    config = read_preset(preset, overrides)
    cards = cards_of(config.name, bundles)
    settings = StudyData(config.data, bundles).write_settings(config.write)
    for card in cards:
        rewrite_card(bundles / card.name, write=settings)
    written = {card.name: settings for card in cards}
    print_result(written, as_json, lambda: "\n".join(f"{name}: {settings}" for name in written))


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(rewrite_cards)
