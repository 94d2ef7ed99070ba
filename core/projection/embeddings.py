"""Studies of any source as an encoder sees them, on disk by content: ``python -m core.projection.embeddings FOLDER``.

A file has a row a study, as `read_embeddings` tells. Studies stand in a drawn order, so the first of them are a random
sample: a page that cannot draw all of them reads only these.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from core.bundles.card import encoder_weights
from core.bundles.library import BundleLibrary
from core.bundles.rounding import SCALE, restored, rounded
from core.devices import Precision
from core.files import hash_of, open_plain, remove_forgotten, whole_file, write_whole
from core.jobs import Job, Progress
from core.jobs import work as be_the_process
from core.observations import CLUSTERS
from core.projection.job import cache_folder, writable
from core.registry import encoder_parts, token_names
from core.rows import BLOCK as SUMMED
from core.rows import compare_tables, sums_of_tables
from core.studies.model_image import of_study
from core.studies.source import Source
from core.studies.sources import open_source
from core.types import PAD, CXRLensError, Split
from core.wording import counted

if TYPE_CHECKING:
    from torch import Tensor

    from core.bundles.pair import ReportModel
    from core.encoders import Encoder
    from core.types import VisualTokens

Arrays = Mapping[str, npt.NDArray[Any]]
POOLED, TOKENS, RANDOM = "pooled", "tokens", "random_filters"
BLOCK = 64
"""Studies in a block: what an interruption costs at most."""
SINGLE_STUDIES = 3 * BLOCK
"""The first studies, of which single tokens are kept, beside CCVE's those of filters that learned nothing. Ours: that
control costs as much time as CCVE itself."""
_FITTED = 16  # studies on which random filters are made as strong as learned ones
_VERSION = 2  # raise it when the same image and weights give other embeddings


@dataclass(frozen=True, slots=True)
class Embedding:
    """What is embedded, and how.

    Attributes:
        source: key of a source, as `core.studies.sources.open_source` takes it.
        bundles: folder of bundles.
        bundle: name of the one whose encoder it is.
        split: "train", "validate", "test"; None is all studies.
        most: a drawn sample of so many studies; None is all of them.
        batch: images that are encoded together.
        device: see `core.devices.open_device`.
        precision: see `core.devices.Precision`.
    """

    source: str
    bundles: Path
    bundle: str
    split: Split | None = None
    most: int | None = None
    batch: int = 16
    device: str = "auto"
    precision: Precision = "fp32"


@dataclass(frozen=True, slots=True)
class Embedded:
    """What came of it.

    Attributes:
        path: of the file.
        studies: that were to be embedded.
        kept: of them are in the file.
        unreadable: the others, and why: study id -> a sentence.
    """

    path: Path
    studies: int
    kept: int
    unreadable: Mapping[str, str]


# ------------------------------------------------------------------------------------------------------------- files


def embeddings_folder() -> Path:
    """Where embeddings are kept: beside the maps, see `cache_folder`."""
    return cache_folder().parent / "embeddings"


def read_embeddings(path: Path, first: int | None = None) -> tuple[tuple[str, ...], dict[str, npt.NDArray[np.float32]]]:
    """Read a file of embeddings.

    Args:
        path: as `embed`, or training beside its bundles, wrote it.
        first: so many studies only.

    Returns:
        the n study ids, and tensors by name: "pooled", "pooled.<tower>", "text", "states.<decoder>" are (n, D);
        "tokens", "tokens.<tower>", "random_filters" (m, N, D), single tokens of the first m <= n studies.

    Raises:
        CXRLensError: it is damaged; the message says how.
        OSError: it is not there.
    """
    from safetensors import SafetensorError, safe_open

    path.stat()
    try:
        open_plain(path).close()
        with safe_open(path, framework="numpy") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
            rows = {key: part.get_shape()[0] for key, part in parts.items()}
            told = file.metadata() or {}
            sums = told.pop("sums", None)  # those that come with the program have none
            wanted = {key: min(rows[key], first or rows[key]) for key in parts}
            # Whole blocks are read, for these have the checksums.
            raw = {key: part[: min(rows[key], -(-wanted[key] // SUMMED) * SUMMED)] for key, part in parts.items()}
            if sums is not None:
                compare_tables(json.loads(sums), raw, told)
            raw = {key: values[: wanted[key]] for key, values in raw.items()}
            whole = json.loads(told["study_ids"])
        study_ids = tuple(whole[:first])
        raw = {key: np.asarray(value, dtype=np.float32) for key, value in raw.items()}
        tensors = {key: restored(raw, key) for key in raw if not key.endswith(SCALE)}
        _check(study_ids, tensors)
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, RecursionError) as error:
        if path.parent == embeddings_folder():
            with suppress(OSError):
                path.unlink()
            raise CXRLensError(f"{path.name} was damaged ({error}) and is removed. Compute it again.") from error
        raise CXRLensError(f"{path.name} is damaged ({error}). Restore it, or compute it again.") from error
    return study_ids, tensors


def is_single(kind: str) -> bool:
    """Are these tokens one by one, (m, N, D), and not a row a study?"""
    return kind.split(".")[0] in (TOKENS, RANDOM)


def _check(study_ids: Sequence[str], tensors: Arrays) -> None:
    for key, values in tensors.items():
        single = is_single(key)
        rows = len(values) if values.ndim else 0
        whole = rows == len(study_ids) if not single else 0 < rows <= len(study_ids)
        if values.ndim != 2 + single or not whole:
            raise ValueError(f"'{key}' has shape {values.shape} for {len(study_ids)} studies")
        if not np.isfinite(values).all():
            raise ValueError(f"'{key}' has values that are no numbers")
        if single and values.shape[1] != len(CLUSTERS) and round(values.shape[1] ** 0.5) ** 2 != values.shape[1]:
            raise ValueError(f"'{key}' has {values.shape[1]} tokens a study, neither 13 filters nor a square grid")
    if POOLED not in tensors:
        raise ValueError(f"it has no '{POOLED}'")


def content_key(work: Embedding, source: Source) -> str:
    """Hash of all that decides a file, but how many studies of it there are: images, ids, weights, precision.

    Raises:
        CXRLensError: there is no such bundle, or the source has no studies.
    """
    card = BundleLibrary(work.bundles).card(work.bundle)
    ids = hashlib.sha256("\n".join(study_ids(work, source)).encode()).hexdigest()
    parts = [_VERSION, source.images_fingerprint(), ids, encoder_weights(card), work.precision]
    parts += [] if card.fit == PAD else [asdict(card.fit)]
    return hash_of(parts, 32)


def study_ids(work: Embedding, source: Source) -> Sequence[str]:
    """All ids of the split, or of all splits, in the order drawn; the first `most` of them are embedded.

    Raises:
        CXRLensError: there are none.
    """
    found = source.all_ids(work.split)
    if not found:
        where = f" in its split '{work.split}'" if work.split else ""
        why = "is asked for one study at a time, and lists none" if not source.listed else f"has no studies{where}"
        raise CXRLensError(f"{source.title} {why}: there is no map of it.")
    return [found[place] for place in np.random.default_rng(0).permutation(len(found)).tolist()]


def find(key: str, most: int | None = None) -> Embedded | None:
    """What is on disk already; None where nothing is, or it is damaged: then it is computed again.

    Args:
        key: of `content_key`.
        most: a sample of so many studies will do; without it, all must be there.
    """
    return _about(_path(key, None)) or (_about(_path(key, most)) if most else None)


def _path(key: str, most: int | None) -> Path:
    return embeddings_folder() / (f"{key}-{most}.safetensors" if most else f"{key}.safetensors")


def _about(path: Path) -> Embedded | None:
    try:
        stamp = path.stat()
    except OSError:
        return None
    return _read_about(path, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=64)  # a page asks several times while it draws, and a large file tells much of itself
def _read_about(path: Path, changed: int, size: int) -> Embedded | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:  # it compares the file's length with what it says of itself
            told = file.metadata() or {}
        unreadable = json.loads(told["unreadable"])
        kept = int(told["kept"])
        return Embedded(path, kept + len(unreadable), kept, unreadable)
    except (SafetensorError, OSError, KeyError, ValueError):
        return None


# ------------------------------------------------------------------------------------------------------------ at work


def embed(work: Embedding, progress: Progress | None = None) -> Embedded:
    """Embed the studies of a source; what is on disk already is not computed again.

    Interrupted, it goes on at the block where it stopped. Studies whose image cannot be read are left out and told; if
    one of them can be read when it is asked for again, all is computed anew.

    Args:
        work: what is embedded, and how.
        progress: called with the share that is done, and what is being done.

    Raises:
        CXRLensError: no such source or bundle, no studies, no image that can be read, or no place to write.
    """
    tell = progress or (lambda share, what: None)
    source = open_source(work.source)
    ids = study_ids(work, source)
    most = work.most if work.most and work.most < len(ids) else None
    key = content_key(work, source)
    folder = writable(embeddings_folder())
    with FileLock(folder / f".{key}.lock"):  # another process may embed the same
        found = find(key, most)
        if found is None or _can_be_read_now(found, source, work):
            remove_forgotten(folder)
            found = _embed(work, source, ids[:most], folder / f".{key}.blocks", _path(key, most), tell)
    return found


def _can_be_read_now(found: Embedded, source: Source, work: Embedding) -> bool:
    """Whether a study that was left out has its image now."""
    card = BundleLibrary(work.bundles).card(work.bundle)
    for study_id in found.unreadable:
        with suppress(CXRLensError):
            of_study(source, study_id)(card.image_side)
            return True
    return False


def _embed(work: Embedding, source: Source, ids: Sequence[str], blocks: Path, path: Path, tell: Progress) -> Embedded:
    def say(done: int) -> None:
        tell(done / len(ids), f"Study {done:,} of {len(ids):,}")

    tell(0.0, "Loading the encoder")
    encoders = _open_encoders(work, source)
    writable(blocks)
    files = []
    for start in range(0, len(ids), BLOCK):
        # A sample's last block may be short, and stand where a longer one belongs: its name tells its length.
        part = ids[start : start + BLOCK]
        files.append(blocks / f"{start:09}-{len(part)}.safetensors")
        if _read_block(files[-1]) is None:
            _write_block(files[-1], work, source, encoders, part, start, say)
    tell(1.0, "Writing the file")
    found = _join(files, path)
    shutil.rmtree(blocks, ignore_errors=True)
    return found


@dataclass(frozen=True, slots=True)
class _Encoders:
    model: ReportModel
    control: Encoder | None


def _open_encoders(work: Embedding, source: Source) -> _Encoders:
    """The bundle's encoder on its device; beside one with filters, the same with random filters as strong."""
    import torch

    from core.encoders.ccve import ClusterClipEncoder
    from core.encoders.random_filters import with_random_filters

    model = BundleLibrary(work.bundles, work.device, work.precision).load(work.bundle)
    if model.card.size == "tiny":
        torch.set_num_threads(1)  # its threads would mostly wait for each other
    control = None
    if isinstance(model.encoder, ClusterClipEncoder):
        control = with_random_filters(model.encoder, _first_images(work, source, model))
    return _Encoders(model, control)


def _first_images(work: Embedding, source: Source, model: ReportModel) -> Tensor:
    """The first images that can be read, (up to 16, 1, side, side): on them random filters get their strength.

    The same ones whichever block is made and however large the sample is.
    """
    import torch

    images: list[npt.NDArray[np.float32]] = []
    for study_id in study_ids(work, source):
        with suppress(CXRLensError):
            images.append(model.reads(of_study(source, study_id)))
        if len(images) == _FITTED:
            break
    if not images:  # the blocks will say so
        return torch.zeros(1, 1, model.image_size, model.image_size)
    return torch.from_numpy(np.stack(images)).unsqueeze(1)


def _write_block(
    path: Path,
    work: Embedding,
    source: Source,
    encoders: _Encoders,
    ids: Sequence[str],
    start: int,
    say: Callable[[int], None],
) -> None:
    """Embed the studies of a block into a file of their own."""
    import torch
    from safetensors.numpy import save_file

    kept: list[str] = []
    unreadable: dict[str, str] = {}
    found: list[dict[str, Tensor]] = []
    for first in range(0, len(ids), work.batch):
        say(start + first)
        images = []
        for study_id in ids[first : first + work.batch]:
            try:
                images.append(encoders.model.reads(of_study(source, study_id)))
                kept.append(study_id)
            except CXRLensError as error:
                unreadable[study_id] = str(error)
        if images:
            found.append(_embed_batch(encoders, images, start))
    tensors = {key: torch.cat([each[key] for each in found]) for key in (found[0] if found else ())}
    about = {"study_ids": json.dumps(kept), "unreadable": json.dumps(unreadable)}
    arrays = {key: value.contiguous().numpy() for key, value in rounded(tensors, "").items()}
    with whole_file(path, synced=False) as fresh:
        save_file(arrays, fresh, about | {"sums": json.dumps(sums_of_tables(arrays, about))})


def _embed_batch(encoders: _Encoders, images: Sequence[npt.NDArray[np.float32]], start: int) -> dict[str, Tensor]:
    """What is kept of some images, on the CPU, in single precision; ``start`` is the place of their block's first."""
    import torch

    from core.bundles.pair import encode_batch

    model = encoders.model
    batch = torch.from_numpy(np.stack(images)).unsqueeze(1)
    filters = bool(token_names(encoder_parts(model.card.encoder)[0]))
    with model.computing(), torch.inference_mode():
        visual = encode_batch(model, batch)
        found = pooled_tokens(visual)
        if start < SINGLE_STUDIES:
            found |= {TOKENS: visual.tokens} if filters else single_tokens(visual)
            if encoders.control is not None:
                found[RANDOM] = encoders.control(batch.to(model.device)).tokens
    return {key: value.float().cpu() for key, value in found.items()}


def pooled_tokens(visual: VisualTokens) -> dict[str, Tensor]:
    """Means of tokens (B, D): "pooled" of all, and "pooled.<tower>" of one tower's, where there are several."""
    return {POOLED: visual.tokens.mean(1)} | {
        f"{POOLED}.{tower}": tokens.mean(1) for tower, tokens in _towers(visual).items() if len(set(visual.sources)) > 1
    }


def single_tokens(visual: VisualTokens) -> dict[str, Tensor]:
    """All tokens (B, N, D): "tokens", or "tokens.<tower>" where there are several towers."""
    towers = _towers(visual)
    return {f"{TOKENS}.{tower}" if len(towers) > 1 else TOKENS: tokens for tower, tokens in towers.items()}


def _towers(visual: VisualTokens) -> dict[str, Tensor]:
    """Tokens of each tower that are cells or filters: what stands for the whole image is left out."""
    sources, tokens = np.asarray(visual.sources[visual.summaries :]), visual.tokens[:, visual.summaries :]
    return {str(tower): tokens[:, sources == tower] for tower in dict.fromkeys(visual.sources)}


def _read_block(path: Path) -> tuple[list[str], dict[str, str], Arrays] | None:
    """Studies, those left out, and tensors of a block; None where it is not there, or damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        compare_tables(json.loads(told.pop("sums")), tensors, told)
        return json.loads(told["study_ids"]), json.loads(told["unreadable"]), tensors
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError):
        return None


def _join(files: Sequence[Path], path: Path) -> Embedded:
    """Put the blocks into one file.

    Raises:
        CXRLensError: no study of any block could be read.
    """
    from safetensors.numpy import save_file

    kept: list[str] = []
    unreadable: dict[str, str] = {}
    parts: dict[str, list[npt.NDArray[Any]]] = {}
    for each in files:
        block = _read_block(each)
        if block is None:
            raise CXRLensError(f"{each} went away while it was used. Run again: what is done is kept.")
        kept += block[0]
        unreadable |= block[1]
        for key, values in block[2].items():
            parts.setdefault(key, []).append(values)
    if not kept:
        why = next(iter(unreadable.values()))
        images = counted(len(unreadable), "image", "images")
        raise CXRLensError(f"Of {images} none can be read, so there is no map. The first: {why}")
    about = {"study_ids": json.dumps(kept), "unreadable": json.dumps(unreadable), "kept": str(len(kept))}
    tensors = {key: np.concatenate(values) for key, values in parts.items()}
    with whole_file(path) as fresh:
        save_file(tensors, fresh, about | {"sums": json.dumps(sums_of_tables(tensors, about))})
    return Embedded(path, len(kept) + len(unreadable), len(kept), unreadable)


# ---------------------------------------------------------------------------------------------- a process of its own


class EmbeddingJob(Job):
    """Embeddings that another process computes. What is done when it ends early is kept: begun again, it goes on."""

    def __init__(self, work: Embedding) -> None:
        """Start the process.

        Raises:
            CXRLensError: the cache folder cannot be written.
        """
        folder = writable(embeddings_folder() / f"{os.getpid()}-{time.monotonic_ns()}.job")
        write_whole(folder / "work.json", json.dumps(asdict(work), default=str), synced=False)
        super().__init__("core.projection.embeddings", folder, "Looking at the studies", "It goes on where it stopped.")


def _work(folder: Path, tell: Progress) -> None:
    """What the process does."""
    told = json.loads((folder / "work.json").read_text(encoding="utf-8"))
    embed(Embedding(**{**told, "bundles": Path(told["bundles"])}), tell)


if __name__ == "__main__":
    be_the_process(_work)
