"""A closed session as files: CSV, JSON, Parquet, and one HTML page that stands alone. Research use only, on each."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from core import __version__
from core.bundles.card import INTENDED_USE
from core.files import write_whole
from core.reviews.analysis import Analysis, settle
from core.reviews.answers import Results
from core.reviews.rubrics import ReviewError, answer_in_words, question_in_words
from core.types import FloatImage

MAX_DISCUSSED = 200
"""Cases with a comment, a flag, a reason or a settled answer that the page shows."""


def export(
    results: Results, analysis: Analysis, folder: Path, picture: Callable[[str], FloatImage] | None = None
) -> list[Path]:
    """Write all files of a session.

    The CSV files begin with a line that says what they are for (skip it: ``pandas.read_csv(path, skiprows=1)``), and
    text that a spreadsheet would take for a formula has an apostrophe before it; JSON and Parquet hold texts as typed.

    Args:
        folder: made if missing; files of the same names are replaced.
        picture: study -> image (H, W) in [0, 1] for the HTML page; without it the page has no pictures.

    Returns:
        The files.

    Raises:
        ReviewError: the folder cannot be written.
    """
    tables = {
        "marks": results.marks,
        "screens": results.screens,
        "answers": results.answers,
        "settled": settle(results),
        "studies": pd.DataFrame(
            [{"study": study, **about} for study, about in sorted(results.contexts.items())]
        ).fillna(""),
    }
    contents: dict[str, bytes] = {}
    for name, table in tables.items():
        contents[f"{name}.csv"] = _csv(table)
        contents[f"{name}.json"] = _json({"use": INTENDED_USE, name: table.to_dict("records")})
        contents[f"{name}.parquet"] = _parquet(table)
    about = {
        "use": INTENDED_USE,
        "session": results.session_id,
        "software": __version__,
        "design": dict(results.design),
        "warnings": list(results.warnings),
        "analysis": asdict(analysis),
    }
    contents["analysis.json"] = _json(about)
    contents["report.html"] = _html(results, analysis, picture).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReviewError(f"{folder} cannot be made ({error.strerror}). Choose another folder.") from error
    for name, content in contents.items():
        write_whole(folder / name, content)
    return [folder / name for name in contents]


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


def _html(results: Results, analysis: Analysis, picture: Callable[[str], FloatImage] | None) -> str:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    template = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined).get_template(
        "report.html"
    )
    titles: dict[str, tuple[Any, ...]] = {
        "Errors per report": analysis.errors,
        "Preferences (Bradley-Terry)": analysis.strengths,
        "Support of explanations": analysis.support,
        "Answers": analysis.answers,
        "Agreement between readers": analysis.agreement,
        "Agreement of readers with themselves": analysis.self_agreement,
        "Drift": analysis.drift,
        "Automatic metrics against counted errors": analysis.correlations,
    }
    tables = {title: [_cells(asdict(row)) for row in rows] for title, rows in titles.items()}
    return template.render(
        use=INTENDED_USE,
        design=results.design,
        rubric=results.rubric,
        session_id=results.session_id,
        software=__version__,
        studies=results.screens["study"].nunique(),
        screens=len(results.screens),
        finished=int((results.screens["state"] != "pending").sum()),
        warnings=results.warnings,
        tables=tables,
        disputed=analysis.disputed,
        settled=analysis.settled,
        discussed=_discussed(results, picture),
    )


def _cells(row: dict[str, Any]) -> dict[str, str]:
    named = {"counted" if name == "significant" else name.replace("_", " "): value for name, value in row.items()}
    if "counted" in named:
        named["counted"] = "significant ones" if named["counted"] else "all"
    return {name: _cell(value) for name, value in named.items()}


def _cell(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"value", "low", "high"}:
        if math.isnan(value["low"]):
            return _cell(value["value"])
        return f"{_cell(value['value'])} ({_cell(value['low'])} to {_cell(value['high'])})"
    if isinstance(value, dict):
        return "; ".join(f"{name}: {_cell(each)}" for name, each in value.items())
    if isinstance(value, tuple):
        return ", ".join(map(_cell, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:.3f}"
    return str(value)


def _discussed(results: Results, picture: Callable[[str], FloatImage] | None) -> list[dict[str, Any]]:
    """Cases that a reader commented on, flagged or skipped, or that a third reader settled."""
    screens, table = results.screens, settle(results)
    noted = screens[screens["flagged"] | (screens["comment"] != "") | (screens["skip_reason"] != "")]
    settled = table[table["disputed"] & table["value"].notna()]
    found = []
    for study in sorted({*noted["study"], *settled["study"]})[:MAX_DISCUSSED]:
        group, texts = noted[noted["study"] == study], results.reports[study]
        decided = settled[settled["study"] == study].to_dict("records")
        shown = {model for row in group["shown"] for _, model in row}
        named = [name for row in decided for name in (row["model"], row["question"])]
        shown |= {model for name in named for model in name.split(" / ")}
        answers = [
            {
                "model": row["model"],
                "question": question_in_words(results.rubric, row["question"], texts.get(row["model"], "")),
                "answer": answer_in_words(results.rubric, row["value"], row["question"]),
            }
            for row in decided
        ]
        notes = [
            {
                "reader": row["reader"],
                "flagged": row["flagged"],
                "text": " ".join(
                    filter(None, (row["comment"], row["skip_reason"] and f"Skipped: {row['skip_reason']}"))
                ),
            }
            for row in group.to_dict("records")
        ]
        found.append(
            {
                "study": study,
                "reports": {model: text for model, text in texts.items() if model in shown},
                "notes": notes,
                "settled": answers,
                "picture": "" if picture is None else _png(picture(study)),
            }
        )
    return found


def _png(image: FloatImage) -> str:
    out = io.BytesIO()
    Image.fromarray((image.clip(0, 1) * 255).round().astype("uint8")).save(out, "PNG")
    return base64.b64encode(out.getvalue()).decode()
