"""The commands ``cxr-lens review``: make, list, close, export, copy and fill review sessions. See docs/reviews.md."""

from __future__ import annotations

import getpass
import json
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from core.types import CXRLensError

if TYPE_CHECKING:
    from core.reviews.backup import Verified
    from core.reviews.database import Database
    from core.reviews.design import Case, Design
    from core.reviews.store import Actor
    from core.types import FloatImage, StudySource

app = typer.Typer(
    no_args_is_help=True, help="Review sessions: radiologists read, score and settle. See docs/reviews.md."
)

ROOT = Path(__file__).resolve().parents[2]
PRESETS = Path(__file__).resolve().parents[1] / "presets"
Location = Annotated[
    str | None,
    typer.Option("--database", envvar="CXR_REVIEWS", help="File or URL. [default: reviews.sqlite in your data folder]"),
]
User = Annotated[str | None, typer.Option("--as", help="Name of the acting user. [default: your login name]")]
Session = Annotated[str, typer.Argument(help="Id of a session; its first letters will do.")]
Preset = Annotated[str | None, typer.Option(help="Read studies and images as this preset does.")]


@app.command()
def create(
    design: Annotated[Path, typer.Argument(help="The design: a TOML file.")],
    cases: Annotated[Path | None, typer.Option(help="JSON lines of studies with their reports.")] = None,
    preset: Preset = None,
    bundles: Annotated[
        Path, typer.Option(help="Folder of bundles that write the reports.", envvar="CXR_BUNDLES")
    ] = ROOT / "assets" / "bundles",
    pool: Annotated[int, typer.Option(min=0, help="Test studies to choose from; 0: all.")] = 0,
    database: Location = None,
    user: User = None,
) -> None:
    """Make a session. Reports come from a file (--cases) or are written now by bundles (--preset)."""
    from core.reviews.design import read_design
    from core.reviews.store import create_session, list_sessions, set_role

    if (cases is None) is (preset is None):
        raise CXRLensError("Say where the reports come from: --cases FILE, or --preset NAME.")
    wanted = read_design(_read_toml(design))
    if wanted.rubric == "explanation-helpfulness":
        from core.explain.methods import METHODS  # brings torch

        if wanted.explanation not in METHODS:
            raise CXRLensError(f"design.explanation names what is shown: one of {', '.join(METHODS)}.")
    if preset is not None and not wanted.source:
        wanted = replace(wanted, source=_source_name(preset))
    found = _read_cases(cases) if cases else _write_cases(str(preset), wanted, bundles, pool)
    with _database(database, user) as (opened, who):
        if who.role == "admin":  # on one's own machine, naming a reader is enough
            for reader in wanted.readers:
                if not _is_user(opened, reader):
                    set_role(opened, who, reader, "reader")
        session_id = create_session(opened, who, wanted, found)
        info = next(each for each in list_sessions(opened, who) if each.id == session_id)
    typer.echo(f"{session_id}  {info.title}: {info.screens} screens for {len(wanted.readers)} readers")


@app.command(name="list")
def list_(database: Location = None, user: User = None) -> None:
    """List sessions with their progress."""
    from core.reviews.store import list_sessions

    with _database(database, user) as (opened, who):
        found = list_sessions(opened, who)
        for each in found:
            progress = f"{each.done:5} of {each.screens:5} screens"
            typer.echo(f"{each.id}  {each.state:6}  {progress}  {each.rubric:24} {each.owner:12} {each.title}")
        if not found:
            typer.echo(f"There is no session in {opened.name}.", err=True)


@app.command()
def role(
    name: Annotated[str, typer.Argument(help="Of the user.")],
    what: Annotated[str, typer.Argument(metavar="ROLE", help="reader, researcher or admin.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Add a user, or change what a user may do. The first user of a database is its admin."""
    from core.reviews.store import set_role

    with _database(database, user) as (opened, who):
        set_role(opened, who, name, what)  # type: ignore[arg-type]
    typer.echo(f"{name} is {what}.")


@app.command()
def adjudicate(
    session: Session,
    reader: Annotated[str, typer.Argument(help="The third reader.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Give a third reader what the readers answered differently."""
    from core.reviews.adjudication import adjudicate as give

    with _database(database, user) as (opened, who):
        added = give(opened, who, _find(opened, who, session), reader)
    typer.echo(f"{added} screens for {reader} to settle")


@app.command()
def close(session: Session, database: Location = None, user: User = None) -> None:
    """End a session: nothing can be marked afterwards, names are revealed. Cannot be taken back."""
    from core.reviews.store import close_session

    with _database(database, user) as (opened, who):
        session_id = _find(opened, who, session)
        close_session(opened, who, session_id)
    typer.echo(f"{session_id} is closed.")


@app.command()
def export(
    session: Session,
    out: Annotated[Path, typer.Option(help="Folder to write into.")],
    metrics: Annotated[
        Path | None, typer.Option(help="CSV with columns study, model, and one for each automatic metric.")
    ] = None,
    preset: Preset = None,
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(help="Of the bootstrap.")] = 0,
    database: Location = None,
    user: User = None,
) -> None:
    """Write a closed session as CSV, JSON, Parquet and one HTML page; with --preset the page has pictures."""
    import pandas as pd

    from core.reviews.analysis import analyse
    from core.reviews.answers import load_results
    from core.reviews.export import export as write

    table = None
    if metrics is not None:
        try:
            table = pd.read_csv(metrics, dtype={"study": str, "model": str})
        except (OSError, ValueError) as error:
            raise CXRLensError(f"{metrics} cannot be read as CSV: {str(error).splitlines()[0]}") from error
    with _database(database, user) as (opened, who):
        results = load_results(opened, who, _find(opened, who, session))
    for warning in results.warnings:
        typer.echo(f"note: {warning}", err=True)
    picture = None if preset is None else _pictures(_source(preset))
    for path in write(results, analyse(results, table, resamples=resamples, seed=seed), out, picture):
        typer.echo(str(path))


@app.command()
def backup(
    path: Annotated[Path, typer.Argument(help="New file: .jsonl.gz, or of SQLite also .sqlite.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Copy the whole database while readers go on, and check the copy."""
    from core.reviews.backup import backup as copy

    with _database(database, user) as (opened, who):
        verified = copy(opened, who, path)
    typer.echo(f"{path}: {_in_words(verified)}, checked")


@app.command()
def restore(
    path: Annotated[Path, typer.Argument(help="A backup.")],
    database: Location = None,
) -> None:
    """Read a backup into a new or empty database, and check it. Nothing is written over."""
    from core.reviews.backup import restore as read
    from core.reviews.database import default_location

    location = database or default_location()
    verified = read(location, path)
    typer.echo(f"{_in_words(verified)}, checked")


@app.command()
def verify(database: Location = None, user: User = None) -> None:
    """Check that events are complete and unchanged, and that all marks are what the events say."""
    from core.reviews.backup import verify as check

    with _database(database, user) as (opened, _):
        verified = check(opened)
    typer.echo(f"{_in_words(verified)}, checked")


@app.command()
def import_marks(
    session: Session,
    path: Annotated[Path, typer.Argument(help="CSV with columns screen, report, kind, value.")],
    database: Location = None,
    user: User = None,
) -> None:
    """Add marks made elsewhere, all or none. The same file again adds nothing."""
    from core.reviews.importing import import_marks as add

    with _database(database, user) as (opened, who):
        added, known = add(opened, who, _find(opened, who, session), path)
    typer.echo(f"{added} marks added, {known} were there")


@contextmanager
def _database(location: str | None, user: str | None) -> Iterator[tuple[Database, Actor]]:
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


def _find(database: Database, who: Actor, prefix: str) -> str:
    from core.reviews.store import list_sessions

    found = [each.id for each in list_sessions(database, who) if each.id.startswith(prefix)]
    if len(found) != 1:
        what = "No session begins" if not found else f"{len(found)} sessions begin"
        raise CXRLensError(f"{what} with '{prefix}' for {who.name}. See: cxr-lens review list.")
    return found[0]


def _in_words(verified: Verified) -> str:
    return f"{verified.sessions} sessions, {verified.screens} screens, {verified.marks} marks, {verified.events} events"


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CXRLensError(f"{path} cannot be read as TOML ({error}).") from error


def _read_cases(path: Path) -> list[Case]:
    from core.observations import OBSERVATIONS, LabelState
    from core.reviews.design import Case

    known = {"study_id", "reports", "image_sha256", "bundles", "labels", "context"}
    found = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CXRLensError(f"{path} cannot be read ({error}).") from error
    for place, line in enumerate(filter(str.strip, lines), 1):
        try:
            values = json.loads(line)
            if "reports" not in values:  # as `cxr-lens evaluate --out` writes them: a key a model
                values = {"study_id": values.pop("study_id"), "reports": values}
            if foreign := set(values) - known:
                raise ValueError(f"foreign keys {sorted(foreign)}; a case has {sorted(known)}")
            reports, bundles, context = (values.get(name, {}) for name in ("reports", "bundles", "context"))
            if not all(isinstance(text, str) for each in (reports, bundles, context) for text in each.values()):
                raise ValueError("reports, bundles and context hold texts by name")
            labels = {name: LabelState(state) for name, state in values.get("labels", {}).items()}
            if wrong := set(labels) - set(OBSERVATIONS):
                raise ValueError(f"no observations: {sorted(wrong)}")
            image = str(values.get("image_sha256", ""))
            found.append(Case(str(values["study_id"]), image, reports, bundles, labels, context))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CXRLensError(f"{path}, case {place}: {error}.") from error
    return found


def _source(preset: str) -> StudySource:
    from core.config import load_config
    from training.data import study_source

    return study_source(load_config(PRESETS, preset).data)


def _source_name(preset: str) -> str:
    from core.config import load_config
    from core.reviews.sources import name_index, name_phantoms

    data = load_config(PRESETS, preset).data
    return (
        name_phantoms(data.count, data.seed) if data.source == "phantom" else name_index(Path(data.folder), data.views)
    )


def _pictures(source: StudySource) -> Callable[[str], FloatImage]:
    from core.reviews.sources import session_image

    return lambda study_id: session_image(source, study_id)


def _write_cases(preset: str, design: Design, bundles: Path, pool: int) -> list[Case]:
    """Cases of a preset's test studies, with reports that bundles write now."""
    from tqdm import tqdm

    from core.bundles.library import BundleLibrary
    from core.reviews.design import REFERENCE
    from core.reviews.sources import write_cases

    source, library = _source(preset), BundleLibrary(bundles)
    names = design.models or (*(card.name for card in library.cards()), REFERENCE)
    models = [library.load(name) for name in names if name != REFERENCE] if design.questions.reports_per_screen else []
    with tqdm(unit="study", desc="reports") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        return write_cases(
            source,
            list(source.studies("test"))[: pool or None],
            design.studies,
            design.seed,
            models,
            reference=REFERENCE in names,
            progress=progress,
        )
