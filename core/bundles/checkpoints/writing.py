"""An imported model becomes a bundle: weights as they came, a card that says where from, and what it computes."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from core.bundles.card import INTENDED_USE, Card
from core.bundles.checkpoints.reading import CheckpointError
from core.bundles.library import BundleLibrary, compute_expected, specimen, write_bundle
from core.bundles.pair import ReportModel
from core.decoders import Decoder, build_decoder
from core.encoders import Encoder, build_encoder
from core.files import sha256_of
from core.registry import Size
from core.settings import WriteConfig
from core.text import Vocabulary
from core.types import Fit

SIZE: Size = "paper"
"""Whose numbers hold where the checkpoint has no others."""


@dataclass(frozen=True, slots=True)
class Imported:
    """A checkpoint as a pair of ours.

    Attributes:
        kind: whose code made it, for a reader.
        about: of the model, for its card.
        encoder: arguments of ``build_encoder``, for the encoder "dve".
        width: of its tokens.
        decoder: key in the registry.
        decoder_changes: arguments of the decoder beside those of its row.
        encoder_state: of the encoder's CNN.
        decoder_state: of the decoder.
        vocabulary: ids to words.
        side: of the images, pixels.
        fit: how they are fitted.
        write: how reports are written.
    """

    kind: str
    about: str
    encoder: Mapping[str, Any]
    width: int
    decoder: str
    decoder_changes: Mapping[str, Any]
    encoder_state: Mapping[str, Tensor]
    decoder_state: Mapping[str, Tensor]
    vocabulary: Vocabulary
    side: int
    fit: Fit
    write: WriteConfig


def new_encoder(arguments: Mapping[str, Any], side: int) -> Encoder:
    """The encoder of an imported model, with random weights."""
    return build_encoder("dve", SIZE, image_size=side, **arguments)


def new_decoder(name: str, width: int, words: int, changes: Mapping[str, Any]) -> Decoder:
    """The decoder of an imported model, with random weights."""
    return build_decoder(name, SIZE, token_width=width, vocabulary_size=words, **changes)


def write_imported(
    imported: Imported, file: Path, bundles: Path, name: str, *, trained_on: str = "", licence: str = ""
) -> Card:
    """Write a bundle, read it again and compare what it computes.

    Args:
        imported: the model.
        file: that it came from; its hash is kept.
        bundles: folder of bundles; made if missing.
        name: of the bundle, and of its family; see `core.bundles.names.check_name`. A bundle of this name is replaced.
        trained_on: what it learned from, for a reader.
        licence: of its weights.

    Raises:
        CheckpointError: the model writes no numbers.
        DiskError: it cannot be written.
    """
    trained_on = trained_on.rstrip(".")
    learned = f"It learned from: {trained_on}." if trained_on else "What it learned from was not told."
    encoder = new_encoder(imported.encoder, imported.side)
    encoder.load_state_dict(imported.encoder_state)
    decoder = new_decoder(imported.decoder, imported.width, len(imported.vocabulary), imported.decoder_changes)
    decoder.load_state_dict(imported.decoder_state)
    content: dict[str, Any] = {
        "name": name,
        "family": name,
        "size": SIZE,
        "created": datetime.date.today().isoformat(),
        "licence": licence or "not told: that of the checkpoint, and of the data that it learned from",
        "intended_use": INTENDED_USE,
        "data": {
            "name": imported.kind,
            "description": " ".join(filter(None, (imported.about, learned))),
            "studies": {},
        },
        "imported": {"from": imported.kind, "file": file.name, "sha256": sha256_of(file)},
        "encoder": {
            "name": "dve",
            "changes": {**imported.encoder, "image_size": imported.side},
            "shared": {},
            "width": imported.width,
        },
        "decoder": {"name": imported.decoder, "changes": dict(imported.decoder_changes)},
        "inputs": {"image": [1, imported.side, imported.side], "range": [0, 1], "normalization": "in the encoder"},
        "metrics": {},
        "write": asdict(imported.write),
        "fit": asdict(imported.fit),
    }
    own = ("name", "family", "size", "data", "metrics", "write", "intended_use", "licence", "created")
    card = Card(**{each: content[each] for each in own}, encoder="dve", decoder=imported.decoder, content=content)
    model = ReportModel(card, encoder.freeze(), decoder.requires_grad_(False).eval(), imported.vocabulary)
    expected = compute_expected(model, specimen(imported.side))
    if not expected["logits"].isfinite().all():
        raise CheckpointError(f"{file.name} gives NaN or infinity for an image: its weights are damaged.")
    weights = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    weights |= {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    write_bundle(
        bundles / name,
        content,
        {"model.safetensors": weights, "expected.safetensors": expected},
        {"vocab.json": json.dumps(imported.vocabulary.words, ensure_ascii=False, indent=0)},
    )
    library = BundleLibrary(bundles)
    library.verify(name)
    return library.card(name)
