"""Gradients of a target: over feature maps (Grad-CAM), on the way from an empty image, over noisy copies."""

from __future__ import annotations

from collections.abc import Callable

import torch
from captum.attr import IntegratedGradients, LayerGradCam, Saliency
from torch import Tensor, nn

from core.encoders.token_cache import Progress
from core.explain.passes import BATCH, Baseline, CountedScore, Over, as_array, result, varied
from core.explain.subject import Subject
from core.explain.targets import Target
from core.types import Attribution, CXRLensError


def grad_cam(
    subject: Subject,
    target: Target,
    *,
    layer: str | None = None,
    over: Over = "tokens",
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """Feature maps weighted by the target's mean gradient (Selvaraju et al. 2017, arXiv:1610.02391).

    Signed, without the paper's ReLU: what speaks for the target is positive.

    Args:
        layer: a stage of the CNN by its name (``cam_layers``); None is the last feature map, that which goes on.
        over: tokens.
        progress: called after each map.

    Raises:
        CXRLensError: there is no feature map of image cells, or no such layer.
    """
    maps = target.maps(subject)
    if not maps:
        raise CXRLensError(
            f"{subject.model.card.name} reads filters, not image cells: Grad-CAM has no map of them. Possible: "
            "attention, cls-attention, integrated-gradients, occlusion and random-masks over its filters; smoothgrad "
            "and the last three over pixels; Grad-CAM of the likeness to a text through one filter."
        )
    results = []
    for index, each in enumerate(maps):
        module: nn.Module = nn.Identity()  # captum hooks a module: here one that is nobody else's
        inputs = each.values
        forward: Callable[[Tensor], Tensor]
        if layer is None:

            def forward(values: Tensor, index: int = index, module: nn.Module = module) -> Tensor:
                return target.of_maps(
                    subject, [module(values) if other == index else maps[other].values for other in range(len(maps))]
                )

        else:
            module, inputs = _layer(each.trunk, layer), subject.square

            def forward(values: Tensor) -> Tensor:
                return target.of_images(subject, values)

        score = CountedScore(subject, forward, len(maps), progress, done=index)
        cam = LayerGradCam(score, module).attribute(inputs.clone().requires_grad_())
        results.append(
            Attribution(
                as_array(cam[0, 0]),
                True,
                "grad-cam",
                target.name,
                subject.geometry,
                each.source,
                {"score": score.first},
            )
        )
    return tuple(results)


def cam_layers(subject: Subject, target: Target) -> tuple[str, ...]:
    """Names of the stages that Grad-CAM can look into, from the finest to the last."""
    return tuple(_stages(target.maps(subject)[0].trunk)) if target.maps(subject) else ()


def integrated_gradients(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    steps: int = 32,
    baseline: Baseline = "mean",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """Gradients summed on the way from a baseline to the image (Sundararajan et al. 2017, arXiv:1703.01365).

    The values sum to the difference of the scores; ``details["convergence_delta"]`` is what is missing to that.

    Args:
        steps: points of the Gauss-Legendre quadrature.
        baseline: of pixels.
        batch: points at once.
    """
    inputs, start, forward = varied(subject, target, over, baseline)
    score = CountedScore(subject, forward, steps + 2, progress)
    method = IntegratedGradients(score)
    values, delta = method.attribute(
        inputs.clone().requires_grad_(),
        start,
        n_steps=steps,
        internal_batch_size=batch,
        return_convergence_delta=True,
    )
    details = {"convergence_delta": float(delta)}
    return result(subject, values, over, "integrated-gradients", target.name, details)


def smooth_grad(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    samples: int = 16,
    noise: float = 0.1,
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """Size of the mean gradient over noisy copies of the image (Smilkov et al. 2017, arXiv:1706.03825).

    Args:
        over: pixels.
        samples: noisy copies.
        noise: standard deviation, grey levels run from 0 to 1.
        batch: copies at once.
    """
    inputs, _, forward = varied(subject, target, over, "black")
    score = CountedScore(subject, forward, samples, progress)
    generator = torch.Generator().manual_seed(seed)  # of the CPU: the same noise on every device
    total = torch.zeros_like(inputs)
    for start in range(0, samples, batch):
        shape = (min(batch, samples - start), *inputs.shape[1:])
        drawn = torch.normal(0.0, torch.full(shape, noise), generator=generator)
        noisy = (inputs + drawn.to(inputs.device)).requires_grad_()
        total += Saliency(score).attribute(noisy, abs=False).sum(0, keepdim=True)
    return result(subject, (total / samples).abs(), over, "smoothgrad", target.name, {}, signed=False)


def _stages(trunk: nn.Module | None) -> dict[str, nn.Module]:
    """A CNN's stages by name; none of an encoder that names no CNN."""
    if trunk is None:
        return {}
    told = getattr(trunk, "feature_info", None)  # of timm's; CLIP's own ResNet has none
    names = ["layer1", "layer2", "layer3", "layer4"] if told is None else [stage["module"] for stage in told]
    there = dict(trunk.named_modules())  # of a CNN that was cut short, timm still names the stages that are gone
    return {name: there[name] for name in names if name in there}


def _layer(trunk: nn.Module | None, name: str) -> nn.Module:
    stages = _stages(trunk)
    if name not in stages:
        raise CXRLensError(f"There is no layer '{name}' in this CNN. Its layers: {', '.join(stages) or 'none'}.")
    return stages[name]
