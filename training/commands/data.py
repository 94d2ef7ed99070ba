"""The commands ``cxr-lens data``: from a release on disk to an index, an image cache and labels."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from training.console import note, print_result, print_text, progress_bar
from training.options import AsJson, Folder, Processes, Seed

if TYPE_CHECKING:
    from core.studies.index import StudyIndex

app = typer.Typer(no_args_is_help=True, help="Read Open-i or MIMIC-CXR as they are on disk. See docs/data.md.")

From = Annotated[Path, typer.Option("--from", help="Folder of the release.")]
Index = Annotated[Path, typer.Argument(help="Folder of an index.")]
Sizes = Annotated[
    list[int] | None,
    typer.Option(
        "--size", min=32, max=2048, help="Side of cached images, pixels; may come again.", show_default="224, 288"
    ),
]
NoImages = Annotated[bool, typer.Option("--no-images", help="Do not cache images; do it later by the same command.")]

_SIZES = (224, 288)  # of the paper's encoders


@app.command()
def openi(
    release: From,
    out: Folder,
    views: Annotated[Literal["frontal", "both"], typer.Option(help="Images to cache.")] = "frontal",
    split: Annotated[
        Literal["auto", "r2gen", "seeded"],
        typer.Option(
            help="r2gen: ids and split of annotation.json; seeded: drawn by patient; auto: r2gen if it is there."
        ),
    ] = "auto",
    seed: Seed = 0,
    removed_words: Annotated[Literal["keep", "drop"], typer.Option(help="What becomes of XXXX in reports.")] = "keep",
    size: Sizes = None,
    no_images: NoImages = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Index Open-i (XML release, Kaggle tables or R2Gen's annotation.json), cache its images, print the census."""
    from core.studies.openi import index_openi

    with progress_bar("report", "reading") as tell:
        index = index_openi(
            release,
            out,
            split=split,
            seed=seed,
            removed_words=removed_words,
            progress=lambda done: tell(done, None),
        )
    _finish(index, views, None if no_images else size or _SIZES, processes, as_json)


@app.command()
def mimic(
    release: From,
    out: Folder,
    reports: Annotated[
        Path | None,
        typer.Option(help="Folder of the reports, or mimic-cxr-reports.zip.", show_default="that of the images"),
    ] = None,
    exceptions: Annotated[
        Path | None, typer.Option(help="MIT-LCP's section_parser.py, for its hand-set exceptions.")
    ] = None,
    views: Annotated[
        Literal["ap", "frontal", "all"], typer.Option(help="Images to cache and to write to annotation.json.")
    ] = "ap",
    size: Sizes = None,
    no_images: NoImages = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Index MIMIC-CXR(-JPG), write annotation.json, cache its images, print the census."""
    from core.studies.mimic_cxr import index_mimic_cxr, write_annotation

    with progress_bar("study", "reading") as progress:
        index = index_mimic_cxr(release, out, reports=reports, exceptions=exceptions, progress=progress)
    _finish(index, views, None if no_images else size or _SIZES, processes, as_json)
    count = write_annotation(index, views, out / "annotation.json")
    note(f"{count:,} images in {out / 'annotation.json'}")


@app.command()
def census(index: Index, as_json: AsJson = False) -> None:
    """Print what an index found, kept and dropped, and why."""
    from core.studies.index import open_index

    _print_census(open_index(index), as_json)


@app.command()
def move(index: Index, to: Annotated[Path, typer.Option(help="Folder in which the release is now.")]) -> None:
    """Tell an index that its release was moved. What was made from it, caches and labels, stays."""
    from core.studies.index import move_index

    print_text(f"{index} reads its images from {move_index(index, to).root}")


@app.command()
def labels(index: Index, processes: Processes = 0) -> None:
    """Label the reports of an index; training does it by itself where it was not done. Resumes."""
    from core.studies.index import open_index
    from core.studies.label_table import label_index

    opened = open_index(index)
    with progress_bar("study", "labelling") as progress:
        table = label_index(opened, processes or os.cpu_count() or 1, progress)
    versions = ", ".join(f"{name} {version or 'none'}" for name, version in table.versions.items() if name != "index")
    print_text(f"{table.rows.num_rows:,} studies labelled in {index} ({versions})")


def _finish(index: StudyIndex, views: str, sizes: Sequence[int] | None, processes: int, as_json: bool) -> None:
    from core.studies.image_cache import write_image_cache

    if sizes is not None:
        images = index.samples(views)["image"].tolist()
        with progress_bar("image", "caching") as progress:
            write_image_cache(index, sizes, images, processes or os.cpu_count() or 1, progress)
    _print_census(index, as_json)


def _print_census(index: StudyIndex, as_json: bool) -> None:
    from core.studies.image_cache import unreadable_images
    from core.studies.index import format_census

    census, unreadable = index.census(), list(unreadable_images(index).values())
    lines = [format_census(census)]
    if unreadable:
        lines.append(f"\n{len(unreadable):,} image files cannot be read and are left out (unreadable.jsonl):")
        lines += [f"  {message}" for message in unreadable[:5]]
    print_result({**census, "unreadable": unreadable}, as_json, lambda: "\n".join(lines))
