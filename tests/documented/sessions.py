"""How the documented commands are run that copy sessions, and that rehearse and plan studies."""

from __future__ import annotations

import json

from tests.documented.place import Place
from tests.documented.programs import Row, elsewhere, process

_SIMULATED = "cxr-lens review simulate design.toml --readers 3 --seed 1 --out rehearsal"
_PLACE = " --database rehearsal/rehearsal.sqlite --as rehearsal"
_SMALL = " --simulations 20" + _PLACE


def _rehearsed(place: Place) -> str:
    """Id of the session that the rehearsal made."""
    return str(json.loads((place.folder / "rehearsal" / "rehearsal.json").read_text(encoding="utf-8"))["session"])


def session_rows(created: str) -> dict[str, Row]:
    """A row a command.

    Args:
        created: the command that makes a session.
    """
    power = "cxr-lens review power SESSION"
    of_session = {"given": {"SESSION": lambda place: place.session}, "after": created}
    invites = "cxr-lens review invite SESSION anna --address https://YOUR.SERVER"
    planned = {"more": _SMALL, "given": {"SESSION": _rehearsed}, "after": _SIMULATED, "slow": True}
    return {
        "cxr-lens review backup copy.jsonl.gz": Row(says="checked", after=created),
        "cxr-lens review restore copy.jsonl.gz --database new.sqlite": Row(
            says="checked", after="cxr-lens review backup copy.jsonl.gz"
        ),
        "python -m training.bench.readers": Row(" count --studies 1", instead=process, says="counts"),
        invites: Row(**of_session, says="invite="),
        "cxr-lens review remind SESSION --address https://YOUR.SERVER": Row(**of_session, says="/review"),
        "cxr-lens review sheet design.toml": Row(says="Pre-registration"),
        'cxr-lens review amend SESSION --minutes 60 --reason "The pilot was too slow"': Row(
            **of_session, says="Time limit"
        ),
        "cxr-lens review verify --seal SEAL": Row(
            instead=elsewhere, as_far="a closed session has one: tests/test_review_evidence.py gives it"
        ),
        _SIMULATED: Row(slow=True, says="rehearsal/report.html"),
        "cxr-lens review simulate SESSION --out rehearsed": Row(
            given={"SESSION": lambda place: place.session}, after=created, slow=True, says="rehearsed/codebook.md"
        ),
        f"{power} --change=-10% --readers 3 --cases 40 --cases 80": Row(
            **planned, says="With 3 readers and 80 cases it is found in"
        ),
        f"{power} --of errors --change=-25% --readers 3": Row(
            **planned, says="With 3 readers and 40 cases it is found in"
        ),
        "cxr-lens review compare SESSION": Row(
            _PLACE, {"SESSION": _rehearsed}, _SIMULATED, slow=True, says="Poisson mixed model"
        ),
        "cxr-lens review compare SESSION --of errors --margin 20%": Row(
            _PLACE, {"SESSION": _rehearsed}, _SIMULATED, slow=True, says="by less than 20%: (not )?shown"
        ),
        f"{power} --change=0% --margin 10% --readers 3": Row(**planned, says="not worse by 10%"),
    }
