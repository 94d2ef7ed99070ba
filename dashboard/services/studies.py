"""In: a study's id, or an uploaded file. Out: the case that pages show, the image that models read, small pictures.

What whoever looks reads in an open review session is kept back here, for all pages and all sources.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import streamlit as st
from PIL import Image

from core.observations import CLUSTER_OF, NO_FINDING, SUPPORT_DEVICES, LabelState, findings
from core.studies.folder import UploadSource
from core.studies.images import Grey, Radiograph, read_image
from core.studies.model_image import Pixels, grey_levels, of_image
from core.studies.source import ByStudy, Source, StudyImage
from core.types import PAD, SPLITS, CXRLensError, FloatImage, Mask, Split, Study
from core.views import lateral_note
from core.wording import counted
from dashboard import access
from dashboard.roles import AccessError
from dashboard.services import bundles, sources

LISTED = 600  # studies that one list offers; where there are more, those that are typed for, or those around
MASK_SIZE = 640  # ours: pixels of the longer side of true findings
THUMBNAIL = 112  # pixels
SMALL = 5_000  # ours: studies of a source whose reports may all be read while somebody waits
KEPT_BACK = "Study {} is in one of your open review sessions. It is hidden here until that session is closed."


@dataclass(frozen=True, slots=True)
class Case:
    """What is open on the page: a study of a source, with the image that models read.

    Attributes:
        key: names the image and its content; part of every cache key.
        title: study id or file name.
        source: short name of where it comes from, as `sources.source` takes it.
        study: what is known beside the pixels.
        pixels: for the viewer, (H, W).
        bits: grey levels of the original are 2 ** bits.
        grey: the file's own values, where it has more than ``pixels``.
        spacing: (row, column) distance of the pixels' centres in millimetres, if the file tells it.
        view: "PA", "AP" or "LATERAL"; "" where it is not known.
        labels: of the 14 observations; None where nothing is known of them.
        masks: finding in words -> its true place, (h, w) over the whole image; empty where the truth is unknown.
        warnings: of the file reader.
        synthetic: it is computed, and of no patient.
    """

    key: str
    title: str
    source: str
    study: Study
    pixels: FloatImage
    bits: int
    grey: Grey | None = None
    spacing: tuple[float, float] | None = None
    view: str = ""
    labels: Mapping[str, LabelState] | None = None
    masks: Mapping[str, Mask] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    synthetic: bool = False

    @property
    def reference(self) -> str | None:
        """The findings of the reference report; None where there is none."""
        return self.study.findings if self.study.findings.strip() else None


# ------------------------------------------------------------------------------------------------------------ studies


def shown_split(source: Source) -> Split | None:
    """The split whose studies are shown: "test" where models here learned from such studies, None where all are.

    Also "test" where there is no model here: none says what it learned from.
    """
    families = bundles.families()
    learned = not families or any(bundles.learned_from(family, source) for family in families)
    return "test" if learned and _sizes(sources.content_key(source), source)["test"] else None


@st.cache_data(max_entries=8, show_spinner="Opening the studies …")
def _sizes(key: str, _source: Source) -> Mapping[Split, int]:
    return {split: len(_source.ids(split)) for split in SPLITS}


def about(source_name: str) -> list[str]:
    """What a source is, in words: how many studies, what is known of them, what must stand beside their images.

    Raises:
        CXRLensError: it cannot be opened.
    """
    source = sources.source(source_name)
    sizes = _sizes(sources.content_key(source), source) if source.listed else {}
    splits = ", ".join(f"{count:,} {split}" for split, count in sizes.items() if count)
    total = (
        f"{counted(sum(sizes.values()), 'study', 'studies')} ({splits})"
        if source.listed
        else "studies that its server is asked for"
    )
    known = ["reports" if source.has_reports else "labels" if source.has_labels else "images only"]
    known += [source.truth] if source.truth else []
    return [total, ", ".join(known), *([source.credit] if source.credit else [])]


def visible_ids(source_name: str | None = None) -> Sequence[str]:
    """Ids of the studies of a source, the chosen one unless named, that whoever looks may see; see `kept_back`.

    Those of the test split where models here learned from such studies, else all. Empty of a source that is not listed.

    Raises:
        CXRLensError: the source cannot be opened.
    """
    found, hidden = _shown_ids(source_name), kept_back()
    return [study_id for study_id in found if study_id not in hidden] if hidden else found


def _shown_ids(source_name: str | None) -> Sequence[str]:
    source = sources.source(source_name)
    if isinstance(source, UploadSource):  # of one session: never kept for others
        return source.ids("test")
    return _listed(sources.content_key(source), shown_split(source), source)


@st.cache_resource(max_entries=4, show_spinner="Opening the studies …")
def _listed(key: str, split: Split | None, _source: Source) -> Sequence[str]:
    return [study_id for each in ([split] if split else SPLITS) for study_id in _source.ids(each)]


def study(study_id: str, source_name: str | None = None) -> Study:
    """What is known of a study beside its pixels.

    Raises:
        CXRLensError: there is no such study, or its source cannot be opened.
    """
    source = sources.source(source_name)
    return (
        source.study(study_id)
        if isinstance(source, UploadSource)
        else _study(sources.content_key(source), study_id, source)
    )


@st.cache_resource(max_entries=5_000, show_spinner=False)
def _study(key: str, study_id: str, _source: Source) -> Study:
    return _source.study(study_id)


def titles(study_ids: Sequence[str], source_name: str | None = None) -> Mapping[str, str]:
    """What a list says of studies: id, sex and age, findings, as far as they are known without asking a server.

    Raises:
        CXRLensError: the source cannot be opened.
    """
    source = sources.source(source_name)
    if isinstance(source, UploadSource) or not source.listed:
        return {study_id: study_id for study_id in study_ids}
    return _titles(sources.content_key(source), tuple(study_ids), source)


@st.cache_resource(max_entries=16, show_spinner="Opening the studies …")
def _titles(key: str, study_ids: tuple[str, ...], _source: Source) -> Mapping[str, str]:
    return {study_id: _title(_source, _source.study(study_id)) for study_id in study_ids}


def _title(source: Source, study: Study) -> str:
    labels = labels_of(source, study)
    who = " ".join(study.context.get(each, "") for each in ("sex", "age")).strip()
    found = "" if labels is None else ", ".join(findings(labels)) or NO_FINDING
    return " · ".join(part for part in (study.study_id, who, found) if part)


def find(text: str, limit: int, source_name: str | None = None) -> list[str]:
    """Ids of visible studies that a text finds: a part of an id, of the patient's id, an accession number.

    Raises:
        CXRLensError: the source cannot be asked.
    """
    source, hidden = sources.source(source_name), kept_back()
    split = shown_split(source) if source.listed else None
    found = source.find(text, limit + len(hidden), split)
    return [study_id for study_id in found if study_id not in hidden][:limit]


def with_finding(finding: str, source_name: str | None = None) -> Sequence[str]:
    """Ids of the visible studies whose labels have a finding; those without any for "No Finding".

    Raises:
        CXRLensError: the source cannot be opened.
    """
    source = sources.source(source_name)
    found = _findings(sources.content_key(source), shown_split(source), source)
    return [
        study_id
        for study_id in visible_ids(source_name)
        if finding in found[study_id] or (finding == NO_FINDING and not found[study_id])
    ]


def can_filter(source_name: str | None = None) -> bool:
    """Whether studies of a source can be chosen by a finding at once: they have labels, and are few."""
    source = sources.source(source_name)
    if not (source.has_labels and source.listed):
        return False
    return 0 < sum(_sizes(sources.content_key(source), source).values()) <= SMALL


@st.cache_resource(max_entries=2, show_spinner="Reading the reports …")
def _findings(key: str, split: Split | None, _source: Source) -> Mapping[str, Sequence[str]]:
    splits = [split] if split else _source.splits()
    return {study.study_id: findings(study.labels) for each in splits for study in _source.studies(each)}


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


def visible_studies(source_name: str | None = None) -> Mapping[str, Study]:
    """Studies of a source that whoever looks may see, by id; each is made when it is asked for."""
    name = sources.chosen() if source_name is None else source_name
    return ByStudy(visible_ids(name), lambda study_id: study(study_id, name))


def open_study(study_id: str, source_name: str | None = None) -> Case:
    """Open a study of a source, the chosen one unless named.

    Raises:
        CXRLensError: whoever looks reads it in an open session, it is not there, or its image cannot be read.
    """
    if study_id in kept_back():
        raise CXRLensError(KEPT_BACK.format(study_id))
    name = sources.chosen() if source_name is None else source_name
    return open_case(sources.source(name), name, study_id)


def open_case(source: Source, name: str, study_id: str) -> Case:
    """The same of a source that is open, whoever looks; what was given in one session is never kept for others.

    Raises:
        CXRLensError: it is not there, or its image cannot be read.
    """
    if isinstance(source, UploadSource):
        return _open(source, name, study_id)
    return _case(sources.content_key(source), name, study_id, source)


@st.cache_resource(max_entries=8, show_spinner="Opening the study …")
def _case(key: str, name: str, study_id: str, _source: Source) -> Case:
    return _open(_source, name, study_id)


def _open(source: Source, name: str, study_id: str) -> Case:
    known, film = source.study(study_id), source.original(study_id)
    shrink = min(1.0, MASK_SIZE / max(film.pixels.shape))
    shape = tuple(max(round(side * shrink), 1) for side in film.pixels.shape)
    return Case(
        key=f"{source.key} {study_id} {film.sha256}",
        title=study_id,
        source=name,
        study=known,
        pixels=film.pixels,
        bits=film.bits,
        grey=film.grey,
        spacing=film.pixel_spacing,
        view=known.view or film.view,
        labels=labels_of(source, known),
        masks={found.name: found.mask for found in source.masks(study_id, (shape[0], shape[1]))},
        warnings=tuple(film.warnings),
        synthetic=source.synthetic,
    )


def labels_of(source: Source, study: Study) -> Mapping[str, LabelState] | None:
    """What is known of the 14 observations of a study; None where nothing is: no report, and no label."""
    told = study.findings.strip() or any(state is not LabelState.BLANK for state in study.labels.values())
    return study.labels if source.has_labels and told else None


def images(case: Case) -> tuple[StudyImage, ...]:
    """The images that can be shown with a case: the one that models read, others, earlier ones."""
    return sources.source(case.source).images(case.study.study_id)


def other_image(case: Case, image_id: str) -> Radiograph:
    """Another image of a case.

    Raises:
        CXRLensError: it is gone, or cannot be read.
    """
    source = sources.source(case.source)
    if isinstance(source, UploadSource):  # of one session: never kept for others
        return source.original(case.study.study_id, image_id)
    return _other(sources.content_key(source), case.study.study_id, image_id, source)


@st.cache_resource(max_entries=3, show_spinner="Opening the image …")
def _other(key: str, study_id: str, image_id: str, _source: Source) -> Radiograph:
    return _source.original(study_id, image_id)


# ------------------------------------------------------------------------------------------------------------ uploads


def open_upload(content: bytes, name: str) -> Case:
    """Open an uploaded PNG, JPEG or DICOM file.

    Raises:
        CXRLensError: it is not a radiograph that we can read; the message says why.
    """
    return _open(UploadSource({name: read_image(content, name=name)}), sources.UPLOAD, name)


# ----------------------------------------------------------------------------------------------------------- any case


def pixels(case: Case) -> Pixels:
    """The image of a case as any pair is given it: what is computed drawn at the pair's size, a file as it was read."""
    if not case.synthetic:
        return of_image(case.pixels)
    source = sources.source(case.source)
    key, study_id = sources.content_key(source), case.study.study_id
    return lambda size, fit=PAD: _drawn(key, study_id, size, source)


@st.cache_resource(max_entries=64, show_spinner=False)
def _drawn(key: str, study_id: str, size: int, _source: Source) -> FloatImage:
    return _source.for_model(study_id, size)


def family_for(case: Case) -> str:
    """The family of bundles that fits a case: that of its source."""
    return bundles.family_for(sources.source(case.source))


def unlike(case: Case, family: str) -> str:
    """What to say where the models of a family learned from other images than this one; "" where they fit."""
    if bundles.synthetic(family) == case.synthetic or bundles.elsewhere(family):
        return ""
    if case.synthetic:
        return "These models learned from real X-rays. This X-ray is synthetic: expect poor reports."
    return "These models learned from synthetic X-rays only. On a real X-ray their reports mean nothing."


def view_notes(case: Case) -> list[str]:
    """What to say where the models that fit a case learned from no such view, unless its file's reader says it."""
    if any("lateral view" in each for each in case.warnings):
        return []
    notes = (lateral_note(case.view, card.trained_with) for card in bundles.cards(family_for(case)).values())
    return list(dict.fromkeys(note for note in notes if note))


def main_cluster(study: Study) -> str:
    """The cluster of a study's only finding, "No Finding", or "Several"; support devices count only where alone."""
    found = list(dict.fromkeys(CLUSTER_OF[name] for name in findings(study.labels)))
    found = [name for name in found if name != SUPPORT_DEVICES] or found
    return NO_FINDING if not found else found[0] if len(found) == 1 else "Several"


def thumbnails(study_ids: Sequence[str], source_name: str | None = None) -> list[bytes | None]:
    """Small JPEGs of studies; None where an image is gone or cannot be read."""
    source = sources.source(source_name)
    draw = _jpeg if isinstance(source, UploadSource) else _thumbnail
    key, found = sources.content_key(source), list[bytes | None]()
    for study_id in study_ids:
        try:
            found.append(draw(key, study_id, source))
        except CXRLensError:
            found.append(None)
    return found


@st.cache_data(max_entries=4000, show_spinner=False)
def _thumbnail(key: str, study_id: str, _source: Source) -> bytes:
    return _jpeg(key, study_id, _source)


def _jpeg(key: str, study_id: str, source: Source) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(grey_levels(source.image(study_id, THUMBNAIL))).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
