"""R2Gen and IFCC written anew from their equations, under the names of their checkpoints: slow, whole, without a cache.

Nothing here comes from `core`. Their CNNs are torchvision's own blocks, IFCC's layers torch's own where it uses them.
"""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def three_channels(image: Tensor) -> Tensor:
    """Grey (B, 1, H, H) in [0, 1] as torchvision's CNNs read it."""
    return (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def resnet(block: type[BasicBlock | Bottleneck], channels: tuple[int, ...], layers: tuple[int, ...]) -> nn.Sequential:
    """torchvision's ResNet without pooling and classifier, of any width."""
    stages: list[nn.Module] = []
    width = 64
    for number, (planes, count) in enumerate(zip(channels, layers, strict=True)):
        blocks = []
        for place in range(count):
            stride, out, shortcut = (2 if number and not place else 1), planes * block.expansion, None
            if stride > 1 or width != out:
                shortcut = nn.Sequential(nn.Conv2d(width, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            blocks.append(block(width, planes, stride, shortcut))
            width = out
        stages.append(nn.Sequential(*blocks))
    stem = (nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, *stages)


def densenet() -> nn.Sequential:
    """torchvision's DenseNet, its features in one sequence, 9 channels wide."""
    whole = DenseNet(growth_rate=4, block_config=(2, 1, 1, 1), num_init_features=8, bn_size=2)
    return nn.Sequential(*whole.features.children())


def tokens(features: Tensor) -> Tensor:
    """(B, D, h, w) to (B, h * w, D)."""
    return features.flatten(2).permute(0, 2, 1)


def sines(length: int, width: int) -> Tensor:
    """Vaswani et al. 2017, section 3.5, an entry at a time."""
    rows = []
    for position in range(length):
        angles = [position / 10_000 ** (2 * (channel // 2) / width) for channel in range(width)]
        rows.append([math.cos(a) if channel % 2 else math.sin(a) for channel, a in enumerate(angles)])
    return torch.tensor(rows)


def causal(length: int) -> Tensor:
    """True where a word must not look."""
    return torch.ones(length, length, dtype=torch.bool).triu(1)


# -------------------------------------------------------------------------------------------------------------- R2Gen


class Heads(nn.Module):
    """Multi-head attention, a head at a time."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.linears = nn.ModuleList(nn.Linear(width, width) for _ in range(4))

    def forward(self, query: Tensor, source: Tensor, hidden: Tensor | None = None) -> Tensor:
        q, k, v = (linear(x) for linear, x in zip(self.linears, (query, source, source), strict=False))
        part, seen = q.shape[-1] // self.heads, []
        for head in range(self.heads):
            of = slice(head * part, (head + 1) * part)
            scores = q[..., of] @ k[..., of].transpose(1, 2) / math.sqrt(part)
            if hidden is not None:
                scores = scores.masked_fill(hidden, -1e9)
            seen.append(scores.softmax(-1) @ v[..., of])
        return self.linears[3](torch.cat(seen, -1))


class Norm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.rand(width) + 0.5), nn.Parameter(torch.randn(width) / 9)

    def scaled(self, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
        return gamma * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6) + beta

    def forward(self, x: Tensor) -> Tensor:
        return self.scaled(x, self.gamma, self.beta)


class SteeredNorm(Norm):
    def __init__(self, width: int, slots: int) -> None:
        super().__init__(width)
        self.mlp_gamma = nn.Sequential(nn.Linear(slots * width, width), nn.ReLU(), nn.Linear(width, width))
        self.mlp_beta = nn.Sequential(nn.Linear(slots * width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:  # type: ignore[override]
        return self.scaled(x, self.gamma + self.mlp_gamma(memory), self.beta + self.mlp_beta(memory))


def holder(**parts: nn.Module) -> nn.Module:
    """A module that has parts of these names."""
    made = nn.Module()
    for name, part in parts.items():
        made.add_module(name, part)
    return made


def feed(part: Any, x: Tensor) -> Tensor:
    return part.w_2(functional.relu(part.w_1(x)))


class RelationalMemory(nn.Module):
    def __init__(self, width: int, heads: int, slots: int) -> None:
        super().__init__()
        self.slots = slots
        self.attn = Heads(width, heads)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.W, self.U = nn.Linear(width, 2 * width), nn.Linear(width, 2 * width)

    def forward(self, words: Tensor) -> Tensor:
        rows, _, width = words.shape
        memory = torch.zeros(rows, self.slots, width)
        for slot in range(min(self.slots, width)):
            memory[:, slot, slot] = 1
        after = []
        for place in range(words.shape[1]):
            word = words[:, place : place + 1]
            new = memory + self.attn(memory, torch.cat([memory, word], 1))
            new = new + self.mlp(new)
            gates = self.W(word) + self.U(memory.tanh())
            memory = gates[..., :width].sigmoid() * new.tanh() + gates[..., width:].sigmoid() * memory
            after.append(memory.flatten(1))
        return torch.stack(after, 1)


class R2Gen(nn.Module):
    """All of it; id 0 begins and ends a report."""

    def __init__(
        self,
        words: int,
        cnn: nn.Sequential,
        channels: int,
        *,
        width: int = 16,
        feed_forward: int = 12,
        heads: int = 8,
        layers: int = 2,
        slots: int = 3,
        memory_heads: int = 8,
    ) -> None:
        super().__init__()
        self.width = width
        self.visual_extractor = holder(model=cnn)
        ff = lambda: holder(w_1=nn.Linear(width, feed_forward), w_2=nn.Linear(feed_forward, width))  # noqa: E731
        encoder = [
            holder(
                self_attn=Heads(width, heads),
                feed_forward=ff(),
                sublayer=nn.ModuleList(holder(norm=Norm(width)) for _ in range(2)),
            )
            for _ in range(layers)
        ]
        decoder = [
            holder(
                self_attn=Heads(width, heads),
                src_attn=Heads(width, heads),
                feed_forward=ff(),
                sublayer=nn.ModuleList(holder(norm=SteeredNorm(width, slots)) for _ in range(3)),
            )
            for _ in range(layers)
        ]
        position = nn.Module()
        position.register_buffer("pe", sines(64, width)[None])
        self.encoder_decoder: Any = holder(
            att_embed=nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Dropout(0.5)),
            model=holder(
                encoder=holder(layers=nn.ModuleList(encoder), norm=Norm(width)),
                decoder=holder(layers=nn.ModuleList(decoder), norm=Norm(width)),
                tgt_embed=nn.Sequential(holder(lut=nn.Embedding(words + 1, width)), position),
                rm=RelationalMemory(width, memory_heads, slots),
            ),
            logit=nn.Linear(width, words + 1),
        )

    def forward(self, image: Tensor, ids: Tensor) -> Tensor:
        """Logits (B, T, words + 1) after ids (B, T), of images (B, 1, H, H)."""
        return self.write(self.see(image), ids)

    def see(self, image: Tensor) -> Tensor:
        """What the decoder reads of images."""
        text, model = self.encoder_decoder, self.encoder_decoder.model
        x = text.att_embed(tokens(self.visual_extractor.model(three_channels(image))))
        for layer in model.encoder.layers:
            first, second = (each.norm for each in layer.sublayer)
            normed = first(x)
            x = x + layer.self_attn(normed, normed)
            x = x + feed(layer.feed_forward, second(x))
        seen: Tensor = model.encoder.norm(x)
        return seen

    def write(self, seen: Tensor, ids: Tensor) -> Tensor:
        """Logits after ids, of what was seen."""
        text, model = self.encoder_decoder, self.encoder_decoder.model
        lookup, position = model.tgt_embed
        y = lookup.lut(ids) * math.sqrt(self.width) + position.pe[:, : ids.shape[1]]
        memory = model.rm(y)
        for layer in model.decoder.layers:
            first, second, third = (each.norm for each in layer.sublayer)
            normed = first(y, memory)
            y = y + layer.self_attn(normed, normed, causal(ids.shape[1]))
            y = y + layer.src_attn(second(y, memory), seen)
            y = y + feed(layer.feed_forward, third(y, memory))
        return text.logit(model.decoder.norm(y))


# --------------------------------------------------------------------------------------------------------------- IFCC


class AttentionWithSlots(nn.MultiheadAttention):
    """torch's own, whose keys and values also have learned ones."""

    def __init__(self, width: int, heads: int, slots: int) -> None:
        super().__init__(width, heads)
        self.mem_k = nn.Parameter(torch.randn(slots, 1, width) / 3)
        self.mem_v = nn.Parameter(torch.randn(slots, 1, width) / 3)

    def over(self, x: Tensor) -> Tensor:
        """(B, N, width) to the same shape."""
        q, k, v = functional.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        slots, part = len(self.mem_k), self.head_dim
        k = torch.cat([k, math.sqrt(part) * self.mem_k.transpose(0, 1).expand(len(x), -1, -1)], 1)
        v = torch.cat([v, math.sqrt(slots) * self.mem_v.transpose(0, 1).expand(len(x), -1, -1)], 1)
        seen = []
        for head in range(self.num_heads):
            of = slice(head * part, (head + 1) * part)
            seen.append((q[..., of] @ k[..., of].transpose(1, 2) / math.sqrt(part)).softmax(-1) @ v[..., of])
        return self.out_proj(torch.cat(seen, -1))


class EncoderLayerWithSlots(nn.Module):
    def __init__(self, width: int, slots: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = AttentionWithSlots(width, 8, slots)
        self.linear1, self.linear2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn.over(x))
        return self.norm2(x + self.linear2(functional.relu(self.linear1(x))))


class Ifcc(nn.Module):
    """m2trans (``slots`` > 0) or trans; ids 0 to 3 fill up, begin, are unknown, end."""

    def __init__(
        self,
        words: int,
        cnn: nn.Module,
        channels: int,
        *,
        width: int = 16,
        hidden: int = 24,
        slots: int = 0,
        encoder_layers: int = 2,
        layers: int = 2,
        layer_norm: bool = True,
        max_word: int = 40,
    ) -> None:
        super().__init__()
        self.slots, self.max_word = slots, max_word
        self.image_feats = cnn
        self.image_proj_l = nn.Linear(channels, width)
        if layer_norm:
            self.layer_norm = nn.LayerNorm(width)
        self.embeddings = nn.Embedding(words + 4, width)
        self.word_pe = nn.Module()
        self.word_pe.register_buffer("pe", sines(max_word + 1, width)[:, None])
        self.word_dense = nn.Linear(width, words + 4, bias=False)
        encoder: list[nn.Module] = [
            EncoderLayerWithSlots(width, slots, hidden)
            if slots
            else nn.TransformerEncoderLayer(width, 8, hidden, batch_first=True)
            for _ in range(encoder_layers)
        ]
        self.encoder = holder(layers=nn.ModuleList(encoder))
        decoder = [nn.TransformerDecoderLayer(width, 8, hidden, batch_first=True) for _ in range(layers)]
        for layer in decoder if slots else ():
            for level in range(encoder_layers):
                layer.add_module(f"linear_alpha{level}", nn.Linear(2 * width, width))
        self.decoder = holder(layers=nn.ModuleList(decoder))

    def features(self, image: Tensor) -> Tensor:
        return tokens(self.image_feats(three_channels(image)))

    def forward(self, image: Tensor, ids: Tensor, absent: int = 0) -> Tensor:
        """Logits (B, T, words + 4) after ids (B, T), of images (B, 1, H, H) and ``absent`` ones beside each."""
        return self.write(self.see(image), ids, absent)

    def see(self, image: Tensor) -> list[Tensor]:
        """What the decoder reads of images, by level."""
        x = functional.relu(self.image_proj_l(self.features(image)))
        x = self.layer_norm(x) if hasattr(self, "layer_norm") else x
        levels = []
        for layer in self.encoder.layers:  # type: ignore[union-attr]
            x = layer(x)
            levels.append(x)
        return levels if self.slots else levels[-1:]

    def write(self, levels: list[Tensor], ids: Tensor, absent: int = 0) -> Tensor:
        """Logits after ids, of what was seen."""
        y = self.embeddings(ids) * math.sqrt(self.max_word) + self.word_pe.pe[: ids.shape[1], 0]  # type: ignore[index]
        for layer in self.decoder.layers:  # type: ignore[union-attr]
            mixed, _ = layer.self_attn(y, y, y, attn_mask=causal(ids.shape[1]))
            y = layer.norm1(y + mixed)
            total = torch.zeros_like(y)
            for number, level in enumerate(levels):
                images = [level, *[torch.zeros_like(level)] * absent]
                seen = torch.stack([layer.multihead_attn(y, each, each)[0] for each in images]).amax(0)
                seen = layer.norm2(y + seen)
                if self.slots:
                    gate = getattr(layer, f"linear_alpha{number}")(torch.cat([y, seen], -1)).sigmoid()
                    seen = gate * seen / math.sqrt(len(levels))
                total = total + seen
            y = layer.norm3(total + layer.linear2(functional.relu(layer.linear1(total))))
        return self.word_dense(y)


class IfccPlanner(nn.Module):
    """cnnrnnrnn for one image: a sentence at a time, a word at a time."""

    def __init__(self, words: int, cnn: nn.Module, channels: int, *, width: int = 16, parallel: bool = True) -> None:
        super().__init__()
        self.width = width
        self.image_feats, self.image_proj = cnn, nn.Linear(channels, width)
        self.lstm_sent = nn.LSTM(width, width, batch_first=True) if parallel else nn.LSTMCell(width, width)
        self.topic_dense, self.stop_dense = nn.Linear(width, width), nn.Linear(width, 1)
        self.vs_att_h = nn.Linear(49, 1, bias=False)
        self.vs_att_v, self.vs_att_g, self.vs_att_s = (nn.Linear(width, 49, bias=False) for _ in range(3))
        self.vs_dense1, self.vs_dense2 = nn.Linear(3 * width, width, bias=False), nn.Linear(width, width, bias=False)
        self.lstm_word = nn.LSTMCell(3 * width, width)
        self.embeddings = nn.Embedding(words + 4, width)
        self.word_dense = nn.Linear(width, words + 4, bias=False)

    def forward(self, image: Tensor, sentences: list[list[int]]) -> tuple[list[Tensor], Tensor]:
        """Of one image: logits (words + 1, V) of each sentence, START before its words; stop logits (sentences,)."""
        local = self.image_proj(tokens(self.image_feats(three_channels(image))))
        overall = local.mean(1)
        planned, stops, cell = [], [], None
        for _ in sentences:
            if isinstance(self.lstm_sent, nn.LSTM):
                out, cell = self.lstm_sent(overall[:, None], cell)
                planned.append(out[:, 0])
            else:
                cell = self.lstm_sent(overall, cell)
                planned.append(cell[0])
            stops.append(self.stop_dense(planned[-1])[0, 0])
        logits = []
        for state, sentence in zip(planned, sentences, strict=True):
            topic = functional.relu(self.topic_dense(state))
            hidden = memory = torch.zeros(1, self.width)
            rows = []
            for word in [1, *sentence]:
                scores = self.vs_att_h(torch.tanh(self.vs_att_v(local) + self.vs_att_g(hidden)[:, None]))[..., 0]
                x = torch.cat([overall, topic, self.embeddings(torch.tensor([word]))], 1)
                gate = torch.sigmoid(self.vs_dense1(x) + self.vs_dense2(hidden))
                hidden, memory = self.lstm_word(x, (hidden, memory))
                sentinel = gate * memory.tanh()
                away = self.vs_att_h(torch.tanh(self.vs_att_s(sentinel) + self.vs_att_g(hidden)))
                beta = torch.cat([scores, away], 1).softmax(1)[:, -1:]
                seen = (scores.softmax(1)[..., None] * local).sum(1)
                rows.append(self.word_dense(beta * sentinel + (1 - beta) * seen + hidden)[0])
            logits.append(torch.stack(rows))
        return logits, torch.stack(stops)


def settle(model: nn.Module, seed: int = 0) -> Any:
    """A model in evaluation mode whose norms have statistics, and whose greedy reports vary and end."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if name.endswith("running_mean"):
            value.copy_(torch.randn(value.shape, generator=generator) / 10)
        elif name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
        elif "norm" in name and name.endswith(("weight", "bias")):
            value.add_(torch.randn(value.shape, generator=generator) / 10)
    return model.eval().requires_grad_(False)


# -------------------------------------------------------------------------------------------------------------- files

WORDS = [".", "<unk>", "clear", "effusion", "heart", "is", "left", "lungs", "no", "right-sided", "the", "with"]
"""In the order of R2Gen's ids, from 1."""
EMBEDDED = ["the", ".", "lungs", "are", "clear", "no", "effusion", "heart", "is", "large"]
"""In the order of IFCC's ids, from 4."""
CHANNELS = (4, 4, 8, 8)


def some_r2gen(seed: int = 0, block: Any = Bottleneck, **sizes: Any) -> Any:
    """An R2Gen of a few thousand weights that writes `WORDS`."""
    torch.manual_seed(seed)
    cnn = resnet(block, CHANNELS, (2, 1, 1, 1))
    model = settle(R2Gen(len(WORDS), cnn, CHANNELS[-1] * block.expansion, **sizes))
    model.encoder_decoder.logit.weight.mul_(3)
    return model


def some_ifcc(seed: int = 0, **sizes: Any) -> Any:
    """A Transformer of IFCC of a few thousand weights that writes `EMBEDDED`."""
    torch.manual_seed(seed)
    model = settle(Ifcc(len(EMBEDDED), densenet(), 9, **sizes))
    model.word_dense.weight.mul_(3)
    return model


def save_r2gen(folder: Path, state: dict[str, Any], **more: Any) -> Path:
    """A checkpoint as R2Gen's trainer writes it."""
    path = folder / "model_best.pth"
    torch.save({"epoch": 3, "state_dict": state, "monitor_best": 0.1, **more}, path)
    return path


def save_ifcc(folder: Path, state: dict[str, Any]) -> Path:
    """A checkpoint as IFCC's logger writes it."""
    path = folder / "model_31-152173.dict.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        torch.save({"epoch": 31, "model": state, "bests": {0: 0.5}}, file)
    return path


def save_words(folder: Path) -> Path:
    """R2Gen's words as a file, in the order of their ids."""
    path = folder / "words.json"
    path.write_text(json.dumps(WORDS))
    return path


def save_embeddings(folder: Path) -> Path:
    """IFCC's file of word embeddings, the unknown word among them."""
    path = folder / "glove.txt.gz"
    lines = [f"{len(EMBEDDED) + 1} 2", *(f"{word} 0.5 1.0" for word in EMBEDDED[:4]), "<unk> 0 0"]
    lines += [f"{word} 0.5 1.0" for word in EMBEDDED[4:]]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


def save_annotations(folder: Path) -> Path:
    """R2Gen's annotation.json whose words are `WORDS`."""
    path = folder / "annotation.json"
    reports = [" ".join(word for word in WORDS if word not in (".", "<unk>")) + "."] * 10
    path.write_text(json.dumps({"train": [{"report": each} for each in reports], "val": [], "test": []}))
    return path
