"""A radiograph to read: window, level, zoom, pan, invert and overlays, all in the browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.studies.images import Grey
from core.types import FloatImage
from dashboard.components.source import script, source

_COMPONENT = st.components.v2.component(
    "cxr_viewer",
    html=source("viewer/viewer.html"),
    css=source("viewer/viewer.css", "print.css"),
    js=script("viewer/mount.js"),
)


_BYTE = 255
"""The most that a byte holds."""


@dataclass(frozen=True, slots=True)
class Overlay:
    """Something to lay over the image.

    Attributes:
        label: for the legend.
        group: overlays of a group are switched together by one button of this name.
        kind: a mask is outlined, a heat map is coloured cell by cell, without smoothing; a picture, in grey, hides
            what is below.
        values: (h, w), masks in {0, 1}, heat maps and pictures in [0, 1].
        place: where the values lie: top, left, height, width, as fractions of the image.
    """

    label: str
    group: str
    kind: Literal["mask", "heat", "picture"]
    values: npt.NDArray[np.generic]
    place: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)


def pack(
    pixels: FloatImage,
    *,
    study: str,
    bits: int,
    overlays: Sequence[Overlay],
    grey: Grey | None = None,
    spacing: tuple[float, float] | None = None,
    shrunk: tuple[float, float] = (1.0, 1.0),
    regions: bool = False,
) -> bytes:
    """Pack image and overlays for the browser.

    Layout: header length (uint32), header (JSON, padded with spaces to a multiple of 4), pixels (uint8 where "levels"
    fit, else uint16), then each overlay's values, all little-endian: uint8, or for a mask bits, the first of a byte
    its highest.

    Args:
        pixels: (H, W), values in [0, 1].
        study: names the image; the view is kept while it stays the same.
        bits: grey levels shown to the reader are 0 to 2 ** bits - 1.
        overlays: what may be laid over it.
        grey: the file's own values (H, W): they are sent then, with the file's window, and ``pixels`` are not.
        spacing: (row, column) distance of the pixels' centres in millimetres, for the ruler; None if it is not known.
        shrunk: (row, column) pixels of the original that one of these stands for; without a spacing, the ruler counts
            those of the original.
        regions: offer the tool that draws one.
    """
    height, width = pixels.shape
    levels = 2 ** min(max(bits, 8), 16) - 1
    sent = np.round(np.clip(pixels, 0, 1) * levels) if grey is None else grey.levels
    units: dict[str, object] | None = None
    if grey is not None:
        levels = int(grey.levels.max())
        centre, width_of = grey.window
        window = ((centre - grey.first) / grey.step, max(width_of / grey.step, 1.0))
        units = {"first": grey.first, "step": grey.step, "window": window, "inverse": grey.inverse}
    header = json.dumps(
        {
            "study": study,
            "width": width,
            "height": height,
            "levels": levels,
            "grey": units,
            "spacing": spacing,
            "shrunk": shrunk,
            "regions": regions,
            "overlays": [
                {
                    "label": overlay.label,
                    "group": overlay.group,
                    "kind": overlay.kind,
                    "height": overlay.values.shape[0],
                    "width": overlay.values.shape[1],
                    "place": overlay.place,
                }
                for overlay in overlays
            ],
        }
    ).encode()
    header += b" " * (-len(header) % 4)
    parts = [
        len(header).to_bytes(4, "little"),
        header,
        sent.astype(np.uint8 if levels <= _BYTE else "<u2").tobytes(),
        *(_sent(overlay) for overlay in overlays),
    ]
    return b"".join(parts)


def _sent(overlay: Overlay) -> bytes:
    if overlay.kind == "mask":
        return np.packbits(overlay.values.astype(bool)).tobytes()
    values: npt.NDArray[np.uint8] = np.round(np.clip(overlay.values.astype(np.float32), 0, 1) * _BYTE).astype(np.uint8)
    return values.tobytes()


def viewer(
    pixels: FloatImage,
    *,
    study: str,
    bits: int,
    overlays: Sequence[Overlay] = (),
    grey: Grey | None = None,
    spacing: tuple[float, float] | None = None,
    on_region: Callable[[], None] | None = None,
    key: str = "viewer",
) -> list[float] | None:
    """Show a radiograph. Nothing that the reader does in it goes to the server, but a region that is drawn.

    Args:
        pixels: (H, W), values in [0, 1].
        study: names the image.
        bits: grey levels of the original are 2 ** bits.
        overlays: what may be laid over it.
        grey: as of `pack`.
        spacing: as of `pack`.
        on_region: called before the next run, when a region is drawn.
        key: unique on the page.

    Returns:
        The region drawn in this run: left, top, right, bottom, fractions of the image.
    """
    result = _COMPONENT(
        data=pack(
            pixels, study=study, bits=bits, overlays=overlays, grey=grey, spacing=spacing, regions=on_region is not None
        ),
        key=key,
        on_region_change=on_region or (lambda: None),
    )
    return result.region


@dataclass(frozen=True, slots=True)
class Panel:
    """A heat map over the radiograph.

    Attributes:
        label: shown where several panels stand side by side.
        values: (h, w) cells, any scale; all panels share one.
        place: where the cells lie: top, left, height, width, fractions of the image; what is outside it is not shown.
        signed: below 0 has a meaning.
        filled: coloured; else only its outline is drawn, and the picture says why.
        untrusted: why it is not to be taken for a place. A map that stands alone is then drawn only when the reader
            asks for it, and this stands on the image instead.
    """

    label: str
    values: npt.NDArray[np.float32]
    place: tuple[float, float, float, float]
    signed: bool
    filled: bool = True
    untrusted: str = ""


_HEAT = st.components.v2.component("cxr_heat", html="<i hidden></i>", js=script("heat.js"))


def heat_maps(
    panels: Sequence[Panel],
    *,
    study: str,
    region: Sequence[float] | None = None,
    cover: str = "blank",
    key: str = "heat",
) -> None:
    """Lay heat maps over the viewer's radiograph, side by side on one colour scale, and cover a region.

    They go to the browser apart from the image, which is a hundred times larger. Call it on every run, also without
    panels: the viewer shows what came last.

    Args:
        panels: a map each.
        study: names the image, as for `viewer`.
        region: left, top, right, bottom, fractions of the image; None for none.
        cover: "blank", even grey, or "blur".
        key: unique on the page.
    """
    largest = max((float(np.abs(panel.values).max()) for panel in panels), default=0.0) or 1.0
    maps = [
        {
            "label": panel.label,
            "height": panel.values.shape[0],
            "width": panel.values.shape[1],
            "place": panel.place,
            "signed": panel.signed,
            "filled": panel.filled,
            "untrusted": panel.untrusted,
            "values": base64.b64encode(np.round(panel.values / largest * 127).astype(np.int8).tobytes()).decode(),
        }
        for panel in panels
    ]
    data = {
        "study": study,
        "maps": json.dumps(maps),
        "scale": f"{largest:.1f}",
        "region": None if region is None else list(region),
        "cover": cover,
    }
    _HEAT(data=data, key=key)
