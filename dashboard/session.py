"""Names and defaults of what a session remembers, and what of it is in the page's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import parse_qs

import streamlit as st

from core.registry import DECODERS, ENCODERS

ANY_FINDING = "Any finding"

# In the address, written by their widgets; a pair's key is its encoder's name, its values are the decoders.
FINDING = "finding"
FAMILY = "family"
REAL_FAMILY = "real_family"  # of patients' images; computed ones have a default of their own, and are remembered apart
BESIDE = "beside_pairs"  # names of systems that are no pairs, whose reports are shown too
MAP_ENCODER = "encoder"
MAP_FINDING = "colour"

SOURCE = "source"  # short name of the source of studies; in the address, written by write_source
SOURCE_CHOICE = "source_choice"  # the widget behind it
_SOURCE_IN_ADDRESS = "source_in_address"
_STUDIES = "studies_left"  # the study that was open of each source that was left

STUDY = "study"  # id of the study that is open; in the address, written by write_study
STUDY_CHOICE = "study_choice"  # the widget behind it
UNKNOWN_STUDY = "unknown_study"  # what the address asked for in vain; until another is chosen
_STUDY_IN_ADDRESS = "study_in_address"

# The Embeddings page; in the address, written by their widgets.
MAP_SOURCE = "map"
MAP_METHOD = "method"
MAP_DIMENSIONS = "dimensions"
MAP_COLOUR_BY = "by"
MAP_PAIR = "pair"
MAP_SECOND = "beside"
MAP_PERPLEXITY = "perplexity"
MAP_NEIGHBOURS = "neighbours"
MAP_DISTANCE = "distance"
MAP_PICTURE = "picture"

# The Filters page; in the address, written by their widgets, and the last two by `write`.
FILTER_LAYER = "layer"
FILTER_HEAD = "head"
FILTER_VIEW = "view"
FILTER_CONTROL = "control"
FILTERS_OFF = "off"
FILTER_HOW = "how"
FILTER_WORD = "word"  # counted from 1
FILTER = "filter"

# What is asked about on the Read page; in the address, written by `ask` and `ask_region`, the last by their widgets.
ASKED = "asked"  # bundle whose report is asked about
QUESTIONS = ("word", "sentence", "mention", "found")  # one of them, counted from 1; the last two are observations
REGION = "region"  # left, top, right, bottom, fractions of the image
_ASKED_OF = "asked_of"  # the case it was asked of
HOW = "explain"
COMPARE = "compare"
COVER = "cover"

# The Detection page; in the address, written by their widgets.
DETECTED = "detected"  # finding
DETECTED_AT = "place"  # side and site
DETECTED_BY = "models"  # systems
DETECTED_CHEST = "chest"  # counted from 1
DETECTED_EXTENT = "extent"

PICKED = "picked"  # ids of the studies chosen on a map; in the address, written by write_picked
PICKED_ON = "picked_on"  # key of the chart they were chosen on
MOST_PICKED = 1_000  # more do not go into the address
_PICKED_IN_ADDRESS = "picked_in_address"

WRITING = "writing"  # image, bundles, the iterator that writes their reports, its lock

FIND = "find"  # what is typed to find a study
UNKNOWN_SOURCE = "unknown_source"  # what to say of a source that the address asked for in vain; until one is chosen
UPLOADS = "uploads"  # the images that were given, or why they cannot be read, by name


def start() -> None:
    """Set what is not set yet, and follow the address. Runs before every page."""
    state = st.session_state
    for name in (SOURCE, _SOURCE_IN_ADDRESS, STUDY, UNKNOWN_STUDY, _STUDY_IN_ADDRESS, PICKED_ON, _PICKED_IN_ADDRESS):
        state.setdefault(name, None)
    state.setdefault(PICKED, ())
    state.setdefault(UNKNOWN_SOURCE, "")
    for name in (_STUDIES, UPLOADS):
        state.setdefault(name, {})
    # A link that was opened, or the browser's back button.
    source = st.query_params.get(SOURCE)
    if source and source != state[_SOURCE_IN_ADDRESS]:
        open_source(source)
        state[_SOURCE_IN_ADDRESS] = source
    address = st.query_params.get(STUDY)
    if address and address != state[_STUDY_IN_ADDRESS]:
        state[STUDY] = state[_STUDY_IN_ADDRESS] = address
    picked = st.query_params.get(PICKED)
    if picked and picked != state[_PICKED_IN_ADDRESS]:
        state[PICKED], state[_PICKED_IN_ADDRESS] = tuple(dict.fromkeys(picked.split(","))), picked


def open_source(name: str) -> None:
    """Choose a source: its study that was open before comes back, and no choice of the other's studies stays."""
    state = st.session_state
    if name == state[SOURCE]:
        return
    if state[SOURCE] is not None:  # the first source of a session has nothing to forget
        state[_STUDIES] = state[_STUDIES] | {state[SOURCE]: state[STUDY]}
        state[STUDY], state[PICKED], state[FINDING] = state[_STUDIES].get(name), (), ANY_FINDING
    state[SOURCE], state[UNKNOWN_STUDY], state[FIND] = name, None, ""


def write_source(name: str) -> None:
    """Put the chosen source in the address."""
    st.session_state[SOURCE] = st.session_state[_SOURCE_IN_ADDRESS] = name
    write(SOURCE, name)


def write_study(study_id: str) -> None:
    """Put the open study in the address, or none. Its widget is not bound to it: labels are long and may change."""
    write(STUDY, study_id)
    st.session_state[_STUDY_IN_ADDRESS] = study_id or None


def write(name: str, value: str) -> None:
    """Put a value in the address, or take an empty one out of it."""
    if value and st.query_params.get(name) != value:
        st.query_params[name] = value
    elif not value and name in st.query_params:
        del st.query_params[name]


def read_number(name: str, first: int, last: int) -> int | None:
    """A number in the address counted from ``first``, as an index from 0; None where it is none, or beyond ``last``."""
    number = whole(st.query_params.get(name, ""))
    return number - first if number is not None and first <= number <= last else None


def whole(text: str) -> int | None:
    """A whole number from 0 that an address has; None where it is none, or has more than nine digits."""
    return int(text) if text.isdecimal() and len(text) < 10 else None


def listen() -> None:
    """End this run here where the reader has clicked meanwhile: Streamlit does so when its state is asked."""
    _ = WRITING in st.session_state


def write_picked() -> None:
    """Put the studies chosen on a map in the address."""
    picked = st.session_state[PICKED]
    text = ",".join(picked) if len(picked) <= MOST_PICKED else ""
    if text and st.query_params.get(PICKED) != text:
        st.query_params[PICKED] = text
    elif not text and PICKED in st.query_params:
        del st.query_params[PICKED]
    st.session_state[_PICKED_IN_ADDRESS] = text or None


def _write_all(values: Mapping[str, str]) -> None:
    """Put several values in the address, or take empty ones out."""
    for name in [name for name, value in values.items() if not value]:
        write(name, "")
    given = {name: value for name, value in values.items() if value}
    if any(st.query_params.get(name) != value for name, value in given.items()):
        st.query_params.update(given)


def ask(pair: str, kind: str, which: int | str) -> None:
    """Ask about a word or sentence, by its index from 0, a finding's mention, or where it was found. For callbacks."""
    key = "mention" if kind == "finding" else kind
    text = str(which + 1) if isinstance(which, int) else which
    _write_all({ASKED: pair, **dict.fromkeys(QUESTIONS, ""), key: text})


def ask_region(region: Sequence[float] | None) -> None:
    """Ask what depends on a region, or no longer. For callbacks."""
    write(REGION, ",".join(f"{at:.4g}" for at in region) if region else "")


def close_question() -> None:
    """Ask about no words. For callbacks."""
    _write_all(dict.fromkeys((ASKED, *QUESTIONS), ""))


def ask_of(case: str) -> None:
    """Forget what was asked of another case; what a link asks for is of the case it opens."""
    before = st.session_state.get(_ASKED_OF)
    if before is not None and before != case:
        close_question()
        ask_region(None)
    st.session_state[_ASKED_OF] = case


def open_study(study_id: str, source: str | None = None) -> None:
    """Open a study, also one that the finding chosen in the picker leaves out. For callbacks.

    Args:
        study_id: of the study.
        source: short name of where it comes from; the chosen one unless given.
    """
    if source is not None:
        open_source(source)
    state = st.session_state
    state[STUDY], state[UNKNOWN_STUDY], state[FINDING], state[FIND] = study_id, None, ANY_FINDING, ""


def follow(query: str) -> None:
    """Open the Read page at an address, as its link says; what this session was given is kept."""
    st.switch_page("app_pages/read.py", query_params=parse_qs(query, keep_blank_values=True))


def choose_all(decoders: Sequence[str]) -> None:
    """Choose all pairs: every encoder with each of these decoders."""
    for encoder in ENCODERS:
        st.session_state[encoder] = list(decoders)


def choose_one_decoder() -> None:
    """Choose one decoder with every encoder: reports that compare encoders."""
    for encoder in ENCODERS:
        st.session_state[encoder] = [next(iter(DECODERS))]
