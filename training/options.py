"""Options of the commands, each once: the same option means the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from core.config import ExperimentConfig

PRESETS = Path(__file__).resolve().parent / "presets"
"""Folder of the presets that come with the code."""


def preset_names() -> list[str]:
    """Names of the presets that come with the code; families of bundles are called so."""
    return sorted(path.stem for path in PRESETS.glob("*.toml"))


def _preset() -> Any:
    known = ", ".join(preset_names())
    return typer.Option("--preset", help=f"Name of a preset ({known}), or path of a TOML file.")


def _bundles(**default: Any) -> Any:
    return typer.Option("--bundles", help="Folder of bundles.", **default)


Preset = Annotated[str, _preset()]
OptionalPreset = Annotated[str | None, _preset()]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a number of the preset; may come again.")
]
Bundles = Annotated[
    Path, _bundles(envvar="CXR_BUNDLES", show_default="those that come with cxr-lens", show_envvar=True)
]
NewBundles = Annotated[Path | None, _bundles(show_default="beside the run's stages")]
BundleNames = Annotated[
    list[str] | None, typer.Option("--bundle", help="Name of a bundle; may come again.", show_default="all")
]
Runs = Annotated[Path, typer.Option(help="Folder of run folders.")]
Tables = Annotated[Path, typer.Option("--out", help="Folder of results; files go into <out>/<preset>/.")]
Folder = Annotated[Path, typer.Option("--out", help="Folder to write into; made if missing.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one a core, or 1 with a GPU.")]
Processes = Annotated[int, typer.Option(min=0, help="Worker processes; 0: as many as help, at most one a core.")]
Seeds = Annotated[
    int, typer.Option(min=1, help="Trainings, each with the next seed; more than one give mean and spread.")
]
Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of all that is drawn at random.")]
PhantomCount = Annotated[int, typer.Option("-n", "--count", min=1, help="Phantom studies.")]
StudiesASplit = Annotated[
    int,
    typer.Option("--studies", min=0, help="Studies of each split at most, the first, for the study of CCVE; 0: all."),
]
OpenI = Annotated[
    Path | None,
    typer.Option(
        "--openi", help="indiana_reports.csv of Open-i, or its folder.", show_default="in the package torchxrayvision"
    ),
]
Disagreements = Annotated[
    int, typer.Option(min=0, help="Also print so many reports of Open-i whose codes and labels differ.")
]
Device = Annotated[
    str,
    typer.Option(
        help="Where torch computes: auto (a GPU where there is one), cpu, cuda, cuda:1, mps.", envvar="CXR_DEVICE"
    ),
]
BeamSize = Annotated[
    int | None, typer.Option(min=1, help="Hypotheses kept; 1 is greedy.", show_default="as the bundle's card says")
]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes a node, each with a GPU of its own, or on the CPU.")
]
Nodes = Annotated[
    int | None, typer.Option("--num-nodes", min=1, help="Machines; start the command on each: docs/scale.md.")
]
Precision = Annotated[
    Literal["fp32", "bf16", "openvino", "openvino-bf16", "auto"],
    typer.Option(
        help="bf16 writes and embeds in bfloat16 where that is safe; reports may differ. openvino runs encoders by "
        "OpenVINO where it gives what torch gives, openvino-bf16 in bfloat16 where that is alike enough; auto as "
        "openvino where it is installed.",
        envvar="CXR_PRECISION",
    ),
]
Accelerator = Annotated[Literal["auto", "cpu", "gpu"], typer.Option(help="auto takes GPUs where there are some.")]
SystemTitle = Annotated[str, typer.Option("--title", help="For readers.", show_default="NAME")]
ReplaceSystem = Annotated[bool, typer.Option("--replace", help="Replace a system of this name.")]
ImportedName = Annotated[str, typer.Option("--name", help="What to call it, on pages and in tables.")]
TrainedOn = Annotated[str, typer.Option(help="What it learned from, for readers: 'MIMIC-CXR, findings'.")]
Licence = Annotated[str, typer.Option(help="Of its weights.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def read_preset(preset: str, overrides: list[str] | None = None) -> ExperimentConfig:
    """The preset that was asked for, with its changes.

    Raises:
        ConfigError: there is none, or it is wrong.
    """
    from core.config import load_config

    return load_config(PRESETS, preset, overrides or [])


def given_by_user(context: typer.Context, parameter: str) -> bool:
    """Whether an option stands in the command line, and is neither at its default nor of the environment."""
    source = context.get_parameter_source(parameter)
    return source is not None and source.name == "COMMANDLINE"


def checkpoint_option() -> Any:
    """Of CheXbert; some commands cannot do without it."""
    return typer.Option("--checkpoint", help="CheXbert's published weights, chexbert.pth.", envvar="CXR_CHEXBERT")
