"""A folder of studies, or the phantoms, as something to count, look at and loop over."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

from core.studies.phantom import PhantomSource
from core.studies.source import Source
from core.studies.sources import open_source
from core.types import SPLITS, CXRLensError, FloatImage, Split, Study

if TYPE_CHECKING:
    import pandas as pd

PHANTOM = "phantom"


class Studies:
    """Studies with their images, of one split or of all; each is made when it is needed."""

    def __init__(self, source: Source, splits: tuple[Split, ...] = SPLITS) -> None:
        """Studies of a source."""
        self.source = source
        self._splits = {split: source.studies(split) for split in splits}

    def __len__(self) -> int:
        """How many there are."""
        return sum(len(each) for each in self._splits.values())

    def __iter__(self) -> Iterator[Study]:
        """One after another, in a fixed order."""
        return chain.from_iterable(self._splits.values())

    def __getitem__(self, study: str | int) -> Study:
        """A study by its id, or by its index.

        Raises:
            IndexError: there are not so many.
            CXRLensError: there is no such id; the message names those that look like it.
        """
        if isinstance(study, str):
            found = self.source.study(study)
            if found.split not in self._splits:
                raise CXRLensError(f"Study '{study}' is of the split {found.split}, not among these {len(self)}.")
            return found
        at = study + len(self) if study < 0 else study
        for each in self._splits.values():
            if 0 <= at < len(each):
                return each[at]
            at -= len(each)
        raise IndexError(f"There are {len(self)} studies, counted from 0; not {study}.")

    def image(self, study: Study | str, size: int = 512) -> FloatImage:
        """A study's image, (size, size), values in [0, 1].

        Raises:
            CXRLensError: it cannot be read.
        """
        return self.source.image(study if isinstance(study, str) else study.study_id, size)

    def table(self) -> pd.DataFrame:
        """One row for each study, by its id: patient, split, view, texts, and the state of each observation."""
        import pandas as pd

        rows = [
            {
                "study_id": each.study_id,
                "subject_id": each.subject_id,
                "split": each.split,
                "view": each.view,
                "findings": each.findings,
                "impression": each.impression,
                **{name: str(state) for name, state in each.labels.items()},
            }
            for each in self
        ]
        return pd.DataFrame(rows).set_index("study_id")

    def split(self, name: Split) -> Studies:
        """Only the studies of "train", "validate" or "test".

        Raises:
            CXRLensError: another name.
        """
        if name not in self._splits:
            raise CXRLensError(f"A split is {', '.join(self._splits)}, not '{name}'.")
        return Studies(self.source, (name,))

    def __repr__(self) -> str:
        """How many, by split."""
        shares = ", ".join(f"{len(each)} {split}" for split, each in self._splits.items() if len(each))
        return f"{len(self)} studies of {self.source.name} ({shares})"


def studies(where: str | os.PathLike[str], *, views: str | None = None, count: int = 2000, seed: int = 0) -> Studies:
    """Open studies.

    Args:
        where: folder of an index, as ``cxr-lens data`` makes it; or any other source, see `core.studies.sources`.
        views: which images of an index count, see `core.views`; "frontal" unless given.
        count: of phantoms.
        seed: of phantoms.

    Raises:
        CXRLensError: there are no studies, or the index has no such choice of views.
    """
    if str(where) == PHANTOM:
        return Studies(PhantomSource(count=count, seed=seed))
    return Studies(open_source(f"index:{views}:{where}" if views else str(where)))
