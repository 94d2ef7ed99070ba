"""Stage: the tokens of a frozen encoder, once a study, on disk; and how decoders read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from core import ranks
from core.encoders.token_cache import TokenCache, write_token_cache
from core.types import SPLITS, Split
from training.data import to_images
from training.runs import content_hash, is_quiet, run_stage
from training.stages.encoders import encoder_key, trained_encoder
from training.stages.run import Run


def tokens(run: Run, name: str) -> str:
    """Run a frozen encoder once over all studies."""
    before = encoder_key(run, name)

    def work(folder: Path) -> None:
        device = run.placement.device
        encoder = trained_encoder(run, name).to(device)
        for split in SPLITS:
            values = run.data.images(split, encoder.normalize.image_size)
            with tqdm(desc=f"  {name} tokens, {split}", unit="study", disable=is_quiet()) as bar:

                def show(done: int, total: int, bar: Any = bar) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                write_token_cache(
                    folder / split,
                    _key(before, split),
                    encoder,
                    lambda start, end, values=values: to_images(values[start:end]).to(device),  # type: ignore[misc]
                    len(values),
                    show,
                    rank=ranks.rank(),
                    ranks=ranks.count(),
                )

    return run_stage(run.folder / f"tokens_{name}", run.inputs(encoder=before), work)


def cache(run: Run, name: str, split: Split) -> TokenCache:
    """Open what `tokens` has written.

    Raises:
        CXRLensError: there are none, or of other weights.
    """
    folder = run.folder / f"tokens_{name}"
    before = json.loads((folder / "config.json").read_text(encoding="utf-8"))["inputs"]["encoder"]
    return TokenCache.open(folder / split, _key(before, split))


def _key(encoder: str, split: Split) -> str:
    return content_hash([encoder, split])
