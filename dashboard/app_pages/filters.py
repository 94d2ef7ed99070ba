"""Filters: CCVE's 13 filtered images, large."""

from __future__ import annotations

import streamlit as st

from core.labels.observations import CLUSTERS
from core.registry import DECODERS
from dashboard import picker, services
from dashboard.components.tiles import tiles

case = picker.choose_case()
card = services.ccve_card()
if card is None:
    st.error("No bundle with the CCVE encoder can be read. The Read page names the bundles and what to do.")
elif case is not None:
    st.subheader("The 13 filters of CCVE")
    st.caption(
        "CCVE passes the radiograph through 13 learned filters, one for each cluster of findings, before CLIP encodes "
        f"it. The number is the share of the CLS attention of the {DECODERS[card.decoder].title} decoder that the "
        "filter got: how much it was looked at, not whether the finding is there."
    )
    reading = next((item for _, item in services.read(case, [card])), None)
    if isinstance(reading, str):
        st.error(reading, icon=":material/error:")
    else:
        images = services.filtered(case, card)
        left, right = st.columns([1, 4], gap="medium")
        with left:
            st.image(case.pixels, caption="Before the filters", clamp=True, width="stretch", alt="Radiograph")
            if reading is not None:
                st.caption(f"**{card.name}** wrote: {reading.report.text}")
        with right:
            tiles(images, CLUSTERS, reading.report.cls_attention if reading else None, smallest=170)
