"""Attention, gradients and perturbations: how much each pixel, cell or filter counted for a target.

``METHODS`` lists them, ``explain`` runs one by its name. Gradients and perturbations are captum's, attention is the
decoder's own, random masks follow RISE. Each returns one ``Attribution`` for pixels, or one for each grid of cells and
for CCVE's filters. All are seeded. ``progress(done, total)`` counts passes through the model; what it raises stops the
work and leaves nothing behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam, NoiseTunnel, Occlusion, Saliency
from open_clip.modified_resnet import ModifiedResNet
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from core.decoders.attention_shares import cls_attention as cls_shares
from core.decoders.attention_shares import report_attention, rollout, word_attention, word_mass
from core.encoders.token_cache import Progress
from core.explain.subject import Subject, not_finite, token_runs
from core.explain.targets import Target, WordTarget, whole_report
from core.studies.images import to_original
from core.text import START
from core.types import Attribution, CXRLensError, FloatImage, Geometry

Over = Literal["pixels", "tokens"]
"""Of the image, or what the decoder reads: cells of a grid, CCVE's filters."""

Baseline = Literal["blur", "mean", "black"]
"""What stands for an image with nothing to see; a token's is 0."""

BATCH = 28
"""Images or sets of tokens that go through the model at once; bounds the memory."""

BLUR = 0.1
"""Standard deviation of the blurred baseline, share of the image's side."""


def attention(
    subject: Subject,
    target: Target,
    *,
    layer: int | None = None,
    head: int | None = None,
    over: Over = "tokens",
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """Where the decoder looked when it wrote the words: shares that sum to 1 over all tokens.

    Several words give the mean over those that are not punctuation. ``details["image"]`` is how much of the attention
    went to visual tokens at all; the rest went to the CLS token, or to the sentinel of CNN-RNN-RNN.

    Args:
        subject: pair, image, report.
        target: words.
        layer: of the decoder; None is the mean.
        head: of the layer; None is the mean.
        over: tokens.
        progress: not called: it is one pass.

    Raises:
        CXRLensError: the target is no words, or there is no such layer or head.
    """
    if not isinstance(target, WordTarget):
        raise CXRLensError(f"Attention explains words of a report, not the {target.name}.")
    decoder, places = subject.model.decoder, list(target.places)
    with torch.no_grad():
        memory = decoder.encode(subject.visual)
        output = decoder.decode(memory, torch.tensor([[START, *target.ids[:-1]]]), return_attention=True)
    assert output.attention is not None
    rows = output.attention[0].permute(2, 0, 1, 3)[places]  # (L, A, T, M) -> (words, L, A, M)
    words = word_attention(rows, memory.visual, layer, head)
    counts = [is_word(subject, target.ids[place]) for place in places]
    details = {"image": float(word_mass(rows, memory.visual).mean())}
    return _over_tokens(subject, report_attention(words, counts), "attention", target.name, details, signed=False)


def cls_attention(
    subject: Subject,
    target: Target | None = None,
    *,
    layer: int | None = None,
    head: int | None = None,
    over: Over = "tokens",
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """What the CLS token gathered, whatever word was written: shares that sum to 1 over all tokens.

    Rollout through all layers, or the attention of one layer or head. CNN-RNN-RNN has no CLS token: the mean attention
    of the report's words stands in, and the result's method says so.

    Args:
        subject: pair, image, report.
        target: without influence.
        layer: of the memory encoder; None, with no head, is the rollout.
        head: of the layer, or of all layers' mean.
        over: tokens.
        progress: not called: it is one pass.

    Raises:
        CXRLensError: there is no such layer or head.
    """
    with torch.no_grad():
        memory = subject.model.decoder.encode(subject.visual, return_attention=True)
    if not memory.attention:
        parts = attention(subject, whole_report(subject), layer=layer, head=head)
        return tuple(
            Attribution(
                each.values, False, "attention (no CLS token)", each.target, each.geometry, each.source, each.details
            )
            for each in parts
        )
    rolled = layer is None and head is None
    shares = rollout(memory) if rolled else cls_shares(memory, layer, head)
    return _over_tokens(subject, shares[0], "cls-attention", "the whole image", {}, signed=False)


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
        subject: pair, image, report.
        target: what is asked.
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
    for place, each in enumerate(maps):
        module: nn.Module = nn.Identity()  # captum hooks a module: here one that is nobody else's
        inputs = each.values
        forward: Callable[[Tensor], Tensor]
        if layer is None:

            def forward(values: Tensor, place: int = place, module: nn.Module = module) -> Tensor:
                return target.of_maps(
                    subject, [module(values) if other == place else maps[other].values for other in range(len(maps))]
                )

        else:
            module, inputs = _layer(each.trunk, layer), subject.square

            def forward(values: Tensor) -> Tensor:
                return target.of_images(subject, values)

        score = _Counted(subject, forward, len(maps), progress, done=place)
        cam = LayerGradCam(score, module).attribute(inputs.clone().requires_grad_())
        results.append(
            Attribution(
                _numpy(cam[0, 0]), True, "grad-cam", target.name, subject.geometry, each.source, {"score": score.first}
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
        subject: pair, image, report.
        target: what is asked.
        over: pixels or tokens.
        steps: points of the Gauss-Legendre quadrature.
        baseline: of pixels.
        batch: points at once.
        progress: called with (passes done, passes in all).
    """
    inputs, start, forward = _input(subject, target, over, baseline)
    score = _Counted(subject, forward, steps + 2, progress)
    method = IntegratedGradients(score)
    values, delta = method.attribute(
        inputs.clone().requires_grad_(),
        start,
        n_steps=steps,
        internal_batch_size=batch,
        return_convergence_delta=True,
    )
    details = {"convergence_delta": float(delta)}
    return _result(subject, values, over, "integrated-gradients", target.name, details)


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
        subject: pair, image, report.
        target: what is asked.
        over: pixels.
        samples: noisy copies.
        noise: standard deviation, grey levels run from 0 to 1.
        seed: of the noise.
        batch: copies at once.
        progress: called with (passes done, passes in all).
    """
    inputs, _, forward = _input(subject, target, over, "black")
    score = _Counted(subject, forward, samples, progress)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        gradients = NoiseTunnel(Saliency(score)).attribute(
            inputs.clone().requires_grad_(),
            nt_type="smoothgrad",
            nt_samples=samples,
            nt_samples_batch_size=min(batch, samples),
            stdevs=noise,
            abs=False,
        )
    return _result(subject, gradients.abs(), over, "smoothgrad", target.name, {}, signed=False)


def occlusion(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    windows: int = 14,
    baseline: Baseline = "mean",
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """How far the target falls when a window, or a token, is covered (Zeiler and Fergus 2014, arXiv:1311.2901).

    Args:
        subject: pair, image, report.
        target: what is asked.
        over: pixels or tokens.
        windows: across and down.
        baseline: what covers pixels.
        batch: covered copies at once.
        progress: called with (passes done, passes in all).
    """
    inputs, cover, forward = _input(subject, target, over, baseline)
    size = inputs.shape[-1]
    count = inputs.shape[1] if over == "tokens" else windows * windows
    score = _Counted(subject, forward, count + 1, progress)
    with torch.no_grad():
        if over == "tokens":
            each = torch.arange(count)[None, :, None].expand_as(inputs)
            values = FeatureAblation(score).attribute(inputs, cover, feature_mask=each, perturbations_per_eval=batch)
            values = values[..., :1]  # a token's channels all carry its value
        else:
            stride = size // windows
            window = size - stride * (windows - 1)  # at least the stride: no pixel is left out
            values = Occlusion(score).attribute(
                inputs,
                sliding_window_shapes=(1, window, window),
                strides=(1, stride, stride),
                baselines=cover,
                perturbations_per_eval=batch,
            )
    return _result(subject, values, over, "occlusion", target.name, {"score": score.first})


def random_masks(
    subject: Subject,
    target: Target,
    *,
    over: Over = "pixels",
    masks: int = 300,
    cells: int = 8,
    baseline: Baseline = "mean",
    seed: int = 0,
    batch: int = BATCH,
    progress: Progress | None = None,
) -> tuple[Attribution, ...]:
    """How the target moves with what a random mask leaves visible (after RISE: Petsiuk et al. 2018, arXiv:1806.07421).

    Half of a coarse grid is visible, smoothly and at a random shift; of tokens, half of them. RISE sums masks by their
    scores; here it is the regression of scores on masks, which does not depend on the score's zero. Values are changes
    of the score for a pixel or token that becomes visible.

    Args:
        subject: pair, image, report.
        target: what is asked.
        over: pixels or tokens.
        masks: how many.
        cells: of the coarse grid, across and down.
        baseline: what covers pixels.
        seed: of the masks.
        batch: masked copies at once.
        progress: called with (passes done, passes in all).
    """
    inputs, cover, forward = _input(subject, target, over, baseline)
    score = _Counted(subject, forward, masks, progress)
    generator = torch.Generator().manual_seed(seed)
    drawn, scores = [], []
    with torch.no_grad():
        for start in range(0, masks, batch):
            count = min(batch, masks - start)
            mask = _smooth_masks(count, cells, inputs.shape[-1], generator)
            if over == "tokens":
                mask = torch.bernoulli(torch.full((count, inputs.shape[1], 1), 0.5), generator=generator)
            drawn.append(mask)
            scores.append(score(cover + mask * (inputs - cover)))
    seen, moved = torch.cat(drawn), torch.cat(scores)
    seen = seen - seen.mean(0)
    covariance = (seen * (moved - moved.mean()).view(-1, *[1] * (seen.ndim - 1))).mean(0, keepdim=True)
    values = covariance / seen.square().mean(0, keepdim=True).clamp(min=1e-6)
    return _result(subject, values, over, "random-masks", target.name, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One row of the table of methods.

    Attributes:
        title: what a reader sees.
        summary: one sentence for a radiologist.
        over: what it can run over; the first where the encoder has image cells.
        run: the function.
    """

    title: str
    summary: str
    over: tuple[Over, ...]
    run: Callable[..., tuple[Attribution, ...]]


METHODS: Mapping[str, Method] = {
    "attention": Method(
        title="Word attention",
        summary="Where the decoder looked while it wrote the words. Looking is not yet using.",
        over=("tokens",),
        run=attention,
    ),
    "cls-attention": Method(
        title="CLS attention",
        summary="What the decoder's summary token gathered from the image, the same for every word.",
        over=("tokens",),
        run=cls_attention,
    ),
    "grad-cam": Method(
        title="Grad-CAM",
        summary="Which coarse cells carry features that make the words likelier.",
        over=("tokens",),
        run=grad_cam,
    ),
    "integrated-gradients": Method(
        title="Integrated gradients",
        summary="How much each pixel or filter adds on the way from an empty image to this one; adds up exactly.",
        over=("pixels", "tokens"),
        run=integrated_gradients,
    ),
    "smoothgrad": Method(
        title="SmoothGrad",
        summary="To which pixels the words are most sensitive, up or down.",
        over=("pixels",),
        run=smooth_grad,
    ),
    "occlusion": Method(
        title="Occlusion",
        summary="How much less likely the words become when a small window, or a filter, is covered.",
        over=("pixels", "tokens"),
        run=occlusion,
    ),
    "random-masks": Method(
        title="Random masks (RISE)",
        summary="How the words' likelihood moves when random parts of the image, or filters, are covered together.",
        over=("pixels", "tokens"),
        run=random_masks,
    ),
}


def explain(
    subject: Subject,
    target: Target,
    method: str,
    *,
    over: Over | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Attribution, ...]:
    """Run a method by its name.

    Args:
        subject: pair, image, report.
        target: what is asked.
        method: a key of ``METHODS``.
        over: pixels or tokens; the default is the first that ``possible`` names.
        progress: called with (done, total).
        options: of the method's function.

    Raises:
        CXRLensError: there is no such method, or it cannot serve this encoder or target; the message says what can.
    """
    row = METHODS.get(method)
    if row is None:
        raise CXRLensError(f"There is no method '{method}'. Known: {', '.join(METHODS)}.")
    if over is None:
        over = possible(subject, target).get(method, row.over)[0]
    if over not in row.over:
        raise CXRLensError(f"{row.title} runs over {' or '.join(row.over)}, not over {over}.")
    return row.run(subject, target, over=over, progress=progress, **options)


def possible(subject: Subject, target: Target) -> dict[str, tuple[Over, ...]]:
    """Which methods can explain a target of this pair, and over what; the default first.

    Only words are read from tokens. Where tokens are filters, words are asked by filter first, and Grad-CAM has no map.
    """
    words, cells = isinstance(target, WordTarget), bool(subject.visual.grids)
    found: dict[str, tuple[Over, ...]] = {}
    for name, row in METHODS.items():
        if name == "grad-cam":
            over = row.over if cells or not words else ()
        else:
            over = tuple(each for each in row.over if words or each == "pixels")
        if words and not cells:
            over = tuple(sorted(over, reverse=True))  # tokens before pixels
        if over:
            found[name] = over
    return found


# ------------------------------------------------------------------------------------------------------------ on images


def on_square(attributions: Sequence[Attribution], size: int) -> FloatImage:
    """Attributions over cells and pixels, joined on the model's square: (size, size), as densities.

    A density is a value times the number of cells of its grid, so that grids of any size are on one scale.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    total = torch.zeros(size, size)
    for density, _ in _densities(attributions):
        cells = torch.from_numpy(density)[None, None]
        total += functional.interpolate(cells, size=(size, size), mode="bilinear", antialias=True)[0, 0]
    return _numpy(total)


def on_image(attributions: Sequence[Attribution]) -> FloatImage:
    """Attributions over cells and pixels, joined on the original image (H, W), as densities; padding is cropped.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    total: FloatImage = np.sum([to_original(*each) for each in _densities(attributions)], axis=0)
    return total


def padding_share(attributions: Sequence[Attribution]) -> float:
    """Share of the absolute values that lie on padding: what an honest map of a wide or tall image must own up to.

    Raises:
        CXRLensError: they are of filters, which have no place in the image.
    """
    outside = total = 0.0
    for density, geometry in _densities(attributions):
        outside += float((np.abs(density) * (1 - content_share(geometry, density.shape))).mean())
        total += float(np.abs(density).mean())
    return outside / total if total else 0.0


def content_share(geometry: Geometry, grid: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """How much of each cell of a grid (h, w) over the square is image, not padding: (h, w) in [0, 1]."""
    top, left, height, width = geometry.content

    def covered(cells: int, start: float, length: float) -> npt.NDArray[np.float64]:
        edges = np.arange(cells + 1) / cells
        inside = np.clip(edges, start, start + length)
        return np.diff(inside) * cells

    return np.outer(covered(grid[0], top, height), covered(grid[1], left, width)).astype(np.float32)


def baseline_image(subject: Subject, kind: Baseline) -> Tensor:
    """An image (1, 1, size, size) with nothing to see; padding stays black."""
    size = subject.square.shape[-1]
    content = torch.from_numpy(content_share(subject.geometry, (size, size)))[None, None]
    if kind == "black":
        return torch.zeros_like(subject.square)
    if kind == "mean":
        return content * (subject.square * content).sum() / content.sum()
    if kind == "blur":
        return torch.from_numpy(gaussian_filter(subject.square.numpy(), (0, 0, BLUR * size, BLUR * size))) * content
    raise CXRLensError(f"A baseline is blur, mean or black, not '{kind}'.")


# --------------------------------------------------------------------------------------------------------------- parts


class _Counted:
    """A score that counts its passes, and refuses NaN."""

    def __init__(
        self,
        subject: Subject,
        forward: Callable[[Tensor], Tensor],
        total: int,
        progress: Progress | None,
        done: int = 0,
    ) -> None:
        self.subject, self.forward, self.total, self.progress, self.done = subject, forward, total, progress, done
        self.first = float("nan")

    def __call__(self, inputs: Tensor) -> Tensor:
        scores = self.forward(inputs)
        if not torch.isfinite(scores).all():
            raise CXRLensError(not_finite(self.subject.model, "model"))
        if self.first != self.first:
            self.first = float(scores.detach()[0])
        self.done = min(self.done + len(inputs), self.total)
        if self.progress:
            self.progress(self.done, self.total)
        return scores


def _input(
    subject: Subject, target: Target, over: Over, baseline: Baseline
) -> tuple[Tensor, Tensor, Callable[[Tensor], Tensor]]:
    """What is varied (1, ...), its baseline, and the score of it."""
    if over == "tokens":
        tokens = subject.visual.tokens
        return tokens, torch.zeros_like(tokens), lambda values: target.of_tokens(subject, values)
    return subject.square, baseline_image(subject, baseline), lambda values: target.of_images(subject, values)


def _result(
    subject: Subject,
    values: Tensor,
    over: Over,
    method: str,
    target: str,
    details: Mapping[str, float],
    *,
    signed: bool = True,
) -> tuple[Attribution, ...]:
    """Attributions of values (1, 1, H, H) over pixels, or (1, N, D) over tokens, whose channels are summed."""
    if over == "tokens":
        return _over_tokens(subject, values[0].sum(1), method, target, details, signed=signed)
    return (Attribution(_numpy(values[0, 0]), signed, method, target, subject.geometry, "", details),)


def _over_tokens(
    subject: Subject, values: Tensor, method: str, target: str, details: Mapping[str, float], *, signed: bool
) -> tuple[Attribution, ...]:
    """Attributions of values (N,): one for each grid, one for filters."""
    if not torch.isfinite(values).all():
        raise CXRLensError(not_finite(subject.model, "model"))
    results = []
    for run in token_runs(subject.visual):
        part = values[run.columns]
        part, geometry = (part.unflatten(0, run.grid), subject.geometry) if run.grid else (part, None)
        results.append(Attribution(_numpy(part), signed, method, target, geometry, run.source, details))
    return tuple(results)


def _smooth_masks(count: int, cells: int, size: int, generator: torch.Generator) -> Tensor:
    """Random masks (count, 1, size, size), values in [0, 1], mean 0.5."""
    side = -(-size // cells)
    coarse = torch.bernoulli(torch.full((count, 1, cells + 1, cells + 1), 0.5), generator=generator)
    fine = functional.interpolate(coarse, scale_factor=float(side), mode="bilinear")
    shifts = torch.randint(side, (count, 2), generator=generator).tolist()
    return torch.stack([mask[:, y : y + size, x : x + size] for mask, (y, x) in zip(fine, shifts, strict=True)])


def is_word(subject: Subject, index: int) -> bool:
    """Whether an id is neither special nor punctuation."""
    return any(character.isalnum() for word in subject.model.vocabulary.decode([index]) for character in word)


def _stages(trunk: nn.Module | None) -> dict[str, nn.Module]:
    """A CNN's stages by name; none of an encoder that names no CNN."""
    if trunk is None:
        return {}
    names = (
        ["layer1", "layer2", "layer3", "layer4"]
        if isinstance(trunk, ModifiedResNet)
        else [stage["module"] for stage in trunk.feature_info]  # type: ignore[union-attr]
    )
    return {name: trunk.get_submodule(name) for name in names}


def _layer(trunk: nn.Module | None, name: str) -> nn.Module:
    stages = _stages(trunk)
    if name not in stages:
        raise CXRLensError(f"There is no layer '{name}' in this CNN. Its layers: {', '.join(stages) or 'none'}.")
    return stages[name]


def _densities(attributions: Sequence[Attribution]) -> list[tuple[npt.NDArray[np.float32], Geometry]]:
    placed = [(each.values * each.values.size, each.geometry) for each in attributions if each.geometry is not None]
    if not placed:
        raise CXRLensError("Values of filters have no place in the image; show them as bars.")
    return placed


def _numpy(values: Tensor) -> npt.NDArray[np.float32]:
    array: npt.NDArray[np.float32] = values.detach().float().cpu().numpy()
    return array
