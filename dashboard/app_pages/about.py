"""About: model cards, data, limits and licences."""

from __future__ import annotations

import streamlit as st

from core.registry import DECODERS, ENCODERS, all_pairs, pair_title
from dashboard import services, settings

st.subheader("What CXR Lens is")
st.markdown(
    f"CXR Lens writes draft reports of chest radiographs with {len(all_pairs())} pairs of {len(ENCODERS)} image "
    f"encoders and {len(DECODERS)} report decoders, and shows how each came to what it wrote. It rebuilds and extends "
    "Nazarov et al. 2022, which compares how the image is encoded."
)

st.subheader("Limits")
st.markdown(
    "- **Not a medical device.** Research use only; not for use in diagnostic procedures.\n"
    "- Bundles named phantom-… learned from **synthetic phantoms**. About real radiographs they know nothing.\n"
    "- Bundles named openi-… learned from about 2,000 studies of **one collection**, mostly normal. They miss most of "
    "what is rare, and write of what is not there; their scores are on the Results page.\n"
    "- Findings are marked by a rule-based labeler. It can miss or misread a sentence; read the text.\n"
    "- Attention shows where a model looked, not why it wrote a word.\n"
    "- An uploaded image stays in the memory of the session and is not stored."
)

st.subheader("Encoders and decoders")
left, right = st.columns(2, gap="medium")
with left:
    for encoder in ENCODERS.values():
        st.markdown(f"**{encoder.title}** {encoder.summary}")
        st.caption(encoder.source)
with right:
    for decoder in DECODERS.values():
        st.markdown(f"**{decoder.title}** {decoder.summary}")
        st.caption(decoder.source)

st.subheader("Model cards")
st.caption(f"Read from `{settings.bundles()}`.")
for name, message in services.problems().items():
    st.error(f"**{name}**: {message}", icon=":material/error:")
for card in [card for family in services.families() for card in services.cards(family).values()]:
    with st.expander(f"{pair_title(card.encoder, card.decoder)} · {card.name}"):
        data = ", ".join(f"{key}: {value}" for key, value in card.data.items())
        metrics = ", ".join(
            f"{key} {value:.3f}" for key, value in card.metrics.items() if isinstance(value, int | float)
        )
        st.markdown(
            f"**Data** {data}\n\n**Metrics** {metrics or 'none recorded'}\n\n"
            f"**Intended use** {card.intended_use}\n\n**Licence** {card.licence}\n\n"
            f"**Size** {card.size} · **Made** {card.created}"
        )
