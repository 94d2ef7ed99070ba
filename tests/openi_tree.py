"""Builds folders in the three forms in which Open-i is shared, with invented studies."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np
from PIL import Image

from tests.mimic_tree import write_csv

Study = tuple[str, str, str, str, list[tuple[str, str]]]
# uid -> title, findings, impression, MeSH, images (name, projection)
STUDIES: dict[int, Study] = {
    1: ("PA and lateral", "The heart is large.", "Large heart.", "Cardiomegaly/mild",
        [("1_IM-0001-4001", "Frontal"), ("1_IM-0001-3001", "Lateral")]),
    2: ("Chest, 2 views", "Lungs are XXXX, and XXXX XXXX clear.", "No XXXX.", "normal",
        [("2_IM-0652-1001", "Frontal"), ("2_IM-0652-1002", "Frontal"), ("2_IM-0652-2001", "Lateral")]),
    3: ("Portable AP chest", "", "Left-sided effusion.", "Pleural Effusion/left", [("3_IM-1384-1001", "Frontal")]),
    4: ("PA and lateral", "", "", "", [("4_IM-2050-1001", "Frontal")]),
    5: ("PA and lateral", "Clear lungs.", "Normal.", "normal", [("5_IM-2117-2001", "Lateral")]),
    6: ("PA and lateral", "Left rib fracture.", "Rib fracture.", "Fractures, Bone/left",
        [("6_IM-2192-1001", "Frontal")]),
}  # fmt: skip
R2GEN: dict[str, list[int]] = {"train": [1, 2], "val": [5], "test": [6]}


def png(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 255, (48, 40), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def r2gen_id(uid: int, studies: Mapping[int, Study] = STUDIES) -> str:
    return f"CXR{uid}_{studies[uid][4][0][0].partition('_')[2].rpartition('-')[0]}"


def write_annotation(
    root: Path, studies: Mapping[int, Study] = STUDIES, splits: Mapping[str, list[int]] = R2GEN, images: int = 2
) -> None:
    """Write R2Gen's file of splits, which gives each study so many images."""
    content = {
        split: [
            {
                "id": r2gen_id(uid, studies),
                "report": studies[uid][1],
                "image_path": [f"{r2gen_id(uid, studies)}/{place}.png" for place in range(images)],
                "split": split,
            }
            for uid in uids
        ]
        for split, uids in splits.items()
    }
    (root / "annotation.json").write_text(json.dumps(content))


def write_projections(root: Path, studies: Mapping[int, Study] = STUDIES) -> None:
    rows = [(uid, f"{name}.dcm.png", view) for uid, study in studies.items() for name, view in study[4]]
    write_csv(root / "indiana_projections.csv", ("uid", "filename", "projection"), rows)


def write_kaggle(
    root: Path,
    suffix: str = ".dcm.png",
    studies: Mapping[int, Study] = STUDIES,
    image: Callable[[int], bytes] = png,
) -> Path:
    """Write the form of Kaggle's tables; image number n, counted over all studies, is ``image(n)``."""
    images = root / "images" / "images_normalized"
    images.mkdir(parents=True)
    rows = [
        (uid, mesh, "", title, "Cough.", "None.", findings, impression)
        for uid, (title, findings, impression, mesh, _) in studies.items()
    ]
    columns = ("uid", "MeSH", "Problems", "image", "indication", "comparison", "findings", "impression")
    write_csv(root / "indiana_reports.csv", columns, rows)
    write_projections(root, studies)
    for number, (name, _) in enumerate(each for study in studies.values() for each in study[4]):
        (images / f"{name}{suffix}").write_bytes(image(number))
    return root


def xml(uid: int) -> str:
    title, findings, impression, mesh, images = STUDIES[uid]
    # Most ids have the number once, some twice, as in the release.
    ids = [f"CXR{uid}_{name}" if uid == 1 else f"CXR{name}" for name, _ in images]
    texts = {"COMPARISON": "None.", "INDICATION": "Cough.", "FINDINGS": findings, "IMPRESSION": impression}
    abstract = "".join(f'<AbstractText Label="{name}">{escape(text)}</AbstractText>' for name, text in texts.items())
    codes = "".join(f"<major>{code}</major>" for code in mesh.split(";"))
    pictures = "".join(f'<parentImage id="{each}"><caption>{title}</caption></parentImage>' for each in ids)
    return (
        f'<?xml version="1.0" encoding="utf-8"?><eCitation><uId id="CXR{uid}"/><MedlineCitation><Article><Abstract>'
        f"{abstract}</Abstract></Article></MedlineCitation><MeSH>{codes}</MeSH>{pictures}</eCitation>"
    )


def write_xml(root: Path) -> Path:
    (root / "ecgen-radiology").mkdir(parents=True)
    (root / "NLMCXR_png").mkdir()
    number = 0
    for uid, study in STUDIES.items():
        (root / "ecgen-radiology" / f"{uid}.xml").write_text(xml(uid), encoding="utf-8")
        for name, _ in study[4]:
            prefix = f"CXR{uid}_" if uid == 1 else "CXR"
            (root / "NLMCXR_png" / f"{prefix}{name}.png").write_bytes(png(number))
            number += 1
    return root
