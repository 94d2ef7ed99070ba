"""References and the reports of pairs in; out what results.json holds: rows with intervals, beside baselines.

Training's evaluations and those of one's own studies are scored here, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from core.bundles.card import Card
from core.evaluation import java
from core.evaluation.clinical import ClinicalProtocol, clinical_scores
from core.evaluation.finds import FALSE_ALARM
from core.evaluation.labelers import RULES, Labeler
from core.evaluation.language import DEFAULT_PROTOCOL, PROTOCOLS
from core.evaluation.metrics import FREQUENT
from core.evaluation.scoring import LabeledReports, language_scores, reading, score_systems
from core.evaluation.votes import count_votes
from core.observations import OBSERVATIONS, LabelState
from core.registry import ENCODERS, encoder_parts
from core.studies.source import RULE_LABELER, Source
from core.systems.pairs import KINDS
from core.systems.system import System
from core.text import to_text, tokenize
from core.types import CXRLensError, Study

CONSTANT, NEAREST, SHUFFLED = "constant report", "nearest training report", "shuffled images"
VERSION = 2
"""Of what results.json holds. 1 (files that name none): no counts by observation, no frequent observations, nothing by
embeddings, all intervals by bootstrap."""
MOST_COMPARED = 20_000
"""Training studies whose images the nearest-report baselines read; of more it would take hours."""
COMPARED_SIZE = 128
"""Side of the images that the nearest-report baseline starts from, pixels."""
NEAREST_SIZE = 32
"""Side at which it compares them, pixels."""
INTERVALS = (
    "In brackets 95 % intervals over patients: of macro F1 put together from an interval of each observation, of all "
    "else percentile bootstrap, 1,000 resamples."
)
PAIRED = (
    "Less the nearest report's: paired, interval by the jackknife over patients; a macro F1 has none where an "
    f"observation has fewer than {FREQUENT} positives: none that was tried is right (docs/metrics.md). * where the "
    "permutation test has p < 0.05 after Holm's correction for all rows."
)

Baselines: TypeAlias = Mapping[str, tuple[str, Sequence[str]]]
"""Name -> what it is, and its reports, of baselines that need no model."""
LabeledBaselines: TypeAlias = Mapping[str, tuple[str, LabeledReports]]
"""The same, labelled."""


def label_baselines(baselines: Baselines, labeler: Labeler = RULES) -> LabeledBaselines:
    """Baselines with what a labeler reads in their reports."""
    return {name: (detail, labeler.read(texts)) for name, (detail, texts) in baselines.items()}


def label_texts(texts: Sequence[str]) -> LabeledReports:
    """Generated reports with what the rule labeler reads in them."""
    return RULES.read(texts)


def references_of(source: Source, studies: Sequence[Study]) -> LabeledReports:
    """The studies' own reports, labelled from the same text and by the same labeler as generated ones.

    Where the source's labels are shipped with it, the findings are labelled anew: MIMIC-CXR's tables were made from the
    impression first, and differences of two labelers would count as errors. The phantom's labels are the truth.
    """
    texts = [study.findings for study in studies]
    return label_texts(texts) if source.labels_shipped else LabeledReports(texts, [each.labels for each in studies])


def truth_of(source: Source) -> str:
    """Where the labels of `references_of` come from, in words."""
    return RULE_LABELER if source.labels_shipped else source.labelled_by


def reports_of_all(
    systems: Sequence[System],
    source: Source,
    study_ids: Sequence[str],
    progress: Callable[[str], None] = lambda told: None,
) -> tuple[dict[str, list[str]], list[int], list[str]]:
    """Reports of systems for the studies of which every one of them has one.

    A system that cannot be asked, or that has no report of these studies, is left out, and that is said.

    Args:
        systems: those that have their reports already limit the studies of those that write them now.
        source: of the studies.
        study_ids: the studies that are asked for.
        progress: told what is being done, in words.

    Returns:
        Name -> reports; the places of their studies among those that were asked for; what is to be said, a sentence
        each.

    Raises:
        CXRLensError: every system is left out, or there is no study of which all have a report.
    """
    told: list[str] = []
    texts: dict[str, Mapping[str, str]] = {}
    shared = list(study_ids)
    for system in sorted(systems, key=lambda each: each.seconds_a_study() != 0):

        def say(done: int, total: int, title: str = system.title) -> None:
            progress(f"{title}: {done:,} of {total:,} studies")

        try:
            found = system.reports(source, shared, say)
        except CXRLensError as error:
            told.append(f"{error} {system.title} is left out.")
            continue
        told += found.told
        if not found.texts:
            told.append(f"{system.title} is left out.")
            continue
        texts[system.name] = found.texts
        shared = [study_id for study_id in shared if study_id in found.texts]
    if systems and not texts:
        raise CXRLensError(" ".join(told))
    if not shared:
        raise CXRLensError(f"There is no study of which all these systems have a report. {' '.join(told)}")
    if len(shared) < len(study_ids):
        told.append(f"Scored are the {len(shared):,} of {len(study_ids):,} studies of which every system has a report.")
    place_of = {study_id: place for place, study_id in enumerate(study_ids)}
    places = [place_of[study_id] for study_id in shared]
    given = {each.name: [texts[each.name][name] for name in shared] for each in systems if each.name in texts}
    return given, places, told


def row_of_card(card: Card) -> Mapping[str, str]:
    """What a row of results says of a bundle: its parts, or what it is called where the registry does not know them."""
    if card.pair is None:
        return {"name": card.name, "title": card.title, "kind": KINDS.get(card.kind, card.kind), "group": card.family}
    return {"name": card.name, "encoder": card.encoder, "decoder": card.decoder, "group": card.family}


def row_of(system: System) -> dict[str, str]:
    """What a row of results says of a system that is no pair."""
    return {"name": system.name, "title": system.title, "kind": system.kind, "group": system.group}


def score_pairs(
    cards: Sequence[Card],
    references: LabeledReports,
    subjects: Sequence[str],
    written: Mapping[str, LabeledReports],
    baselines: LabeledBaselines,
    truth: str,
    published: Iterable[str] = (),
    nearest: LabeledBaselines | None = None,
    others: Sequence[Mapping[str, str]] = (),
    labeler: Labeler = RULES,
) -> dict[str, Any]:
    """Score the reports of pairs and of other systems, beside baselines.

    Args:
        cards: of the pairs.
        references: of all studies.
        subjects: the patient of each study.
        written: name of a bundle or another system -> its reports for the same studies, labelled.
        baselines: without models; differences are taken from `NEAREST` where it is there.
        truth: where the references' labels come from, in words.
        published: names of protocols under which others publish on these studies.
        nearest: the same of `nearest_by_embedding`, by name of the encoder; the pairs of that encoder are compared
            with it.
        others: of further systems, what `row_of` says.
        labeler: that read the reports.

    Returns:
        {"version", "protocol", "frequent": observations with at least `FREQUENT` positive references, "references": how
        they read, "rows": one a system, "baselines": those given and `SHUFFLED`, "published": protocol -> system ->
        scores, "votes": of the pairs, of all where there is none, see `core.evaluation.votes`}; rows as
        `core.evaluation.scoring.score_systems` gives them.

    Raises:
        CXRLensError: fewer than two studies or patients.
    """
    by_encoder = {encoder: nearest_title(encoder) for encoder in nearest or {}}
    baselines = {**baselines, **{by_encoder[encoder]: found for encoder, found in (nearest or {}).items()}}
    own = {card.name: by_encoder[card.encoder] for card in cards if card.encoder in by_encoder}
    systems = {name: reports for name, (_, reports) in baselines.items()} | dict(written)
    details = {name: detail for name, (detail, _) in baselines.items()}
    order = _paired_with_another(len(references.texts))
    against = NEAREST if NEAREST in baselines else None
    lacking = java.missing()
    with ExitStack() as stack:
        meteor = None if lacking else stack.enter_context(java.Meteor())
        scores = score_systems(references, systems, subjects=subjects, against=against, own=own, meteor=meteor)
        best = max(written, key=lambda name: scores[name]["f1"])
        shuffled = {SHUFFLED: systems[best].reordered(order)}
        scores |= score_systems(references, shuffled, subjects=subjects, meteor=meteor)
        elsewhere = {
            name: {
                system: language_scores(references.texts, each.texts, PROTOCOLS[name], meteor)
                for system, each in systems.items()
            }
            for name in published
        }
    details[SHUFFLED] = f"reports of {best} for other studies"
    heads = [*map(row_of_card, cards), *others]
    rows = [
        {
            **head,
            **scores[head["name"]],
            "shuffled_f1": clinical_scores(references.states, systems[head["name"]].reordered(order).states).f1,
        }
        for head in heads
    ]
    voters = [card.name for card in cards] or list(written)
    votes = {"of": voters, "counts": count_votes(references.states, [written[name].states for name in voters])}
    clinical = ClinicalProtocol(truth, labeler.title)
    told = (clinical.describe(), FALSE_ALARM, DEFAULT_PROTOCOL.describe(), lacking, INTERVALS, PAIRED * bool(against))
    return {
        "version": VERSION,
        "frequent": list(clinical_scores(references.states, references.states).frequent),
        "protocol": " ".join(filter(None, told)),
        "rows": rows,
        "references": {"reading": reading(references.texts)},
        "baselines": [{"name": name, "detail": detail, **scores[name]} for name, detail in details.items()],
        "published": elsewhere,
        "votes": votes,
    }


# ---------------------------------------------------------------------------------------------------------- baselines


def constant_report(train: Sequence[Study], count: int) -> tuple[str, list[str]]:
    """What it is, and its reports: the training report that would score best if every training study got it.

    Args:
        train: studies of the training split, at least one.
        count: of reports.
    """
    rows = [[study.labels[name] is LabelState.POSITIVE for name in OBSERVATIONS] for study in train]
    labels = np.array(rows, dtype=np.float32)
    rate = labels.mean(0)
    found = train[int((labels * (2 * rate / (1 + rate))).mean(1).argmax())]
    return f"training report {found.study_id} for every study", [_rewritten(found)] * count


def nearest_reports(
    train: Sequence[Study], compared: npt.NDArray[np.float32], images: npt.NDArray[np.float32]
) -> tuple[str, list[str]]:
    """What it is, and its reports: for each image the report of the training study whose image is most like it.

    Args:
        train: studies of the training split.
        compared: (training studies, D), from `comparable`.
        images: (studies, D), from `comparable`.
    """
    rows = (images @ compared.T).argmax(1)
    return f"nearest image at {NEAREST_SIZE} px, by correlation", [_rewritten(train[int(row)]) for row in rows]


def nearest_title(encoder: str) -> str:
    """Name of the baseline that `nearest_by_embedding` makes with an encoder."""
    title = " + ".join(ENCODERS[part].title for part in encoder_parts(encoder))
    return f"nearest training report, {title}'s embeddings"


def nearest_by_embedding(
    train: Sequence[Study], compared: npt.NDArray[np.float32], embedded: npt.NDArray[np.float32]
) -> tuple[str, list[str]]:
    """What it is, and its reports: for each study the report of the training study nearest to it in an embedding.

    Args:
        train: studies of the training split.
        compared: (training studies, D), means of an encoder's tokens.
        embedded: (studies, D), likewise.

    Raises:
        CXRLensError: an embedding is no number.
    """
    for values in (compared, embedded):
        if bad := int((~np.isfinite(values).all(1)).sum()):
            raise CXRLensError(f"The embeddings of {bad} of {len(values)} studies are no numbers: train again.")
    middle = compared.mean(0)
    ours, theirs = embedded - middle, compared - middle
    rows = (ours @ (theirs / np.linalg.norm(theirs, axis=1, keepdims=True).clip(1e-6)).T).argmax(1)
    what = "mean of the encoder's tokens, by cosine from the mean of the training studies"
    return what, [_rewritten(train[int(row)]) for row in rows]


def first_pairs(cards: Sequence[Card]) -> dict[str, Card]:
    """Encoder -> card of its first pair: of an encoder that learns with its decoder, that pair's stands for all."""
    found: dict[str, Card] = {}
    for card in cards:
        if card.pair is not None:
            found.setdefault(card.encoder, card)
    return found


def comparable(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Images, (n, `COMPARED_SIZE`, `COMPARED_SIZE`), as rows whose products are correlations, (n, D)."""
    values = np.asarray(images, dtype=np.float32)
    small = values.reshape(len(values), NEAREST_SIZE, COMPARED_SIZE // NEAREST_SIZE, NEAREST_SIZE, -1).mean((2, 4))
    flat: npt.NDArray[np.float32] = small.reshape(len(small), -1)
    flat -= flat.mean(1, keepdims=True)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True).clip(1e-6)  # type: ignore[no-any-return]


_rewritten: Callable[[Study], str] = lambda study: to_text(tokenize(study.findings))  # noqa: E731
"""A report as a generated one is: passed through the tokenizer."""


def _paired_with_another(count: int) -> list[int]:
    """A seeded order in which no study keeps its own index."""
    order = np.random.default_rng(0).permutation(count)
    shifted = np.empty(count, dtype=int)
    shifted[order] = np.roll(order, 1)
    return shifted.tolist()
