"""A closed session as files: CSV, JSON, Parquet, and one HTML page that stands alone. Research use only, on each."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from core import __version__
from core.bundles.card import INTENDED_USE
from core.files import own_folder, write_whole
from core.reviews import codebook
from core.reviews.analysis import Analysis, settle
from core.reviews.answers import Results
from core.reviews.editing import edits_of
from core.reviews.effects import Difference, differences
from core.reviews.long_table import number
from core.reviews.record import Record
from core.reviews.reliability import scale_agreement
from core.reviews.report_page import page
from core.reviews.rubrics import ReviewError, answer_in_words, question_in_words
from core.reviews.titles import titles_of
from core.types import FloatImage


def export(
    results: Results,
    analysis: Analysis,
    folder: Path,
    picture: Callable[[str], FloatImage] | None = None,
    *,
    record: Record | None = None,
    compared: Sequence[Difference] | None = None,
) -> list[Path]:
    """Write all files of a session, each of which can be read alone.

    The CSV files begin with a line that says what they are for (skip it: ``pandas.read_csv(path, skiprows=1)``), and
    text that a spreadsheet would take for a formula has an apostrophe before it; JSON and Parquet hold texts as typed.
    ``codebook.md`` and ``codebook.schema.json`` say what every column means.

    Args:
        folder: made if missing; files of the same names are replaced.
        picture: study -> image (H, W) in [0, 1] for the HTML page; without it the page has no pictures.
        record: of the same session; without it the files have no dates.
        compared: `effects.differences` of the results, where they are there already; fitting them takes a while.

    Returns:
        The files.

    Raises:
        ReviewError: the folder cannot be written.
    """
    record = record or Record()
    titles = titles_of(sorted({model for texts in results.reports.values() for model in texts}))
    compared, scales = differences(results) if compared is None else compared, scale_agreement(results)
    tables = tables_of(results, record, titles)
    contents: dict[str, bytes] = {}
    for name, table in tables.items():
        contents[f"{name}.csv"] = _csv(table)
        contents[f"{name}.json"] = _json({"use": INTENDED_USE, name: table.to_dict("records")})
        contents[f"{name}.parquet"] = _parquet(table)
    figures = {**asdict(analysis), "differences": list(map(asdict, compared))}
    figures["scale_agreement"] = list(map(asdict, scales))
    about = {
        "use": INTENDED_USE,
        "session": results.session_id,
        "software": __version__,
        "created": record.created,
        "closed": record.closed,
        "seal": record.seal,
        "design": dict(results.design),
        "systems": titles,
        "warnings": list(results.warnings),
        "analysis": figures,
    }
    contents["analysis.json"] = _json(about)
    contents["report.html"] = page(results, analysis, compared, scales, record, titles, picture).encode()
    contents["codebook.md"] = codebook.as_markdown(results, tables).encode()
    contents["codebook.schema.json"] = _json(codebook.as_schema(results, tables))
    try:
        own_folder(folder)
    except OSError as error:
        raise ReviewError(f"{folder} cannot be made ({error.strerror}). Choose another folder.") from error
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


def tables_of(results: Results, record: Record, titles: Mapping[str, str]) -> dict[str, pd.DataFrame]:
    """All tables of a session by name, with the columns of `codebook.TABLES` in that order."""
    marks, screens, answers, settled = results.marks, results.screens, results.answers, settle(results)
    place = marks.groupby("screen").cumcount()
    seconds = dict(zip(screens["screen"], screens["seconds"], strict=True))
    ids = screens["screen"]
    tables = {
        "marks": marks.assign(
            words=[
                _marked(results.reports[study].get(model, ""), value)
                for study, model, value in zip(marks["study"], marks["model"], marks["value"], strict=True)
            ],
            date=[
                record.marked[screen][index] if screen in record.marked else ""
                for screen, index in zip(marks["screen"], place, strict=True)
            ],
        ),
        "screens": screens.assign(
            opened_at=[record.opened.get(each, "") for each in ids],
            finished_at=[record.finished.get(each, "") for each in ids],
        ),
        "answers": _in_words(results, answers).assign(
            number=np.array([number(value) for value in answers["value"]], np.float64),
            seconds=[seconds[each] for each in answers["screen"]],
        ),
        "settled": _in_words(results, settled),
        "reports": pd.DataFrame(
            [
                {"study": study, "model": model, "title": titles[model], "text": text}
                for study, texts in sorted(results.reports.items())
                for model, text in sorted(texts.items())
            ],
            columns=pd.Index(list(codebook.TABLES["reports"][1])),
        ),
        "studies": pd.DataFrame(
            [{"study": study, **about} for study, about in sorted(results.contexts.items())]
        ).fillna(""),
        "amendments": pd.DataFrame(
            [(each.at, each.by, each.what, each.before, each.after, each.reason) for each in record.amendments],
            columns=pd.Index(list(codebook.TABLES["amendments"][1])),
        ),
    }
    if results.rubric.edits:
        tables["edits"] = edits_of(results)
    return {name: table[list(codebook.columns_of(name, table))] for name, table in tables.items()}


def _marked(text: str, value: Mapping[str, Any]) -> str:
    """The words that a mark is of."""
    start, end = value.get("span", (0, 0))
    return text[start:end]


def _in_words(results: Results, rows: pd.DataFrame) -> pd.DataFrame:
    """Answers with the columns "asked" and "answered"."""
    asked, answered = [], []
    for study, model, question, value in zip(
        rows["study"], rows["model"], rows["question"], rows["value"], strict=True
    ):
        asked.append(question_in_words(results.rubric, question, results.reports[study].get(model, "")))
        answered.append("not settled" if value is None else answer_in_words(results.rubric, value, question))
    return rows.assign(asked=asked, answered=answered)


def _flat(value: Any) -> Any:
    """Lists and tables as JSON text, for cells."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True) if isinstance(value, dict | list) else value


def _csv(table: pd.DataFrame) -> bytes:
    def cell(value: Any) -> Any:
        flat = _flat(value)
        return "'" + flat if isinstance(flat, str) and flat[:1] in ("=", "+", "-", "@", "\t", "\r") else flat

    return f"# {INTENDED_USE}\n{table.map(cell).to_csv(index=False, lineterminator=chr(10))}".encode()


def _parquet(table: pd.DataFrame) -> bytes:
    flat = table.map(_flat)
    # A column of numbers and words (answers, of different rubrics) is one of words.
    for name in flat.select_dtypes("object").columns:
        flat[name] = flat[name].map(lambda value: None if value is None else str(value))
    written = pa.Table.from_pandas(flat, preserve_index=False)
    written = written.replace_schema_metadata({**(written.schema.metadata or {}), "use": INTENDED_USE})
    out = io.BytesIO()
    pq.write_table(written, out)
    return out.getvalue()


def _json(content: Any) -> bytes:
    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {str(name): plain(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if hasattr(value, "item"):  # of NumPy
            value = value.item()
        return None if isinstance(value, float) and not math.isfinite(value) else value  # JSON knows no NaN

    return (json.dumps(plain(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()
