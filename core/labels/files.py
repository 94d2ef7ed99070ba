"""Label the reports of a file: CSV, Parquet or text in; CSV, Parquet or JSON lines out, a row a report, in order.

Work is kept in parts beside the output, so that an interrupted run goes on; the output appears only when it is whole.
"""

from __future__ import annotations

import csv
import difflib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from core.files import DiskError, remove_forgotten, sha256_of, whole_file
from core.labels.report_text import is_one_report
from core.labels.rules import LabeledReport
from core.observations import OBSERVATIONS, LabelState
from core.tables import is_broken, open_table, read_rows, says_nothing
from core.types import CXRLensError
from core.wording import counted

Format = Literal["states", "chexpert", "chexbert"]
Labeler = Callable[[Sequence[str]], list[LabeledReport]]

# chexpert-labeler's order (its constants.CATEGORIES) and CheXbert's, which is OBSERVATIONS; the first column of their
# output; their code for a state in a table. Inside, CheXbert numbers its classes otherwise; its tables have these.
TOOLS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "chexpert": (
        "Reports",
        (
            "No Finding",
            "Enlarged Cardiomediastinum",
            "Cardiomegaly",
            "Lung Lesion",
            "Lung Opacity",
            "Edema",
            "Consolidation",
            "Pneumonia",
            "Atelectasis",
            "Pneumothorax",
            "Pleural Effusion",
            "Pleural Other",
            "Fracture",
            "Support Devices",
        ),
    ),
    "chexbert": ("Report Impression", OBSERVATIONS),
}
CODES: Mapping[LabelState, float | None] = {
    LabelState.POSITIVE: 1.0,
    LabelState.NEGATIVE: 0.0,
    LabelState.UNCERTAIN: -1.0,
    LabelState.BLANK: None,
}

LONG = 100_000  # ours: characters; no report is so long, a file read wrongly has such cells
_PART = 4096  # reports
_USUAL_COLUMNS = ("report", "reports", "report impression", "text", "findings", "impression")
_EVIDENCE = pa.list_(
    pa.struct(
        [
            ("observation", pa.string()),
            ("state", pa.string()),
            ("words", pa.string()),
            ("start", pa.int64()),
            ("end", pa.int64()),
            ("reason", pa.string()),
            ("sentence", pa.string()),
        ]
    )
)


@dataclass(frozen=True, slots=True)
class ReportFile:
    """Where reports are.

    Attributes:
        path: .csv, .csv.gz, .parquet or .txt.
        columns: whose texts, with a blank line between, are a report; none for .txt, where every line is one.
        kept: columns that are copied to the output.
        whole: whether all of a .txt is one report, as MIMIC-CXR releases them.
    """

    path: Path
    columns: tuple[str, ...]
    kept: tuple[str, ...] = ()
    whole: bool = False

    def rows(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (report, kept values) of every row, outer spaces left out; no text is "".

        Raises:
            CXRLensError: the file is damaged.
        """
        for texts in self._cells():
            parts = [text for text in texts[: max(1, len(self.columns))] if not says_nothing(text)]
            yield "\n\n".join(parts), texts[max(1, len(self.columns)) :]

    def _cells(self) -> Iterator[tuple[str, ...]]:
        wanted = [*self.columns, *self.kept]
        if _kind(self.path) == ".csv":
            yield from read_rows(self.path, wanted)
        elif _kind(self.path) == ".parquet":
            try:
                for batch in pq.ParquetFile(self.path).iter_batches(_PART, columns=wanted):
                    columns = [
                        ["" if v is None else str(v).strip() for v in batch[name].to_pylist()] for name in wanted
                    ]
                    yield from zip(*columns, strict=True)
            except (OSError, pa.ArrowException) as error:
                raise CXRLensError(f"{self.path} cannot be read: {error}. Get it again.") from error
        else:
            with self.path.open(encoding="utf-8-sig", errors="surrogateescape") as file:
                if self.whole:
                    yield (file.read().strip(),)
                    return
                for line in file:
                    yield (line.strip(),)


@dataclass(slots=True)
class Census:
    """What was found in a file.

    Attributes:
        reports: rows.
        empty: of them without text; their labels are left blank.
        broken: with bytes that are not UTF-8, read as "�".
        long: with more than LONG characters.
    """

    reports: int = 0
    empty: int = 0
    broken: int = 0
    long: int = 0


@dataclass(slots=True)
class Outcome:
    """What became of a file.

    Attributes:
        census: of its rows.
        resumed: rows that an earlier run had labelled.
        counts: observation -> state -> rows.
    """

    census: Census
    resumed: int = 0
    counts: dict[str, dict[LabelState, int]] = field(
        default_factory=lambda: {name: dict.fromkeys(LabelState, 0) for name in OBSERVATIONS}
    )


def find_reports(path: Path, columns: Sequence[str] = (), kept: Sequence[str] = ()) -> ReportFile:
    """Look into a file and find out where its reports are.

    Args:
        columns: of the reports; none: the only column, or the only one with a usual name.
        kept: columns to copy.

    Raises:
        CXRLensError: no such file or column, an ending or an encoding that is not read, a file without a header.
    """
    if not path.is_file():
        raise CXRLensError(f"There is no file {path}.")
    if path.stat().st_size == 0:
        raise CXRLensError(f"{path} is empty (0 bytes).")
    kind = _kind(path)
    if kind == ".txt":
        if columns or kept:
            raise CXRLensError(f"{path} is text, a report a line; it has no columns. Leave out --column and --keep.")
        with path.open("rb") as file:
            _refuse_utf16(path, file.read(4))
        return ReportFile(path, (), whole=_is_whole(path))
    names = _csv_header(path) if kind == ".csv" else _parquet_names(path)
    for name in (*columns, *kept):
        if name not in names:
            raise CXRLensError(_no_column(path, name, names))
    return ReportFile(path, tuple(columns) or (_guess_column(path, names),), tuple(kept))


def take_census(reports: ReportFile) -> Census:
    """Read a file once, to the end: a damaged one is found before any work is done.

    Raises:
        CXRLensError: the file is damaged, or no row of it holds text.
    """
    census = Census()
    for text, _ in reports.rows():
        census.reports += 1
        census.empty += not text
        census.broken += is_broken(text)
        census.long += len(text) > LONG
    if census.reports == census.empty:
        where = f"Column {', '.join(reports.columns)} of {reports.path}" if reports.columns else str(reports.path)
        raise CXRLensError(f"{where} holds no report: {counted(census.reports, 'row', 'rows')}, none with text.")
    return census


def label_file(
    reports: ReportFile,
    out: Path,
    form: Format,
    label: Labeler,
    version: str,
    census: Census,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Label a file's reports into another file.

    Args:
        out: .csv, .parquet or .jsonl; it appears when everything is labelled.
        form: "states": row number, kept columns, the state of each observation, the evidence (as characters of
            the report); "chexpert" and "chexbert": kept columns, then the table of that tool, codes 1, 0, -1, blank.
        version: of the labeler; parts of another version are made anew.
        census: of the reports, taken before.
        progress: called with the number of rows that are done.

    Raises:
        CXRLensError: bad input; an output whose ending is not known; a kept column with a name of the output's own;
            a full disk.
    """
    if out.suffix not in (".csv", ".parquet", ".jsonl"):
        raise CXRLensError(f"The output {out} must end in .csv, .parquet or .jsonl.")
    if taken := {*OBSERVATIONS, "row", "evidence", *(text for text, _ in TOOLS.values())} & set(reports.kept):
        raise CXRLensError(f"Column {', '.join(taken)} cannot be kept: the output has one of that name.")
    outcome = Outcome(census)
    folder = out.with_name(out.name + ".parts")
    try:
        _prepare(folder, reports, form, version)
        paths: list[Path] = []
        done = 0
        rows_of_file = reports.rows()
        while rows := list(islice(rows_of_file, _PART)):
            path = folder / f"{len(paths):06}.parquet"
            paths.append(path)
            if path.is_file():
                outcome.resumed += len(rows)
            else:
                table = _label(rows, done, reports, form, label)
                with whole_file(path) as fresh:
                    pq.write_table(table, fresh)
            done += len(rows)
            if progress is not None:
                progress(done)
        remove_forgotten(out.parent, out.name)
        with whole_file(out) as fresh:
            _join(paths, fresh, out.suffix, outcome)
        shutil.rmtree(folder)
    except OSError as error:
        raise CXRLensError(f"{out} cannot be written: {error.strerror or error}. What is done is kept.") from error
    except DiskError as error:
        raise CXRLensError(f"{error} What is done is kept: run the same command again to go on.") from error
    return outcome


# --- input ---


def _kind(path: Path) -> str:
    kind = "".join(path.suffixes[-2:]).lower() if path.suffix.lower() == ".gz" else path.suffix.lower()
    if kind not in (".csv", ".csv.gz", ".parquet", ".txt"):
        raise CXRLensError(f"{path}: reports are read from .csv, .csv.gz, .parquet and .txt (one report a line).")
    return kind.removesuffix(".gz")


def _is_whole(path: Path) -> bool:
    """Whether a text file is one report over many lines; a report is not longer than LONG."""
    if path.stat().st_size > 4 * LONG:
        return False
    return is_one_report(path.read_text(encoding="utf-8-sig", errors="surrogateescape"))


def _csv_header(path: Path) -> list[str]:
    csv.field_size_limit(2**26)
    try:
        with open_table(path) as file:
            _refuse_utf16(path, file.buffer.read(4))  # type: ignore[attr-defined]
        with open_table(path) as file:
            names = [name.strip() for name in next(csv.reader(file), [])]
    except (OSError, EOFError, csv.Error) as error:
        raise CXRLensError(f"{path} cannot be read: {error}. Get it again.") from error
    if len(names) == 1 and len(names[0].split()) > 4:
        raise CXRLensError(
            f"{path} has no header: its first line reads like a report. Put the name of the column into the first line."
        )
    return names


def _parquet_names(path: Path) -> list[str]:
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException) as error:
        raise CXRLensError(f"{path} is not a Parquet file, or was cut off: {error}") from error
    return list(schema.names)


def _refuse_utf16(path: Path, begin: bytes) -> None:
    if begin[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\x00" in begin:
        raise CXRLensError(f"{path} is in UTF-16 or no text at all. Save it as UTF-8.")


def _guess_column(path: Path, names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    usual = [name for name in names if name.lower() in _USUAL_COLUMNS]
    if len(usual) == 1:
        return usual[0]
    raise CXRLensError(f"{path}: which column holds the reports? Choose with --column: {_list(names)}.")


def _no_column(path: Path, name: str, names: Sequence[str]) -> str:
    lower = {each.lower(): each for each in names}
    near = [lower[each] for each in difflib.get_close_matches(name.lower(), lower, n=3, cutoff=0.4)]
    hint = f"Did you mean {' or '.join(near)}?" if near else f"It has: {_list(names)}."
    return f"{path} has no column {name}. {hint}"


def _list(names: Sequence[str]) -> str:
    return ", ".join(name[:40] for name in names[:20]) or "none"


# --- parts and output ---


def _prepare(folder: Path, reports: ReportFile, form: Format, version: str) -> None:
    """Make the folder of parts; parts of other reports, settings or rules are thrown away."""
    about = json.dumps([sha256_of(reports.path), reports.columns, reports.kept, form, version, _PART])
    note = folder / "about.json"
    if note.is_file() and note.read_text(encoding="utf-8") == about:
        return
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    note.write_text(about, encoding="utf-8")


def _label(
    rows: Sequence[tuple[str, tuple[str, ...]]], first: int, reports: ReportFile, form: Format, label: Labeler
) -> pa.Table:
    texts = [_utf8(text) for text, _ in rows]
    given = iter(label([text for text in texts if text]))
    empty = LabeledReport(dict.fromkeys(OBSERVATIONS, LabelState.BLANK), ())
    labeled = [next(given) if text else empty for text in texts]
    kept = {
        name: pa.array([_utf8(values[index]) for _, values in rows], pa.string())
        for index, name in enumerate(reports.kept)
    }
    if form == "states":
        return pa.table(
            {
                "row": pa.array(range(first, first + len(rows)), pa.int64()),
                **kept,
                **{name: pa.array([str(each.states[name]) for each in labeled], pa.string()) for name in OBSERVATIONS},
                "evidence": pa.array(map(_evidence, texts, labeled), _EVIDENCE),
            }
        )
    text_column, order = TOOLS[form]
    return pa.table(
        {
            **kept,
            text_column: pa.array(texts, pa.string()),
            **{name: pa.array([CODES[each.states[name]] for each in labeled], pa.float64()) for name in order},
        }
    )


def _utf8(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if is_broken(text) else text


def _evidence(text: str, labeled: LabeledReport) -> list[dict[str, Any]]:
    return [
        {
            "observation": mention.observation,
            "state": str(mention.state),
            "words": text[mention.start : mention.end],
            "start": mention.start,
            "end": mention.end,
            "reason": mention.reason,
            "sentence": text[mention.sentence_start : mention.sentence_end],
        }
        for mention in labeled.mentions
    ]


def _join(paths: Sequence[Path], out: Path, suffix: str, outcome: Outcome) -> None:
    """Write the parts into one file, and count their states."""
    state_of = {code: state for state, code in CODES.items()} | {str(state): state for state in LabelState}
    if suffix == ".parquet":
        with pq.ParquetWriter(out, pq.read_schema(paths[0])) as writer:
            for path in paths:
                table = pq.read_table(path)
                writer.write_table(table)
                _count(table, state_of, outcome)
        return
    with out.open("w", encoding="utf-8", newline="") as file:
        writer_of_rows = csv.writer(file)
        for path in paths:
            table = pq.read_table(path)
            _count(table, state_of, outcome)
            if suffix == ".jsonl":
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
                continue
            if path is paths[0]:
                writer_of_rows.writerow(table.column_names)
            for row in table.to_pylist():
                cells = row.values()
                writer_of_rows.writerow(
                    json.dumps(cell, ensure_ascii=False) if isinstance(cell, list) else cell for cell in cells
                )


def _count(table: pa.Table, state_of: Mapping[Any, LabelState], outcome: Outcome) -> None:
    for name in OBSERVATIONS:
        for value in table[name].to_pylist():
            outcome.counts[name][state_of[value]] += 1
