"""The one place where studies are opened by a name: for pages, reviews, training, commands and the library.

A name is what a person writes: ``phantom``, ``phantom:COUNT:SEED``, ``graded:FINDING`` for chests with one finding
turned up step by step, ``drawn:...`` for the same in real films, ``example`` for the radiographs that come along, the
folder of an index, a folder of images, or ``dicomweb:URL``. Each source knows its whole name, its `key`, which never
depends on where one stands.

What a page may open is a `Catalogue`: sources that whoever runs the server named. An address holds their short names,
never a path, so that nobody opens other folders of the server by writing an address.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from filelock import FileLock

from core import paths
from core.files import own_folder
from core.studies.folder import FolderSource
from core.studies.phantom import GradedFilms, GradedSource, PhantomSource, parse_films
from core.studies.source import Source
from core.types import CXRLensError

KINDS = (
    "phantom, phantom:COUNT:SEED, example, the folder of an index (docs/data.md), a folder of images named by study "
    "(STUDY.png, .jpg or .dcm), or dicomweb:URL"
)
"""What a source can be, for messages."""

EXAMPLE_TITLE = "Example radiographs"
_PHANTOMS = (2000, 0)  # count and seed of the demo's


class SourceError(CXRLensError):
    """A name of a source that names nothing, or nothing that can be opened."""


def open_source(spec: str, *, findings_only: bool = False) -> Source:
    """Open studies by a name.

    Args:
        spec: a name or a key, see above.
        findings_only: whether studies without findings are left out of an index of reports; see `IndexedSource`.

    Raises:
        SourceError: it names nothing; the message names what looks like it.
        CXRLensError: it cannot be opened; the message says why.
    """
    kind, _, rest = spec.partition(":")
    opener = _OPENERS.get(kind)
    if opener is not None and (rest or kind in _ALONE):
        return opener(rest, findings_only)
    folder = Path(spec).expanduser()
    if not spec.strip():
        raise SourceError(f"Which studies? It should be {KINDS}.")
    if (folder / "index.json").is_file():
        return _open_index(f":{folder}", findings_only)
    if folder.is_dir():
        return FolderSource(folder)
    near = [each for each in _OPENERS if difflib.SequenceMatcher(None, kind, each).ratio() > 0.7]
    hint = f" Did you mean {near[0]}?" if near else _looks_like(folder)
    raise SourceError(f"There are no studies at '{spec}'.{hint} It should be {KINDS}.")


def source_key(spec: str) -> str:
    """The whole name of a source, as its `key` has it: absolute, and with everything that is left out of `spec`.

    Raises:
        CXRLensError: as `open_source`.
    """
    return open_source(spec).key


def _open_phantom(rest: str, findings_only: bool) -> Source:
    numbers = rest.split(":") if rest else []
    if len(numbers) > 2 or not all(each.isdecimal() for each in numbers):
        raise SourceError(f"'phantom:{rest}' should be phantom:COUNT:SEED, two whole numbers, as phantom:2000:0.")
    count, seed = (*map(int, numbers), *_PHANTOMS[len(numbers) :])
    if not 0 < count <= _MOST_PHANTOMS:
        raise SourceError(f"phantom:{rest}: there can be 1 to {_MOST_PHANTOMS:,} phantoms.")
    return PhantomSource(count, seed)


_MOST_PHANTOMS = 1_000_000  # their ids have six digits


def _open_index(rest: str, findings_only: bool) -> Source:
    from core.studies.indexed import IndexedSource  # brings pandas and pyarrow, which take a while

    views, _, where = rest.partition(":")
    return IndexedSource(Path(where).expanduser(), views, findings_only=findings_only)


def _open_images(rest: str, findings_only: bool) -> Source:
    return FolderSource(Path(rest).expanduser())


def _open_example(rest: str, findings_only: bool) -> Source:
    """The radiographs that come with the code. Their index is made once for all, in the user's cache."""
    from core.studies.columns import release_columns
    from core.studies.index import INDEX_VERSION
    from core.studies.indexed import IndexedSource
    from core.studies.table import index_table

    if not paths.EXAMPLES.is_dir():
        raise SourceError(f"The example radiographs are not there. {paths.how_to_restore(paths.EXAMPLES)}")
    parts = [path.read_bytes() for path in sorted(paths.EXAMPLES.glob("*.csv"))]
    made = hashlib.sha256(b"".join(parts) + str(paths.EXAMPLES).encode()).hexdigest()[:12]
    folder = paths.cache() / f"example-{INDEX_VERSION}-{made}"
    if not (folder / "index.json").is_file():
        columns = replace(release_columns("chestx-ray14"), title=EXAMPLE_TITLE)
        own_folder(folder.parent)
        with FileLock(folder.with_suffix(".lock")):
            if not (folder / "index.json").is_file():
                index_table(paths.EXAMPLES / "images", paths.EXAMPLES, folder, columns, only_test=True)
    source = IndexedSource(folder)
    source.key = "example"
    return source


def _open_dicomweb(rest: str, findings_only: bool) -> Source:
    from core.studies.dicomweb import open_dicomweb  # brings requests

    return open_dicomweb(rest)


def _open_graded(rest: str, findings_only: bool) -> Source:
    return GradedSource(parse_films(rest))


def _open_drawn(rest: str, findings_only: bool) -> Source:
    from core.studies.drawn.source import DrawnSource

    design, films = parse_drawn(rest)
    return DrawnSource(design, open_source(films))


def parse_drawn(rest: str) -> tuple[GradedFilms, str]:
    """Read what follows "drawn:" in a name: the design, and the name of the real films that it is drawn into.

    Raises:
        CXRLensError: it is no such name.
    """
    parts = rest.split(":", _DESIGN_PARTS)
    design = parse_films(":".join(parts[:_DESIGN_PARTS]))
    if len(parts) <= _DESIGN_PARTS:
        raise SourceError(f"'drawn:{rest[:80]}' names no real films: {design.spec.replace('graded', 'drawn')}:SOURCE.")
    return design, parts[_DESIGN_PARTS]


_DESIGN_PARTS = 8  # of `GradedFilms.spec` without its kind

_OPENERS: dict[str, Callable[[str, bool], Source]] = {
    "phantom": _open_phantom,
    "graded": _open_graded,
    "drawn": _open_drawn,
    "example": _open_example,
    "index": _open_index,
    "images": _open_images,
    "dicomweb": _open_dicomweb,
}
_ALONE = ("phantom", "example", "dicomweb")
"""Kinds whose name says enough."""


def _looks_like(folder: Path) -> str:
    """A sentence on the nearest name beside a folder that is not there."""
    try:
        names = [each.name for each in folder.parent.iterdir() if each.is_dir()]
    except OSError:
        return ""
    near = difflib.get_close_matches(folder.name, names, n=1)
    return f" Did you mean {folder.parent / near[0]}?" if near else ""


def local_indexes() -> list[Path]:
    """Folders of the indexes in ``data`` of the working directory, where ``cxr-lens data`` is told to put them."""
    return sorted(path.parent for path in paths.INDEX.parent.glob("*/index.json"))


class Catalogue:
    """The sources that pages offer, by short names that can stand in an address."""

    def __init__(self, specs: Iterable[str], taken: Collection[str] = ()) -> None:
        """Name sources; none is opened yet.

        Args:
            specs: as `open_source` takes them; one that is there twice counts once.
            taken: short names that mean something else.
        """
        self._specs: dict[str, str] = {}
        for spec in dict.fromkeys(specs):
            name = _short(spec)
            if name in self._specs or name in taken:
                name = f"{name}-{hashlib.sha256(spec.encode()).hexdigest()[:4]}"
            self._specs[name] = spec
        self._open = lru_cache(maxsize=_KEPT_OPEN)(open_source)

    @property
    def specs(self) -> Mapping[str, str]:
        """What `open_source` opens, by short name, in the order given."""
        return dict(self._specs)

    def open(self, name: str) -> Source:
        """Open a source; one that was opened is kept.

        Raises:
            SourceError: there is none of this name; the message says which there are.
            CXRLensError: it cannot be opened; the message says why.
        """
        if name not in self._specs:
            near = difflib.get_close_matches(name, self._specs, n=1)
            hint = f" Did you mean '{near[0]}'?" if near else ""
            raise SourceError(f"There are no studies '{name[:40]}' here.{hint} There are: {', '.join(self._specs)}.")
        return self._open(self._specs[name])

    def titles(self) -> dict[str, str]:
        """What a reader calls each source; of one that cannot be opened, its short name.

        An index says it without being opened.
        """
        found = {}
        for name, spec in self._specs.items():
            try:
                found[name] = _title_told(spec) or self.open(name).title
            except CXRLensError:
                found[name] = name
        return found


def _title_told(spec: str) -> str:
    """The title of what can say it at once; "" of all else, and of what is damaged."""
    if spec == "example":
        return EXAMPLE_TITLE if paths.EXAMPLES.is_dir() else ""
    try:
        told = json.loads(Path(spec, "index.json").read_text(encoding="utf-8"))["told"]["title"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""
    return told if isinstance(told, str) else ""


_KEPT_OPEN = 8  # ours


def _short(spec: str) -> str:
    """A name for addresses: what is last in a path, else the kind."""
    kind, _, rest = spec.partition(":")
    last = "" if kind in _ALONE else re.split(r"[/\\]", (rest or kind).rstrip("/\\"))[-1]
    return re.sub(r"[^a-z0-9]+", "-", (last or kind).lower()).strip("-") or kind
