"""The only door from the pages to core, and the only caches.

Cache keys are names, hashes and numbers. Models are shared by all sessions, so one lock guards inference.
"""

from __future__ import annotations

import gc
import hashlib
import json
import math
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import Card, no_bundle
from core.bundles.library import BundleLibrary
from core.bundles.rounding import SCALE, restored
from core.labels.compare import Outcome, compare
from core.labels.rules import LabeledReport, label_report
from core.observations import CLUSTER_OF, CLUSTERS, NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES, findings
from core.projection.job import ProjectionJob, compute, content_key, fingerprint, load
from core.projection.methods import PrincipalAxes, ProjectionConfig, fit_pca
from core.registry import DECODERS, ENCODERS, all_pairs, pair_title, token_names
from core.studies.images import Radiograph, read_image
from core.studies.model_image import Pixels, grey_levels, of_image, of_study
from core.studies.phantom import PhantomSource
from core.studies.phantom.findings import severity_of
from core.types import CXRLensError, FloatImage, Mask, Projection, Report, Study
from core.views import lateral_note
from dashboard import settings
from dashboard.reviews import access

if TYPE_CHECKING:
    from core.bundles.pair import ReportModel

# Read when torch is first imported, which is later and not here: see `settings.threads`.
os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads()))

VIEW_SIZE = 640  # pixels of a phantom in the viewer; the models get their own size
PHANTOM = "phantom"
KEPT_BACK = "You read study {} in a review session; it is kept from you here until the session is closed."
MAX_REPORTS = 5_000  # kept in memory; a few kilobytes each


@dataclass(frozen=True, slots=True)
class Case:
    """What is open on the page: a phantom study or an uploaded image.

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


@dataclass(frozen=True, slots=True)
class Reading:
    """A generated report with what it says.

    Attributes:
        card: of the bundle that wrote it.
        report: text, words and attention.
        labels: of the text.
        outcomes: by observation, against the reference; None without one.
    """

    card: Card
    report: Report
    labels: LabeledReport
    outcomes: Mapping[str, Outcome] | None


# ---------------------------------------------------------------------------------------------------------- bundles


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """The bundles of a folder as they were when it was last changed.

    ``broken`` fills as bundles fail to load, ``kept`` has those that garbage collection passes over.
    """

    library: BundleLibrary
    cards: Mapping[str, Mapping[tuple[str, str], Card]]  # by family
    problems: Mapping[str, str]
    broken: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)


def _catalogue() -> _Catalogue:
    folder = str(settings.bundles())
    catalogue: _Catalogue = _read_catalogue(folder, _stamp(folder))
    return catalogue


@st.cache_data(ttl=2, max_entries=8, show_spinner=False)  # a page asks ten times while it draws
def _stamp(folder: str) -> str:
    """Changes with any file of a folder."""
    files = sorted(path for path in Path(folder).glob("**/*") if path.is_file())
    return hashlib.sha256(repr([(str(path), path.stat().st_mtime_ns) for path in files]).encode()).hexdigest()


@st.cache_resource(max_entries=1, show_spinner=False)
def _read_catalogue(folder: str, stamp: str) -> _Catalogue:
    library = BundleLibrary(Path(folder))
    problems = library.problems()
    found = {(card.family, card.encoder, card.decoder): card for card in library.cards() if card.name not in problems}
    families = sorted({family for family, *_ in found}, key=lambda family: (family != PHANTOM, family))
    cards = {
        family: {pair: found[family, *pair] for pair in all_pairs() if (family, *pair) in found} for family in families
    }
    if not cards and not problems:
        problems["No bundles"] = str(no_bundle(Path(folder)))
    return _Catalogue(library, cards, problems)


def families() -> tuple[str, ...]:
    """Families of usable bundles, each trained on one source of studies; phantoms first."""
    return tuple(_catalogue().cards)


def family_title(family: str) -> str:
    """What a family learned from, for the reader."""
    return {PHANTOM: "phantoms", "openi": "Open-i", "mimic-cxr": "MIMIC-CXR"}.get(family, family)


def family_for(case: Case) -> str:
    """The family that fits a case: phantoms for a phantom, real radiographs for an upload, where there are such."""
    fitting = [family for family in families() if (family == PHANTOM) == (case.study is not None)]
    return next(iter([*fitting, *families()]), PHANTOM)


def view_notes(case: Case) -> list[str]:
    """What to say where the models that fit a study learned from no such view; of a file, its reader says it."""
    if case.study is None:
        return []
    notes = (lateral_note(case.view, card.trained_with) for card in cards(family_for(case)).values())
    return list(dict.fromkeys(note for note in notes if note))


def cards(family: str | None = None) -> Mapping[tuple[str, str], Card]:
    """Usable bundles of a family, the first unless named, by (encoder, decoder), in the order of the registry."""
    known = _catalogue().cards
    return known.get(next(iter(known), PHANTOM) if family is None else family, {})


def title_of(card: Card) -> str:
    """Of a pair, for the reader."""
    return pair_title(card.encoder, card.decoder)


def mixed_data(family: str = PHANTOM) -> str:
    """What to say where bundles of one family learned from different studies; "" where all learned from the same."""
    of: dict[str, list[str]] = {}
    for card in cards(family).values():
        of.setdefault(str(card.data.get("fingerprint", "")), []).append(title_of(card))
    if len(of) < 2:
        return ""
    told = "; ".join(f"{', '.join(names)} (data {fingerprint or 'not recorded'})" for fingerprint, names in of.items())
    return (
        f"These bundles learned from different studies: {told}. What is held out for one may have been learned by "
        "another, so their maps, reports and scores cannot be compared."
    )


def problems() -> Mapping[str, str]:
    """Message of each bundle that cannot be used, by name; one entry if there is no bundle at all."""
    return _catalogue().problems


@st.cache_resource(show_spinner=False)
def _inference_lock() -> threading.Lock:
    return threading.Lock()


@contextmanager
def inference() -> Iterator[None]:
    """Hold the lock that guards the shared models."""
    with _inference_lock():
        yield


def library_cards() -> list[Card]:
    """Cards of all usable bundles, of every family."""
    catalogue = _catalogue()
    return [card for card in catalogue.library.cards() if card.name not in catalogue.problems]


def load_models(names: Sequence[str]) -> list[ReportModel]:
    """Load bundles by name, in this order.

    Raises:
        CXRLensError: one is not there, or is damaged.
    """
    by_name = {card.name: card for card in library_cards()}
    if missing := [name for name in names if name not in by_name]:
        raise CXRLensError(f"There is no usable bundle {', '.join(missing)} in {settings.bundles()}.")
    with inference():
        return [open_model(by_name[name]) for name in names]


def open_model(card: Card) -> ReportModel:
    """Load a bundle.

    Raises:
        CXRLensError: it is damaged.
    """
    catalogue = _catalogue()
    if card.name in catalogue.broken:  # hashing it again would take seconds, at every click
        raise CXRLensError(catalogue.broken[card.name])
    try:
        return catalogue.library.load(card.name)
    except CXRLensError as error:
        catalogue.broken[card.name] = str(error)
        raise


@contextmanager
def model_in_use(name: str) -> Iterator[ReportModel]:
    """A bundle by its name; nobody else uses a model meanwhile.

    Raises:
        CXRLensError: it is not there, or damaged.
    """
    with _inference_lock():
        yield _catalogue().library.load(name)


def _models(chosen: Sequence[Card]) -> tuple[list[ReportModel], dict[str, str]]:
    """Load bundles; those that cannot be loaded come back as name -> message."""
    models, broken = [], {}
    for card in chosen:
        try:
            models.append(open_model(card))
        except CXRLensError as error:
            broken[card.name] = str(error)
    kept = _catalogue().kept
    if not kept.issuperset(model.card.name for model in models):
        kept.update(model.card.name for model in models)
        # Python's own collections, which come while reports are written, would look through all parts of all models
        # each time, and nobody is served meanwhile. Streamlit's, after every run, is off (.streamlit/config.toml).
        gc.collect()
        gc.freeze()
    return models, broken


# ---------------------------------------------------------------------------------------------------------- studies


@st.cache_resource(max_entries=2, show_spinner=False)
def _phantoms(count: int, seed: int) -> PhantomSource:
    return PhantomSource(count=count, seed=seed)


def phantom_numbers() -> tuple[int, int]:
    """Count and seed of the phantoms the bundles were trained on, so that the test split really was held out."""
    for card in cards(PHANTOM).values():
        if card.data.get("name") == PHANTOM and "count" in card.data and "seed" in card.data:
            return int(card.data["count"]), int(card.data["seed"])
    return 2000, 0


def all_studies() -> Mapping[str, Study]:
    """Phantom studies of the test split, by id: for numbers over all of them. What is shown comes from `studies`."""
    found: Mapping[str, Study] = _studies(*phantom_numbers())
    return found


def studies() -> Mapping[str, Study]:
    """Phantom studies of the test split that whoever looks may see, by id; see `kept_back`."""
    found, hidden = all_studies(), kept_back()
    return {name: study for name, study in found.items() if name not in hidden} if hidden else found


def kept_back() -> frozenset[str]:
    """Ids of the studies, of any data, that whoever looks reads in an open session: their reports are told nowhere.

    Ends the page, with the reason, where that user may not use this server any more.
    """
    try:
        return access.kept_back()
    except access.AccessError as error:
        access.explain(error)
        st.stop()
        raise


@st.cache_resource(max_entries=2, show_spinner="Preparing the phantom studies …")
def _studies(count: int, seed: int) -> Mapping[str, Study]:
    return {study.study_id: study for study in _phantoms(count, seed).studies("test")}


def worst_severity(study_id: str) -> str:
    """How bad the worst abnormality of a phantom study is: a word, "no abnormality" where there is none."""
    extents = [fact.extent for fact in _phantoms(*phantom_numbers()).facts(study_id)]
    return severity_of("", max(extents)) if extents else "no abnormality"


def phantom_case(study_id: str) -> Case:
    """Open a phantom study.

    Raises:
        CXRLensError: whoever looks reads it in an open session.
    """
    if study_id in kept_back():
        raise CXRLensError(KEPT_BACK.format(study_id))
    case: Case = _phantom_case(study_id, *phantom_numbers())
    return case


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
    )


def open_upload(content: bytes, name: str) -> Radiograph:
    """Read an uploaded PNG, JPEG or DICOM file.

    Raises:
        CXRLensError: it is not a radiograph that we can read; the message says why.
    """
    return read_image(content, name=name)


def upload_case(radiograph: Radiograph, name: str) -> Case:
    """Open an uploaded image."""
    return Case(
        key=f"upload-{radiograph.sha256}",
        title=name,
        pixels=radiograph.pixels,
        bits=radiograph.bits,
        spacing=radiograph.pixel_spacing,
        view=radiograph.view,
        warnings=tuple(radiograph.warnings),
    )


def pixels(case: Case) -> Pixels:
    """The image of a case as any pair is given it: a phantom drawn at the pair's size, an upload as it was read."""
    if case.study is None:
        return of_image(case.pixels)
    study_id, numbers = case.study.study_id, phantom_numbers()
    return lambda size: _phantom_pixels(study_id, size, *numbers)


@st.cache_resource(max_entries=64, show_spinner=False)
def _phantom_pixels(study_id: str, size: int, count: int, seed: int) -> FloatImage:
    return of_study(_phantoms(count, seed), study_id)(size)


# ---------------------------------------------------------------------------------------------------------- reports


def bundle_key(card: Card) -> str:
    """Names a bundle and its content."""
    hashes = json.dumps([card.content.get("sha256"), card.content.get("encoder")], sort_keys=True)
    return f"{card.name}-{hashlib.sha256(hashes.encode()).hexdigest()[:16]}"


@st.cache_resource(show_spinner=False)
def _written() -> OrderedDict[tuple[str, str], Report]:
    """Reports by (image, bundle with its content); the least recently used go first."""
    return OrderedDict()


def written(case: Case, chosen: Sequence[Card]) -> dict[str, Reading | str]:
    """Readings that are there already, and messages of broken bundles, by the bundle's name."""
    reports, broken = _written(), _catalogue().broken
    found: dict[str, Reading | str] = {}
    for card in chosen:
        report = reports.get((case.key, bundle_key(card)))
        if report is not None:
            found[card.name] = _reading(case, card, report)
        elif card.name in broken:
            found[card.name] = broken[card.name]
    return found


def read(case: Case, chosen: Sequence[Card]) -> Iterator[tuple[str, Reading | str]]:
    """Write the reports of the chosen bundles, all of one family, those already written first.

    Yields:
        bundle name and its reading, or a message if the bundle is broken.
    """
    written, lock = _written(), _inference_lock()
    missing = []
    for card in chosen:
        key = (case.key, bundle_key(card))
        report = written.get(key)
        if report is None:
            missing.append(card)
        else:
            written.move_to_end(key)
            yield card.name, _reading(case, card, report)
    if not missing:
        return

    from core.bundles.inference import write_reports  # brings torch; pages without inference stay quick

    by_name = {card.name: card for card in missing}
    with lock:
        models, broken = _models(missing)
    yield from broken.items()
    reports = write_reports(models, pixels(case)) if models else iter(())
    while True:
        with lock:  # a step at a time: a reader who leaves the page must not keep the lock
            step = next(reports, None)
        if step is None:
            return
        name, report = step
        written[(case.key, bundle_key(by_name[name]))] = report
        while len(written) > MAX_REPORTS:
            written.popitem(last=False)
        yield name, _reading(case, by_name[name], report)


def _reading(case: Case, card: Card, report: Report) -> Reading:
    labels = label(report.text)
    outcomes = None if case.study is None else compare(case.study.labels, labels.states)
    return Reading(card=card, report=report, labels=labels, outcomes=outcomes)


@st.cache_resource(max_entries=MAX_REPORTS, show_spinner=False)
def label(text: str) -> LabeledReport:
    """What a report says, by rules."""
    return label_report(text)


# ---------------------------------------------------------------------------------------------------- explanations


def ccve_card(family: str | None = None) -> Card | None:
    """The bundle whose filters are shown: the family's first CCVE pair that reports cls-attention."""
    return next((card for (encoder, _), card in cards(family).items() if token_names(encoder)), None)


def filtered(case: Case, card: Card) -> npt.NDArray[np.float32]:
    """CCVE's 13 filtered images, (13, H, W), each scaled to [0, 1]."""
    images: npt.NDArray[np.float32] = _filtered(bundle_key(card), case.key, card, case)
    return images


@st.cache_resource(max_entries=32, show_spinner=False)
def _filtered(bundle: str, image: str, _card: Card, _case: Case) -> npt.NDArray[np.float32]:
    from core.bundles.inference import filtered_images

    with _inference_lock():
        model = open_model(_card)
        return filtered_images(model, pixels(_case)(model.image_size))


# -------------------------------------------------------------------------------------------------------- embeddings


POOLED, TEXT, TOKENS, RANDOM, JOINED, STATES = "pooled", "text", "tokens", "random_filters", "joined", "states"
AREAS = tuple(f"{row} {column}" for row in ("upper", "middle", "lower") for column in ("left", "centre", "right"))
"""Parts of the image, as it is shown, that a token of a grid stands in."""
MOST_JOBS = 2
"""Maps that are computed at once, of all sessions."""
IN_PROCESS = 2_000_000
"""Numbers of a table whose principal components take no process of their own: a fraction of a second."""


@dataclass(frozen=True, slots=True)
class Map:
    """Studies as an encoder sees them, on a plane.

    Attributes:
        study_ids: of the points.
        points: (n, 2), the first two principal components.
        here: (2,), the open case, or None.
        explained: share of the variance on each axis.
    """

    study_ids: tuple[str, ...]
    points: npt.NDArray[np.float32]
    here: npt.NDArray[np.float32] | None
    explained: tuple[float, float]


@dataclass(frozen=True)
class Embeddings:
    """Stored embeddings, a row a point.

    Attributes:
        encoder: key in the registry.
        kind: see `embedding_kinds`.
        study_ids: n.
        parts: n, what of the study a point is: the cluster of a filter of CCVE, or one of `AREAS`; empty where a study
            is one point.
        features: (n, D).
    """

    encoder: str
    kind: str
    study_ids: tuple[str, ...]
    parts: tuple[str, ...]
    features: npt.NDArray[np.float32]

    @cached_property
    def fingerprint(self) -> str:
        """Of the features: hashing thousands of studies at every click would take a tenth of a second each time."""
        return fingerprint(self.features)


def point_is(encoder: str, kind: str) -> Literal["study", "filter", "area"]:
    """What a point of a kind of embeddings is: a study, or a study through one filter of CCVE, or in one area."""
    if not _is_single(kind):
        return "study"
    return "filter" if token_names(encoder) else "area"


def _is_single(kind: str) -> bool:
    """Are these tokens one by one, (m, N, D), and not a row a study?"""
    return kind.split(".")[0] in (TOKENS, RANDOM)


def embedding_kinds(encoder: str) -> dict[str, str]:
    """What is stored of an encoder, or follows from it: key -> title for the reader.

    Raises:
        CXRLensError: nothing is stored, or the file is damaged.
    """
    stored = _read_embeddings(*_embeddings_file(encoder))[1]
    titles = {POOLED: "All tokens, averaged"}
    if token_names(encoder):
        titles |= {
            TOKENS: "Each filter a point",
            RANDOM: "Each filter a point, filters untrained (control)",
            JOINED: "All tokens, one after another",
        }
    titles |= {
        key: f"Tokens of {key.partition('.')[2]}, averaged" for key in sorted(stored) if key.startswith("pooled.")
    }
    for key in sorted(stored):
        if point_is(encoder, key) == "area":
            of = f" of {key.partition('.')[2]}" if "." in key else ""
            titles[key] = f"Each token{of} a point ({len(stored[key])} studies)"
    titles[TEXT] = "Impressions (CLIP's text tower)"
    for decoder, spec in DECODERS.items():
        titles[f"{STATES}.{decoder}"] = f"States of {spec.title}, averaged over its report"
    there = {*stored, *([JOINED] if TOKENS in stored else [])}
    return {key: title for key, title in titles.items() if key in there}


def embeddings(encoder: str, kind: str) -> Embeddings:
    """Stored embeddings of an encoder.

    Raises:
        CXRLensError: they are not stored, or the file is damaged.
    """
    found: Embeddings = _embeddings(encoder, kind, *_embeddings_file(encoder))
    return found


@st.cache_resource(max_entries=16, show_spinner=False)
def _embeddings(encoder: str, kind: str, path: str, stamp: int) -> Embeddings:
    study_ids, stored = _read_embeddings(path, stamp)
    key = TOKENS if kind == JOINED else kind
    if key not in stored:
        raise CXRLensError(f"{ENCODERS[encoder].title}'s stored embeddings have no '{kind}'. {EXPORT}")
    values = stored[key]
    study_ids = study_ids[: len(values)]
    if values.ndim == 2:
        return Embeddings(encoder, kind, study_ids, (), values)
    if kind == JOINED:
        return Embeddings(encoder, kind, study_ids, (), values.reshape(len(values), -1))
    parts = token_names(encoder) if point_is(encoder, kind) == "filter" else _areas(math.isqrt(values.shape[1]))
    ids = tuple(np.repeat(study_ids, values.shape[1]).tolist())
    return Embeddings(encoder, kind, ids, parts * len(values), values.reshape(-1, values.shape[2]))


def _areas(side: int) -> tuple[str, ...]:
    """The area of each cell of a square grid, in its order: row by row."""
    third = [int(3 * (cell + 0.5) / side) for cell in range(side)]
    return tuple(AREAS[3 * row + column] for row in third for column in third)


EXPORT = "`cxr-lens train --preset phantom` writes them."


def encoders_with_embeddings() -> list[str]:
    """Encoders whose embeddings are stored; all of them where none is, so that the page can say what is missing."""
    return [encoder for encoder in ENCODERS if _embeddings_path(encoder).is_file()] or list(ENCODERS)


def _embeddings_path(encoder: str) -> Path:
    return settings.bundles() / f"{PHANTOM}-embeddings-{encoder}.safetensors"


def _embeddings_file(encoder: str) -> tuple[str, int]:
    """Where an encoder's embeddings are stored, and when they were changed."""
    path = _embeddings_path(encoder)
    if not path.is_file():
        raise CXRLensError(
            f"No stored embeddings of {ENCODERS[encoder].title}: {path.name} is missing in {path.parent}. {EXPORT}"
        )
    return str(path), path.stat().st_mtime_ns


@st.cache_resource(max_entries=8, show_spinner=False)
def _read_embeddings(path: str, stamp: int) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.float32]]]:
    """Study ids, and the tensors by name: (n, D), or (m, N, D) single tokens of the first m studies."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            stored = {
                key: np.asarray(file.get_tensor(key), dtype=np.float32)
                for key in file.keys()  # noqa: SIM118 - not a mapping
            }
            tensors = {key: restored(stored, key) for key in stored if not key.endswith(SCALE)}
            study_ids = tuple(json.loads((file.metadata() or {})["study_ids"]))
        for key, values in tensors.items():
            single = _is_single(key)
            whole = len(values) == len(study_ids) if not single else 0 < len(values) <= len(study_ids)
            if values.ndim != 2 + single or not whole:
                raise ValueError(f"'{key}' has shape {values.shape} for {len(study_ids)} studies")
            if single and values.shape[1] != len(CLUSTERS) and math.isqrt(values.shape[1]) ** 2 != values.shape[1]:
                raise ValueError(f"'{key}' has {values.shape[1]} tokens a study, neither 13 filters nor a square grid")
        if POOLED not in tensors:
            raise ValueError(f"it has no '{POOLED}'")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CXRLensError(f"{Path(path).name} is damaged ({error}). Restore it or train again.") from error
    return study_ids, tensors


def embedding_map(encoder: str, case: Case | None) -> Map:
    """Place the demo studies and the open case on the principal components of the demo studies.

    Raises:
        CXRLensError: there are no stored embeddings of this encoder, or they are damaged.
    """
    stored = embeddings(encoder, POOLED)
    axes, points = _principal(f"{encoder}-{_stamp(str(settings.bundles()))}", stored)
    here = None
    if case is not None:
        if case.title in stored.study_ids:
            here = points[stored.study_ids.index(case.title)]
        else:
            here = axes.place(_pooled(encoder, case))
    return Map(stored.study_ids, points, here, (float(axes.shares[0]), float(axes.shares[1])))


@st.cache_resource(max_entries=8, show_spinner=False)
def _principal(key: str, _stored: Embeddings) -> tuple[PrincipalAxes, npt.NDArray[np.float32]]:
    axes = fit_pca(_stored.features, 2)
    return axes, axes.place(_stored.features)


def _pooled_like(stored: Embeddings, case: Case) -> npt.NDArray[np.float32]:
    """A case's embedding, to be compared with the stored ones."""
    found = _pooled(stored.encoder, case)
    if found.shape != stored.features.shape[1:]:
        raise CXRLensError(
            f"{ENCODERS[stored.encoder].title}'s bundle makes embeddings of {len(found)} features, the stored ones "
            f"have {stored.features.shape[1]}: they are of another bundle. {EXPORT}"
        )
    return found


def _pooled(encoder: str, case: Case) -> npt.NDArray[np.float32]:
    card = next((card for (name, _), card in cards().items() if name == encoder), None)
    if card is None:
        raise CXRLensError(f"No bundle with {ENCODERS[encoder].title} can be read.")
    pooled: npt.NDArray[np.float32] = _pooled_of(bundle_key(card), case.key, card, case)
    return pooled


@st.cache_resource(max_entries=256, show_spinner=False)
def _pooled_of(bundle: str, image: str, _card: Card, _case: Case) -> npt.NDArray[np.float32]:
    from core.bundles.inference import pooled_embedding

    with _inference_lock():
        model = open_model(_card)
        return pooled_embedding(model, pixels(_case)(model.image_size))


@st.cache_resource(show_spinner=False)
def _jobs() -> dict[str, ProjectionJob]:
    """Maps that are computed, or whose computing failed or was cancelled, by content."""
    return {}


@st.cache_resource(show_spinner=False)
def _placed() -> OrderedDict[str, Projection]:
    """Maps that were read from disk, by content; the least recently used go first."""
    return OrderedDict()


def projection(
    stored: Embeddings, config: ProjectionConfig, new: npt.NDArray[np.float32] | None = None
) -> Projection | ProjectionJob | None:
    """A map of stored embeddings, or ``new`` points (m, D) placed into it.

    Returns:
        The map; the job that computes it; None while other maps are computed.

    Raises:
        CXRLensError: there is no such map, or its job failed or was cancelled: see `forget_job`.
    """
    key = content_key(stored.fingerprint, config, new)
    found = _placed().get(key) or load(key)
    if found is not None:
        _placed()[key] = found
        while len(_placed()) > 64:
            _placed().popitem(last=False)
        return found
    job = _jobs().get(key)
    if job is None:
        if config.method == "PCA" and stored.features.size <= IN_PROCESS:
            return compute(stored.features, config, new)
        if busy():
            return None
        job = _jobs()[key] = ProjectionJob(stored.features, config, new)
    if not job.done():
        return job
    found = job.result()  # raises, and goes on raising, until the job is forgotten
    _jobs().pop(key, None)
    return found


def busy() -> bool:
    """Are as many maps being computed as may be at once?"""
    return sum(not each.done() for each in list(_jobs().values())) >= MOST_JOBS


def failed(stored: Embeddings, config: ProjectionConfig) -> bool:
    """Did the job of a map fail, or was it cancelled?"""
    job = _jobs().get(content_key(stored.fingerprint, config))
    return job is not None and job.done()


def forget_jobs() -> None:
    """Let maps that failed or were cancelled be computed again."""
    for key, job in list(_jobs().items()):
        if job.done():
            _jobs().pop(key, None)


def place_case(stored: Embeddings, config: ProjectionConfig, case: Case) -> Projection | ProjectionJob | None:
    """Place a case that is not among the stored studies into their map; see `projection`.

    Raises:
        CXRLensError: also if no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    return projection(stored, config, _pooled_like(stored, case)[None])


@dataclass(frozen=True, slots=True)
class MapQuality:
    """Numbers beside a map.

    Attributes:
        by_observation: (observation, its studies, neighbourhood hit on the map, its share of all points).
        on_map: silhouette on the map, by part of the study where points are parts, else by main cluster; None where all
            are one.
        before: the same in the embedding itself.
    """

    by_observation: tuple[tuple[str, int, float, float], ...]
    on_map: float | None
    before: float | None


def map_quality(stored: Embeddings, placed: Projection) -> MapQuality:
    """How far a map can be trusted; trustworthiness is in its parameters."""
    key = hashlib.sha256(placed.coordinates.tobytes()).hexdigest()
    measured: MapQuality = _map_quality(f"{stored.encoder}-{stored.kind}-{key}", stored, placed)
    return measured


@st.cache_resource(max_entries=64, show_spinner=False)
def _map_quality(key: str, _stored: Embeddings, _placed_map: Projection) -> MapQuality:
    from core.projection.quality import nearest, neighbourhood_hit, silhouette

    known = all_studies()
    rows = [place for place, study_id in enumerate(_stored.study_ids) if study_id in known]
    points, features = _placed_map.coordinates[rows], _stored.features[rows]
    found = [set(findings(known[_stored.study_ids[row]].labels)) for row in rows]
    hits = []
    if len(rows) > 1:
        neighbours = nearest(points, 10)
        for name in OBSERVATIONS:
            member = np.array([name in each or (name == NO_FINDING and not each) for each in found])
            hit = neighbourhood_hit(neighbours, member)
            if hit is not None:
                count = len({_stored.study_ids[rows[place]] for place in np.flatnonzero(member)})
                hits.append((name, count, hit, float(member.mean())))
    if _stored.parts:
        groups = [_stored.parts[row] for row in rows]
    else:
        groups = [main_cluster(known[_stored.study_ids[row]]) for row in rows]
    return MapQuality(tuple(hits), silhouette(points, groups), silhouette(features, groups))


def main_cluster(study: Study) -> str:
    """The cluster of a study's only finding, "No Finding", or "Several"; support devices count only where alone."""
    found = list(dict.fromkeys(CLUSTER_OF[name] for name in findings(study.labels)))
    found = [name for name in found if name != SUPPORT_DEVICES] or found
    return NO_FINDING if not found else found[0] if len(found) == 1 else "Several"


def neighbours(stored: Embeddings, study_id: str, count: int) -> list[tuple[str, float]]:
    """The studies nearest to one in the embedding itself, with their distances; of several points, the means count."""
    ids = list(dict.fromkeys(stored.study_ids))
    if study_id not in ids:
        return []
    features = stored.features.reshape(len(ids), -1, stored.features.shape[1]).mean(1)
    return _nearest(ids, features, features[ids.index(study_id)], study_id, count)


def neighbours_of_case(stored: Embeddings, case: Case, count: int) -> list[tuple[str, float]]:
    """The stored studies nearest to a case that is not among them.

    Raises:
        CXRLensError: no bundle of the encoder can be read, or the stored embeddings are of another one.
    """
    return _nearest(list(stored.study_ids), stored.features, _pooled_like(stored, case), case.title, count)


def _nearest(
    ids: Sequence[str],
    features: npt.NDArray[np.float32],
    point: npt.NDArray[np.float32],
    own: str,
    count: int,
) -> list[tuple[str, float]]:
    distance = np.linalg.norm(features - point, axis=1)
    return [(ids[place], float(distance[place])) for place in distance.argsort(kind="stable") if ids[place] != own][
        :count
    ]


THUMBNAIL = 112  # pixels


def thumbnails(study_ids: Sequence[str]) -> list[bytes]:
    """Small JPEGs of phantom studies."""
    return [_thumbnail(study_id, *phantom_numbers()) for study_id in study_ids]


@st.cache_data(max_entries=4000, show_spinner=False)
def _thumbnail(study_id: str, count: int, seed: int) -> bytes:
    import io

    from PIL import Image

    source: PhantomSource = _phantoms(count, seed)
    picture = grey_levels(source.image(study_id, THUMBNAIL))
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
