"""An index of a release on disk: its studies and images, and why some are left out.

A folder with `studies.parquet` (texts, patient, split), `images.parquet` (paths, views), `census.json`, and
`index.json`, written last: without it the folder is not an index. Images are not copied; the index keeps their paths.

A study or image that cannot be used stays in its table, with the reason in the column `dropped`.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core import schemas
from core.files import whole_file, write_whole
from core.studies.census import Notes, take_census
from core.tables import is_broken
from core.types import CXRLensError, Split
from core.views import ViewChoice, view_choices

INDEX_VERSION = "1"
"""Raise it whenever the same release would give another index."""

MAX_REPORT_CHARS = 100_000  # ours: some twenty times the longest report of either release
_CHECKED = 200  # ours: images that are looked for where a release is said to be
_BATCH = 4096
_GROUPS = 4  # ours: parts of the texts, of 4,096 studies each, that are kept in memory
BOXES = "boxes.parquet"

_STUDIES = pa.schema(
    [
        *((name, pa.string()) for name in ("study_id", "subject_id", "split", "findings", "impression")),
        ("context", pa.map_(pa.string(), pa.string())),
        ("dropped", pa.string()),
    ]
)
_IMAGES = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "study_id", "path", "view")),
        ("bytes", pa.int64()),
        ("dropped", pa.string()),
    ]
)


class ReleaseError(CXRLensError):
    """A release or an index that cannot be used."""


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """An image that a release lists.

    Attributes:
        image_id: unique in the release.
        path: relative to the index's root; "" where the file is missing.
        view: "PA", "AP", "FRONTAL", "LATERAL", another code of the release, or "" if unknown.
        size: of the file, bytes.
        dropped: why it cannot be used, or "".
    """

    image_id: str
    path: str
    view: str
    size: int
    dropped: str = ""

    @classmethod
    def of_file(cls, image_id: str, view: str, path: str | None, size: int) -> ImageEntry:
        """Tell what can be told of a file without reading it; `path` None: it is not there."""
        dropped = "file missing" if path is None else "file empty" if size == 0 else ""
        return cls(image_id, path or "", view, size, dropped)


@dataclass(frozen=True, slots=True)
class StudyEntry:
    """A study that a release lists; see `core.types.Study`.

    Attributes:
        study_id: unique in the release.
        subject_id: the patient.
        split: one of `SPLITS`, or "" if the release has none for it.
        findings: the section, one line.
        impression: the section, one line.
        context: what else is known, by name.
        images: in the order of the release.
        dropped: why it cannot be used, or "".
        with_text: whether the study is of no use without a report.
    """

    study_id: str
    subject_id: str
    split: str
    findings: str
    impression: str
    context: Mapping[str, str]
    images: Sequence[ImageEntry]
    dropped: str = ""
    with_text: bool = True

    def reason(self) -> str:
        """Why the study cannot be used, or ""."""
        if self.dropped:
            return self.dropped
        if self.with_text and not self.findings and not self.impression:
            return "neither findings nor impression"
        if not self.split:
            return "in no split"
        if not any(not image.dropped for image in self.images):
            return "no usable image"
        return ""


SHARES = (0.7, 0.1)
"""Of a drawn split: train, validate; those of R2Gen's split of Open-i, 2,069 / 296 / 590."""


def draw_split(subject: str, seed: int) -> Split:
    """Draw a patient's split from seed and name alone, so that it does not depend on which others are there."""
    place = int.from_bytes(hashlib.sha256(f"{seed} {subject}".encode()).digest()[:8], "big") / 2**64
    return "train" if place < SHARES[0] else "validate" if place < sum(SHARES) else "test"


def text_fault(*texts: str) -> str:
    """Why a report's text cannot be used, or ""."""
    if sum(map(len, texts)) > MAX_REPORT_CHARS:
        return f"report longer than {MAX_REPORT_CHARS:,} characters"
    return "report is not UTF-8" if any(map(is_broken, texts)) else ""


@dataclass(frozen=True, slots=True)
class Told:
    """What an index says of its data beside them, for pages.

    Attributes:
        title: for a reader.
        reports: whether its studies have reports.
        labels: of the 14 observations, a table beside the index: "rules", or "given" by whoever made the data.
        traits: names in the context by which studies can be divided, beside sex and age.
        visits: whether the context's "visit" counts each patient's studies in the order of time.
        truth: what the boxes beside the index are, in words; "" where there are none.
        credit: what must stand beside the images; "" where nothing must.
    """

    title: str
    reports: bool = True
    labels: str = "rules"
    traits: tuple[str, ...] = ()
    visits: bool = False
    truth: str = ""
    credit: str = ""


_TITLES = {"openi": "Open-i", "mimic_cxr": "MIMIC-CXR"}


def write_index(
    out: Path,
    source: str,
    root: Path,
    options: Mapping[str, Any],
    entries: Iterable[StudyEntry],
    notes: Notes,
    told: Told | None = None,
) -> StudyIndex:
    """Write an index, streaming.

    Args:
        out: folder; made if missing. An index that is there is replaced, its image caches are kept.
        source: "openi", "mimic_cxr", "table" or "folder".
        root: of the images' paths.
        options: how the release was read.
        entries: unique by study and by image.
        notes: filled while `entries` are read.
        told: what pages say of the data; of Open-i and MIMIC-CXR it is known.

    Raises:
        ReleaseError: not one study can be used.
    """
    make_folder(out)
    (out / "index.json").unlink(missing_ok=True)
    digest, order = hashlib.sha256(), hashlib.sha256()
    reasons: Counter[str] = Counter()
    with (
        whole_file(out / "studies.parquet", private=False) as of_studies,
        whole_file(out / "images.parquet", private=False) as of_images,
        pq.ParquetWriter(of_studies, _STUDIES, compression="zstd") as studies,
        pq.ParquetWriter(of_images, _IMAGES, compression="zstd") as images,
    ):
        for batch in _batched(entries, _BATCH):
            study_rows = [_study_row(entry) for entry in batch]
            image_rows = [_image_row(entry.study_id, image) for entry in batch for image in entry.images]
            for row in study_rows:
                digest.update(json.dumps(row, sort_keys=True).encode())
                reasons[row["dropped"]] += 1
            for row in image_rows:
                digest.update(json.dumps(row, sort_keys=True).encode())
                order.update(row["image_id"].encode() + b"\n")
            studies.write_table(pa.Table.from_pylist(study_rows, _STUDIES))
            images.write_table(pa.Table.from_pylist(image_rows, _IMAGES))
        if not reasons[""]:
            most = reasons.most_common(3)
            why = "; ".join(f"{count:,} {reason}" for reason, count in most if count) or "it lists none"
            raise ReleaseError(
                f"No study of the release in {root} can be used: {why}. Is all of it there, unpacked? See docs/data.md."
            )
    about = {
        "version": INDEX_VERSION,
        "source": source,
        "root": str(root.resolve()),
        "options": dict(options),
        "told": asdict(told or Told(_TITLES[source])),
        "fingerprint": digest.hexdigest()[:16],
        "images": order.hexdigest()[:16],
    }
    index = StudyIndex(out, about)
    _write_json(out / "census.json", take_census(index, notes))
    _write_json(out / "index.json", about)
    return index


class StudyIndex:
    """An index that was written; tables are read when they are asked for."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Use `open_index`, which checks the folder."""
        self.folder = folder
        self.source: str = about["source"]
        self.root = Path(about["root"])
        self.fingerprint: str = about["fingerprint"]
        self.image_order: str = about["images"]
        self._group = lru_cache(maxsize=_GROUPS)(self._read_group)
        told = about.get("told") or {"title": _TITLES.get(self.source, self.source)}  # older ones say nothing
        self.told = Told(**{**told, "traits": tuple(told.get("traits", ()))})

    @cached_property
    def studies(self) -> pd.DataFrame:
        """A row a study: study_id, subject_id, split, dropped, has_findings, has_impression; no texts."""
        file = pq.ParquetFile(self.folder / "studies.parquet")
        parts, kept = [], ["study_id", "subject_id", "split", "dropped"]
        for group in range(file.num_row_groups):
            there = {}
            for name in ("findings", "impression"):  # one after another: all texts at once would fill the memory
                column = file.read_row_group(group, columns=[name], use_threads=False)[name]
                there[f"has_{name}"] = pc.not_equal(column, "")
            part = file.read_row_group(group, columns=kept, use_threads=False)
            parts.append(pa.table({**{name: part[name] for name in kept}, **there}))
        return pa.concat_tables(parts).to_pandas(use_threads=False)

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image: image_id, study (row in `studies`), path, view, bytes, dropped."""
        table = read_parquet(self.folder / "images.parquet")
        known = pa.array(self.studies["study_id"], pa.string())
        study = pc.fill_null(pc.index_in(table["study_id"], known), -1).to_numpy()
        images = table.drop_columns("study_id").to_pandas(use_threads=False)
        images.insert(1, "study", study.astype(np.int64))
        return images

    @cached_property
    def texts(self) -> pa.Table:
        """A row a study, as in `studies`: findings, impression, context."""
        return read_parquet(self.folder / "studies.parquet", ["findings", "impression", "context"])

    def text(self, study: int) -> dict[str, Any]:
        """Findings, impression and context of one row of `studies`; only the part of the table around it is read."""
        which = int(np.searchsorted(self._starts, study, side="right")) - 1
        return dict(self._group(which).slice(study - int(self._starts[which]), 1).to_pylist()[0])

    def _read_group(self, which: int) -> pa.Table:
        file = pq.ParquetFile(self.folder / "studies.parquet")
        return file.read_row_group(which, columns=["findings", "impression", "context"], use_threads=False)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        about = pq.ParquetFile(self.folder / "studies.parquet").metadata
        rows = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
        return np.cumsum([0, *rows[:-1]])

    @cached_property
    def boxes(self) -> pd.DataFrame:
        """A row a box: image_id, finding, observations ("|" between), left, top, width, height as fractions."""
        path = self.folder / BOXES
        columns = ["image_id", "finding", "observations", "left", "top", "width", "height"]
        return read_parquet(path).to_pandas(use_threads=False) if path.is_file() else pd.DataFrame(columns=columns)

    def samples(self, views: str, unreadable: Sequence[int] = ()) -> pd.DataFrame:
        """The images that a choice of views takes, one a row, with the study's columns.

        Args:
            views: a name in `core.views.view_choices`.
            unreadable: rows of `images` that could not be read.

        Returns:
            columns sample_id, image (row in `images`), study (row in `studies`), path, view, bytes, and those of
            `studies`. A study's first image has the study's id, a further one a number behind it ("s50414267.2").
        """
        rows, number = self.chosen(views, unreadable)
        of_image = self.images["study"].to_numpy()[rows]
        chosen = self.studies.take(of_image).drop(columns="dropped").reset_index(drop=True)
        pictures = self.images[["path", "view", "bytes"]].take(rows).reset_index(drop=True)
        ids = sample_ids(chosen["study_id"].tolist(), number)
        first = pd.DataFrame({"sample_id": ids, "image": rows, "study": of_image})
        return pd.concat([first, pictures, chosen], axis=1)

    def chosen(self, views: str, unreadable: Sequence[int] = ()) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The images that a choice of views takes.

        Args:
            views: as of `samples`.
            unreadable: as of `samples`.

        Returns:
            rows of `images`, and for each how many images of its study stand before it.
        """
        choice = self.choice(views)
        images, of_image = self.images, self.images["study"].to_numpy()
        usable = ((images["dropped"] == "") & ~images.index.isin(unreadable)).to_numpy(copy=True)
        if choice.views is not None:
            usable &= images["view"].isin(choice.views).to_numpy()
        usable &= (self.studies["dropped"] == "").to_numpy()[of_image]
        rows = np.flatnonzero(usable).astype(np.int64)
        number = np.asarray(pd.Series(of_image[rows]).groupby(of_image[rows]).cumcount(), dtype=np.int64)
        if choice.first_only:
            rows, number = rows[number == 0], number[number == 0]
        return rows, number

    def file(self, path: str) -> Path:
        """An image's file.

        Raises:
            ReleaseError: the folder of the release is not there any more.
        """
        if not self.root.is_dir():
            raise ReleaseError(
                f"The images of {self.folder} were read from {self.root}, which is not there any more. If the release "
                f"was moved, say where it is now: cxr-lens data move {self.folder} --to {self._new_place(path)}"
            )
        return self.root / path

    def _new_place(self, path: str) -> str:
        """Where the release seems to be: near the index or near its old place; FOLDER if it is not found there."""
        old = next((each for each in self.root.parents if each.is_dir()), self.root)
        near = dict.fromkeys((self.folder.resolve().parent, self.folder.resolve().parent.parent, old))
        with contextlib.suppress(OSError):
            for folder in near:
                for place in (
                    folder,
                    folder / self.root.name,
                    *sorted(each for each in folder.iterdir() if each.is_dir()),
                ):
                    if (place / path).is_file():
                        return str(place)
        return "FOLDER"

    def choice(self, views: str) -> ViewChoice:
        """Look up a choice of views.

        Raises:
            ReleaseError: this source has no such choice.
        """
        known = view_choices(self.source)
        if views not in known:
            raise ReleaseError(f"views: '{views}' is not a choice for {self.source}. Known: {', '.join(known)}.")
        return known[views]

    def census(self) -> dict[str, Any]:
        """What was found, kept and dropped when the index was written."""
        return dict(json.loads((self.folder / "census.json").read_text(encoding="utf-8")))


def sample_ids(study_ids: Sequence[str], number: npt.NDArray[np.int64]) -> list[str]:
    """Names of images: the study's, with a number behind it from the second on ("s50414267.2")."""
    return [
        each if not place else f"{each}.{place + 1}" for each, place in zip(study_ids, number.tolist(), strict=True)
    ]


def move_index(folder: Path, root: Path) -> StudyIndex:
    """Tell an index that its release was moved; nothing else of it changes.

    Args:
        folder: of the index.
        root: where the release is now.

    Raises:
        ReleaseError: images that the index lists are not there, or have another size.
    """
    index = open_index(folder)
    images = index.images[index.images["dropped"] == ""]
    some = images.iloc[:: max(1, len(images) // _CHECKED)]
    wrong = [
        path
        for path, size in zip(some["path"], some["bytes"], strict=True)
        if not (root / path).is_file() or (root / path).stat().st_size != size
    ]
    if wrong:
        raise ReleaseError(
            f"{root} is not the release that {folder} was made from: of {len(some):,} images that were looked for, "
            f"{len(wrong):,} are missing or of another size, the first is {wrong[0]}. Name the folder that holds it, "
            "or make a new index."
        )
    for name in ("census.json", "index.json"):
        about = json.loads((folder / name).read_text(encoding="utf-8"))
        _write_json(folder / name, about | {"root": str(root.resolve())})
    return open_index(folder)


def read_parquet(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a table of an index, without pyarrow's threads: training forks, and threads do not come along."""
    return pq.read_table(path, columns=columns, use_threads=False)


def make_folder(folder: Path) -> None:
    """Make the folder of an index.

    Raises:
        ReleaseError: it cannot be made, or not be written into.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ReleaseError(f"{folder} cannot be written into ({error.strerror}). Choose another with --out.") from error


def open_index(folder: Path) -> StudyIndex:
    """Open an index.

    Raises:
        ReleaseError: the folder holds none, an unfinished one, or one of another version.
    """
    path = folder / "index.json"
    hint = "Make one: cxr-lens data --help says how, of Open-i, MIMIC-CXR, any table or a folder."
    try:
        about = schemas.read_json(path)
        if (version := about["version"]) == INDEX_VERSION:
            schemas.check(about, schemas.Index)
    except FileNotFoundError as error:
        raise ReleaseError(f"{folder} holds no index of studies, or one that was not finished. {hint}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{path} is damaged ({getattr(error, 'strerror', None) or error}). {hint}") from error
    if version != INDEX_VERSION:
        raise ReleaseError(f"{folder} is an index of version {version}, this program needs {INDEX_VERSION}. {hint}")
    for name in ("studies.parquet", "images.parquet", "census.json"):
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder} has lost its {name}. {hint}")
    return StudyIndex(folder, about)


def _batched(entries: Iterable[StudyEntry], size: int) -> Iterator[list[StudyEntry]]:
    iterator = iter(entries)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def _study_row(entry: StudyEntry) -> dict[str, Any]:
    reason = entry.reason()
    keep = not reason  # a broken or endless text must not reach the table
    return {
        "study_id": entry.study_id,
        "subject_id": entry.subject_id,
        "split": entry.split,
        "findings": entry.findings if keep else "",
        "impression": entry.impression if keep else "",
        "context": {name: text for name, text in entry.context.items() if text} if keep else {},
        "dropped": reason,
    }


def _image_row(study_id: str, image: ImageEntry) -> dict[str, Any]:
    return {
        "image_id": image.image_id,
        "study_id": study_id,
        "path": image.path,
        "view": image.view,
        "bytes": image.size,
        "dropped": image.dropped,
    }


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n", private=False)
