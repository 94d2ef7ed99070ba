"""Serve the dashboard behind its guard, and meanwhile read what the first page needs: ``cxr-lens dashboard`` runs this.

In: Streamlit's options. Out: a server whose first visitor does not wait for Python to read a thousand files.
"""

from __future__ import annotations

import importlib
import sys
import threading
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware
from streamlit.web import cli

# As in app.py: nothing here is found by the folder in which the program was started.
CODE = str(Path(__file__).resolve().parent.parent)
if CODE not in sys.path:
    sys.path.insert(0, CODE)

from dashboard.guard import Guard, stay_inside  # noqa: E402

stay_inside()

# Streamlit finds this by its name: it serves what it is.
app = st.App(Path(__file__).with_name("app.py"), middleware=[Middleware(Guard)])

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
"""What the next click needs: the film of the first page does not wait for it."""


def get_ready() -> None:
    """Read the modules of the first page, torch not among them, and the texts of its studies; then the rest."""
    for name in FIRST_PAGE:
        importlib.import_module(name)
    read_first_studies()
    for name in LATER:
        importlib.import_module(name)


def read_first_studies() -> None:
    """Write the texts of the studies that the first page lists, and mark some: what comes of both is kept."""
    from core.labels.rules import label_report
    from core.types import CXRLensError
    from dashboard.services import sources

    try:
        source = sources.source(next(iter(sources.catalogue().specs)))
        texts = [source.study(study_id).findings for study_id in source.ids("test")]
    except CXRLensError:  # the page says it
        return
    for text in texts[:_MARKED]:
        label_report(text)  # the expressions of rules are compiled when they are first used


_MARKED = 12  # ours: reports; with them most of the rules that a report needs are there


if __name__ == "__main__":
    threading.Thread(target=get_ready, daemon=True, name="ready").start()
    cli.main(["run", __file__, *sys.argv[1:]], prog_name="streamlit")
