"""The commands ``cxr-lens import``: models from elsewhere become bundles."""

from __future__ import annotations

import typer

from training.commands import import_checkpoint

app = typer.Typer(no_args_is_help=True, help="Models from elsewhere become bundles. See docs/systems.md.")
import_checkpoint.register(app)
