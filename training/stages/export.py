"""Stage: trained pairs as bundles, weights quantised to 8 bits; embeddings of held-out studies beside them."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from core.bundles.card import INTENDED_USE, hashes_of
from core.bundles.inference import decoder_states
from core.bundles.library import CLUSTER_FILE, BundleLibrary, compute_expected, specimen, write_bundle
from core.bundles.rounding import rounded
from core.config import to_dict
from core.encoders import Encoder
from core.encoders.ccve import ClusterClipEncoder, ClusterTexts
from core.encoders.clip import ContrastiveEncoder
from core.encoders.random_filters import with_random_filters
from core.files import whole_file, whole_folder
from core.projection.embeddings import pooled_tokens, single_tokens
from core.registry import ENCODERS, encoder_parts
from core.types import VisualTokens
from training.run_folder import load_weights
from training.stages.clip import cluster_texts
from training.stages.encoders import objective_of, trained_encoder
from training.stages.findings import FINDINGS, worth_saying
from training.stages.gate import write_gates_of
from training.stages.models import (
    batches,
    build_arguments,
    decoder_arguments,
    frozen_parts,
    new_decoder,
    new_encoder,
    new_join,
    reads_cache,
)
from training.stages.run import Run
from training.stages.taken import taken_card, taken_encoder
from training.stages.tokens import cache

EMBEDDING_STUDIES = 400
"""Held-out studies whose embeddings the demo shows."""
TOKEN_STUDIES = 200
"""The first of them, whose single tokens it shows."""
USUAL = 101
"""Steps of the likeness of validation studies to a cluster's text."""

DESCRIPTIONS = {
    "phantom": "Computed phantom radiographs, no patients. Do not expect sense on a real X-ray.",
    "openi": "Open-i (Indiana University), R2Gen's training split, frontal views. Few studies, "
    "mostly normal: rare findings are missed, and a fluent report may be wrong.",
    "mimic_cxr": "MIMIC-CXR, its own training split.",
}
"""Of a bundle's training data, for its readers."""
LICENCES = {
    "phantom": "Apache-2.0",
    "openi": "CC BY-NC 4.0: learned from Open-i, whose records say CC BY-NC-ND 4.0",
    "mimic_cxr": "not to be shared: learned under the PhysioNet Credentialed Health Data License",
}
"""Of a bundle's weights; the code's is Apache-2.0."""


def export(run: Run, out: Path) -> None:
    """Write all pairs as bundles into ``out``, weights quantised to 8 bits; they are verified afterwards."""
    for name in frozen_parts(run.config):
        if reads_cache(run.config, name):
            _export_encoder(run, name, out)
    for name in run.config.encoders:
        for decoder_name in run.config.decoders:
            _export_pair(run, name, decoder_name, out)
    library = BundleLibrary(out)
    for card in library.cards():
        library.verify(card.name)
    write_gates_of(run.config.name, library, run.data, out)
    if run.config.data.source == "phantom":  # embeddings of patients' radiographs are not ours to give away
        library = BundleLibrary(out, str(run.placement.device))
        for name in run.config.encoders:
            _export_embeddings(run, name, library, out)


def card(run: Run, name: str) -> dict[str, Any]:
    """What the card of a bundle says of the run that made it."""
    data, config = run.config.data, to_dict(run.config)
    config["data"]["folder"] = ""  # where an index lies is nobody's business
    config["encoders_from"] = Path(config["encoders_from"]).name
    return {
        "name": name,
        "family": run.config.name,
        "size": run.config.size,
        "created": datetime.date.today().isoformat(),
        "licence": LICENCES[data.source],
        "intended_use": INTENDED_USE,
        "data": {
            "name": data.source,
            "description": DESCRIPTIONS[data.source],
            "fingerprint": run.data.source.fingerprint(),
            "count": data.count,
            "seed": data.seed,
            "studies": {split: len(studies) for split, studies in run.data.studies.items()},
        },
        "config": config,
    }


def _shared_name(run: Run, name: str) -> str:
    return f"{run.config.name}-{name}"


def _saved_arguments(run: Run, name: str) -> dict[str, Any]:
    """Of an encoder, for its card; the vocabulary has a file of its own."""
    return {key: value for key, value in build_arguments(run, name).items() if key != "vocabulary"}


def _export_encoder(run: Run, name: str, out: Path) -> None:
    if run.config.encoders_from:
        _copy_shared(Path(run.config.encoders_from) / "shared" / _shared_name(run, name), out / "shared")
        return
    encoder = trained_encoder(run, name)
    about = {"name": name, "changes": _saved_arguments(run, name), **objective_of(name).about(run, name)}
    write_bundle(
        out / "shared" / _shared_name(run, name),
        {**card(run, _shared_name(run, name)), "encoder": about},
        {"model.safetensors": rounded(encoder.state_dict(), "encoder."), **_cluster_file(run, name, encoder)},
        {},
    )


def _copy_shared(folder: Path, out: Path) -> None:
    """An encoder as it was, byte for byte, so that what was measured of it still holds."""
    if (target := out / folder.name).resolve() == folder.resolve():
        return
    out.mkdir(parents=True, exist_ok=True)
    with whole_folder(target, private=False) as fresh:
        for file in hashes_of(folder):
            shutil.copyfile(folder / file, fresh / file)
        shutil.copyfile(folder / "card.json", fresh / "card.json")


def _cluster_file(run: Run, name: str, encoder: Encoder) -> dict[str, dict[str, Tensor]]:
    """Of CCVE: typical wordings of its clusters, and how alike validation studies' tokens are to them."""
    if not isinstance(encoder, ClusterClipEncoder):
        return {}
    texts = cluster_texts(encoder, run.data.cluster_pairs("train"))
    tokens = cache(run, name, "validate")
    values = tokens.tokens(list(range(len(tokens))))
    found = ClusterTexts(texts, torch.zeros(len(texts), 1)).likeness(values)
    steps = torch.linspace(0, 1, USUAL)
    return {CLUSTER_FILE: {"texts": texts, "usual": found.quantile(steps, dim=0).T}}


def _export_pair(run: Run, encoder_name: str, decoder_name: str, out: Path) -> None:
    stage = run.folder / f"{encoder_name}-{decoder_name}"
    decoder = new_decoder(run, encoder_name, decoder_name)
    load_weights(stage, "decoder", decoder)
    tensors = rounded(decoder.state_dict(), "decoder.")
    about, own = _encoder_of_pair(run, encoder_name, decoder_name, out)
    if own is not None:
        tensors |= rounded(own.state_dict(), "encoder.")
    name = f"{run.config.name}-{encoder_name}-{decoder_name}"
    side = run.config.image_side(encoder_name)
    summary = json.loads((stage / "summary.json").read_text(encoding="utf-8"))
    watched = f"validation_{run.config.report.monitor}_greedy"
    content = {
        **card(run, name),
        "encoder": about,
        "decoder": {"name": decoder_name, "changes": decoder_arguments(run.config, encoder_name, decoder_name)},
        "inputs": {"image": [1, side, side], "range": [0, 1], "normalization": "in the encoder"},
        "metrics": {watched: summary["best"], "epochs": summary["epochs"]},
        "write": run.data.write_settings(run.config.write, _worth_saying(stage)),
        "fit": asdict(run.config.data.as_fit),
    }
    texts = {"vocab.json": json.dumps(run.data.vocabulary.words, ensure_ascii=False, indent=0)}
    folder = out / name
    write_bundle(folder, content, {"model.safetensors": tensors}, texts)
    expected = compute_expected(BundleLibrary(out).load(name), specimen(side))
    write_bundle(folder, content, {"model.safetensors": tensors, "expected.safetensors": expected}, texts)


def _worth_saying(stage: Path) -> list[str]:
    """What the reports of a pair may say because it was found; nothing of one that does not read findings first."""
    file = stage / FINDINGS
    return worth_saying(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else []


def _encoder_of_pair(
    run: Run, encoder_name: str, decoder_name: str, out: Path
) -> tuple[dict[str, Any], nn.Module | None]:
    """What a pair's card says of its encoder, and what of it belongs to this pair alone."""
    about: dict[str, Any] = {"name": encoder_name, "changes": {}, "shared": {}}
    parts = encoder_parts(encoder_name)
    if all(ENCODERS[part].frozen for part in parts) and reads_cache(run.config, encoder_name):
        for shared in (_shared_name(run, part) for part in parts):
            content = json.loads((out / "shared" / shared / "card.json").read_text(encoding="utf-8"))
            about["shared"][shared] = content["sha256"]["model.safetensors"]
        own: nn.Module | None = new_join(run, encoder_name)
    elif run.config.encoders_from:
        about["changes"] = dict(taken_card(run, encoder_name, decoder_name).content["encoder"]["changes"])
        return about, taken_encoder(run, encoder_name, decoder_name)
    else:
        about["changes"] = _saved_arguments(run, encoder_name)
        own = new_encoder(run, encoder_name)
    if own is not None:
        load_weights(run.folder / f"{encoder_name}-{decoder_name}", "encoder", own)
    return about, own


def _export_embeddings(run: Run, name: str, library: BundleLibrary, out: Path) -> None:
    """Embeddings of held-out studies, in the format of `core.projection.embeddings`; the dashboard reads them.

    Beside what that keeps of any source, encoders with a text tower add "text" (n, D), the impressions, and decoders
    "states.<decoder>" (n, D'), see `decoder_states`; where tokens are no places, as CCVE's, those of all are there.
    """
    family, config = run.config.name, run.config
    encoder = library.load(f"{family}-{name}-{config.decoders[0]}").encoder
    studies = run.data.studies["test"][:EMBEDDING_STUDIES]
    images = run.data.images("test", config.image_side(name))[:EMBEDDING_STUDIES]

    @torch.inference_mode()
    def tokens_of(network: Encoder) -> VisualTokens:
        found = [network(batch.to(network.normalize.mean.device)) for batch in batches(images, 64)]
        return VisualTokens(torch.cat([each.tokens for each in found]), found[0].grids, found[0].sources)

    visual = tokens_of(encoder)
    tokens = visual.tokens
    tensors = pooled_tokens(visual)
    if isinstance(encoder, ContrastiveEncoder):
        with torch.inference_mode():
            ids = encoder.clip.text.tokenize([each.impression for each in studies])
            tensors["text"] = encoder.clip.text(ids.to(tokens.device))
    if ENCODERS[encoder_parts(name)[0]].token_names:
        first = next(batches(images, 64))
        tensors |= {"tokens": tokens, "random_filters": tokens_of(with_random_filters(encoder, first)).tokens}  # type: ignore[arg-type]
    else:
        tensors |= {key: value[:TOKEN_STUDIES] for key, value in single_tokens(visual).items()}
    for decoder in config.decoders:
        model = library.load(f"{family}-{name}-{decoder}")
        own = visual if model.encoder is encoder else tokens_of(model.encoder)  # DVE learns with its decoder
        parts = [replace(own, tokens=each) for each in own.tokens.split(64)]
        tensors[f"states.{decoder}"] = torch.cat([decoder_states(model, part, model.write) for part in parts])
    tensors = {key: value.cpu() for key, value in tensors.items()}
    kept = {key: value.contiguous() for key, value in rounded(tensors, "").items()}
    with whole_file(out / f"{family}-embeddings-{name}.safetensors", private=False) as fresh:
        save_file(kept, fresh, {"study_ids": json.dumps([each.study_id for each in studies])})
