"""The commands ``cxr-lens data``: from data on disk to an index, an image cache and labels."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.types import CXRLensError
from core.wording import counted
from training.console import note, print_result, print_text, progress_bar
from training.options import AsJson, Folder, Processes, Seed

if TYPE_CHECKING:
    from core.studies.index import StudyIndex

app = typer.Typer(
    no_args_is_help=True,
    help="Read Open-i, MIMIC-CXR, or your own images and reports as they are on disk. See docs/data.md.",
)

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
        Literal["auto", "r2gen", "r2gen+", "seeded"],
        typer.Option(
            help="r2gen: ids and split of annotation.json; r2gen+: the studies it lacks too, for training; seeded: "
            "drawn by patient; auto: r2gen if it is there."
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
    note(f"{counted(count, 'image', 'images')} in {out / 'annotation.json'}")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def table(
    context: typer.Context,
    images: Annotated[Path, typer.Option(help="Folder of the images, in whatever folders below it.")],
    reports: Annotated[
        Path,
        typer.Option(help="Table: .csv, .jsonl, .json or .parquet; or the folder of a release that --columns knows."),
    ],
    out: Folder,
    columns: Annotated[
        str, typer.Option(help="Map of columns: chestx-ray14, chexpert-plus, padchest-gr, rexgradient-160k.")
    ] = "",
    id_: Annotated[str, typer.Option("--id", metavar="COLUMN", help="Study. Several rows of one are its images.")] = "",
    image: Annotated[
        str, typer.Option(metavar="COLUMN", help="Name or path of an image.", show_default="found by the id")
    ] = "",
    patient: Annotated[
        str, typer.Option(metavar="COLUMN", help="Patient.", show_default="each study is of another")
    ] = "",
    findings: Annotated[str, typer.Option(metavar="COLUMN", help="The report's findings, or all of it.")] = "",
    impression: Annotated[str, typer.Option(metavar="COLUMN", help="The report's impression.")] = "",
    split: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="train, validate or test.", show_default="drawn by patient, 70 / 10 / 20"),
    ] = "",
    view: Annotated[str, typer.Option(metavar="COLUMN", help="PA, AP, lateral, in the usual spellings.")] = "",
    age: Annotated[str, typer.Option(metavar="COLUMN", help="Age in years.")] = "",
    sex: Annotated[str, typer.Option(metavar="COLUMN", help="F or M.")] = "",
    order: Annotated[
        str,
        typer.Option(metavar="COLUMN", help="Number or date that puts a patient's studies in order; it is not kept."),
    ] = "",
    boxes: Annotated[
        str, typer.Option(metavar="FILE", help="Table of boxes: image, finding, x, y, w, h, in pixels or as fractions.")
    ] = "",
    title: Annotated[str, typer.Option(help="What pages call the data.", show_default="name of the table")] = "",
    only_test: Annotated[
        bool, typer.Option("--only-test", help="All studies are test studies: to read and judge, not to train.")
    ] = False,
    seed: Seed = 0,
    views: Annotated[Literal["frontal", "all"], typer.Option(help="Images to cache.")] = "frontal",
    size: Sizes = None,
    no_images: NoImages = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Index your own images with a table of reports or labels, cache the images, print the census.

    Further columns: --label:NAME COLUMN is an observation of the 14 (1, 0, -1 or blank), --trait:NAME COLUMN is what
    studies can be divided by.
    """
    from core.studies.columns import Columns, release_columns
    from core.studies.table import index_table

    named = {
        name: column
        for name, column in {
            "id": id_,
            "image": image,
            "patient": patient,
            "findings": findings,
            "impression": impression,
            "split": split,
            "view": view,
            "age": age,
            "sex": sex,
            "order": order,
        }.items()
        if column
    }
    further = _further(context)
    if not columns and not id_:
        raise CXRLensError(
            "Which column names the study? Say --id COLUMN; or --columns NAME for a release that is known."
        )
    chosen = release_columns(columns) if columns else Columns(title=reports.stem)
    chosen = chosen.named(named, further["label"], further["trait"], title=title, boxes=boxes)
    with progress_bar("study", "indexing") as progress:
        index = index_table(images, reports, out, chosen, seed=seed, only_test=only_test, progress=progress)
    _finish(index, views, None if no_images else size or _SIZES, processes, as_json)


def _further(context: typer.Context) -> dict[str, dict[str, str]]:
    """Options whose names hold a name: `--label:Edema column`, `--trait:Ward=ward`."""
    found: dict[str, dict[str, str]] = {"label": {}, "trait": {}}
    words = list(context.args)
    while words:
        word = words.pop(0)
        option, equals, column = word.partition("=")
        kind, colon, name = option.removeprefix("--").partition(":")
        if not option.startswith("--") or kind not in found or not colon or not name.strip():
            known = [option for each in context.command.params for option in each.opts]
            near = difflib.get_close_matches(option, [*known, "--label:NAME", "--trait:NAME"], n=1)
            hint = f" Did you mean {near[0]}?" if near else " See cxr-lens data table --help."
            raise CXRLensError(f"There is no option {option}.{hint}")
        if not equals:
            if not words:
                raise CXRLensError(f"{option} needs the name of a column behind it.")
            column = words.pop(0)
        found[kind][name.strip()] = column
    return found


@app.command()
def folder(
    root: Annotated[Path, typer.Argument(help="Folder of DICOM, PNG and JPEG files, in whatever folders below it.")],
    out: Folder,
    views: Annotated[Literal["frontal", "all"], typer.Option(help="Images to cache.")] = "frontal",
    size: Sizes = None,
    no_images: NoImages = False,
    processes: Processes = 0,
    as_json: AsJson = False,
) -> None:
    """Index image files without a table, by their DICOM headers. Nothing that names a patient is kept but the paths."""
    from tqdm import tqdm

    from core.studies.tree import index_tree

    with tqdm(unit="file", desc="reading headers") as bar:
        index = index_tree(root, out, progress=lambda done: bar.update(done - bar.n))
    _finish(index, views, None if no_images else size or _SIZES, processes, as_json)


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
    print_text(f"{counted(table.rows.num_rows, 'study', 'studies')} labelled in {index} ({versions})")


def _finish(index: StudyIndex, views: str, sizes: Sequence[int] | None, processes: int, as_json: bool) -> None:
    from core.studies.image_cache import write_image_cache

    if sizes is not None:
        images = index.samples(views)["image"].tolist()
        with progress_bar("image", "caching") as progress:
            write_image_cache(index, sizes, images, processes or os.cpu_count() or 1, progress)
    _print_census(index, as_json)


def _print_census(index: StudyIndex, as_json: bool) -> None:
    from core.studies.census import format_census
    from core.studies.image_cache import unreadable_images

    census, unreadable = index.census(), list(unreadable_images(index).values())
    lines = [format_census(census)]
    if unreadable:
        lines.append(f"\n{len(unreadable):,} image files cannot be read and are left out (unreadable.jsonl):")
        lines += [f"  {message}" for message in unreadable[:5]]
    print_result({**census, "unreadable": unreadable}, as_json, lambda: "\n".join(lines))
