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
from dataclasses import asdict, dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core.files import whole_file, write_whole
from core.tables import is_broken
from core.types import SPLITS, CXRLensError, Split
from core.views import ViewChoice, view_choices

INDEX_VERSION = "1"
"""Raise it whenever the same release would give another index."""

MAX_REPORT_CHARS = 100_000  # ours: some twenty times the longest report of either release
_EXAMPLES = 5
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


@dataclass
class Notes:
    """What is worth telling of a release and drops nothing by itself: how often, with some examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        """Count one."""
        self.counts[what] += 1
        if self.counts[what] <= _EXAMPLES:
            self.examples.setdefault(what, []).append(example)


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
        whole_file(out / "studies.parquet") as of_studies,
        whole_file(out / "images.parquet") as of_images,
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
    _write_json(out / "census.json", _census(index, notes))
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
        rows = []
        file = pq.ParquetFile(self.folder / "studies.parquet")
        columns = ["study_id", "subject_id", "split", "dropped", "findings", "impression"]
        for batch in file.iter_batches(columns=columns, use_threads=False):
            part = batch.to_pandas(use_threads=False)
            part["has_findings"] = part.pop("findings") != ""
            part["has_impression"] = part.pop("impression") != ""
            rows.append(part)
        return pd.concat(rows, ignore_index=True)

    @cached_property
    def images(self) -> pd.DataFrame:
        """A row an image: image_id, study (row in `studies`), path, view, bytes, dropped."""
        table = read_parquet(self.folder / "images.parquet").to_pandas(use_threads=False)
        table.insert(1, "study", pd.Index(self.studies["study_id"]).get_indexer(table.pop("study_id")))
        return table

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
        choice = self.choice(views)
        images = self.images.rename_axis("image").reset_index()
        usable = (images["dropped"] == "") & ~images["image"].isin(unreadable)
        if choice.views is not None:
            usable &= images["view"].isin(choice.views)
        chosen = images.loc[usable, ["image", "study", "path", "view", "bytes"]]
        chosen = chosen.join(self.studies, on="study")
        chosen = chosen[chosen["dropped"] == ""].drop(columns="dropped")
        number = chosen.groupby("study").cumcount()
        if choice.first_only:
            chosen, number = chosen[number == 0], number[number == 0]
        further = ("." + (number + 1).astype(str)).where(number > 0, "")
        chosen.insert(0, "sample_id", chosen["study_id"] + further)
        return chosen.reset_index(drop=True)

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
        about = json.loads(path.read_text(encoding="utf-8"))
        version = about["version"]
    except FileNotFoundError as error:
        raise ReleaseError(f"{folder} holds no index of studies, or one that was not finished. {hint}") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ReleaseError(f"{path} is damaged. {hint}") from error
    if version != INDEX_VERSION:
        raise ReleaseError(f"{folder} is an index of version {version}, this program needs {INDEX_VERSION}. {hint}")
    for name in ("studies.parquet", "images.parquet", "census.json"):
        if not (folder / name).is_file():
            raise ReleaseError(f"{folder} has lost its {name}. {hint}")
    return StudyIndex(folder, about)


def format_census(census: Mapping[str, Any]) -> str:
    """Write a census for a reader."""
    lines = [f"{census['source']}, read from {census['root']}"]
    for name in ("studies", "images"):
        part = census[name]
        dropped = sum(each["count"] for each in part["dropped"].values())
        lines.append(
            f"\n{name:<10} {part['found']:>9,} listed {part['found'] - dropped:>9,} kept {dropped:>9,} dropped"
        )
        lines += [_line(reason, **each) for reason, each in part["dropped"].items()]
    if census["notes"]:
        lines.append("\nalso seen, nothing dropped for it by itself")
        lines += [_line(what, **each) for what, each in census["notes"].items()]
    lines.append(
        f"\n{'views':<10}{'split':<10}{'images':>9}{'studies':>9}{'patients':>10}{'findings':>10}{'impression':>12}"
    )
    for row in census["views"]:
        lines.append(
            f"{row['views']:<10}{row['split']:<10}{row['images']:>9,}{row['studies']:>9,}{row['patients']:>10,}"
            f"{row['findings']:>10,}{row['impression']:>12,}"
        )
    lines.append("findings, impression: images whose study has that section")
    return "\n".join(lines)


def _line(what: str, count: int, examples: Sequence[str]) -> str:
    return f"  {count:>9,}  {what}: {', '.join(examples)}{', ...' if count > len(examples) else ''}"


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


def _census(index: StudyIndex, notes: Notes) -> dict[str, Any]:
    views = []
    for name in view_choices(index.source):
        samples = index.samples(name)
        for split in SPLITS:
            part = samples[samples["split"] == split]
            views.append(
                {
                    "views": name,
                    "split": split,
                    "images": len(part),
                    "studies": int(part["study"].nunique()),
                    "patients": int(part["subject_id"].nunique()),
                    "findings": int(part["has_findings"].sum()),
                    "impression": int(part["has_impression"].sum()),
                }
            )
    return {
        "source": index.source,
        "root": str(index.root),
        "studies": _dropped(index.studies, "study_id"),
        "images": _dropped(index.images, "image_id"),
        "notes": {
            what: {"count": count, "examples": notes.examples[what]} for what, count in notes.counts.most_common()
        },
        "views": views,
    }


def _dropped(table: pd.DataFrame, key: str) -> dict[str, Any]:
    out = table[table["dropped"] != ""]
    reasons = {
        str(reason): {"count": len(rows), "examples": rows[key].head(_EXAMPLES).tolist()}
        for reason, rows in sorted(out.groupby("dropped"), key=lambda pair: -len(pair[1]))
    }
    return {"found": len(table), "dropped": reasons}


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")
