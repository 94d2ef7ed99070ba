"""What each JSON file that the program reads must hold: one schema a file.

A file may hold more than its schema names; what it names must be there, of that kind, and within bounds. So whoever
reads on may take its parts for what they are. They are compared by `core.contents`.
"""

# ruff: noqa: RUF012 - pydantic copies the defaults

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from core.contents import (
    LARGEST,
    Content,
    Count,
    Hash,
    Name,
    Number,
    Pair,
    PlainName,
    Scalar,
    Settings,
    Text,
    Triple,
    Whole,
)
from core.contents import check as check
from core.contents import read_bounded as read_bounded
from core.contents import read_json as read_json

CARD_BYTES = 4 * 2**20
"""Of a card."""

# -------------------------------------------------------------------------------------------------------------- bundles


class Encoder(Content):
    """Of a card: the encoder, and the hashes of those that it shares with other bundles."""

    name: Name
    changes: Settings
    shared: dict[PlainName, Hash] = {}
    width: Annotated[int, Field(ge=1, le=LARGEST)] | None = None
    coarse_labels: list[Text] = []
    fine_labels: list[Text] = []


class Decoder(Content):
    """Of a card: the decoder."""

    name: Name
    changes: Settings = {}


class Inputs(Content):
    """Of a card: (channels, rows, columns) of an image."""

    image: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=3, max_length=3)]


class Data(Content):
    """Of a card: what it learned from."""

    name: Text = ""
    description: Text = ""
    fingerprint: Text = ""
    studies: dict[str, Count] = {}


class Write(Content):
    """Of a card: how it writes."""

    beam_size: Annotated[int, Field(ge=1, le=64)] = 4
    max_words: Annotated[int, Field(ge=1, le=4096)] = 100
    no_repeat_ngram: Annotated[int, Field(ge=0, le=4096)] = 0
    min_sentence_words: Annotated[int, Field(ge=0, le=4096)] = 0
    length_penalty: Number = 1.0
    end_penalty: Number = 0.0
    removed_words: bool = False
    say_again: bool = True
    edge_numbers: bool = True
    consistent: bool = False
    say_found: bool = False
    short_sentences: list[Text] = []
    finding_sentences: dict[Text, list[Text]] = {}


class FitContent(Content):
    """Of a card: how images are fitted."""

    how: Text
    aspect: Number = 1.0
    trim: bool = False


class CardConfig(Content):
    """Of a card: the preset that trained it."""

    seed: Scalar = None
    data: dict[str, Any] = {}


class SharedCard(Content):
    """card.json of an encoder that several bundles share."""

    name: Name
    size: Name
    encoder: Encoder
    sha256: dict[PlainName, Hash]


class Card(SharedCard):
    """card.json of a bundle."""

    family: Name
    kind: Name = "pair"
    title: Text = ""
    encoder: Encoder
    decoder: Decoder
    inputs: Inputs
    data: Data
    metrics: dict[str, Any]
    write: Write
    fit: FitContent | None = None
    fit_note: Text = ""
    config: CardConfig | None = None
    intended_use: Text
    licence: Text
    created: Text


# --------------------------------------------------------------------------------------------------------- measurements


class Difference(Content):
    """Of a score to a baseline's."""

    difference: Number
    low: Number | None = None
    high: Number | None = None
    p_holm: Number


class ScoreRow(Content):
    """Scores of a system or of a baseline."""

    name: Text
    encoder: Text = ""
    decoder: Text = ""
    title: Text = ""
    kind: Text = ""
    group: Text = ""
    detail: Text = ""
    f1: Number | None = None
    bleu_1: Number | None = None
    bleu_2: Number | None = None
    bleu_3: Number | None = None
    bleu_4: Number | None = None
    rouge_l: Number | None = None
    cider: Number | None = None
    meteor: Number | None = None
    precision: Number | None = None
    recall: Number | None = None
    f1_5: Number | None = None
    micro_f1: Number | None = None
    f1_frequent: Number | None = None
    shuffled_f1: Number | None = None
    by_observation: dict[str, Annotated[list[Number], Field(min_length=3, max_length=4)]] | None = None
    finds: dict[str, Annotated[list[Count], Field(min_length=3, max_length=3)]] | None = None
    intervals: dict[str, Pair] = {}
    differences: dict[str, Difference] = {}
    differences_own: dict[str, Difference | str] = {}
    warnings: list[Text] = []


class SystemRow(ScoreRow):
    """Scores of a system: macro F1 is always there."""

    f1: Number


class Matching(Content):
    """How well an encoder matches images with texts."""

    told: Text


class Results(Content):
    """results.json of an evaluation."""

    rows: Annotated[list[SystemRow], Field(max_length=10_000)]  # none where nothing can be scored
    family: Text = ""
    studies: Count = 0
    version: Count = 1
    fingerprint: Text = ""
    seed: Scalar = None
    command: Text = ""
    protocol: Text = ""
    told: list[Text] = []
    frequent: list[Text] = []
    made_of: dict[str, str] = {}
    baselines: list[ScoreRow] | None = None
    published: dict[str, dict[str, dict[str, Number | None]]] = {}
    references: dict[str, Any] = {}
    matching: dict[str, Matching] = {}


class TrustLimit(Content):
    """Of a way to mark sentences: null stands for a number that is not finite."""

    centre: list[Number]
    scale: list[Number]
    weights: list[Number]
    offset: Number
    least: Number | None
    films: Count
    sentences: Count
    marked: Count
    wrong: Count
    evidence: Number | None


class TrustFound(Content):
    """What a way did on test films."""

    sentences: Count
    all_wrong: Count
    marked: Count
    wrong: Count
    by_patient: Number | None
    low: Number | None
    high: Number | None


def _begins_with_a_number(point: list[float | None]) -> list[float | None]:
    if point[0] is None:
        raise ValueError("its share is no number")
    return point


CurvePoint = Annotated[list[Number | None], Field(min_length=4, max_length=4), AfterValidator(_begins_with_a_number)]
"""Share of the sentences, and their error with its interval; null stands for what is not finite."""


class TrustWay(Content):
    """A way to mark sentences."""

    scores: list[Text]
    alpha: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    limits: dict[str, TrustLimit]
    found: dict[str, TrustFound]
    curves: dict[str, list[CurvePoint]]


class TrustFile(Content):
    """FAMILY-trust.json."""

    version: Whole
    about: dict[str, Any]
    panel: list[Name]
    others: Annotated[list[Text], Field(min_length=1)]
    made_of: dict[str, str]
    pairs: dict[str, list[TrustWay]]


class Entry(Content):
    """What was measured of a method of explanation."""

    encoder: Text
    decoder: Text
    method: Text
    kind: Text
    n: Count
    numbers: dict[str, Triple]
    gains: dict[str, Triple]

    @model_validator(mode="after")
    def _can_be_judged(self) -> Entry:
        control, number = ("random", "comprehensiveness") if "random" in self.gains else ("centre", "pointing")
        if self.gains and not (control in self.gains and number in self.numbers):
            raise ValueError(f"there is no gain over '{control}' of a '{number}' that was measured")
        return self


class Explanations(Content):
    """FAMILY.json of what was measured of explanations."""

    command: Text
    studies: Count
    entries: Annotated[list[Entry], Field(max_length=100_000)]
    films: dict[str, Text] | None = None


class DetectionPoint(Content):
    """Films of one size of a finding."""

    extent: Number
    reports: Annotated[int, Field(ge=1)]
    mentioned: Count
    hedged: Count
    other_side: Count


class DetectionCurve(Content):
    """Curve through the points."""

    floor: Number
    ceiling: Number
    scale: Annotated[float, Field(gt=0)]
    shape: Annotated[float, Field(gt=0)]


class Half(Content):
    """Size at which half is reported."""

    extent: Number | None
    low: Number | None
    high: Number | None


class DetectionPlace(Content):
    """A finding at a place."""

    side: Text
    site: Text
    points: list[DetectionPoint]
    curve: DetectionCurve
    half: Half


class DetectionMirror(Content):
    """A finding right and left."""

    site: Text
    right: Number
    left: Number
    low: Number
    high: Number
    p: Number


class DetectionSystem(Content):
    """What was measured of a system."""

    false_alarms: Count
    normals: Count
    false_alarm_interval: Pair
    detections: list[DetectionPlace]
    mirrors: list[DetectionMirror]


class RealFilms(Content):
    """The real films that a finding was drawn into."""

    title: Text
    fingerprint: Text


class Detection(Content):
    """detection.json."""

    films: Text
    fingerprint: Text
    real_films: RealFilms | None = None
    extents: list[Number]
    seed: Count
    resamples: Count
    systems: dict[str, DetectionSystem]


class Cell(Content):
    """A number of a table, with its interval."""

    value: Number
    low: Number | None = None
    high: Number | None = None
    sd: Number | None = None
    paper: Number | None = None


class TableRow(Content):
    """A row of a table."""

    name: Text
    kind: Text
    keys: dict[str, Scalar]
    metrics: dict[str, Cell]
    note: Text


class Table(Content):
    """A table as the paper has it."""

    name: Text
    family: Text
    title: Text = ""
    metrics: dict[str, str]
    rows: list[TableRow]
    n: Count
    seeds: list[Count]
    command: Text
    data: Text
    notes: list[Text]


class FilterMap(Content):
    """ccve-map.json."""

    studies: list[Text]
    filters: list[Text]
    settings: dict[str, Any]
    trained: list[list[Pair]]
    random_filters: list[list[Pair]]


# ------------------------------------------------------------------------------------------- what a user has of his own


class AddedFile(Content):
    """system.json of a file of reports."""

    kind: Literal["file"]
    title: Text
    group: Text
    origin: Text
    created: Text
    sha256: dict[PlainName, Hash]


class AddedProgram(Content):
    """system.json of a program."""

    kind: Literal["program"]
    title: Text
    group: Text
    command: Annotated[list[Text], Field(min_length=1)]
    folder: Text
    timeout: Annotated[float, Field(gt=0)]


class Added(Content):
    """system.json, before its kind is known."""

    kind: Literal["file", "program"]


class Asked(Content):
    """about.json of an evaluation of one's own."""

    source: Text
    title: Text
    split: Literal["train", "validate", "test"] | None
    bundles: Text
    family: Text
    pairs: dict[Name, dict[str, str]]
    systems: dict[Name, str] = {}


class Facts(Content):
    """A line of what an evaluation keeps of its studies."""

    study_id: str
    subject: str
    labels: dict[str, str]
    traits: dict[str, str]
    details: list[str]


class Index(Content):
    """index.json of an index of studies."""

    version: Text
    source: Name
    root: Text
    fingerprint: Text
    images: Text
    told: dict[str, Any] | None = None


class StageRecord(Content):
    """config.json of a stage of a run."""

    key: Text
    identity: dict[str, Any] = {}


class StageDone(Content):
    """done.json of a stage of a run."""

    key: Text
