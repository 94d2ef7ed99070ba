"""A folder with everything that documented commands read, under the names that the documents use."""

from __future__ import annotations

import getpass
import json
import shutil
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from core.reviews.database import Database
from core.reviews.importing import IMPORT_COLUMNS
from core.reviews.store import (
    Actor,
    first_admin,
    list_screens,
    list_sessions,
    read_screen,
    set_role,
)
from core.studies.phantom import PhantomSource
from tests import documented, foreign_models
from tests.mimic_tree import Exam, report, write_csv, write_tree
from tests.openi_tree import Study, png, write_kaggle
from tests.review_cases import ANNA, finish
from training.options import PRESETS

STUDIES = 48


ERROR = {"error": "omission", "significant": True}


class Place:
    """A folder with what the commands read, under the names that the documents use; made when it is asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: set[str] = set()
        studies = PhantomSource(STUDIES, 0)
        self.studies = [(split, each) for split in ("train", "validate", "test") for each in studies.studies(split)]
        rows = [(each.study_id, split, each.findings, each.impression) for split, each in self.studies]
        table = pd.DataFrame(rows, columns=["study_id", "split", "findings", "impression"])
        table.to_csv(folder / "reports.csv", index=False)
        table[["study_id", "findings"]].to_csv(folder / "one-column.csv", index=False)
        table.to_parquet(folder / "reports.parquet")
        table.to_csv(folder / "indiana_reports.csv", index=False)
        pixels = studies.image(rows[0][0], 128)
        Image.fromarray(np.round(pixels * 255).astype(np.uint8)).save(folder / "study.png")
        self._write_session_files()

    def _write_session_files(self) -> None:
        blocks = documented.blocks("docs/reviews.md", "toml")
        (design,) = [each for each in blocks if "stratified" in each]
        (self.folder / "design.toml").write_text(design)
        (own,) = [each for each in blocks if "[[questions]]" in each]
        (self.folder / "own.toml").write_text(own)
        (self.folder / "random.toml").write_text(design.replace('how = "stratified"', 'how = "random"'))
        models = tomllib.loads(design)["models"]
        cases = [{"study_id": each.study_id} | dict.fromkeys(models, each.findings) for _, each in self.studies]
        (self.folder / "reports.jsonl").write_text("\n".join(map(json.dumps, cases)))
        scores = [(each.study_id, model, len(each.findings)) for _, each in self.studies for model in models]
        write_csv(self.folder / "scores.csv", ("study", "model", "length"), scores)

    @cached_property
    def cases(self) -> str:
        """A table of reports for a session, with a folder "pictures" of an image a study."""
        models = tomllib.loads((self.folder / "random.toml").read_text())["models"]
        rows = [(each.study_id, *[each.findings] * len(models)) for _, each in self.studies]
        write_csv(self.folder / "cases.csv", ("study_id", *models), rows)
        (self.folder / "pictures").mkdir(exist_ok=True)
        for _, each in self.studies:
            shutil.copy(self.folder / "study.png", self.folder / "pictures" / f"{each.study_id}.png")
        return "cases.csv"

    @cached_property
    def rexrank(self) -> str:
        """A leaderboard's file of one case."""
        (self.folder / "rexrank.json").write_text(json.dumps({"case": {"image_path": ["study.png"]}}))
        return "rexrank.json"

    @cached_property
    def r2gen(self) -> str:
        """A small checkpoint of R2Gen, and beside it the annotation.json that it was trained with."""
        foreign_models.save_annotations(self.folder)
        return foreign_models.save_r2gen(self.folder, foreign_models.some_r2gen().state_dict()).name

    @cached_property
    def ifcc(self) -> str:
        """A small checkpoint of IFCC, and beside it the embeddings that it was trained with."""
        foreign_models.save_embeddings(self.folder)
        return foreign_models.save_ifcc(self.folder, foreign_models.some_ifcc(slots=3).state_dict()).name

    @cached_property
    def outside(self) -> str:
        """Scores of another program for the reports of the pair that is trained here."""
        rows = [(each.study_id, "phantom-cve-transformer", number % 7) for number, (_, each) in enumerate(self.studies)]
        write_csv(self.folder / "outside.csv", ("study", "system", "GREEN"), rows)
        return "outside.csv"

    @cached_property
    def preset(self) -> str:
        """The phantom's preset as a file."""
        return Path(shutil.copy(PRESETS / "phantom.toml", self.folder / "mine.toml")).name

    @cached_property
    def openi(self) -> Path:
        """A release of Open-i in the form of its tables, with invented images."""
        studies: dict[int, Study] = {
            uid: (
                "PA",
                study.findings,
                study.impression,
                "normal" if uid % 2 else "Cardiomegaly/mild",
                [(f"{uid}_IM-0001-1001", "Frontal")],
            )
            for uid, (_, study) in enumerate(self.studies, 1)
        }
        return write_kaggle(self.folder / "release-openi", studies=studies)

    @cached_property
    def mine(self) -> Path:
        """Fifty images of one's own, with a table of their reports."""
        root = self.folder / "mine"
        (root / "scans").mkdir(parents=True)
        rows = [(f"S{number:02}", self.studies[number % STUDIES][1].findings) for number in range(50)]
        write_csv(root / "reports.csv", ("study", "report"), rows)
        for number, (name, _) in enumerate(rows):
            (root / "scans" / f"{name}.png").write_bytes(png(number))
        return root

    @cached_property
    def mimic(self) -> Path:
        """A release of MIMIC-CXR with invented patients."""
        exams = [
            Exam(10_000_000 + uid, 50_000_000 + uid, split, text=report(study.findings, study.impression))
            for uid, (split, study) in enumerate(self.studies)
        ]
        return write_tree(self.folder / "release-mimic", exams)

    @cached_property
    def hugging_face(self) -> str:
        """A folder of a small model, as transformers writes it."""
        from tests.hugging_face_models import write_folder

        return write_folder(self.folder / "vit-gpt2").name

    @cached_property
    def chexbert(self) -> str:
        """A checkpoint with the names of the published one and random weights of a small network."""
        from tests.test_chexbert import save, weights

        return save(self.folder / "chexbert.pth", weights()).name

    @property
    def session(self) -> str:
        """Id of the newest session, for which marks.csv has one mark of anna's."""
        with self._newest_session() as (database, newest):
            screen = read_screen(database, ANNA, list_screens(database, ANNA, newest)[-1][0])
        mark = (screen.id, screen.reports[0][0], "error", json.dumps(ERROR))
        write_csv(self.folder / "marks.csv", IMPORT_COLUMNS, [mark])
        return newest

    @cached_property
    def read_session(self) -> str:
        """The same, after both readers read four studies, boris with more errors; carla is a user."""
        with self._newest_session() as (database, newest):
            set_role(database, first_admin(database, getpass.getuser()), "carla", "reader")
            for name, errors in (("anna", 1), ("boris", 2)):
                reader = Actor(name, "reader")
                screens = [read_screen(database, reader, each) for each, *_ in list_screens(database, reader, newest)]
                chosen = sorted({screen.study_id for screen in screens})[:4]
                for screen in screens:
                    if screen.study_id in chosen:
                        finish(database, reader, screen.id, errors)
        return newest

    @contextmanager
    def _newest_session(self) -> Iterator[tuple[Database, str]]:
        database = Database()
        try:
            yield database, list_sessions(database, first_admin(database, getpass.getuser()))[0].id
        finally:
            database.close()
