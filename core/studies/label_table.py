"""Labels of an index's reports, worked out once and kept beside it, keyed by study and by the versions of the rules.

A folder `labels-rules/` with `about.json` and a Parquet file for every 4,096 rows of the index. Interrupted, the work
goes on with the next file; with other rules it begins anew.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from core.files import whole_file, write_whole
from core.labels.clusters import cluster_texts
from core.labels.fine import fine_labels
from core.labels.fine_parser import ParserError, load_parser
from core.labels.fine_terms import FINE_RULES_VERSION
from core.labels.rules import RULES_VERSION, label_reports
from core.observations import OBSERVATIONS
from core.studies.index import StudyIndex, read_parquet

_ROWS = 4096
_PARTS_KEPT = 4  # ours: in memory
_STATE = pa.dictionary(pa.int32(), pa.string())
_SCHEMA = pa.schema(
    [
        ("study_id", pa.string()),
        *((name, _STATE) for name in OBSERVATIONS),
        ("fine_labels", pa.list_(pa.string())),
        ("cluster_texts", pa.map_(pa.string(), pa.string())),
    ]
)


class LabelTable:
    """Labels of an index.

    A row a study that was kept: study_id, a column of states an observation (of the findings), fine_labels (of the
    findings), cluster_texts (of the impression).

    Attributes:
        versions: what decides them: "index", "rules", "fine" ("" where the parser of the extra `labels` was missing).
    """

    def __init__(self, versions: Mapping[str, str], parts: Sequence[Path]) -> None:
        """Use `label_index` or `open_labels`.

        Args:
            versions: what decides the labels.
            parts: files, each of as many rows of the index.
        """
        self.versions = versions
        self._parts = tuple(parts)
        self._part = lru_cache(maxsize=_PARTS_KEPT)(self._read)

    @property
    def rows(self) -> pa.Table:
        """All of it, read now."""
        return pa.concat_tables([read_parquet(path) for path in self._parts]).unify_dictionaries()

    def row(self, study: int, study_id: str) -> dict[str, Any]:
        """One study's row.

        Args:
            study: its row in the index.
            study_id: its id.
        """
        table, places = self._part(study // _ROWS)
        return dict(table.slice(places[study_id], 1).to_pylist()[0])

    def _read(self, part: int) -> tuple[pa.Table, dict[str, int]]:
        table = read_parquet(self._parts[part])
        return table, {study_id: place for place, study_id in enumerate(table["study_id"].to_pylist())}


def open_labels(index: StudyIndex) -> LabelTable | None:
    """The labels of an index that are on disk, if they are whole and made by the rules of now; nothing is labelled."""
    folder = index.folder / "labels-rules"
    versions = _versions_of(folder)
    current = {"index": index.fingerprint, "rules": RULES_VERSION, "fine": versions.get("fine", "")}
    if versions != current or versions["fine"] not in ("", FINE_RULES_VERSION):
        return None
    rows = pq.ParquetFile(index.folder / "studies.parquet").metadata.num_rows
    parts = [_path(folder, number) for number in range(-(-rows // _ROWS))]
    return LabelTable(versions, parts) if all(path.is_file() for path in parts) else None


def _path(folder: Path, number: int) -> Path:
    return folder / f"part-{number:05}.parquet"


def label_index(
    index: StudyIndex, processes: int = 1, progress: Callable[[int, int], None] | None = None
) -> LabelTable:
    """Label the findings and impressions of all studies that were kept; what was labelled before is read.

    Args:
        index: whose reports.
        processes: that label.
        progress: called with (done, all) rows of the index; not at all where nothing is left to do.
    """
    folder = index.folder / "labels-rules"
    versions = _versions(folder, index)
    if _versions_of(folder) != versions:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_whole(folder / "about.json", json.dumps(versions))
    file = pq.ParquetFile(index.folder / "studies.parquet")
    columns = ["study_id", "findings", "impression", "dropped"]
    parts, done = [], 0
    for number, batch in enumerate(file.iter_batches(_ROWS, columns=columns, use_threads=False)):
        path = _path(folder, number)
        parts.append(path)
        done += len(batch)
        if path.is_file():
            continue
        table = _label(batch, processes, fine=bool(versions["fine"]))
        with whole_file(path) as fresh:
            pq.write_table(table, fresh)
        if progress is not None:
            progress(done, file.metadata.num_rows)
    return LabelTable(versions, parts)


def _versions(folder: Path, index: StudyIndex) -> dict[str, str]:
    """What the labels are to be made with; fine labels that are there need no parser any more."""
    versions = {"index": index.fingerprint, "rules": RULES_VERSION, "fine": FINE_RULES_VERSION}
    if _versions_of(folder) != versions:
        try:
            load_parser()
        except ParserError as error:
            warnings.warn(f"Fine labels are left empty. {error}", stacklevel=3)
            return versions | {"fine": ""}
    return versions


def _versions_of(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _label(batch: pa.RecordBatch, processes: int, *, fine: bool) -> pa.Table:
    rows = [row for row in batch.to_pylist() if not row["dropped"]]
    findings = [row["findings"] for row in rows]
    states = [labeled.states for labeled in label_reports(findings, processes)]
    columns = {
        "study_id": [row["study_id"] for row in rows],
        **{name: [str(each[name]) for each in states] for name in OBSERVATIONS},
        "fine_labels": fine_labels(findings, processes=processes) if fine else [()] * len(rows),
        "cluster_texts": [list(cluster_texts(row["impression"]).items()) for row in rows],
    }
    return pa.table({field.name: pa.array(columns[field.name], field.type) for field in _SCHEMA}, schema=_SCHEMA)
