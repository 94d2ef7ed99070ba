"""Label Studio's tasks: an image, its reference, and a prediction a system, with the configuration that shows them.

The layout is Label Studio's basic JSON (labelstud.io/guide/predictions, guide/task_format): ``data``, and
``predictions`` with ``model_version`` and regions of ``from_name``, ``to_name``, ``type``, ``value``. Boxes of findings
are a prediction of their own, so that a reader sees them apart from what systems wrote.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import quoteattr

from core.exports.folder import LeftOut, as_json, need_some
from core.exports.reports import Reports, file_names, pictures
from core.exports.writers import RESEARCH, Writer
from core.studies.source import Box

CONFIGURATION = """<View>
  <Header value={use} size="6"/>
  <View style="display: flex; gap: 1em">
    <View style="flex: 3">
      <Image name="image" value="$image" zoom="true" zoomControl="true" brightnessControl="true"/>
      <RectangleLabels name="finding" toName="image">
{labels}
      </RectangleLabels>
    </View>
    <View style="flex: 2">
      <Header value="Reference report" size="5"/>
      <Text name="reference" value="$reference"/>
      <Header value="Generated report" size="5"/>
      <TextArea name="report" toName="image" editable="true" rows="8" maxSubmissions="1"/>
    </View>
  </View>
</View>
"""


def files(reports: Reports, notes: LeftOut, *, prefix: str) -> Iterator[tuple[str, bytes]]:
    """``tasks.json``, ``configuration.xml`` and the images.

    Args:
        reports: of studies whose source is at hand.
        notes: of what is left out: studies without an image.
        prefix: what stands before "NAME.png" in the address of an image, as Label Studio serves it.

    Raises:
        CXRLensError: no source is at hand, or no image can be read.
    """
    source = reports.opened("the images")
    names = file_names(reports.study_ids)
    tasks: list[dict[str, Any]] = []
    labels: dict[str, None] = {}
    for place, content, width, height in pictures(reports, range(len(reports.study_ids)), notes):
        study_id = reports.study_ids[place]
        image = f"{names[study_id]}.png"
        yield f"images/{image}", content
        boxes = source.boxes(study_id, (height, width))
        labels |= dict.fromkeys(box.name for box in boxes)
        if not reports.references[place].strip():
            notes.add("study without a reference report", study_id)
        data = {"image": f"{prefix}{image}", "study_id": study_id, "reference": reports.references[place] or " "}
        predictions = [_prediction(each, reports.texts[name][place]) for name, each in reports.writers.items()]
        if boxes:
            found = [_rectangle(number, box, width, height) for number, box in enumerate(boxes)]
            predictions.append({"model_version": source.truth, "result": found})
        tasks.append({"data": {**data, "about": RESEARCH}, "predictions": predictions})
    need_some(len(tasks), notes, "study")
    yield "tasks.json", as_json(tasks)
    found_labels = "\n".join(f"        <Label value={quoteattr(each)}/>" for each in labels or {"Finding": None})
    yield "configuration.xml", CONFIGURATION.format(use=quoteattr(RESEARCH), labels=found_labels).encode()


def _prediction(writer: Writer, text: str) -> dict[str, Any]:
    """A system's report as a text of the image; of one that wrote nothing, without a region."""
    region = {"id": "report", "from_name": "report", "to_name": "image", "type": "textarea", "value": {"text": [text]}}
    return {"model_version": str(writer), "result": [region] if text.strip() else []}


def _rectangle(number: int, box: Box, width: int, height: int) -> dict[str, Any]:
    """A box in percent of the image."""
    corner = {
        "x": 100 * box.left,
        "y": 100 * box.top,
        "width": min(100 * box.width, 100 - 100 * box.left),
        "height": min(100 * box.height, 100 - 100 * box.top),
        "rotation": 0,
    }
    return {
        "id": f"box-{number}",
        "from_name": "finding",
        "to_name": "image",
        "type": "rectanglelabels",
        "original_width": width,
        "original_height": height,
        "image_rotation": 0,
        "value": {**corner, "rectanglelabels": [box.name]},
    }
