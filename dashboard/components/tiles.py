"""CCVE's filtered images as a row of tiles."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import streamlit as st

from dashboard.components.filter_pictures import grey_picture

_STYLE = """
<style>
.cxr-tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(var(--tile), 1fr)); gap: 0.5rem; }
.cxr-tiles figure { margin: 0; min-width: 0; }
.cxr-tiles img { width: 100%; display: block; border-radius: 6px; background: #000; }
.cxr-tiles figcaption { font-size: 0.74rem; line-height: 1.25; margin-top: 0.25rem; overflow-wrap: anywhere; }
.cxr-tiles .frame { position: relative; }
.cxr-tiles .weight { position: absolute; right: 0.25rem; bottom: 0.25rem; padding: 0 0.3rem; border-radius: 4px;
  font-size: 0.74rem; font-variant-numeric: tabular-nums; color: #fff; background: rgb(0 0 0 / 65%); }
.cxr-tiles .bar { height: 4px; border-radius: 2px; background: #8884; margin-top: 0.25rem; }
.cxr-tiles .bar i { display: block; height: 100%; border-radius: 2px; background: #e69f00; }
</style>
"""


def tiles(
    images: npt.NDArray[np.float32],
    names: Sequence[str],
    weights: npt.NDArray[np.float32] | None,
    *,
    smallest: int = 86,
) -> None:
    """Show images with their names and, where known, weights.

    Args:
        images: (K, H, W), in the grey levels of the radiograph: 0 is black, 1 is white.
        names: K.
        weights: (K,), sum 1; a bar as long as the largest weight's fills the tile.
        smallest: width of a tile, pixels.
    """
    figures = []
    for index, name in enumerate(names):
        source = grey_picture(images[index])
        caption, weight, bar = html.escape(name).replace("mediastinum", "&shy;mediastinum"), "", ""
        if weights is not None:
            share = float(weights[index])
            weight = f"<span class='weight'>{share:.0%}</span>"
            bar = f"<div class='bar'><i style='width:{100 * share / max(float(weights.max()), 1e-9):.0f}%'></i></div>"
        alt = html.escape(f"Radiograph through the filter of {name}")
        frame = f"<div class='frame'><img src='{source}' alt='{alt}'>{weight}</div>"
        figures.append(f"<figure>{frame}{bar}<figcaption>{caption}</figcaption></figure>")
    st.html(f"{_STYLE}<div class='cxr-tiles' style='--tile:{smallest}px'>{''.join(figures)}</div>")
