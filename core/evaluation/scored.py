"""The labels that an evaluation scored, of references, systems and baselines: written beside its results and read back.

With them trainings that wrote for the same studies are compared study by study (`core.evaluation.seeds.over_seeds`).
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from core.evaluation.clinical import decision_statistics, positives
from core.evaluation.resampling import StudyStatistics
from core.evaluation.scoring import LabeledReports
from core.files import whole_file
from core.observations import OBSERVATIONS
from core.types import CXRLensError

FILE = "scored.npz"
"""Beside results.json."""
_ARRAYS = ("study_ids", "subjects", "observations", "systems", "references", "reports")


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What references and reports have; an uncertain mention counts as not positive, as where they are scored.

    Attributes:
        study_ids: n of them.
        subjects: the patient of each.
        references: (n, 14), True where a reference has an observation.
        reports: by system or baseline, (n, 14) likewise.
    """

    study_ids: tuple[str, ...]
    subjects: tuple[str, ...]
    references: npt.NDArray[np.bool_]
    reports: Mapping[str, npt.NDArray[np.bool_]]

    def statistics(self, system: str) -> StudyStatistics:
        """The clinical scores of a system.

        Raises:
            KeyError: there is none of this name.
        """
        return decision_statistics(self.references, self.reports[system])


def scored(
    study_ids: Sequence[str], subjects: Sequence[str], references: LabeledReports, systems: Mapping[str, LabeledReports]
) -> Scored:
    """What is scored of these reports, all of the same studies in the same order."""
    reports = {name: positives(each.states) for name, each in systems.items()}
    return Scored(tuple(study_ids), tuple(subjects), positives(references.states), reports)


def write_scored(path: Path, content: Scored) -> None:
    """Write it in one piece.

    Raises:
        DiskError: it cannot be written.
    """
    with whole_file(path) as fresh, fresh.open("wb") as file:
        np.savez_compressed(
            file,
            study_ids=np.array(content.study_ids, dtype=str),
            subjects=np.array(content.subjects, dtype=str),
            observations=np.array(OBSERVATIONS, dtype=str),
            systems=np.array(list(content.reports), dtype=str),
            references=content.references,
            reports=np.array(list(content.reports.values()), dtype=bool),
        )


def read_scored(path: Path) -> Scored:
    """Read what `write_scored` wrote.

    Raises:
        FileNotFoundError: there is none.
        CXRLensError: it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            study_ids, subjects, observations, systems, references, reports = (file[name] for name in _ARRAYS)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CXRLensError(f"{path} is damaged ({str(error)[:80]}). Evaluate again.") from error
    shape = (len(study_ids), len(OBSERVATIONS))
    sizes = subjects.shape == study_ids.shape and references.shape == shape and reports.shape == (len(systems), *shape)
    if (
        not sizes
        or observations.tolist() != list(OBSERVATIONS)
        or {references.dtype, reports.dtype} != {np.dtype(bool)}
    ):
        raise CXRLensError(f"{path} is damaged: its labels are not those of its studies. Evaluate again.")
    return Scored(
        tuple(study_ids.tolist()),
        tuple(subjects.tolist()),
        references,
        dict(zip(systems.tolist(), reports, strict=True)),
    )
