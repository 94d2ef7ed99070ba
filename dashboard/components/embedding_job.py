"""The map that is not there yet: one button that computes it, its progress, and what could not be read."""

from __future__ import annotations

import streamlit as st

from core.jobs import Job
from core.types import CXRLensError
from dashboard.plain import plain, plain_message
from dashboard.services import embedding_jobs, embeddings, sources

FEWEST = 3  # of a plane


@st.fragment(run_every=1.0)
def show_job(job: Job, key: str) -> None:
    """How far a process is; the page goes on when it has ended.

    Args:
        job: of any kind.
        key: unique on the page.
    """
    share, what = job.progress()
    st.progress(min(share, 1.0), text=f"{plain(what)} …")
    st.button("Cancel", icon=":material/close:", key=f"cancel_{key}", on_click=job.cancel)
    if job.done():
        st.rerun()


def offer_map(encoder: str, source_name: str) -> None:
    """Say that there is no map of a source by an encoder, and offer to compute it; or show how far that is."""
    title = f"{sources.source(source_name).title} as {embeddings.title_of(encoder)} sees them"
    try:
        embeddings.key_of(encoder, source_name)  # it raises where there can be no map
        work = embeddings.wanted(encoder, source_name)
    except CXRLensError as error:
        st.info(plain_message(error), icon=":material/info:")
        return
    try:
        job = embedding_jobs.running(encoder, source_name)
    except CXRLensError as error:
        st.warning(plain_message(error), icon=":material/info:")
        job = None
    if job is not None:
        st.caption(f"{plain(title)}: each radiograph is looked at once.")
        show_job(job, f"embed_{source_name}_{encoder}")
        return
    many = embeddings.how_many(source_name)
    some = min(many, embeddings.MOST)
    if some < FEWEST:
        st.info(
            f"{plain(title)}: a map needs at least {FEWEST} studies; here {'is' if many == 1 else 'are'} {many}.",
            icon=":material/info:",
        )
        return
    what = f"these {many:,} studies" if some == many else f"{some:,} of {many:,} studies, drawn at random"
    split = f" --split {work.split}" if work.split else ""
    with st.container(border=True):
        st.markdown(f"**{plain(title)}**: there is no map yet.")
        st.button(
            f"Compute the map of {what}",
            icon=":material/scatter_plot:",
            key=f"start_{source_name}_{encoder}",
            type="primary",
            disabled=embedding_jobs.busy(),
            on_click=embedding_jobs.start,
            args=(encoder, source_name),
        )
        st.caption(
            "Another map is being computed: one at a time."
            if embedding_jobs.busy()
            else "Each radiograph is looked at once, in the background; the result is kept on disk. The same on the "
            f"command line: `cxr-lens embed SOURCE --bundle {work.bundle}{split}`."
        )


def show_left_out(encoder: str, source_name: str) -> None:
    """Which studies are on no map, because their images could not be read, and how many are there in all."""
    embedding_jobs.forget_ended()
    found = embeddings.computed(encoder, source_name)
    many = embeddings.how_many(source_name)
    if found is not None and (shown := min(found.studies, embeddings.MOST)) < many:
        st.caption(f":material/info: {shown:,} of {many:,} studies, drawn at random; the same ones each time.")
    if found is None or not found.unreadable:
        return
    count, (first, why) = len(found.unreadable), next(iter(found.unreadable.items()))
    with st.container(horizontal=True, vertical_alignment="center"):
        st.caption(
            f":material/broken_image: {count:,} of {found.studies:,} studies "
            f"{'is' if count == 1 else 'are'} left out: their images cannot be read. "
            f"{plain(first)}: {plain_message(why)}",
            width="stretch",
        )
        try:
            job = embedding_jobs.running(encoder, source_name)
        except CXRLensError as error:
            st.caption(plain_message(error))
            job = None
        if job is None:
            st.button(
                "Read them again",
                key=f"again_{source_name}_{encoder}",
                on_click=embedding_jobs.start,
                args=(encoder, source_name),
                disabled=embedding_jobs.busy(),
            )
    if job is not None:
        show_job(job, f"again_{source_name}_{encoder}")
