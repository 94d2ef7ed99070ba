"""The commands ``cxr-lens systems`` and ``cxr-lens rexrank``: systems from elsewhere come in, our pairs go out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from core.paths import BUNDLES
from core.types import CXRLensError
from core.wording import counted
from training.console import note, print_result, print_text, progress_bar, warn
from training.options import AsJson, BeamSize, BundleNames, Bundles, ReplaceSystem, SystemTitle

app = typer.Typer(
    no_args_is_help=True, help="What writes reports beside our pairs: files of reports, programs. See docs/systems.md."
)

IdColumn = Annotated[
    str, typer.Option("--id", help="Column of the study's or the image's id.", show_default="one with a usual name")
]
ReportColumn = Annotated[
    str, typer.Option("--report", help="Column of the texts.", show_default="one with a usual name")
]


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="What to call it, in tables and designs.")],
    file: Annotated[
        Path | None, typer.Argument(help="Reports: CSV, JSON lines, a JSON list, or ReXrank's JSON.")
    ] = None,
    command: Annotated[
        str | None,
        typer.Option(
            help="Instead of a file a program, run as COMMAND INPUT.json OUTPUT.json IMAGES (ReXrank's inference.py)."
        ),
    ] = None,
    id_column: IdColumn = "",
    text_column: ReportColumn = "",
    source: Annotated[
        str | None, typer.Option(help="Also count of which studies it has reports: a source, as of `write`.")
    ] = None,
    title: SystemTitle = "",
    group: Annotated[str, typer.Option(help="Systems of one group are listed together.")] = "Reports from elsewhere",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds that one run of a program may take.")] = 3600,
    replace: ReplaceSystem = False,
    bundles: Bundles = BUNDLES,
) -> None:
    """Add a file of reports, or a program that writes them. It is kept in your own folder until it is removed."""
    from core.bundles.library import BundleLibrary
    from core.systems import added
    from core.systems.program import read_command

    if (file is None) is (command is None):
        raise CXRLensError("Give a file of reports, or a program (--command): one of the two.")
    taken = [card.name for card in BundleLibrary(bundles).cards()]
    if command is not None:
        run = read_command(command, Path.cwd(), timeout)
        added.add_program(name, run, title=title, group=group, replace=replace, others=taken)
        print_text(f"{name}: a program, which runs in {run.folder} when its reports are asked for")
        return
    assert file is not None
    system, found = added.add_file(
        name,
        file,
        id_column=id_column,
        text_column=text_column,
        title=title,
        group=group,
        replace=replace,
        others=taken,
    )
    print_text(
        f"{name}: {counted(len(found.rows), 'report', 'reports')} in '{found.text_column}', by '{found.id_column}'"
    )
    for problem in found.problems[:_SHOWN]:
        warn(f"note: {problem}")
    if len(found.problems) > _SHOWN:
        warn(f"note: so it is with {len(found.problems) - _SHOWN:,} more rows.")
    if source is not None:
        from core.studies.sources import open_source

        opened = open_source(source)
        for told in system.reports(opened, opened.all_ids()).told:
            print_text(told)


_SHOWN = 10


@app.command(name="list")
def list_(bundles: Bundles = BUNDLES, as_json: AsJson = False) -> None:
    """List everything that writes reports, by group, and what each can do."""
    from core.systems.added import Reference, systems
    from core.systems.pairs import pairs

    added, damaged = systems()
    found = [*pairs(bundles), *added, Reference()]
    rows = [
        {
            "name": each.name,
            "title": each.title,
            "group": each.group,
            "kind": each.kind,
            "can": sorted(each.abilities),
            "provenance": each.provenance,
            "content": each.content_hash(),
        }
        for each in found
    ]
    lines, group = [], ""
    for each in found:
        if each.group != group:
            group = each.group
            lines.append(group)
        can = ", ".join(sorted(each.abilities)) or "its reports are what they are"
        lines.append(f"  {each.name:32} {each.kind:16} {can}")
    print_result({"systems": rows, "problems": damaged}, as_json, lambda: "\n".join(lines))
    for message in damaged.values():
        warn(message)


@app.command()
def remove(name: Annotated[str, typer.Argument(help="Of a system that was added.")]) -> None:
    """Remove a system that was added, and what is kept of it. Evaluations with its reports stay."""
    from core.systems.added import remove as take_away

    take_away(name)
    print_text(f"{name} is removed.")


def rexrank(
    cases: Annotated[Path, typer.Argument(metavar="INPUT", help="JSON of cases, each with image_path.")],
    out: Annotated[Path, typer.Argument(metavar="OUTPUT", help="JSON to write: the cases with model_prediction.")],
    images: Annotated[Path, typer.Argument(help="Folder that the paths of images begin in.")],
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    beam_size: BeamSize = None,
) -> None:
    """Write reports as ReXrank asks for them: cxr-lens rexrank INPUT.json OUTPUT.json IMAGES, with one bundle."""
    from core.bundles.card import no_bundle
    from core.bundles.inference import write_reports
    from core.bundles.library import BundleLibrary
    from core.studies.images import read_image
    from core.studies.model_image import of_image
    from core.systems.rexrank import read_cases, write_predictions
    from training.threads import use_threads_for

    library = BundleLibrary(bundles)
    known = [card.name for card in library.cards()]
    if not known:
        raise no_bundle(bundles)
    if not bundle or len(bundle) > 1:
        raise CXRLensError(f"Name the one bundle that writes, with --bundle: {', '.join(known)}.")
    model = library.load(bundle[0])
    use_threads_for(model.card.size)
    found = read_cases(cases, images)
    texts: dict[str, str] = {}
    with progress_bar("case", "writing") as tell:
        for number, (name, path) in enumerate(found.images.items(), 1):
            try:
                if path is None:
                    raise CXRLensError("it names no image")
                image = of_image(read_image(path, name=path.name).pixels)
                ((_, report),) = write_reports([model], image, beam_size=beam_size)
                texts[name] = report.text
            except (CXRLensError, OSError) as error:
                warn(f"note: case {name} has no report: {error}")
            tell(number, len(found.images))
    if not texts:
        raise CXRLensError(
            f"Of {counted(len(found.images), 'case', 'cases')} of {cases} none has an image that can be read."
        )
    write_predictions(out, found, texts)
    note(f"written: {len(texts)} of {len(found.images)} reports in {out}")
