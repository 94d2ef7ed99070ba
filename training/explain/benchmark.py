"""Whether explanations mean anything, measured on the phantom, where the true place of every finding is known.

Each method explains what each pair wrote of findings that are really there. The results are compared with maps that
do not look at the image, and with random rankings. A part is one pair with one method; parts that are done are kept.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.config import ExperimentConfig
from core.devices import Precision
from core.explain import targets
from core.explain.faithfulness import CELLS, cover_curve, erasure, sanity, stability, token_values
from core.explain.gradients import cam_layers
from core.explain.localisation import centre_prior, localise
from core.explain.measured import SMOOTHING
from core.explain.methods import explain, possible
from core.explain.on_image import on_square
from core.explain.subject import Subject, open_subject
from core.labels.rules import label_report
from core.observations import ASSERTED, CLUSTERS
from core.studies.phantom import PhantomSource, PhantomStudy
from core.types import Attribution, FloatImage, Mask
from training.explain.parts import estimate_parts, pairs_and_methods, read_part, run_parts, write_part, write_results
from training.explain.summary import PRIORS, VARIANTS, benchmark_markdown, compact, summarise
from training.identity import content_hash, stage_identity
from training.run_folder import StageError

RANDOM_MAPS, RANDOM_RANKINGS = 3, 20
"""Draws that stand for one random map, and for one random ranking of filters."""

FEW = 3
"""Other studies with a finding that make a usual ranking of filters for it."""

USUAL_MASKS = 20
"""Training studies behind the usual place of an observation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How large the benchmark is.

    Attributes:
        studies: held-out studies with a visible finding.
        checked: findings of each part that also get the two costly checks (randomised model, noisy image).
        seed: of methods, baselines and checks.
        precision: in which the reports are written; all explanations compute in fp32 (`core.explain.subject`).
    """

    studies: int
    checked: int
    seed: int
    precision: Precision = "fp32"

    def plain(self) -> dict[str, Any]:
        """As results and keys have it: the precision only where it is another than always before."""
        return {name: value for name, value in asdict(self).items() if (name, value) != ("precision", "fp32")}


@dataclass(frozen=True, slots=True)
class Question:
    """One thing to explain.

    Attributes:
        kind: a key of ``KINDS``.
        target: what is asked.
        observation: the finding; "" for whole texts.
        severity: of its worst fact.
        mask: its true place; None for whole texts.
    """

    kind: str
    target: targets.Target
    observation: str = ""
    severity: str = ""
    mask: Mask | None = None


@dataclass(frozen=True)
class Job:
    """What a process needs to compute a part."""

    config: ExperimentConfig
    settings: Settings
    bundles: Path
    parts: Path
    study_ids: tuple[str, ...]
    device: str


def explain_benchmark(
    config: ExperimentConfig,
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
        config: of the preset whose bundles are explained.
        bundles: their folder.
        out: where parts and results go.
        settings: how large.
        methods: keys of ``VARIANTS``; empty is all.
        names: of bundles; empty is all of the preset's family.
        jobs: processes.
        device: where they compute; see `core.devices.open_device`.

    Raises:
        CXRLensError: the preset's studies have no known truth, a method or bundle is unknown, or no report mentions a
            finding.
    """
    job, cards, chosen = _prepare(config, bundles, out, settings, methods, names, device)
    parts = [(card.name, method) for card in cards for method in (*chosen, *PRIORS)]
    rows = run_parts(compute_part, job, parts, jobs, config.size)
    if not rows:
        raise StageError(
            f"There is nothing to explain: no report mentions a finding of the {settings.studies} studies. Ask for "
            "more with --studies; a pair that mentions none at all has learned too little."
        )
    results = {
        "command": f"cxr-lens explain-benchmark --preset {config.name} --studies {settings.studies} "
        f"--checked {settings.checked}" + f" --precision {settings.precision}" * (settings.precision != "fp32"),
        "fingerprint": PhantomSource(config.data.count, config.data.seed).fingerprint(),
        "settings": settings.plain(),
        "pairs": [card.name for card in cards],
        **summarise(rows, settings.seed),
    }
    write_results(out, results, rows, benchmark_markdown(results), compact(results))
    return results


def estimate(
    config: ExperimentConfig,
    bundles: Path,
    settings: Settings,
    *,
    methods: Sequence[str] = (),
    names: Sequence[str] = (),
    jobs: int = 1,
    device: str = "cpu",
) -> tuple[dict[str, float], float]:
    """Time each method on two studies of one pair an encoder.

    Returns:
        Seconds a study by "encoder, method", and seconds of the whole benchmark; a guess, for studies differ.
    """
    job, cards, chosen = _prepare(config, bundles, Path(), settings, methods, names, device)

    def explain_all(study: tuple[Subject, PhantomStudy], method: str) -> None:
        for question in questions(*study):
            found = _explained(job, study[0], question, method)
            _row(job, *study, question, method, found, checked=False)

    checked = settings.checked / (3 * settings.studies)  # about one question in three is a finding of its own
    return estimate_parts(
        cards,
        chosen,
        lambda name: _subjects(job, name)[:2],
        explain_all,
        studies=settings.studies,
        checked=checked,
        jobs=jobs,
    )


def _prepare(
    config: ExperimentConfig,
    bundles: Path,
    out: Path,
    settings: Settings,
    methods: Sequence[str],
    names: Sequence[str],
    device: str,
) -> tuple[Job, list[Card], list[str]]:
    if config.data.source != "phantom":
        raise StageError(f"The true place of a finding is known on the phantom only, not on '{config.data.source}'.")
    cards, chosen = pairs_and_methods(config.name, bundles, names, methods)
    study_ids = visible_studies(PhantomSource(config.data.count, config.data.seed), settings.studies)
    job = Job(config, settings, bundles, out / "parts", study_ids, device)
    return job, cards, chosen


def visible_studies(source: PhantomSource, count: int) -> tuple[str, ...]:
    """The first held-out studies with a finding that is more than subtle.

    Raises:
        StageError: there are fewer.
    """
    if not count:
        raise StageError("0 studies were asked for. All are taken of real films only: --films.")
    found: list[str] = []
    for study_id in source.study_ids:
        if source.study(study_id).split == "test" and any(fact.severity != "subtle" for fact in source.facts(study_id)):
            found.append(study_id)
            if len(found) == count:
                return tuple(found)
    raise StageError(f"There are {len(found)} held-out studies with a visible finding, {count} were asked for.")


# ---------------------------------------------------------------------------------------------------------------- parts


def compute_part(job: Job, name: str, method: str) -> list[dict[str, Any]]:
    """Explain all studies of a pair by one method, or read what was done before."""
    library = BundleLibrary(job.bundles)
    card = next(card for card in library.cards() if card.name == name)
    made_of = stage_identity(
        "explanation",
        weights=card.content["sha256"],
        encoder=card.content["encoder"],
        write=card.write,
        data=_source(job).fingerprint(),
        studies=job.study_ids,
        settings=job.settings.plain(),
        pair=name,
        method=method,
    )
    path = job.parts / f"{name}--{method}.json"
    if (kept := read_part(path, made_of)) is not None:
        return kept
    rows: list[dict[str, Any]] = []
    rankings: list[_Ranked] = []
    began, left = time.perf_counter(), job.settings.checked
    for subject, phantom in tqdm(_subjects(job, name), desc=f"  {name}, {method}", unit="study", leave=False):
        for question in questions(subject, phantom):
            found = _explained(job, subject, question, method)
            row = _row(job, subject, phantom, question, method, found, checked=left > 0)
            if row is not None:
                left -= question.mask is not None
                rows.append({"encoder": card.encoder, "decoder": card.decoder, "method": method, **row})
                values = token_values(subject, found) if found and not subject.visual.grids else None
                if values is not None:
                    rankings.append(_Ranked(len(rows) - 1, subject, question, values))
    for place, value in _by_usual_ranking(rankings, rows):
        rows[place]["usual_ranking"] = value
    write_part(path, made_of, rows, time.perf_counter() - began)
    return rows


@lru_cache(maxsize=1)
def _subjects(job: Job, name: str) -> tuple[tuple[Subject, PhantomStudy], ...]:
    """All studies as a pair reads them, with its reports; the same for all methods."""
    model = BundleLibrary(job.bundles, job.device, job.settings.precision).load(name)
    opened = []
    for study_id in job.study_ids:
        phantom = _source(job).phantom(study_id, model.image_size)
        opened.append((open_subject(model, phantom.image), phantom))
    return tuple(opened)


@lru_cache(maxsize=1)
def _source(job: Job) -> PhantomSource:
    return PhantomSource(job.config.data.count, job.config.data.seed)


def questions(subject: Subject, phantom: PhantomStudy) -> Iterator[Question]:
    """What to explain of a study: its visible findings that the report asserts, and whole texts."""
    states = label_report(" ".join(subject.report.words)).states
    for observation in dict.fromkeys(fact.observation for fact in phantom.facts):
        facts = [fact for fact in phantom.facts if fact.observation == observation and fact.severity != "subtle"]
        mask = np.any([phantom.masks[fact.id] for fact in facts], axis=0)
        if not mask.any() or states[observation] not in ASSERTED:
            continue  # not to be seen, or missed by the report: there is nothing to explain
        worst = max(facts, key=lambda fact: fact.extent).severity or "present"
        ask = partial(Question, observation=observation, severity=worst, mask=mask)
        yield ask("mention", targets.mention(subject, observation))
        yield ask("sentence", targets.mention_sentence(subject, observation))
        if "fve.cdc" in subject.visual.sources:
            yield ask("logit", targets.logit(subject, "cdc", observation))
    if not subject.visual.grids:
        yield Question("report", targets.whole_report(subject))
        yield Question("reference", targets.reference(subject, phantom.study.findings))


@dataclass(frozen=True, slots=True)
class _Ranked:
    """How a method ranked CCVE's filters for a question; ``row`` is the place of its numbers."""

    row: int
    subject: Subject
    question: Question
    values: npt.NDArray[np.float64]


def _by_usual_ranking(ranked: Sequence[_Ranked], rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, float]]:
    """Comprehensiveness of the method's mean ranking of the other studies: what does not look at this image.

    Of the same kind of question, and about the same observation where at least ``FEW`` other studies have it.
    """
    for each in ranked:
        if not isinstance(each.question.target, targets.WordTarget):
            continue
        here = rows[each.row]["study"]
        others = [o for o in ranked if rows[o.row]["study"] != here and o.question.kind == each.question.kind]
        alike = [o for o in others if o.question.observation == each.question.observation]
        chosen = alike if len({rows[o.row]["study"] for o in alike}) >= FEW else others
        if chosen:
            usual = np.mean([o.values for o in chosen], axis=0)
            yield each.row, erasure(each.subject, each.question.target, usual).comprehensiveness


def _options(job: Job, subject: Subject, question: Question, method: str) -> dict[str, Any]:
    options = dict(VARIANTS[method].options)
    if method in ("smoothgrad", "random-masks"):
        options["seed"] = job.settings.seed
    if method == "layer-grad-cam":
        options["layer"] = cam_layers(subject, question.target)[-2]
    return options


def _explained(job: Job, subject: Subject, question: Question, method: str) -> tuple[Attribution, ...]:
    """What a method answers; nothing of what does not look at the image, or cannot answer."""
    if method in PRIORS or not _can(subject, question, method):
        return ()
    options = _options(job, subject, question, method)
    return explain(subject, question.target, VARIANTS[method].method, **options)


def _row(
    job: Job,
    subject: Subject,
    phantom: PhantomStudy,
    question: Question,
    method: str,
    explained: tuple[Attribution, ...],
    *,
    checked: bool,
) -> dict[str, Any] | None:
    """All numbers of one question; None where the method cannot answer it."""
    seed = job.settings.seed
    if method in PRIORS:
        found = [_measure(subject, question, each) for each in _prior(job, subject, phantom, question, method)]
        measured = {name: float(np.mean([each[name] for each in found])) for name in (found[0] if found else {})}
    elif not explained:
        return None
    else:
        measured = _measure(subject, question, explained) | _told(explained)
        if checked and question.mask is not None:
            options = _options(job, subject, question, method)

            def run(of: Subject) -> tuple[Attribution, ...]:
                return explain(of, question.target, VARIANTS[method].method, **options)

            measured["sanity"] = sanity(subject, explained, run, seed=seed)
            measured["stability"] = stability(subject, explained, run, seed=seed)
    if not measured:
        return None
    about = {"kind": question.kind, "observation": question.observation, "severity": question.severity}
    return {"study": phantom.study.study_id, **about, **measured}


def _told(found: Sequence[Attribution]) -> dict[str, float]:
    """What a method tells of itself: the share of attention for the image, the share that is missing to a sum."""
    details, told = found[0].details, dict[str, float]()
    if "image" in details:
        told["image"] = details["image"]
    if "convergence_delta" in details:
        total = float(sum(each.values.sum() for each in found)) - details["convergence_delta"]
        told["missing"] = abs(details["convergence_delta"]) / max(abs(total), 1e-9)
    return told


def _can(subject: Subject, question: Question, method: str) -> bool:
    """Whether a run serves a question; of CCVE, which has no image cells, only filters are asked, as they come."""
    over, wanted = (
        possible(subject, question.target).get(VARIANTS[method].method, ()),
        VARIANTS[method].options.get("over"),
    )
    if not subject.visual.grids:
        return over[:1] == ("tokens",) and wanted is None
    return bool(over) and wanted in (None, *over)


def _measure(subject: Subject, question: Question, found: Sequence[Attribution]) -> dict[str, float]:
    measured: dict[str, float] = {}
    if any(each.geometry is not None for each in found):
        if question.mask is not None:
            size = question.mask.shape[0]
            values = gaussian_filter(on_square(found, size), SMOOTHING * size)
            measured.update(asdict(localise(values, question.mask)))
        for kind in ("deletion", "insertion"):
            measured[kind] = cover_curve(subject, question.target, found, kind).area  # type: ignore[arg-type]
    values = token_values(subject, found)
    if values is not None and isinstance(question.target, targets.WordTarget):
        measured.update(asdict(erasure(subject, question.target, values)))
    return measured


def _prior(
    job: Job, subject: Subject, phantom: PhantomStudy, question: Question, prior: str
) -> Iterator[tuple[Attribution, ...]]:
    """Explanations that do not look at the image."""
    ask = partial(Attribution, signed=False, method=prior, target=question.target.name)
    if prior == "random":
        text = f"{job.settings.seed} {phantom.study.study_id} {question.kind} {question.observation}"
        generator = np.random.default_rng(int(content_hash(text), 16))
        for _ in range(RANDOM_MAPS if subject.visual.grids else RANDOM_RANKINGS):
            shape = (CELLS, CELLS) if subject.visual.grids else (len(CLUSTERS),)
            values = generator.random(shape).astype(np.float32)
            yield (ask(values, geometry=subject.geometry) if subject.visual.grids else ask(values, source="ccve"),)
    elif subject.visual.grids and prior == "centre":
        yield (ask(centre_prior(subject.geometry.size), geometry=subject.geometry),)
    elif subject.visual.grids and question.mask is not None:
        usual = _usual_places(job, question.mask.shape[0])[question.observation]
        yield (ask(usual, geometry=subject.geometry),)


@lru_cache(maxsize=4)
def _usual_places(job: Job, size: int) -> dict[str, FloatImage]:
    """Mean mask of each observation in training studies, (size, size)."""
    source, found = _source(job), dict[str, list[Mask]]()
    for study_id in source.study_ids:
        seen = {fact.observation for fact in source.facts(study_id)}
        wanted = {name for name in seen if len(found.get(name, ())) < USUAL_MASKS}
        if not wanted or source.study(study_id).split != "train":
            continue
        phantom = source.phantom(study_id, size)
        for name in sorted(wanted):
            masks = [phantom.masks[fact.id] for fact in phantom.facts if fact.observation == name]
            found.setdefault(name, []).append(np.any(masks, axis=0))
    return {name: np.mean(masks, axis=0, dtype=np.float32) for name, masks in found.items()}
