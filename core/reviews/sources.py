"""Where a session's studies and images come from, as its design names it, and the reports written for them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.files import hash_of
from core.labels.rules import label_report
from core.reviews.design import REFERENCE, Case, Choice, choose, image_sha256
from core.reviews.rubrics import ReviewError
from core.studies import sources
from core.studies.model_image import of_study
from core.studies.source import Source
from core.systems.system import Ability, System
from core.types import CXRLensError, FloatImage, Study, StudySource
from core.views import view_in_words

if TYPE_CHECKING:
    from core.bundles.pair import ReportModel

IMAGE_SIZE = 512
"""Side of the image that a session's hashes and small pictures are made of, pixels; models read their own."""

KINDS = sources.KINDS
"""What a source can be, for messages."""


def name_phantoms(count: int, seed: int) -> str:
    """`Design.source` of phantoms."""
    return f"phantom:{count}:{seed}"


def name_index(folder: Path, views: str) -> str:
    """`Design.source` of an index of Open-i or MIMIC-CXR."""
    return f"index:{views}:{folder.expanduser().absolute()}"


def name_images(folder: Path) -> str:
    """`Design.source` of a folder of image files named by study."""
    return f"images:{folder.expanduser().absolute()}"


def name_source(text: str) -> str:
    """`Design.source` of what a person writes: one of `KINDS`.

    Raises:
        CXRLensError: as `open_source`.
    """
    return open_source(text).key


def open_source(name: str) -> Source:
    """Open what `Design.source` names: studies with a reference report, where the source has reports.

    Raises:
        ReviewError: it names nothing.
        CXRLensError: it cannot be opened; the message says why.
    """
    try:
        return sources.open_source(name, findings_only=True)
    except sources.SourceError as error:
        raise ReviewError(str(error)) from error


def session_image(source: StudySource, study_id: str) -> FloatImage:
    """The image of a study that a session's hashes are of, (512, 512); not what models read."""
    return source.image(study_id, IMAGE_SIZE)


_TOLD_NOWHERE = ("title", "mesh", "visit")
"""Context that readers do not see: what Open-i calls a study, its indexers' findings, the number of the visit."""


def candidates(studies: Sequence[Study]) -> list[Case]:
    """Studies that could be read, without image and reports."""
    return [Case(study.study_id, "", {}, labels=study.labels, context=_context(study)) for study in studies]


def _context(study: Study) -> dict[str, str]:
    """What a reader sees beside the image."""
    told = {**study.context, "view": view_in_words(study.view)}
    return {name: text for name, text in told.items() if text and name not in _TOLD_NOWHERE}


def find_images(
    source: Source, cases: Sequence[Case], choice: Choice, seed: int, besides: Sequence[str] = ()
) -> list[Case]:
    """Choose among cases whose reports were written elsewhere, and find their images.

    Labels for stratifying, and what else a reader sees, come from the source where the cases have none, else labels
    from the reference report, by the rule labeler.

    Raises:
        ReviewError: a chosen case has no image there, or another one than its hash tells; also what `choose` raises.
    """
    chosen = choose([_described(source, case, choice) for case in cases], choice, seed, besides)
    found, missing, other = [], {}, []
    for case in chosen:
        try:
            sha256 = image_sha256(session_image(source, case.study_id))
        except CXRLensError as error:
            missing[case.study_id] = str(error)
            continue
        if case.image_sha256 not in ("", sha256):
            other.append(case.study_id)
        found.append(replace(case, image_sha256=sha256, context=_told_by_file(source, case)))
    if missing:
        raise ReviewError(
            f"{len(missing)} of {len(chosen)} cases have no image to show: {_named(missing)}. "
            f"The first: {next(iter(missing.values()))}. Images should be {KINDS}."
        )
    if other:
        raise ReviewError(
            f"{len(other)} of {len(chosen)} cases have another image_sha256 than their image: {_named(other)}. Give "
            "the folder with the right images, or leave image_sha256 out."
        )
    return found


def _described(source: Source, case: Case, choice: Choice) -> Case:
    if source.has_labels:
        try:
            study = source.study(case.study_id)
        except CXRLensError:  # without an image it is refused, if it is chosen
            return case
        return replace(case, labels=case.labels or study.labels, context=case.context or _context(study))
    if choice.how == "stratified" and not case.labels and case.reports.get(REFERENCE, "").strip():
        return replace(case, labels=label_report(case.reports[REFERENCE]).states)
    return case


def _told_by_file(source: Source, case: Case) -> Mapping[str, str]:
    """The context, with what only the image's file tells: notes of its reader, and the view where nothing else says."""
    if source.synthetic:  # there is no file
        return case.context
    film = source.original(case.study_id)
    told = {"view": view_in_words(film.view), **case.context, "image": " ".join(film.warnings)}
    return {name: text for name, text in told.items() if text}


def _named(ids: Collection[str], most: int = 10) -> str:
    return ", ".join(list(ids)[:most]) + (", ..." if len(ids) > most else "")


def write_cases(
    source: Source,
    studies: Sequence[Study],
    choice: Choice,
    seed: int,
    models: Sequence[ReportModel],
    *,
    reference: bool,
    others: Sequence[System] = (),
    besides: Sequence[str] = (),
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Case]:
    """Choose studies and write their reports.

    Args:
        studies: to choose from; of "disagreement", all of them are written, as nobody knows before which differ.
        reference: whether the human report takes part.
        others: further systems. Chosen are studies of which each has a report, unless it writes them now.
        besides: practice studies, as of `choose`.
        guard: held while the models write the reports of one study.
        progress: called with (done, all) after each study.
    """
    by_id = {study.study_id: study for study in studies}
    found, given = of_others(source, candidates(studies), others)
    if choice.how != "disagreement":
        found = choose(found, choice, seed, besides)
    given |= {
        each.name: each.reports(source, [case.study_id for case in found]).texts
        for each in others
        if Ability.WRITE in each.abilities
    }
    hashes = {model.card.name: hash_of(dict(model.card.content)) for model in models}
    hashes |= {each.name: each.content_hash() for each in others}
    written = []
    for case in found:
        texts = {name: texts[case.study_id] for name, texts in given.items() if case.study_id in texts}
        with guard():
            made = write_case(source, by_id[case.study_id], case, models, reference=reference, hashes=hashes)
        written.append(replace(made, reports={**made.reports, **texts}))
        progress(len(written), len(found))
    return written


def of_others(
    source: Source, cases: Sequence[Case], others: Sequence[System]
) -> tuple[list[Case], dict[str, Mapping[str, str]]]:
    """The cases of which every system that writes nothing now has a report, not an empty one; and these, by system.

    Raises:
        ReviewError: there is none; the message says what the systems have reports of.
    """
    given: dict[str, Mapping[str, str]] = {}
    kept, told = list(cases), list[str]()
    for each in others:
        if Ability.WRITE not in each.abilities:
            found = each.reports(source, [case.study_id for case in cases])
            given[each.name] = found.texts
            told += found.told
            kept = [case for case in kept if found.texts.get(case.study_id, "").strip()]
    if given and not kept:
        raise ReviewError(f"There is no study of which all of them have a report. {' '.join(told)}")
    return kept, given


def write_case(
    source: Source,
    study: Study,
    case: Case,
    models: Sequence[ReportModel],
    *,
    reference: bool,
    hashes: dict[str, str],
) -> Case:
    """Add image hash and reports to a case."""
    texts = {}
    if models:
        from core.bundles.inference import write_reports  # brings torch

        exact = [replace(model, precision="fp32") for model in models]  # a page that explains them writes them again
        texts = {name: report.text for name, report in write_reports(exact, of_study(source, study.study_id))}
    if reference:
        texts[REFERENCE] = study.findings
    sha256 = image_sha256(session_image(source, study.study_id))
    return replace(case, image_sha256=sha256, reports=texts, bundles=hashes, context=_told_by_file(source, case))
