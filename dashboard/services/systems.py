"""In: the systems that were added. Out: these by group, their reports of a case or of a source, and what more cost."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import streamlit as st
from scipy.ndimage import gaussian_filter

from core.cache import BoundedCache
from core.studies.source import Source
from core.systems import added
from core.systems.report_files import ReportFile
from core.systems.system import Ability, Progress, System, Written
from core.types import CXRLensError, FloatImage
from dashboard import access
from dashboard.services import bundles, reports, sources
from dashboard.services.explanations import Box, region_mask
from dashboard.services.studies import Case

MOST_BYTES = 64  # MB of a file of reports, as of every upload


def others() -> dict[str, dict[str, System]]:
    """The systems that were added: group -> name -> system."""
    found: dict[str, dict[str, System]] = {}
    for each in added.systems()[0]:
        found.setdefault(each.group, {})[each.name] = each
    return found


def problems() -> Mapping[str, str]:
    """Messages of damaged ones, by name."""
    return added.systems()[1]


def named(name: str) -> System | None:
    """One that was added; None where there is none of this name, or it is damaged."""
    try:
        return added.system(name)
    except CXRLensError:
        return None


def why_not_add() -> str:
    """Why whoever looks may not add a file of reports; "" where he may.

    Raises:
        AccessError: on a server, this user may not use it.
    """
    if access.has_login() and access.identify().role == "reader":
        return "On this server researchers and administrators add reports."
    return ""


def add_upload(
    name: str, file_name: str, content: bytes, id_column: str = "", text_column: str = ""
) -> tuple[System, ReportFile]:
    """Add a file that was uploaded.

    Args:
        name: of the new system.
        file_name: of the file; its ending says how it is read.
        content: of the file.
        id_column: see `core.systems.report_files.read_report_file`.
        text_column: the same.

    Raises:
        CXRLensError: this user may not, the name is none or is taken, or the file cannot be read or kept.
    """
    if refused := why_not_add():
        raise CXRLensError(refused)
    with tempfile.TemporaryDirectory(prefix="cxr-lens-") as folder:
        path = Path(folder, Path(file_name).name)
        path.write_bytes(content)
        return added.add_file(
            name,
            path,
            id_column=id_column,
            text_column=text_column,
            others=[card.name for card in bundles.library_cards()],
        )


def reports_of(system: System, source_name: str) -> Written:
    """The reports that a system has already of the studies of a source; nothing is written for it.

    Raises:
        CXRLensError: there is no such source.
    """
    source = sources.source(source_name)
    found: Written = _reports(system.content_hash(), sources.content_key(source), system, source)
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _reports(content: str, key: str, _system: System, _source: Source) -> Written:
    return _system.reports(_source, _source.all_ids()) if _source.listed else Written({})


def of_case(case: Case) -> dict[str, System]:
    """The systems that have a report of a case, or could write one, by name."""
    return {
        name: each
        for group in others().values()
        for name, each in group.items()
        if Ability.WRITE in each.abilities or text_of(each, case) is not None
    }


def text_of(system: System, case: Case) -> str | None:
    """The report of a case that a system has already; None where there is none.

    Raises:
        CXRLensError: the image cannot be read any more.
    """
    if case.source != sources.UPLOAD and Ability.WRITE not in system.abilities:
        return reports_of(system, case.source).texts.get(case.study.study_id)
    return _written().get((system.content_hash(), case.key)) or system.kept(
        sources.source(case.source), case.study.study_id
    )


def write(system: System, case: Case) -> str:
    """Let a system write the report of a case now.

    Raises:
        CXRLensError: it fails, or gives none.
    """
    study_id = case.study.study_id
    found = system.reports(sources.source(case.source), [study_id])
    if study_id not in found.texts:
        raise CXRLensError(found.lacking.get(study_id, f"{system.title} gave no report of this image."))
    _written().put((system.content_hash(), case.key), found.texts[study_id])
    return found.texts[study_id]


def known_without(system: System, case: Case, box: Box, cover: str) -> Mapping[str, object] | None:
    """What a system writes with a region covered, as the card of a report shows it; None where it was not asked."""
    text, before = _without().get((system.content_hash(), case.key, box, cover)), text_of(system, case)
    if text is None or before is None:
        return None
    from core.explain.counterfactuals import differences  # brings torch

    parts = differences(before.split(), text.split())
    return {"changes": None, "difference": [(part.kind, " ".join(part.words)) for part in parts], "reference": None}


def without(system: System, case: Case, box: Box, cover: str) -> None:
    """Let a system write the report of a case with a region covered.

    Args:
        system: that writes.
        case: whose image.
        box: left, top, right, bottom, fractions of the image.
        cover: "blank", the image's mean grey, or "blur".

    Raises:
        CXRLensError: the region lies outside the image, or the system fails.
    """
    region = region_mask(box, case.pixels)
    cover_with = case.pixels.mean() if cover == "blank" else gaussian_filter(case.pixels, max(case.pixels.shape) / 16)
    changed = np.where(region, cover_with, case.pixels).astype(np.float32)
    _without().put((system.content_hash(), case.key, box, cover), system.of_image(changed, case.study))


@st.cache_resource(show_spinner=False)
def _without() -> BoundedCache[tuple[str, str, Box, str], str]:
    """Reports by (system with its content, image, region, cover)."""
    return BoundedCache(1_000)


@st.cache_resource(show_spinner=False)
def _written() -> BoundedCache[tuple[str, str], str]:
    """Reports by (system with its content, image)."""
    return BoundedCache(1_000)


def known_place(system: System, case: Case, observation: str, method: str) -> FloatImage | None:
    """Where in the image what a system says of a finding hangs, (h, w) over the image; None where it was not asked."""
    return _places().get((system.content_hash(), case.key, observation, method))


def find_place(system: System, case: Case, observation: str, method: str, progress: Progress | None = None) -> None:
    """Let a system write the reports of changed copies of a case's image, and keep where the finding hangs.

    Args:
        system: that has a report of the case.
        case: whose image.
        observation: that the report speaks of.
        method: of `core.explain.texts.METHODS`.
        progress: called with (copies written, copies in all); what it raises stops the work.

    Raises:
        CXRLensError: the system fails.
    """
    from core.explain.texts import METHODS  # brings torch

    said = reports.label(text_of(system, case) or "").states[observation]
    found = METHODS[method].run(
        lambda images: system.of_images(images, case.study),
        case.pixels,
        lambda text: reports.label(text).states[observation] is said,
        progress=progress,
    )
    _places().put((system.content_hash(), case.key, observation, method), found)


@st.cache_resource(show_spinner=False)
def _places() -> BoundedCache[tuple[str, str, str, str], FloatImage]:
    """Maps by (system with its content, image, observation, method)."""
    return BoundedCache(1_000)


def price(system: System, studies: int, what: str = "") -> str:
    """What reports of a system cost, in a sentence; "" where they are there already.

    Args:
        system: that writes.
        studies: how many reports.
        what: what they are of; the studies unless given.
    """
    seconds = system.seconds_a_study()
    if seconds == 0:
        return ""
    if seconds is None:
        return f"{system.title} is a program that has not run yet, so nobody knows how long it takes."
    whole = seconds * studies
    time = f"{whole / 60:,.0f} minutes" if whole >= 120 else f"{max(whole, 1):,.0f} seconds"
    what = what or ("this study" if studies == 1 else f"these {studies:,} studies")
    return f"{system.title} is a program: it took {seconds:.2g} seconds a study before, so {what} take about {time}."
