"""Which column of a table is what: named by a user, or by a map of a release that comes with the code."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from core.observations import OBSERVATIONS
from core.tables import TableError
from core.types import CXRLensError, Split

RELEASES = Path(__file__).resolve().parent / "releases"
"""Maps of public releases, a TOML file each."""

FIELDS = ("id", "image", "patient", "findings", "impression", "split", "view", "age", "sex", "order")
"""What a column can be, beside labels, traits and further texts."""

_SPLITS: dict[str, Split] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validate", "validation", "valid", "val", "dev"), "validate"),
    **dict.fromkeys(("test", "testing"), "test"),
}


@dataclass(frozen=True, slots=True)
class Boxes:
    """Where boxes of findings are.

    Attributes:
        file: a table beside the reports; "" where the rows of the reports hold them.
        image: column of the image, of a file.
        finding: column of the finding's name; of a row of the reports the path of a list of names for each box.
        corner: columns of left, top, width, height, of a file; of a row of the reports the path of lists of boxes, each
            left, top, right, bottom.
        side: pixels of a side of the image that numbers above 1 are of; 0 where they are of each image itself.
        truth: what they are, in words.
    """

    file: str = ""
    image: tuple[str, ...] = ()
    finding: tuple[str, ...] = ()
    corner: tuple[tuple[str, ...], ...] = ()
    side: int = 0
    truth: str = "boxes around the findings"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column is what. A name may be the path of a value in JSON: "findings[].sentence_en" of each of a list.

    Attributes:
        title: of the data, for a reader.
        credit: what must stand beside its images.
        of: column for each of `FIELDS`: names, of which the first that a table has counts; of "view" the first that
            says something.
        pattern: a regular expression whose groups, joined by "-", are the id; the whole value where there is none.
        texts: what else a reader is told -> column.
        traits: what studies can be divided by -> column.
        labels: observation -> column of 1, 0, -1 or blank.
        listed: column of a list of findings.
        between: what is between findings of a list in one text.
        observations: finding of a list, or of a box -> observations that it counts for.
        tables: names of the tables in the release's folder -> the split that all of a table is in, or "".
        lists: files of image or study ids beside the table -> the split of what they list.
        more: a second table, by file, whose rows add columns to those with the same `key`.
        key: of the second table.
        boxes: where boxes are.
        required: fields, labels and traits that a table must have: the id, and those that a user named.
    """

    title: str = "Your table"
    credit: str = ""
    of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pattern: str = ""
    texts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    between: str = "|"
    observations: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tables: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Split] = field(default_factory=dict)
    more: str = ""
    key: str = ""
    boxes: Boxes = Boxes()
    required: tuple[str, ...] = ("id",)

    def named(
        self,
        fields: Mapping[str, str],
        labels: Mapping[str, str],
        traits: Mapping[str, str],
        *,
        title: str = "",
        boxes: str = "",
    ) -> Columns:
        """This map with the columns that a user named instead of its own.

        Raises:
            CXRLensError: a label is none of the 14 observations.
        """
        for name in labels:
            if name not in OBSERVATIONS:
                near = difflib.get_close_matches(name.title(), OBSERVATIONS, n=1, cutoff=0.5)
                hint = f" Did you mean '{near[0]}'?" if near else f" They are: {', '.join(OBSERVATIONS)}."
                raise CXRLensError(f"--label:{name} is none of the 14 observations.{hint}")
        return replace(
            self,
            title=title or self.title,
            of={**self.of, **{name: (column,) for name, column in fields.items()}},
            pattern="" if "id" in fields else self.pattern,
            labels={**self.labels, **{name: (column,) for name, column in labels.items()}},
            traits={**self.traits, **{name: (column,) for name, column in traits.items()}},
            boxes=replace(self.boxes, file=boxes) if boxes else self.boxes,
            required=tuple(dict.fromkeys((*self.required, *fields, *labels, *traits))),
        )

    def chosen(self, table: Path, names: Sequence[str]) -> Columns:
        """This map with one name, or none, for each column: that which a table has.

        Raises:
            TableError: a column that is required, or a label's or trait's that a user named, is not there.
        """

        def choose(wanted: tuple[str, ...], required: bool) -> tuple[str, ...]:
            found = tuple(name for name in wanted if name.partition("[]")[0] in names)
            if required and not found:
                raise _no_column(table, wanted, names)
            return found

        of = {name: choose(each, name in self.required) for name, each in self.of.items()}
        return replace(
            self,
            of={name: each if name == "view" else each[:1] for name, each in of.items() if each},
            texts=_there({name: choose(each, False) for name, each in self.texts.items()}),
            traits=_there({name: choose(each, name in self.required) for name, each in self.traits.items()}),
            labels=_there({name: choose(each, name in self.required) for name, each in self.labels.items()}),
            listed=choose(self.listed, False)[:1],
        )

    def columns(self) -> tuple[str, ...]:
        """All columns that are read, without the paths in them."""
        every = [*self.of.values(), *self.texts.values(), *self.traits.values(), *self.labels.values(), self.listed]
        if not self.boxes.file:
            every += [self.boxes.finding, *self.boxes.corner]
        return tuple(dict.fromkeys(name.partition("[]")[0] for names in every for name in names))


def read_split(written: str) -> Split | None:
    """A split from the words that tables have for it; None where it is none."""
    return _SPLITS.get(written.strip().lower())


def releases() -> dict[str, str]:
    """Title of each release that a map comes with, by name."""
    return {path.stem: _read(path)["title"] for path in sorted(RELEASES.glob("*.toml"))}


def release_columns(name: str) -> Columns:
    """The map of a release.

    Raises:
        CXRLensError: there is none of this name; the message says which there are.
    """
    path = RELEASES / f"{name}.toml"
    known = sorted(each.stem for each in RELEASES.glob("*.toml"))
    if name not in known:
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise CXRLensError(f"There is no map of columns '{name[:40]}'.{hint} There are: {', '.join(known)}.")
    content = _read(path)
    boxes = content.get("boxes", {})
    return Columns(
        title=content["title"],
        credit=content.get("credit", ""),
        of=_tuples(content["columns"]),
        pattern=content.get("pattern", ""),
        texts=_tuples(content.get("texts", {})),
        traits=_tuples(content.get("traits", {})),
        labels=_tuples(content.get("labels", {})),
        listed=_tuple(content.get("listed", [])),
        between=content.get("between", "|"),
        observations=_tuples(content.get("observations", {})),
        tables=content["tables"],
        lists=content.get("lists", {}),
        more=content.get("more", ""),
        key=content.get("key", ""),
        boxes=Boxes(
            file=boxes.get("file", ""),
            image=_tuple(boxes.get("image", [])),
            finding=_tuple(boxes.get("finding", [])),
            corner=tuple(_tuple(each) for each in boxes.get("corner", [])),
            side=boxes.get("side", 0),
            truth=boxes.get("truth", Boxes().truth),
        ),
    )


def _read(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _tuple(value: str | Sequence[str]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _tuples(values: Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    return {name: _tuple(value) for name, value in values.items()}


def _there(columns: Mapping[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    return {name: each[:1] for name, each in columns.items() if each}


def _no_column(table: Path, wanted: Sequence[str], names: Sequence[str]) -> TableError:
    lower = {name.lower(): name for name in names}
    near = [lower[each] for each in difflib.get_close_matches(wanted[0].lower(), lower, n=2, cutoff=0.5)]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    shown = ", ".join(name[:40] for name in names[:20]) or "nothing"
    return TableError(f"{table} has no column {' or '.join(wanted)}.{hint} It has: {shown}.")
