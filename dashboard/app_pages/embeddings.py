"""Embeddings: a map of the studies as an encoder sees them."""

from __future__ import annotations

import streamlit as st

from dashboard import picker
from dashboard.study_map import draw_map

case = picker.choose_case()
st.subheader("The test studies as an encoder sees them")
draw_map(case, height=620)
