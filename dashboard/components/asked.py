"""What the address asks for and a page does not offer: said in a sentence; Streamlit would silently show another."""

from __future__ import annotations

from collections.abc import Iterable

import streamlit as st

from dashboard.plain import plain

_ASKED_IN_VAIN = "asked_in_vain"
"""What was asked for in vain, by the key of the choice."""


def tell_unknown(key: str, what: str, offered: Iterable[str]) -> None:
    """Say that the address asks a choice for what it does not offer; call it before the choice is drawn.

    It is said until the reader chooses. Streamlit takes the value out of the address as it draws the choice.

    Args:
        key: of the choice, and its name in the address.
        what: it chooses, as "method".
        offered: as the address would have them.
    """
    state, told = st.session_state, st.session_state.setdefault(_ASKED_IN_VAIN, {})
    known = set(offered)
    wanted = st.query_params.get_all(key)
    if key not in state:  # the first time; later the address follows the choice
        if strange := [each for each in wanted if each and each not in known]:
            told[key] = strange[0]
    elif known.intersection(wanted):
        told.pop(key, None)
    if key in told:
        st.warning(
            f"The address asks for the {what} '{plain(told[key][:60])}', which is not offered here. Showing another.",
            icon=":material/info:",
        )
