"""How well a family's gate tells what is no upright frontal chest film from held-out films that are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from core.bundles.gates import gate_key
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_batch, to_batch
from core.gate.gate import Gate, Scores
from core.studies.images import ImageError, read_image
from core.types import CXRLensError, FloatImage
from training.console import note, progress_bar
from training.data import StudyData
from training.run_folder import StageError

SIDE = 256
"""Of pictures that are made here, pixels."""
HELD_OUT = "held-out films"
TURNED: Mapping[str, tuple[Callable[[FloatImage], FloatImage], str]] = {
    "turned by 90 degrees": (lambda image: np.rot90(image), "90 degrees"),
    "turned by 270 degrees": (lambda image: np.rot90(image, 3), "90 degrees"),
    "upside down": (lambda image: np.rot90(image, 2), "upside down"),
    "inverted": (lambda image: 1 - image, "inverted"),
    "flipped, top to bottom": (lambda image: image[::-1], "top and bottom"),
    "mirrored": (lambda image: image[:, ::-1], "mirrored"),
}
"""What is done to films, and the word by which the right warning is known."""


def gate_study(
    library: BundleLibrary,
    family: str,
    data: StudyData,
    others: Path | None,
    count: int,
    seed: int,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Score all that should be noticed against held-out films.

    Args:
        library: of the bundles, with their gates.
        family: of them.
        data: studies; the test split is held out.
        others: a folder of chest films of another hospital; None leaves them out.
        count: images of each kind at most.
        seed: of noise and drawn pictures.
        names: of bundles whose encoders are measured; all of the family unless given.

    Returns:
        {"family", "studies", "encoders": encoder -> kind -> {"images", "auc", "warned", "named"}}: ROC-AUC against the
        held-out films, share with a warning, and share whose warning says what was done to them.

    Raises:
        CXRLensError: there is no bundle of the family, it has no gate, or there is no such folder.
    """
    cards = [card for card in library.cards() if card.family == family and (not names or card.name in names)]
    if not cards:
        raise StageError(
            f"{library.folder} has no bundle of the family '{family}'{' among those named' if names else ''}."
        )
    if others and not others.is_dir():
        raise CXRLensError(f"There is no folder {others}. Name one with chest films, or leave --films out.")
    kinds = _kinds(data, library.load(cards[0].name).image_size, others, count, seed)
    found: dict[str, Any] = {}
    done: set[str] = set()
    with progress_bar("encoder", "measuring") as tell:
        for place, card in enumerate(cards):
            tell(place, len(cards))
            if (key := gate_key(card)) in done:
                continue
            done.add(key)
            model = library.load(card.name)
            if not isinstance(model.check, Gate):
                raise CXRLensError(f"{card.name} has no gate. Make it first: cxr-lens gate --preset {family}")
            name = card.encoder if card.content["encoder"]["shared"] else f"{card.encoder} of {card.decoder}"
            found[name] = _rows(model, model.check, kinds)
        tell(len(cards), len(cards))
    return {"family": family, "studies": len(kinds[HELD_OUT]), "encoders": found}


def gate_markdown(study: Mapping[str, Any]) -> str:
    """The study as a table: kinds down, encoders across."""
    encoders = study["encoders"]
    first = next(iter(encoders.values()))
    heads = " | ".join(encoders)
    lines = [
        f"| {study['family']}: images | number | warning says what it is | {heads} |",
        "|---|---:|---:|" + "---:|" * len(encoders),
    ]
    for kind, row in first.items():
        cells = [
            f"{each[kind]['warned']:.1%}" + (f" ({each[kind]['auc']:.3f})" if kind != HELD_OUT else "")
            for each in encoders.values()
        ]
        named = "" if row["named"] is None else f"{row['named']:.1%}"
        lines.append(f"| {kind} | {row['images']} | {named} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", "Share of images with a warning (ROC-AUC of the score against held-out films)."])


def _rows(model: ReportModel, gate: Gate, kinds: Mapping[str, Sequence[FloatImage]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    usual: np.ndarray[Any, Any] = np.zeros(0)
    for kind, images in kinds.items():
        score, said = _judge(model, gate, images)
        usual = score if kind == HELD_OUT else usual
        word = next((word for name, (_, word) in TURNED.items() if kind.endswith(name)), "")
        truth = np.repeat([0, 1], [len(usual), len(score)])
        rows[kind] = {
            "images": len(images),
            "auc": float(roc_auc_score(truth, np.concatenate([usual, score]))),
            "warned": float(np.mean([bool(each) for each in said])),
            "named": float(np.mean([word in " ".join(each) for each in said])) if word else None,
        }
    return rows


def _judge(
    model: ReportModel, gate: Gate, images: Sequence[FloatImage]
) -> tuple[np.ndarray[Any, Any], list[tuple[str, ...]]]:
    """A score of each image, 1 where a warning begins, and what is said of it."""
    scores, said = [], list[tuple[str, ...]]()
    for start in range(0, len(images), 32):
        batch = to_batch(list(images[start : start + 32]), model.image_size, model.fit)
        tokens = encode_batch(model, batch).tokens
        scores.append(_worst(gate, gate.scores(batch, tokens)))
        said += gate.warnings(batch, tokens)
    return np.concatenate(scores), said


def _worst(gate: Gate, scores: Scores) -> np.ndarray[Any, Any]:
    """How far above the nearest of its limits an image is."""
    turns = tuple(name for name in scores.copies if name != "mirrored")
    parts = (
        gate.unlike(scores),
        scores.best_copy(*turns) / gate.limits.turned,
        scores.best_copy("mirrored") / gate.limits.mirrored,
    )
    found: np.ndarray[Any, Any] = np.max(parts, axis=0)
    return found


# -------------------------------------------------------------------------------------------------------------- images


def _kinds(data: StudyData, size: int, others: Path | None, count: int, seed: int) -> dict[str, list[FloatImage]]:
    """Images by what they are; the first are the usual ones, and drawn at a size where they are drawn."""
    ids = [study.study_id for study in data.studies["test"]]
    films = [data.source.for_model(study_id, size) for study_id in ids[:count]]
    kinds = {HELD_OUT: films}
    further = _read(sorted(others.iterdir()) if others else [], count)
    if further:
        kinds["films of another hospital"] = further
    if laterals := _laterals(data, ids, count):
        kinds["lateral views"] = laterals
    for name, (change, _) in TURNED.items():
        kinds[name] = [np.ascontiguousarray(change(image)) for image in films]
    for name, (change, _) in TURNED.items() if further else ():
        kinds[f"of another hospital, {name}"] = [np.ascontiguousarray(change(image)) for image in further]
    random = np.random.default_rng(seed)
    some = min(count, 100)
    kinds["white noise"] = [random.random((SIDE, SIDE), dtype=np.float32) for _ in range(some)]
    kinds["coloured noise, 1/f"] = [coloured_noise(random, 1) for _ in range(some)]
    kinds["coloured noise, 1/f²"] = [coloured_noise(random, 2) for _ in range(some)]
    kinds["photographs"] = _photographs(random, some)
    kinds["drawings"] = [_drawing(random) for _ in range(some)]
    if slices := _slices():
        kinds["CT and MR slices"] = slices
    return kinds


def coloured_noise(random: np.random.Generator, exponent: float) -> FloatImage:
    """Noise whose amplitude falls with frequency to a power, (``SIDE``, ``SIDE``) in [0, 1]."""
    along = np.fft.fftfreq(SIDE)
    frequency = np.hypot(along[:, None], along)
    frequency[0, 0] = 1 / SIDE
    values = np.fft.ifft2(np.fft.fft2(random.standard_normal((SIDE, SIDE))) / frequency**exponent).real
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / (high - low), 0, 1).astype(np.float32)


def _read(paths: Sequence[Path], count: int) -> list[FloatImage]:
    found: list[FloatImage] = []
    for path in paths:
        if len(found) == count:
            break
        try:
            found.append(read_image(path, name=path.name).pixels)
        except ImageError as error:
            note(f"left out: {error}")
    return found


def _laterals(data: StudyData, ids: Sequence[str], count: int) -> list[FloatImage]:
    found: list[FloatImage] = []
    for study_id in ids:
        for image in data.source.images(study_id):
            if image.view == "LATERAL" and not image.earlier and len(found) < count:
                try:
                    found.append(data.source.original(study_id, image.image_id).pixels)
                except CXRLensError as error:
                    note(f"left out: {error}")
    return found


def _photographs(random: np.random.Generator, count: int) -> list[FloatImage]:
    """Parts of scikit-learn's two photographs, a temple and a flower."""
    from sklearn.datasets import load_sample_images

    pictures = [Image.fromarray(picture).convert("L") for picture in load_sample_images().images]
    found: list[FloatImage] = []
    for number in range(count):
        picture = pictures[number % len(pictures)]
        side = int(random.integers(min(picture.size) // 3, min(picture.size)))
        left, top = (int(random.integers(0, length - side + 1)) for length in picture.size)
        part = picture.crop((left, top, left + side, top + side)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        found.append(np.asarray(part, dtype=np.float32) / np.float32(255))
    return found


def _drawing(random: np.random.Generator) -> FloatImage:
    """Shapes and letters on a page."""
    page = Image.new("L", (SIDE, SIDE), int(random.integers(0, 256)))
    pen = ImageDraw.Draw(page)
    for _ in range(int(random.integers(3, 12))):
        x, y, width, height = (int(value) for value in random.integers(8, SIDE // 2, 4))
        shape = random.choice(["ellipse", "rectangle", "text"])
        if shape == "text":
            pen.text((x, y), "Invoice 2026", fill=int(random.integers(0, 256)), font_size=int(random.integers(10, 40)))
        else:
            getattr(pen, shape)((x, y, x + width, y + height), fill=int(random.integers(0, 256)))
    drawn: FloatImage = np.asarray(page, dtype=np.float32) / np.float32(255)
    return drawn


def _slices() -> list[FloatImage]:
    """Slices of other parts of the body that come with pydicom."""
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    found = []
    for name in ("CT_small.dcm", "MR_small.dcm"):
        path = get_testdata_file(name, download=False)
        if path is not None:
            values = dcmread(str(path)).pixel_array.astype(np.float32)
            found.append((values - values.min()) / max(float(np.ptp(values)), 1.0))
    return found
