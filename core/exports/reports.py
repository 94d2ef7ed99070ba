"""Reports that leave: of an evaluation, of a file that `cxr-lens write` wrote, or of systems on a source.

Whoever wrote them goes with them, as far as it is recorded: name, hash, seed, settings.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from core import __version__
from core.bundles.library import BundleLibrary
from core.evaluation import own
from core.evaluation.reports import read_reports
from core.evaluation.results import reports_of_all
from core.exports.folder import LeftOut
from core.exports.writers import RESEARCH, SOFTWARE, UNKNOWN, Writer, recorded_beside, writer_of, writer_of_card
from core.files import hash_of
from core.registry import did_you_mean
from core.studies.model_image import grey_levels
from core.studies.source import Source
from core.studies.sources import open_source
from core.systems.added import REFERENCE, system, systems
from core.systems.pairs import Pair
from core.systems.system import System
from core.types import CXRLensError, Split, Study

NO_REFERENCE = "study without a reference report, left out"
NO_REPORT = "empty report, left out"
_STRANGE = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_SHOWN = 5


@dataclass(frozen=True)
class Reports:
    """Reports of systems for the same studies.

    Attributes:
        study_ids: n of them, as their source names them.
        references: of each study; "" where it has none.
        texts: by system, n reports; "" where it wrote nothing.
        writers: who wrote, by system.
        title: of the studies, for a reader; "" where it is not known.
        fingerprint: of the studies; `UNKNOWN` where it is not recorded.
        source: of the studies; None where none is at hand.
        recorded: key of the source that they were written for; "" where it is not recorded.
        lost: why that cannot be opened; "" where it can, or nobody tried.
    """

    study_ids: tuple[str, ...]
    references: tuple[str, ...]
    texts: Mapping[str, tuple[str, ...]]
    writers: Mapping[str, Writer]
    title: str = ""
    fingerprint: str = UNKNOWN
    source: Source | None = None
    recorded: str = ""
    lost: str = ""

    def referenced(self, notes: LeftOut) -> list[int]:
        """Places of the studies that have a reference; the others are counted.

        Raises:
            CXRLensError: none has one.
        """
        there = [place for place, text in enumerate(self.references) if text.strip()]
        if not there:
            raise CXRLensError("These studies have no reference reports, and this format compares reports with them.")
        for place in sorted(set(range(len(self.study_ids))) - set(there)):
            notes.add(NO_REFERENCE, self.study_ids[place])
        return there

    def opened(self, why: str) -> Source:
        """The source of the studies.

        Args:
            why: it is needed: "the images".

        Raises:
            CXRLensError: there is none at hand.
        """
        if self.source is None:
            told = self.lost or f"Nothing tells where {why} of these studies are."
            raise CXRLensError(f"{told} Name their source, with --source.")
        return self.source

    def study(self, place: int) -> Study:
        """A study of the source.

        Raises:
            CXRLensError: the source has no such study, or one with another report.
        """
        source, study_id = self.opened("the studies"), self.study_ids[place]
        found = source.study(study_id)
        if source.has_reports and (given := self.references[place]) and plain(found.findings) != given:
            raise CXRLensError(f"{source.title} has another report of {study_id} than these reports were written for.")
        return found

    def is_there(self, place: int, notes: LeftOut) -> bool:
        """Whether `study` has a study; one that it has not is counted."""
        try:
            self.study(place)
        except CXRLensError as error:
            notes.add("study that its source does not have as these reports do, left out", self.study_ids[place], error)
            return False
        return True

    def about(self) -> dict[str, Any]:
        """What every export says of where it comes from."""
        return {
            "use": RESEARCH,
            "software": SOFTWARE,
            "version": __version__,
            "studies": {"title": self.title or UNKNOWN, "fingerprint": self.fingerprint},
            "systems": [asdict(each) for each in self.writers.values()],
        }

    def chosen(self, names: Sequence[str], study_ids: Sequence[str]) -> Reports:
        """Those of some systems and studies; empty chooses all.

        Raises:
            CXRLensError: one of them is not there; those that are there are named.
        """
        for name in names:
            if name not in self.texts:
                raise CXRLensError(f"There are no reports of a system '{name[:64]}'. There are: {_few(self.texts)}.")
        place_of = {study_id: place for place, study_id in enumerate(self.study_ids)}
        for study_id in study_ids:
            if study_id not in place_of:
                hint = did_you_mean(study_id, list(place_of)) or f" There are: {_few(place_of)}."
                raise CXRLensError(f"There are no reports of a study '{study_id[:64]}'.{hint}")
        kept = list(names) or list(self.texts)
        places = [place_of[each] for each in dict.fromkeys(study_ids)] or list(place_of.values())
        return self._at(places, kept)

    def without(self, study_ids: Collection[str]) -> Reports:
        """Those of all studies but some."""
        places = [place for place, study_id in enumerate(self.study_ids) if study_id not in study_ids]
        return self._at(places, list(self.texts))

    def _at(self, places: Sequence[int], kept: Sequence[str]) -> Reports:
        return replace(
            self,
            study_ids=tuple(self.study_ids[place] for place in places),
            references=tuple(self.references[place] for place in places),
            texts={name: tuple(self.texts[name][place] for place in places) for name in kept},
            writers={name: self.writers[name] for name in kept},
        )


def plain(text: str) -> str:
    """A text whose only line ends are line feeds, and whose every sign has a place in XML and FHIR; of blanks, ""."""
    return "" if not text.strip() else _STRANGE.sub("\N{REPLACEMENT CHARACTER}", "\n".join(text.splitlines()))


def png(source: Source, study_id: str) -> tuple[bytes, int, int]:
    """The image that models read as an 8-bit PNG file of the shown pixels, without tags; its width and height.

    Raises:
        CXRLensError: it cannot be read.
    """
    levels = grey_levels(source.original(study_id).pixels)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "PNG")
    return out.getvalue(), levels.shape[1], levels.shape[0]


def file_names(names: Sequence[str]) -> dict[str, str]:
    """A name for files of each, unique whatever the system's view of upper and lower case; no path, never hidden."""
    return unique_names(names, r"[^A-Za-z0-9._-]+")


def unique_names(names: Sequence[str], strange: str) -> dict[str, str]:
    """Another name for each, without some signs, of at most 80 letters and unique also where case does not count.

    Args:
        names: unique.
        strange: pattern of what becomes an underscore.
    """
    found: dict[str, str] = {}
    taken: Counter[str] = Counter()
    for name in names:
        stem = re.sub(strange, "_", name)[-80:].lstrip(".-").rstrip(".") or "_"  # what tells ids apart is at their end
        given = stem
        while given.casefold() in taken:
            taken[stem.casefold()] += 1
            given = f"{stem}_{taken[stem.casefold()]}"
        taken[given.casefold()] += 1
        found[name] = given
    return found


# ------------------------------------------------------------------------------------------------------------- reading


def read(where: str, bundles: Path, source: str | None = None) -> Reports:
    """Read the reports of an evaluation or of a file of them.

    Args:
        where: a ``reports.jsonl``, a folder that has one, the name of an evaluation of one's own, or a family beside
            the bundles.
        bundles: folder of bundles.
        source: of the studies, where it is another than is recorded, or was moved.

    Raises:
        CXRLensError: nothing is there, it is damaged, or the source cannot be opened.
    """
    found = of_file(_find(where, bundles), bundles)
    if source is None and not found.recorded:
        return found
    try:
        opened = open_source(source or found.recorded)
    except CXRLensError as error:
        if source is not None:
            raise
        return replace(found, lost=str(error))  # not every format needs it
    return replace(found, source=opened, title=opened.title)


def of_file(path: Path, bundles: Path, source: Source | None = None) -> Reports:
    """Reports of a file, with all that stands beside it.

    Args:
        path: of the file, as of `core.evaluation.reports.read_evaluation`.
        bundles: folder of bundles: their cards tell the seeds.
        source: of the studies, if it is at hand.

    Raises:
        CXRLensError: the file is missing or damaged.
    """
    study_ids, texts = read_reports(path)
    references = texts.pop(REFERENCE, ("",) * len(study_ids))
    if not texts:
        raise CXRLensError(f"{path} has reference reports only, and none that a system wrote.")
    recorded = recorded_beside(path)
    cards = {hash_of(card.made_of): card for card in BundleLibrary(bundles).cards() if card.name in texts}
    return Reports(
        study_ids,
        tuple(map(plain, references)),
        {name: tuple(map(plain, each)) for name, each in texts.items()},
        {name: writer_of(name, recorded, cards) for name in texts},
        source.title if source else recorded.title,
        recorded.fingerprint,
        source,
        recorded.source,
    )


def of_systems(
    source: Source,
    names: Sequence[str],
    bundles: Path,
    split: Split | None = None,
    study_ids: Sequence[str] = (),
    progress: Callable[[str], None] = lambda told: None,
) -> tuple[Reports, tuple[str, ...]]:
    """Ask systems for the reports of a source: those of which every one has one; and what is to be said.

    Args:
        source: of the studies.
        names: of bundles and of systems that were added.
        bundles: folder of bundles.
        split: whose studies; None is all.
        study_ids: only these; empty is all.
        progress: told of each study that a system has written.

    Raises:
        CXRLensError: there is no such system (those that are there are named) or study, or no study of which all have a
            report.
    """
    library = BundleLibrary(bundles)
    cards = {card.name: card for card in library.cards()}
    asked: list[System] = [
        Pair(cards[name], library) if name in cards else _added(name, list(cards)) for name in dict.fromkeys(names)
    ]
    chosen = [source.study(each).study_id for each in dict.fromkeys(study_ids)] or source.all_ids(split)
    if not chosen:
        why = "has no studies" if source.listed else "does not list its studies: name some, with --study"
        raise CXRLensError(f"{source.title} {why}.")
    given, places, told = reports_of_all(asked, source, chosen, progress)
    kept = tuple(chosen[place] for place in places)
    references = tuple(plain(source.study(each).findings) if source.has_reports else "" for each in kept)
    writers = {
        each.name: writer_of_card(cards[each.name])
        if each.name in cards
        else Writer(each.name, each.kind, each.content_hash(), "none: nothing was trained here")
        for each in asked
        if each.name in given
    }
    texts = {name: tuple(map(plain, each)) for name, each in given.items()}
    reports = Reports(kept, references, texts, writers, source.title, source.fingerprint(), source)
    return reports, tuple(told)


def _added(name: str, bundles: Sequence[str]) -> System:
    try:
        return system(name)
    except CXRLensError as error:
        there = [*bundles, *(each.name for each in systems()[0])]
        if name in there:
            raise
        raise CXRLensError(f"There is no system '{name[:64]}'. There are: {_few(there)}.") from error


def _find(where: str, bundles: Path) -> Path:
    """The file of reports that somebody means."""
    path = Path(where).expanduser()
    places = [path / "reports.jsonl", own.home() / where / "reports.jsonl", bundles / f"{where}-reports.jsonl"]
    if path.is_file():
        if path.suffix == ".csv":
            raise CXRLensError(f"{where} is a table. Write these reports as JSON lines: a name that ends in .jsonl.")
        return path
    if found := next((each for each in places if each.is_file()), None):
        return found
    known = [f"{each.folder.name} ({each.title}: {', '.join(each.names)})" for each in own.evaluations() if each.whole]
    mine = f" Evaluations of your own: {'; '.join(known[:_SHOWN])}." if known else ""
    raise CXRLensError(
        f"There are no reports at '{where}'. It should be a reports.jsonl of `cxr-lens write` or `cxr-lens evaluate "
        f"--out DIR`, a folder with one, or the name of an evaluation.{mine}"
    )


def _few(names: Any) -> str:
    """Some names, and how many more."""
    there = list(names)
    more = f" and {len(there) - _SHOWN:,} more" if len(there) > _SHOWN else ""
    return (", ".join(map(str, there[:_SHOWN])) or "none") + more


def pictures(reports: Reports, places: Sequence[int], notes: LeftOut) -> Iterator[tuple[int, bytes, int, int]]:
    """Place, PNG file, width and height of the studies whose image can be read; the others are counted.

    Raises:
        CXRLensError: no source is at hand.
    """
    source = reports.opened("the images")
    for place in places:
        study_id = reports.study_ids[place]
        if reports.is_there(place, notes):
            try:
                yield place, *png(source, study_id)
            except CXRLensError as error:
                notes.add("study without an image that can be read, left out", study_id, error)
