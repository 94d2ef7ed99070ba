"""``cxr-lens review invite``, ``remind``, ``amend`` and ``sheet``: readers, changes and registration of a session."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from core.types import CXRLensError
from training.commands.review import Location, Session, User, find_session, open_database, read_toml, with_rubric
from training.commands.review_studies import app as app
from training.commands.review_studies import power_sentences
from training.console import note, print_result, print_text
from training.options import AsJson, Seed

Address = Annotated[str, typer.Option(help="Of the dashboard, as readers reach it: https://cxr.hospital.example.")]
HERE = "http://127.0.0.1:8501"


@app.command()
def invite(
    session: Session,
    reader: Annotated[
        str | None, typer.Argument(help="One of its readers.", show_default="list the invitations")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=90, help="Until the code must be used.")] = 14,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the reader's invitation back instead.")] = False,
    address: Address = HERE,
    database: Location = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Make a link with a one-time code for a reader of one session; it is shown once, and replaces an earlier one."""
    from core.reviews.invitations import invite as make
    from core.reviews.invitations import list_invitations, withdraw_invitation
    from core.reviews.progress import session_progress
    from core.reviews.reminders import invitation_text, page_address

    page_address(address)
    with open_database(database, user) as (opened, who):
        session_id = find_session(opened, who, session)
        if reader is None:
            found = list_invitations(opened, who, session_id)
            lines = [f"{each.reader:20} {each.state:10} until {each.expires[:10]}" for each in found]
            if found or as_json:
                print_result([asdict(each) for each in found], as_json, lambda: "\n".join(lines))
            else:
                note("Nobody was invited to this session.")
            return
        if withdraw:
            taken = withdraw_invitation(opened, who, session_id, reader)
            print_text(f"{taken} invitations of {reader} are withdrawn.")
            return
        made, code = make(opened, who, session_id, reader, days=days)
        title = session_progress(opened, who, session_id).design.title
    print_text(invitation_text(title, address, code, made.expires))
    note("This is shown once: the code is kept nowhere. Who has the link is this reader, so send it to nobody else.")


@app.command()
def remind(
    session: Session, address: Address = HERE, database: Location = None, user: User = None, as_json: AsJson = False
) -> None:
    """Write a reminder for each reader who has screens left, to copy into a letter. Nothing is sent."""
    from core.reviews.progress import session_progress
    from core.reviews.reminders import reminders

    with open_database(database, user) as (opened, who):
        found = reminders(session_progress(opened, who, find_session(opened, who, session)), address)
    if found or as_json:
        print_result(found, as_json, lambda: "\n".join(found.values()))
    else:
        note("No reader has anything left to read.")


@app.command()
def amend(
    session: Session,
    title: Annotated[str | None, typer.Option(help="A new one.", show_default="as it is")] = None,
    instructions: Annotated[str | None, typer.Option(help="New ones.", show_default="as they are")] = None,
    minutes: Annotated[int | None, typer.Option(min=0, help="Time limit; 0: none.", show_default="as it is")] = None,
    add_reader: Annotated[list[str] | None, typer.Option(help="May come again.", show_default="none")] = None,
    reason: Annotated[str, typer.Option(help="For the record.")] = "",
    database: Location = None,
    user: User = None,
    as_json: AsJson = False,
) -> None:
    """Change an open session, on the record; without options, print the record of its changes."""
    from core.reviews.amendments import amend as change
    from core.reviews.amendments import amendments
    from core.reviews.store import list_users, set_role

    asked = (title, instructions, minutes) != (None, None, None) or bool(add_reader)
    if reason and not asked:
        raise CXRLensError("--reason goes with what is changed: --title, --instructions, --minutes or --add-reader.")
    with open_database(database, user) as (opened, who):
        session_id = find_session(opened, who, session)
        if not asked:
            found = amendments(opened, who, session_id)
            lines = [
                f"{each.at[:16]}  {each.by}: {each.what}: {f'{each.before} -> ' if each.before else ''}{each.after}"
                f"{f' ({each.reason})' if each.reason else ''}"
                for each in found
            ]
            print_result([asdict(each) for each in found], as_json, lambda: "\n".join(lines))
            return
        if who.role == "admin":  # on one's own machine, naming a reader is enough
            known = list_users(opened, who)
            for name in add_reader or ():
                if name not in known:
                    set_role(opened, who, name, "reader")
        changed = change(
            opened,
            who,
            session_id,
            title=title,
            instructions=instructions,
            minutes=minutes,
            add_readers=tuple(add_reader or ()),
            reason=reason,
        )
    print_text(f"Changed: {', '.join(changed)}." if changed else "Everything is so already.")


@app.command()
def sheet(
    what: Annotated[str, typer.Argument(metavar="SESSION|DESIGN", help="Id of a session, or a design: a TOML file.")],
    out: Annotated[Path | None, typer.Option("--out", help="New file.", show_default="the terminal")] = None,
    pilot: Annotated[
        str | None, typer.Option(help="A closed session, for the sample size.", show_default="none")
    ] = None,
    of: Annotated[str, typer.Option(help="With --pilot: seconds, errors, or a question with a scale.")] = "seconds",
    change: Annotated[str, typer.Option(help="With --pilot: what is to be found, as review power has it.")] = "-10%",
    simulations: Annotated[int, typer.Option(min=20, max=100_000, help="With --pilot.")] = 500,
    seed: Seed = 0,
    database: Location = None,
    user: User = None,
) -> None:
    """Write a sheet for pre-registration: question, arms, readers, cases, randomisation, outcomes, analysis, size."""
    from core.files import write_whole
    from core.reviews.design import read_design
    from core.reviews.progress import session_progress
    from core.reviews.registration import sheet as written

    studies, lines = None, []
    if Path(what).suffix == ".toml":
        design = read_design(with_rubric(read_toml(Path(what)), Path(what).parent))
    else:
        with open_database(database, user) as (opened, who):
            about = session_progress(opened, who, find_session(opened, who, what))
        design, studies = about.design, about.studies
    count = design.studies.count or len(design.studies.ids) or studies
    if pilot is not None:
        if not count:
            raise CXRLensError(
                "The design leaves the number of studies open, so its power is not known: studies.count."
            )
        lines = power_sentences(pilot, of, change, [len(design.readers)], [count], simulations, seed, database, user)
    text = written(design, studies=studies, sample_size=lines)
    if out is None:
        print_text(text)
    elif out.exists():
        raise CXRLensError(f"{out} is there already. Choose another file with --out.")
    else:
        write_whole(out, text)
        print_text(str(out))
