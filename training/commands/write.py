"""The command ``cxr-lens write``: the reports of a whole source of studies in one file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.paths import BUNDLES
from core.types import Split
from training import console
from training.options import AsJson, BeamSize, BundleNames, Bundles, Device, Devices, Jobs, Nodes, Precision

if TYPE_CHECKING:
    from core.evaluation.writing import Census

WHAT = "phantom:COUNT:SEED, the folder of an index or of images (docs/bring-your-own.md)."


def write(
    source: Annotated[str, typer.Argument(help=f"Where the studies are: {WHAT}")],
    out: Annotated[Path, typer.Option(help="File to write: .jsonl or .csv.")],
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    split: Annotated[Split | None, typer.Option(help="Only these studies.")] = None,  # type: ignore[valid-type]
    batch: Annotated[int, typer.Option(min=1, help="Images that are encoded together.")] = 16,
    beam_size: BeamSize = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    devices: Devices = None,
    num_nodes: Nodes = None,
    as_json: AsJson = False,
) -> None:
    """Write the reports of all studies of a source into one file. Interrupted, it goes on where it stopped."""
    from dataclasses import asdict

    from core import ranks
    from core.bundles.card import no_bundle
    from core.bundles.library import BundleLibrary
    from core.devices import open_device
    from core.evaluation.writing import Work, write_source
    from core.studies.sources import open_source
    from training.launch import automatic_jobs, leave, place

    names = tuple(bundle or [card.name for card in BundleLibrary(bundles).cards()])
    if not names:
        raise no_bundle(bundles)
    opened = open_source(source)
    key = opened.key
    if opened.caution:
        console.note(opened.caution)
    where = str(open_device(device))
    if devices or num_nodes:
        accelerator: Literal["cpu", "gpu"] = "cpu" if where == "cpu" else "gpu"
        where = str(place(accelerator, devices, num_nodes).device)
    work = Work(key, split, bundles, names, batch, beam_size, where, precision)
    with console.progress_bar("study", "writing", hidden=not ranks.is_first() or console.is_quiet()) as progress:
        census = write_source(work, out, jobs or automatic_jobs(where), progress)
    if ranks.is_first():
        for card in BundleLibrary(bundles).cards():
            if card.name in names and card.fit_note:
                console.note(card.fit_note)
        console.print_result({"out": out, **asdict(census)}, as_json, lambda: _table(out, census))
    leave()


def _table(out: Path, census: Census) -> str:
    """What was written, for a reader."""
    lines = [f"{census.written:,} of {census.studies:,} studies in {out}"]
    lines += [f"  not written: {study_id}: {why}" for study_id, why in list(census.unreadable.items())[:20]]
    if len(census.unreadable) > 20:
        lines.append(f"  and {len(census.unreadable) - 20:,} more: see {out}.about.json")
    lines += [f"  {each}" for each in census.told]
    if census.warned:
        lines.append(f"{len(census.warned):,} studies have a warning beside their reports, the first of them:")
        lines += [f"  {study_id}: {' '.join(said)}" for study_id, said in list(census.warned.items())[:5]]
        lines.append(f"  All are in {out.name}.about.json, under census, warned.")
    width = max(map(len, census.pairs))
    lines.append(f"{'':{width}}  words  empty    cut  distinct")
    for name, each in census.pairs.items():
        lines.append(f"{name:{width}} {each.words:6.1f} {each.empty:6,} {each.cut:6,} {each.distinct:9.0%}")
    return "\n".join(lines)
