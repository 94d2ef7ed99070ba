"""The evaluation behind the result pages: read once, labelled once, and cut into slices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import streamlit as st

from core.bundles.card import read_card
from core.evaluation.reports import Evaluation, read_evaluation
from core.labels.compare import Outcome
from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS
from core.projection.job import cache_folder
from core.registry import DECODERS, ENCODERS, pair_title
from core.types import CXRLensError
from dashboard import services, settings

BY_FINDING = "Finding"
FEWEST_NAMED = 10
"""Studies of a finding in detail, as "mild edema", to be a slice."""


def families() -> list[str]:
    """Families that have scores, the phantom's first."""
    found = sorted(path.name.removesuffix("-results.json") for path in settings.bundles().glob("*-results.json"))
    return sorted(found, key=lambda name: (name != services.PHANTOM, name))


def evaluation(family: str, path: Path | None = None) -> Evaluation:
    """The reports of a family's evaluation, with their labels.

    Args:
        family: of the bundles that wrote them.
        path: of the reports; None for those beside the bundles.

    Raises:
        CXRLensError: they are not there; those of patients' studies stay with who has the data.
    """
    path = path or settings.bundles() / f"{family}-reports.jsonl"
    if not path.is_file() and family != services.PHANTOM:
        raise CXRLensError(
            "The single reports stand beside patients' reference reports, so they are not shipped. "
            f"`cxr-lens evaluate --preset {family} --out DIR` writes them from your copy of the data; put "
            f"DIR/reports.jsonl into {path.parent} as {path.name}."
        )
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    found: Evaluation = _evaluation(family, str(path), stamp)
    return found


@st.cache_resource(max_entries=4, show_spinner="Reading what the reports say …")
def _evaluation(family: str, path: str, stamp: int) -> Evaluation:
    truth = None
    if family == services.PHANTOM:
        truth = {study.study_id: (study.subject_id, study.labels) for study in services.all_studies().values()}
    return read_evaluation(Path(path), truth, cache_folder().parent / "labels")


def pair_outcomes(name: str) -> Mapping[str, Mapping[str, Outcome]]:
    """What became of each observation in a bundle's evaluated reports: study id -> observation -> outcome.

    Raises:
        CXRLensError: the reports of the evaluation are not there, damaged, or lack this bundle.
    """
    found = evaluation(read_card(settings.bundles() / name).family)
    if name not in found.outcomes:
        raise CXRLensError(f"The evaluation has no reports of {name}: it is of other bundles. Evaluate again.")
    return dict(zip(found.study_ids, found.outcomes[name], strict=True))


def title_of(name: str) -> str:
    """Of a pair's bundle, for a reader: "FVE + M2"."""
    for pair, card in services.cards().items():
        if card.name == name:
            return pair_title(*pair)
    parts = name.split("-")
    if len(parts) == 3 and parts[1] in ENCODERS and parts[2] in DECODERS:
        return pair_title(*parts[1:])
    return name


def slices(found: Evaluation) -> Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]:
    """Ways to divide the studies: what by -> group -> (n,) which studies.

    By finding, studies are in as many groups as they have findings; otherwise each is in one.
    """
    positive: dict[str, npt.NDArray[np.bool_]] = {
        name: np.array([truth[name] in ASSERTED for truth in found.truth]) for name in OBSERVATIONS
    }
    words = np.array([len(text.split()) for text in found.references])
    shorter, longer = np.quantile(words, [1 / 3, 2 / 3])
    count = np.sum([positive[name] for name in OBSERVATIONS if name != NO_FINDING], axis=0)
    ways: dict[str, dict[str, npt.NDArray[np.bool_]]] = {
        BY_FINDING: positive,
        "Number of findings": {
            "none": count == 0, "one": count == 1, "two": count == 2, "three or more": count > 2
        },
        "Length of the reference": {
            f"up to {shorter:.0f} words": words <= shorter,
            f"up to {longer:.0f} words": (words > shorter) & (words <= longer),
            f"more than {longer:.0f} words": words > longer,
        },
    }  # fmt: skip
    known = services.all_studies()
    if all(study_id in known for study_id in found.study_ids):
        studies = [known[study_id] for study_id in found.study_ids]
        ways["View"] = _grouped([study.view or "unknown" for study in studies])
        ways["Split"] = _grouped([study.split for study in studies])
        ways["Sex"] = _grouped([study.context.get("sex", "") or "unknown" for study in studies])
        ages = [int(age) if (age := study.context.get("age", "")).isdigit() else -1 for study in studies]
        ways["Age"] = _grouped(["unknown" if age < 0 else "under 50" if age < 50 else "50 and over" for age in ages])
        ways["Worst severity"] = _grouped([services.worst_severity(study.study_id) for study in studies])
        fine = {label for study in studies for label in study.fine_labels}
        named = {label: np.array([label in study.fine_labels for study in studies]) for label in sorted(fine)}
        ways["Finding in detail"] = {label: chosen for label, chosen in named.items() if chosen.sum() >= FEWEST_NAMED}
    return ways


def _grouped(values: list[str]) -> dict[str, npt.NDArray[np.bool_]]:
    named = np.array(values)
    return {value: named == value for value in dict.fromkeys(values)}
