"""In: a source and an encoder. Out: the process that looks at its studies for a map; one at a time on a server."""

from __future__ import annotations

from contextlib import suppress

import streamlit as st

from core.projection.embeddings import EmbeddingJob
from core.types import CXRLensError
from dashboard.services import embeddings


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[str, EmbeddingJob]:
    """Jobs that run, or that failed or were cancelled, by content."""
    return {}


def running(encoder: str, source_name: str) -> EmbeddingJob | None:
    """The job that looks at the studies of a source; None where none does.

    Raises:
        CXRLensError: it failed or was cancelled; goes on raising until it is begun again. See also `embeddings.key_of`.
    """
    key = embeddings.key_of(encoder, source_name)
    job = _jobs().get(key)
    if job is None or not job.done():
        return job
    job.wait()  # raises where it did not end well
    _jobs().pop(key, None)
    return None


def forget_ended() -> None:
    """Let go of jobs that ended well, and of their folders."""
    for key, job in list(_jobs().items()):
        if job.done():
            with suppress(CXRLensError):  # those that did not are kept, to be told of
                job.wait()
                _jobs().pop(key, None)


def busy() -> bool:
    """Does another map's job run? One takes all cores."""
    return any(not job.done() for job in list(_jobs().values()))


def start(encoder: str, source_name: str) -> None:
    """Begin, or begin again where it stopped. For callbacks: what goes wrong is told by `running`."""
    key = embeddings.key_of(encoder, source_name)
    job = _jobs().get(key)
    if (job is None or job.done()) and not busy():
        _jobs()[key] = EmbeddingJob(embeddings.wanted(encoder, source_name))
