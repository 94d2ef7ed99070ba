"""The commands ``cxr-lens review``: make, list, close, export, copy and fill review sessions. See docs/reviews.md."""

from __future__ import annotations

import getpass
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.paths import BUNDLES
from core.types import CXRLensError
from core.wording import counted
from training.commands import rubrics
from training.console import note, print_result, print_text, progress_bar, warn
from training.options import (
    AsJson,
    Bundles,
    Device,
    Folder,
    OptionalPreset,
    Overrides,
    Seed,
    read_preset,
)

if TYPE_CHECKING:
    from core.reviews.database import Database
    from core.reviews.design import Case, Design
    from core.reviews.store import Actor
    from core.reviews.verification import Verified
    from core.studies.source import Source
    from core.types import FloatImage

app = typer.Typer(
    no_args_is_help=True, help="Review sessions: radiologists read, score and settle. See docs/reviews.md."
)
app.add_typer(rubrics.app, name="rubric")

Location = Annotated[
    str | None,
    typer.Option(
        "--database", envvar="CXR_REVIEWS", help="File or URL.", show_default="reviews.sqlite in your data folder"
    ),
]
User = Annotated[str | None, typer.Option("--as", help="Name of the acting user.", show_default="your login name")]
Seals = Annotated[
    list[str] | None, typer.Option("--seal", help="Seal of a closed session, as `close` or report.html printed it.")
]
Session = Annotated[str, typer.Argument(help="Id of a session; its first letters will do.")]


@app.command()
def create(
    design: Annotated[Path, typer.Argument(help="The design: a TOML file.")],
    cases: Annotated[
        Path | None, typer.Option(help="Studies with their reports: JSON lines, JSON or CSV. Needs their images.")
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Images of the cases: a folder with a file a study, or of an index; or phantom:COUNT:SEED."),
    ] = None,
    preset: OptionalPreset = None,
    overrides: Overrides = None,
    bundles: Bundles = BUNDLES,
    pool: Annotated[int, typer.Option(min=0, help="Test studies to choose from; 0: all.")] = 0,
    device: Device = "auto",
    database: Location = None,
    user: User = None,
) -> None:
    """Make a session. Reports come from a file (--cases) or are written now by bundles (--preset).

    The images of --cases are those of --images, else of 'source' in the design, else of --preset.
    """
    from core.reviews.design import read_design
    from core.reviews.sources import name_source
    from core.reviews.store import create_session, list_sessions, set_role

    if cases is None and preset is None:
        raise CXRLensError("Say where the reports come from: --cases FILE, or --preset NAME.")
    if cases is None and images is not None:
        raise CXRLensError("--images goes with --cases: bundles write about the images of their preset.")
    wanted = read_design(with_rubric(read_toml(design), design.parent))
    if wanted.questions.mark == "helpfulness":
        from core.explain.methods import METHODS  # brings torch

        if wanted.explanation not in METHODS:
            raise CXRLensError(f"design.explanation names what is shown: one of {', '.join(METHODS)}.")
    of_preset = _source_name(preset, overrides) if preset else ""
    source = images or wanted.source
    wanted = replace(wanted, source=name_source(source) if source else of_preset)
    if cases is None and wanted.source != of_preset:
        raise CXRLensError(
            f"The design's source is {wanted.source}, but the bundles would write about {of_preset}, the studies of "
            f"the preset {preset}. Leave 'source' out of the design."
        )
    if cases:
        found = _with_images(cases, wanted)
    else:
        found = _write_cases(_source(str(preset), overrides), wanted, bundles, pool, device)
    with open_database(database, user) as (opened, who):
        if who.role == "admin":  # on one's own machine, naming a reader is enough
            for reader in wanted.readers:
                if not _is_user(opened, reader):
                    set_role(opened, who, reader, "reader")
        session_id = create_session(opened, who, wanted, found)
        info = next(each for each in list_sessions(opened, who) if each.id == session_id)
    screens, readers = counted(info.screens, "screen", "screens"), counted(len(wanted.readers), "reader", "readers")
    print_text(f"{session_id}  {info.title}: {screens} for {readers}")


@app.command(name="list")
def list_(database: Location = None, user: User = None, as_json: AsJson = False) -> None:
    """List sessions with their progress."""
    from core.reviews.store import list_sessions

    with open_database(database, user) as (opened, who):
        found = list_sessions(opened, who)
        lines = [
            f"{each.id}  {each.state:6}  {each.done:5} of {each.screens:5} screens  {each.rubric:24} "
            f"{each.owner:12} {each.title}"
            for each in found
        ]
        if found or as_json:
            print_result([asdict(each) for each in found], as_json, lambda: "\n".join(lines))
        else:
            note(f"There is no session in {opened.name}.")


@app.command()
def role(
    name: Annotated[str, typer.Argument(help="Of the user.")],
    what: Annotated[str, typer.Argument(metavar="ROLE", help="reader, researcher or admin; none takes the role away.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Add a user, or change what a user may do. The first user of a database is its admin."""
    from core.reviews.store import set_role

    with open_database(database, user) as (opened, who):
        set_role(opened, who, name, what)  # type: ignore[arg-type]
    print_text(f"{name} is {what}.")


@app.command()
def key(port: Annotated[int, typer.Option(min=1, max=65535, help="Of the dashboard.")] = 8501) -> None:
    """Print the address that opens the Review page of this machine's dashboard. It holds a secret."""
    from core.reviews.local_key import local_address

    print_text(local_address(port))


@app.command()
def adjudicate(
    session: Session,
    reader: Annotated[str, typer.Argument(help="The third reader.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Give a third reader what the readers answered differently."""
    from core.reviews.adjudication import adjudicate as give

    with open_database(database, user) as (opened, who):
        added = give(opened, who, find_session(opened, who, session), reader)
    print_text(f"{added} screens for {reader} to settle")


@app.command()
def close(session: Session, database: Location = None, user: User = None) -> None:
    """End a session: nothing can be marked afterwards, names are revealed. Cannot be taken back."""
    from core.reviews.store import close_session

    with open_database(database, user) as (opened, who):
        session_id = find_session(opened, who, session)
        seal = close_session(opened, who, session_id)
    print_text(f"{session_id} is closed. Its seal, to be kept elsewhere: {seal}")


@app.command()
def export(
    session: Session,
    out: Folder,
    metrics: Annotated[
        Path | None, typer.Option(help="CSV with columns study, model, and one for each automatic metric.")
    ] = None,
    preset: OptionalPreset = None,
    overrides: Overrides = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 1000,
    seed: Seed = 0,
    database: Location = None,
    user: User = None,
) -> None:
    """Write a closed session as CSV, JSON, Parquet and one HTML page; with --preset the page has pictures."""
    import pandas as pd

    from core.reviews.analysis import analyse
    from core.reviews.answers import load_results
    from core.reviews.export import export as write
    from core.reviews.record import load_record

    table = None
    if metrics is not None:
        try:
            table = pd.read_csv(metrics, dtype={"study": str, "model": str})
        except (OSError, ValueError) as error:
            raise CXRLensError(f"{metrics} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    with open_database(database, user) as (opened, who):
        session_id = find_session(opened, who, session)
        results, record = load_results(opened, who, session_id), load_record(opened, who, session_id)
    for warning in results.warnings:
        warn(f"note: {warning}")
    picture = None if preset is None else _pictures(_source(preset, overrides))
    analysis = analyse(results, table, resamples=resamples, seed=seed)
    for path in write(results, analysis, out, picture, record=record):
        print_text(str(path))


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="New file: .jsonl.gz, or of SQLite also .sqlite.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Copy the whole database while readers go on, and check the copy."""
    from core.reviews.backup import backup as copy

    with open_database(database, user) as (opened, who):
        verified = copy(opened, who, path)
    print_text(f"{path}: {_in_words(verified)}, checked")


@app.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A backup.")],
    seal: Seals = None,
    database: Location = None,
) -> None:
    """Read a backup into a new or empty database, and check it. Nothing is written over."""
    from core.reviews.backup import restore as read
    from core.reviews.database import default_location

    location = database or default_location()
    verified = read(location, path, seal or ())
    print_text(f"{_in_words(verified)}, checked")


@app.command()
def verify(
    seal: Seals = None,
    database: Location = None,
    user: User = None,
) -> None:
    """Check that events are complete and unchanged, and that every value of every table is what they say."""
    from core.reviews.verification import verify as check

    with open_database(database, user) as (opened, _):
        verified = check(opened, seal or ())
    print_text(f"{_in_words(verified)}, checked")
    print_text(f"Seal of the last event: {verified.seal}")
    for session_id in verified.uncovered:
        note(
            f"{session_id} was made by an earlier version: whether its reports, the names behind letters, its readers "
            "and the hashes of its images were edited cannot be told. From its closing on it can."
        )


@app.command()
def import_marks(
    session: Session,
    path: Annotated[Path, typer.Argument(help="CSV with columns screen, report, kind, value.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Add marks made elsewhere, all or none. The same file again adds nothing."""
    from core.reviews.importing import import_marks as add

    with open_database(database, user) as (opened, who):
        added, known = add(opened, who, find_session(opened, who, session), path)
    print_text(f"{added} marks added, {known} were there")


@contextmanager
def open_database(location: str | None, user: str | None) -> Iterator[tuple[Database, Actor]]:
    """A database of reviews and who acts in it; closed at the end."""
    from core.reviews.database import Database
    from core.reviews.store import first_admin

    opened = Database(location)
    try:
        yield opened, first_admin(opened, user or getpass.getuser())
    finally:
        opened.close()


def _is_user(database: Database, name: str) -> bool:
    from core.reviews.store import NotAllowedError, actor

    try:
        actor(database, name)
    except NotAllowedError:
        return False
    return True


def find_session(database: Database, who: Actor, prefix: str) -> str:
    """Id of the session whose id begins so.

    Raises:
        CXRLensError: there is none, or more than one.
    """
    from core.reviews.store import list_sessions

    found = [each.id for each in list_sessions(database, who) if each.id.startswith(prefix)]
    if len(found) != 1:
        what = "No session begins" if not found else f"{len(found)} sessions begin"
        raise CXRLensError(f"{what} with '{prefix}' for {who.name}. See: cxr-lens review list.")
    return found[0]


def _in_words(verified: Verified) -> str:
    return ", ".join(
        counted(number, one, f"{one}s")
        for number, one in (
            (verified.sessions, "session"),
            (verified.screens, "screen"),
            (verified.marks, "mark"),
            (verified.events, "event"),
        )
    )


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file.

    Raises:
        CXRLensError: it cannot be read.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CXRLensError(f"{path} cannot be read as TOML ({error}).") from error


def with_rubric(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A design whose rubric is a file beside it (rubric = "own.toml"): with the file's name and text."""
    from core.reviews.rubric_library import read_file

    named = values.get("rubric")
    if not isinstance(named, str) or not named.endswith(".toml"):
        return values
    rubric = read_file(folder / named)
    return values | {"rubric": rubric.name, "rubric_text": rubric.text}


def _with_images(path: Path, design: Design) -> list[Case]:
    """Cases of a file, those that are chosen, each with its image."""
    from core.reviews.case_files import read_cases
    from core.reviews.sources import KINDS, find_images, open_source

    cases = read_cases(path)
    if not design.source:
        raise CXRLensError(
            f"Readers would see no image: nothing says where the images of the studies in {path} are. Add "
            f'--images WHERE, or source = "WHERE" to the design. WHERE is {KINDS}. Or --preset NAME, if they are a '
            "preset's studies."
        )
    return find_images(open_source(design.source), cases, design.studies, design.seed, design.practice_studies)


def _source(preset: str, overrides: list[str] | None) -> Source:
    from training.data import study_source

    return study_source(read_preset(preset, overrides).data)


def _source_name(preset: str, overrides: list[str] | None) -> str:
    from core.reviews.sources import name_index, name_phantoms

    data = read_preset(preset, overrides).data
    return (
        name_phantoms(data.count, data.seed) if data.source == "phantom" else name_index(Path(data.folder), data.views)
    )


def _pictures(source: Source) -> Callable[[str], FloatImage]:
    from core.reviews.sources import session_image

    return lambda study_id: session_image(source, study_id)


def _write_cases(source: Source, design: Design, bundles: Path, pool: int, device: str) -> list[Case]:
    """Cases of a preset's test studies, with reports that bundles write now."""
    from core.bundles.library import BundleLibrary
    from core.reviews.design import REFERENCE
    from core.reviews.sources import write_cases
    from core.systems.added import system

    library = BundleLibrary(bundles, device)
    names = design.models or (*(card.name for card in library.cards()), REFERENCE)
    reads = design.questions.reports_per_screen
    there = {card.name for card in library.cards()}
    others = [system(name) for name in names if name not in there and name != REFERENCE] if reads else []
    models = [library.load(name) for name in names if name in there] if reads else []
    with progress_bar("study", "reports") as tell:
        return write_cases(
            source,
            list(source.studies("test"))[: pool or None],
            design.studies,
            design.seed,
            models,
            reference=REFERENCE in names,
            others=others,
            besides=design.practice_studies,
            progress=tell,
        )
