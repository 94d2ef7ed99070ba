"""How every page draws what CCVE makes of an X-ray: on fixed scales, so that what is unchanged looks unchanged."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.float32]

FULL_CHANGE = 0.1
"""Change of a pixel that is drawn in full colour, share of the grey scale; the same for all filters and studies."""

GREY_SCALE = "All have the X-ray's own grey scale: a filter that changes nothing shows the X-ray itself."
CHANGE_SCALE = (
    "Orange is brighter than the X-ray, blue is darker, dark grey is unchanged. Full colour means a change by "
    f"{FULL_CHANGE:.0%} of the grey scale or more, for every filter and every study."
)

BELOW, ABOVE = np.array([0x56, 0xB4, 0xE9]), np.array([0xE6, 0x9F, 0x00])
"""Ends of the diverging scale: darker than the input, brighter. They differ also in lightness from the middle."""

MIDDLE = np.array([0x16, 0x19, 0x1D])


def grey_picture(image: Values) -> str:
    """An image (H, W) as a data URI: 0 is black, 1 is white, and what lies beyond is cut off."""
    return _uri(np.clip(image, 0, 1) * 255)


def change_picture(image: Values, before: Values) -> str:
    """What became of an image (H, W), as a data URI: blue is darker, orange brighter, see ``FULL_CHANGE``."""
    share = np.clip((image - before) / FULL_CHANGE, -1, 1)[..., None]
    return _uri(MIDDLE + np.maximum(share, 0) * (ABOVE - MIDDLE) + np.maximum(-share, 0) * (BELOW - MIDDLE))


def _uri(values: npt.NDArray[np.floating]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.round(values).astype(np.uint8)).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
