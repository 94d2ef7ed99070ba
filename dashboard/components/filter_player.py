"""CCVE's filters as tiles, played through the words of a report. Playing is the browser's: no word asks the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import streamlit as st

from dashboard.components.filter_pictures import Values
from dashboard.components.source import script, source

_COMPONENT = st.components.v2.component(
    "cxr_filter_player",
    html="<div class='player'>\n</div>",
    css=source("filter_player.css"),
    js=script("filter_player.js"),
)


@dataclass(frozen=True, slots=True)
class Side:
    """Filters and how much they are looked at: the trained ones, or the untrained control.

    Attributes:
        images: 13 data URIs.
        responses: (13, F), gain by frequency.
        summary: (13,), share of the attention in summary.
        words: (T, 13), share of each word's attention.
    """

    images: Sequence[str]
    responses: Values
    summary: Values
    words: Values


def filter_player(
    shown: str,
    names: Sequence[str],
    words: Sequence[str],
    trained: Side,
    control: Side | None,
    *,
    summary: str,
    image: str,
    notes: Sequence[str],
    off: Sequence[str],
    word: int | None,
    chosen: str,
    on_change: Callable[[], None],
    key: str,
) -> None:
    """Show the tiles, the words, and what plays through them.

    Args:
        shown: names study and pair; while it stays the same the word that is shown is kept.
        names: of the filters.
        words: of the report.
        trained: the filters.
        control: untrained filters, drawn beside them; None hides them.
        summary: what the shares in summary are.
        image: the radiograph before the filters.
        notes: a line under each tile.
        off: filters that are switched off.
        word: index of the word that is shown at first; None for the summary.
        chosen: filter whose tile is marked.
        on_change: called when a reader stopped at a word or chose a tile; ``st.session_state[key]`` has ``word`` (-1 is
            the summary) and ``filter``.
        key: of the element.
    """
    _COMPONENT(
        data={
            "shown": shown,
            "names": list(names),
            "words": list(words),
            "summary": summary,
            "image": image,
            "notes": list(notes),
            "off": [name in off for name in names],
            "word": -1 if word is None else word,
            "chosen": chosen,
            "sides": [_side(each) for each in (trained, control) if each is not None],
        },
        key=key,
        on_word_change=on_change,
        on_filter_change=on_change,
    )


def _side(side: Side) -> dict[str, object]:
    return {
        "images": list(side.images),
        "responses": np.round(side.responses.astype(float), 3).tolist(),
        "summary": np.round(side.summary.astype(float), 4).tolist(),
        "words": np.round(side.words.astype(float), 4).tolist(),
    }
