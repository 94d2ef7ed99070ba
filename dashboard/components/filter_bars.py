"""CCVE's answer to "where does this word come from": a bar a filter, beside the filtered image."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard.components.filter_pictures import grey_picture

_STYLE = """
<style>
.cxr-bars { display: grid; grid-template-columns: 2.2rem minmax(7rem, 11rem) 1fr 4.2rem; gap: .2rem .5rem;
  align-items: center; font-size: .78rem; line-height: 1.2; }
.cxr-bars img { width: 2.2rem; display: block; border-radius: 3px; background: #000; }
.cxr-bars .track { position: relative; height: .75rem; background: #8883; border-radius: 2px; }
.cxr-bars .track i { position: absolute; top: 0; bottom: 0; border-radius: 2px; background: #e69f00; }
.cxr-bars .track i.against { background: #56b4e9; }
.cxr-bars .track b { position: absolute; top: 0; bottom: 0; left: 50%; width: 1px; background: #8889; }
.cxr-bars .value { text-align: right; font-variant-numeric: tabular-nums; }
</style>
"""


Kind = Literal["share", "change", "rank"]
_ABOUT: Mapping[Kind, str] = {
    "share": "Share of each filter. The line marks an even share, {even:.1%}.",
    "change": "How much each filter speaks for these words (orange, right) or against them (blue, left): change of "
    "their log-likelihood.",
    "rank": "How typical the filtered picture is of its finding: 100 % is more typical than in all other studies, the "
    "line marks the middle of them.",
}


def filter_bars(
    images: npt.NDArray[np.float32], names: Sequence[str], values: npt.NDArray[np.float32], *, kind: Kind
) -> None:
    """Show values of filters, the strongest first.

    Args:
        images: (K, H, W), in the grey levels of the radiograph: 0 is black, 1 is white.
        names: K.
        values: (K,).
        kind: shares that sum to 1; changes of the words' log-likelihood, whose bars go left for what speaks against
            them; or ranks among other studies, 0 to 1.
    """
    even = 1 / len(names)
    largest = 1.0 if kind == "rank" else max(float(np.abs(values).max()), 1e-9)
    line = {"share": even / largest, "change": None, "rank": 0.5}[kind]
    mark = "" if line is None or line > 1 else f"<b style='left:{100 * line:.1f}%'></b>"
    rows = []
    for index in np.argsort(-np.abs(values), kind="stable"):
        value, name = float(values[index]), html.escape(names[index])
        length = 100 * abs(value) / largest
        if kind == "change":
            side = f"left:{50 - length / 2 if value < 0 else 50:.1f}%;width:{length / 2:.1f}%"
            text, middle = f"{value:+.2f}", "<b></b>"
        else:
            side, text, middle = f"left:0;width:{length:.1f}%", f"{value:.0%}", mark
        against = " class='against'" if value < 0 else ""
        rows.append(
            f"<img src='{grey_picture(images[index])}' alt=''><span>{name}</span>"
            f"<span class='track' aria-hidden='true'><i{against} style='{side}'></i>{middle}</span>"
            f"<span class='value'>{text}</span>"
        )
    st.html(f"{_STYLE}<div class='cxr-bars' role='group' aria-label='By filter'>{''.join(rows)}</div>")
    st.caption(_ABOUT[kind].format(even=even))
