"""Checkpoints of IFCC (Miura et al. 2021; ysmiura/ifcc) and of the paper's own code, which is a fork of it.

Of its networks the Transformer, M2 and CNN-RNN-RNN are ours but for small things, which are options of our modules.
What decides them and does not show in the weights is asked for.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.bundles.checkpoints.cnns import Cnn, densenet, resnet
from core.bundles.checkpoints.matching import Checkpoint, Part, Place, Rows, Same, Slots, renamed, same_positions
from core.bundles.checkpoints.r2gen import MOST_WORDS, NEVER, as_vocabulary, positions
from core.bundles.checkpoints.reading import CheckpointError, read_checkpoint, told
from core.bundles.checkpoints.writing import Imported, new_decoder, new_encoder
from core.settings import WriteConfig
from core.text import END, SENTENCE_END
from core.types import Fit

HEADS = 8
"""Of every attention, in its code."""
SPECIAL = 4
"""Its first ids: filling up, start, unknown, end."""
MOST_TEXT = 2**31
"""Bytes of embeddings that are read."""
_PARTS = ("query", "key", "value")

_TRANSFORMER_RULES = [
    (r"input\.linear\.", "image_proj_l."),
    (r"input\.norm\.", "layer_norm."),
    (r"encoder\.(\d+)\.attention\.out\.", r"encoder.layers.\1.self_attn.out_proj."),
    (r"encoder\.(\d+)\.norm\.", r"encoder.layers.\1.norm1."),
    (r"encoder\.(\d+)\.feed_forward\.inner\.", r"encoder.layers.\1.linear1."),
    (r"encoder\.(\d+)\.feed_forward\.outer\.", r"encoder.layers.\1.linear2."),
    (r"encoder\.(\d+)\.feed_forward\.norm\.", r"encoder.layers.\1.norm2."),
    (r"layers\.(\d+)\.words\.out\.", r"decoder.layers.\1.self_attn.out_proj."),
    (r"layers\.(\d+)\.cross\.out\.", r"decoder.layers.\1.multihead_attn.out_proj."),
    (r"layers\.(\d+)\.words_norm\.", r"decoder.layers.\1.norm1."),
    (r"layers\.(\d+)\.cross_norm\.", r"decoder.layers.\1.norm2."),
    (r"layers\.(\d+)\.gates\.(\d+)\.", r"decoder.layers.\1.linear_alpha\2."),
    (r"layers\.(\d+)\.feed_forward\.inner\.", r"decoder.layers.\1.linear1."),
    (r"layers\.(\d+)\.feed_forward\.outer\.", r"decoder.layers.\1.linear2."),
    (r"layers\.(\d+)\.feed_forward\.norm\.", r"decoder.layers.\1.norm3."),
]
_JOINED = {  # query, key and value are one matrix there
    r"encoder\.(\d+)\.attention\.": r"encoder.layers.\1.self_attn.in_proj_",
    r"layers\.(\d+)\.words\.": r"decoder.layers.\1.self_attn.in_proj_",
    r"layers\.(\d+)\.cross\.": r"decoder.layers.\1.multihead_attn.in_proj_",
}
_PLANNER_RULES = [
    (r"input\.", "image_proj."),
    (r"to_topic\.", "topic_dense."),
    (r"to_stop\.", "stop_dense."),
    (r"writer\.", "lstm_word."),
    (r"sentinel_input\.", "vs_dense1."),
    (r"sentinel_hidden\.", "vs_dense2."),
    (r"attention\.from_image\.", "vs_att_v."),
    (r"attention\.from_word\.", "vs_att_g."),
    (r"attention\.from_sentinel\.", "vs_att_s."),
    (r"attention\.score\.", "vs_att_h."),
]
_OTHERS = {
    "image_pe.": "positions of the image's cells (--img-pe)",
    "image_proj2.": "two projections of the image (--cnnrnnrnn-mlp-proj)",
    "att_z_": "several images merged by attention (--multi-merge att)",
    "att_vg": "several images merged by attention (--multi-merge att)",
    "lstm.": "another model than m2trans, trans and cnnrnnrnn",
    "image_feats.coarse_ive.": "FVE's two classifiers as encoder",
    "image_feats.dve.": "CLIP's image tower as encoder",
    "image_feats.icve.": "CCVE's filters as encoder",
}
"""What its code can also make, by the beginnings of names, and our modules are not."""


def read_ifcc(
    path: Path,
    *,
    vocabulary: Path,
    views: int,
    max_sentences: int = 1,
    max_words: int = 128,
) -> Imported:
    """Read a checkpoint of IFCC or of the paper's own code: m2trans, trans or cnnrnnrnn.

    Args:
        path: of the checkpoint, ``model_....dict.gz``.
        vocabulary: the embeddings that it was trained with, from which its vocabulary follows; see `read_embedded`.
        views: images a study that it was trained with (--multi-image).
        max_sentences: of a cnnrnnrnn (--max-sent).
        max_words: of a cnnrnnrnn's sentence (--max-word); of the others the weights tell.

    Raises:
        CheckpointError: it does not fit; the message says what differs.
    """
    found = Checkpoint(read_checkpoint(path, "model"), path.name, "IFCC")
    for beginning, what in _OTHERS.items():
        if any(key.startswith(beginning) for key in found.tensors):
            raise CheckpointError(
                f"{path.name} has {what}, which cannot be imported: none of our modules computes the same."
            )
    count, width = found.shape("embeddings.weight", 2)
    words = read_embedded(vocabulary)
    if count - SPECIAL - len(words) not in (0, 1):
        raise CheckpointError(
            f"{vocabulary.name} has {len(words):,} words, the checkpoint {count - SPECIAL:,}: it was trained with "
            "other embeddings."
        )
    cnn, side = _image_cnn(found)
    plans = "topic_dense.weight" in found
    if plans:
        name, changes, place = _planner(found, views, max_sentences, max_words)
        ends: list[int | None] = [None, 3]
        longest = max_sentences * (max_words + 1) + 1
    else:
        name, changes, place = _transformer(found, views)
        ends, longest = [3, None], min(round(changes["word_scale"] ** 2), MOST_WORDS)
    assert (END, SENTENCE_END) == (3, 4)
    rows: list[int | None] = [0, 1, 2, *ends, *range(SPECIAL, SPECIAL + len(words))]
    with torch.device("meta"):
        encoder = new_encoder(cnn.arguments, side)
        decoder = new_decoder(name, cnn.width, len(rows), changes)
    states = (
        found.state(encoder, lambda key: cnn.place(key.removeprefix("model."))),
        found.state(decoder, _with_words(place, rows, count)),
    )
    if not plans:
        table = found.take("word_pe.pe")
        if not same_positions(table[:, 0], positions(width)):
            raise CheckpointError(f"{path.name} has positions of words that are not those of Vaswani et al. 2017.")
    found.close(idle=("image_feats.densenet.classifier.",))
    return Imported(
        "IFCC",
        "Imported from a checkpoint of IFCC or of the paper's own code.",
        cnn.arguments,
        cnn.width,
        name,
        changes,
        *states,
        as_vocabulary(words),
        side,
        Fit("pad"),
        WriteConfig(beam_size=4, max_words=longest, length_penalty=0.0, no_repeat_ngram=0),
    )


def _image_cnn(found: Checkpoint) -> tuple[Cnn, int]:
    """The CNN, and the side of its images; the paper's own code has timm's DenseNet, and larger images."""
    if "image_feats.densenet.features.conv0.weight" in found:
        return densenet(found, "image_feats.densenet.features.", numbered=False), 294  # src: paper-notes 1.0
    if "image_feats.4.0.conv1.weight" in found:
        return resnet(found, "image_feats."), 224
    return densenet(found, "image_feats.", numbered=True), 224


def _transformer(found: Checkpoint, views: int) -> tuple[str, dict[str, Any], Callable[[str], Place]]:
    """Name, changes and places of a m2trans or trans."""
    width = found.shape("embeddings.weight", 2)[1]
    depth = found.count("encoder.layers.{}.")
    if not depth:
        raise CheckpointError(f"{found.file} has no encoder over the image's tokens (trans-s): ours have one.")
    if width % HEADS:
        raise CheckpointError(f"{found.file}: its width, {width}, is no multiple of {HEADS}, its heads.")
    if (max_word := found.shape("word_pe.pe", 3)[0] - 1) < 1:
        raise CheckpointError(f"{found.file}: word_pe.pe has room for no word.")
    changes: dict[str, Any] = {
        "width": width,
        "heads": HEADS,
        "feed_forward": found.shape("decoder.layers.0.linear1.weight", 2)[0],
        "layers": found.count("decoder.layers.{}."),
        "encoder_layers": depth,
        "cls_token": False,
        "input_norm": "layer_norm.weight" in found,
        "output_bias": True,
        "word_scale": math.sqrt(max_word),
        "absent_images": views > 1,
    }
    meshed = "encoder.layers.0.self_attn.mem_k" in found
    slots = found.shape("encoder.layers.0.self_attn.mem_k", 3)[0] if meshed else 0
    if meshed:
        changes["slots"] = slots

    def place(key: str) -> Place:
        before, _, last = key.rpartition(".")
        if last in ("slot_keys", "slot_values"):
            layer = f"encoder.layers.{key.split('.')[1]}.self_attn."
            if last == "slot_keys":
                return Slots(f"{layer}mem_k", math.sqrt(width // HEADS))
            return Slots(f"{layer}mem_v", math.sqrt(slots))
        part = before.rpartition(".")[2]
        if part in _PARTS:
            joined = renamed(before.removesuffix(part), _JOINED.items())
            return Part(joined + last, _PARTS.index(part), len(_PARTS))
        return Same(renamed(key, _TRANSFORMER_RULES))

    return "m2" if meshed else "transformer", changes, place


def _planner(
    found: Checkpoint, views: int, max_sentences: int, max_words: int
) -> tuple[str, dict[str, Any], Callable[[str], Place]]:
    """Name, changes and places of a cnnrnnrnn."""
    if views > 1:
        raise CheckpointError(
            f"{found.file}: a cnnrnnrnn that was trained with {views} images a study mixes their features word by "
            "word; with one image a study (--views 1) it can be imported."
        )
    changes = {
        "width": found.shape("topic_dense.weight", 2)[0],
        "max_sentences": max_sentences,
        "max_sentence_words": max_words,
        "looks_before": True,
    }
    layer = "_l0" if "lstm_sent.weight_ih_l0" in found else ""

    def place(key: str) -> Place:
        if key.startswith("planner."):
            return Same(f"lstm_sent.{key.removeprefix('planner.')}{layer}")
        return Same(renamed(key, _PLANNER_RULES))

    return "cnn_rnn_rnn", changes, place


def _with_words(
    place: Callable[[str], Place], rows: Sequence[int | None], count: int
) -> Callable[[str], Place | Tensor]:
    """Where tensors stand, those of words too, which the decoders share: ours have one id more than its."""

    def of(key: str) -> Place | Tensor:
        if key.endswith("embedding.weight"):
            return Rows("embeddings.weight", rows, count)
        if key == "output.weight":
            return Rows("word_dense.weight", rows, count)
        if key == "output.bias":
            return torch.tensor([NEVER if row is None else 0.0 for row in rows])
        return place(key)

    return of


def read_embedded(path: Path) -> list[str]:
    """Words of word embeddings in their order, without the unknown one, which has an id of its own.

    A line with their number and their width, then a line a word with its numbers, gzipped or not; or a JSON list of
    words.

    Raises:
        CheckpointError: it is none of these, or lacks words.
    """
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as opened:
            data = opened.read(MOST_TEXT + 1)
        if len(data) > MOST_TEXT:
            raise CheckpointError(
                f"{path.name} is longer than {MOST_TEXT / 2**30:.0f} GB: these are no words of reports."
            )
        text = data.decode("utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path.name} cannot be read as embeddings or a list of words: {error}.") from error
    if text.startswith("["):
        try:
            words = json.loads(text)
        except ValueError as error:
            raise CheckpointError(f"{path.name} cannot be read as JSON: {error}.") from error
        if strange := [word for word in words if not isinstance(word, str)]:
            raise CheckpointError(f"{path.name} is no list of words: it has {told([repr(strange[0])])}.")
    else:
        head, *lines = text.rstrip("\n").split("\n")
        numbers = head.split(" ")
        if len(numbers) < 2 or not numbers[0].strip().isdigit() or int(numbers[0]) != len(lines):
            raise CheckpointError(
                f"{path.name} is no file of embeddings: its first line says how many words follow, and how many "
                f"numbers each has. It has {len(lines):,} lines after that, and may be cut short."
            )
        words = [line.strip().split(" ")[0] for line in lines]
    return [word for word in words if word != "<unk>"]
