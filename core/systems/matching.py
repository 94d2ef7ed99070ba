"""Rows of a file in, reports of a source's studies out; and a count of what fits, misses or comes twice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from core.studies.source import Source
from core.systems.report_files import ReportRow
from core.wording import counted

_IMAGES = (".jpg", ".jpeg", ".png", ".dcm", ".dicom", ".gz", ".tif", ".tiff")
_STUDY = re.compile(r"(?:^|[/_])s(\d+)$")  # MIMIC-CXR's folders: p10/p10000032/s50414267
_NAMED = 3


@dataclass(frozen=True, slots=True)
class MatchCensus:
    """What became of the rows of a file.

    Attributes:
        rows: of the file.
        asked: studies whose reports were asked for.
        matched: of them have a report.
        by_image: of these by the id of an image.
        empty: of these have a report without text, which counts as a report that says nothing.
        other_images: rows of images of a matched study that models do not read: another row is its report.
        repeated: rows that say again what another one says of the study.
        contradicting: studies of which two rows say different things; they have no report.
        elsewhere: rows of studies of this source that were not asked for, as of another split.
        unknown: ids of rows that are of no study of this source.
    """

    rows: int
    asked: int
    matched: int
    by_image: int
    empty: int
    other_images: int
    repeated: int
    contradicting: tuple[str, ...]
    elsewhere: int
    unknown: tuple[str, ...]

    @property
    def missing(self) -> int:
        """Studies that were asked for and have no report."""
        return self.asked - self.matched

    def sentences(self, title: str) -> tuple[str, ...]:
        """The counts in words.

        Args:
            title: of the system.
        """
        reports = counted(self.rows, "report", "reports")
        told = [f"{title}: {reports}, of {self.matched:,} of the {counted(self.asked, 'study', 'studies')}."]
        if self.by_image:
            told.append(f"{self.by_image:,} by the id of an image.")
        if self.missing:
            told.append(f"{counted(self.missing, 'study has', 'studies have')} no report.")
        if self.contradicting:
            told.append(
                f"{counted(len(self.contradicting), 'study has', 'studies have')} two different reports, so neither is "
                f"taken: {_some(self.contradicting)}."
            )
        if twice := self.repeated + self.other_images:
            told.append(f"{counted(twice, 'row comes', 'rows come')} twice, or of another image of the same study.")
        if self.elsewhere:
            told.append(f"{counted(self.elsewhere, 'row is', 'rows are')} of other studies, as of another split.")
        if self.unknown:
            told.append(f"{counted(len(self.unknown), 'row is', 'rows are')} of no study here: {_some(self.unknown)}.")
        if self.empty:
            told.append(f"{counted(self.empty, 'report is', 'reports are')} empty: scored as saying nothing.")
        return (" ".join(told),)


def match(rows: Sequence[ReportRow], source: Source, study_ids: Sequence[str]) -> tuple[dict[str, str], MatchCensus]:
    """Find the studies of rows, by the id of the study or of an image of it.

    Of a study's rows by image, that of the image which models read is its report.

    Args:
        rows: of a file.
        source: whose studies.
        study_ids: the studies that are asked for.

    Returns:
        study id -> report, in the order of `study_ids`; and the count.
    """
    asked = set(study_ids)
    known = set(source.all_ids()) if source.listed else asked
    candidates = [list(id_variants(row.ids)) for row in rows]
    wanted = {name for names in candidates if known.isdisjoint(names) for name in names}
    images = source.studies_of_images(wanted) if wanted else {}
    texts: dict[str, tuple[int, str]] = {}  # rank: 0 the study's own id, 1 the image that is read, 2 another image
    twice: set[str] = set()
    by_image: set[str] = set()
    unknown, repeated, other_images, elsewhere = [], 0, 0, 0
    for row, names in zip(rows, candidates, strict=True):
        study_id = next((name for name in names if name in known), None)
        rank = 0
        if study_id is None:
            found = min((images[name] for name in names if name in images), key=lambda each: not each[1], default=None)
            if found is None:
                unknown.append(row.ids[0])
                continue
            study_id, rank = found[0], 1 if found[1] else 2
        if study_id not in asked:
            elsewhere += 1
            continue
        before = texts.get(study_id)
        if before is None or rank < before[0]:
            other_images += before is not None
            twice.discard(study_id)
            texts[study_id] = (rank, row.text)
            (by_image.add if rank else by_image.discard)(study_id)
        elif rank > before[0]:
            other_images += 1
        elif before[1] == row.text:
            repeated += 1
        else:
            twice.add(study_id)
    for study_id in twice:
        del texts[study_id]
    found_texts = {study_id: texts[study_id][1] for study_id in study_ids if study_id in texts}
    return found_texts, MatchCensus(
        rows=len(rows),
        asked=len(asked),
        matched=len(found_texts),
        by_image=len(by_image & found_texts.keys()),
        empty=sum(not text for text in found_texts.values()),
        other_images=other_images,
        repeated=repeated,
        contradicting=tuple(sorted(twice)),
        elsewhere=elsewhere,
        unknown=tuple(unknown),
    )


def id_variants(ids: Sequence[str]) -> Iterator[str]:
    """Ways to write an id: as it is; of a path the last part, without an image's ending; with MIMIC-CXR's s, or not."""
    for each in ids:
        yield each
        last = PurePosixPath(each.replace("\\", "/")).name
        while (stem := PurePosixPath(last)).suffix.lower() in _IMAGES:
            last = stem.stem
        yield last
        if last.isdecimal():
            yield f"s{last}"
        elif number := _STUDY.search(last):
            yield f"s{number[1]}"
            yield number[1]


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(name[:40] for name in names[:_NAMED])
    return shown + (", …" if len(names) > _NAMED else "")
