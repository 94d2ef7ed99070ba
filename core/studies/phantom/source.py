"""Studies of phantoms: drawn from a seed and a name, the same on every machine."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from threadpoolctl import ThreadpoolController

from core.files import whole_file, write_whole
from core.studies.images import Radiograph
from core.studies.phantom.anatomy import Anatomy, Exposure, draw_anatomy, draw_exposure
from core.studies.phantom.findings import Fact, draw_facts, severity_of
from core.studies.phantom.grammar import write_findings, write_impression
from core.studies.phantom.render import expose, line_integral, mask_of
from core.studies.phantom.statements import Statement, cluster_texts_of, fine_labels_of, labels_of
from core.studies.source import Source, StudyImage, TrueFinding, UnknownStudyError
from core.types import PAD, SPLITS, CXRLensError, Fit, FloatImage, Mask, Split, Study

ORIGINAL_SIZE = 640
"""Side of the image that stands for a phantom's film, pixels."""
ORIGINAL_BITS = 12
"""Its grey levels are 2 to this power."""

PHANTOM_VERSION = "4"
"""Raise it whenever the same seed would give another study."""

_PARTS = {"anatomy": 0, "facts": 1, "exposure": 2, "words": 3, "visits": 4}

_BLAS = ThreadpoolController()


@dataclass(frozen=True)
class PhantomStudy:
    """A study with its image and its truth.

    Attributes:
        study: text, labels, context.
        image: (size, size), values in [0, 1].
        facts: the abnormalities.
        masks: where each abnormality changes the image, by fact id.
        statements: the report's sentences, in order, with what each claims.
    """

    study: Study
    image: FloatImage
    facts: tuple[Fact, ...]
    masks: Mapping[str, Mask]
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class _Script:
    """All that is decided before anything is drawn."""

    study: Study
    facts: tuple[Fact, ...]
    statements: tuple[Statement, ...]
    exposure: Exposure


def _rng(seed: int, part: str, *keys: int) -> np.random.Generator:
    return np.random.default_rng((seed, _PARTS[part], *keys))


@lru_cache(maxsize=512)
def _anatomy(patient: int, seed: int) -> Anatomy:
    return draw_anatomy(_rng(seed, "anatomy", patient))


@lru_cache(maxsize=8192)
def _visits(patient: int, seed: int) -> tuple[int, Split]:
    """How many studies a patient has, and the split they are all in."""
    rng = _rng(seed, "visits", patient)
    count = int(rng.choice(4, p=(0.5, 0.26, 0.15, 0.09))) + 1
    place = rng.random()
    return count, "train" if place < 0.8 else "validate" if place < 0.88 else "test"


_INDICATIONS = (
    "Shortness of breath.",
    "Chest pain.",
    "Cough and fever.",
    "Fall.",
    "Preoperative evaluation.",
    "Follow-up.",
    "Weakness.",
    "Line placement.",
    "Hypoxia.",
    "Leukocytosis.",
)
_HISTORIES = (
    "Hypertension.",
    "Smoker.",
    "Diabetes.",
    "Asthma.",
    "Coronary artery disease.",
    "None given.",
    "Renal failure.",
)


def _context(rng: np.random.Generator, anatomy: Anatomy, exposure: Exposure, visit: int) -> dict[str, str]:
    """Make up what a request form says. Indication and history are drawn blindly: they give nothing away."""
    month, day = int(rng.integers(1, 13)), int(rng.integers(1, 29))
    return {
        "age": str(anatomy.age),
        "sex": anatomy.sex,
        "indication": _INDICATIONS[int(rng.integers(len(_INDICATIONS)))],
        "history": _HISTORIES[int(rng.integers(len(_HISTORIES)))],
        "technique": f"Single {exposure.view} view of the chest.",
        "comparison": f"Radiograph of {2017 + visit}-{month:02}-{day:02}." if visit > 1 else "None.",
    }


@lru_cache(maxsize=4096)
def _script(patient: int, visit: int, seed: int) -> _Script:
    anatomy = _anatomy(patient, seed)
    facts = draw_facts(_rng(seed, "facts", patient), visit)
    bedridden = any(fact.kind or fact.observation == "Edema" for fact in facts)
    exposure = draw_exposure(_rng(seed, "exposure", patient, visit), bedridden=bedridden)
    words = _rng(seed, "words", patient, visit)
    findings = write_findings(words, facts)
    impression = write_impression(words, facts)
    study = study_of(
        findings,
        impression,
        study_id=f"P{patient:06}-{visit}",
        subject_id=f"P{patient:06}",
        split=_visits(patient, seed)[1],
        view=exposure.view,
        context=_context(words, anatomy, exposure, visit),
    )
    return _Script(study, facts, findings + impression, exposure)


def study_of(
    findings: Sequence[Statement],
    impression: Sequence[Statement],
    *,
    study_id: str,
    subject_id: str,
    split: Split,
    view: str,
    context: Mapping[str, str],
) -> Study:
    """A study whose text is these statements, and whose labels are what they claim."""
    return Study(
        study_id=study_id,
        subject_id=subject_id,
        split=split,
        view=view,
        findings=" ".join(statement.text for statement in findings),
        impression=" ".join(statement.text for statement in impression),
        labels=labels_of(findings),
        fine_labels=fine_labels_of(findings),
        cluster_texts=cluster_texts_of(impression),
        context=context,
    )


def draw(anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact], size: int) -> FloatImage:
    """The picture of a patient with some abnormalities, (size, size), values in [0, 1]."""
    with _one_thread():
        return expose(line_integral(anatomy, exposure, facts, size), anatomy, exposure)


def true_places(
    anatomy: Anatomy, exposure: Exposure, facts: Sequence[Fact], size: int, integral: FloatImage | None = None
) -> dict[str, Mask]:
    """Where each abnormality changes the picture, by its id, (size, size); its line integral, if that is known."""
    with _one_thread():
        known = line_integral(anatomy, exposure, facts, size) if integral is None else integral
        return {fact.id: mask_of(fact, anatomy, exposure, facts, known) for fact in facts}


def _one_thread() -> AbstractContextManager[object]:
    """One BLAS thread: the matrices of a phantom are small, and more threads only wait for each other."""
    return _BLAS.limit(limits=1, user_api="blas")


@lru_cache(maxsize=2)  # of a film that is shown it is asked at once where its abnormalities are
def _integral(patient: int, visit: int, seed: int, size: int) -> FloatImage:
    script = _script(patient, visit, seed)
    with _one_thread():
        return line_integral(_anatomy(patient, seed), script.exposure, script.facts, size)


def _masks(patient: int, visit: int, seed: int, size: int) -> dict[str, Mask]:
    script = _script(patient, visit, seed)
    integral = _integral(patient, visit, seed, size)
    return true_places(_anatomy(patient, seed), script.exposure, script.facts, size, integral)


def film_of(pixels: FloatImage, view: str) -> Radiograph:
    """A picture that stands for a film; its size in the patient is not known."""
    return Radiograph(pixels, None, ORIGINAL_BITS, "phantom", (), view)


def true_findings(facts: Sequence[Fact], masks: Mapping[str, Mask]) -> tuple[TrueFinding, ...]:
    """Where abnormalities are, by the masks of their ids; those that change nothing are left out."""
    return tuple(
        TrueFinding(
            " ".join(part for part in (fact.side, fact.kind or fact.observation) if part),
            (fact.observation,),
            masks[fact.id],
        )
        for fact in facts
        if masks[fact.id].any()
    )


def _image(patient: int, visit: int, seed: int, size: int) -> FloatImage:
    exposure = _script(patient, visit, seed).exposure
    with _one_thread():
        return expose(_integral(patient, visit, seed, size), _anatomy(patient, seed), exposure)


def make_phantom(patient: int, visit: int, *, seed: int, size: int) -> PhantomStudy:
    """Make one study, with masks.

    Args:
        patient: any number from 0 to 999999.
        visit: from 1.
        seed: of the whole set.
        size: side of image and masks, pixels.
    """
    script, key = _script(patient, visit, seed), (patient, visit, seed, size)
    return PhantomStudy(script.study, _image(*key), script.facts, _masks(*key), script.statements)


class PhantomSource(Source):
    """A set of phantom studies. Any study is made from its name alone, without the others."""

    name = "phantom"
    title = "Synthetic X-rays with known truth"
    synthetic = True
    labelled_by = "the phantom's known truth of the findings"
    truth = "outlines of what was drawn"

    def __init__(self, count: int = 2000, seed: int = 0) -> None:
        """Name the studies; nothing is drawn yet.

        Args:
            count: of studies, over all splits.
            seed: another seed gives other patients.
        """
        self.count = count
        self.seed = seed
        self.key = f"{self.name}:{count}:{seed}"
        ids: list[tuple[int, int]] = []
        patient = 0
        while len(ids) < count:
            ids += [(patient, visit + 1) for visit in range(_visits(patient, seed)[0])]
            patient += 1
        self._keys = {f"P{patient:06}-{visit}": (patient, visit) for patient, visit in ids[:count]}

    def fingerprint(self) -> str:
        """Hash what decides the content: version, count, seed."""
        return hashlib.sha256(f"phantom {PHANTOM_VERSION} {self.count} {self.seed}".encode()).hexdigest()[:16]

    @property
    def study_ids(self) -> tuple[str, ...]:
        """All studies of all splits, in order."""
        return tuple(self._keys)

    @cached_property
    def _by_split(self) -> dict[Split, tuple[str, ...]]:
        found: dict[Split, list[str]] = {split: [] for split in SPLITS}
        for study_id, (patient, _) in self._keys.items():
            found[_visits(patient, self.seed)[1]].append(study_id)
        return {split: tuple(ids) for split, ids in found.items()}

    @cached_property
    def _studies(self) -> dict[Split, tuple[Study, ...]]:
        return {split: tuple(map(self.study, ids)) for split, ids in self._by_split.items()}

    def ids(self, split: Split) -> tuple[str, ...]:
        """All studies of a split, in order."""
        return self._by_split[split]

    def studies(self, split: Split) -> tuple[Study, ...]:
        """All studies of a split; text and labels only, no image is drawn."""
        return self._studies[split]

    def study(self, study_id: str) -> Study:
        """One study's text and labels."""
        return _script(*self._key(study_id), self.seed).study

    def statements(self, study_id: str) -> tuple[Statement, ...]:
        """A report's sentences with what each claims, findings first; no image is drawn."""
        return _script(*self._key(study_id), self.seed).statements

    def facts(self, study_id: str) -> tuple[Fact, ...]:
        """A study's abnormalities; no image is drawn."""
        return _script(*self._key(study_id), self.seed).facts

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        """A study's image, drawn as a square of this size, whatever the fit: (size, size), values in [0, 1]."""
        return _image(*self._key(study_id), self.seed, size)

    def for_model(self, study_id: str, size: int) -> FloatImage:
        """A study's image, drawn at the size that a pair reads."""
        return self.image(study_id, size)

    def images(self, study_id: str) -> tuple[StudyImage, ...]:
        """The study's image, and that of the patient's visit before it."""
        patient, visit = self._key(study_id)
        earlier = f"P{patient:06}-{visit - 1}"
        found = [StudyImage(study_id, study_id, self.study(study_id).view, read=True)]
        if visit > 1:
            found.append(StudyImage(earlier, earlier, self.study(earlier).view, read=False, earlier=True))
        return tuple(found)

    def original(self, study_id: str, image_id: str = "") -> Radiograph:
        """A study's image, drawn at 640 x 640 pixels; its size in the patient is not known."""
        if image_id and image_id not in {each.image_id for each in self.images(study_id)}:
            raise UnknownStudyError(f"Study {study_id} has no image {image_id[:60]!r}.")
        shown = image_id or study_id
        return film_of(self.image(shown, ORIGINAL_SIZE), self.study(shown).view)

    def masks(self, study_id: str, shape: tuple[int, int]) -> tuple[TrueFinding, ...]:
        """Where each abnormality changes the image.

        Args:
            study_id: of the study.
            shape: (side, side) of the masks, any.

        Raises:
            ValueError: it is no square.
        """
        if shape[0] != shape[1]:
            raise ValueError(f"a phantom is square, not {shape}")
        return true_findings(self.facts(study_id), _masks(*self._key(study_id), self.seed, shape[0]))

    def traits(self, study: Study) -> dict[str, str]:
        """What studies can be divided by: what the base says, and how bad the worst abnormality is."""
        extents = [fact.extent for fact in self.facts(study.study_id)]
        worst = severity_of("", max(extents)) if extents else "no abnormality"
        return super().traits(study) | {"Worst severity": worst}

    def phantom(self, study_id: str, size: int) -> PhantomStudy:
        """A study with its image and masks."""
        patient, visit = self._key(study_id)
        return make_phantom(patient, visit, seed=self.seed, size=size)

    def _key(self, study_id: str) -> tuple[int, int]:
        key = self._keys.get(study_id)
        if key is None:
            raise self.unknown(study_id)
        return key


def _write_png(path: Path, image: Image.Image) -> None:
    with whole_file(path, private=False, synced=False) as fresh:
        image.save(fresh, format="PNG")


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _write_study(out: Path, phantom: PhantomStudy) -> None:
    """Write masks, then facts, then the image: a study with an image is complete."""
    study_id = phantom.study.study_id
    for name, mask in phantom.masks.items():
        _write_png(out / "masks" / f"{study_id}_{name}.png", Image.fromarray(mask.astype(np.uint8) * 255))
    record = {
        "study_id": study_id,
        "subject_id": phantom.study.subject_id,
        "view": phantom.study.view,
        "labels": dict(phantom.study.labels),
        "fine_labels": phantom.study.fine_labels,
        "cluster_texts": dict(phantom.study.cluster_texts),
        "context": dict(phantom.study.context),
        "facts": [asdict(fact) for fact in phantom.facts],
        "statements": [asdict(statement) for statement in phantom.statements],
    }
    write_whole(out / "facts" / f"{study_id}.json", json.dumps(record, indent=1) + "\n", private=False, synced=False)
    _write_png(out / "images" / f"{study_id}.png", Image.fromarray(np.rint(phantom.image * 255).astype(np.uint8)))


def write_phantom(
    out: Path, count: int, seed: int, size: int = 512, progress: Callable[[int, int], None] | None = None
) -> None:
    """Write a set of phantoms as files. Can be stopped and started again: complete studies are skipped.

    Layout: `images/ID.png` (8 bit), `masks/ID_FACT.png`, `facts/ID.json`, `reports.csv`, `splits.csv`, and
    `dataset.json`, whose "complete" tells whether all of it is there.

    Args:
        out: folder; made if missing.
        count: of studies.
        seed: of the set.
        size: side of the images, pixels.
        progress: called with (done, count) after each study.

    Raises:
        CXRLensError: the folder holds another set.
    """
    source = PhantomSource(count, seed)
    described = {
        "name": source.name,
        "version": PHANTOM_VERSION,
        "count": count,
        "seed": seed,
        "size": size,
        "fingerprint": source.fingerprint(),
    }
    begun = out / "dataset.json"
    if begun.exists():
        found = json.loads(begun.read_text(encoding="utf-8"))
        if {key: found.get(key) for key in described} != described:
            raise CXRLensError(f"{out} holds another phantom set ({found}); choose an empty folder")
    for folder in ("images", "masks", "facts"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    write_whole(begun, json.dumps(described | {"complete": False}, indent=1) + "\n", private=False)
    for done, study_id in enumerate(source.study_ids, start=1):
        if not (out / "images" / f"{study_id}.png").exists():
            _write_study(out, source.phantom(study_id, size))
        if progress is not None:
            progress(done, count)
    studies = [source.study(study_id) for study_id in source.study_ids]
    reports = [{"study_id": s.study_id, "findings": s.findings, "impression": s.impression} for s in studies]
    splits = [{"study_id": s.study_id, "subject_id": s.subject_id, "split": s.split} for s in studies]
    write_whole(out / "reports.csv", _csv(reports), private=False)
    write_whole(out / "splits.csv", _csv(splits), private=False)
    write_whole(begun, json.dumps(described | {"complete": True}, indent=1) + "\n", private=False)
