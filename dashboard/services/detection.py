"""In: what was measured of detection, on disk. Out: curves by system, and the films that they were measured on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import streamlit as st

from core.detection.results import FILE, DetectionResult, read_result
from core.detection.study import Detection
from core.files import is_unfinished
from core.studies.phantom.graded import DRAWN, GRADED, Film, GradedFilms
from core.studies.sources import EXAMPLE_TITLE
from core.types import CXRLensError
from dashboard import figures, settings
from dashboard.services import bundles, sources

EXAMPLE = "example"
_EXAMPLES = 2  # of the packaged films, those in which a finding can be drawn
_CURVE = np.linspace(0, 1, 101)


def found() -> tuple[Mapping[str, DetectionResult], Mapping[str, str]]:
    """What was measured, by its title, one's own before ours; messages of damaged files, by their names."""
    results: dict[str, DetectionResult] = {}
    damaged: dict[str, str] = {}
    for folder in settings.detections():
        for path in sorted(folder.glob(f"*/{FILE}")):
            if is_unfinished(path.parent):
                continue
            try:
                result = _read(str(path), path.stat().st_mtime_ns)
            except (CXRLensError, OSError) as error:
                damaged[path.parent.name] = str(error)
                continue
            results.setdefault(result.title, result)
    return dict(sorted(results.items())), damaged


@st.cache_resource(max_entries=64, show_spinner=False)
def _read(path: str, changed: int) -> DetectionResult:
    return read_result(Path(path))


def titles(result: DetectionResult) -> Mapping[str, str]:
    """What a reader calls each system of a result, by its name."""
    cards = {name: bundles.card_named(name) for name in result.systems}
    named = {name: name if card is None else bundles.title_of(card) for name, card in cards.items()}
    often = list(named.values())
    return {
        name: title if card is None or often.count(title) == 1 else f"{title}, {bundles.family_title(card.family)}"
        for (name, title), card in zip(named.items(), cards.values(), strict=True)
    }


@dataclass(frozen=True, slots=True)
class Shown:
    """Films that a page shows with a result.

    Attributes:
        name: of their source, as an address has it.
        design: which there are.
        note: what is to be said of them; "" for synthetic chests.
    """

    name: str
    design: GradedFilms
    note: str


def films(result: DetectionResult) -> Shown:
    """The films of a result; where real films are not here, others with the same finding, and a note that says so.

    Raises:
        CXRLensError: there are none to show.
    """
    if result.real is None:
        return Shown(result.design.spec, result.design, "")
    drawn = f"A {result.design.finding.lower()} drawn into a real normal film of {{}}: the patient had none."
    where = sources.with_images(result.real.fingerprint)
    if where is not None:
        return Shown(_drawn_into(where, result.design), result.design, drawn.format(result.real.title))
    if EXAMPLE not in sources.catalogue().specs:
        raise CXRLensError(f"The films of {result.real.title} are not here; give their index with --source.")
    one = replace(result.design, chests=_EXAMPLES)
    note = (
        f"{drawn.format(f'the {EXAMPLE_TITLE.lower()}')} The films that were measured, of {result.real.title}, are not "
        "here."
    )
    return Shown(_drawn_into(EXAMPLE, one), one, note)


def _drawn_into(source: str, design: GradedFilms) -> str:
    """Name of the source that a design makes of the films of another."""
    return f"{DRAWN}{design.spec.removeprefix(GRADED)}:{source}"


def film_at(result: DetectionResult, chest: int, place: tuple[str, str], step: int) -> Film:
    """A film: ``step`` 0 is the chest without the finding."""
    for side, site in result.design.places:
        if (side, site) == place:
            return Film(chest, step, side, site) if step else Film(chest)
    raise ValueError(f"no such place: {place}")


def rise(name: str, detection: Detection) -> figures.Rise:
    """A system's curve at a place, to be drawn."""
    points = detection.points
    return figures.Rise(
        name,
        [point.extent for point in points],
        [point.mentioned / point.reports for point in points],
        (_CURVE, detection.curve.share(_CURVE)),
    )
