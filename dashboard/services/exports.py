"""In: an evaluation on disk. Out: its reports in a form that another program reads, packed for a download."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping

from core.exports import coco, radeval, rexrank
from core.exports.folder import MARK, LeftOut, mark
from core.exports.reports import Reports, of_file
from dashboard import settings
from dashboard.services import evaluations, sources
from dashboard.services.evaluations import ResultSet

KINDS: Mapping[str, Callable[[Reports, LeftOut], Iterator[tuple[str, bytes]]]] = {
    "RadEval": radeval.files,
    "COCO captions": coco.files,
    "ReXrank": rexrank.files,
}
"""What a page offers: texts alone, so small enough for a download. The first two need references."""


def packed(results: ResultSet, kind: str, hidden: Collection[str]) -> bytes:
    """The reports of an evaluation as a ZIP file.

    Args:
        results: whose reports are there.
        kind: a name of `KINDS`.
        hidden: studies that whoever looks may not see now: they are left out.

    Raises:
        CXRLensError: the reports are damaged, or none can be exported.
    """
    name = evaluations.source_of(results)
    source = None if name is None else sources.source(name)
    reports, notes = of_file(results.reports, settings.bundles(), source).without(hidden), LeftOut()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in KINDS[kind](reports, notes):
            archive.writestr(path, content)
        archive.writestr(MARK, mark(kind, reports.about(), notes))
    return out.getvalue()
