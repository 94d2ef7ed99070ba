"""The only door from the pages to core, and the only caches.

Cache keys are names, hashes and numbers. Models are shared by all sessions, so one lock guards inference.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundle import BundleLibrary, Card
from core.images import Radiograph, read_image
from core.labels.compare import Outcome, compare
from core.labels.observations import LabelState
from core.labels.rules import LabeledReport, label_report
from core.registry import ENCODERS, PAIRS
from core.studies.phantom import PhantomSource
from core.types import CXRLensError, FloatImage, Mask, Report, Study
from dashboard import settings

if TYPE_CHECKING:
    from core.report_model import ReportModel

# Read when torch is first imported, which is later and not here: see `settings.threads`.
os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads()))

VIEW_SIZE = 640  # pixels of a phantom in the viewer; the models get their own size
MAX_REPORTS = 5_000  # kept in memory; a few kilobytes each


@dataclass(frozen=True, slots=True)
class Case:
    """What is open on the page: a phantom study or an uploaded image.

    Attributes:
        key: names the image and its content; part of every cache key.
        title: study id or file name.
        pixels: for the viewer, (H, W).
        bits: grey levels of the original are 2 ** bits.
        study: what is known beside the pixels; None for an upload.
        masks: abnormality in words -> its true place, (H, W); empty where the truth is unknown.
        warnings: of the file reader.
    """

    key: str
    title: str
    pixels: FloatImage
    bits: int
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
    """The bundles of a folder as they were when it was last changed; ``broken`` fills as bundles fail to load."""

    library: BundleLibrary
    cards: Mapping[tuple[str, str], Card]
    problems: Mapping[str, str]
    broken: dict[str, str] = field(default_factory=dict)


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
    found = {(card.encoder, card.decoder): card for card in library.cards() if card.name not in problems}
    cards = {pair: found[pair] for pair in PAIRS if pair in found}
    if not cards and not problems:
        problems["No bundles"] = (
            f"there is no model bundle in {folder}. Train the demo bundles with "
            "`cxr-lens train --preset phantom`, or set CXR_BUNDLES to a folder of bundles."
        )
    return _Catalogue(library, cards, problems)


def cards() -> Mapping[tuple[str, str], Card]:
    """Usable bundles by (encoder, decoder), in the order of the registry."""
    return _catalogue().cards


def problems() -> Mapping[str, str]:
    """Message of each bundle that cannot be used, by name; one entry if there is no bundle at all."""
    return _catalogue().problems


@st.cache_resource(show_spinner=False)
def _inference_lock() -> threading.Lock:
    return threading.Lock()


def _model(card: Card) -> ReportModel:
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


def _models(chosen: Sequence[Card]) -> tuple[list[ReportModel], dict[str, str]]:
    """Load bundles; those that cannot be loaded come back as name -> message."""
    models, broken = [], {}
    for card in chosen:
        try:
            models.append(_model(card))
        except CXRLensError as error:
            broken[card.name] = str(error)
    return models, broken


# ---------------------------------------------------------------------------------------------------------- studies


@st.cache_resource(max_entries=2, show_spinner=False)
def _phantoms(count: int, seed: int) -> PhantomSource:
    return PhantomSource(count=count, seed=seed)


def _phantom_numbers() -> tuple[int, int]:
    """Count and seed of the phantoms the bundles were trained on, so that the test split really was held out."""
    for card in cards().values():
        if "count" in card.data and "seed" in card.data:
            return int(card.data["count"]), int(card.data["seed"])
    return 2000, 0


def studies() -> Mapping[str, Study]:
    """Phantom studies of the test split, by id."""
    found: Mapping[str, Study] = _studies(*_phantom_numbers())
    return found


@st.cache_resource(max_entries=2, show_spinner="Preparing the phantom studies …")
def _studies(count: int, seed: int) -> Mapping[str, Study]:
    return {study.study_id: study for study in _phantoms(count, seed).studies("test")}


def phantom_case(study_id: str) -> Case:
    """Open a phantom study."""
    case: Case = _phantom_case(study_id, *_phantom_numbers())
    return case


@st.cache_resource(max_entries=24, show_spinner=False)
def _phantom_case(study_id: str, count: int, seed: int) -> Case:
    phantom = _phantoms(count, seed).phantom(study_id, VIEW_SIZE)
    return Case(
        key=f"phantom-{count}-{seed}-{study_id}",
        title=study_id,
        pixels=phantom.image,
        bits=12,
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
        warnings=tuple(radiograph.warnings),
    )


def _model_image(case: Case) -> FloatImage:
    """The image as the models should get it: a phantom drawn at their input size, an upload as it is."""
    if case.study is None:
        return case.pixels
    sizes = [ENCODERS[card.encoder].sizes[card.size].image_size for card in cards().values()]  # type: ignore[index]
    image: FloatImage = _phantom_image(case.study.study_id, max(sizes, default=128), *_phantom_numbers())
    return image


@st.cache_resource(max_entries=64, show_spinner=False)
def _phantom_image(study_id: str, size: int, count: int, seed: int) -> FloatImage:
    source: PhantomSource = _phantoms(count, seed)
    return source.image(study_id, size)


# ---------------------------------------------------------------------------------------------------------- reports


def _bundle_key(card: Card) -> str:
    """Names a bundle and its content."""
    hashes = json.dumps([card.content.get("sha256"), card.content.get("encoder")], sort_keys=True)
    return f"{card.name}-{hashlib.sha256(hashes.encode()).hexdigest()[:16]}"


@st.cache_resource(show_spinner=False)
def _written() -> OrderedDict[tuple[str, str], Report]:
    """Reports by (image, bundle with its content); the least recently used go first."""
    return OrderedDict()


def read(case: Case, chosen: Sequence[Card]) -> Iterator[tuple[str, Reading | str]]:
    """Write the reports of the chosen bundles, those already written first.

    Yields:
        bundle name and its reading, or a message if the bundle is broken.
    """
    written, lock = _written(), _inference_lock()
    missing = []
    for card in chosen:
        key = (case.key, _bundle_key(card))
        report = written.get(key)
        if report is None:
            missing.append(card)
        else:
            written.move_to_end(key)
            yield card.name, _reading(case, card, report)
    if not missing:
        return

    from core.inference import write_reports  # brings torch; pages without inference stay quick

    by_name = {card.name: card for card in missing}
    with lock:
        models, broken = _models(missing)
    yield from broken.items()
    reports = write_reports(models, _model_image(case)) if models else iter(())
    while True:
        with lock:  # a step at a time: a reader who leaves the page must not keep the lock
            step = next(reports, None)
        if step is None:
            return
        name, report = step
        written[(case.key, _bundle_key(by_name[name]))] = report
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


def ccve_card() -> Card | None:
    """The bundle whose filters are shown: the first CCVE pair that reports cls-attention."""
    return next((card for (encoder, _), card in cards().items() if encoder == "ccve"), None)


def filtered(case: Case, card: Card) -> npt.NDArray[np.float32]:
    """CCVE's 13 filtered images, (13, H, W), each scaled to [0, 1]."""
    images: npt.NDArray[np.float32] = _filtered(_bundle_key(card), case.key, card, case)
    return images


@st.cache_resource(max_entries=32, show_spinner=False)
def _filtered(bundle: str, image: str, _card: Card, _case: Case) -> npt.NDArray[np.float32]:
    from core.inference import filtered_images

    with _inference_lock():
        return filtered_images(_model(_card), _model_image(_case))


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


def embedding_map(encoder: str, case: Case | None) -> Map:
    """Place the demo studies and the open case on the principal components of the demo studies.

    Raises:
        CXRLensError: there are no stored embeddings of this encoder, or they are damaged.
    """
    path = settings.bundles() / f"embeddings-{encoder}.safetensors"
    if not path.is_file():
        raise CXRLensError(
            f"No stored embeddings of {ENCODERS[encoder].title}: {path.name} is missing in {path.parent}. "
            "`cxr-lens train --preset phantom` writes it."
        )
    study_ids, points, mean, axes, explained = _principal(str(path), path.stat().st_mtime_ns)
    here = None
    if case is not None:
        if case.title in study_ids:
            here = points[study_ids.index(case.title)]
        else:
            here = (_pooled(encoder, case) - mean) @ axes
    return Map(study_ids=study_ids, points=points, here=here, explained=explained)


def _pooled(encoder: str, case: Case) -> npt.NDArray[np.float32]:
    card = next((card for (name, _), card in cards().items() if name == encoder), None)
    if card is None:
        raise CXRLensError(f"No bundle with {ENCODERS[encoder].title} can be read.")
    pooled: npt.NDArray[np.float32] = _pooled_of(_bundle_key(card), case.key, card, case)
    return pooled


@st.cache_resource(max_entries=256, show_spinner=False)
def _pooled_of(bundle: str, image: str, _card: Card, _case: Case) -> npt.NDArray[np.float32]:
    from core.inference import pooled_embedding

    with _inference_lock():
        return pooled_embedding(_model(_card), _model_image(_case))


@st.cache_resource(max_entries=8, show_spinner=False)
def _principal(
    path: str, stamp: int
) -> tuple[
    tuple[str, ...],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    npt.NDArray[np.float32],
    tuple[float, float],
]:
    """Study ids, points (n, 2), mean (D,), axes (D, 2) and explained variance of stored embeddings."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            pooled = np.asarray(file.get_tensor("pooled"), dtype=np.float64)
            study_ids = tuple(json.loads((file.metadata() or {})["study_ids"]))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise CXRLensError(f"{Path(path).name} is damaged ({error}). Restore it or train again.") from error
    mean = pooled.mean(axis=0)
    _, scale, axes = np.linalg.svd(pooled - mean, full_matrices=False)
    share = scale**2 / max(float((scale**2).sum()), 1e-12)
    plane = axes[:2].T
    plane = plane * np.sign(plane[np.abs(plane).argmax(axis=0), [0, 1]])  # a sign that does not change with the library
    points = ((pooled - mean) @ plane).astype(np.float32)
    return (
        study_ids,
        points,
        mean.astype(np.float32),
        plane.astype(np.float32),
        (float(share[0]), float(share[1])),
    )


# ---------------------------------------------------------------------------------------------------------- results


def results() -> dict[str, Any]:
    """Evaluation table of the bundles.

    Raises:
        CXRLensError: it is missing or damaged.
    """
    path = settings.bundles() / "results.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content["rows"], list):
            raise ValueError("'rows' is not a list")
    except FileNotFoundError:
        raise CXRLensError(
            f"No evaluation yet: {path} is missing. `cxr-lens evaluate --preset phantom` writes it."
        ) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CXRLensError(
            f"{path} is damaged ({error}). Write it again with `cxr-lens evaluate --preset phantom`."
        ) from error
    return dict(content)


def paper_table() -> dict[tuple[str, str], dict[str, float]]:
    """Table 1 of the paper by (encoder, decoder); empty if the file is not there."""
    path = settings.paper_tables() / "table1.csv"
    if not path.is_file():
        return {}
    table = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            decoder = {"rnn_rnn": "cnn_rnn_rnn"}.get(row["decoder"].lower(), row["decoder"].lower())
            scores = {name: float(value) for name, value in row.items() if name not in ("decoder", "encoder")}
            table[row["encoder"].lower(), decoder] = scores
    return table


def findings_of(study: Study) -> list[str]:
    """Observations a study's reference calls positive or uncertain, "No Finding" left out."""
    return [
        name
        for name, state in study.labels.items()
        if state in (LabelState.POSITIVE, LabelState.UNCERTAIN) and name != "No Finding"
    ]
