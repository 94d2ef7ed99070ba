"""Explanations scored on real films: whether a map lies in the box that a radiologist drew around the finding.

For any source whose studies have boxes or masks, and any family of pairs. A report that misses a finding has no words
for it, so each box is also asked for by a sentence that is given, by the logit of FVE's classifier, and by the likeness
of CLIP's image and that sentence. Maps are compared with maps that do not look at the image: noise, the middle, and the
usual place of the finding, which is the mean box of the other patients who have it.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch.nn import functional
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.explain import targets
from core.explain.faithfulness import CELLS, sanity, stability
from core.explain.found import found as found_first
from core.explain.gradients import cam_layers
from core.explain.localisation import centre_prior, localise
from core.explain.measured import SMOOTHING
from core.explain.methods import explain, is_read_from_tokens, possible
from core.explain.on_image import on_square
from core.explain.sentences import finding_sentence, says_side
from core.explain.subject import Subject, open_subject
from core.labels.rules import label_report
from core.observations import ASSERTED, CLUSTER_OF
from core.studies.source import Source
from core.studies.sources import open_source
from core.types import SPLITS, Attribution, CXRLensError, FloatImage, Geometry, Mask, Split
from training.explain.benchmark import RANDOM_MAPS, Settings
from training.explain.film_table import compact, films_markdown, summarise
from training.explain.parts import estimate_parts, pairs_and_methods, read_part, run_parts, write_part, write_results
from training.explain.places import SIZES, Place, choose_films, fingerprint, opened, places, usual_place
from training.explain.summary import PRIORS, VARIANTS
from training.identity import content_hash, stage_identity
from training.run_folder import StageError


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to explain.

    Attributes:
        kind: a key of ``film_table.KINDS``.
        target: what is asked.
        place: of the finding.
        mask: the place on the model's square, (size, size).
        sided: whether the question names the finding's side.
    """

    kind: str
    target: targets.Target
    place: Place
    mask: Mask
    sided: bool


@dataclass(frozen=True)
class FilmJob:
    """What a process needs to compute a part.

    Attributes:
        source: key of the films.
        splits: of it that are asked.
        settings: how large.
        bundles: their folder.
        parts: where rows are kept.
        study_ids: the films.
        device: where it computes.
        speak: pairs that also answer for their encoder (logit, what is found first, likeness): one of each encoder.
    """

    source: str
    splits: tuple[Split, ...]
    settings: Settings
    bundles: Path
    parts: Path
    study_ids: tuple[str, ...]
    device: str
    speak: tuple[str, ...]


def score_films(
    family: str,
    source: str,
    bundles: Path,
    out: Path,
    settings: Settings,
    *,
    methods: Sequence[str] = (),
    names: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
) -> dict[str, Any]:
    """Compute what is missing, and write the results into ``out``: as JSON, CSV and Markdown.

    Args:
        family: of the bundles.
        source: of the films; see `core.studies.sources.open_source`.
        bundles: their folder.
        out: where parts and results go.
        settings: how large; 0 studies are all films with boxes.
        methods: keys of ``VARIANTS``; empty is all.
        names: of bundles; empty is all of the family.
        jobs: processes.
        device: where they compute; see `core.devices.open_device`.

    Raises:
        CXRLensError: the source has no boxes, none of a finding that has a sentence, a method or bundle is unknown.
    """
    job, cards, chosen, films, found = _prepare(family, source, bundles, out, settings, methods, names, device)
    parts = [(card.name, method) for card in cards for method in (*chosen, *PRIORS)]
    rows = run_parts(compute_part, job, parts, jobs, cards[0].size)
    if not rows:
        raise StageError(f"No finding of {films.title} can be asked of these pairs: their vocabularies lack its words.")
    asked = Counter(place.finding for place in found if place.study_id in job.study_ids)
    results = {
        "command": _command(family, source, settings, methods, names),
        "fingerprint": fingerprint(films, found),
        "settings": settings.plain(),
        "pairs": [card.name for card in cards],
        "films": {"title": films.title, "truth": films.truth.split(";")[0], "credit": films.credit},
        "patients": len({place.patient for place in found if place.study_id in job.study_ids}),
        "boxes": dict(asked.most_common()),
        "unknown_words": _unknown_words(job, cards),
        **summarise(rows, settings.seed),
    }
    write_results(out, results, rows, films_markdown(results), compact(results))
    return results


def estimate(
    family: str,
    source: str,
    bundles: Path,
    settings: Settings,
    *,
    methods: Sequence[str] = (),
    names: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
) -> tuple[dict[str, float], float]:
    """Time each method on two films with one pair of each encoder.

    Returns:
        Seconds a film by "encoder, method", and seconds of all of it; a guess, for films and reports differ.
    """
    job, cards, chosen, _, _ = _prepare(family, source, bundles, Path(), settings, methods, names, device)
    few = replace(job, study_ids=job.study_ids[:2])

    def explain_all(film: tuple[Subject, str], method: str) -> None:
        for question in questions(few, *film):
            _row(few, film[0], question, method, checked=False)

    count = len(job.study_ids)
    checked = settings.checked / (2 * count)
    return estimate_parts(
        cards, chosen, partial(_subjects, few), explain_all, studies=count, checked=checked, jobs=jobs
    )


def _prepare(
    family: str,
    source: str,
    bundles: Path,
    out: Path,
    settings: Settings,
    methods: Sequence[str],
    names: Sequence[str],
    device: str,
) -> tuple[FilmJob, list[Card], list[str], Source, tuple[Place, ...]]:
    cards, chosen = pairs_and_methods(family, bundles, names, methods)
    films = open_source(source)
    splits = held_out(films, cards)
    found = places(films.key, splits)
    study_ids = choose_films(found, settings.studies, settings.seed)
    speak = tuple({card.encoder: card.name for card in reversed(cards)}.values())
    job = FilmJob(films.key, splits, settings, bundles, out / "parts", study_ids, device, speak)
    return job, cards, chosen, films, found


def _command(family: str, source: str, settings: Settings, methods: Sequence[str], names: Sequence[str]) -> str:
    """As a person repeats it."""
    words = ["cxr-lens explain-benchmark", "--preset", family, "--films", source]
    words += ["--studies", str(settings.studies), "--checked", str(settings.checked)]
    words += [word for name in names for word in ("--bundle", name)]
    words += [word for method in methods for word in ("--method", method)]
    words += ["--seed", str(settings.seed)] * bool(settings.seed) + ["--precision", "bf16"] * (
        settings.precision == "bf16"
    )
    return " ".join(words)


# ---------------------------------------------------------------------------------------------------------------- films


def held_out(source: Source, cards: Sequence[Card]) -> tuple[Split, ...]:
    """All splits of films that the pairs never saw; of what they were trained on, the held-out split."""
    return ("test",) if any(source.name in _learned_from(card) for card in cards) else SPLITS


def _learned_from(card: Card) -> tuple[str, str]:
    """Names of what a pair learned from: its studies, and those from which its backbone learned before."""
    before = card.content.get("config", {}).get("backbone", {}).get("before", "none")
    return str(card.data.get("name")), str(before)


# ---------------------------------------------------------------------------------------------------------------- parts


def compute_part(job: FilmJob, name: str, method: str) -> list[dict[str, Any]]:
    """Explain all films of a pair by one method, or read what was done before."""
    card = BundleLibrary(job.bundles).card(name)
    made_of = stage_identity(
        "explanation",
        weights=card.content["sha256"],
        encoder=card.content["encoder"],
        write=card.write,
        films=fingerprint(opened(job.source), places(job.source, job.splits)),
        studies=job.study_ids,
        settings=job.settings.plain(),
        pair=name,
        method=method,
        speaks=name in job.speak,
    )
    path = job.parts / f"{name}--{method}.json"
    if (kept := read_part(path, made_of)) is not None:
        return kept
    began, left = time.perf_counter(), job.settings.checked
    rows: list[dict[str, Any]] = []
    for subject, study_id in tqdm(_subjects(job, name), desc=f"  {name}, {method}", unit="film", leave=False):
        for question in questions(job, subject, study_id):
            row = _row(job, subject, question, method, checked=left > 0)
            if row is not None:
                left -= 1
                rows.append({"encoder": card.encoder, "decoder": card.decoder, "method": method, **row})
    write_part(path, made_of, rows, time.perf_counter() - began)
    return rows


@lru_cache(maxsize=1)
def _subjects(job: FilmJob, name: str) -> tuple[tuple[Subject, str], ...]:
    """All films as a pair reads them, with its reports; the same for all methods."""
    model = BundleLibrary(job.bundles, job.device, job.settings.precision).load(name)
    source = opened(job.source)
    return tuple((open_subject(model, source.for_model(each, model.image_size)), each) for each in job.study_ids)


def questions(job: FilmJob, subject: Subject, study_id: str) -> Iterator[Question]:
    """What to ask of a film: each of its places in every way that the pair has for it."""
    name = subject.model.card.name
    states = label_report(" ".join(subject.report.words)).states
    for place in places(job.source, job.splits):
        if place.study_id != study_id:
            continue
        mask = _mask(job, place, subject.geometry)
        observation = place.observations[0]
        named = next((each for each in place.observations if states[each] in ASSERTED), "")
        if named:
            yield Question("sentence", targets.mention_sentence(subject, named), place, mask, sided=False)
        text, sided = finding_sentence(observation, place.side, place.finding), says_side(observation)
        with contextlib.suppress(CXRLensError):  # a word that the pair never learned; the results name it
            yield Question("given", targets.given(subject, text), place, mask, sided)
        if name not in job.speak:
            continue
        with contextlib.suppress(CXRLensError):  # a pair that finds nothing first, or never this
            yield Question("found", found_first(subject, observation), place, mask, sided=False)
        classes = _classes(job, name)
        if observation in classes:
            yield Question("logit", targets.logit(subject, "cdc", observation, classes), place, mask, sided=False)
        if any(hasattr(part, "clip") for part in subject.model.encoder.parts()):
            cluster = None if subject.visual.grids else CLUSTER_OF[observation]
            yield Question("likeness", targets.similarity(subject, text, cluster), place, mask, sided)


@lru_cache(maxsize=8)
def _classes(job: FilmJob, name: str) -> tuple[str, ...]:
    """Names of the observations that the encoder's classifier has a logit of; none of an encoder without one."""
    return BundleLibrary(job.bundles).classes(name).get("cdc", ())


def _unknown_words(job: FilmJob, cards: Sequence[Card]) -> dict[str, list[str]]:
    """By pair: the sentences that it cannot be asked for, as its vocabulary lacks a word of them."""
    from core.text import Vocabulary, tokenize

    asked = {
        finding_sentence(place.observations[0], place.side, place.finding)
        for place in places(job.source, job.splits)
        if place.study_id in set(job.study_ids)
    }
    found = {}
    for card in cards:
        known = set(Vocabulary.load(job.bundles / card.name / "vocab.json").words)
        lacking = sorted(text for text in asked if not set(tokenize(text)) <= known)
        if lacking:
            found[card.name] = lacking
    return found


def content_of(geometry: Geometry) -> tuple[int, int, int, int]:
    """Where a film lies on the model's square: top, left, height, width in pixels."""
    top, left, height, width = (round(part * geometry.size) for part in geometry.content)
    return top, left, max(min(height, geometry.size - top), 1), max(min(width, geometry.size - left), 1)


def _mask(job: FilmJob, place: Place, geometry: Geometry) -> Mask:
    """A place on the model's square, (size, size); padding is outside."""
    top, left, height, width = content_of(geometry)
    mask: Mask = np.zeros((geometry.size, geometry.size), dtype=np.bool_)
    for each in opened(job.source).masks(place.study_id, (height, width)):
        if each.name == place.finding:
            mask[top : top + height, left : left + width] |= each.mask
    return mask


# --------------------------------------------------------------------------------------------------------------- scores


def _row(job: FilmJob, subject: Subject, question: Question, method: str, *, checked: bool) -> dict[str, Any] | None:
    """All numbers of one question; None where the method cannot answer it."""
    if method in PRIORS:
        found = [score(each, question.mask) for each in _priors(job, subject, question, method)]
        measured = {name: float(np.mean([each[name] for each in found])) for name in (found[0] if found else {})}
    else:
        options = _options(job, subject, question, method)
        if options is None:
            return None

        def run(of: Subject) -> tuple[Attribution, ...]:
            return explain(of, question.target, VARIANTS[method].method, **options)

        explained = run(subject)
        measured = score(explained, question.mask)
        if checked:
            measured["sanity"] = sanity(subject, explained, run, seed=job.settings.seed)
            measured["stability"] = stability(subject, explained, run, seed=job.settings.seed)
    if not measured:
        return None
    place = question.place
    covered = float(place.mask.mean())
    return {
        "study": place.study_id,
        "patient": place.patient,
        "kind": question.kind,
        "finding": place.finding,
        "size": next(name for limit, name in SIZES if covered < limit),
        **measured,
    }


def score(found: Sequence[Attribution], mask: Mask) -> dict[str, float]:
    """How well a map fits a mask on the model's square, (size, size); maps are smoothed as everywhere."""
    size = mask.shape[0]
    return asdict(localise(gaussian_filter(on_square(found, size), SMOOTHING * size), mask))


def _options(job: FilmJob, subject: Subject, question: Question, method: str) -> dict[str, Any] | None:
    """How a method is run so that it gives a map of places; None where it gives none."""
    variant = VARIANTS[method]
    over = possible(subject, question.target).get(variant.method, ())
    if is_read_from_tokens(question.target) and not subject.visual.grids:  # they would be asked by filter
        over = tuple(each for each in over if each == "pixels")
    wanted = variant.options.get("over", over[0] if over else None)
    if wanted not in over:
        return None
    options = {**variant.options, "over": wanted}
    if method in ("smoothgrad", "random-masks"):
        options["seed"] = job.settings.seed
    if method == "layer-grad-cam":
        layers = cam_layers(subject, question.target)
        if len(layers) < 2:
            return None
        options["layer"] = layers[-2]
    return options


def _priors(job: FilmJob, subject: Subject, question: Question, prior: str) -> Iterator[tuple[Attribution, ...]]:
    """Maps that do not look at the image."""
    geometry = subject.geometry

    def as_map(values: FloatImage) -> tuple[Attribution, ...]:
        return (Attribution(values, False, prior, question.target.name, geometry),)

    if prior == "random":
        place = question.place
        text = f"{job.settings.seed} {place.study_id} {question.kind} {place.finding}"
        generator = np.random.default_rng(int(content_hash(text), 16))
        for _ in range(RANDOM_MAPS):
            yield as_map(generator.random((CELLS, CELLS)).astype(np.float32))
    elif prior == "centre":
        yield as_map(centre_prior(geometry.size))
    else:
        usual = usual_place(places(job.source, job.splits), question.place, of_its_side=question.sided)
        if usual is not None:
            top, left, height, width = content_of(geometry)
            values = np.zeros((geometry.size, geometry.size), dtype=np.float32)
            fitted = functional.interpolate(torch.from_numpy(usual)[None, None], size=(height, width), mode="bilinear")
            values[top : top + height, left : left + width] = fitted[0, 0].numpy()
            yield as_map(values)
