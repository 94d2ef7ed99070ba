"""t-SNE of CCVE's 13 embeddings a study, beside filters that learned nothing (paper's Figure 4): its file.

``results/<family>/ccve-map.json``, written by ``cxr-lens study ccve`` and drawn by the Results page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from core.files import write_whole
from core.types import CXRLensError

Floats = npt.NDArray[np.float64]


class FilterMapError(CXRLensError):
    """The file is missing or damaged; the message says how to write it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FilterMap:
    """Two maps of the same studies.

    Attributes:
        studies: ids.
        filters: names of the 13 clusters.
        settings: of t-SNE, by name.
        trained: (studies, filters, 2).
        random_filters: likewise, with filters that learned nothing before the same CLIP.
    """

    studies: tuple[str, ...]
    filters: tuple[str, ...]
    settings: Mapping[str, Any]
    trained: Floats
    random_filters: Floats

    def __post_init__(self) -> None:
        """Refuse maps of other shapes, and coordinates that are no numbers."""
        expected = (len(self.studies), len(self.filters), 2)
        for each in (self.trained, self.random_filters):
            if each.shape != expected or not np.isfinite(each).all():
                raise FilterMapError(f"expected finite coordinates of shape {expected}, got shape {each.shape}.")


def map_path(folder: Path, family: str) -> Path:
    """Where a family's map lies in the folder of all results."""
    return folder / family / "ccve-map.json"


def write_map(path: Path, content: FilterMap) -> None:
    """Write it in one piece, coordinates to a hundredth."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {
        "studies": content.studies,
        "filters": content.filters,
        "settings": content.settings,
        "trained": np.round(content.trained, 2).tolist(),
        "random_filters": np.round(content.random_filters, 2).tolist(),
    }
    write_whole(path, json.dumps(plain) + "\n", private=False)


def read_map(path: Path) -> FilterMap:
    """Read what :func:`write_map` wrote.

    Raises:
        FilterMapError: it is missing or damaged.
    """
    again = f"Write it again: cxr-lens study ccve --preset {path.parent.name}"
    from core import schemas  # brings pydantic, which takes a while

    try:
        plain = schemas.read_json(path, schemas.FilterMap)
        return FilterMap(
            studies=tuple(plain["studies"]),
            filters=tuple(plain["filters"]),
            settings=dict(plain["settings"]),
            trained=np.array(plain["trained"], dtype=np.float64),
            random_filters=np.array(plain["random_filters"], dtype=np.float64),
        )
    except FileNotFoundError:
        raise FilterMapError(f"{path} is missing. {again}") from None
    except FilterMapError as error:
        raise FilterMapError(f"{path} is damaged: {error} {again}") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FilterMapError(f"{path} is damaged ({type(error).__name__}: {error}). {again}") from error
