"""Tables as the paper has them, ours beside the paper's numbers: JSON for programs, CSV and Markdown for people.

``results/<family>/table-1.json`` and so on; a study's table is ``ccve.json`` or ``encoders.json``. A file is written in
one piece.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from core.evaluation.metrics import METRICS
from core.files import write_whole
from core.paths import how_to_restore
from core.types import CXRLensError

TableName = Literal["1", "2", "3", "ccve", "encoders", "filters"]
TABLES: Mapping[TableName, str] = {
    "1": "Table 1: reports of the pairs",
    "2": "Table 2: image classifiers",
    "3": "Table 3: reports from the true fine labels",
    "ccve": "CCVE study: what its 13 embeddings know",
    "encoders": "Encoder study: does the paper's order hold",
    "filters": "Filter study: under which training CCVE's filters filter",
}
"""Name of a table -> its title."""

Kind = Literal["system", "baseline", "control"]
SCHEMA = 1

PRINTED: Mapping[str, str] = {metric.name: metric.head for metric in METRICS.values() if metric.printed}
"""Metrics of the paper's tables, in their order -> their titles."""
_PAPERS_KEYS = {"1": ("encoder", "decoder"), "2": ("timm_name",), "3": ("input",)}
_CCVE_PAPER = "CCVE_pca2000_catboost_auc"


class TableError(CXRLensError):
    """A table on disk is missing or damaged, or one cannot be made; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell.

    Attributes:
        value: ours.
        low: lower end of its 95 % interval over studies, if there is one.
        high: upper end.
        sd: standard deviation over training seeds, where there are several; ``value`` is then their mean.
        paper: the paper's number, where the paper has this cell. Mostly of other data: see the table's notes.
    """

    value: float
    low: float | None = None
    high: float | None = None
    sd: float | None = None
    paper: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no number, and half an interval."""
        for name in ("value", "low", "high", "sd", "paper"):
            number = getattr(self, name)
            if number is not None and (
                isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number)
            ):
                raise TableError(f"{name} is {number!r}, not a number.")
        if (self.low is None) != (self.high is None):
            raise TableError("an interval needs both its ends.")

    @property
    def difference(self) -> float | None:
        """Ours less the paper's."""
        return None if self.paper is None else self.value - self.paper


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        name: what a reader sees.
        kind: what the table is about, a baseline, or a control.
        keys: names of what made the row ("encoder", "decoder", "backbone", "probe", ...).
        metrics: by metric; see the table's ``metrics``.
        note: one sentence, or nothing.
    """

    name: str
    kind: Kind = "system"
    keys: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Cell]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperTable:
    """One table.

    Attributes:
        name: key of ``TABLES``.
        family: of the models or bundles.
        metrics: name -> title of each column, in order.
        rows: in order; systems first.
        n: held-out studies that were scored.
        seeds: of the trainings behind it.
        command: what writes it again.
        data: which studies, in a few words.
        notes: sentences that belong beside the numbers.
    """

    name: TableName
    family: str
    metrics: Mapping[str, str]
    rows: tuple[Row, ...]
    n: int
    seeds: tuple[int, ...]
    command: str
    data: str
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Of the table."""
        return TABLES[self.name]

    def __post_init__(self) -> None:
        """Refuse an unknown name and rows whose metrics have no column."""
        if self.name not in TABLES:
            raise TableError(f"there is no table '{self.name}'; known: {', '.join(TABLES)}.")
        if not self.rows:
            raise TableError("it has no rows.")
        for row in self.rows:
            if unknown := sorted(set(row.metrics) - set(self.metrics)):
                raise TableError(f"row '{row.name}' has metrics without a column: {', '.join(unknown)}.")
            if row.kind not in get_args(Kind):
                raise TableError(f"row '{row.name}' is of the unknown kind '{row.kind}'.")


def table_path(folder: Path, family: str, name: str) -> Path:
    """Where a table's JSON lies in the folder of all results."""
    return folder / family / (f"table-{name}.json" if name.isdigit() else f"{name}.json")


def write_table(folder: Path, table: PaperTable) -> Path:
    """Write a table as JSON, CSV and Markdown into ``folder/<family>/``; returns the JSON's path."""
    path = table_path(folder, table.family, table.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path.with_suffix(".csv"), to_csv(table), private=False)
    write_whole(path.with_suffix(".md"), to_markdown(table), private=False)
    write_whole(path, json.dumps(to_dict(table), indent=1, ensure_ascii=False, allow_nan=False) + "\n", private=False)
    return path


def to_dict(table: PaperTable) -> dict[str, Any]:
    """Plain values of a table, as its JSON has them."""
    return {"schema": SCHEMA, "title": table.title, **dataclasses.asdict(table)}


def read_table(path: Path) -> PaperTable:
    """Read a table's JSON.

    Raises:
        TableError: it is missing, damaged, or of another version; the message names the file and what to do.
    """
    from core import schemas  # brings pydantic, which takes a while

    try:
        content = schemas.read_json(path)
    except FileNotFoundError:
        raise TableError(f"{path} is missing. {_hint(path)}") from None
    except (OSError, ValueError) as error:
        raise TableError(f"{path} cannot be read ({error}). {_hint(path)}") from error
    try:
        if content["schema"] != SCHEMA:
            raise TableError(f"it is of version {content['schema']}, this program reads {SCHEMA}.")
        schemas.check(content, schemas.Table)
        rows = tuple(
            Row(
                name=row["name"],
                kind=row["kind"],
                keys={str(key): str(value) for key, value in row["keys"].items()},
                metrics={key: Cell(**metric) for key, metric in row["metrics"].items()},
                note=row["note"],
            )
            for row in content["rows"]
        )
        return PaperTable(
            name=content["name"],
            family=content["family"],
            metrics=dict(content["metrics"]),
            rows=rows,
            n=int(content["n"]),
            seeds=tuple(int(seed) for seed in content["seeds"]),
            command=content["command"],
            data=content["data"],
            notes=tuple(content["notes"]),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TableError(f"{path} is no table ({type(error).__name__}: {error}). {_hint(path)}") from error
    except TableError as error:
        raise TableError(f"{path} is damaged: {error} {_hint(path)}") from error


def read_tables(folder: Path, family: str) -> tuple[dict[TableName, PaperTable], tuple[str, ...]]:
    """All tables of a family that are there, by name, and what is wrong with those that cannot be read."""
    found: dict[TableName, PaperTable] = {}
    problems: list[str] = []
    for name in TABLES:
        path = table_path(folder, family, name)
        if path.is_file():
            try:
                found[name] = read_table(path)
            except TableError as error:
                problems.append(str(error))
    return found, tuple(problems)


def paper_numbers(folder: Path, name: TableName) -> dict[tuple[str, ...], dict[str, float]]:
    """The paper's numbers, typed from it.

    Args:
        folder: of the CSV files, ``assets/paper``.

    Returns:
        key of a row -> metric -> number. Keys: 1 (encoder, decoder), 2 (timm's name,), 3 (input,), ccve (encoder,
        probe), encoders as 1, F1 alone; filters none.

    Raises:
        TableError: a file is missing or damaged.
    """
    if name == "filters":
        return {}  # the paper shows pictures only
    if name == "encoders":
        return {pair: {"f1": metrics["f1"]} for pair, metrics in paper_numbers(folder, "1").items()}
    path = folder / ("numbers.csv" if name == "ccve" else f"table{name}.csv")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        if name == "ccve":
            (value,) = (float(row["value"]) for row in rows if row["quantity"] == _CCVE_PAPER)
            return {("ccve", "pca_catboost"): {"auc": value}}
        return {
            tuple(_ours(row[key]) for key in _PAPERS_KEYS[name]): {
                name: float(row[METRICS[name].printed]) for name in PRINTED if METRICS[name].printed in row
            }
            for row in rows
        }
    except FileNotFoundError:
        raise TableError(f"The paper's numbers are missing: {path}. {how_to_restore(path)}") from None
    except (KeyError, ValueError, OSError) as error:
        raise TableError(f"{path} is damaged ({type(error).__name__}: {error}). {how_to_restore(path)}") from error


def beside(
    values: Mapping[str, float],
    paper: Mapping[str, float] | None = None,
    *,
    intervals: Mapping[str, Sequence[float]] | None = None,
    sd: Mapping[str, float] | None = None,
) -> dict[str, Cell]:
    """Cells of plain values, with the paper's numbers.

    Args:
        values: metric -> ours.
        paper: metric -> the paper's.
        intervals: metric -> (low, high).
        sd: metric -> standard deviation over seeds.
    """
    cells = {}
    for name, value in values.items():
        low, high = (intervals or {}).get(name, (None, None))
        cells[name] = Cell(value=value, low=low, high=high, sd=(sd or {}).get(name), paper=(paper or {}).get(name))
    return cells


def to_csv(table: PaperTable) -> str:
    """One line a cell: what a spreadsheet or pandas wants."""
    keys = list(dict.fromkeys(key for row in table.rows for key in row.keys))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["row", "kind", *keys, "metric", "value", "low", "high", "sd", "paper", "difference"])
    for row in table.rows:
        for name, cell in row.metrics.items():
            numbers = (cell.value, cell.low, cell.high, cell.sd, cell.paper, cell.difference)
            shown = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow([row.name, row.kind, *(row.keys.get(key, "") for key in keys), name, *shown])
    return out.getvalue()


def to_markdown(table: PaperTable) -> str:
    """For a page: ours, its interval, and in a second line of the cell the paper's with the difference."""
    lines = [f"**{table.title}**: {table.family}", "", "```", table.command, "```", ""]
    lines += ["| | " + " | ".join(table.metrics.values()) + " |", "|---|" + "---:|" * len(table.metrics)]
    for row in table.rows:
        cells = [_cell(row.metrics[name]) if name in row.metrics else "" for name in table.metrics]
        name = row.name if row.kind == "system" else f"*{row.name}*"
        lines.append(f"| {name} | {' | '.join(cells)} |")
    seeds = f"Seed{'s' * (len(table.seeds) > 1)} {', '.join(map(str, table.seeds))}." if table.seeds else ""
    about = f"{table.n:,} held-out studies. Data: {table.data} {seeds}".strip()
    cells_of_all = [cell for row in table.rows for cell in row.metrics.values()]
    legend = " ".join(
        text
        for text, used in (
            ("± standard deviation over seeds.", any(cell.sd is not None for cell in cells_of_all)),
            ("In brackets 95 % intervals.", any(cell.low is not None for cell in cells_of_all)),
            ("Below: the paper's number, and ours less the paper's.", any(c.paper is not None for c in cells_of_all)),
        )
        if used
    )
    lines += ["", " ".join(filter(None, (about, legend))), ""]
    lines += [f"- {note}" for note in table.notes]
    lines += [f"- {row.name}: {row.note}" for row in table.rows if row.note]
    return "\n".join(lines).rstrip() + "\n"


def _cell(metric: Cell) -> str:
    text = f"{metric.value:.3f}"
    if metric.sd is not None:
        text += f" ± {metric.sd:.3f}"
    if metric.low is not None and metric.high is not None:
        text += f" ({metric.low:.3f} to {metric.high:.3f})"
    if metric.paper is not None and metric.difference is not None:
        text += f"<br>{metric.paper:.3f}, {metric.difference:+.3f}"
    return text


def _ours(printed: str) -> str:
    name = printed.lower()
    return {"rnn_rnn": "cnn_rnn_rnn"}.get(name, name)


def _hint(path: Path) -> str:
    name = path.stem.removeprefix("table-")
    command = f"table {name}" if name.isdigit() else f"study {name}"
    return f"Write it with: cxr-lens {command} --preset {path.parent.name}"
