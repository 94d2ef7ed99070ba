"""Stage: the tokens of a frozen encoder, once a study, on disk; and how decoders read them."""

from __future__ import annotations

from pathlib import Path

from core import ranks
from core.encoders.token_cache import TokenCache, damaged_shards, write_token_cache
from core.registry import ENCODERS
from core.types import SPLITS, Split
from training.console import has_no_bars, progress_bar
from training.data import to_images
from training.identity import content_hash
from training.run_folder import Done, StageError, read_record, run_stage
from training.stages.encoders import train_encoder, trained_encoder
from training.stages.run import Run


def _folder(run: Run, name: str, decoder_name: str) -> Path:
    """An encoder that learned with its decoder has other tokens for each."""
    return run.folder / (f"tokens_{name}" if ENCODERS[name].frozen else f"tokens_{name}_{decoder_name}")


def tokens(run: Run, name: str, decoder_name: str = "") -> Done:
    """Run a frozen encoder once over all studies; ``decoder_name`` matters to one that learned with its decoder."""
    identity = run.identity("tokens", after=train_encoder(run, name, decoder_name), encoder=name)
    key = content_hash(identity)

    def work(folder: Path) -> None:
        device = run.placement.device
        encoder = trained_encoder(run, name, decoder_name).to(device)
        for split in SPLITS:
            values = run.data.images(split, encoder.normalize.image_size)
            with progress_bar("study", f"  {name} tokens, {split}", hidden=has_no_bars()) as tell:
                write_token_cache(
                    folder / split,
                    content_hash([key, split]),
                    encoder,
                    lambda start, end, values=values: to_images(values[start:end]).to(device),  # type: ignore[misc]
                    len(values),
                    tell,
                    rank=ranks.rank(),
                    ranks=ranks.count(),
                )

    def damaged(folder: Path) -> str:
        found = {split: damaged_shards(folder / split, content_hash([key, split])) for split in SPLITS}
        return ", ".join(f"{split}/{shard} is not what was written" for split in SPLITS for shard in found[split])

    return run_stage(_folder(run, name, decoder_name), identity, work, damaged)


def cache(run: Run, name: str, split: Split, decoder_name: str = "") -> TokenCache:
    """Open what `tokens` has written.

    Raises:
        CXRLensError: there are none, or of other weights.
    """
    folder = _folder(run, name, decoder_name)
    record = read_record(folder)
    if not record:
        raise StageError(f"{folder} has no tokens. Run the stage '{folder.name}' first.")
    return TokenCache.open(folder / split, content_hash([record["key"], split]))
