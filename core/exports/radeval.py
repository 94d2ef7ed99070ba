"""RadEval's lists: a file a system with ``refs`` and ``hyps`` in one order, beside them the studies' ids.

``RadEval(metrics=[...])(refs=file["refs"], hyps=file["hyps"])`` (jbdel/RadEval, README, release 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator

from core.exports.folder import LeftOut, as_json
from core.exports.reports import Reports, file_names
from core.exports.writers import RESEARCH


def files(reports: Reports, notes: LeftOut) -> Iterator[tuple[str, bytes]]:
    """A file a system. Studies without a reference are left out, and counted; an empty report stays "".

    Raises:
        CXRLensError: no study has a reference.
    """
    places = reports.referenced(notes)
    names = file_names(list(reports.texts))
    for system, texts in reports.texts.items():
        content = {
            "about": {"use": RESEARCH, "system": str(reports.writers[system])},
            "ids": [reports.study_ids[place] for place in places],
            "refs": [reports.references[place] for place in places],
            "hyps": [texts[place] for place in places],
        }
        yield f"{names[system]}.json", as_json(content)
