"""Reports of another model, from a table to the pages: seconds by step. ``python -m training.bench.systems``.

As many reports as MIMIC-CXR has test studies with findings come as a CSV file with columns ``report,dicom_id``; they
are added, scored with intervals against the references of an index, and read as the Cases and Results pages read them.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from core.evaluation import own
from core.evaluation.reports import read_evaluation
from core.evaluation.resampling import intervals
from core.studies.census import Notes
from core.studies.index import ImageEntry, StudyEntry, write_index
from core.studies.phantom import PhantomSource
from core.studies.source import Source
from core.studies.sources import open_source
from core.systems import added

COUNT = 3_858
"""Studies of MIMIC-CXR's test split, as of Nazarov et al. 2022."""
_TESTED = 12  # ours: a phantom in so many is a test study, with some to spare


def entries(texts: Source, ids: list[str]) -> Iterator[StudyEntry]:
    """Studies with reports of phantoms, and a name of an image each; the images themselves are not read."""
    for number, study_id in enumerate(ids):
        study = texts.study(study_id)
        image = ImageEntry(f"{number:08x}-4d2f-9a61", f"files/{number}.jpg", "PA", 50_000)
        name = f"s{50_000_000 + 7 * number}"
        yield StudyEntry(name, study.subject_id, "test", study.findings, study.impression, {}, [image])


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=COUNT)
    count: int = parser.parse_args().studies
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        os.environ |= {"CXR_SYSTEMS": str(here / "systems"), "CXR_EVALUATIONS": str(here / "evaluations")}
        texts = PhantomSource(count * _TESTED, 3)
        ids = texts.all_ids("test")[:count]
        write_index(here / "index", "mimic_cxr", here, {}, entries(texts, ids), Notes())
        source = open_source(str(here / "index"))
        table = here / "theirs.csv"
        with table.open("w", encoding="utf-8", newline="") as file:
            written = csv.writer(file)
            written.writerow(("report", "dicom_id"))
            for number, study_id in enumerate(ids):  # of every third study another one's report
                other = ids[number - 1] if number % 3 == 0 else study_id
                written.writerow((texts.study(other).findings, f"{number:08x}-4d2f-9a61"))
        steps = [("", *_now())]

        def done(what: str) -> None:
            steps.append((what, *_now()))

        system, found = added.add_file("theirs", table)
        done(f"added: {len(found.rows):,} rows")
        asked = own.ask(source, [], here, "test", [system])
        own.evaluate_source(asked, lambda share, what: None)
        done("scored, with METEOR where Java is there, and intervals of every score")
        shown = read_evaluation(asked.folder / "reports.jsonl", own.read_facts(asked.folder / "studies.jsonl"))
        ends = intervals(shown.scored("theirs", "f1"), subjects=shown.subjects)["f1"]
        done(f"read for the pages: {len(shown.study_ids):,} studies, macro F1 {ends.low:.3f} to {ends.high:.3f}")
        for (_, *before), (what, *after) in [*pairwise(steps), (steps[0], ("in all", *steps[-1][1:]))]:
            wall, cpu = (end - start for start, end in zip(before, after, strict=True))
            sys.stdout.write(f"{wall:7.1f} s  {cpu:7.1f} s of a core  {what}\n")


def _now() -> tuple[float, float]:
    """The time, and what this process and those that it started (Java's too) have computed, seconds."""
    spent = os.times()
    return time.perf_counter(), spent.user + spent.system + spent.children_user + spent.children_system


if __name__ == "__main__":
    main()
