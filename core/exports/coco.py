"""COCO's captions: ``annotations.json`` of the references, and a file of results a system.

Of the layout that pycocotools and pycocoevalcap read (cocodataset.org, "Data format" 1 and 5, "Results format" 5).
Results are a bare list, so who wrote stands in the ``info`` of the annotations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from core import __version__
from core.exports.folder import LeftOut, as_json, need_some
from core.exports.reports import Reports, file_names, pictures
from core.exports.writers import RESEARCH, SOFTWARE


def files(reports: Reports, notes: LeftOut, *, images: bool = False) -> Iterator[tuple[str, bytes]]:
    """The annotations, a file of results a system, and the images if they are wanted, below ``images``.

    Captions are of one line, for the tokenizer of these programs reads lines. Studies without a reference are left out.

    Raises:
        CXRLensError: no study has a reference; or images are wanted, and none can be read.
    """
    names = file_names(reports.study_ids)
    places = reports.referenced(notes)
    sizes: dict[int, dict[str, int]] = {}
    if images:
        for place, content, width, height in pictures(reports, places, notes):
            sizes[place] = {"width": width, "height": height}
            yield f"images/{names[reports.study_ids[place]]}.png", content
        places = list(sizes)
        need_some(len(places), notes, "image")
    yield "annotations.json", as_json(_annotations(reports, places, names, sizes))
    for system, name in file_names(list(reports.texts)).items():
        texts = reports.texts[system]
        yield (
            f"results-{name}.json",
            as_json([{"image_id": place + 1, "caption": one_line(texts[place])} for place in places]),
        )


def _annotations(
    reports: Reports, places: list[int], names: dict[str, str], sizes: dict[int, dict[str, int]]
) -> dict[str, Any]:
    return {
        "info": {
            "description": f"Reference reports of {reports.title or 'chest radiographs'} as captions. {RESEARCH}",
            "contributor": f"{SOFTWARE} {__version__}",
            "version": __version__,
            "systems": [str(each) for each in reports.writers.values()],
        },
        "licenses": [{"id": 1, "name": "That of the studies that these reports are of", "url": ""}],
        "type": "captions",
        "images": [
            {
                "id": place + 1,
                "file_name": f"{names[reports.study_ids[place]]}.png",
                "license": 1,
                "study_id": reports.study_ids[place],
                **sizes.get(place, {}),
            }
            for place in places
        ],
        "annotations": [
            {"id": place + 1, "image_id": place + 1, "caption": one_line(reports.references[place])} for place in places
        ],
    }


def one_line(text: str) -> str:
    """A text with a blank for every run of blanks and line ends."""
    return " ".join(text.split())
