"""``cxr-lens review simulate``, ``compare`` and ``power``: studies of readers, beside the other commands of ``app``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from core.types import CXRLensError
from training.commands.review import Location, Session, User, find_session, open_database
from training.commands.review import app as app
from training.console import note, print_result, print_text, progress_bar, warn
from training.options import AsJson, Seed

if TYPE_CHECKING:
    from core.reviews.answers import Results
    from core.reviews.long_table import Outcome

MoreIsBetter = Annotated[bool, typer.Option("--more-is-better", help="Of a scale, for non-inferiority.")]


@app.command()
def simulate(
    what: Annotated[
        str,
        typer.Argument(
            metavar="SESSION|DESIGN",
            help="Id of a session; or a design: a TOML file, or a folder with design.toml and rehearsal.toml.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="New folder for the rehearsal's database and files.")] = Path(
        "rehearsal"
    ),
    readers: Annotated[
        int | None, typer.Option(min=1, max=50, help="Synthetic readers.", show_default="as many as in the design")
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(help="Studies with their reports, as for create.", show_default="invented ones, of phantoms"),
    ] = None,
    studies: Annotated[
        int | None,
        typer.Option(
            min=1, help="A quick look: so many studies, no hidden repeats.", show_default="as many as in the design"
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=2**32 - 1, help="Of all that is drawn at random.", show_default="of rehearsal.toml, or 0"
        ),
    ] = None,
    database: Location = None,
    user: User = None,
) -> None:
    """Let synthetic readers read a copy of a session, or of a design, and write all its tables.

    Nothing is written into the session or its database: the copy has a database of its own.
    """
    import json
    from dataclasses import asdict

    from core.files import write_whole
    from core.reviews.analysis import analyse
    from core.reviews.answers import load_results
    from core.reviews.database import Database
    from core.reviews.effects import differences
    from core.reviews.export import export
    from core.reviews.metrics import automatic_metrics
    from core.reviews.record import load_record
    from core.reviews.rehearsal import OWNER, Clock, rehearse
    from core.reviews.store import first_admin
    from core.reviews.study_tables import tables_as_markdown
    from training.commands.rehearsed import read_rehearsed

    rehearsed = read_rehearsed(what, cases, seed, studies, database, user)
    design, seed = rehearsed.design, rehearsed.seed
    path = out / "rehearsal.sqlite"
    if path.exists():
        raise CXRLensError(f"{path} is there already. Choose another folder with --out, or delete that one.")
    clock = Clock()
    opened = Database(path, clock=clock)
    try:
        with progress_bar("screen", "reading") as tell:
            session_id, world = rehearse(
                opened,
                clock,
                design,
                rehearsed.pool,
                readers or len(design.readers),
                seed,
                tell,
                planted=rehearsed.planted,
            )
        owner = first_admin(opened, OWNER)
        results, record = load_results(opened, owner, session_id), load_record(opened, owner, session_id)
    except BaseException:
        opened.close()
        for left in out.glob(f"{path.name}*"):  # half a rehearsal is none
            left.unlink()
        raise
    opened.close()
    for warning in results.warnings:
        warn(f"note: {warning}")
    table = automatic_metrics(results) if results.rubric.mark == "error" else None
    analysis = analyse(results, table if table is not None and len(table) > 2 else None, seed=seed)
    compared = differences(results)
    files = export(results, analysis, out, record=record, compared=compared)
    tables = out / "tables.md"
    write_whole(tables, tables_as_markdown(results, analysis, compared, record, rehearsed.notes()))
    truth = out / "rehearsal.json"
    write_whole(truth, json.dumps({"session": session_id, **asdict(world)}, indent=1) + "\n")
    note("All of it was answered by synthetic readers: it says how the tables look, and nothing of the reports.")
    for each in (*files, tables, truth, path):
        print_text(str(each))


@app.command()
def compare(
    session: Session,
    of: Annotated[
        str | None, typer.Option(help="seconds, errors, or a question with a scale.", show_default="all")
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(help="Test non-inferiority instead, with --of: the most that is acceptable, as 10% or 0.3."),
    ] = None,
    more_is_better: MoreIsBetter = False,
    seed: Seed = 0,
    database: Location = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Tests between the systems of a closed session, by mixed models with readers and cases as random effects."""
    from dataclasses import asdict

    from core.reviews.answers import load_results
    from core.reviews.effects import differences, non_inferiorities
    from core.reviews.report_page import estimate, number, probability

    if margin is not None and of is None:
        raise CXRLensError("--margin goes with --of: say of what it is the margin.")
    with open_database(database, user) as (opened, who):
        results = load_results(opened, who, find_session(opened, who, session))
    if margin is not None:
        outcome = _outcome(results, str(of))
        relative = outcome.kind != "scale"
        limit = _change(margin, relative, "--margin") + relative
        shown = non_inferiorities(outcome, limit, less_is_better=not more_is_better)
        lines = [
            f"{one} worse than {other} by less than {margin}: {'shown' if found.shown else 'not shown'} "
            f"({'ratio' if relative else 'difference'} up to {number(found.limit)}, p {probability(found.p)})"
            for one, other, found in shown
        ]
        rows = [{"first": one, "second": other, **asdict(found)} for one, other, found in shown]
        print_result(rows, as_json, lambda: "\n".join([f"{outcome.title}:", *lines]))
        return
    compared = [row for row in differences(results, seed=seed) if of in (None, row.outcome)]
    if not compared:
        note("There is nothing that systems of this session can be compared by.")
    lines = [
        f"{row.title}: {row.first} / {row.second}: {row.scale} {estimate(row.estimate)}, p {probability(row.p)}, "
        f"adjusted {probability(row.p_adjusted)}. {row.method.capitalize()}; holds for {row.holds_for}."
        for row in compared
    ]
    if compared or as_json:
        print_result([asdict(row) for row in compared], as_json, lambda: "\n".join(lines))


@app.command()
def power(
    session: Session,
    change: Annotated[
        str,
        typer.Option(help="What is to be found: -10% of seconds or errors; of a scale in steps, as 0.3."),
    ],
    of: Annotated[str, typer.Option(help="seconds, errors, or a question with a scale.")] = "seconds",
    readers: Annotated[list[int] | None, typer.Option(help="May come again.", show_default="3")] = None,
    cases: Annotated[list[int] | None, typer.Option(help="May come again.", show_default="40")] = None,
    arms: Annotated[
        Literal["both", "one"],
        typer.Option(help="both: every reader reads every case with both systems; one: with one of them, by turns."),
    ] = "both",
    margin: Annotated[
        str | None,
        typer.Option(help="Find non-inferiority instead: the most that is acceptable, as 10% or 0.3."),
    ] = None,
    more_is_better: MoreIsBetter = False,
    simulations: Annotated[int, typer.Option(min=20, max=100_000, help="Simulated studies for each row.")] = 500,
    seed: Seed = 0,
    database: Location = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """How often a study would find a difference, if readers and cases vary as in a closed session."""
    what, least, rows = _powers(
        session,
        of,
        change,
        readers or [3],
        cases or [40],
        simulations,
        seed,
        database,
        user,
        arms=arms,
        margin=margin,
        less_is_better=not more_is_better,
    )
    told = {"of": of, "change": what.wanted, "margin": least, "rows": rows}
    print_result(told, as_json, lambda: "\n".join(what.sentences(rows, simulations)))


@dataclass(frozen=True, slots=True)
class _Sought:
    """What simulated studies look for, in words and as a number."""

    words: str
    wanted: float

    def sentences(self, rows: list[dict[str, Any]], simulations: int) -> list[str]:
        return [
            f"{self.words}; {simulations} simulated studies each.",
            *(
                f"With {row['readers']} readers and {row['cases']} cases it is found in {row['power']:.0%} of studies "
                f"({row['low']:.0%} to {row['high']:.0%})."
                for row in rows
            ),
        ]


def power_sentences(
    pilot: str,
    of: str,
    change: str,
    readers: list[int],
    cases: list[int],
    simulations: int,
    seed: int,
    database: str | None,
    user: str | None,
) -> list[str]:
    """How often a study of so many readers and cases would find a change, in sentences.

    Args:
        pilot: the beginning of a closed session's id.

    Raises:
        CXRLensError: as `power`.
    """
    what, _, rows = _powers(pilot, of, change, readers, cases, simulations, seed, database, user)
    return what.sentences(rows, simulations)


def _powers(
    session: str,
    of: str,
    change: str,
    readers: list[int],
    cases: list[int],
    simulations: int,
    seed: int,
    database: str | None,
    user: str | None,
    *,
    arms: Literal["both", "one"] = "both",
    margin: str | None = None,
    less_is_better: bool = True,
) -> tuple[_Sought, float | None, list[dict[str, Any]]]:
    """What is sought, the margin as a number, and a row for each number of readers and cases."""
    from core.reviews.answers import load_results
    from core.reviews.power import pilot_of
    from core.reviews.power import power as simulated

    with open_database(database, user) as (opened, who):
        results = load_results(opened, who, find_session(opened, who, session))
    outcome = _outcome(results, of)
    relative = outcome.kind != "scale"
    pilot, wanted = pilot_of(outcome.table, outcome.kind), _change(change, relative, "--change")
    least = None if margin is None else _change(margin, relative, "--margin") + relative
    rows: list[dict[str, Any]] = []
    for reader_count in readers:
        for case_count in cases:
            with progress_bar("study", f"{reader_count} readers, {case_count} cases") as tell:
                row = simulated(
                    pilot,
                    wanted,
                    reader_count,
                    case_count,
                    arms=arms,
                    margin=least,
                    less_is_better=less_is_better,
                    simulations=simulations,
                    seed=seed,
                    progress=tell,
                )
            low, high = row.found.interval or (math.nan, math.nan)
            share = row.found.value
            rows.append({"readers": row.readers, "cases": row.cases, "power": share, "low": low, "high": high})
    words = f"{outcome.title} {'' if wanted < 0 else '+'}{change.strip().lstrip('+')}"
    return _Sought(words if margin is None else f"{words}: not worse by {margin}", wanted), least, rows


def _outcome(results: Results, name: str) -> Outcome:
    from core.reviews.long_table import outcomes

    found = {each.name: each for each in outcomes(results)}
    if name not in found:
        raise CXRLensError(f"This session has no numbers called '{name}'. It has: {', '.join(found) or 'none'}.")
    return found[name]


def _change(text: str, relative: bool, option: str) -> float:
    """A change as a person writes it: -10% as -0.1, 0.3 as it is.

    Raises:
        CXRLensError: no number, or steps where a percentage is meant.
    """
    try:
        value = float(text.strip().removesuffix("%").strip())
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise CXRLensError(f"{option}: '{text}' is no number. Write -10%, or for a scale 0.3.")
    if relative is not text.strip().endswith("%"):
        wanted = "a percentage, as -10%" if relative else "in steps of the scale, as 0.3"
        raise CXRLensError(f"{option}: a change of this quantity is {wanted}; got '{text}'.")
    return value / 100 if relative else value
