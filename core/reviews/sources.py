"""Where a session's studies and images come from, as its design names it, and the reports written for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.reviews.database import digest
from core.reviews.design import REFERENCE, Case, Choice, choose, image_sha256
from core.reviews.rubrics import ReviewError
from core.studies.indexed import IndexedSource
from core.studies.phantom import PhantomSource
from core.types import FloatImage, Study, StudySource

if TYPE_CHECKING:
    from core.report_model import ReportModel

IMAGE_SIZE = 512
"""Side of the image that a session's hashes, reports and pictures are made of, pixels."""


def name_phantoms(count: int, seed: int) -> str:
    """`Design.source` of phantoms."""
    return f"phantom:{count}:{seed}"


def name_index(folder: Path, views: str) -> str:
    """`Design.source` of an index of Open-i or MIMIC-CXR."""
    return f"index:{views}:{folder.expanduser().absolute()}"


def open_source(name: str) -> StudySource:
    """Open what `Design.source` names.

    Raises:
        ReviewError: it names nothing that can be opened; of an index also `ReleaseError`.
    """
    kind, *rest = name.split(":", 2)
    if kind == "phantom" and len(rest) == 2 and all(part.isdigit() for part in rest):
        return PhantomSource(count=int(rest[0]), seed=int(rest[1]))
    if kind == "index" and len(rest) == 2:
        return IndexedSource(Path(rest[1]), rest[0])
    raise ReviewError(
        f"The session's images cannot be found: its source is '{name}'. It should be phantom:COUNT:SEED or "
        "index:VIEWS:FOLDER."
    )


def session_image(source: StudySource, study_id: str) -> FloatImage:
    """The image of a study that a session's hashes are of, (512, 512)."""
    return source.image(study_id, IMAGE_SIZE)


_TOLD_NOWHERE = ("title", "mesh")
"""Context that readers do not see: what Open-i calls a study, and its indexers' findings."""


def candidates(studies: Sequence[Study]) -> list[Case]:
    """Studies that could be read, without image and reports."""

    def context(study: Study) -> dict[str, str]:
        return {name: text for name, text in study.context.items() if text and name not in _TOLD_NOWHERE}

    return [Case(study.study_id, "", {}, labels=study.labels, context=context(study)) for study in studies]


def write_cases(
    source: StudySource,
    studies: Sequence[Study],
    choice: Choice,
    seed: int,
    models: Sequence[ReportModel],
    *,
    reference: bool,
    guard: Callable[[], AbstractContextManager[object]] = nullcontext,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Case]:
    """Choose studies and write their reports.

    Args:
        source: of the images.
        studies: to choose from; of "disagreement", all of them are written, as nobody knows before which differ.
        choice: how to choose.
        seed: of the choice.
        models: that write.
        reference: whether the human report takes part.
        guard: held while the models write the reports of one study.
        progress: called with (done, all) after each study.
    """
    by_id = {study.study_id: study for study in studies}
    found = candidates(studies)
    if choice.how != "disagreement":
        found = choose(found, choice, seed)
    hashes = {model.card.name: digest(dict(model.card.content)) for model in models}
    written = []
    for case in found:
        with guard():
            written.append(write_case(source, by_id[case.study_id], case, models, reference=reference, hashes=hashes))
        progress(len(written), len(found))
    return written


def write_case(
    source: StudySource,
    study: Study,
    case: Case,
    models: Sequence[ReportModel],
    *,
    reference: bool,
    hashes: dict[str, str],
) -> Case:
    """Add image hash and reports to a case."""
    image = session_image(source, study.study_id)
    texts = {}
    if models:
        from core.inference import write_reports  # brings torch

        texts = {name: report.text for name, report in write_reports(models, image)}
    if reference:
        texts[REFERENCE] = study.findings
    return replace(case, image_sha256=image_sha256(image), reports=texts, bundles=hashes)
