"""The command ``cxr-lens dashboard``."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from core import paths
from core.devices import open_device
from core.reviews.local_key import local_address
from core.types import CXRLensError
from training.console import note
from training.options import Device, Precision

APP = paths.CODE / "dashboard" / "app.py"
SERVE = APP.with_name("serve.py")
THEMES = paths.CODE / "dashboard" / "themes"


def dashboard(options: typer.Context, device: Device = "auto", precision: Precision = "fp32") -> None:
    """Open the dashboard. Options of Streamlit are passed on: --server.port 8600, --theme.base light.

    Its settings are in dashboard/.streamlit/config.toml. What you give here, or as STREAMLIT_SERVER_PORT, wins.
    """
    if device not in ("auto", "cpu"):
        open_device(device)  # known now, not when a page needs it; brings torch
    os.environ |= {"CXR_DEVICE": device, "CXR_PRECISION": precision}
    arguments = command(options.args)
    note(review_address(options.args))
    # -P: a folder named core or streamlit where one stands must not be taken for the package.
    os.execv(sys.executable, [sys.executable, "-P", str(SERVE), *arguments])


def review_address(options: Sequence[str]) -> str:
    """What to say of the Review page: the address that opens it here, or why none does."""
    port = os.environ.get("STREAMLIT_SERVER_PORT") or "8501"  # src: Streamlit's default
    for index, option in enumerate(options):
        name, equals, value = option.partition("=")
        if name == "--server.port":
            port = value if equals else next(iter(options[index + 1 :]), port)
    if not port.isdecimal():
        return f"--server.port {port}: expected a number."
    try:
        return f"Review sessions on this machine, for you alone: {local_address(int(port))}"
    except CXRLensError as error:
        return str(error)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(dashboard)


def command(options: Sequence[str]) -> list[str]:
    """Streamlit's options for the dashboard with these.

    Raises:
        CXRLensError: the dashboard's settings are missing, or a theme cannot be read.
    """
    if not APP.with_name(".streamlit").joinpath("config.toml").is_file():
        lost = APP.with_name(".streamlit") / "config.toml"
        raise CXRLensError(f"The dashboard's settings are missing: {lost}. {paths.how_to_restore(lost)}")
    given = list(options)
    for index, option in enumerate(given):
        name, equals, value = option.partition("=")
        if name == "--theme.base" and (equals or index + 1 < len(given)):
            rest = given[index + 1 :] if equals else given[index + 2 :]
            return [*given[:index], *_theme(value if equals else given[index + 1]), *rest]
    return given


def _theme(base: str) -> list[str]:
    """A theme as options, one a value: those of our settings, which are dark, would stand above a theme's file.

    Args:
        base: "light" or "dark", ours; or the path of a theme's file.
    """
    if base == "dark":
        return []
    path = THEMES / "light.toml" if base == "light" else Path(base)
    try:
        theme = tomllib.loads(path.read_text(encoding="utf-8"))["theme"]
    except (OSError, ValueError, KeyError) as error:
        raise CXRLensError(
            f"--theme.base {base}: expected light, dark, or the TOML file of a theme ({error})."
        ) from error
    return _as_options("theme", theme)


def _as_options(prefix: str, table: Mapping[str, Any]) -> list[str]:
    options: list[str] = []
    for name, value in table.items():
        if isinstance(value, Mapping):
            options += _as_options(f"{prefix}.{name}", value)
        else:
            options += [f"--{prefix}.{name}={each}" for each in (value if isinstance(value, list) else [value])]
    return options
