"""Sections of a MIMIC-CXR report, by the public rules of MIT-LCP.

Source of the rules: `txt/section_parser.py` in MIT-LCP/mimic-cxr (MIT licence; now in MIT-LCP/mimic-code), with which
`mimic_cxr_sectioned.csv` is made. The results are meant to be the same, oddities too: a header on the first line is
not seen, and "ndication" counts as an impression.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.types import CXRLensError

_HEADER = re.compile(r"\n ([A-Z ()/,-]+):\s")
_PARAGRAPH = "\n \n"

# Section -> headers that mean it beside its own name, lower case.
_ALIASES: dict[str, tuple[str, ...]] = {
    "impression": (
        *("conclusion", "findings and impression", "findings/impression", "findings/ impression", "ndication"),
        *("impresson", "imprression", "imoression", "impressoin", "imprssion", "impresion", "imperssion"),
        *("mpression", "impession"),
    ),
    "findings": (
        *("chest, two views", "finding", "reference findings", "findins", "findindgs", "findgings", "findngs"),
        *("findnings", "finidngs"),
    ),
    "comparison": (
        *("comparisons", "reference exam", "comparison exam", "comparison film", "comparision", "comparsion"),
        *("comparrison", "comparisions"),
    ),
    "indication": ("reason for examination", "reason for exam", "clinical indication", "idication"),
    "history": ("clinical history", "clinical information", "patient history", "pfi"),
    "examination": ("exam", "type of examination"),
    "recommendations": ("recommendation(s)", "recommendation"),
    "wet read": ("wetread",),
}
_SECTION_OF = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}
_SECTION_OF |= {name: name for name in (*_ALIASES, "addendum", "comment", "date", "notification", "technique")}
# A header that is none of these: the first of the names it contains, otherwise findings if it tells of a view.
_CONTAINED = ("impression", "findings", "history", "comparison", "addendum")
_VIEWS = re.compile(
    "chest|portable|pa and lat|lateral and pa|ap and lateral|lateral and ap|frontal and|two views|frontal view"
    "|pa view|ap view|one view|lateral view|bone window|frontal upright|frontal semi-upright|ribs"
)


@dataclass(frozen=True, slots=True)
class Exceptions:
    """Studies whose report's rules were set by hand.

    Attributes:
        sections: study ("s" and number) -> the section in which its findings stand.
        ranges: study -> (start, end) of its findings, characters of the file; empty where it has none.
    """

    sections: Mapping[str, str] = field(default_factory=dict)
    ranges: Mapping[str, tuple[int, int]] = field(default_factory=dict)


def read_exceptions(path: Path) -> Exceptions:
    """Read the exceptions out of MIT-LCP's `section_parser.py`; nothing of the file is run.

    Raises:
        CXRLensError: the file is another one.
    """
    found: dict[str, dict[str, Any]] = {}
    try:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                name = node.targets[0].id
                if name in ("custom_section_names", "custom_indices"):
                    found[name] = ast.literal_eval(node.value)
        sections = {str(study): str(name) for study, name in found["custom_section_names"].items()}
        ranges = {str(study): _range(value) for study, value in found["custom_indices"].items()}
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise CXRLensError(
            f"{path} is not MIT-LCP's section_parser.py: custom_section_names and custom_indices cannot be read from "
            "it. Get it from txt/ in the repository MIT-LCP/mimic-cxr."
        ) from error
    return Exceptions(sections, ranges)


def _range(value: Any) -> tuple[int, int]:
    start, end = value
    return int(start), int(end)


def split_sections(text: str) -> list[tuple[str, str]]:
    """Split a report into (section, text), in their order; texts are as they stand in the report."""
    sections: list[tuple[str, str]] = []
    header = _HEADER.search(text)
    sections.append(("preamble", text[: header.start(1)]) if header else ("full report", text))
    while header:
        # The next header is sought from the next line on.
        newline = text.find("\n", header.end())
        following = _HEADER.search(text, header.end() if newline < 0 else newline)
        body = text[header.end() : following.start() if following else len(text)]
        sections.append((_section_of(header[1]), body))
        header = following
    sections = [(name, body) for name, body in sections if name not in ("impression", "findings") or body.strip()]
    name, body = sections[-1]
    if not {"impression", "findings"} & {name for name, _ in sections} and _PARAGRAPH in body:
        head, _, rest = body.partition(_PARAGRAPH)
        sections[-1:] = [(name, head), ("last_paragraph", rest)]
    return sections


def read_report(text: str, study_id: str = "", exceptions: Exceptions | None = None) -> dict[str, str]:
    """Read a report's sections: the last one of each name counts, white space becomes single spaces.

    Args:
        text: of the report.
        study_id: "s" and number, for the exceptions.
        exceptions: where they name the study, it has findings only, from the place that they give.

    Returns:
        text by section name; "findings", "impression" and others where the report has them.
    """
    if exceptions is not None and study_id in exceptions.ranges:
        start, end = exceptions.ranges[study_id]
        return {"findings": " ".join(text[start:end].split())}
    sections = {name: " ".join(body.split()) for name, body in split_sections(text)}
    if exceptions is not None and study_id in exceptions.sections:
        return {"findings": sections.get(exceptions.sections[study_id], "")}
    return sections


def _section_of(header: str) -> str:
    name = header.lower().strip()
    if name in _SECTION_OF:
        return _SECTION_OF[name]
    for contained in _CONTAINED:
        if contained in name:
            return contained
    return "findings" if _VIEWS.search(name) else name
