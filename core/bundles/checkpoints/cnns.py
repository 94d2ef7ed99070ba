"""torchvision's CNNs under timm's names: both compute the same of the same weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from core.bundles.checkpoints.matching import Checkpoint, Same, renamed

_STAGES = 4


@dataclass(frozen=True, slots=True)
class Cnn:
    """The CNN of a checkpoint, as an encoder of the kind "dve" has it.

    Attributes:
        arguments: of ``DirectEncoder``.
        width: of its tokens.
        place: where each tensor of timm's model stands in the checkpoint.
    """

    arguments: dict[str, Any]
    width: int
    place: Callable[[str], Same]


def resnet(found: Checkpoint, prefix: str) -> Cnn:
    """A ResNet whose children, without pooling and classifier, were put into one sequence.

    Sizes are read off the weights: blocks a stage, their kind and their channels.

    Raises:
        CheckpointError: there is none.
    """
    first = [f"{prefix}{stage + _STAGES}.0" for stage in range(_STAGES)]
    deep = f"{first[0]}.conv3.weight" in found
    channels = [found.shape(f"{each}.conv{2 if deep else 1}.weight", 4)[0] for each in first]
    layers = [found.count(f"{prefix}{stage + _STAGES}.{{}}.conv1.weight") for stage in range(_STAGES)]
    rules = [("conv1", "0"), ("bn1", "1"), *((f"layer{stage + 1}", str(stage + _STAGES)) for stage in range(_STAGES))]
    return Cnn(
        {"backbone": "resnet50" if deep else "resnet18", "backbone_args": {"layers": layers, "channels": channels}},
        channels[-1] * (4 if deep else 1),
        lambda ours: Same(prefix + renamed(ours, rules)),
    )


def densenet(found: Checkpoint, prefix: str, *, numbered: bool) -> Cnn:
    """A DenseNet's features.

    Args:
        found: the checkpoint.
        prefix: of the features.
        numbered: they were put into one sequence, and lack the last ReLU; else they have timm's names and its ReLU.

    Raises:
        CheckpointError: there is none.
    """
    names = ["conv0", "norm0", "relu0", "pool0"]
    for stage in range(1, _STAGES + 1):
        names += [f"denseblock{stage}", f"transition{stage}" if stage < _STAGES else "norm5"]
    place = {name: str(number) if numbered else name for number, name in enumerate(names)}
    blocks = [f"{prefix}{place[f'denseblock{stage}']}.denselayer" for stage in range(1, _STAGES + 1)]
    growth = found.shape(f"{blocks[0]}1.conv2.weight", 4)[0]
    inner = found.shape(f"{blocks[0]}1.conv1.weight", 4)[0]
    depths = [_counted_from_1(found, each) for each in blocks]
    rules = [(rf"features\.{name}\b", prefix + number) for name, number in place.items()]
    return Cnn(
        {
            "backbone": "densenet121",
            "backbone_args": {"growth_rate": growth, "block_config": depths, "bn_size": max(1, inner // growth)},
            "rectified": not numbered,
        },
        found.shape(f"{prefix}{place['norm5']}.weight", 1)[0],
        lambda ours: Same(renamed(ours, rules)),
    )


def _counted_from_1(found: Checkpoint, block: str) -> int:
    number = 0
    while f"{block}{number + 1}.conv1.weight" in found:
        number += 1
    return number
