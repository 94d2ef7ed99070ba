"""Sources for pictures of the pages: the example radiographs, a table of one's own, and Open-i where its index is.

What may be given away goes into the documents. Of Open-i that is only what shows neither an image nor a report: its
licence allows no changed copies, so all others stay outside of what is committed.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path

import pandas as pd

from core import paths
from core.bundles.library import BundleLibrary
from core.evaluation.own import Asked, EvaluationJob, ask, evaluations
from core.projection.embeddings import Embedding, embed
from core.reviews.database import Database
from core.reviews.design import Case, Design, image_sha256
from core.reviews.sources import open_source as open_reviewed
from core.reviews.sources import session_image
from core.reviews.store import create_session, first_admin, set_role
from core.studies.columns import Columns, release_columns
from core.studies.source import Source
from core.studies.sources import open_source
from core.studies.table import index_table
from core.types import Split

PAIRS = ("openi-fve-m2", "openi-ccve-m2", "openi-dve-m2")
WARD = "ward"
BOXED = "00002980_000"  # of the example radiographs, with a box
PAGES = {
    "read": "?source={name}&study={study}",
    "filters": "filters?source={name}&study={study}",
    "embeddings": "embeddings?source={name}&study={study}&encoder=FVE",
    "cases": "cases?source={name}{order}",
    "results": "results?source={name}",
}
"""Address of each page that shows studies, on whatever source."""
NOBODYS = ("embeddings-openi", "results-openi")
"""Pictures of Open-i that show neither an image nor a report."""

_SENTENCES = {
    "Atelectasis": "There is atelectasis.",
    "Cardiomegaly": "The heart is enlarged.",
    "Consolidation": "There is consolidation.",
    "Edema": "There is pulmonary edema.",
    "Effusion": "There is a pleural effusion.",
    "Infiltration": "There is an opacity of the lung.",
    "Mass": "There is a mass.",
    "Nodule": "There is a nodule.",
    "Pneumonia": "Pneumonia is possible.",
    "Pneumothorax": "There is a pneumothorax.",
    "No Finding": "The heart is normal in size. The lungs are clear. No pleural effusion. No pneumothorax.",
}


def make_ward(folder: Path) -> Path:
    """A table of one's own, as the documents say: the example radiographs, with a sentence for each of their labels."""
    told = pd.read_csv(paths.EXAMPLES / "labels.csv")
    reports = [
        " ".join(_SENTENCES[each] for each in findings.split("|") if each in _SENTENCES) or "See the earlier report."
        for findings in told["findings"]
    ]
    table = told[["image", "patient", "age", "sex", "view"]].assign(report=reports, study=told["image"].str[:-4])
    table["ward"] = ["North" if number % 2 else "South" for number in range(len(table))]
    table.to_csv(folder / "reports.csv", index=False)
    of = {name: name for name in ("image", "patient", "age", "sex", "view")}
    columns = Columns(title="Our ward", credit=release_columns("chestx-ray14").credit)
    columns = columns.named({"id": "study", "findings": "report", **of}, {}, {"ward": "ward"})
    films = paths.EXAMPLES / "images"
    return index_table(films, folder / "reports.csv", folder / WARD, columns, only_test=True).folder


def evaluated(source: Source, split: Split | None = None) -> Asked:
    """An evaluation of a source, made as the button of the page makes it; one that is there is kept."""
    found = next((each for each in evaluations() if each.whole and each.source == source.key), None)
    if found is None:
        cards = [card for card in BundleLibrary(paths.BUNDLES).cards() if card.name in PAIRS]
        found = ask(source, cards, paths.BUNDLES, split)
        EvaluationJob(found).wait()
    return found


def prepare(source: Source, pages: Collection[str], split: Split | None = None) -> None:
    """Have what pages on a source show: reports, a map; what is there is kept."""
    if any(name.startswith(("cases", "results")) for name in pages):
        evaluated(source, split)
    if any(name.startswith("embeddings") for name in pages):
        embed(Embedding(source.key, paths.BUNDLES, PAIRS[0], split))


def review_pages(
    name: str, title: str, database: Path, made: Asked, writers: Sequence[str], researcher: str, readers: Sequence[str]
) -> dict[str, str]:
    """A session on reports of an evaluation and the reference; its pages, by the names of their pictures.

    Args:
        name: how the names of the pictures end.
        title: of the session.
        database: of reviews.
        made: the evaluation.
        writers: systems whose reports are read.
        researcher: who makes the session.
        readers: who read.
    """
    source, writers = open_reviewed(made.source), (*writers, "reference")
    pool = []
    for line in (made.folder / "reports.jsonl").read_text(encoding="utf-8").splitlines()[:8]:
        row = json.loads(line)
        study = row["study_id"]
        reports = {writer: row[writer] for writer in writers}
        pool.append(Case(study, image_sha256(session_image(source, study)), reports))
    design = Design(title, "report-quality", readers, writers, source=made.source)
    with closing(Database(database)) as opened:
        admin = first_admin(opened, researcher)
        for reader in readers:
            set_role(opened, admin, reader, "reader")
        session = create_session(opened, admin, design, pool)
    return {
        f"review-{name}": f"review?reader={researcher}&session={session}",
        f"reading-{name}": f"reading?reader={readers[0]}&session={session}",
    }


def pages_of(title: str, name: str, study: str, order: str = "most errors") -> Mapping[str, str]:
    """Address of each page on a source, by the name of its picture; cases come in an ``order`` where there is one."""
    asked = {"name": name, "study": study, "order": f"&case_order={order.replace(' ', '+')}" if order else ""}
    return {f"{page}-{title}": address.format(**asked) for page, address in PAGES.items()}


def first_study(spec: str, split: Split | None = None) -> str:
    """Id of the first study of a source."""
    return str(open_source(spec).all_ids(split)[0])
