"""A table of scores that can be taken away: as CSV, Markdown or LaTeX, always with what it may be used for."""

from __future__ import annotations

import pandas as pd
import streamlit as st

from core.bundles.card import INTENDED_USE

FORMATS = {"CSV": ("csv", "text/csv"), "Markdown": ("md", "text/markdown"), "LaTeX": ("tex", "application/x-tex")}


def as_text(table: pd.DataFrame, kind: str, title: str, *, digits: int = 3) -> str:
    """A table as text.

    Args:
        table: its columns are the heads; numbers are rounded.
        kind: a key of ``FORMATS``.
        title: what it shows, and where the numbers come from.
        digits: after the point; CSV keeps all.
    """
    if kind == "CSV":
        return f"# {title}\n# {INTENDED_USE}\n{table.to_csv(index=False)}"
    cells = [[_cell(value, digits) for value in row] for row in table.itertuples(index=False)]
    heads = [str(name) for name in table.columns]
    if kind == "Markdown":
        cells = [[cell.replace("|", "\\|") for cell in row] for row in cells]
        align = ["---:" if pd.api.types.is_numeric_dtype(table[name]) else "---" for name in table.columns]
        lines = [f"| {' | '.join(row)} |" for row in (heads, align, *cells)]
        return "\n".join([*lines, "", title, "", INTENDED_USE, ""])
    columns = "".join("r" if pd.api.types.is_numeric_dtype(table[name]) else "l" for name in table.columns)
    rows = [" & ".join(map(_latex, row)) + r" \\" for row in cells]
    head = " & ".join(map(_latex, heads)) + r" \\"
    return "\n".join(
        [
            f"% {INTENDED_USE}",
            rf"\begin{{table}}\caption{{{_latex(title)} {_latex(INTENDED_USE)}}}",
            rf"\begin{{tabular}}{{{columns}}}\hline",
            head + r"\hline",
            *rows,
            r"\hline\end{tabular}\end{table}",
            "",
        ]
    )


def export(table: pd.DataFrame, title: str, *, name: str) -> None:
    """A button behind which the table can be saved.

    Args:
        table: as shown.
        title: goes with it.
        name: of the file, without its ending; also the widgets' key.
    """
    with st.popover("Save this table", icon=":material/download:", width="content"):
        for kind, (ending, mime) in FORMATS.items():
            st.download_button(
                kind,
                lambda kind=kind: as_text(table, kind, title).encode(),  # type: ignore[misc]
                f"cxr-lens-{name}.{ending}",
                mime,
                key=f"save-{name}-{ending}",
                on_click="ignore",
            )


def _cell(value: object, digits: int) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _latex(text: str) -> str:
    text = text.replace("\\", r"\textbackslash ")
    for sign in "&%$#_{}":
        text = text.replace(sign, "\\" + sign)
    return text.replace("~", r"\textasciitilde ").replace("^", r"\textasciicircum ")
