"""Filters: what CCVE's 13 filters do to a radiograph, how much each is looked at, and what changes without it."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import streamlit as st

from core.bundles.card import Card
from core.observations import CLUSTERS
from dashboard import figures, session
from dashboard.components import picker
from dashboard.components.asked import tell_unknown
from dashboard.components.filter_bars import Kind, filter_bars
from dashboard.components.filter_pictures import CHANGE_SCALE, GREY_SCALE, Values, change_picture, grey_picture
from dashboard.components.filter_player import Side, filter_player
from dashboard.components.source_choice import show_credit
from dashboard.components.trust import verdict
from dashboard.plain import plain
from dashboard.services import filters, reports, sources
from dashboard.services.studies import Case

if TYPE_CHECKING:
    from core.explain.counterfactuals import Counterfactual

PLAYER, SHOWN = "filter_player", "filters_shown"
PICTURE, CHANGE = "Filtered image", "Difference from the original"
ROLLOUT, MEAN = "Rollout", "Mean"
HOW = {"token": "Remove its picture", "filter": "Replace it with the original"}
NOT_MEASURED = (
    "**{sign}** is shown. How well it tells whether a filter's finding is there was not measured for this model: "
    "do not read it as one."
)
ABSENT = ", and to tell it from images without the finding, seen through the same filter"
UNCHANGED = 1 / 255  # mean change of a pixel below which a filter passes the image as it is: one level of a screen


def choose_pair(case: Case | None) -> Card | None:
    """The CCVE pair whose filters and report are shown."""
    pairs = filters.pairs(case)
    if not pairs:
        st.error("No model with the CCVE encoder can be read. The Read page names the damaged ones and what to do.")
        return None
    tell_unknown(session.MAP_PAIR, "model", pairs)
    if st.session_state.get(session.MAP_PAIR) not in pairs:  # the Embeddings page has other pairs under this name
        st.session_state[session.MAP_PAIR] = next(iter(pairs))
    title = st.segmented_control("Model", list(pairs), required=True, key=session.MAP_PAIR, bind="query-params")
    return pairs[title or next(iter(pairs))]


def choose_attention(layers: int, heads: int) -> tuple[int | None, int | None, bool]:
    """Layer and head, None for the mean, and whether the summary is the rollout."""
    choices = [ROLLOUT, MEAN, *(str(each + 1) for each in range(layers))]
    layer = _choice("Layer", choices, session.FILTER_LAYER, "Rollout follows the attention through all layers.")
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
            "This decoder does not look at the filters before the first word (it has no CLS token). "
            f"The summary (Σ) is the **mean over the report's words** instead ({part})."
        )
    summary = f"Attention before the first word, {'rollout' if rolled else part}"
    return summary, (
        f"Summary (Σ): **{summary}**: where the decoder looked before it wrote (its CLS token). "
        f"Words: where it looked while it wrote each ({part})."
    )


def show_first(case: Case, card: Card) -> None:
    """What was measured to say most about a filter's finding, for this X-ray; the other signs with their numbers."""
    measured = filters.signs(card)
    with st.spinner("Opening the model …"):  # on a server that has just started this takes seconds
        seen, ranks = filters.views(case, card).filtered, filters.likeness(case, card)
    shown = [each for each in measured if each.name != filters.LIKENESS or ranks is not None]
    first = shown[0].name if shown else filters.LIKENESS if ranks is not None else "cls-attention"
    st.header("What each filter says of this X-ray")
    st.markdown(_measured(shown) if shown else NOT_MEASURED.format(sign=filters.SIGNS[first]))
    values, kind = _values(case, card, first, ranks)
    filter_bars(seen, CLUSTERS, values, kind=kind)


def _measured(signs: Sequence[filters.Sign]) -> str:
    """Which sign tells best whether a finding is there, and how well; then the others."""
    best, *others = signs
    told = (
        f"**{filters.SIGNS[best.name]}** is shown first: of what this page can show it tells best whether a filter's "
        f"finding is there, with an AUC of **{_auc(best)}** over {best.studies} held-out studies (0.5 is chance)."
    )
    if best.auc[1] <= 0.5:
        told = (
            f"**Nothing that this page shows of a filter was found to tell whether its finding is there.** Best is "
            f"{_lower(filters.SIGNS[best.name])}: AUC {_auc(best)} over {best.studies} held-out studies; 0.5 is chance."
        )
    told += f" {best.note}" if best.note else ""
    beside = (f"- {filters.SIGNS[each.name]}: AUC {_auc(each)}. {each.note}".rstrip() for each in others)
    return "\n".join((told, "", *beside)) if others else told


def _auc(sign: filters.Sign) -> str:
    value, low, high = sign.auc
    controls = "; ".join(f"with {name} {auc:.2f}" for name, auc in sign.controls)
    return f"{value:.2f} [{low:.2f}, {high:.2f}]" + (f" ({controls})" if controls else "")


def _lower(text: str) -> str:
    return text[0].lower() + text[1:]


def _values(case: Case, card: Card, sign: str, ranks: Values | None) -> tuple[Values, Kind]:
    """Of each filter, for the bars."""
    if sign == filters.LIKENESS and ranks is not None:
        return ranks, "rank"
    if sign == "occlusion":
        return filters.needed(case, card), "change"
    looks = filters.looks(case, card, None, None, True).trained
    if sign == "attention":
        return looks.words.mean(0), "share"
    return looks.summary, "share"


def show_trust(card: Card) -> None:
    """How far the bars can be trusted, in one sentence."""
    sign, told = verdict(
        filters.trust(card),
        "This was not measured for this model. Attention to a filter is not proof of use: see what changes when it is "
        "switched off.",
    )
    st.info(f"**How far to trust this model's attention to filters.** {told}", icon=sign)


def sides(pictures: filters.Pictures, looks: filters.Looks, view: str) -> tuple[Side, Side, str]:
    """Trained and untrained filters, and the scale of the pictures in words."""

    def drawn(images: Values) -> list[str]:
        if view == CHANGE:
            return [change_picture(image, pictures.image) for image in images]
        return [grey_picture(image) for image in images]

    trained = Side(drawn(pictures.trained), pictures.trained_response, looks.trained.summary, looks.trained.words)
    control = Side(drawn(pictures.control), pictures.control_response, looks.control.summary, looks.control.words)
    return trained, control, CHANGE_SCALE if view == CHANGE else GREY_SCALE


def remember() -> None:
    """Put what the reader stopped at in the address."""
    told = st.session_state[PLAYER]
    word, name = told.get("word"), told.get("filter")
    if word is not None:
        session.write(session.FILTER_WORD, str(word + 1) if word >= 0 else "")
    if name is not None:
        session.write(session.FILTER, name)


@st.fragment
def show_filters(case: Case, card: Card) -> None:
    """The tiles, the words, and what can be changed about them."""
    pictures = filters.pictures(case, card)
    report = reports.report_of(case, card)
    shown = f"{case.key} {card.name}"
    if st.session_state.setdefault(SHOWN, shown) != shown:  # the word in the address was of another report
        session.write(session.FILTER_WORD, "")
        st.session_state[SHOWN] = shown
    needed = filters.needed(case, card)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        view = st.segmented_control(
            "Pictures", [PICTURE, CHANGE], default=PICTURE, required=True, key=session.FILTER_VIEW, bind="query-params"
        )
        layer, head, rolled = choose_attention(*filters.layers_and_heads(case, card))
        beside = st.toggle(
            "Show untrained filters beside them",
            value=True,
            key=session.FILTER_CONTROL,
            bind="query-params",
            help="The same model with random filters that change this X-ray as much. Only what differs was learned.",
        )
    looks = filters.looks(case, card, layer, head, rolled)
    summary, about = what_is_shown(card, looks.trained.has_cls, layer, head, rolled)
    trained, control, scale = sides(pictures, looks, view or PICTURE)
    player = st.container()  # drawn last: its tiles show what is switched off below
    left, right = st.columns(2, gap="medium")
    with left:
        off = show_switches(case, card)
    with right:
        show_one(card, pictures, looks, needed)
    with player:
        still = int((pictures.change < UNCHANGED).sum())
        if still:
            st.markdown(f"**{still} of the {len(CLUSTERS)} filters pass this image almost unchanged.**")
        filter_player(
            shown,
            CLUSTERS,
            report.words,
            trained,
            control if beside else None,
            summary=summary,
            image=grey_picture(pictures.image),
            notes=[_note(*each) for each in zip(pictures.change, needed, strict=True)],
            off=off,
            word=session.read_number(session.FILTER_WORD, 1, len(report.words)),
            chosen=chosen_filter(),
            on_change=remember,
            key=PLAYER,
        )
        st.caption(
            f"{about} {looked_at(looks)} The dark mark on a bar is the summary, the faint one an even share, "
            f"{1 / len(CLUSTERS):.1%}.  \n{scale} The curve under a picture: how strongly the filter "
            "passes detail, from coarse (left) to fine (right); the faint line means unchanged, the dashes are the "
            "untrained filter.  \nKeys: ← → word by word, Space plays, Home and End, Escape for the summary."
        )


def looked_at(looks: filters.Looks) -> str:
    """How much of the attention is for the image at all, in a sentence."""
    return (
        f"**{looks.trained.image:.0%} of the words' attention goes to the image at all**; the shares divide this part."
    )


def _note(change: float, needed: float) -> str:
    moved = "picture unchanged" if change < UNCHANGED else f"picture changed by {change:.1%}"
    return f"{moved}; report {_likelier(-needed)} if removed"


def _likelier(change: float) -> str:
    """A change of log-likelihood as a factor a reader can picture."""
    if abs(change) < 0.05:
        return "just as likely"
    factor = float(np.exp(min(abs(change), 20.0)))
    times = f"{factor:.2g}" if factor < 100 else f"{factor:.0f}" if abs(change) < 9 else "over 8,000"
    return f"{times} times {'likelier' if change > 0 else 'less likely'}"


def chosen_filter() -> str:
    """The filter in the address, or the first."""
    name = st.query_params.get(session.FILTER, "")
    return name if name in CLUSTERS else CLUSTERS[0]


def show_switches(case: Case, card: Card) -> list[str]:
    """Switch filters off and write the report again; returns those that are off."""
    st.header("What if a filter were off?")
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
        st.caption("Choose filters: the report is written again without them, and the two are compared word by word.")
        return []
    if len(off) == len(CLUSTERS) and how == "token":
        st.caption("All filters are off: the decoder sees nothing of this image.")
    with st.spinner("Writing the report again …"):
        found = filters.switch_off(case, card, tuple(name for name in CLUSTERS if name in off), how or "token")
    st.html(comparison(found))
    told = [f"The report written before becomes **{_likelier(found.report_change)}**."]
    if found.reference_change is not None:
        told.append(f"The reference report becomes **{_likelier(found.reference_change)}**.")
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


def show_one(card: Card, pictures: filters.Pictures, looks: filters.Looks, needed: Values) -> None:
    """One filter: what it was trained on, what it lets pass, looked at and needed."""
    name = chosen_filter()
    index = CLUSTERS.index(name)
    st.header(f"The filter of {name}")
    learned = filters.learned(card, name)
    only = "" if learned.absent else "only "
    said = (
        f"This filter learned {only}from images whose impression has a sentence about **{name}**: CLIP was trained to "
        f"match such a sentence with the image seen through it{ABSENT if learned.absent else ''}."
    )
    if learned.of:
        said += f" Of the {learned.of} test studies, {learned.studies} have such a sentence."
    st.markdown(said)
    if learned.examples:
        st.markdown("\n".join(f"> {plain(each)}\n" for each in learned.examples))
    elif not learned.of:
        st.caption("These models learned from patients' reports, so no sentences are shown.")
    order = np.argsort(-needed, kind="stable")
    rank, seen = int(np.flatnonzero(order == index)[0]) + 1, float(looks.trained.summary[index])
    st.markdown(
        f"Here it gets **{seen:.1%}** of the attention (untrained: {float(looks.control.summary[index]):.1%}; an even "
        f"share is {1 / len(CLUSTERS):.1%}). Without it the report is **{_likelier(-float(needed[index]))}**: rank "
        f"{rank} of {len(CLUSTERS)} by how much the report needs it."
    )
    st.plotly_chart(
        figures.frequency_response(pictures.trained_response[index], pictures.control_response[index], height=190),
        key="response",
        width="stretch",
        config={"displayModeBar": False},
    )


case = picker.choose_case()
card = choose_pair(case)
if card is not None and case is not None:
    st.caption(
        "CCVE passes the radiograph through 13 learned filters, one for each cluster of findings, before CLIP encodes "
        "each of the 13 pictures. How much the decoder looks at each stands under its picture, further down."
    )
    show_first(case, card)
    show_trust(card)
    show_filters(case, card)
    show_credit(sources.source(case.source).credit)
