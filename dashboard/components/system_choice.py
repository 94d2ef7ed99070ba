"""Which systems are shown: a list a group, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import streamlit as st

from dashboard.plain import plain
from dashboard.services.cases import group_key

Groups = Mapping[str, Mapping[str, str]]
"""Group -> name of a system -> its title, unique in its group."""


def choose_systems(groups: Groups, default: Collection[str], key: str) -> list[str]:
    """Draw the lists; returns the names of the chosen systems.

    Args:
        groups: what there is.
        default: names of the systems that are chosen at first.
        key: in the address, of the first group.
    """
    chosen: list[str] = []
    columns = st.columns(_widths(groups)) if len(groups) > 1 else [st.container()]
    for number, (column, (group, titles)) in enumerate(zip(columns, groups.items(), strict=True)):
        names = {title: name for name, title in titles.items()}
        picked = column.multiselect(
            "Models" if len(groups) == 1 else plain(group),
            list(names),
            default=[title for name, title in titles.items() if name in default],
            key=group_key(key, number),
            bind="query-params",
            placeholder="Choose",
        )
        chosen += [names[title] for title in picked]
    return chosen


def _widths(groups: Groups) -> list[int]:
    """A group with many systems gets more room."""
    return [2 if len(titles) > 4 else 1 for titles in groups.values()]
