"""The command ``cxr-lens detect``: how small a finding systems still report, on films with one finding turned up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from core.paths import BUNDLES, NEW_DETECTIONS
from core.types import CXRLensError
from training import console
from training.options import AsJson, BeamSize, BundleNames, Bundles, Device, Jobs, Precision, Seed

if TYPE_CHECKING:
    from core.detection.results import DetectionResult
    from core.studies.drawn.source import DrawnSource
    from core.studies.phantom import GradedFilms
    from core.studies.phantom.graded import DesignedSource
    from core.systems.added import Reports

_FILM_SIDE = 512  # pixels of the films that are written out


def detect(
    finding: Annotated[str, typer.Option(help="What is turned up: pneumothorax, pleural-effusion, lung-lesion, ...")],
    extent: Annotated[
        str, typer.Option(metavar="LOW:HIGH:STEPS", help="From nothing (0) to as bad as it gets (1).")
    ] = "0:1:12",
    side: Annotated[
        Literal["both", "right", "left"] | None, typer.Option(help="Of the patient.", show_default="as the finding has")
    ] = None,
    site: Annotated[
        list[str] | None,
        typer.Option(help="Of the finding: upper, mid, lower, apical, ...; may come again.", show_default="all"),
    ] = None,
    chests: Annotated[int, typer.Option("-n", "--chests", min=2, help="Healthy chests.")] = 100,
    bundle: BundleNames = None,
    bundles: Bundles = BUNDLES,
    reports: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=FILE", help="Reports of the films by another system; may come again."),
    ] = None,
    films: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Draw the finding into normal films of a source of real films instead, as the folder of an index.",
            show_default="synthetic chests",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Only write the films and their list, films.csv, into this folder."),
    ] = None,
    out: Annotated[
        Path, typer.Option(help="Folder of results; files go into <out>/<finding>/, or <finding>-in-<films>/.")
    ] = NEW_DETECTIONS,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 400,
    beam_size: BeamSize = None,
    jobs: Jobs = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Turn one finding up from nothing in healthy chests, synthetic or of real films, and count who mentions it.

    Systems that were measured on the same films before stay in the table. Interrupted, it goes on where it stopped.
    """
    from dataclasses import asdict

    from core.detection.results import FILE, DetectionResult, RealFilms, write_result
    from core.detection.study import measure
    from core.evaluation.writing import Work, write_source
    from core.files import hash_of, sha256_of
    from core.packages import versions
    from core.studies.drawn.source import DrawnSource
    from core.studies.phantom import GradedSource
    from core.studies.phantom.graded import slug
    from core.studies.sources import open_source
    from training.scores import read_files

    design = _design(finding, extent, side, site, chests, seed)
    drawn = DrawnSource(design, open_source(films)) if films is not None else None
    source = drawn or GradedSource(design)
    folder = out / slug(design.finding)
    real = None
    if drawn is not None:
        real = RealFilms(drawn.base.title, drawn.base.images_fingerprint())
        folder = out / f"{slug(design.finding)}-in-{slug(drawn.base.name)}"
        _look_through(drawn)
    if images is not None:
        _write_films(source, images)
        return
    hashes: dict[str, str] = {}
    names = _names(bundle, bundles, given=bool(reports))
    texts: dict[str, Mapping[str, str]] = {}
    if names:
        from core.devices import open_device
        from training.launch import automatic_jobs

        where = str(open_device(device))
        work = Work(source.key, None, bundles, names, 16, beam_size, where, precision)
        path = folder / f"reports-{hash_of(names, 8)}.jsonl"
        with console.resumable(), console.progress_bar("film", "writing") as progress:
            write_source(work, path, jobs or automatic_jobs(where), progress)
        texts |= _read_written(path, names)
        hashes["written"] = sha256_of(path)
    for system in read_files(reports or [], names):
        texts[system.name] = _of_films(system, source)
        hashes[system.name] = system.content_hash()
    kept = _measured_before(folder / FILE, source, resamples, seed)
    systems = dict(kept.systems) if kept else {}
    with console.progress_bar("system", "measuring") as progress:
        for done, (name, found) in enumerate(texts.items(), start=1):
            systems[name] = measure(source, found, resamples=resamples, seed=seed)
            progress(done, len(texts))
    if stayed := [name for name in systems if name not in texts]:
        console.note(f"Measured before on the same films, and kept: {', '.join(stayed)}.")
    told = {
        "reports": hashes,
        "versions": versions(("torch", "numpy", "scipy")),
    }
    result = DetectionResult(source.design, source.fingerprint(), systems, seed, resamples, told, real)
    write_result(folder / FILE, result)
    console.note(f"{folder / FILE} is written; the Detection page shows it.")
    printed = {"films": result.design.spec, "systems": {name: asdict(each) for name, each in systems.items()}}
    console.print_result(printed, as_json, lambda: detection_markdown(result))


def _look_through(source: DrawnSource) -> None:
    """Find the real films, and say which cannot be used.

    Raises:
        CXRLensError: there are too few.
    """
    with console.progress_bar("film", "finding the lungs") as progress:
        for chest in range(source.design.chests):
            source.film_of(chest)
            progress(chest + 1, source.design.chests)
    for reason, count in source.refused.items():
        console.note(f"Passed over, {count} normal films: {reason}.")


def _measured_before(path: Path, source: DesignedSource, resamples: int, seed: int) -> DetectionResult | None:
    """What is there already of the same films, with the same numbers."""
    from core.detection.results import read_result

    if not path.is_file():
        return None
    found = read_result(path)
    same = (found.fingerprint, found.resamples, found.seed) == (source.fingerprint(), resamples, seed)
    return found if same else None


def _design(finding: str, extent: str, side: str | None, site: list[str] | None, chests: int, seed: int) -> GradedFilms:
    """The films that are asked for.

    Raises:
        CXRLensError: there are no such.
    """
    from core.studies.phantom.graded import BOTH, PLACES, GradedFilms, finding_named, slug

    named = finding_named(finding)
    sides, sites = PLACES[named]
    if side is not None:
        sides = BOTH if side == "both" else (side,)  # type: ignore[assignment]
    if site:
        known = {slug(each): each for each in sites}
        sites = tuple(known.get(slug(each), each) for each in site)
    try:
        low, high, steps = extent.split(":")
        return GradedFilms(named, float(low), float(high), int(steps), sides, sites, chests, seed)
    except ValueError:
        raise CXRLensError(f"--extent {extent}: it should be LOW:HIGH:STEPS, as 0:1:12.") from None


def _names(bundle: list[str] | None, bundles: Path, *, given: bool) -> tuple[str, ...]:
    """The pairs that write: those named; all, unless only reports of other systems were given."""
    from core.bundles.card import no_bundle
    from core.bundles.library import BundleLibrary

    if bundle or given:
        return tuple(bundle or ())
    names = tuple(card.name for card in BundleLibrary(bundles).cards())
    if not names:
        raise no_bundle(bundles)
    return names


def _write_films(source: DesignedSource, folder: Path) -> None:
    """Write every film as PNG of 8 bits, and their list; films that are there are kept."""
    import csv
    import io

    import numpy as np
    from PIL import Image

    from core.files import whole_file, write_whole

    ids = source.ids("test")
    (folder / "images").mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("study_id", "image", "chest", "side", "site", "extent"))
    with console.resumable(), console.progress_bar("film", "drawing") as progress:
        for done, film_id in enumerate(ids, start=1):
            film = source.films[film_id]
            path = folder / "images" / f"{film_id}.png"
            if not path.exists():
                pixels = np.rint(source.image(film_id, _FILM_SIDE) * 255).astype(np.uint8)
                with whole_file(path, synced=False) as fresh:
                    Image.fromarray(pixels).save(fresh, format="PNG")
            table.writerow((film_id, f"images/{film_id}.png", film.chest, film.side, film.site, source.extent(film)))
            progress(done, len(ids))
    write_whole(folder / "films.csv", text.getvalue())
    console.print_text(
        f"{len(ids):,} films in {folder}. Let the system write a report of each, as a CSV with the columns study_id "
        "and report, then give the same command --reports NAME=FILE instead of --images."
    )


def _read_written(path: Path, names: tuple[str, ...]) -> dict[str, Mapping[str, str]]:
    from core.files import read_json_lines

    rows = [row for _, row in read_json_lines(path)]
    return {name: {row["study_id"]: row[name] for row in rows} for name in names}


def _of_films(system: Reports, source: DesignedSource) -> Mapping[str, str]:
    """Reports of another system by film id.

    Raises:
        CXRLensError: it names a film twice, or has none of the films.
    """
    texts: dict[str, str] = {}
    for row in system.rows:
        film_id = row.ids[0]
        if film_id in texts:
            raise CXRLensError(f"{system.title} has two reports of film {film_id}. Take one out.")
        texts[film_id] = row.text
    known = set(source.ids("test"))
    matched = known & set(texts)
    if not matched:
        shown = ", ".join(list(texts)[:3]) or "none"
        raise CXRLensError(
            f"{system.title} has no report of these films. Its ids: {shown}; those of films: "
            f"{next(iter(source.films))}, ... The design must be the one of --images."
        )
    console.note(
        f"{system.title}: {len(matched):,} of {len(known):,} films have a report; "
        f"{len(texts) - len(matched):,} other rows are not of these films."
    )
    return texts


def detection_markdown(result: DetectionResult) -> str:
    """Tables of a result, for a reader."""
    design = result.design
    lines = [
        f"{result.title}: {design.chests} chests, {design.steps} extents from {design.low:g} to {design.high:g}, "
        f"seed {design.seed}",
        "",
        "| system | side | site | false alarms | reported half the time at | of the largest | other side | mirror |",
        "|---|---|---|---:|---:|---:|---:|---|",
    ]
    for name, system in result.systems.items():
        mirrors = {each.site: each for each in system.mirrors}
        for each in system.detections:
            most, half = each.points[-1], each.half
            at = "never" if half.extent is None else f"{half.extent:.2f}"
            ends = f"[{_end(half.low)}, {_end(half.high)}]"
            mirror = mirrors.get(each.site)
            told = (
                f"{mirror.right - mirror.left:+.2f} [{mirror.low:+.2f}, {mirror.high:+.2f}], p {mirror.p:.3f}"
                if mirror
                else ""
            )
            wrong = sum(point.other_side for point in each.points)
            lines.append(
                f"| {name} | {each.side or '-'} | {each.site or '-'} | {system.false_alarms} of {system.normals} "
                f"| {at} {ends} | {most.mentioned} of {most.reports} | {wrong} | {told} |"
            )
    lines += ["", "Mirror: share of the films with the finding that is mentioned, right less left, same chests."]
    return "\n".join(lines)


def _end(extent: float | None) -> str:
    return "above 1" if extent is None else f"{extent:.2f}"
