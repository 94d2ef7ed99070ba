"""Names and defaults of what a session remembers, and what of it is in the page's address."""

from __future__ import annotations

import streamlit as st

from core.registry import DECODERS, ENCODERS

SOURCES = ("Phantom studies", "Your own image")
ANY_FINDING = "Any finding"

# In the address, written by their widgets; a pair's key is its encoder's name, its values are the decoders.
SOURCE = "source"
FINDING = "finding"
MAP_ENCODER = "encoder"
MAP_FINDING = "colour"

STUDY = "study"  # id of the study that is open; in the address, written by write_study
STUDY_CHOICE = "study_choice"  # the widget behind it
UNKNOWN_STUDY = "unknown_study"  # what the address asked for in vain; until another is chosen
_STUDY_IN_ADDRESS = "study_in_address"

UPLOAD = "upload"  # Case of the uploaded image, or None
UPLOAD_ID = "upload_id"  # Streamlit's id of the file, to read it once
UPLOAD_ERROR = "upload_error"


def start() -> None:
    """Set what is not set yet, and follow the address. Runs before every page."""
    state = st.session_state
    for name in (STUDY, UNKNOWN_STUDY, UPLOAD, UPLOAD_ID, _STUDY_IN_ADDRESS):
        state.setdefault(name, None)
    state.setdefault(UPLOAD_ERROR, "")
    # A link that was opened, or the browser's back button.
    address = st.query_params.get(STUDY)
    if address and address != state[_STUDY_IN_ADDRESS]:
        state[STUDY] = state[_STUDY_IN_ADDRESS] = address


def write_study(study_id: str) -> None:
    """Put the open study in the address. Its widget is not bound to it: labels there are long and may change."""
    if st.query_params.get(STUDY) != study_id:
        st.query_params[STUDY] = study_id
    st.session_state[_STUDY_IN_ADDRESS] = study_id


def choose_all() -> None:
    """Choose all twelve pairs."""
    for encoder in ENCODERS:
        st.session_state[encoder] = list(DECODERS)


def choose_one_decoder() -> None:
    """Choose one decoder with every encoder: four reports that compare encoders."""
    for encoder in ENCODERS:
        st.session_state[encoder] = [next(iter(DECODERS))]
