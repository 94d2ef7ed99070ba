"""The commands ``cxr-lens export``: reports and bundles as files that other programs read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias
from urllib.parse import quote

import typer

from core.paths import BUNDLES
from core.types import CXRLensError, Split
from core.wording import counted
from training.console import note, print_result, progress_bar
from training.options import AsJson, Bundles

if TYPE_CHECKING:
    from core.exports.folder import Exported, LeftOut
    from core.exports.reports import Reports

    Files: TypeAlias = Callable[[Reports, LeftOut], Iterable[tuple[str, bytes]]]

app = typer.Typer(
    no_args_is_help=True,
    help="Reports and bundles as files that other programs read. Each says that it is of research software, and who "
    "wrote it. See docs/systems.md.",
)

From = Annotated[
    str | None,
    typer.Argument(
        metavar="[REPORTS]",
        help="A reports.jsonl of `write` or of `evaluate --out`, a folder with one, or the name of an evaluation. "
        "Without it, systems write now: --source and --system.",
        show_default=False,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder to write; it is written whole, or not at all.")]
Where = Annotated[
    str | None, typer.Option("--source", help="Of the studies.", show_default="as the reports' file records it")
]
OfSplit = Annotated[Split | None, typer.Option("--split", help="Without REPORTS: only these studies.")]  # type: ignore[valid-type]
Names = Annotated[list[str] | None, typer.Option("--system", help="Only this system; may come again.")]
Ids = Annotated[list[str] | None, typer.Option("--study", help="Only this study; may come again.")]
Images = Annotated[bool, typer.Option("--images", help="Also write the images, as PNG files of the shown pixels.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an older export that is there.")]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What the commands of reports have in common."""

    reports: str | None
    source: str | None
    split: Split | None
    systems: Sequence[str] | None
    studies: Sequence[str] | None
    bundles: Path
    out: Path
    force: bool
    as_json: bool


@app.command()
def radeval(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """RadEval's lists of references and reports, a file a system."""
    from core.exports.radeval import files

    _export("radeval", files, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command()
def rexrank(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    images: Images = False,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """ReXrank's file of predictions, a file a system."""
    from core.exports.rexrank import files

    make = partial(files, images=images)
    _export("rexrank", make, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command()
def coco(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    images: Images = False,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """COCO's captions: annotations of the references, and results a system."""
    from core.exports.coco import files

    make = partial(files, images=images)
    _export("coco", make, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command(name="label-studio")
def label_studio(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    prefix: Annotated[
        str,
        typer.Option(
            help="What stands before NAME.png in the address of an image.",
            show_default="/data/local-files/?d=FOLDER/images/",
        ),
    ] = "",
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Label Studio's tasks: image, reference, each system's report as a prediction, boxes of findings."""
    from core.exports.label_studio import files

    make = partial(files, prefix=prefix or f"/data/local-files/?d={quote(out.absolute().name)}/images/")
    _export("label-studio", make, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command()
def fiftyone(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a folder that FiftyOne reads as FiftyOneDataset: images, reports, boxes of findings."""
    from core.exports.fiftyone import files

    _export("fiftyone", files, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command(name="dicom-sr")
def dicom_sr(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """DICOM Structured Reports, unverified, each of the DICOM image that it was written from."""
    from core.exports.dicom_sr import check_packages, files

    check_packages()
    _export("dicom-sr", files, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command()
def fhir(
    out: Out,
    reports: From = None,
    source: Where = None,
    split: OfSplit = None,
    system: Names = None,
    study: Ids = None,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """FHIR R4: preliminary diagnostic reports, the device that wrote them, their provenance."""
    from core.exports.fhir import files

    _export("fhir", files, _Asked(reports, source, split, system, study, bundles, out, force, as_json))


@app.command()
def hf(
    bundle: Annotated[str, typer.Argument(help="Name of a bundle.")],
    out: Out,
    bundles: Bundles = BUNDLES,
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a bundle as a Hugging Face folder: weights, configuration, model card. Nothing is uploaded."""
    from core.bundles.library import BundleLibrary
    from core.exports import hugging_face
    from core.exports.folder import LeftOut, check_place, write_folder

    check_place(out, force=force)
    about, notes = hugging_face.about(BundleLibrary(bundles).card(bundle)), LeftOut()
    _tell(write_folder(out, "hf", about, hugging_face.files(bundle, bundles, notes), notes, force=force), as_json)


def _export(kind: str, make: Files, asked: _Asked) -> None:
    """Read or write the reports, and hand them to a kind of export."""
    from core.exports.folder import LeftOut, check_place, write_folder

    check_place(asked.out, force=asked.force)
    reports, notes = _reports(asked), LeftOut()
    with progress_bar("file", "writing") as tell:
        files = _told(make(reports, notes), tell)
        done = write_folder(asked.out, kind, reports.about(), files, notes, force=asked.force)
    _tell(done, asked.as_json)


def _told(files: Iterable[tuple[str, bytes]], tell: Callable[[int, int | None], None]) -> Iterator[tuple[str, bytes]]:
    """Files as they come, counted on the way."""
    for number, each in enumerate(files, 1):
        yield each
        tell(number, None)


def _reports(asked: _Asked) -> Reports:
    from core.exports.reports import of_systems, read
    from core.studies.sources import open_source

    if asked.reports is not None:
        if asked.split:
            raise CXRLensError("--split chooses the studies that systems write now; of REPORTS choose by --study.")
        found = read(asked.reports, asked.bundles, asked.source)
        return found.chosen(asked.systems or (), asked.studies or ())
    if asked.source is None or not asked.systems:
        raise CXRLensError("Whose reports? Name a file or an evaluation, or a --source and at least one --system.")
    source, written = open_source(asked.source), count(1)
    with progress_bar("report", "writing") as tell:
        found, told = of_systems(
            source,
            asked.systems,
            asked.bundles,
            asked.split,
            asked.studies or (),
            lambda what: tell(next(written), None),
        )
    for each in told:
        note(each)
    return found


def _tell(done: Exported, as_json: bool) -> None:
    lines = [f"{counted(done.files, 'file', 'files')} in {done.folder}"]
    lines += [f"  {each}" for each in done.left_out.sentences()]
    content = {"out": done.folder, "files": done.files, "left_out": done.left_out.counts}
    print_result(content, as_json, lambda: "\n".join(lines))
