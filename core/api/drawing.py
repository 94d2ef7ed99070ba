"""Films, marked texts and maps in, what a notebook shows of them out: pictures, and HTML without a script."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.labels.rules import Mention
from core.observations import LabelState
from core.types import FloatImage

SIDE = 352
"""Longer side of a picture, pixels."""

NOTICE = "Research use only. Not for use in diagnostic procedures."

_FOR, _AGAINST = np.array([255, 140, 0], np.float32), np.array([64, 140, 255], np.float32)  # apart for the colour-blind
_STRONGEST = 0.7  # of the colour, where a map is strongest
_STYLES = {
    LabelState.POSITIVE: "background:rgba(255,140,0,.3);border-bottom:2px solid #e07b00",
    LabelState.UNCERTAIN: "border-bottom:2px dashed #e07b00",
    LabelState.NEGATIVE: "border-bottom:2px dotted #888",
}


def film(pixels: FloatImage, side: int = SIDE) -> Image.Image:
    """A radiograph (H, W) in [0, 1] as a grey picture with a longer side of ``side`` pixels."""
    height, width = pixels.shape
    scale = side / max(height, width)
    shown = Image.fromarray(np.round(pixels * 255).astype(np.uint8))
    return shown.resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)


def film_with_map(pixels: FloatImage, values: FloatImage, *, smoothing: float = 0, side: int = SIDE) -> Image.Image:
    """A map (H, W) over its radiograph (H, W): orange where it speaks for the words, blue where against.

    Args:
        pixels: in [0, 1].
        values: of any scale; the strongest, of either sign, gets the full colour.
        smoothing: standard deviation of a Gaussian over the map, share of the longer side.
        side: longer side of the picture, pixels.
    """
    if smoothing:
        values = gaussian_filter(values, smoothing * max(values.shape))
    shown = film(pixels, side)
    strength = np.asarray(
        Image.fromarray(np.asarray(values, np.float32)).resize(shown.size, Image.Resampling.BILINEAR), np.float32
    )
    share = (_STRONGEST * strength / (np.abs(values).max() or 1))[..., None]
    grey = np.asarray(shown, np.float32)[..., None]
    mixed = grey * (1 - np.abs(share)) + np.where(share > 0, _FOR, _AGAINST) * np.abs(share)
    return Image.fromarray(np.round(mixed).clip(0, 255).astype(np.uint8))


def picture_html(image: Image.Image, caption: str) -> str:
    """A picture with its caption."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=80)
    data = base64.b64encode(out.getvalue()).decode()
    alt = html.escape(caption, quote=True)
    return (
        f'<figure style="display:inline-block;margin:0 1em .5em 0;vertical-align:top;max-width:{image.width}px">'
        f'<img src="data:image/jpeg;base64,{data}" alt="{alt}" width="{image.width}" height="{image.height}">'
        f'<figcaption style="font-size:.85em">{html.escape(caption)}</figcaption></figure>'
    )


def marked_html(text: str, mentions: Iterable[Mention]) -> str:
    """A text with the words underlined that speak of an observation; pointing at one tells which, and its state."""
    parts, at = [], 0
    for mention in sorted(mentions, key=lambda each: (each.start, -each.end)):
        if mention.start < at:
            continue  # inside of a longer one
        why = f" ({mention.reason})" if mention.reason else ""
        title = html.escape(f"{mention.observation}: {mention.state}{why}", quote=True)
        parts.append(html.escape(text[at : mention.start]))
        words = html.escape(text[mention.start : mention.end])
        parts.append(f'<span style="{_STYLES[mention.state]}" title="{title}">{words}</span>')
        at = mention.end
    return "".join([*parts, html.escape(text[at:])])


def text_html(text: str, mentions: Iterable[Mention], lines: Iterable[str]) -> str:
    """A marked text, and small lines under it."""
    small = "".join(f'<div style="font-size:.85em;margin-top:.4em">{html.escape(each)}</div>' for each in lines)
    marked = marked_html(text, mentions)
    return f'<div style="display:inline-block;max-width:32em;vertical-align:top"><div>{marked}</div>{small}</div>'


def bars_html(names: Sequence[str], values: npt.NDArray[np.float32], caption: str) -> str:
    """A bar a value, from the strongest down: orange above zero, blue below."""
    largest = float(np.abs(values).max()) or 1.0
    rows = []
    for index in np.argsort(-np.abs(values), kind="stable"):
        value = float(values[index])
        colour = "#e07b00" if value > 0 else "#408cff"
        bar = f'<div style="height:.8em;width:{abs(value) / largest * 12:.1f}em;background:{colour}"></div>'
        rows.append(
            f'<tr><td style="text-align:left">{html.escape(names[index])}</td><td>{value:+.3f}</td>'
            f'<td style="text-align:left">{bar}</td></tr>'
        )
    return f'<table><caption style="text-align:left">{html.escape(caption)}</caption>{"".join(rows)}</table>'
