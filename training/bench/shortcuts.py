"""What is done once instead of again, against the way without it: ``make bench PARTS=shortcuts``."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from csv import DictReader
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from PIL import Image

from core.labels import report_text, rules
from core.paths import BUNDLES
from core.projection.methods import ProjectionConfig, fit_pca, place
from core.studies.images import fit_square
from core.studies.images.picture import read_jpeg
from core.studies.model_image import grey_levels
from core.types import Projection
from training.bench import searches
from training.bench.turns import Row, in_turns

OPENI = Path(__file__).resolve().parents[3] / "shared" / "data" / "openi" / "indiana_reports.csv"
"""Open-i's reports beside the clone; without them its row is left out."""
ENDS = re.compile(
    r"(?<!\bvs)(?<!\d )\.(?=[\s.a-z]|$)|(?<=\d )\.(?! ?\d)|!(?=\s|$)|(?<=[\w)\"'])\?(?=\s|$)|\n"
    r"|(?<=\s)(?=#?\d{1,2}\)\s)|(?<=\s)(?=\([1-9]\)\s*[a-z])|(?<=\s)(?=#\d{1,2}\s)|(?=\u2022)"
    r"|(?<=\s)(?=(?:[a-e]|[ivx]{1,4})\)\s)|(?<=\s)(?=\*\s)|\|"
)
"""Where statements end, in one expression, which tries every alternative at every character."""


def _openi() -> list[str]:
    with OPENI.open(newline="", encoding="utf-8") as file:
        return [row[part] for row in DictReader(file) for part in ("findings", "impression") if row[part]]


def _generated() -> list[str]:
    lines = (BUNDLES / "phantom-reports.jsonl").read_text(encoding="utf-8").splitlines()
    return [text for line in lines for name, text in json.loads(line).items() if name.startswith("phantom-")]


def labels() -> Iterator[Row]:
    """The rule labeler, which remembers sentences, against every statement decided anew, its end sought everywhere."""

    def anew(texts: list[str]) -> list[rules.LabeledReport]:
        with patch.object(rules, "_mentions", rules._read_statement), patch.object(report_text, "_END", ENDS):
            return rules.label_reports(texts)

    def first_time(texts: list[str]) -> list[rules.LabeledReport]:
        rules._remembered.cache_clear()
        return rules.label_reports(texts)

    for what, texts in (("of Open-i", _openi() if OPENI.is_file() else []), ("that pairs wrote", _generated())):
        if texts:
            yield in_turns(
                f"rule labeler, {len(texts):,} reports {what}, nothing remembered",
                "every statement decided anew",
                lambda texts=texts: anew(texts),  # type: ignore[misc]
                lambda texts=texts: first_time(texts),  # type: ignore[misc]
            )


def one_point(count: int = 10_000, width: int = 640) -> Row:
    """One point placed into a t-SNE map by its neighbours, against openTSNE, which asks for those of all first."""
    import openTSNE

    rng = np.random.default_rng(0)
    features = rng.normal(size=(count, width)).astype(np.float32)
    there = (8 * features[:, :2] + rng.normal(size=(count, 2))).astype(np.float32)
    there -= (there.max(0) + there.min(0)) / 2  # where openTSNE puts it
    config, new = ProjectionConfig(method="t-SNE"), features[:1] + np.float32(0.1)

    def with_all() -> Any:
        axes = fit_pca(features, config.components, config.seed)
        affinities = openTSNE.affinity.PerplexityBasedNN(axes.place(features), config.perplexity, method="exact")
        embedding = openTSNE.TSNEEmbedding(there.astype(np.float64), affinities, negative_gradient_method="bh")
        return np.asarray(embedding.transform(axes.place(new)))

    placed = Projection(there, "t-SNE", {})
    near = 0.01 * float(np.ptp(there))
    return in_turns(
        f"one point into a t-SNE map of {count:,}",
        "openTSNE's transform",
        with_all,
        lambda: place(features, placed, new, config),
        lambda one, other: bool(np.abs(one - other).max() < near),
    )


def large_film(height: int = 3056, width: int = 2544) -> Row:
    """A JPEG read for the image cache, which asks for no hash of its pixels, against hashing them too."""
    pixels = np.random.default_rng(0).normal(128, 40, (height // 4, width // 4)).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    data = file.getvalue()

    def read(hashed: bool) -> Any:
        film = read_jpeg(data, "film")
        if hashed:
            film.sha256  # noqa: B018 - it is worked out here
        return grey_levels(fit_square(film.pixels, 256)[0])

    return in_turns(
        f"a JPEG of {height} x {width} into the image cache",
        "its pixels hashed too",
        lambda: read(hashed=True),
        lambda: read(hashed=False),
        np.array_equal,
    )


def report() -> Iterator[Row]:
    """All of them."""
    yield from labels()
    yield one_point()
    yield from searches.rows()
    yield large_film()
