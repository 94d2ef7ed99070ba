"""What a preset costs: bytes, operations, GPU memory and hours of each stage, computed before anything is bought.

Operations are counted (torch's flop counter) and saved activations summed on the meta device, on the real networks and
losses; the rates of reading images and labelling reports are measured on this machine. What is assumed is an option.
"""

from __future__ import annotations

import io
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from core.config import ClipConfig, ExperimentConfig
from core.decoders import build_decoder, decoder_class
from core.encoders import Encoder, build_encoder
from core.encoders.base import Normalize, encoder_class
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.classifier import ImageClassifier
from core.encoders.clip import ContrastiveEncoder
from core.encoders.fve import FineGrainedEncoder
from core.encoders.label_text import LabelTextEncoder
from core.encoders.token_cache import BATCH
from core.observations import CLUSTERS
from core.registry import DECODERS, ENCODERS, classifier_row, encoder_parts, lookup, token_width
from core.studies.index import SHARES
from core.text import END, SENTENCE_END, SPECIAL_TOKENS, START, Vocabulary
from core.types import VisualTokens
from training.backbones import build_classifier, settings_of
from training.losses import contrastive_loss, report_loss
from training.paper.tables import rows_of_table_2
from training.stages.counts import MIMIC_CXR, Counts
from training.stages.label_text import DECODER as LABEL_TEXT_DECODER
from training.stages.models import decoder_arguments

ADAM_BYTES = 16
"""A trained parameter in float32: itself, its gradient, Adam's two moments."""


@dataclass(frozen=True, slots=True)
class StageCost:
    """What one stage costs.

    Attributes:
        name: of the stage.
        items: that it sees in an epoch.
        epochs: at most.
        operations: floating-point ones an item, forward and, where it trains, backward; a multiply-add is two.
        memory: bytes on one GPU: weights, gradients, moments, and what a batch saves for the backward pass.
        disk: bytes that it writes.
    """

    name: str
    items: int
    epochs: int
    operations: float
    memory: float
    disk: float

    def hours(self, tflops: float, gpus: int) -> float:
        """Hours on so many GPUs that reach ``tflops`` each."""
        return self.items * self.epochs * self.operations / (tflops * 1e12 * gpus) / 3600


class Saved:
    """Sums the bytes that autograd keeps for the backward pass, each storage once, weights left out."""

    def __init__(self, modules: nn.Module) -> None:
        """Leave out the weights of ``modules``."""
        self._known = {each.untyped_storage()._cdata for each in (*modules.parameters(), *modules.buffers())}
        self._kept: list[Tensor] = []  # alive, or a storage's address would come again
        self.bytes = 0
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._pack, lambda tensor: tensor)

    def _pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known.add(storage._cdata)
            self._kept.append(tensor)
            self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> Saved:
        """Begin."""
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        """End."""
        self._hooks.__exit__(*error)


def _convolution_backward(
    gradient: Sequence[int], inputs: Sequence[int], weight: Sequence[int], *more: Any, **_: Any
) -> int:
    """Operations of a convolution's backward pass, from shapes.

    Torch's own formula forgets groups: of a depthwise convolution it counts the weights' gradient as often as there
    are channels, three times the whole of ConvNeXt (torch 2.14).
    """
    transposed, wanted = more[4], more[7]
    positions = inputs if transposed else gradient
    forward = 2 * math.prod(weight) * positions[0] * math.prod(positions[2:])
    return forward * sum(wanted[:2])


def measure(module: nn.Module, loss: Callable[[], Tensor]) -> tuple[int, int]:
    """Operations of a loss with its backward pass, and bytes saved between the two."""
    saved = Saved(module)
    counted = {torch.ops.aten.convolution_backward: _convolution_backward}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter:
        with saved:
            value = loss()
        value.backward()  # type: ignore[no-untyped-call]
    return counter.get_total_flops(), saved.bytes


def _training_memory(module: nn.Module, saved: int) -> float:
    trained = sum(each.numel() for each in module.parameters() if each.requires_grad)
    return ADAM_BYTES * trained + 4 * (sum(each.numel() for each in module.parameters()) - trained) + saved


def encoder_on_meta(name: str, config: ExperimentConfig, counts: Counts) -> Encoder:
    """An encoder without weights."""
    data = SimpleNamespace(vocabulary=_vocabulary(counts.vocabulary), fine_labels=range(counts.fine_labels))
    with torch.device("meta"):
        return build_encoder(name, config.size, **encoder_class(name).arguments(config, data))  # type: ignore[arg-type]


def classifier_stages(name: str, config: ExperimentConfig, counts: Counts) -> list[StageCost]:
    """Cost of CDC and FGC; the margin loss costs what cross-entropy does."""
    encoder, settings = encoder_on_meta(name, config, counts), config.classifier
    assert isinstance(encoder, FineGrainedEncoder)
    passes, items = 1 + (settings.optimizer == "sam"), counts.train + counts.further
    return [
        _network(f"{kind}_{name}", encoder.normalize, tower, items, settings.epochs, settings.batch_size, passes)
        for kind, tower in encoder.classifiers().items()
    ]


def backbone_stages(config: ExperimentConfig, counts: Counts) -> list[StageCost]:
    """Cost of what all encoders start from, and of what that starts from."""
    settings = config.backbone
    if settings.source == "none":
        return []
    normalize, tower = _backbone_tower(config, "meta")
    learned = {
        "train": counts.train + counts.further + counts.laterals,
        "phantom": round(settings.count * SHARES[0]),
    }[settings.source]
    stages = [("backbone", learned, settings.epochs)]
    if settings.before != "none":
        stages.insert(0, ("backbone_before", counts.before, settings.before_epochs))
    return [_network(name, normalize, tower, items, epochs, settings.batch_size) for name, items, epochs in stages]


def _backbone_tower(config: ExperimentConfig, device: str) -> tuple[Normalize, ImageClassifier]:
    row = classifier_row()
    arch = {key: value for key, value in row.sizes[config.size].arch.items() if key != "pool"}
    with torch.device(device):
        return Normalize(config.image_side(row.name), **row.normalization), ImageClassifier(num_classes=14, **arch)


def measured_tflops(config: ExperimentConfig, images: int = 8, steps: int = 3) -> float:
    """TFLOPS that a core of this machine reaches when it trains the tower of the backbone; the best of some steps."""
    normalize, tower = _backbone_tower(config, "cpu")
    tower = tower.to(memory_format=torch.channels_last)
    batch = torch.rand(images, 1, normalize.image_size, normalize.image_size)
    operations = _network("", *_backbone_tower(config, "meta"), 1, 1, images).operations * images
    threads, seconds = torch.get_num_threads(), []
    torch.set_num_threads(1)
    try:
        for _ in range(steps):
            began = time.perf_counter()
            tower(normalize(batch)).square().mean().backward()
            seconds.append(time.perf_counter() - began)
    finally:
        torch.set_num_threads(threads)
    return operations / min(seconds) / 1e12


def backbone_stage(name: str, config: ExperimentConfig, counts: Counts) -> StageCost:
    """Cost of a row of Table 2; SAM goes forward and backward twice a step."""
    with torch.device("meta"):
        normalize, network = build_classifier(name, config.size, pretrained=False)
    settings = settings_of(name, config)
    passes, items = 1 + (settings.optimizer == "sam"), counts.train + counts.further
    return _network(f"table2/{name}", normalize, network, items, settings.epochs, settings.batch_size, passes)


def _network(
    name: str, normalize: Normalize, network: ImageClassifier, items: int, epochs: int, batch: int, passes: int = 1
) -> StageCost:
    side = normalize.image_size
    images = torch.zeros(batch, 1, side, side, device="meta")
    operations, saved = measure(network, lambda: network(normalize(images)).float().square().mean())
    memory = _training_memory(network, saved)
    return StageCost(name, items, epochs, passes * operations / batch, memory, _weights(network))


def clip_stage(name: str, config: ExperimentConfig, counts: Counts, settings: ClipConfig, texts: float) -> StageCost:
    """Cost of a CLIP whose images have each so many texts, the contrast included."""
    encoder = encoder_on_meta(name, config, counts)
    assert isinstance(encoder, ContrastiveEncoder)
    batch = settings.batch_size
    images = _images(name, config, batch)
    ids = torch.zeros(batch, 77, dtype=torch.long, device="meta")

    def loss() -> Tensor:
        inputs = encoder.views(encoder.normalize(images), 0)[:, 0]  # each image goes through one filter
        shown = torch.cat([inputs] * (1 + settings.absent + settings.across_filters))
        image, text = encoder.clip.image(shown)[:batch], encoder.clip.text(ids)
        return contrastive_loss(image, text, encoder.clip.logit_scale)

    operations, saved = measure(encoder, loss)
    pairs = round(counts.impressions * texts)
    memory = _training_memory(encoder, saved)
    return StageCost(f"clip_{name}", pairs, settings.epochs, operations / batch, memory, _weights(encoder))


COSTS: Mapping[str, Callable[[str, ExperimentConfig, Counts], list[StageCost]]] = {
    "labels": classifier_stages,
    "impressions": lambda name, config, counts: [clip_stage(name, config, counts, config.clip, 1)],
    "sentences": lambda name, config, counts: [clip_stage(name, config, counts, config.cluster_clip, counts.sentences)],
}
"""Of the stages of a frozen encoder, by what it learns."""


def token_stage(name: str, config: ExperimentConfig, counts: Counts) -> StageCost:
    """Cost of a frozen encoder over all studies, once; memory: weights, filtered images, the widest layer."""
    encoder = encoder_on_meta(name, config, counts).freeze()
    widest = 0

    def look(_: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal widest
        sides = [each for each in (*inputs, output) if isinstance(each, Tensor)]
        widest = max(widest, sum(each.nbytes for each in sides))

    for each in encoder.modules():
        if not list(each.children()):
            each.register_forward_hook(look)
    images = _images(name, config, BATCH)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(images)
    filtered = 0
    if isinstance(encoder, ClusterClipEncoder):  # those of a chunk, and of the two images that it cuts
        filtered = (encoder.chunk + 2 * len(CLUSTERS)) * 3 * images[0].nbytes
    memory = 4 * sum(each.numel() for each in encoder.parameters()) + filtered + widest
    disk = counts.samples * _tokens(name, config) * ENCODERS[name].sizes[config.size].width * 2
    return StageCost(f"tokens_{name}", counts.samples, 1, counter.get_total_flops() / BATCH, memory, disk)


def decoder_stage(encoder_name: str, decoder_name: str, config: ExperimentConfig, counts: Counts) -> StageCost:
    """Cost of a decoder on cached tokens, or with DVE; validation writes reports, see docs/scale.md."""
    settings, parts = config.report, encoder_parts(encoder_name)
    frozen = all(ENCODERS[part].frozen for part in parts)
    tokens = sum(_tokens(part, config) for part in parts)
    width = token_width(encoder_name, config.size)
    own = decoder_arguments(config, encoder_name, decoder_name)
    decoder = build_decoder(decoder_name, config.size, token_width=width, vocabulary_size=counts.vocabulary, **own)
    if (
        frozen and not DECODERS[decoder_name].sentences
    ):  # the planner reads how many sentences there are: no meta device
        decoder = decoder.to("meta")
    device = next(decoder.parameters()).device
    batch = settings.batch_size if device.type == "meta" else 2
    ids = torch.full((batch, counts.words + 2), 5, device=device)
    ids[:, 0], ids[:, -1] = START, END
    if DECODERS[decoder_name].sentences:
        ids[:, 10:-1:10] = SENTENCE_END
    visual = VisualTokens(torch.zeros(batch, tokens, width, device=device), (), ("x",) * tokens)
    operations, saved = measure(
        decoder, lambda: report_loss(decoder(visual, ids[:, :-1]), ids, settings.stop_weight)["loss"]
    )
    operations, saved = round(operations / batch), round(saved / batch * settings.batch_size)
    memory, disk = _training_memory(decoder, saved), _weights(decoder)
    if not frozen:
        encoder = encoder_on_meta(encoder_name, config, counts)
        images = _images(encoder_name, config, settings.batch_size)
        more, kept = measure(encoder, lambda: encoder(images).tokens.square().mean())
        operations += round(more / settings.batch_size)
        memory, disk = memory + _training_memory(encoder, kept), disk + _weights(encoder)
    epochs = settings.epochs if frozen else settings.epochs_direct
    return StageCost(f"{encoder_name}-{decoder_name}", counts.train, epochs, operations, memory, disk)


def label_text_stage(config: ExperimentConfig, counts: Counts) -> StageCost:
    """Cost of Table 3's model."""
    settings, width = config.report, int(DECODERS[LABEL_TEXT_DECODER].sizes[config.size]["width"])
    with torch.device("meta"):
        encoder = LabelTextEncoder(_vocabulary(counts.fine_labels), width, counts.label_words)
        own = decoder_class(LABEL_TEXT_DECODER).arguments(config)
        words = counts.vocabulary
        decoder = build_decoder(LABEL_TEXT_DECODER, config.size, token_width=width, vocabulary_size=words, **own)
        labels = torch.zeros(settings.batch_size, counts.label_words, dtype=torch.long)
        ids = torch.full((settings.batch_size, counts.words + 2), 5)
    both = nn.ModuleList([encoder, decoder])
    operations, saved = measure(
        both, lambda: report_loss(decoder(encoder(labels), ids[:, :-1]), ids, settings.stop_weight)["loss"]
    )
    memory = _training_memory(both, saved)
    return StageCost("table3", counts.train, settings.epochs, operations / settings.batch_size, memory, _weights(both))


def study_stage(config: ExperimentConfig, counts: Counts, studies: int = 1500) -> StageCost:
    """Cost of encoding for the CCVE study: every encoder once, CCVE again with random filters. Probes run on a CPU."""
    costs = [token_stage(name, config, counts) for name in (*ENCODERS, "ccve")]
    seen = min(studies, counts.train) + min(studies, counts.validate) + min(studies, counts.test)
    operations, disk = (sum(getattr(each, what) for each in costs) for what in ("operations", "disk"))
    return StageCost(
        "study_ccve", seen, 1, operations, max(each.memory for each in costs), disk * seen / counts.samples
    )


def _vocabulary(words: int) -> Vocabulary:
    return Vocabulary((*SPECIAL_TOKENS, *(f"word{index}" for index in range(words))))


def _images(name: str, config: ExperimentConfig, batch: int) -> Tensor:
    side = config.image_side(name)
    return torch.zeros(batch, 1, side, side, device="meta")


def _tokens(name: str, config: ExperimentConfig) -> int:
    """Of an encoder; where they are cells, more of a larger image."""
    shape = ENCODERS[name].sizes[config.size]
    larger = (config.image_side(name) / shape.image_size) ** 2 if shape.grids else 1
    return round(shape.num_tokens * larger)


def _weights(module: nn.Module) -> float:
    return 4.0 * sum(each.numel() for each in module.state_dict().values())


def _costs_of(name: str) -> Callable[[str, ExperimentConfig, Counts], list[StageCost]]:
    return lookup(COSTS, ENCODERS[name].objective or "", f"objective of the encoder {name},")


def stages(config: ExperimentConfig, counts: Counts = MIMIC_CXR) -> list[StageCost]:
    """All stages of a preset that need a GPU, in their order."""
    frozen = list(dict.fromkeys(p for name in config.encoders for p in encoder_parts(name) if ENCODERS[p].frozen))
    rows = backbone_stages(config, counts)
    rows += [row for name in frozen for row in _costs_of(name)(name, config, counts)]
    rows += [token_stage(name, config, counts) for name in frozen]
    rows += [decoder_stage(e, d, config, counts) for e in config.encoders for d in config.decoders]
    return rows


def table_stages(config: ExperimentConfig, counts: Counts = MIMIC_CXR) -> list[StageCost]:
    """What ``cxr-lens paper`` adds to them: the rows of Table 2, Table 3's model, the study of CCVE."""
    names = [name for name in rows_of_table_2(config) if name != "cdc"]  # CDC is among the stages before
    rows = [backbone_stage(name, config, counts) for name in names]
    return [*rows, label_text_stage(config, counts), study_stage(config, counts)]


def measured_rates(side: int = 288, files: int = 3) -> dict[str, float]:
    """Radiographs a second and core, read from a JPEG of MIMIC's size; reports a second and core."""
    from core.labels.rules import label_reports
    from core.studies.image_cache import read_square
    from core.studies.phantom import PhantomSource

    source = PhantomSource(200, 0)
    small = Image.fromarray(np.round(source.image(source.study_ids[0], 512) * 255).astype(np.uint8))
    buffer = io.BytesIO()
    small.resize((2544, 3056), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=95)  # MIMIC-CXR-JPG's quality
    texts = [study.findings for study in source.studies("train")]
    label_reports(texts[:1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "radiograph.jpg"
        path.write_bytes(buffer.getvalue())
        began = time.process_time()
        for _ in range(files):
            read_square(path, side, "plan")
        images = files / (time.process_time() - began)
    began = time.process_time()
    label_reports(texts)
    return {"images": images, "reports": len(texts) / (time.process_time() - began)}


def costs(
    rows: list[StageCost],
    more: list[StageCost],
    config: ExperimentConfig,
    counts: Counts,
    tflops: float,
    gpus: int,
    cores: int,
    *,
    on_cpu: bool = False,
) -> dict[str, Any]:
    """The plan in plain values: what is assumed and measured, then lines in their order.

    A line is a stage (``train``'s, then what ``paper`` adds) or, with "sum", all so far of one of the two commands. Its
    values: items, epochs, operations an item, hours, memory and disk in bytes; what does not apply is left out. With
    ``on_cpu`` it is cores, as many as ``gpus``, that reach so many TFLOPS each.
    """
    rates = measured_rates()
    names = {part for name in config.encoders for part in encoder_parts(name)}
    sides = sorted({config.image_side(name) for name in names})
    images, cached = counts.samples * len(sides), sum(counts.samples * side**2 for side in sides)
    labelling = counts.train / rates["reports"] / cores / 3600
    reading = images / rates["images"] / cores / 3600
    lines: list[dict[str, Any]] = [
        {"stage": "radiographs as JPEG (the release)", "items": counts.files, "disk": counts.file_bytes},
        {"stage": "labels by the rules (CPU)", "items": counts.train, "epochs": 1, "hours": labelling, "disk": 1e8},
        {
            "stage": f"squares of {' and '.join(map(str, sides))} px (CPU)",
            "items": images,
            "epochs": 1,
            "hours": reading,
            "disk": cached,
        },
    ]
    hours, disk = labelling + reading, counts.file_bytes + cached
    done: list[StageCost] = []
    for command, part in (("train", rows), ("paper", more)):
        lines += [
            {
                "stage": row.name,
                "items": row.items,
                "epochs": row.epochs,
                "operations": row.operations,
                "hours": row.hours(tflops, gpus),
                "memory": row.memory,
                "disk": row.disk,
            }
            for row in part
        ]
        done += part
        lines.append(
            {
                "sum": command,
                "hours": hours + sum(row.hours(tflops, gpus) for row in done),
                "memory": max(row.memory for row in done),
                "disk": disk + sum(row.disk for row in done),
            }
        )
    assumed: dict[str, Any] = {
        "gpus": gpus,
        "tflops": tflops,
        "cores": cores,
        "samples": counts.samples,
        "words": counts.words,
    }
    assumed |= {"counts": counts.source, "on_cpu": on_cpu}
    return {"preset": config.name, "assumed": assumed, "measured": rates, "lines": lines}


def plan_markdown(plan: Mapping[str, Any]) -> str:
    """What `costs` gives, as Markdown."""
    assumed, measured = plan["assumed"], plan["measured"]
    on_cpu = assumed["on_cpu"]
    unit, times = ("minutes", 60) if on_cpu else ("hours", 1)
    lines = [
        f"Assumed: {assumed['gpus']} {'training core' if on_cpu else 'GPU'}(s) that reach "
        f"{assumed['tflops']:.2g} TFLOPS each, "
        f"{assumed['cores']} CPU cores, {assumed['samples']:,} samples, reports of {assumed['words']} words; "
        f"numbers of studies are {assumed['counts']}. Measured "
        f"here: {measured['images']:.1f} radiographs and {measured['reports']:,.0f} reports a second and core.",
        "",
        f"| stage | items | epochs | GFLOPs an item | {unit} | {'memory' if on_cpu else 'GPU memory'}, GB | disk, GB |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for line in plan["lines"]:
        if "sum" in line:
            lines.append(
                f"| **all of `{line['sum']}`** | | | | **{line['hours'] * times:.0f}** "
                f"| **{line['memory'] / 1e9:.1f}** | **{line['disk'] / 1e9:.0f}** |"
            )
            continue
        fine = "operations" in line  # a stage, not the files before it
        cells = (
            f"{line['epochs']}" if "epochs" in line else "",
            f"{line['operations'] / 1e9:.1f}" if fine else "",
            f"{line['hours'] * times:.1f}" if "hours" in line else "",
            f"{line['memory'] / 1e9:.1f}" if fine else "",
            f"{line['disk'] / 1e9:.2f}" if fine else f"{line['disk'] / 1e9:.{1 if 'hours' in line else 0}f}",
        )
        lines.append(f"| {line['stage']} | {line['items']:,} | {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)
