"""What an index found, kept and dropped, counted and written for a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from core.types import SPLITS
from core.views import view_choices

if TYPE_CHECKING:
    from core.studies.index import StudyIndex

_EXAMPLES = 5


@dataclass
class Notes:
    """What is worth telling of a release and drops nothing by itself: how often, with some examples."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, what: str, example: str) -> None:
        """Count one."""
        self.counts[what] += 1
        if self.counts[what] <= _EXAMPLES:
            self.examples.setdefault(what, []).append(example)


def take_census(index: StudyIndex, notes: Notes) -> dict[str, Any]:
    """Count what an index has, keeps and leaves out, and why."""
    views = []
    for name in view_choices(index.source):
        samples = index.samples(name)
        for split in SPLITS:
            part = samples[samples["split"] == split]
            views.append(
                {
                    "views": name,
                    "split": split,
                    "images": len(part),
                    "studies": int(part["study"].nunique()),
                    "patients": int(part["subject_id"].nunique()),
                    "findings": int(part["has_findings"].sum()),
                    "impression": int(part["has_impression"].sum()),
                }
            )
    return {
        "source": index.source,
        "root": str(index.root),
        "studies": _dropped(index.studies, "study_id"),
        "images": _dropped(index.images, "image_id"),
        "notes": {
            what: {"count": count, "examples": notes.examples[what]} for what, count in notes.counts.most_common()
        },
        "views": views,
    }


def _dropped(table: pd.DataFrame, key: str) -> dict[str, Any]:
    out = table[table["dropped"] != ""]
    reasons = {
        str(reason): {"count": len(rows), "examples": rows[key].head(_EXAMPLES).tolist()}
        for reason, rows in sorted(out.groupby("dropped"), key=lambda pair: -len(pair[1]))
    }
    return {"found": len(table), "dropped": reasons}


def format_census(census: Mapping[str, Any]) -> str:
    """Write a census for a reader."""
    lines = [f"{census['source']}, read from {census['root']}"]
    for name in ("studies", "images"):
        part = census[name]
        dropped = sum(each["count"] for each in part["dropped"].values())
        lines.append(
            f"\n{name:<10} {part['found']:>9,} listed {part['found'] - dropped:>9,} kept {dropped:>9,} dropped"
        )
        lines += [_line(reason, **each) for reason, each in part["dropped"].items()]
    if census["notes"]:
        lines.append("\nalso seen, nothing dropped for it by itself")
        lines += [_line(what, **each) for what, each in census["notes"].items()]
    lines.append(
        f"\n{'views':<10}{'split':<10}{'images':>9}{'studies':>9}{'patients':>10}{'findings':>10}{'impression':>12}"
    )
    for row in census["views"]:
        lines.append(
            f"{row['views']:<10}{row['split']:<10}{row['images']:>9,}{row['studies']:>9,}{row['patients']:>10,}"
            f"{row['findings']:>10,}{row['impression']:>12,}"
        )
    lines.append("findings, impression: images whose study has that section")
    return "\n".join(lines)


def _line(what: str, count: int, examples: Sequence[str]) -> str:
    return f"  {count:>9,}  {what}: {', '.join(examples)}{', ...' if count > len(examples) else ''}"
