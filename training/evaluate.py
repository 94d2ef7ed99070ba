"""Score the bundles of a preset on held-out studies, beside baselines that need no model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.editing import OF_THE_DATA
from core.bundles.inference import pooled_embeddings, write_batch
from core.bundles.library import BundleLibrary
from core.config import ExperimentConfig, to_dict
from core.decoders.search import GenerateConfig
from core.devices import Precision
from core.evaluation import java
from core.evaluation.labelers import RULES, Labeler
from core.evaluation.results import (
    COMPARED_SIZE,
    CONSTANT,
    MOST_COMPARED,
    NEAREST,
    Baselines,
    comparable,
    constant_report,
    first_pairs,
    label_baselines,
    label_texts,
    nearest_by_embedding,
    nearest_reports,
    nearest_title,
    references_of,
    reports_of_all,
    row_of,
    score_pairs,
    truth_of,
)
from core.evaluation.scored import FILE, scored, write_scored
from core.evaluation.scoring import LabeledReports, score_systems
from core.files import hash_of, write_whole
from core.processes import worker_pool
from core.registry import did_you_mean
from core.systems.system import System
from core.types import Split, Study
from training.console import note
from training.data import StudyData, to_images
from training.evaluation_text import evaluation_markdown, finds_csv
from training.matching import match_encoders
from training.run_folder import StageError
from training.threads import use_threads_for

Embeddings = npt.NDArray[Any]
BATCH = 50
_TOO_MANY = "The nearest training report by embeddings is left out: of {count:,} training studies it would take hours."
PUBLISHED = {"openi": ("r2gen", "r2gen-60"), "mimic_cxr": ("r2gen", "r2gen-100")}
"""Protocols under which others publish on a source: our own reading of their tokens, whole references and cut ones."""


def evaluate(
    config: ExperimentConfig,
    data: StudyData,
    bundles: Path,
    out: Path | None = None,
    jobs: int = 1,
    others: Sequence[System] = (),
    labeler: Labeler = RULES,
    *,
    device: str = "cpu",
    precision: Precision = "fp32",
) -> dict[str, Any]:
    """Score all bundles of ``config``'s family, and other systems beside them.

    The labeler reads generated reports and references alike; the phantom's references have its known truth. With other
    systems, scored are the studies of which all of them have a report.

    Args:
        config: which studies; how reports are written stands in the bundles' cards.
        data: studies and images.
        bundles: folder of the bundles.
        out: where results.json, table.md, finds.csv, scored.npz and the reports of all pairs go; None writes nothing.
        jobs: pairs that write side by side, a process each.
        others: further systems.
        labeler: of the reports; CheXbert also reads the references, where our rules gave them their labels.
        device: where they write; see `core.devices.open_device`.
        precision: see `core.devices.Precision`.

    Returns:
        As `core.evaluation.results.score_pairs`, with "family", "studies", "seed", "fingerprint", "command"; "made_of":
        bundle -> hash of what decides its reports; "told": sentences on what is left out; "matching": encoder with a
        text tower -> see `training.matching`.

    Raises:
        StageError: there is no bundle of this family.
        CXRLensError: there is no such device, or no other system can be asked, or they have no study in common.
    """
    cards = cards_of(config.name, bundles)
    _tell_other_settings(config, cards)
    studies, references, subjects = _held_out(config, data)
    given, places, told = reports_of_all(others, data.source, [study.study_id for study in studies])
    baselines = _baselines(data, studies)
    work = _Work(bundles, config, data.folder, len(studies), device, precision)
    written, nearest, warned = _read_all(cards, work, data, jobs)
    if len(places) < len(studies):
        studies = [studies[place] for place in places]
        references, subjects = references.reordered(places), [subjects[place] for place in places]
        written = {name: [texts[place] for place in places] for name, texts in written.items()}
        baselines, nearest = (
            {name: (what, [texts[place] for place in places]) for name, (what, texts) in each.items()}
            for each in (baselines, nearest)
        )
    written |= given
    systems = [*(card.name for card in cards), *given]
    if out is not None:  # before scoring: they take the longest
        out.mkdir(parents=True, exist_ok=True)
        lines = [
            {"study_id": study.study_id, "reference": study.findings} | {name: written[name][row] for name in systems}
            for row, study in enumerate(studies)
        ]
        write_whole(out / "reports.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    labelled = {name: labeler.read(written[name]) for name in systems}
    references, truth = labeler.read_again(references, truth_of(data.source))
    published = PUBLISHED.get(config.data.source, ())
    rows = [row_of(each) for each in others if each.name in given]
    plain, by_encoder = (label_baselines(each, labeler) for each in (baselines, nearest))
    scores = score_pairs(cards, references, subjects, labelled, plain, truth, published, by_encoder, rows, labeler)
    results = {
        "family": config.name,
        "studies": len(studies),
        "seed": config.seed,
        "fingerprint": data.fingerprint(),
        "made_of": {card.name: hash_of(card.made_of) for card in cards},
        "command": f"cxr-lens evaluate --preset {config.name}" + (f" --precision {precision}" * (precision != "fp32")),
        "told": [
            *told,
            *([] if nearest else [_TOO_MANY.format(count=len(data.studies["train"]))]),
            *(card.fit_note for card in cards if card.fit_note),
            *_told(warned),
        ],
        "matching": match_encoders(cards, bundles, data),
        **scores,
    }
    if out is not None:
        named = {**plain, **{nearest_title(encoder): each for encoder, each in by_encoder.items()}}
        compared = labelled | {name: reports for name, (_, reports) in named.items()}
        ids = [study.study_id for study in studies]
        write_scored(out / FILE, scored(ids, subjects, references, compared))
        write_whole(out / "results.json", json.dumps(results, indent=1))
        write_whole(out / "table.md", evaluation_markdown(results))
        write_whole(out / "finds.csv", finds_csv(results))
    return results


def cards_of(family: str, bundles: Path) -> list[Card]:
    """The cards of a family of bundles.

    Raises:
        StageError: there is none; the message names the nearest family that is there.
    """
    cards = BundleLibrary(bundles).cards()
    found = [card for card in cards if card.family == family]
    if not found:
        raise StageError(
            f"{bundles} has no bundle of the family '{family}'.{did_you_mean(family, {card.family for card in cards})} "
            f"Run: cxr-lens train --preset {family}"
        )
    return found


def score_texts(config: ExperimentConfig, data: StudyData, texts: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Score reports of held-out studies, by system, and the baselines; rows as `score_systems` gives them."""
    studies, references, subjects = _held_out(config, data)
    systems = {name: label_texts(each) for name, each in texts.items()}
    systems |= {name: label_texts(each) for name, (_, each) in _baselines(data, studies).items()}
    with ExitStack() as stack:
        meteor = None if java.missing() else stack.enter_context(java.Meteor())
        return score_systems(references, systems, subjects=subjects, against=NEAREST, meteor=meteor)


def _tell_other_settings(config: ExperimentConfig, cards: Sequence[Card]) -> None:
    """Pairs are scored as they write everywhere; a preset that says otherwise must not seem to be followed."""
    for card in cards:
        own = {name: card.write[name] for name in OF_THE_DATA if name in card.write}
        says, wanted = (asdict(GenerateConfig(**how)) for how in (card.write, {**to_dict(config.write), **own}))
        if other := [f"{name} {says[name]}" for name in says if says[name] != wanted[name]]:
            note(
                f"  {card.name} writes as its card says ({', '.join(other)}), not as 'write' of the preset. To put the "
                f"preset's into the card: cxr-lens rewrite-cards --preset {config.name}"
            )


def _held_out(config: ExperimentConfig, data: StudyData) -> tuple[Sequence[Study], LabeledReports, list[str]]:
    """The studies that are scored, their reports, and whose they are."""
    studies = data.studies["test"][: config.evaluate_studies or None]
    return studies, references_of(data.source, studies), [study.subject_id for study in studies]


@dataclass(frozen=True, slots=True)
class _Work:
    """What a process that writes has to know."""

    bundles: Path
    config: ExperimentConfig
    images: Path
    count: int
    device: str
    precision: Precision


def _read_all(
    cards: Sequence[Card], work: _Work, data: StudyData, jobs: int
) -> tuple[dict[str, list[str]], Baselines, dict[str, Counter[str]]]:
    """Reports by bundle, the nearest training reports by encoder, and by bundle what was said of how many images.

    An encoder that pairs share reads each image once to write.
    """
    train = data.studies["train"]
    sharing: dict[str, list[str]] = {}
    for card in cards:
        sharing.setdefault(json.dumps(card.content["encoder"].get("shared") or card.name), []).append(card.name)
    written: dict[str, list[str]] = {}
    warned: dict[str, Counter[str]] = {}
    with ExitStack() as stack, tqdm(total=len(cards), desc="evaluating", unit="pair") as bar:
        run: Callable[..., Iterator[Any]] = map
        if jobs > 1:
            splits: tuple[Split, ...] = ("test",) if len(train) > MOST_COMPARED else ("train", "test")
            for card in cards:  # images are made once, not by each process
                for split in splits:
                    data.images(split, card.image_side, card.fit)
            run = stack.enter_context(worker_pool(jobs)).map
        for texts, said in run(partial(_write, work), sharing.values()):
            written |= texts
            warned |= said
            bar.update(len(texts))
        if len(train) > MOST_COMPARED:
            return written, {}, warned
        first = first_pairs(cards)
        nearest = {
            encoder: nearest_by_embedding(train, *embedded)
            for encoder, embedded in zip(
                first, run(partial(_embed, work), [card.name for card in first.values()]), strict=True
            )
        }
    return written, nearest, warned


def _embed(work: _Work, name: str) -> tuple[Embeddings, Embeddings]:
    """Training and held-out studies as the encoder of a pair sees them, (n, D) each."""
    use_threads_for(work.config.size)
    model = BundleLibrary(work.bundles, work.device, work.precision).load(name)
    data = StudyData(work.config.data, work.images)

    def embedded(images: Embeddings) -> Embeddings:
        parts = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
        return np.concatenate([pooled_embeddings(model, to_images(np.asarray(part))) for part in parts])

    side, fit = model.image_size, model.fit
    return embedded(data.images("train", side, fit)), embedded(data.images("test", side, fit)[: work.count])


def _told(warned: Mapping[str, Counter[str]]) -> list[str]:
    """Each warning with the number of studies that it stands beside, of each pair."""
    warnings = dict.fromkeys(warning for said in warned.values() for warning in said)
    counts = {one: [f"{name} {said[one]}" for name, said in warned.items() if said[one]] for one in warnings}
    return [f"{warning} (Studies: {', '.join(each)}.)" for warning, each in counts.items()]


def _write(work: _Work, names: Sequence[str]) -> tuple[dict[str, list[str]], dict[str, Counter[str]]]:
    use_threads_for(work.config.size)
    library = BundleLibrary(work.bundles, work.device, work.precision)
    models = [library.load(name) for name in names]
    side, fit = models[0].image_size, models[0].fit
    images = StudyData(work.config.data, work.images).images("test", side, fit)[: work.count]
    texts: dict[str, list[str]] = {name: [] for name in names}
    warned = {name: Counter[str]() for name in names}
    for start in range(0, work.count, BATCH):
        batch = to_images(np.asarray(images[start : start + BATCH]))
        for name, reports in write_batch(models, lambda *_, batch=batch: batch):  # type: ignore[misc]
            texts[name] += [report.text for report in reports]
            warned[name].update(warning for report in reports for warning in report.warnings[:1])
    return texts, warned


def _baselines(data: StudyData, studies: Sequence[Study]) -> Baselines:
    train, count = data.studies["train"], len(studies)
    compared, images = (comparable(data.images(split, COMPARED_SIZE)) for split in ("train", "test"))
    return {CONSTANT: constant_report(train, count), NEAREST: nearest_reports(train, compared, images[:count])}
