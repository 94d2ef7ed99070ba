"""An evaluation of one's own studies: a source and systems in; reports, scores and facts out, in the user's folder.

A folder an evaluation, named by what was asked for, with ``about.json`` (that), ``reports.jsonl`` (what pairs wrote, as
`core.evaluation.writing` writes it: interrupted, it goes on; beside it what other systems wrote), ``studies.jsonl``
(what is known of each study) and, once it is whole, ``results.json``. It holds patients' reports, so only its owner may
read it.

``python -m core.evaluation.own FOLDER`` is the process of an `EvaluationJob`.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from core import paths
from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.devices import named_device, named_precision
from core.evaluation.reports import Known, read_evaluation, write_labels
from core.evaluation.results import (
    COMPARED_SIZE,
    CONSTANT,
    MOST_COMPARED,
    NEAREST,
    VERSION,
    Baselines,
    comparable,
    constant_report,
    first_pairs,
    label_baselines,
    nearest_by_embedding,
    nearest_reports,
    references_of,
    reports_of_all,
    row_of,
    score_pairs,
    truth_of,
)
from core.evaluation.scoring import LabeledReports
from core.evaluation.writing import Work, write_source
from core.files import hash_of, is_unfinished, own_folder, read_json_lines, write_whole
from core.jobs import Job, Progress, work
from core.labels.rules import RULES_VERSION
from core.observations import OBSERVATIONS, LabelState
from core.studies.model_image import grey_levels, of_study
from core.studies.source import ByStudy, Source
from core.studies.sources import open_source
from core.systems.added import system
from core.systems.system import System
from core.types import CXRLensError, Split, Study
from core.wording import counted

if TYPE_CHECKING:
    from core.bundles.pair import ReportModel

_VERSION = (VERSION, 3)  # raise the second when the same reports get other results
_SHARE = 0.8  # ours: of the progress, for writing; the rest is scoring
_AT_ONCE = 256  # images in memory
_EMBEDDED_AT_ONCE = 32
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Asked:
    """What an evaluation is of.

    Attributes:
        source: key of the source.
        title: of the source, for the reader.
        split: whose studies; None is all.
        bundles: folder of the bundles.
        family: of the pairs; of several, all their names; "" without pairs.
        pairs: name of the bundle -> its files' hashes, and how it writes: trained anew, or with other settings, it is
            another.
        systems: name of another system -> its `System.content_hash`.
    """

    source: str
    title: str
    split: Split | None
    bundles: str
    family: str
    pairs: Mapping[str, Mapping[str, str]]
    systems: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Of all systems, pairs first."""
        return (*self.pairs, *self.systems)

    @property
    def folder(self) -> Path:
        """Where it is, or will be: by what decides it."""
        parts: list[Any] = [self.source, self.split, self.family, dict(sorted(self.pairs.items()))]
        parts += [dict(sorted(self.systems.items()))] if self.systems else []
        return home() / hash_of(parts, 16)

    @property
    def whole(self) -> bool:
        """Whether it was finished."""
        return (self.folder / "results.json").is_file()

    def work(self) -> Work:
        """What is to be written, where and as the environment says (`core.devices`)."""
        device, precision = named_device(), named_precision()
        return Work(self.source, self.split, Path(self.bundles), tuple(self.pairs), device=device, precision=precision)


def home() -> Path:
    """Where evaluations are kept: ``CXR_EVALUATIONS``, or "evaluations" in the user's data folder."""
    return Path(os.environ.get("CXR_EVALUATIONS") or paths.own_data() / "evaluations").resolve()


def ask(
    source: Source, cards: Sequence[Card], bundles: Path, split: Split | None = None, others: Sequence[System] = ()
) -> Asked:
    """Say what is to be evaluated; nothing is done yet.

    Args:
        source: whose studies.
        cards: of the pairs.
        bundles: their folder.
        split: whose studies; None is all.
        others: further systems, that were added.

    Raises:
        CXRLensError: there is no system.
    """
    if not cards and not others:
        raise CXRLensError("Choose at least one model, file of reports or program.")
    family = ", ".join(sorted({card.family for card in cards}))
    pairs = {card.name: card.made_of for card in cards}
    systems = {each.name: each.content_hash() for each in others}
    return Asked(source.key, source.title, split, str(Path(bundles).resolve()), family, pairs, systems)


def evaluations() -> list[Asked]:
    """The evaluations in the user's folder, whole ones and begun ones, the latest first; `damaged` names the others."""
    return _all()[0]


def damaged() -> dict[str, str]:
    """What is wrong with each evaluation of the user's folder that cannot be used, by the name of its folder."""
    return _all()[1]


def _all() -> tuple[list[Asked], dict[str, str]]:
    found, damaged = [], {}
    for path in home().glob("*/about.json"):
        if is_unfinished(path.parent):
            continue
        try:
            asked = _read_asked(path)
            if asked.folder == path.parent:
                found.append((path.stat().st_mtime, asked))
        except (OSError, ValueError, TypeError) as error:
            what = getattr(error, "strerror", None) or error
            damaged[path.parent.name] = (
                f"The evaluation {path.parent.name} cannot be used: its about.json is damaged ({what}). Remove the "
                f"folder {path.parent}, and evaluate again."
            )
    return [asked for _, asked in sorted(found, key=lambda each: -each[0])], damaged


def _read_asked(path: Path) -> Asked:
    from core import schemas  # brings pydantic, which takes a while

    return Asked(**schemas.read_json(path, schemas.Asked))


class EvaluationJob(Job):
    """A process that writes and scores. What it has written is kept, so another one goes on where it ended."""

    def __init__(self, asked: Asked) -> None:
        """Start the process.

        Raises:
            CXRLensError: the user's folder cannot be written.
        """
        self.asked = asked
        folder = asked.folder / f"job-{os.getpid()}-{time.monotonic_ns()}"
        _make(folder, asked)
        super().__init__("core.evaluation.own", folder, "The evaluation", "What is written is kept: go on with it.")


def _make(folder: Path, asked: Asked) -> None:
    """Make a folder in that of an evaluation, or that itself, and say there what was asked for."""
    try:
        own_folder(folder)
    except OSError as error:
        raise CXRLensError(
            f"Evaluations cannot be kept in {home()} ({error.strerror}). Set CXR_EVALUATIONS to a folder that can be "
            "written."
        ) from error
    write_whole(asked.folder / "about.json", json.dumps(asdict(asked), indent=1))


def evaluate_source(asked: Asked, progress: Progress) -> None:
    """Gather the reports, and score them, as far as that is not done yet.

    Raises:
        CXRLensError: the source or a system cannot be opened, one is another than was asked for, no study can be read,
            or systems have reports of no common study.
    """
    folder = asked.folder
    source = open_source(asked.source)
    cards = [card for card in BundleLibrary(Path(asked.bundles)).cards() if card.name in asked.pairs]
    if any(card.made_of != asked.pairs[card.name] for card in cards):
        raise CXRLensError("The bundles were changed meanwhile. Begin again with those that are there now.")
    others = [system(name) for name in asked.systems]
    if changed := [each.title for each in others if each.content_hash() != asked.systems[each.name]]:
        raise CXRLensError(f"{', '.join(changed)}: changed meanwhile. Begin again with what is there now.")
    _make(folder, asked)
    progress(0.0, "Opening the studies and the models")
    key, written, told = _write_pairs(asked, source, progress)
    made = [key, RULES_VERSION, *_VERSION, *sorted(asked.systems.values())]
    if _made(folder) == made:
        return
    given, places, more = reports_of_all(
        others, source, [row["study_id"] for row in written], lambda what: progress(_SHARE, what)
    )
    told = [source.caution, *told, *more] if source.caution else told + more
    others = [each for each in others if each.name in given]
    made += ["not all"] * (len(given) < len(asked.systems))  # it is tried again when it is asked for again
    rows = [written[place] | {name: texts[at] for name, texts in given.items()} for at, place in enumerate(places)]
    studies = [source.study(row["study_id"]) for row in rows]
    if others:
        lines = [
            row | ({"reference": study.findings} if source.has_reports else {})
            for row, study in zip(rows, studies, strict=True)
        ]
        write_whole(folder / "reports.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    progress(_SHARE, "Reading what the reports say")
    write_labels(folder / "reports.jsonl")
    _score(asked, source, cards, others, studies, told, made, progress)


def _write_pairs(asked: Asked, source: Source, progress: Progress) -> tuple[str, list[dict[str, str]], list[str]]:
    """What names the pairs' reports; a row a study with them, or with its id only; and what is to be said."""
    if not asked.pairs:
        return source.fingerprint(), [{"study_id": each} for each in source.all_ids(asked.split)], []
    out = asked.folder / ("pairs.jsonl" if asked.systems else "reports.jsonl")

    def say(done: int, total: int) -> None:
        progress(_SHARE * done / total, f"Writing: {done:,} of {total:,} studies")

    census = write_source(asked.work(), out, progress=say)
    key = json.loads(out.with_name(f"{out.name}.about.json").read_text(encoding="utf-8"))["key"]  # written just now
    rows = [row for _, row in read_json_lines(out)]
    if census.unreadable and not rows:
        name, why = next(iter(census.unreadable.items()))
        asked_for = counted(census.studies, "study", "studies")
        raise CXRLensError(f"Of {asked_for} none has an image that can be read. {name}: {why}")
    told = list(census.told)
    if census.unreadable:
        first = "; ".join(f"{name}: {why}" for name, why in islice(census.unreadable.items(), _NAMED))
        told.append(f"{len(census.unreadable)} of {census.studies} studies have no image that can be read: {first}")
    if census.warned:
        name, said = next(iter(census.warned.items()))
        told.append(f"{len(census.warned)} of {census.studies} studies have a warning. The first, {name}: {said[0]}")
    return key, rows, told


def _made(folder: Path) -> Any:
    from core import schemas  # brings pydantic, which takes a while

    try:
        return schemas.read_json(folder / "results.json", schemas.Results)["made"]
    except (OSError, ValueError, KeyError):
        return None


def _score(
    asked: Asked,
    source: Source,
    cards: Sequence[Card],
    others: Sequence[System],
    studies: Sequence[Study],
    told: list[str],
    made: Sequence[Any],
    progress: Progress,
) -> None:
    found = read_evaluation(asked.folder / "reports.jsonl")
    places = [place for place, study in enumerate(studies) if study.findings.strip()]
    referenced = bool(places)
    if referenced and len(places) < len(studies):
        told.append(
            f"{counted(len(studies) - len(places), 'study has', 'studies have')} no findings in the report: left out."
        )
    places = places or list(range(len(studies)))
    studies = [studies[place] for place in places]
    _write_facts(asked.folder / "studies.jsonl", source, studies)
    results: dict[str, Any] = {"rows": [], "baselines": [], "published": {}}
    subjects = [study.subject_id for study in studies]
    if not referenced:
        told.append("These studies have no reference reports, so there is nothing to score against.")
    elif len(set(subjects)) < 2:
        told.append("One patient alone has no scores: they are means over several.")
    else:
        baselines, nearest, lacking = _baselines(asked, source, studies, cards, progress)
        told += lacking
        progress(0.9, "Scoring")
        written = {
            name: LabeledReports([texts[place] for place in places], [found.states[name][place] for place in places])
            for name, texts in found.texts.items()
        }
        references = references_of(source, studies)
        results = score_pairs(
            cards,
            references,
            subjects,
            written,
            label_baselines(baselines),
            truth_of(source),
            nearest=label_baselines(nearest),
            others=[row_of(each) for each in others],
        )
    seeds = {str(card.content.get("config", {}).get("seed", "not recorded")) for card in cards}
    content = {
        "family": asked.family,
        "studies": len(studies),
        "seed": ", ".join(sorted(seeds)) or "none: nothing was trained",
        "fingerprint": source.fingerprint(),
        "source": asked.source,
        "title": asked.title,
        "told": told,
        "made": made,
        **results,
    }
    write_whole(asked.folder / "results.json", json.dumps(content, indent=1))


# ---------------------------------------------------------------------------------------------------------- baselines


def _baselines(
    asked: Asked, source: Source, studies: Sequence[Study], cards: Sequence[Card], progress: Progress
) -> tuple[Baselines, Baselines, list[str]]:
    """Baselines without a model, the nearest training report by encoder, and why some are left out."""
    train = source.ids("train") if asked.split not in ("train", None) else ()
    if not train:
        return (
            {},
            {},
            ["Without a training split beside these studies there is no constant and no nearest training report."],
        )
    if not asked.pairs and len(train) > MOST_COMPARED:
        why = f"The constant report is left out: {len(train):,} training reports would have to be read for it."
        return {}, {}, [why]
    known = [study for study in source.studies("train") if study.findings.strip()]
    if not known:
        return {}, {}, ["No training study has a report: there is no constant and no nearest training report."]
    constant = {CONSTANT: constant_report(known, len(studies))}
    if not asked.pairs:
        return constant, {}, ["The nearest training report is left out: no model read the images of these studies."]
    if len(known) > MOST_COMPARED:
        why = f"The nearest training report is left out: of {len(known):,} training studies it would take hours."
        return constant, {}, [why]
    kept, compared = _images(source, known, progress)
    there, images = _images(source, studies, progress)
    if not kept or len(there) < len(studies):
        return constant, {}, ["The nearest training report is left out: images of these studies cannot be read."]
    library = BundleLibrary(Path(asked.bundles))
    nearest: dict[str, tuple[str, list[str]]] = {}
    for encoder, card in first_pairs(cards).items():
        model = library.load(card.name)
        embedded = [_embeddings(source, model, each, progress) for each in (kept, studies)]
        nearest[encoder] = nearest_by_embedding(kept, *embedded)
    return constant | {NEAREST: nearest_reports(kept, compared, images)}, nearest, []


def _embeddings(
    source: Source, model: ReportModel, studies: Sequence[Study], progress: Progress
) -> npt.NDArray[np.float32]:
    """Studies as an encoder sees them, (n, D)."""
    import torch

    from core.bundles.inference import pooled_embeddings

    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(studies), _EMBEDDED_AT_ONCE):
        progress(_SHARE, f"Looking for the nearest training study: {start:,} of {len(studies):,} images")
        part = studies[start : start + _EMBEDDED_AT_ONCE]
        images = np.stack([model.reads(of_study(source, study.study_id)) for study in part])
        found.append(pooled_embeddings(model, torch.from_numpy(images).unsqueeze(1)))
    return np.concatenate(found)


def _images(
    source: Source, studies: Sequence[Study], progress: Progress
) -> tuple[list[Study], npt.NDArray[np.float32]]:
    """Studies whose images can be read, and these, to be compared: (n, D)."""
    kept: list[Study] = []
    found: list[npt.NDArray[np.float32]] = []
    for start in range(0, len(studies), _AT_ONCE):
        progress(_SHARE, f"Comparing with training studies: {start:,} of {len(studies):,} images")
        part: list[npt.NDArray[np.uint8]] = []
        for study in studies[start : start + _AT_ONCE]:
            try:
                part.append(grey_levels(source.image(study.study_id, COMPARED_SIZE)))
            except CXRLensError:
                continue
            kept.append(study)
        if part:
            found.append(comparable(np.stack(part)))
    return kept, np.concatenate(found) if found else np.zeros((0, 1), dtype=np.float32)


# --------------------------------------------------------------------------------------------------- facts of studies


def facts_of(source: Source, study: Study) -> Known:
    """What is known of a study of a source beside the texts."""
    split = {"Split": study.split} if len(source.splits()) > 1 else {}
    return Known(study.subject_id, study.labels, source.traits(study) | split, study.fine_labels)


def known_of(source: Source) -> Mapping[str, Known]:
    """What is known of the studies of a source, by id; each is asked for when it is needed."""
    return ByStudy(source.all_ids(), lambda study_id: facts_of(source, source.study(study_id)))


def read_facts(path: Path) -> dict[str, Known]:
    """What an evaluation keeps of its studies.

    Raises:
        CXRLensError: the file is damaged.
    """
    from core import schemas  # brings pydantic, which takes a while

    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    found = {}
    try:
        for _, row in read_json_lines(path):
            schemas.check(row, schemas.Facts)
            states = blank | {name: LabelState(state) for name, state in row["labels"].items()}
            found[row["study_id"]] = Known(row["subject"], states, row["traits"], tuple(row["details"]))
    except (OSError, ValueError, CXRLensError) as error:
        raise CXRLensError(f"{path} is missing or damaged. Write and score these reports again.") from error
    return found


def _write_facts(path: Path, source: Source, studies: Sequence[Study]) -> None:
    """Keep what is known of studies; patients are numbered, for only who has several studies matters."""
    numbers: dict[str, str] = {}
    lines = []
    for study in studies:
        known = facts_of(source, study)
        labels = {name: state for name, state in known.states.items() if state is not LabelState.BLANK}
        subject = numbers.setdefault(known.subject, str(len(numbers) + 1))
        row = {"study_id": study.study_id, "subject": subject, "labels": labels, "traits": known.traits}
        lines.append(json.dumps(row | {"details": known.details}) + "\n")
    write_whole(path, "".join(lines))


def _evaluate(folder: Path, progress: Progress) -> None:
    """What the process does."""
    asked = _read_asked(folder.parent / "about.json")
    try:
        with FileLock(asked.folder / ".lock", timeout=0):
            for left in folder.parent.glob("job-*"):  # of processes that were killed
                if left != folder:
                    shutil.rmtree(left, ignore_errors=True)
            evaluate_source(asked, progress)
    except Timeout as error:
        raise CXRLensError("Another process is at this evaluation already.") from error


if __name__ == "__main__":
    work(_evaluate)
