"""Detection: how small a finding the models still report, on the same synthetic chest with one finding turned up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import streamlit as st

from core.detection.results import DetectionResult
from core.detection.study import Detection, Mirror, SystemDetection
from core.evaluation.resampling import holm
from core.registry import all_pairs
from core.types import CXRLensError
from dashboard import figures, session
from dashboard.components.asked import tell_unknown
from dashboard.components.film_strip import film_strip
from dashboard.components.report import card, report_cards
from dashboard.components.score_table import export
from dashboard.components.source_choice import show_credit
from dashboard.components.viewer import Overlay, viewer
from dashboard.plain import plain_message
from dashboard.services import bundles, detection, reports, sources, stored, studies
from dashboard.services.detection import Shown
from dashboard.services.studies import Case

COMMAND = "cxr-lens detect --finding pneumothorax"
FIRST_SHOWN = 4
IN_STRIP = 6


def place_title(place: tuple[str, str]) -> str:
    """Side and site in words."""
    return " ".join(each for each in place if each) or "whole chest"


def choose(results: Mapping[str, DetectionResult]) -> tuple[DetectionResult, tuple[str, str], list[str]]:
    """The finding, its place, and the systems whose curves and reports are shown."""
    place_of = st.container()
    tell_unknown(session.DETECTED, "finding", results)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        finding = st.selectbox("Finding", list(results), key=session.DETECTED, bind="query-params", width=280)
        result = results[str(finding)]
        places = {place_title(place): place for place in result.design.places}
        names = detection.titles(result)
        with place_of:
            tell_unknown(session.DETECTED_AT, "place", places)
            tell_unknown(session.DETECTED_BY, "model", names.values())
        if st.session_state.get(session.DETECTED_AT) not in places:
            st.session_state[session.DETECTED_AT] = next(iter(places))
        at = st.selectbox("Where", list(places), key=session.DETECTED_AT, bind="query-params", width=180)
        known = [each for each in st.session_state.get(session.DETECTED_BY, ()) if each in names.values()]
        st.session_state[session.DETECTED_BY] = known or first_shown(names)
        shown = st.multiselect("Models", list(names.values()), key=session.DETECTED_BY, bind="query-params")
    chosen = [name for name, title in names.items() if title in shown]
    return result, places[str(at)], chosen


def first_shown(names: Mapping[str, str]) -> list[str]:
    """The best-measured model of each encoder where there are such, else the first few."""
    found = {name: bundles.card_named(name) for name in names}
    drawn = [each for each in found.values() if each is not None]
    one: dict[str, str] = {}
    for each in sorted(drawn, key=lambda each: -stored.measured(each.family).get(each.name, -1.0)):
        one.setdefault(each.encoder, names[each.name])
    return (list(one.values()) or list(names.values()))[:FIRST_SHOWN]


def of_place(system: SystemDetection, place: tuple[str, str]) -> Detection:
    """What a system does at a place."""
    return next(each for each in system.detections if (each.side, each.site) == place)


def mirror_of(system: SystemDetection, site: str) -> Mirror | None:
    """How a system's two sides differ at a site."""
    return next((each for each in system.mirrors if each.site == site), None)


def half_in_words(found: Detection) -> str:
    """The extent that is reported half the time, with its interval."""
    low, high = ("above 1" if end is None else f"{end:.2f}" for end in (found.half.low, found.half.high))
    at = "never" if found.half.extent is None else f"{found.half.extent:.2f}"
    return f"{at} ({low} to {high})"


def show_table(result: DetectionResult, place: tuple[str, str], titles: Mapping[str, str]) -> None:
    """All systems at a place: false alarms, the extent reported half the time, and whether the sides differ."""
    adjusted = holm({name: each.p for name, system in result.systems.items() if (each := mirror_of(system, place[1]))})
    rows = []
    for name, system in result.systems.items():
        found, mirror = of_place(system, place), mirror_of(system, place[1])
        largest = found.points[-1]
        row = {
            "Model": titles[name],
            "Reported half the time at": half_in_words(found),
            "Largest reported": f"{largest.mentioned} of {largest.reports}",
            "False alarms": f"{system.false_alarms} of {system.normals}",
            "On the wrong side": sum(point.other_side for point in found.points),
        }
        if mirror:
            differs = "yes" if adjusted[name] < 0.05 else "no"
            row["Right / left"] = f"{mirror.right:.0%} / {mirror.left:.0%}"
            row["Sides differ"] = f"{differs} (p {adjusted[name]:.3f})"
        rows.append((found.half.extent if found.half.extent is not None else 2.0, row))
    table = pd.DataFrame([row for _, row in sorted(rows, key=lambda each: each[0])])
    st.dataframe(table, hide_index=True, width="stretch")
    st.caption(
        "Extent: 0 is nothing, 1 as bad as it gets. In brackets: 95 % interval over chests. False alarms: reports of "
        "the same chests without the finding that mention it. Right / left: share of all films with the finding whose "
        "reports mention it, same chests; p after Holm's correction for all models."
    )
    export(table, f"Detection of {result.title}, {place_title(place)}, {result.design.spec}", name="detection")


def choose_film(result: DetectionResult, chests: int) -> tuple[int, int]:
    """Which chest, from 0, of so many, and which step of the extent, 0 for none."""
    extents = {"nothing": 0} | {f"{extent:.2f}": step for step, extent in enumerate(result.design.extents, start=1)}
    tell_unknown(session.DETECTED_EXTENT, "extent", extents)
    tell_unknown(session.DETECTED_CHEST, "chest", map(str, range(1, chests + 1)))
    if st.session_state.get(session.DETECTED_EXTENT) not in extents:
        st.session_state[session.DETECTED_EXTENT] = list(extents)[min(len(extents) - 1, result.design.steps // 2)]
    if not 1 <= st.session_state.get(session.DETECTED_CHEST, 1) <= chests:
        st.session_state[session.DETECTED_CHEST] = 1
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        step = st.select_slider(
            f"Extent of {result.design.finding.lower()}",
            list(extents),
            key=session.DETECTED_EXTENT,
            bind="query-params",
            help="The film and the reports below follow.",
        )
        chest = st.number_input("Chest", 1, chests, 1, key=session.DETECTED_CHEST, bind="query-params", width=130)
    return int(chest) - 1, extents[str(step)]


def show_film(result: DetectionResult, films: Shown, place: tuple[str, str], chest: int, step: int) -> Case:
    """The film, with the strip of its extents."""
    film = detection.film_at(result, chest, place, step)
    case = studies.open_study(film.film_id, films.name)
    masks = [Overlay(label=name, group="True findings", kind="mask", values=mask) for name, mask in case.masks.items()]
    viewer(case.pixels, study=case.title, bits=case.bits, overlays=masks, key="graded_film")
    note = films.note or "A synthetic X-ray: computed, no patient."
    st.caption(f":material/info: {note} The true place of the finding can be shown.")
    show_credit(sources.source(films.name).credit)
    steps = sorted({round(each * result.design.steps / (IN_STRIP - 1)) for each in range(IN_STRIP)})
    ids = [detection.film_at(result, chest, place, each).film_id for each in steps]
    names = ["nothing" if not each else f"{result.design.extents[each - 1]:.2f}" for each in steps]
    film_strip(studies.thumbnails(ids, films.name), names, current=names[steps.index(step)] if step in steps else "")
    st.page_link(
        "app_pages/read.py",
        label="Open this film on the Read page",
        icon=":material/radiology:",
        query_params={session.SOURCE: films.name, session.STUDY: film.film_id},
    )
    return case


def show_reports(result: DetectionResult, case: Case, chosen: Sequence[str], titles: Mapping[str, str]) -> None:
    """What the chosen models write of the film."""
    cards = [found for name in chosen if (found := bundles.card_named(name)) is not None]
    if not cards:
        st.info("The models of these curves are not here: there is no report to show beside the film.")
        return
    order = {pair: place for place, pair in enumerate(all_pairs())}  # what is no pair of the table comes last
    cards.sort(key=lambda each: order.get((each.encoder, each.decoder), len(order)))
    drawn = []
    for name, reading in reports.read(case, cards):
        if isinstance(reading, str):
            drawn.append({"name": name, "title": titles[name], "error": reading})
            continue
        said = reading.labels.states[result.design.finding]
        drawn.append(card(name, f"{titles[name]}: {said.value}", reading.report, reading.labels, reading.outcomes))
    report_cards(drawn, reference=None, table=None, key="graded_reports")


def explain() -> None:
    """What was done."""
    with st.expander("How this is measured"):
        st.markdown(
            "Healthy chests are drawn that no model has learned from. In each, one finding is turned up from nothing "
            "to as bad as it gets, on either side and at each site, and nothing else changes. The models write a "
            "report of every film, and the rule labeler says whether it mentions the finding, with or without doubt. "
            "A curve is fitted to the share that does. **These are computed films**: where models differ on them is a "
            "question to ask of real ones, not an answer. *In real films* means that the same finding is drawn into "
            "normal films of patients, as bright as the film's own soft tissue; it is no patient's disease either. "
            f"Your own models and other systems: `{COMMAND}`, described in docs/detection.md."
        )


st.header("How small a finding is still reported")
st.caption("The same chest with one finding turned up step by step, and what the models write of each film.")
results, damaged = detection.found()
for message in damaged.values():
    st.error(plain_message(message), icon=":material/error:")
if not results:
    st.info(f"Nothing was measured yet. `{COMMAND}` does, and this page shows it.", icon=":material/info:")
    st.stop()
result, place, chosen = choose(results)
titles = detection.titles(result)
try:
    films = detection.films(result)
    chest, step = choose_film(result, films.design.chests)
except CXRLensError as error:
    st.error(plain_message(error), icon=":material/error:")
    st.stop()
left, right = st.columns([5, 7], gap="medium")
with right:
    extent = result.design.extents[step - 1] if step else 0.0
    rises = [detection.rise(titles[name], of_place(result.systems[name], place)) for name in chosen]
    if rises:
        st.plotly_chart(
            figures.detection_curves(rises, here=extent, height=360), key="curves", config={"displayModeBar": False}
        )
    else:
        st.info("No model is chosen. Choose some above.")
with left:
    try:
        case = show_film(result, films, place, chest, step)
    except CXRLensError as error:
        st.error(plain_message(error), icon=":material/error:")
        st.stop()
with right:
    show_reports(result, case, chosen, titles)
st.markdown(f"**{result.title}, {place_title(place)}: all models**")
show_table(result, place, titles)
explain()
