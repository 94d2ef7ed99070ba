"""A file of reports from elsewhere, given on a page: its name, its columns, and what was found in it."""

from __future__ import annotations

import re
from pathlib import Path

import streamlit as st

from core.types import CXRLensError
from core.wording import counted
from dashboard.plain import plain_message
from dashboard.services import systems

_TOLD = "system_told"


def offer_upload(key: str, source_name: str | None = None) -> None:
    """Draw a button behind which a file of reports can be added.

    Args:
        key: unique on the page.
        source_name: short name of the source whose studies are counted in it; None counts none.
    """
    refused = systems.why_not_add()
    for message in systems.problems().values():
        st.error(plain_message(message), icon=":material/error:")
    kind, told = st.session_state.pop(_TOLD, ("", ""))
    if told:
        (st.success if kind == "added" else st.error)(plain_message(told), icon=":material/description:")
    with st.popover("Add a file of reports", icon=":material/upload_file:", width="content", disabled=bool(refused)):
        st.caption(
            "Reports that another model wrote: CSV, JSON lines, a JSON list, or ReXrank's JSON, each with the id of "
            "its study or image. The file stays in your user folder on this machine."
        )
        file = st.file_uploader(
            "File", type=["csv", "json", "jsonl", "gz"], key=f"{key}_file", max_upload_size=systems.MOST_BYTES
        )
        default = "" if file is None else re.sub(r"[^\w .+()-]", "-", Path(file.name).stem)[:64]
        name = st.text_input("Name", value=default, key=f"{key}_name_{default}", max_chars=64)
        left, right = st.columns(2)
        id_column = left.text_input("Column of ids", key=f"{key}_id", placeholder="one with a usual name")
        text_column = right.text_input("Column of reports", key=f"{key}_text", placeholder="one with a usual name")
        given = ("", b"") if file is None else (file.name, file.getvalue())
        st.button(
            "Add",
            type="primary",
            key=f"{key}_add",
            disabled=file is None or not name.strip(),
            on_click=_add,
            args=(name.strip(), *given, id_column.strip(), text_column.strip(), source_name),
        )
    if refused:
        st.caption(plain_message(refused))


def _add(name: str, file_name: str, content: bytes, id_column: str, text_column: str, source_name: str | None) -> None:
    """Callback: add it, and say on the next run what was found, or what is wrong."""
    try:
        system, found = systems.add_upload(name, file_name, content, id_column, text_column)
        told = [
            f"{name} is added: {counted(len(found.rows), 'report', 'reports')}, in the column '{found.text_column}'."
        ]
        told += found.problems[:3]
        if source_name is not None:
            told += systems.reports_of(system, source_name).told
    except CXRLensError as error:
        st.session_state[_TOLD] = "refused", str(error)
    else:
        st.session_state[_TOLD] = "added", " ".join(told)
