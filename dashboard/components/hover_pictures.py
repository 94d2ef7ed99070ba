"""A small radiograph beside the pointer, for the study of the point it is on, on any map of the page."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping

import streamlit as st

from dashboard.components.source import script, source

_COMPONENT = st.components.v2.component(
    "cxr_hover_pictures",
    html="<img class='picture' hidden>\n",
    css=source("hover_pictures.css"),
    js=script("hover_pictures.js"),
)


def hover_pictures(pictures: Mapping[str, bytes], *, key: str, on_ask: Callable[[], None]) -> None:
    """Hear which points of plotly's charts the pointer is on, by their ``customdata``, a study's id.

    In session state, under ``key``: "ask" is the study whose picture is wanted; the browser keeps those it was given.

    Args:
        pictures: study id -> JPEG.
        key: unique on the page.
        on_ask: called when "ask" is set.
    """
    data = {"pictures": {name: base64.b64encode(picture).decode() for name, picture in pictures.items()}}
    _COMPONENT(key=key, data=data, on_ask_change=on_ask)
