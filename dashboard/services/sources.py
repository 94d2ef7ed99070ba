"""In: what whoever runs the server named. Out: the sources of studies that pages offer, and the one that is chosen.

An address holds a source's short name, never a path. Files that a user gave are a source too, of one session.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import streamlit as st

from core import paths
from core.studies.folder import UploadSource
from core.studies.images import Radiograph
from core.studies.phantom import GradedSource, parse_films
from core.studies.phantom.graded import DRAWN, GRADED, DesignedSource
from core.studies.source import Source
from core.studies.sources import Catalogue, SourceError, parse_drawn
from core.types import CXRLensError
from dashboard import session, settings
from dashboard.services import bundles

UPLOAD = "upload"
"""Short name of the files that this session was given."""
_OWN = "Your own files"
_FRESH = 60  # seconds for which the titles of sources are not read again


def catalogue() -> Catalogue:
    """The sources that whoever runs the server named, see `settings.sources`, after those that come along."""
    specs = _specs()
    return _catalogue(specs, _stamp(specs))


def names() -> dict[str, str]:
    """Title of each source by its short name, which stands in the address; the first is the default."""
    specs = _specs()
    wanted = st.session_state.get(session.SOURCE)
    return {**_titles(specs, _stamp(specs)), UPLOAD: _OWN, **_drawn(wanted)}


def chosen() -> str:
    """Short name of the chosen source; the first where none is chosen, or one that there is not, see `unknown`."""
    wanted, known = st.session_state.get(session.SOURCE), names()
    return str(wanted) if wanted in known else next(iter(known))


def unknown() -> str:
    """What to say where the address asks for a source that there is not; "" where it does not."""
    wanted = st.session_state.get(session.SOURCE)
    if not wanted or wanted in names():
        return ""
    try:
        catalogue().open(str(wanted))
    except SourceError as error:
        return f"{error} Showing {names()[chosen()]}."
    return ""


def source(name: str | None = None) -> Source:
    """A source, opened; the chosen one unless another is named.

    Raises:
        CXRLensError: there is none of this name, or it cannot be opened.
    """
    name = chosen() if name is None else name
    if name.startswith((GRADED, DRAWN)):
        return designed(name)
    return UploadSource(uploads(), _OWN) if name == UPLOAD else catalogue().open(name)


@st.cache_resource(max_entries=8, show_spinner=False)
def designed(name: str) -> DesignedSource:
    """Chests with one finding turned up, by the whole name of their design.

    Raises:
        CXRLensError: there is no such design, or no such source whose films it is drawn into.
    """
    if name.startswith(GRADED):
        return GradedSource(parse_films(name.removeprefix(GRADED)))
    from core.studies.drawn.source import DrawnSource  # brings the labeler

    design, films = parse_drawn(name.removeprefix(DRAWN))
    found = DrawnSource(design, catalogue().open(films))
    found.film_of(0)  # says why where no film can be used
    return found


def _drawn(wanted: object) -> dict[str, str]:
    """Title of the chosen source by its name, where it is drawn by its name."""
    if not isinstance(wanted, str) or not wanted.startswith((GRADED, DRAWN)):
        return {}
    try:
        return {wanted: designed(wanted).title}
    except CXRLensError:
        return {}


def with_images(fingerprint: str) -> str | None:
    """Short name of the source of real films whose images have a fingerprint; None where it is not here."""
    specs = _specs()
    return _with_images(fingerprint, specs, _stamp(specs))


@st.cache_data(max_entries=8, ttl=_FRESH, show_spinner=False)
def _with_images(fingerprint: str, specs: tuple[str, ...], stamp: tuple[int, ...]) -> str | None:
    """Kept: of a folder of images the fingerprint is a hash of all its files."""
    return _first(lambda found: not found.synthetic and found.images_fingerprint() == fingerprint)


def of_family(family: str) -> str | None:
    """Short name of the first source that the models of a family learned from; None where it is not here."""
    return _first(lambda found: bundles.learned_from(family, found))


def with_key(key: str) -> str | None:
    """Short name of the source that has a whole name; None where it is not here."""
    return _first(lambda found: found.key == key)


def _first(fits: Callable[[Source], bool]) -> str | None:
    for name in catalogue().specs:
        try:
            if fits(source(name)):
                return name
        except CXRLensError:
            continue
    return None


def uploads() -> Mapping[str, Radiograph]:
    """The images that this session was given, by the names under which they are shown."""
    given = st.session_state.get(session.UPLOADS) or {}
    return {name: image for name, image in given.items() if isinstance(image, Radiograph)}


def _specs() -> tuple[str, ...]:
    count, seed = phantom_numbers()
    example = ["example"] if paths.EXAMPLES.is_dir() else []
    return (f"{bundles.PHANTOM}:{count}:{seed}", *example, *settings.sources())


def phantom_numbers() -> tuple[int, int]:
    """Count and seed of the phantoms the bundles were trained on, so that the test split really was held out."""
    for card in bundles.cards(bundles.PHANTOM).values():
        if card.data.get("name") == bundles.PHANTOM and "count" in card.data and "seed" in card.data:
            return int(card.data["count"]), int(card.data["seed"])
    return 2000, 0


def content_key(source: Source) -> str:
    """Names a source and its content, for what is kept of it: another where its index was made anew or moved."""
    return f"{source.key} {_written(source.written) if source.written else 0}"


def _stamp(specs: tuple[str, ...]) -> tuple[int, ...]:
    """Changes where an index is written."""
    return tuple(_written(Path(spec, "index.json")) for spec in specs)


def _written(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@st.cache_resource(max_entries=2, show_spinner=False)
def _catalogue(specs: tuple[str, ...], stamp: tuple[int, ...]) -> Catalogue:
    return Catalogue(specs, taken=(UPLOAD,))


@st.cache_data(max_entries=4, ttl=_FRESH, show_spinner=False)
def _titles(specs: tuple[str, ...], stamp: tuple[int, ...]) -> dict[str, str]:
    found = _catalogue(specs, stamp).titles()
    often = Counter(found.values())
    return {name: title if often[title] == 1 else f"{title} ({name})" for name, title in found.items()}
