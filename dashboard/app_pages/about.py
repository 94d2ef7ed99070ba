"""About: model cards, data, limits and licences."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from core.bundles.card import Card
from core.evaluation.metrics import METRICS
from core.registry import DECODERS, ENCODERS, compared_decoders, compared_pairs
from core.types import CXRLensError
from dashboard.components.asked import tell_unknown
from dashboard.plain import code, plain, plain_message
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
    "- Models for **synthetic X-rays** learned from nothing else. They know nothing of real ones.\n"
    "- Models for **real X-rays (Open-i)** learned from about 2,000 studies of one collection, mostly normal. They "
    "miss most rare findings and write of findings that are not there; their scores are on the Results page. Their "
    "first stage learned labels of ChestX-ray14; none of the example radiographs, nor any other film of their "
    "patients, was among what it learned from.\n"
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
    if isinstance(value, Mapping):
        return ", ".join(f"{_name(key)} {in_words(each)}" for key, each in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value))
    return "not recorded" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _name(key: object) -> str:
    return str(key).replace("_", " ")


def data_in_words(card: Card) -> str:
    """Which studies a model learned from."""
    data = {key: value for key, value in card.data.items() if value not in ("", 0, None)}
    said = [str(data.pop("description", "")) or str(data.get("name", "not recorded"))]
    data.pop("name", None)
    return " ".join([*said, *(f"{_name(key).capitalize()}: {in_words(value)}." for key, value in data.items())])


def metric_in_words(key: str, value: float) -> str:
    """A number that was measured at the end of training."""
    if key == "epochs":
        return f"{value:g} epochs"
    measured = key.removeprefix("validation_").removesuffix("_greedy")
    title = METRICS[measured].title if measured in METRICS else _name(measured)
    return f"{title} {value:.3f}" + " on validation studies" * key.startswith("validation_")


cards: dict[str, Card] = {}
for family in bundles.families():
    for each in bundles.cards(family).values():
        title = f"{bundles.title_of(each)} · {bundles.family_title(family)}"
        cards[f"{title} · {each.name}" if title in cards else title] = each
if cards:
    tell_unknown("card", "model", cards)
    card = cards[st.selectbox("Model", list(cards), key="card", bind="query-params", width=420)]
    numbers = {key: value for key, value in card.metrics.items() if isinstance(value, int | float)}
    metrics = ", ".join(metric_in_words(key, value) for key, value in numbers.items())
    with st.container(border=True):
        st.markdown(
            f"**Name in commands** {code(card.name)}\n\n**Data** {plain(data_in_words(card))}\n\n"
            f"**Metrics** {plain(metrics or 'none recorded')}\n\n"
            f"**Intended use** {plain(card.intended_use)}\n\n**Licence** {plain(card.licence)}\n\n"
            f"**Size** {plain(card.size)} · **Made** {plain(card.created)}\n\n"
            f"**Images** {plain_message(card.fit_note or card.fit)}"
        )
