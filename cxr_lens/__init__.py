"""CXR Lens in a notebook: ``import cxr_lens``, then ten names. What they need comes when they are first used.

    pair = cxr_lens.load("phantom-fve-m2")
    report = pair.write("film.png")
    report.text, report.labels, report.cls_attention
    pair.explain(report, word="effusion", method="rise").map

Research use only. Not for use in diagnostic procedures.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from core import __version__

if TYPE_CHECKING:
    from core.api.images import read
    from core.api.pairs import Pair, WrittenReport, bundles, load
    from core.api.scores import score
    from core.api.studies import studies
    from core.api.texts import label
    from core.types import CXRLensError

__all__ = [
    "CXRLensError",
    "Pair",
    "WrittenReport",
    "__version__",
    "bundles",
    "label",
    "load",
    "read",
    "score",
    "studies",
]

_FROM = {
    "CXRLensError": ("core.types", "CXRLensError"),
    "Pair": ("core.api.pairs", "Pair"),
    "WrittenReport": ("core.api.pairs", "WrittenReport"),
    "bundles": ("core.api.pairs", "bundles"),
    "label": ("core.api.texts", "label"),
    "load": ("core.api.pairs", "load"),
    "read": ("core.api.images", "read"),
    "score": ("core.api.scores", "score"),
    "studies": ("core.api.studies", "studies"),
}


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for: torch takes seconds."""
    if name not in _FROM:
        raise AttributeError(f"cxr_lens has no '{name}'. It has {', '.join(__all__)}.")
    module, attribute = _FROM[name]
    found = globals()[name] = getattr(importlib.import_module(module), attribute)
    return found


def __dir__() -> list[str]:
    """The ten names."""
    return list(__all__)
