"""Files of reports that others wrote, read row by row: CSV, JSON lines, JSON lists and ReXrank's JSON.

Rows say of which study or image they are by any id; `core.systems.matching` finds the study.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.registry import did_you_mean
from core.studies.records import csv_header
from core.tables import is_broken, plain_id, read_rows, says_nothing
from core.types import CXRLensError
from core.wording import counted

LONGEST = 100_000  # ours: characters; no report is so long, a file read wrongly has such cells
IDS = ("study_id", "study", "studyid", "dicom_id", "image_id", "id", "case_id", "uid", "image_path", "image", "path")
"""Usual names of the column that says of which study or image a row is, whatever the case of letters."""
TEXTS = (
    *("model_prediction", "prediction", "predicted", "pred", "generated_report", "generated", "generation"),
    *("hypothesis", "hyp", "candidate", "output", "report", "reports", "findings", "text"),
)
"""Usual names of the column of texts. "report" comes late: beside a prediction it is the reference."""
_NOT_TEXTS = ("reference", "split", "subject_id", "context")
_FORMATS = "a table (.csv, .csv.gz), JSON lines (.jsonl), or JSON (.json): a list of rows, or one object by study id"


@dataclass(frozen=True, slots=True)
class ReportRow:
    """A report, and what the file says of which study it is.

    Attributes:
        ids: of its study, or of images of it; the first that is known counts.
        text: the report; "" where the file has none: null, NaN, "None", an empty cell.
    """

    ids: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class ReportFile:
    """What a file holds.

    Attributes:
        rows: in the file's order.
        id_column: by which its studies were known; "key" of an object by study id.
        text_column: of the texts.
        problems: rows that are left out, and why, a sentence each.
    """

    rows: tuple[ReportRow, ...]
    id_column: str
    text_column: str
    problems: tuple[str, ...] = ()


def read_report_file(path: Path, id_column: str = "", text_column: str = "") -> ReportFile:
    """Read a file of reports.

    Args:
        path: see above.
        id_column: of the study's or the image's id; a usual name unless given, see `IDS`.
        text_column: of the texts; a usual name unless given, see `TEXTS`, or the only other column.

    Raises:
        CXRLensError: it is not there, of another kind, damaged, without such columns, or without any report.
    """
    if not path.is_file():
        raise CXRLensError(f"There is no file {path}.")
    name = path.name.lower()
    if name.endswith((".csv", ".csv.gz")):
        return _from_table(path, id_column, text_column)
    if not name.endswith((".json", ".jsonl")):
        raise CXRLensError(f"{path.name} is no file of reports that can be read: it should be {_FORMATS}.")
    return parse_reports(_json(path), path.name, id_column, text_column)


def parse_reports(content: Any, name: str, id_column: str = "", text_column: str = "") -> ReportFile:
    """Take reports from what a JSON file holds.

    Args:
        content: a list of objects, or an object by study id, of objects or of texts.
        name: of the file, for messages.
        id_column: as of `read_report_file`.
        text_column: as of `read_report_file`.

    Raises:
        CXRLensError: as `read_report_file`.
    """
    if isinstance(content, Mapping):
        keyed: Iterable[tuple[str, Any]] = ((str(key), value) for key, value in content.items())
    elif isinstance(content, list):
        keyed = (("", value) for value in content)
    else:
        raise CXRLensError(f"{name} holds no reports: it should be {_FORMATS}.")
    rows, problems = [], []
    for number, (key, value) in enumerate(keyed, 1):
        if isinstance(value, Mapping):
            rows.append((number, key, value))
        elif key and (isinstance(value, str) or value is None):
            rows.append((number, key, {"text": value}))
        else:
            problems.append(f"Row {number} of {name} is no report with an id: it is left out.")
    columns = list(dict.fromkeys(str(column) for _, _, value in rows for column in value))
    by_key = isinstance(content, Mapping)
    id_column = _column(name, "--id", id_column, columns, IDS, ("key",) if by_key else ())
    text_column = _column(name, "--report", text_column, columns, TEXTS, _others(columns, id_column))
    found = []
    for number, key, value in rows:
        ids = [key] if by_key else []
        ids += _ids(value.get(id_column)) + [each for column in IDS for each in _ids(_of(value, column))]
        text, problem = _text(value.get(text_column))
        ids = list(dict.fromkeys(filter(None, ids)))
        if problem or not ids:
            problems.append(f"Row {number} of {name} {problem or 'has no id'}: it is left out.")
            continue
        found.append(ReportRow(tuple(ids), text))
    return _whole(found, id_column, text_column, problems, name)


def _from_table(path: Path, id_column: str, text_column: str) -> ReportFile:
    columns = _header(path)
    id_column = _column(path.name, "--id", id_column, columns, IDS)
    text_column = _column(path.name, "--report", text_column, columns, TEXTS, _others(columns, id_column))
    known = [name for name in columns if name.lower() in IDS and name != id_column]
    found, problems = [], []
    broken = 0
    for number, (text, *ids) in enumerate(read_rows(path, [text_column, id_column, *known]), 1):
        broken += is_broken(text)
        cleaned, problem = _text(text)
        named = tuple(dict.fromkeys(each for value in ids for each in _ids(value)))
        if problem or not named:
            problems.append(f"Row {number} of {path.name} {problem or 'has no id'}: it is left out.")
            continue
        found.append(ReportRow(named, cleaned))
    if broken:
        problems.append(
            f"{counted(broken, 'report', 'reports')} of {path.name} {'has' if broken == 1 else 'have'} signs that "
            "are not UTF-8, read as �. Save it as UTF-8."
        )
    return _whole(found, id_column, text_column, problems, path.name)


def _whole(
    rows: Sequence[ReportRow], id_column: str, text_column: str, problems: Sequence[str], name: str
) -> ReportFile:
    if not any(row.text for row in rows):
        empty = problems[0] if problems else "it is empty"
        what = f"{counted(len(rows), 'row', 'rows')}, none with text" if rows else empty
        raise CXRLensError(f"{name} holds no report in its column '{text_column}' ({what}).")
    return ReportFile(tuple(rows), id_column, text_column, tuple(problems))


def _header(path: Path) -> list[str]:
    names = csv_header(path)
    twice = {name for name in names if names.count(name) > 1}
    if twice or not any(names):
        what = f"two columns '{twice.pop()}'" if twice and any(twice) else "no header"
        raise CXRLensError(f"{path.name} has {what}: its first line should name each column once.")
    return names


def _json(path: Path) -> Any:
    """What a JSON file or JSON lines hold; NaN, which Python writes for a missing text, is null."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CXRLensError(f"{path} cannot be read ({error.strerror}).") from error
    except UnicodeDecodeError as error:
        raise CXRLensError(f"{path.name} is not in UTF-8 (byte {error.start}). Save it as UTF-8.") from error
    try:
        return json.loads(text, parse_constant=_null, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() == ".json" and not _is_row(text.lstrip().partition("\n")[0]):
            raise CXRLensError(f"{path.name} is damaged: it is no JSON ({error}).") from error
    return list(_lines(text, path.name))


def _is_row(line: str) -> bool:
    """Whether a line alone is an object: JSON lines, whatever the file's name says."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


def _lines(text: str, name: str) -> Iterator[Any]:
    for number, line in enumerate(text.split("\n"), 1):  # a string may hold what `splitlines` takes for a line's end
        if line.strip():
            try:
                yield json.loads(line, parse_constant=_null)
            except (ValueError, RecursionError) as error:
                raise CXRLensError(f"{name} is damaged: line {number} is no JSON ({error}).") from error


def _null(name: str) -> None:
    return None


def _unique(pairs: list[tuple[str, Any]]) -> Any:
    """An object as it is; one in which a study comes twice, as the list of its rows, so that neither is lost."""
    names = [name for name, _ in pairs]
    if len(set(names)) == len(names):
        return dict(pairs)
    return [{"study_id": name, **(value if isinstance(value, dict) else {"text": value})} for name, value in pairs]


def _of(row: Mapping[str, Any], name: str) -> Any:
    return next((value for column, value in row.items() if str(column).lower() == name), None)


def _ids(value: Any) -> list[str]:
    """Ids in a cell: one, or a list of several images; of a number that pandas made "50414267.0", "50414267"."""
    values = value if isinstance(value, list | tuple) else [value]
    values = [each for each in values if isinstance(each, str | int | float) and not isinstance(each, bool)]
    found = [str(int(each) if isinstance(each, float) and each.is_integer() else each).strip() for each in values]
    return [plain_id(each) for each in found if each]


def _text(value: Any) -> tuple[str, str]:
    """A text with line feeds as its only line ends, and what is wrong with it."""
    if value is None or (isinstance(value, str) and says_nothing(value)):
        return "", ""
    if not isinstance(value, str):
        return "", f"has {json.dumps(value, default=str)[:40]} for its text"
    if len(value) > LONGEST:
        return "", f"has a text of {len(value):,} characters"
    text = "\n".join(line.rstrip() for line in value.strip().splitlines())
    if is_broken(text) or not text.isprintable():
        text = re.sub("[\0\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", text)
    return text, ""


def _others(columns: Sequence[str], id_column: str) -> tuple[str, ...]:
    """The only column that is neither an id nor known to be something else."""
    left = [each for each in columns if each != id_column and each.lower() not in (*IDS, *_NOT_TEXTS)]
    return tuple(left) if len(left) == 1 else ()


def _column(
    name: str, option: str, wanted: str, columns: Sequence[str], usual: Sequence[str], otherwise: Sequence[str] = ()
) -> str:
    """The column that was asked for, or one with a usual name."""
    if wanted:
        if wanted in (*columns, *otherwise):
            return wanted
        hint = did_you_mean(wanted, columns) or f" It has: {', '.join(columns[:20])}."
        raise CXRLensError(f"{name} has no column '{wanted}'.{hint}")
    lower = {each.lower(): each for each in reversed(columns)}
    for each in usual:
        if each in lower:
            return lower[each]
    if otherwise:
        return otherwise[0]
    what = "says of which study a row is" if option == "--id" else "holds the reports"
    raise CXRLensError(
        f"{name}: which column {what}? Name it with {option}; there are {', '.join(columns[:20]) or 'none'}."
    )
