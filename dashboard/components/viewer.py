"""A radiograph to read: window, level, zoom, pan, invert and overlays, all in the browser."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.types import FloatImage

_FOLDER = Path(__file__).parent
_COMPONENT = st.components.v2.component(
    "cxr_viewer",
    html=(_FOLDER / "viewer.html").read_text(encoding="utf-8"),
    css=(_FOLDER / "viewer.css").read_text(encoding="utf-8"),
    js="\n".join((_FOLDER / name).read_text(encoding="utf-8") for name in ("viewer.js", "viewer_mount.js")),
)


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
    spacing: tuple[float, float] | None = None,
) -> bytes:
    """Pack image and overlays for the browser.

    Layout: header length (uint32), header (JSON, padded with spaces to a multiple of 4), pixels (uint16), then each
    overlay's values (uint8), all little-endian.

    Args:
        pixels: (H, W), values in [0, 1].
        study: names the image; the view is kept while it stays the same.
        bits: grey levels shown to the reader are 0 to 2 ** bits - 1.
        overlays: what may be laid over it.
        spacing: (row, column) distance of the pixels' centres in millimetres, for the ruler; None if it is not known.
    """
    height, width = pixels.shape
    levels = 2 ** min(max(bits, 8), 16) - 1
    header = json.dumps(
        {
            "study": study,
            "width": width,
            "height": height,
            "levels": levels,
            "spacing": spacing,
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
        np.round(np.clip(pixels, 0, 1) * levels).astype("<u2").tobytes(),
    ]
    parts += [np.round(np.clip(o.values.astype(np.float32), 0, 1) * 255).astype(np.uint8).tobytes() for o in overlays]
    return b"".join(parts)


def viewer(pixels: FloatImage, *, study: str, bits: int, overlays: Sequence[Overlay] = (), key: str = "viewer") -> None:
    """Show a radiograph. Nothing that the reader does in it goes to the server."""
    _COMPONENT(data=pack(pixels, study=study, bits=bits, overlays=overlays), key=key)
