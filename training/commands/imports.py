"""The commands ``cxr-lens import``: models from elsewhere become bundles, which pages and commands then take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.paths import BUNDLES
from training.commands import import_checkpoint
from training.console import print_text, warn
from training.options import Bundles, ImportedName, Licence, ReplaceSystem, SystemTitle, TrainedOn, preset_names

app = typer.Typer(no_args_is_help=True, help="Make bundles of models that were trained elsewhere. See docs/systems.md.")


@app.callback()
def commands() -> None:
    """Make bundles of models that were trained elsewhere."""


@app.command()
def hf(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where save_pretrained() of transformers wrote the model.")
    ],
    name: ImportedName,
    bundles: Bundles = BUNDLES,
    title: SystemTitle = "",
    trained_on: TrainedOn = "",
    licence: Licence = "",
    replace: ReplaceSystem = False,
) -> None:
    """Import a VisionEncoderDecoderModel of Hugging Face transformers: its weights, tokenizer and image preparation.

    Weights are read as safetensors only, and no code of the folder is run. Nothing leaves this machine.
    """
    from core.bundles.hugging_face import import_folder
    from core.systems.added import names_taken

    taken = [*names_taken(), *preset_names()]
    card, told = import_folder(
        folder, name, bundles, title=title, trained_on=trained_on, licence=licence, taken=taken, replace=replace
    )
    print_text(f"{card.name}: a bundle in {bundles}, reads images of {card.image_side} pixels, {card.fit}")
    for sentence in told:
        warn(f"note: {sentence}")


import_checkpoint.register(app)
