"""In: a study's id, or an uploaded file. Out: the case that pages show, the image that models read, small pictures.

What whoever looks reads in an open review session is kept back here, for all pages.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import streamlit as st
from PIL import Image

from core.observations import CLUSTER_OF, NO_FINDING, SUPPORT_DEVICES, findings
from core.studies.images import read_image
from core.studies.model_image import Pixels, grey_levels, of_image, of_study
from core.studies.phantom import PhantomSource
from core.studies.phantom.findings import severity_of
from core.types import CXRLensError, FloatImage, Mask, Study
from core.views import lateral_note
from dashboard import access
from dashboard.roles import AccessError
from dashboard.services import bundles

VIEW_SIZE = 640  # pixels of a phantom in the viewer; the models get their own size
THUMBNAIL = 112  # pixels
KEPT_BACK = "Study {} is in one of your open review sessions. It is hidden here until that session is closed."


@dataclass(frozen=True, slots=True)
class Case:
    """What is open on the page: a study or an uploaded image.

    Attributes:
        key: names the image and its content; part of every cache key.
        title: study id or file name.
        pixels: for the viewer, (H, W).
        bits: grey levels of the original are 2 ** bits.
        spacing: (row, column) distance of the pixels' centres in millimetres, if the file tells it.
        view: "PA", "AP" or "LATERAL"; "" where it is not known.
        study: what is known beside the pixels; None for an upload.
        masks: abnormality in words -> its true place, (H, W); empty where the truth is unknown.
        warnings: of the file reader.
        synthetic: it is computed, and of no patient.
    """

    key: str
    title: str
    pixels: FloatImage
    bits: int
    spacing: tuple[float, float] | None = None
    view: str = ""
    study: Study | None = None
    masks: Mapping[str, Mask] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    synthetic: bool = False


# ------------------------------------------------------------------------------------------------------------ studies


@st.cache_resource(max_entries=2, show_spinner=False)
def _phantoms(count: int, seed: int) -> PhantomSource:
    return PhantomSource(count=count, seed=seed)


def phantom_numbers() -> tuple[int, int]:
    """Count and seed of the phantoms the bundles were trained on, so that the test split really was held out."""
    for card in bundles.cards(bundles.PHANTOM).values():
        if card.data.get("name") == bundles.PHANTOM and "count" in card.data and "seed" in card.data:
            return int(card.data["count"]), int(card.data["seed"])
    return 2000, 0


def all_studies() -> Mapping[str, Study]:
    """Studies of the test split, by id: for numbers over all of them. What is shown comes from `visible_studies`."""
    return _studies(*phantom_numbers())


def visible_studies() -> Mapping[str, Study]:
    """Studies of the test split that whoever looks may see, by id; see `kept_back`."""
    found, hidden = all_studies(), kept_back()
    return {name: study for name, study in found.items() if name not in hidden} if hidden else found


def kept_back() -> frozenset[str]:
    """Ids of the studies, of any data, that whoever looks reads in an open session: their reports are told nowhere.

    Ends the page, with the reason, where that user may not use this server any more.
    """
    try:
        return access.kept_back()
    except AccessError as error:
        access.explain(error)
        st.stop()
        raise


@st.cache_resource(max_entries=2, show_spinner="Preparing the studies …")
def _studies(count: int, seed: int) -> Mapping[str, Study]:
    return {study.study_id: study for study in _phantoms(count, seed).studies("test")}


def worst_severity(study_id: str) -> str:
    """How bad the worst abnormality of a study is: a word, "no abnormality" where there is none."""
    extents = [fact.extent for fact in _phantoms(*phantom_numbers()).facts(study_id)]
    return severity_of("", max(extents)) if extents else "no abnormality"


def open_study(study_id: str) -> Case:
    """Open a study.

    Raises:
        CXRLensError: whoever looks reads it in an open session.
    """
    if study_id in kept_back():
        raise CXRLensError(KEPT_BACK.format(study_id))
    return _phantom_case(study_id, *phantom_numbers())


@st.cache_resource(max_entries=24, show_spinner=False)
def _phantom_case(study_id: str, count: int, seed: int) -> Case:
    phantom = _phantoms(count, seed).phantom(study_id, VIEW_SIZE)
    return Case(
        key=f"phantom-{count}-{seed}-{study_id}",
        title=study_id,
        pixels=phantom.image,
        bits=12,
        view=phantom.study.view,
        study=phantom.study,
        masks={
            " ".join(part for part in (fact.side, fact.kind or fact.observation) if part): phantom.masks[fact.id]
            for fact in phantom.facts
            if phantom.masks[fact.id].any()
        },
        synthetic=True,
    )


# ------------------------------------------------------------------------------------------------------------ uploads


def open_upload(content: bytes, name: str) -> Case:
    """Open an uploaded PNG, JPEG or DICOM file.

    Raises:
        CXRLensError: it is not a radiograph that we can read; the message says why.
    """
    radiograph = read_image(content, name=name)
    return Case(
        key=f"upload-{radiograph.sha256}",
        title=name,
        pixels=radiograph.pixels,
        bits=radiograph.bits,
        spacing=radiograph.pixel_spacing,
        view=radiograph.view,
        warnings=tuple(radiograph.warnings),
    )


# ----------------------------------------------------------------------------------------------------------- any case


def pixels(case: Case) -> Pixels:
    """The image of a case as any pair is given it: a phantom drawn at the pair's size, an upload as it was read."""
    if case.study is None:
        return of_image(case.pixels)
    study_id, numbers = case.study.study_id, phantom_numbers()
    return lambda size: _phantom_pixels(study_id, size, *numbers)


@st.cache_resource(max_entries=64, show_spinner=False)
def _phantom_pixels(study_id: str, size: int, count: int, seed: int) -> FloatImage:
    return of_study(_phantoms(count, seed), study_id)(size)


def family_for(case: Case) -> str:
    """The family of bundles that fits a case: what learned from computed images for those, where there is such."""
    families = bundles.families()
    fitting = [family for family in families if bundles.synthetic(family) == case.synthetic]
    return next(iter([*fitting, *families]), bundles.PHANTOM)


def unlike(case: Case, family: str) -> str:
    """What to say where the models of a family learned from other images than this one; "" where they fit."""
    if bundles.synthetic(family) == case.synthetic:
        return ""
    if case.synthetic:
        return "These models learned from real X-rays. This X-ray is synthetic: expect poor reports."
    return "These models learned from **synthetic X-rays only**. On a real X-ray their reports mean nothing."


def view_notes(case: Case) -> list[str]:
    """What to say where the models that fit a study learned from no such view; of a file, its reader says it."""
    if case.study is None:
        return []
    notes = (lateral_note(case.view, card.trained_with) for card in bundles.cards(family_for(case)).values())
    return list(dict.fromkeys(note for note in notes if note))


def main_cluster(study: Study) -> str:
    """The cluster of a study's only finding, "No Finding", or "Several"; support devices count only where alone."""
    found = list(dict.fromkeys(CLUSTER_OF[name] for name in findings(study.labels)))
    found = [name for name in found if name != SUPPORT_DEVICES] or found
    return NO_FINDING if not found else found[0] if len(found) == 1 else "Several"


def thumbnails(study_ids: Sequence[str]) -> list[bytes]:
    """Small JPEGs of studies."""
    return [_thumbnail(study_id, *phantom_numbers()) for study_id in study_ids]


@st.cache_data(max_entries=4000, show_spinner=False)
def _thumbnail(study_id: str, count: int, seed: int) -> bytes:
    picture = grey_levels(_phantoms(count, seed).image(study_id, THUMBNAIL))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
