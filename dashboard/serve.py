"""Serve the dashboard behind its guard, and meanwhile read what the first page needs: ``cxr-lens dashboard`` runs this.

In: Streamlit's options. Out: a server whose first visitor does not wait for Python to read a thousand files.
"""

from __future__ import annotations

import importlib
import inspect
import sys
import threading
from contextlib import suppress
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit.web import cli

# As in app.py: nothing here is found by the folder in which the program was started.
CODE = str(Path(__file__).resolve().parent.parent)
if CODE not in sys.path:
    sys.path.insert(0, CODE)

from core.types import CXRLensError  # noqa: E402
from dashboard import first_paint  # noqa: E402
from dashboard.guard import Guard, stay_inside  # noqa: E402

stay_inside()

# Streamlit finds this by its name: it serves what it is.
app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(Guard), Middleware(first_paint.FirstPaint)])

FIRST_PAGE = (
    "dashboard.access",
    "dashboard.components.picker",
    "dashboard.components.report",
    "dashboard.components.viewer",
    "dashboard.read.agreement",
    "dashboard.read.questions",
    "dashboard.services.filters",
)
LATER = (
    "core.studies.indexed",
    "core.reviews.store",
    "dashboard.components.study_map",
)
"""What the next click needs. Python runs one thread at a time: they would slow the first page, which comes first."""
WAIT = 10
"""Seconds after which they are read although nobody has come; ours."""


def get_ready() -> None:
    """Read what the first page needs, its modules, torch not among them, and its study; the rest after it was shown.

    Nothing where the environment cannot be used: the page says so, and asks for none of them.
    """
    if importlib.import_module("dashboard.settings").fault():
        first_paint.keep(None)
        return
    tell_again()
    first_studies = importlib.import_module("dashboard.services.first_studies")
    first_paint.keep(first_studies.open_film())
    for name in FIRST_PAGE:
        importlib.import_module(name)
    first_studies.open_first()
    inspect.stack()  # Streamlit asks for it once, and it looks for the file of every module: not while somebody waits
    importlib.import_module("dashboard.first_page").SHOWN.wait(WAIT)
    first_studies.label_more()
    for name in LATER:
        importlib.import_module(name)


def tell_again() -> None:
    """Tell what was told before, or what ships, where nobody signs in."""
    with suppress(CXRLensError):  # nobody may come in: the page says why
        if not importlib.import_module("dashboard.access").has_login():
            first_paint.recall()


if __name__ == "__main__":
    threading.Thread(target=get_ready, daemon=True, name="ready").start()
    cli.main(["run", __file__, *sys.argv[1:]], prog_name="streamlit")
