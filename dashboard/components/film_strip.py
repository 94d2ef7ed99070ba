"""A row of small films with a word below each."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence

import streamlit as st

_STYLE = """
<style>
.cxr-strip { display: flex; gap: 0.35rem; overflow-x: auto; }
.cxr-strip figure { margin: 0; flex: 1 1 0; min-width: 56px; max-width: 112px; }
.cxr-strip img { width: 100%; height: auto; display: block; border-radius: 4px; outline: 2px solid transparent; }
.cxr-strip .here img { outline-color: #d55e00; }
.cxr-strip figcaption { font-size: 0.74rem; text-align: center; margin-top: 0.2rem; }
</style>
"""


def film_strip(jpegs: Sequence[bytes | None], names: Sequence[str], *, current: str) -> None:
    """Show films in a row.

    Args:
        jpegs: of the films; None where one cannot be drawn.
        names: below them.
        current: the one that is open; outlined.
    """
    figures = []
    for jpeg, name in zip(jpegs, names, strict=True):
        if jpeg is None:
            continue
        source = f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"
        told = html.escape(name)
        here = " class='here'" if name == current else ""
        figures.append(
            f"<figure{here}><img src='{source}' alt='Film, extent {told}'><figcaption>{told}</figcaption></figure>"
        )
    strip = "<div class='cxr-strip' tabindex='0' role='group' aria-label='The film at each extent'>"
    st.html(f"{_STYLE}{strip}{''.join(figures)}</div>")
