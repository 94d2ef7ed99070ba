"""In: stored embeddings, a projection and colours. Out: one map with its quality in words, and its file."""

from __future__ import annotations

import html

import numpy as np
import numpy.typing as npt
import pandas as pd
import streamlit as st

from core.projection.job import ProjectionJob
from core.projection.methods import ProjectionConfig
from core.types import CXRLensError, Projection
from core.wording import counted
from dashboard import figures, session
from dashboard.components.embedding_job import show_job
from dashboard.maps.chosen import constant_choice, describe, pick
from dashboard.maps.controls import FINDING, OUTCOME, Colouring
from dashboard.plain import plain_message
from dashboard.services import embeddings, projections, sources
from dashboard.services.embeddings import Embeddings
from dashboard.services.studies import Case

_GROUPED = {"study": "Disease groups", "filter": "Filters", "area": "Areas of the image"}


@st.fragment(run_every=1.0)
def _wait_for_others() -> None:
    """Other maps are being computed; the page goes on when this one's turn has come."""
    st.info("Other maps are being computed. This one is next.", icon=":material/hourglass:")
    if not projections.busy():
        st.rerun()


def show_progress(job: ProjectionJob | None, chart: str) -> None:
    """A map that is being computed; the page goes on when it is there."""
    if job is None:
        _wait_for_others()
    else:
        show_job(job, chart)


def _open_points(
    stored: Embeddings, placed: Projection, config: ProjectionConfig, case: Case | None
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Where the open study lies on a map, (m, 2 or 3), or None and why."""
    if case is None:
        return None, ""
    of_case = stored.study_ids if case.source == stored.source else ()
    rows = [row for row, study_id in enumerate(of_case) if study_id == case.title]
    if rows:
        return placed.coordinates[rows], ""
    if stored.kind != embeddings.POOLED:
        return None, f"{case.title} is not among the stored studies; choose the points “One point per X-ray (image)”."
    try:
        found = projections.place_case(stored, config, case)
    except CXRLensError as error:
        return None, str(error)
    if isinstance(found, Projection):
        return found.coordinates, ""
    show_progress(found, f"place_{stored.encoder}")
    return None, f"{case.title} is being added to the map."


def show_map(
    chart: str,
    stored: Embeddings,
    config: ProjectionConfig,
    colouring: Colouring,
    case: Case | None,
    *,
    title: bool,
) -> dict[str, list[str]]:
    """Draw one map with its quality; returns its studies by group."""
    encoder, kind = stored.encoder, stored.kind
    if title:
        st.markdown(f"**{embeddings.title_of(encoder)}: {embeddings.kinds(encoder, stored.source)[kind]}**")
    try:
        placed = projections.projection(stored, config)
    except CXRLensError as error:
        st.info(plain_message(error), icon=":material/info:")
        if projections.failed(stored, config):
            st.button("Compute again", key=f"again_{chart}", on_click=projections.forget_jobs)
        return {}
    if not isinstance(placed, Projection):
        show_progress(placed, chart)
        return {}
    known, title_of = embeddings.visible(stored), sources.source(stored.source).title
    rows = [row for row, study_id in enumerate(stored.study_ids) if study_id in known]
    strange, total = len(set(stored.study_ids).difference(embeddings.known(stored))), len(set(stored.study_ids))
    if not rows and not strange:
        st.info(
            "All these studies are in your open review sessions, so they are not shown.",
            icon=":material/visibility_off:",
        )
        return {}
    if not rows:
        st.info(
            f"Of {counted(total, 'stored study', 'stored studies')} none is among those that are shown of {title_of}: "
            f"the stored embeddings of {embeddings.title_of(encoder)} are of other data. {embeddings.EXPORT}",
            icon=":material/info:",
        )
        return {}
    ids = [stored.study_ids[row] for row in rows]
    parts = [stored.parts[row] if stored.parts else "" for row in rows]
    groups = [colouring.group(known[each], part) for each, part in zip(ids, parts, strict=True)]
    texts = {each: f"<b>{html.escape(each)}</b><br>{html.escape(describe(known[each], stored))}" for each in set(ids)}
    here, reason = _open_points(stored, placed, config, case)
    shares = placed.parameters.get("shares")
    axes = [
        f"PC {n + 1} ({shares[n]:.0%} of variance)" if shares and n < len(shares) else f"{placed.method} {n + 1}"
        for n in range(config.dimensions)
    ]
    signature = (
        (stored.source, encoder, kind),
        config,
        colouring.by,
        colouring.finding,
        colouring.pair,
        case.key if case else "",
        here is None,
    )
    chosen, turn = constant_choice(chart, signature)
    figure = figures.scatter_map(
        placed.coordinates[rows],
        ids,
        [f"{texts[each]}<br>{part}" if part else texts[each] for each, part in zip(ids, parts, strict=True)],
        groups,
        order=colouring.order,
        axes=axes,
        picked=chosen,
        here=here,
        here_name=case.title if case else "",
        joined=embeddings.point_is(encoder, kind) == "filter",
        height=560,
    )
    figure.update_layout(meta=turn)
    name = f"{encoder}-{kind}-{config.method}".lower()
    st.plotly_chart(
        figure,
        key=chart,
        on_select=lambda: pick(chart, stored.source),
        selection_mode=("points", "box", "lasso"),
        config={
            "displaylogo": False,
            "scrollZoom": True,
            "displayModeBar": True,
            "toImageButtonOptions": {"format": st.session_state[session.MAP_PICTURE], "filename": name},
        },
        alt=f"{config.method} map of {len(ids)} points of {embeddings.title_of(encoder)}; the table below says the "
        "same",
    )
    notes = [*placed.parameters.get("notes", ())]
    if strange:
        notes.append(
            f"{strange} of its {total} studies are not shown: they are not among those that are shown of {title_of}, "
            "so these embeddings are of other data."
        )
    for note in [*notes, *([reason] if reason else [])]:
        st.caption(f":material/info: {plain_message(note)}")
    show_quality(stored, placed, colouring)

    def as_csv() -> bytes:  # only when it is saved: 20,000 points take a moment
        content = {
            "study": ids,
            "part": parts,
            **{axis: placed.coordinates[rows, n] for n, axis in enumerate("xyz"[: config.dimensions])},
            "group": groups,
            "view": [known[each].view for each in ids],
            "split": [known[each].split for each in ids],
            "findings": [describe(known[each], stored) for each in ids],
        }
        return pd.DataFrame(content).to_csv(index=False).encode()

    st.download_button(
        "Map as CSV",
        as_csv,
        file_name=f"{name}.csv",
        mime="text/csv",
        icon=":material/download:",
        key=f"csv_{chart}",
        on_click="ignore",
    )
    found: dict[str, list[str]] = {}
    for each, group in zip(ids, groups, strict=True):
        found.setdefault(group, []).append(each)
    return {name: found[name] for name in colouring.order if name in found}


def show_difference(first: Embeddings, second: Embeddings) -> None:
    """Say so where two maps are not of the same studies."""
    one, other = set(first.study_ids), set(second.study_ids)
    if one != other:
        st.caption(
            f":material/info: The maps are of different studies: {len(one)} and {len(other)}, {len(one & other)} of "
            "them on both. A choice shows only these on both maps; do not compare the numbers under the maps."
        )


def show_quality(stored: Embeddings, placed: Projection, colouring: Colouring) -> None:
    """How far the map can be trusted, in words with their numbers."""
    measured = projections.map_quality(stored, placed)
    lines = []
    trust = placed.parameters.get("trustworthiness")
    if trust is not None:
        verdict = (
            "dots that look close are close for the model"
            if trust >= 0.95
            else "most dots that look close are close for the model"
            if trust >= 0.85
            else "many dots that look close are not close for the model"
        )
        lines.append(f"Map quality (trustworthiness) **{trust:.2f}** of 1: {verdict}.")
    hits = {name: (count, hit, share) for name, count, hit, share in measured.by_observation}
    if colouring.by in (FINDING, OUTCOME) and colouring.finding in hits:
        count, hit, share = hits[colouring.finding]
        lines.append(
            f"{colouring.finding}: of the ten dots nearest to each of its {count} studies, **{hit:.0%}** have it too; "
            f"at random it would be {share:.0%}."
        )
    if measured.on_map is not None and measured.before is not None:
        groups = _GROUPED[embeddings.point_is(stored.encoder, stored.kind)]
        groups = "Untrained filters" if stored.kind == embeddings.RANDOM else groups
        apart = "apart" if measured.before >= 0.5 else "partly apart" if measured.before >= 0.2 else "mixed"
        lines.append(
            f"{groups} are {apart}: silhouette **{measured.before:.2f}** for the model, **{measured.on_map:.2f}** on "
            "the map (1 = apart, 0 = mixed)."
        )
    if lines:
        st.markdown("  \n".join(lines))
    if hits:
        with st.expander("Neighbours by observation"):
            heads = ("Observation", "Studies", "Nearest ten with it", "At random")
            content = pd.DataFrame([dict(zip(heads, (name, *of), strict=True)) for name, of in hits.items()])
            st.dataframe(
                content.style.format(dict.fromkeys(heads[2:], "{:.0%}")),
                hide_index=True,
                height="content",
                alt="How many of the ten nearest points have the same observation",
            )
