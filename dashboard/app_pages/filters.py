"""Filters: what CCVE's 13 filters do to a radiograph, how much each is looked at, and what changes without it."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import streamlit as st

from core.bundles.card import Card
from core.explain.counterfactuals import Counterfactual
from core.explain.measured import Measured
from core.observations import CLUSTERS
from dashboard import figures, filtering, picker, services, session
from dashboard.components.filter_player import Side, diverging, filter_player, grey

PLAYER, SHOWN = "filter_player", "filters_shown"
PICTURE, CHANGE = "Filtered image", "Difference to the input"
ROLLOUT, MEAN = "Rollout", "Mean"
HOW = {"token": "The decoder gets nothing from it", "filter": "The image passes unfiltered"}
UNCHANGED = 1 / 255  # mean change of a pixel below which a filter passes the image as it is: one level of a screen
SIGNS = {
    "better": ":material/verified:",
    "usual": ":material/rule:",
    "unproven": ":material/help:",
    "worse": ":material/block:",
}


def choose_pair(case: services.Case | None) -> Card | None:
    """The CCVE pair whose filters and report are shown."""
    pairs = filtering.pairs(case)
    if not pairs:
        st.error("No bundle with the CCVE encoder can be read. The Read page names the bundles and what to do.")
        return None
    if st.session_state.get(session.MAP_PAIR) not in pairs:  # the Embeddings page has other pairs under this name
        st.session_state[session.MAP_PAIR] = next(iter(pairs))
    title = st.segmented_control("Pair", list(pairs), required=True, key=session.MAP_PAIR, bind="query-params")
    return pairs[title or next(iter(pairs))]


def choose_attention(layers: int, heads: int) -> tuple[int | None, int | None, bool]:
    """Layer and head, None for the mean, and whether the summary is the rollout."""
    choices = [ROLLOUT, MEAN, *(str(each + 1) for each in range(layers))]
    layer = _choice("Layer", choices, session.FILTER_LAYER, "Rollout follows the CLS token through all layers.")
    head = MEAN
    if layer != ROLLOUT and heads > 1:
        head = _choice("Head", [MEAN, *(str(each + 1) for each in range(heads))], session.FILTER_HEAD)
    return (
        int(layer) - 1 if layer.isdigit() else None,
        int(head) - 1 if head.isdigit() else None,
        layer == ROLLOUT,
    )


def _choice(label: str, choices: Sequence[str], key: str, about: str | None = None) -> str:
    if st.session_state.get(key) not in choices:  # another decoder has other layers
        st.session_state[key] = choices[0]
    return str(st.selectbox(label, choices, key=key, bind="query-params", width=120, help=about))


def what_is_shown(card: Card, has_cls: bool, layer: int | None, head: int | None, rolled: bool) -> tuple[str, str]:
    """Name of the summary, and which attention is shown, in a sentence."""
    of = [f"layer {layer + 1}" if layer is not None else "", f"head {head + 1}" if head is not None else ""]
    part = ", ".join(each for each in of if each) or "mean of layers and heads"
    if not has_cls:
        return "Mean of all words", (
            "This decoder has no CLS token. The summary is the **mean attention of the report's words** "
            f"({part}), which is not the same thing."
        )
    summary = "CLS attention, rollout" if rolled else f"CLS attention, {part}"
    return summary, (
        f"Summary (Σ): **{summary}**, what the decoder's summary token gathered before the first word. "
        f"Words: where the decoder looked while it wrote each ({part})."
    )


def show_trust(found: Measured | None, card: Card) -> None:
    """How far the bars can be believed, in one sentence."""
    if found is None:
        st.info(
            f"How far the attention to filters can be believed was not measured for {card.name}. "
            "Looking at a filter is not yet using it: compare with what changes when it is switched off.",
            icon=":material/help:",
        )
        return
    st.info(
        f"**How far to trust the CLS attention of this pair.** {found.verdict}",
        icon=SIGNS[found.trust],
    )


def sides(pictures: filtering.Pictures, looks: filtering.Looks, view: str) -> tuple[Side, Side, str]:
    """Trained and untrained filters on one scale, and the scale in words."""
    both = (pictures.trained, pictures.control)
    if view == CHANGE:
        limit = max(float(np.quantile([np.abs(each - pictures.image) for each in both], 0.995)), UNCHANGED)
        drawn = [[diverging(image - pictures.image, limit) for image in each] for each in both]
        scale = (
            f"Orange is brighter than the input, blue is darker; full colour is {limit:.1%} of the grey scale, for all."
        )
    else:
        low, high = (float(np.quantile(both, share)) for share in (0.005, 0.995))
        low, high = min(low, 0.0), max(high, 1.0)
        drawn = [[grey(image, low, high) for image in each] for each in both]
        scale = f"One grey scale for all: black is {low:.2f}, white is {high:.2f}, where the radiograph has 0 to 1."
    trained = Side(drawn[0], pictures.trained_response, looks.trained.summary, looks.trained.words)
    control = Side(drawn[1], pictures.control_response, looks.control.summary, looks.control.words)
    return trained, control, scale


def remember() -> None:
    """Put what the reader stopped at in the address."""
    told = st.session_state[PLAYER]
    word, name = told.get("word"), told.get("filter")
    if word is not None:
        session.write(session.FILTER_WORD, str(word + 1) if word >= 0 else "")
    if name is not None:
        session.write(session.FILTER, name)


@st.fragment
def show_filters(case: services.Case, card: Card) -> None:
    """The tiles, the words, and what can be changed about them."""
    pictures = filtering.pictures(case, card)
    report = filtering.report(case, card)
    shown = f"{case.key} {card.name}"
    if st.session_state.setdefault(SHOWN, shown) != shown:  # the word in the address was of another report
        session.write(session.FILTER_WORD, "")
        st.session_state[SHOWN] = shown
    needed = filtering.needed(case, card)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        view = st.segmented_control(
            "Pictures", [PICTURE, CHANGE], default=PICTURE, required=True, key=session.FILTER_VIEW, bind="query-params"
        )
        layer, head, rolled = choose_attention(*filtering.layers_and_heads(case, card))
        beside = st.toggle(
            "Untrained filters beside",
            value=True,
            key=session.FILTER_CONTROL,
            bind="query-params",
            help="The same pair with filters drawn anew, as before training. Only what differs from these was learned.",
        )
    looks = filtering.looks(case, card, layer, head, rolled)
    summary, about = what_is_shown(card, looks.trained.has_cls, layer, head, rolled)
    trained, control, scale = sides(pictures, looks, view or PICTURE)
    player = st.container()  # drawn last: its tiles show what is switched off below
    left, right = st.columns(2, gap="medium")
    with left:
        off = show_switches(case, card)
    with right:
        show_one(card, pictures, looks, needed)
    with player:
        filter_player(
            shown,
            CLUSTERS,
            report.words,
            trained,
            control if beside else None,
            summary=summary,
            image=grey(pictures.image, 0.0, 1.0),
            notes=[_note(*each) for each in zip(pictures.change, needed, strict=True)],
            off=off,
            word=session.read_number(session.FILTER_WORD, 1, len(report.words)),
            chosen=chosen_filter(),
            on_change=remember,
            key=PLAYER,
        )
        still = int((pictures.change < UNCHANGED).sum())
        same = f"**{still} of the 13 filters pass this image almost unchanged.** " if still else ""
        st.caption(
            f"{about} The mark on a bar is the summary.  \n{same}{scale} The curve under a tile: how strongly the "
            "filter passes detail, coarse (left) to fine (right); the faint line is unchanged, dashes are the "
            "untrained filter.  \nKeys: ← → word by word, space plays, Home and End, Escape for the summary."
        )


def _note(change: float, needed: float) -> str:
    moved = "image unchanged" if change < UNCHANGED else f"image changed by {change:.1%}"
    return f"{moved} · report {_likelier(-needed)} without it"


def _likelier(change: float) -> str:
    """A change of log-likelihood as a factor a reader can picture."""
    if abs(change) < 0.05:
        return "as likely"
    factor = float(np.exp(min(abs(change), 20.0)))
    times = f"{factor:.2g}" if factor < 100 else f"{factor:.0f}" if abs(change) < 9 else "over 8,000"
    return f"{times} times {'likelier' if change > 0 else 'less likely'}"


def chosen_filter() -> str:
    """The filter in the address, or the first."""
    name = st.query_params.get(session.FILTER, "")
    return name if name in CLUSTERS else CLUSTERS[0]


def show_switches(case: services.Case, card: Card) -> list[str]:
    """Switch filters off and write the report again; returns those that are off."""
    st.subheader("What if a filter were off?")
    off = st.multiselect(
        "Filters switched off",
        list(CLUSTERS),
        key=session.FILTERS_OFF,
        bind="query-params",
        placeholder="Choose filters",
        label_visibility="collapsed",
    )
    how = st.segmented_control(
        "How",
        list(HOW),
        default="token",
        required=True,
        format_func=HOW.__getitem__,
        key=session.FILTER_HOW,
        bind="query-params",
        label_visibility="collapsed",
    )
    if not off:
        st.caption("Choose filters: the report is written again without them, and compared word by word.")
        return []
    if len(off) == len(CLUSTERS) and how == "token":
        st.caption("All filters are off: the decoder sees nothing of this image.")
    with st.spinner("Writing the report again …"):
        found = filtering.switch_off(case, card, off, how or "token")
    st.html(comparison(found))
    told = [f"The report as it was becomes **{_likelier(found.report_change)}**."]
    if found.reference_change is not None:
        told.append(f"The radiologist's report becomes **{_likelier(found.reference_change)}**.")
    words = sorted(zip(found.word_changes, found.before.words, strict=True))[:3]
    lost = [f"“{word}” ({_likelier(float(change))})" for change, word in words if change < -0.05]
    if lost:
        told.append(f"Most affected words: {', '.join(lost)}.")
    st.markdown(" ".join(told))
    return list(off)


def comparison(found: Counterfactual) -> str:
    """The two reports in one text: what went is struck through, what came is underlined."""
    if found.before.words == found.after.words:
        return "<p>The report stays the same, word for word.</p>"
    marks = {"same": "{}", "removed": "<del class='cxr-went'>{}</del>", "added": "<ins class='cxr-came'>{}</ins>"}
    parts = [marks[each.kind].format(html.escape(" ".join(each.words))) for each in found.difference]
    style = (
        "<style>.cxr-went{opacity:.75;text-decoration:line-through 2px #56b4e9}"
        ".cxr-came{text-decoration:underline 2px #e69f00;background:#e69f0022}</style>"
    )
    legend = "<small><del class='cxr-went'>written before</del> · <ins class='cxr-came'>written now</ins></small>"
    return f"{style}<p>{' '.join(parts)}</p>{legend}"


def show_one(card: Card, pictures: filtering.Pictures, looks: filtering.Looks, needed: filtering.Values) -> None:
    """One filter: what it was trained on, what it lets pass, looked at and needed."""
    name = chosen_filter()
    place = CLUSTERS.index(name)
    st.subheader(f"The filter of {name}")
    learned = filtering.learned(card, name)
    said = (
        f"Trained on images whose impression has a sentence about **{name}**, and on nothing else: CLIP learned to "
        "bring image and sentence together through this filter."
    )
    if learned.of:
        said += f" Of {learned.of} phantom studies that training did not see, {learned.studies} have such a sentence."
    st.markdown(said)
    if learned.examples:
        st.markdown("\n".join(f"> {each}\n" for each in learned.examples))
    elif not learned.of:
        st.caption("This family learned from patients: their sentences are not shown.")
    order = np.argsort(-needed, kind="stable")
    rank, seen = int(np.flatnonzero(order == place)[0]) + 1, float(looks.trained.summary[place])
    st.markdown(
        f"Here it gets **{seen:.1%}** of the attention (untrained: {float(looks.control.summary[place]):.1%}; an even "
        f"share is {1 / len(CLUSTERS):.1%}). Without it the report is **{_likelier(-float(needed[place]))}**: rank "
        f"{rank} of {len(CLUSTERS)} by how much the report needs it."
    )
    st.plotly_chart(
        figures.frequency_response(pictures.trained_response[place], pictures.control_response[place], height=190),
        key="response",
        width="stretch",
        config={"displayModeBar": False},
    )


case = picker.choose_case()
card = choose_pair(case)
if card is not None and case is not None:
    st.caption(
        "CCVE passes the radiograph through 13 learned filters, one for each cluster of findings, before CLIP encodes "
        "each of the 13 images to a token. The bars: how much the decoder looks at each."
    )
    show_trust(filtering.trust(card), card)
    show_filters(case, card)
