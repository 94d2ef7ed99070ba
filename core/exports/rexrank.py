"""ReXrank's file of predictions: a file a system, an object a study, as its evaluation script reads them.

The script takes ``section_findings``, ``section_impression`` and ``model_prediction`` of every object (rajpurkarlab/
ReXrank, example_files/evaluation_script.md); the leaderboard's own files have ``report``, ``context`` and the images
beside them (data/iu_xray).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core.exports.folder import LeftOut, as_json, need_some
from core.exports.reports import NO_REFERENCE, Reports, file_names, pictures, plain
from core.exports.writers import RESEARCH
from core.systems.rexrank import PREDICTION, case_of
from core.types import CXRLensError


def files(reports: Reports, notes: LeftOut, *, images: bool = False) -> Iterator[tuple[str, bytes]]:
    """A file a system, and the images if they are wanted, below ``images``, where the cases' paths begin.

    A study without a reference stays: its sections are null.

    Raises:
        CXRLensError: images are wanted, and none can be read.
    """
    names = file_names(reports.study_ids)
    places = list(range(len(reports.study_ids)))
    if images:
        kept = []
        for place, content, _, _ in pictures(reports, places, notes):
            kept.append(place)
            yield f"images/{names[reports.study_ids[place]]}.png", content
        need_some(len(kept), notes, "image")
        places = kept
    cases = {reports.study_ids[place]: _case(reports, place, names, notes) for place in places}
    for system, name in file_names(list(reports.texts)).items():
        about = {"use": RESEARCH, "system": str(reports.writers[system])}
        texts = reports.texts[system]
        predicted = {
            reports.study_ids[place]: {**cases[reports.study_ids[place]], PREDICTION: texts[place], "about": about}
            for place in places
        }
        yield f"{name}.json", as_json(predicted)


def _case(reports: Reports, place: int, names: dict[str, str], notes: LeftOut) -> dict[str, Any]:
    study_id, findings, impression = reports.study_ids[place], reports.references[place], ""
    image = f"{names[study_id]}.png"
    case: dict[str, Any] = {"image_path": [image], "key_image_path": image, "context": ""}
    if reports.source is not None:
        try:
            study = reports.study(place)
            case, impression = case_of(study, image), plain(study.impression)
        except CXRLensError as error:
            notes.add("study whose context and impression are not known", study_id, error)
    if not findings.strip():
        notes.add(NO_REFERENCE.replace("left out", "its sections are null"), study_id)
    sections = {"Findings": findings, "Impression": impression}
    case["report"] = " ".join(f"{name}: {text}" for name, text in sections.items() if text)
    case["section_findings"], case["section_impression"] = findings or None, impression or None
    return case
