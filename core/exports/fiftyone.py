"""A folder that FiftyOne reads as ``FiftyOneDataset``: ``metadata.json``, ``samples.json`` and the images.

The two files are the documents of its database as its own exporter writes them (fiftyone/utils/data/exporters.py,
``FiftyOneDatasetExporter``; importers.py reads them; release 1.22). FiftyOne itself is not needed to write them:
``fiftyone.Dataset.from_dir(FOLDER, fiftyone.types.FiftyOneDataset)``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.exports.folder import LeftOut, as_json, need_some
from core.exports.reports import Reports, file_names, pictures, unique_names
from core.exports.writers import RESEARCH
from core.studies.source import Box

_VERSION = "1.0.0"
"""Of FiftyOne, whose documents these are; a later one brings them up to date when it reads them."""


def files(reports: Reports, notes: LeftOut) -> Iterator[tuple[str, bytes]]:
    """The images, then the samples and what is said of them. Studies without an image are left out, and counted.

    Raises:
        CXRLensError: no source is at hand, or no image can be read.
    """
    source = reports.opened("the images")
    names = file_names(reports.study_ids)
    systems = unique_names(list(reports.texts), "[^A-Za-z0-9]+")
    fields = {name: f"report_{given}" for name, given in systems.items()}  # a name as Python has them
    samples: list[dict[str, Any]] = []
    for place, content, width, height in pictures(reports, range(len(reports.study_ids)), notes):
        study_id = reports.study_ids[place]
        path = f"data/{names[study_id]}.png"
        yield path, content
        study = reports.study(place)
        samples.append(
            {
                "_id": _object_id("sample", study_id),
                "filepath": path,
                "tags": [study.split],
                "metadata": {
                    "_cls": "ImageMetadata",
                    "size_bytes": len(content),
                    "mime_type": "image/png",
                    "width": width,
                    "height": height,
                    "num_channels": 1,
                },
                "_media_type": "image",
                "_rand": int(hashlib.sha256(study_id.encode()).hexdigest()[:8], 16) / 2**32,
                "study_id": study_id,
                "view": study.view,
                "reference": reports.references[place],
                **{fields[name]: texts[place] for name, texts in reports.texts.items()},
                "boxes": _detections(study_id, source.boxes(study_id, (height, width))),
            }
        )
    need_some(len(samples), notes, "study")
    yield "samples.json", as_json({"samples": samples})
    yield "metadata.json", as_json(_metadata(reports, fields, source.truth))


def _detections(study_id: str, boxes: Sequence[Box]) -> dict[str, Any] | None:
    if not boxes:
        return None
    found = [
        {
            "_id": _object_id(f"box {number}", study_id),
            "_cls": "Detection",
            "attributes": {},
            "tags": [],
            "label": box.name,
            "bounding_box": [box.left, box.top, box.width, box.height],
        }
        for number, box in enumerate(boxes)
    ]
    return {"_cls": "Detections", "detections": found}


def _object_id(kind: str, study_id: str) -> dict[str, str]:
    """A name of a document as its database has it, the same for the same study."""
    return {"$oid": hashlib.sha256(f"{kind} {study_id}".encode()).hexdigest()[:24]}


def _metadata(reports: Reports, fields: Mapping[str, str], truth: str) -> dict[str, Any]:
    described = {
        "study_id": "The study, as its source names it",
        "view": "Of the radiograph",
        "reference": "The reference report",
        **{fields[name]: f"{each}. {RESEARCH}" for name, each in reports.writers.items()},
    }
    return {
        "name": "cxr-lens",
        "version": _VERSION,
        "media_type": "image",
        "description": RESEARCH,
        "info": reports.about(),
        "tags": [],
        "sample_fields": [
            _field("id", "ObjectId", db_field="_id"),
            _field("filepath", "String"),
            _field("tags", "List", of="String"),
            _field("metadata", _EMBEDDED, document="metadata.ImageMetadata", fields=_IMAGE),
            _field("created_at", "DateTime", read_only=True),
            _field("last_modified_at", "DateTime", read_only=True),
            *(_field(name, "String", description=text) for name, text in described.items()),
            _field("boxes", _EMBEDDED, document="labels.Detections", fields=[_BOXES], description=truth or None),
        ],
        "frame_fields": [],
        "app_config": {},
        "classes": {},
        "default_classes": [],
        "mask_targets": {},
        "default_mask_targets": {},
        "skeletons": {},
        "saved_views": [],
        "workspaces": [],
        "annotation_runs": {},
        "brain_methods": {},
        "evaluations": {},
        "runs": {},
    }


def _field(
    name: str,
    kind: str,
    *,
    db_field: str = "",
    of: str = "",
    document: str = "",
    fields: Sequence[dict[str, Any]] = (),
    description: str | None = None,
    read_only: bool = False,
) -> dict[str, Any]:
    """A field as `SampleFieldDocument` has it.

    Args:
        name: of the field.
        kind: of field.
        db_field: its name in the database, where it is another.
        of: kind of the fields that a list or a table holds.
        document: of an embedded document, or of those that a list holds.
        fields: of the embedded document.
        description: for a reader.
        read_only: nobody edits it.
    """
    return {
        "name": name,
        "ftype": f"fiftyone.core.fields.{kind}Field",
        "embedded_doc_type": f"fiftyone.core.{document}" if document else None,
        "subfield": f"fiftyone.core.fields.{of}Field" if of else None,
        "fields": list(fields),
        "db_field": db_field or name,
        "description": description,
        "info": None,
        "read_only": read_only,
    }


_EMBEDDED = "EmbeddedDocument"
_IMAGE = [
    _field("size_bytes", "Int"),
    _field("mime_type", "String"),
    *(_field(name, "Int") for name in ("width", "height", "num_channels")),
]
_BOXES = _field(
    "detections",
    "List",
    of=_EMBEDDED,
    document="labels.Detection",
    fields=[
        _field("id", "ObjectId", db_field="_id"),
        _field("tags", "List", of="String"),
        _field("attributes", "Dict", of=_EMBEDDED, document="labels.Attribute"),
        _field("label", "String"),
        _field("bounding_box", "List", of="Float"),
        _field("mask", "Array"),
        _field("mask_path", "String"),
        _field("confidence", "Float"),
        _field("index", "Int"),
    ],
)
