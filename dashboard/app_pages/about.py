"""About: model cards, data, limits and licences."""

from __future__ import annotations

import streamlit as st

from core.registry import DECODERS, ENCODERS, compared_decoders, compared_pairs
from core.types import CXRLensError
from dashboard.plain import plain, plain_message
from dashboard.services import bundles, sources, studies

st.header("What CXR Lens is")
st.markdown(
    f"CXR Lens writes draft reports of chest radiographs with {len(compared_pairs())} models: {len(ENCODERS)} image "
    f"encoders, each with {len(compared_decoders())} report decoders. It shows what stands behind each report. It "
    "rebuilds and extends Nazarov et al. 2022, which compares ways to encode the image."
)

st.header("Limits")
st.markdown(
    "- **Not a medical device.** Research use only; not for use in diagnostic procedures.\n"
    "- Models named phantom-… learned from **synthetic X-rays**. They know nothing of real ones.\n"
    "- Models named openi-… learned from about 2,000 studies of **one collection**, mostly normal. They miss most rare "
    "findings and write of findings that are not there; their scores are on the Results page.\n"
    "- Findings are marked by rules that read the text. They can miss or misread a sentence: read it yourself.\n"
    "- Attention shows where a model looked, not why it wrote a word.\n"
    "- An uploaded image stays in the memory of the browser session and is not stored."
)

st.header("Data")
for name, title in sources.names().items():
    if name == sources.UPLOAD:
        continue
    try:
        facts = studies.about(name)
    except CXRLensError as error:
        st.error(f"**{plain(title)}**: {plain_message(error)}", icon=":material/error:")
    else:
        st.markdown(f"**{plain(title)}** " + " · ".join(map(plain, facts)))

st.header("Encoders and decoders")
left, right = st.columns(2, gap="medium")
with left:
    for encoder in ENCODERS.values():
        st.markdown(f"**{encoder.title}** {encoder.summary}")
        st.caption(encoder.source)
with right:
    for decoder in DECODERS.values():
        st.markdown(f"**{decoder.title}** {decoder.summary}")
        st.caption(decoder.source)

st.header("Model cards")
st.caption("The setting `CXR_BUNDLES` names the folder of models; without it, those that come with CXR Lens are used.")
for name, message in bundles.problems().items():
    st.error(f"**{plain(name)}**: {plain_message(message)}", icon=":material/error:")


def in_words(value: object) -> str:
    """A value of a card; of several, each with its name."""
    return ", ".join(f"{key} {each}" for key, each in value.items()) if isinstance(value, dict) else str(value)


cards = {
    f"{bundles.title_of(card)} · {card.name}": card
    for family in bundles.families()
    for card in bundles.cards(family).values()
}
if cards:
    card = cards[st.selectbox("Model", list(cards), key="card", bind="query-params", width=420)]
    data = "; ".join(f"{key}: {in_words(value)}" for key, value in card.data.items())
    metrics = ", ".join(f"{key} {value:.3f}" for key, value in card.metrics.items() if isinstance(value, int | float))
    with st.container(border=True):
        st.markdown(
            f"**Data** {plain(data)}\n\n**Metrics** {plain(metrics or 'none recorded')}\n\n"
            f"**Intended use** {plain(card.intended_use)}\n\n**Licence** {plain(card.licence)}\n\n"
            f"**Size** {plain(card.size)} · **Made** {plain(card.created)}\n\n"
            f"**Images** {plain_message(card.fit_note or card.fit)}"
        )
