"""How much data a preset trains on: of studies that are at hand, or as published of their source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from core.config import ExperimentConfig
from core.encoders.label_text import label_text
from core.studies.index import open_index
from core.studies.label_table import open_labels
from core.text import tokenize
from core.types import CXRLensError, Study
from training.stages.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How much data there is. Defaults: MIMIC-CXR (paper-notes 5.1).

    Attributes:
        source: where the numbers are from, in words.
        files: all radiographs of the release.
        file_bytes: of all of them, as JPEG.
        train: training samples with findings; R2Gen's count of all views, more than one view has.
        validate: likewise.
        test: likewise.
        impressions: training samples with an impression; assumed.
        sentences: (image, cluster, text) triples an impression; assumed.
        fine_labels: of FGC; the paper's.
        codes: human ones that are further targets of the backbone.
        vocabulary: words; assumed.
        words: of findings, on average; assumed.
        label_words: of the longest list of fine labels, to which Table 3 fills up the others; assumed.
        further: training samples without findings, for classifiers and CLIP.
        laterals: training images for the backbone.
        before: training images of the collection that the backbone learns first.
    """

    source: str = "published and assumed for MIMIC-CXR"
    files: int = 377_110
    file_bytes: float = 558e9
    train: int = 270_790
    validate: int = 2_130
    test: int = 3_858
    impressions: int = 225_000
    sentences: float = 1.9
    fine_labels: int = 410
    codes: int = 0
    vocabulary: int = 5_000
    words: int = 60
    label_words: int = 100
    further: int = 0
    laterals: int = 0
    before: int = 0

    @property
    def samples(self) -> int:
        """Samples of all splits."""
        return self.train + self.validate + self.test


MIMIC_CXR = Counts()
OPENI = Counts(
    source="counted of Open-i's smaller copy and the part of ChestX-ray14 (docs/training.md)",
    files=7_174,
    file_bytes=96e6,
    train=2_063,
    validate=294,
    test=590,
    impressions=2_057,
    sentences=1.2,
    fine_labels=30,
    codes=110,
    vocabulary=950,
    words=38,
    label_words=62,
    further=467,
    laterals=2_200,
    before=1_757,
)
PUBLISHED: Mapping[str, Counts] = {"mimic_cxr": MIMIC_CXR, "openi": OPENI}


def counts_of(config: ExperimentConfig) -> Counts:
    """How much data a preset trains on; nothing is rendered, and no report is labelled for it.

    Raises:
        CXRLensError: its studies are not at hand, and nothing is published of their source.
    """
    try:
        found = _counted(config)
    except CXRLensError:
        if config.data.source not in PUBLISHED:
            raise
        found = None
    if found:
        return found
    counts, settings = PUBLISHED.get(config.data.source, MIMIC_CXR), config.backbone
    further = counts.further if config.data.impressions else 0
    return replace(
        counts,
        impressions=counts.impressions + further,
        further=further,
        laterals=counts.laterals if settings.laterals else 0,
        codes=counts.codes if settings.codes else 0,
        before=counts.before if settings.before != "none" else 0,
    )


def _counted(config: ExperimentConfig) -> Counts | None:
    """Of the studies themselves; None where their reports are not labelled yet."""
    data = config.data
    if data.source != "phantom" and open_labels(open_index(Path(data.folder))) is None:
        return None
    run = Run(config, Path())
    studies = run.data.studies
    train = studies["train"]
    impressions, further = len(run.taught.pairs("train")), sum(len(each.studies["train"]) for each in run.taught.more)
    files, size = (len(train), 0.0) if data.source == "phantom" else _files(Path(data.folder))
    laterals = 0
    if config.backbone.laterals:
        laterals = len(run.backbone_taught.more[-1].studies["train"])
    return Counts(
        source=f"counted of {data.folder or 'the phantom'}",
        files=files,
        file_bytes=size,
        train=len(train),
        validate=len(studies["validate"]),
        test=len(studies["test"]),
        impressions=impressions,
        sentences=len(run.taught.cluster_pairs("train")) / max(1, impressions),
        fine_labels=len(run.data.fine_labels),
        codes=len(run.data.codes) if config.backbone.codes else 0,
        vocabulary=len(run.data.vocabulary),
        words=round(_mean_words(train)),
        label_words=max(len(tokenize(label_text(study.fine_labels))) for study in train),
        further=further,
        laterals=laterals,
        before=len(run.before_data.studies["train"]) if config.backbone.before != "none" else 0,
    )


def _files(folder: Path) -> tuple[int, float]:
    images = open_index(folder).images
    return len(images), float(images["bytes"].sum())


def _mean_words(studies: Sequence[Study]) -> float:
    return sum(len(tokenize(study.findings)) for study in studies) / len(studies)
