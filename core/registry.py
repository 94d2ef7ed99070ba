"""What there is: encoders, decoders, sizes and shapes, in one table. Imports no torch.

A test builds every row on the meta device and compares its real shapes with the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from core.observations import CLUSTERS
from core.types import CXRLensError

Row = TypeVar("Row")
Size = Literal["paper", "small", "tiny"]
SIZES: tuple[Size, ...] = ("paper", "small", "tiny")

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CLIP = {"mean": (0.48145466, 0.4578275, 0.40821073), "std": (0.26862954, 0.26130258, 0.27577711)}


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """One size of an encoder: (B, 1, image_size, image_size) -> (B, num_tokens, width).

    Attributes:
        image_size: pixels.
        num_tokens: N.
        width: D.
        grids: (h, w) of each grid of tokens; empty for CCVE.
        arch: keyword arguments of the builder.
    """

    image_size: int
    num_tokens: int
    width: int
    grids: tuple[tuple[int, int], ...]
    arch: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """One row of the encoder table.

    Attributes:
        name: key in configs, bundle names and links.
        title: what a reader sees.
        summary: one sentence for a reader who does not know the paper.
        build: "module:class", called with ``arch``.
        objective: what it is trained on before it is frozen, a row of `training.stages.objectives`; None if it learns
            with its decoder.
        normalization: mean and standard deviation of the input channels, of values in [0, 1].
        source: where the paper describes it.
        sizes: shape by size.
        token_names: what each token stands for, where tokens are not cells of the image: CCVE's clusters.
    """

    name: str
    title: str
    summary: str
    build: str
    objective: Literal["labels", "impressions", "sentences"] | None
    normalization: Mapping[str, tuple[float, float, float]]
    source: str
    sizes: Mapping[Size, EncoderShape]
    token_names: tuple[str, ...] = ()

    @property
    def frozen(self) -> bool:
        """Whether it learns before the decoder does, and not with it."""
        return self.objective is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """One row of the decoder table.

    Attributes:
        name: key in configs, bundle names and links.
        title: what a reader sees.
        summary: one sentence for a reader who does not know the paper.
        build: "module:class".
        sentences: it writes sentence by sentence and needs SENTENCE_END in its targets.
        source: the paper that describes it.
        sizes: keyword arguments of the builder by size.
        compared: it is one of those that the paper compares; presets and the demo have these, with every encoder.
    """

    name: str
    title: str
    summary: str
    build: str
    sentences: bool
    source: str
    sizes: Mapping[Size, Mapping[str, Any]]
    compared: bool = True


# timm names carry the weights' tag, because the bare names have changed their meaning (paper-notes 1.1, 1.2).
_RN50X4 = {
    # src: open_clip model_configs/RN50x4-quickgelu.json
    "embed_dim": 640,
    "image": {"kind": "resnet", "layers": (4, 6, 10, 6), "width": 80, "image_size": 288},
    "text": {"kind": "transformer", "tokenizer": "bpe", "width": 640, "heads": 10, "layers": 12, "quick_gelu": True},
    "pretrained": "RN50x4-quickgelu:openai",
}
# ImageNet's EfficientNet-Lite0 up to stride 16: 0.7 of its 3.4 million weights. Its last stages have most weights and a
# quarter of the cells, and add little on chest radiographs (Ke et al. 2021, CheXtransfer, arXiv:2101.06871). The
# edges that its first stages see are everybody's: they are not trained, for speed. Decoders get the mean of 2 x 2
# cells: 6 x 6 are nearly the paper's 7 x 7, and 144 would take them most of their time.
_LITE0 = {
    "backbone": "efficientnet_lite0",
    "backbone_args": {"stages": 4, "untrained_stages": 2},
    "pretrained": "package",
}
_LITE0_CLIP = {
    "embed_dim": 256,
    "image": {"kind": "timm", "image_size": 192, "features": 112, "stride": 16, "heads": 4, **_LITE0},
    "text": {"kind": "minilm"},
    "pretrained": "package",
}
# A small ResNet with a deep stem learns from a few thousand studies in minutes; DenseNet and ConvNeXt of that size
# need several times as long from scratch.
_TINY_RESNET = {
    "layers": (1, 1, 2, 1),
    "channels": (24, 48, 96, 128),
    "stem_type": "deep",
    "stem_width": 12,
    "avg_down": True,
}
_TINY = {"backbone": "resnet18", "backbone_args": _TINY_RESNET, "pretrained": None}
_TINY_CLIP = {
    "embed_dim": 128,
    "image": {"kind": "timm", "image_size": 128, "features": 128, **_TINY},
    "text": {"kind": "transformer", "tokenizer": "words", "width": 64, "heads": 4, "layers": 2},
    "pretrained": None,
}

ENCODERS: Mapping[str, EncoderSpec] = {
    spec.name: spec
    for spec in (
        EncoderSpec(
            name="dve",
            title="DVE",
            summary="Direct: a CNN (DenseNet-121 at paper size) trained end to end with its decoder.",
            build="core.encoders.dve:DirectEncoder",
            objective=None,
            normalization=IMAGENET,
            source="Nazarov et al. 2022, section 3.1, Direct Visual Encoding",
            sizes={
                "paper": EncoderShape(
                    image_size=224, num_tokens=49, width=1024, grids=((7, 7),), arch={"backbone": "densenet121.tv_in1k"}
                ),
                "small": EncoderShape(
                    image_size=192, num_tokens=36, width=112, grids=((6, 6),), arch={**_LITE0, "pool": 2}
                ),
                "tiny": EncoderShape(image_size=128, num_tokens=16, width=128, grids=((4, 4),), arch=_TINY),
            },
        ),
        EncoderSpec(
            name="fve",
            title="FVE",
            summary="Fine-grained: two frozen classifiers, one of 14 observations, one of their modifiers.",
            build="core.encoders.fve:FineGrainedEncoder",
            objective="labels",
            normalization=IMAGENET,
            source="Nazarov et al. 2022, section 3.1, Fine-grained Visual Encoding",
            sizes={
                "paper": EncoderShape(
                    image_size=224,
                    num_tokens=98,
                    width=768,
                    grids=((7, 7), (7, 7)),
                    arch={"backbone": "convnext_small.fb_in1k"},
                ),
                "small": EncoderShape(
                    image_size=192, num_tokens=72, width=112, grids=((6, 6), (6, 6)), arch={**_LITE0, "pool": 2}
                ),
                "tiny": EncoderShape(image_size=128, num_tokens=32, width=128, grids=((4, 4), (4, 4)), arch=_TINY),
            },
        ),
        EncoderSpec(
            name="cve",
            title="CVE",
            summary="CLIP: a CNN trained to match radiographs with impressions, then frozen. The small ones here start "
            "from a classifier of labels; how little the contrast adds is measured (docs/results.md, What CVE is).",
            build="core.encoders.cve:ClipEncoder",
            objective="impressions",
            normalization=CLIP,
            source="Nazarov et al. 2022, section 3.1, CLIP Visual Encoding",
            sizes={
                "paper": EncoderShape(
                    image_size=288, num_tokens=81, width=640, grids=((9, 9),), arch={"clip": _RN50X4}
                ),
                "small": EncoderShape(
                    image_size=192, num_tokens=36, width=256, grids=((6, 6),), arch={"clip": _LITE0_CLIP, "pool": 2}
                ),
                "tiny": EncoderShape(
                    image_size=128, num_tokens=16, width=128, grids=((4, 4),), arch={"clip": _TINY_CLIP}
                ),
            },
        ),
        EncoderSpec(
            name="ccve",
            title="CCVE",
            summary="Cluster CLIP: 13 learned filters, one a disease cluster, each followed by CLIP, then frozen. "
            "As CVE, the small ones start from a classifier of labels.",
            build="core.encoders.ccve:ClusterClipEncoder",
            objective="sentences",
            token_names=CLUSTERS,
            normalization=CLIP,
            source="Nazarov et al. 2022, section 3.1, Cluster CLIP Visual Encoding",
            sizes={
                "paper": EncoderShape(image_size=288, num_tokens=13, width=640, grids=(), arch={"clip": _RN50X4}),
                "small": EncoderShape(image_size=192, num_tokens=13, width=256, grids=(), arch={"clip": _LITE0_CLIP}),
                "tiny": EncoderShape(
                    image_size=128, num_tokens=13, width=128, grids=(), arch={"clip": _TINY_CLIP, "hidden": 4}
                ),
            },
        ),
    )
}

# src: paper-notes 3.0: width 512, 8 heads, feed-forward 2048, dropout 0.1; three layers are our neutral default,
# the published code trains one (``layers = 1``).
_PAPER_TRANSFORMER = {"width": 512, "heads": 8, "feed_forward": 2048, "layers": 3, "dropout": 0.1}
# For a few thousand reports of a thousand words.
_SMALL_TRANSFORMER = {"width": 128, "heads": 4, "feed_forward": 384, "layers": 2, "dropout": 0.1}
_TINY_TRANSFORMER = {"width": 96, "heads": 4, "feed_forward": 256, "layers": 2, "dropout": 0.1}
# src: main_test.py of cuhksz-nlp/R2Gen, as all numbers of its size "paper"
_R2GEN = {"slots": 3, "dropout": 0.1}

DECODERS: Mapping[str, DecoderSpec] = {
    spec.name: spec
    for spec in (
        DecoderSpec(
            name="transformer",
            title="Transformer",
            summary="Attends to all image tokens for each word.",
            build="core.decoders.transformer:TransformerDecoder",
            sentences=False,
            source="Vaswani et al. 2017, arXiv:1706.03762",
            sizes={"paper": _PAPER_TRANSFORMER, "small": _SMALL_TRANSFORMER, "tiny": _TINY_TRANSFORMER},
        ),
        DecoderSpec(
            name="m2",
            title="M2",
            summary="Meshed memory: attends to every level of its image memory, which also holds learned slots.",
            build="core.decoders.m2:MeshedMemoryDecoder",
            sentences=False,
            source="Cornia et al. 2020, arXiv:1912.08226",
            sizes={
                "paper": {**_PAPER_TRANSFORMER, "slots": 40},
                "small": {**_SMALL_TRANSFORMER, "slots": 16},
                "tiny": {**_TINY_TRANSFORMER, "slots": 16},
            },
        ),
        DecoderSpec(
            name="cnn_rnn_rnn",
            title="CNN-RNN-RNN",
            summary="Plans sentences with one recurrent network and writes each with another.",
            build="core.decoders.cnn_rnn_rnn:HierarchicalDecoder",
            sentences=True,
            source="Liu et al. 2019, arXiv:1904.02633; Lu et al. 2017, arXiv:1612.01887",
            sizes={
                "paper": {"width": 512, "dropout": 0.5, "max_sentences": 12, "max_sentence_words": 40},
                "small": {"width": 160, "dropout": 0.2, "max_sentences": 12, "max_sentence_words": 40},
                "tiny": {"width": 128, "dropout": 0.2, "max_sentences": 12, "max_sentence_words": 40},
            },
        ),
        DecoderSpec(
            name="r2gen",
            title="R2Gen",
            summary="Remembers in a few slots what it has written, and lets that memory steer each of its layers.",
            build="core.decoders.r2gen:MemoryDrivenDecoder",
            sentences=False,
            source="Chen et al. 2020, arXiv:2010.16056",
            sizes={
                "paper": {**_R2GEN, "width": 512, "heads": 8, "feed_forward": 512, "layers": 3, "memory_heads": 8},
                "small": {**_R2GEN, "width": 128, "heads": 4, "feed_forward": 128, "layers": 2, "memory_heads": 4},
                "tiny": {**_R2GEN, "width": 96, "heads": 4, "feed_forward": 96, "layers": 2, "memory_heads": 4},
            },
            compared=False,
        ),
    )
}

JOINT = "+"
"""Between the names of encoders that one decoder reads jointly: "fve+ccve"."""


def encoder_parts(name: str) -> tuple[str, ...]:
    """Names of the encoders behind a name: one, or several that are joined."""
    return tuple(name.split(JOINT))


def token_names(name: str) -> tuple[str, ...]:
    """What an encoder's tokens stand for, where they are not cells of the image; of several jointly, one's.

    None of an encoder that is no row of the table: models from elsewhere have cells.
    """
    rows = (ENCODERS[part] for part in encoder_parts(name) if part in ENCODERS)
    return next((row.token_names for row in rows if row.token_names), ())


def token_width(name: str, size: Size) -> int:
    """Width of the tokens that an encoder, or several jointly, hand to a decoder: the widest part's."""
    return max(ENCODERS[part].sizes[size].width for part in encoder_parts(name))


def image_size(name: str, size: Size) -> int:
    """Side of the image that an encoder takes, pixels; several jointly take the largest of theirs."""
    return max(ENCODERS[part].sizes[size].image_size for part in encoder_parts(name))


def classifier_row() -> EncoderSpec:
    """The encoder of classifiers: its tower is the one that a run's backbone has, and its CDC stands in Table 2."""
    return next(spec for spec in ENCODERS.values() if spec.objective == "labels")


def pair_title(encoder: str, decoder: str) -> str:
    """What a reader sees of a pair: "FVE + M2"."""
    return " + ".join([*(ENCODERS[part].title for part in encoder_parts(encoder)), DECODERS[decoder].title])


def table_order() -> list[tuple[str, str]]:
    """All pairs as in the paper's Table 1: decoder by decoder, so that neighbours differ in the encoder alone."""
    return [(encoder, decoder) for decoder in DECODERS for encoder in ENCODERS]


def all_pairs() -> tuple[tuple[str, str], ...]:
    """Every encoder with every decoder, in the order of the tables."""
    return tuple((encoder, decoder) for encoder in ENCODERS for decoder in DECODERS)


def compared_decoders() -> list[str]:
    """Names of the decoders that the paper compares."""
    return [name for name, spec in DECODERS.items() if spec.compared]


def compared_pairs() -> tuple[tuple[str, str], ...]:
    """Every encoder with every decoder that the paper compares: the models that presets train and the demo has."""
    return tuple((encoder, decoder) for encoder in ENCODERS for decoder in compared_decoders())


def lookup(table: Mapping[Any, Row], name: str, what: str) -> Row:
    """Find a row by name.

    Raises:
        CXRLensError: there is none; the message names the nearest.
    """
    if name in table:
        return table[name]
    raise CXRLensError(f"Unknown {what} '{name}'.{did_you_mean(name, table)} Known: {', '.join(table)}.")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question to end a message with, where a known name is near to one that is not known; else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
