"""Checkpoints of R2Gen (Chen et al. 2020; cuhksz-nlp/R2Gen) for one image, as it is trained on MIMIC-CXR."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.bundles.checkpoints.cnns import resnet
from core.bundles.checkpoints.matching import Checkpoint, Place, Rows, Same, renamed, same_positions
from core.bundles.checkpoints.reading import CheckpointError, read_checkpoint
from core.bundles.checkpoints.writing import Imported, new_decoder, new_encoder
from core.settings import WriteConfig
from core.text import SPECIAL_TOKENS, Vocabulary
from core.types import Fit

THRESHOLDS = (10, 3)
"""How often a word occurs at least, in R2Gen's own commands: for MIMIC-CXR, for IU X-ray."""
MOST_WORDS = 511
"""Of a report: as many as our decoders read (`core.attention.WordInput`), less the start."""
NEVER = -1e4
"""Logit of what the original cannot write: its probability is 0, and the number is finite in half precision."""
_UNKNOWN = "<unk>"
_TEXT = "encoder_decoder."
_WORDS, _POSITIONS = f"{_TEXT}model.tgt_embed.0.lut.weight", f"{_TEXT}model.tgt_embed.1.pe"
_DROPPED = re.compile(r"""[.,?;*!%^&_+():<=>@\[\]{}"'/\\]""")

_LINEAR = {"query": "linears.0", "key": "linears.1", "value": "linears.2", "out": "linears.3"}
_ATTENTION = {
    r"encoder\.(\d+)\.attention": r"model.encoder.layers.\1.self_attn",
    r"layers\.(\d+)\.words": r"model.decoder.layers.\1.self_attn",
    r"layers\.(\d+)\.cross": r"model.decoder.layers.\1.src_attn",
    r"relations\.attention": r"model.rm.attn",
}
_NORMS = {"words_norm": 0, "cross_norm": 1, "feed_forward_norm": 2}
_FEED = {"0": "w_1", "3": "w_2"}
RULES = [
    *(
        (rf"{ours}\.{each}\.", rf"{theirs}.{linear}.")
        for ours, theirs in _ATTENTION.items()
        for each, linear in _LINEAR.items()
    ),
    (r"encoder\.(\d+)\.attention_norm\.", r"model.encoder.layers.\1.sublayer.0.norm."),
    (r"encoder\.(\d+)\.feed_forward_norm\.", r"model.encoder.layers.\1.sublayer.1.norm."),
    *(
        (rf"layers\.(\d+)\.{name}\.{ours}", rf"model.decoder.layers.\1.sublayer.{number}.norm.{theirs}")
        for name, number in _NORMS.items()
        for ours, theirs in (("to_", "mlp_"), ("", ""))
    ),
    *(
        (rf"{ours}\.(\d+)\.feed_forward\.{number}\.", rf"{theirs}.\1.feed_forward.{each}.")
        for ours, theirs in (("encoder", "model.encoder.layers"), ("layers", "model.decoder.layers"))
        for number, each in _FEED.items()
    ),
    (r"encoder_norm\.", "model.encoder.norm."),
    (r"norm\.", "model.decoder.norm."),
    (r"relations\.mlp\.", "model.rm.mlp."),
    (r"relations\.word_gates\.", "model.rm.W."),
    (r"relations\.memory_gates\.", "model.rm.U."),
    (r"input\.", "att_embed.0."),
]
"""Our names, and those of the original below `encoder_decoder`."""


def read_r2gen(
    path: Path,
    *,
    annotations: Path | None = None,
    vocabulary: Path | None = None,
    threshold: int = 0,
    views: int = 1,
    heads: int = 8,
    memory_heads: int = 8,
    max_words: int = 100,
) -> Imported:
    """Read a checkpoint of R2Gen. What its weights do not show has the values of its own commands unless given.

    Args:
        path: of the checkpoint, ``model_best.pth``.
        annotations: R2Gen's ``annotation.json`` that it was trained with, from which its vocabulary follows.
        vocabulary: instead, its words as JSON, see `read_words`.
        threshold: how often a word of the vocabulary occurs at least in the training reports; 0 tries `THRESHOLDS`.
        views: images a study that it was trained with.
        heads: of its attention.
        memory_heads: of its relational memory.
        max_words: longest report.

    Raises:
        CheckpointError: it does not fit; the message says what differs.
    """
    if views != 1:
        raise CheckpointError(
            f"A checkpoint that was trained with {views} images a study, as R2Gen's of IU X-ray, reads the tokens of "
            "all of them at once, and a pair here reads one image: it would write of a study that it sees half of. "
            "Checkpoints for one image, as those of MIMIC-CXR, can be imported."
        )
    if not 1 <= max_words <= MOST_WORDS:
        raise CheckpointError(f"--max-words {max_words}: a report can have 1 to {MOST_WORDS} words.")
    found = Checkpoint(read_checkpoint(path, "state_dict"), path.name, "R2Gen")
    rows, width = found.shape(_WORDS, 2)
    for what, number in (("--heads", heads), ("--memory-heads", memory_heads)):
        if number < 1 or width % number:
            raise CheckpointError(f"{what} {number}: the model's width, {width}, is no multiple of it.")
    words = _vocabulary(rows - 1, annotations, vocabulary, threshold)
    cnn = resnet(found, "visual_extractor.model.")
    first = f"{_TEXT}model.decoder.layers.0."
    slots, rest = divmod(found.shape(f"{first}sublayer.0.norm.mlp_gamma.0.weight", 2)[1], width)
    if rest:
        raise CheckpointError(f"{path.name}: its memory is not as wide as the model, which R2Gen's own code needs.")
    changes = {
        "width": width,
        "heads": heads,
        "feed_forward": found.shape(f"{first}feed_forward.w_1.weight", 2)[0],
        "layers": found.count(f"{_TEXT}model.decoder.layers.{{}}."),
        "encoder_layers": found.count(f"{_TEXT}model.encoder.layers.{{}}."),
        "slots": slots,
        "memory_heads": memory_heads,
    }
    with torch.device("meta"):
        encoder = new_encoder(cnn.arguments, 224)
        decoder = new_decoder("r2gen", cnn.width, len(words), changes)
    encoder_state = found.state(encoder, lambda key: cnn.place(key.removeprefix("model.")))
    decoder_state = found.state(decoder, _place(words, rows))
    if _POSITIONS in found:
        table = found.take(_POSITIONS)
        if table.ndim != 3 or not same_positions(table[0], positions(width)):
            raise CheckpointError(f"{path.name} has positions of words that are not those of Vaswani et al. 2017.")
    found.close()
    return Imported(
        "R2Gen",
        "Imported from a checkpoint of R2Gen.",
        cnn.arguments,
        cnn.width,
        "r2gen",
        changes,
        encoder_state,
        decoder_state,
        as_vocabulary(words),
        224,
        Fit("stretch"),
        WriteConfig(beam_size=3, max_words=max_words, length_penalty=0.0, no_repeat_ngram=0),
    )


def positions(width: int) -> Tensor:
    """Our table of positions, (T, width)."""
    from core.attention import WordInput

    return WordInput(1, width, 0.0).positions


def as_vocabulary(words: list[str]) -> Vocabulary:
    """Our vocabulary of words in the order of their ids.

    Raises:
        CheckpointError: a word comes twice, is empty or has a space.
    """
    if strange := [word for word in words if word.split() != [word]]:
        raise CheckpointError(f"The vocabulary has what is no word: {strange[0][:40]!r}.")
    kept = [word for word in words if word != _UNKNOWN]
    twice = [word for word, count in Counter([*SPECIAL_TOKENS, *kept]).items() if count > 1]
    if twice:
        raise CheckpointError(f"The vocabulary has a word twice: {twice[0][:40]!r}.")
    return Vocabulary((*SPECIAL_TOKENS, *kept))


def _place(words: list[str], count: int) -> Any:
    """Where each tensor of the decoder stands.

    The original's id 0 begins a report, ends it and fills up; its words begin at 1, the unknown one among them.
    """
    unknown = words.index(_UNKNOWN) + 1
    own = [index for index, word in enumerate(words, 1) if word != _UNKNOWN]
    read = [None, 0, unknown, 0, None, *own]
    written = [None, None, unknown, 0, None, *own]

    def place(key: str) -> Place:
        if key == "embed.embedding.weight":
            return Rows(_WORDS, read, count)
        if key.startswith("output."):
            return Rows(f"{_TEXT}logit.{key.removeprefix('output.')}", written, count, NEVER * key.endswith("bias"))
        return Same(_TEXT + renamed(key, RULES))

    return place


# ---------------------------------------------------------------------------------------------------------- vocabulary


def _vocabulary(count: int, annotations: Path | None, file: Path | None, threshold: int) -> list[str]:
    """The words by their ids, from 1, `_UNKNOWN` among them."""
    if (annotations is None) is (file is None):
        raise CheckpointError(
            "Which words does it write? Give the annotation.json that it was trained with (--annotations), or its "
            "words (--vocabulary): one of the two."
        )
    if file is not None:
        words = read_words(file)
        if len(words) != count or _UNKNOWN not in words:
            lacking = f"{len(words):,} words" if _UNKNOWN in words else f"no {_UNKNOWN}"
            raise CheckpointError(f"{file.name} has {lacking}; the checkpoint has {count:,}, {_UNKNOWN} among them.")
        return words
    assert annotations is not None
    often = Counter(word for text in _training_reports(annotations) for word in mimic_words(text))
    tried = {each: sorted([*(w for w in often if often[w] >= each), _UNKNOWN]) for each in (threshold,) if each}
    tried = tried or {each: sorted([*(w for w in often if often[w] >= each), _UNKNOWN]) for each in THRESHOLDS}
    for words in tried.values():
        if len(words) == count:
            return words
    told = ", ".join(f"{len(words):,} with --threshold {each}" for each, words in tried.items())
    raise CheckpointError(
        f"{annotations.name} gives {told}; the checkpoint has {count:,} words. It is another file than the one that it "
        "was trained with, or words had to occur another number of times (--threshold)."
    )


def read_words(path: Path) -> list[str]:
    """Words from a JSON file: a list in the order of their ids, or an object of ids by word, or of words by id.

    Raises:
        CheckpointError: it is none of these.
    """
    content = _json(path)
    if isinstance(content, Mapping):
        pairs = list(content.items())
        if all(isinstance(value, str) and key.isdigit() for key, value in pairs):
            pairs = [(value, int(key)) for key, value in pairs]
        if all(isinstance(value, int) for _, value in pairs):
            pairs.sort(key=lambda pair: pair[1])
            if [number for _, number in pairs] == list(range(1, len(pairs) + 1)):
                return [word for word, _ in pairs]
        raise CheckpointError(f"{path.name} is no object of words and their ids, from 1 without a gap.")
    if not isinstance(content, list) or not all(isinstance(word, str) for word in content):
        raise CheckpointError(f"{path.name} is no list of words.")
    return content


def _training_reports(path: Path) -> list[str]:
    content = _json(path)
    studies = content.get("train") if isinstance(content, Mapping) else None
    texts = [each.get("report") if isinstance(each, Mapping) else None for each in studies or ()]
    if not isinstance(studies, list) or not texts or not all(isinstance(text, str) for text in texts):
        raise CheckpointError(f"{path.name} is no annotation.json of R2Gen: a list 'train' of studies with a 'report'.")
    return [str(text) for text in texts]


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(f"There is no file {path}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path.name} cannot be read as JSON: {error}.") from error


def mimic_words(text: str) -> list[str]:
    """Words of a report as R2Gen cleans those of MIMIC-CXR.

    Numbers of a list are taken out, sentences end at a full stop and a space, and of punctuation only hyphens and those
    full stops stay.
    """
    text = re.sub(" {2,}", " ", text.replace("\n", " "))
    text = re.sub(r"\.{2,}", ".", text).replace("1. ", "")
    for number in "2345":
        text = text.replace(f". {number}. ", ". ")
    for number in "2345":
        text = text.replace(f" {number}. ", ". ")
    sentences = text.strip().lower().split(". ")
    return [word for sentence in sentences for word in (*_DROPPED.sub("", sentence).split(), ".")]
