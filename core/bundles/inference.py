"""From a radiograph to reports and embeddings, for the dashboard and the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn.utils.rnn import pad_sequence

from core.bundles.pair import ReportModel, encode_batch, encode_images, to_batch, write_from_tokens, write_together
from core.decoders.search import GenerateConfig
from core.studies.model_image import Pixels
from core.text import PAD, START
from core.types import CXRLensError, Fit, FloatImage, Report, VisualTokens

NOT_FINITE = (
    "The encoder gives NaN or infinity for this image, so nothing was written. If it does for others too, its weights "
    "are damaged: verify the bundle with 'cxr-lens bundles --verify'."
)
NOTHING_WRITTEN = "The model wrote nothing about this image."


def write_reports(
    models: Sequence[ReportModel], image: Pixels, *, beam_size: int | None = None
) -> Iterator[tuple[str, Report]]:
    """Write the report of one radiograph with each model, one after another, as every page and command does.

    Args:
        image: of a study or a file: `model_image.of_study`, `model_image.of_image`.
        beam_size: 1 is greedy; None, like all else of how it is written, is as in the model's card.

    Yields:
        The model's name and its report.
    """
    for name, reports in write_batch(
        models, lambda size, fit: to_batch([image(size, fit)], size, fit), beam_size=beam_size
    ):
        yield name, reports[0]


def write_batch(
    models: Sequence[ReportModel], images: Callable[[int, Fit], torch.Tensor], *, beam_size: int | None = None
) -> Iterator[tuple[str, list[Report]]]:
    """Write the reports of a batch with each model, one after another; an encoder that models share runs once.

    A report does not depend on its batch, but for the last digits of a library's sums, which may settle a tie. Nor
    does it depend on the other models: of one image, those that are alike write in one search, which is begun when
    the first of them is asked for.

    Args:
        images: of a side in pixels and a fit, (B, 1, side, side), as `model_image` makes them.
        beam_size: as of `write_reports`.

    Yields:
        The model's name and its B reports, each with the warnings that belong beside it; a report that could not be
        written for want of finite numbers is empty, and its warning says so.
    """
    seen: dict[tuple[int, Fit], tuple[VisualTokens, list[tuple[str, ...]]]] = {}

    def look(model: ReportModel) -> tuple[VisualTokens, list[tuple[str, ...]]]:
        key = id(model.encoder), model.fit
        if key not in seen:
            seen[key] = _look(model, images(model.image_size, model.fit))
        return seen[key]

    hows = [model.write if beam_size is None else replace(model.write, beam_size=beam_size) for model in models]
    alike = [(model.writes_with or index, how) for index, (model, how) in enumerate(zip(models, hows, strict=True))]
    written: dict[int, list[Report]] = {}
    for index, model in enumerate(models):
        visual, warnings = look(model)
        if index not in written:
            of_one = len(visual.tokens) == 1
            group = [place for place, each in enumerate(alike) if each == alike[index]] if of_one else [index]
            together = [models[place] for place in group]
            reports = _write(together, [look(each)[0] for each in together], hows[index])
            written.update(zip(group, reports, strict=True))
        yield model.card.name, [_with(*each) for each in zip(written.pop(index), warnings, strict=True)]


def _look(model: ReportModel, images: torch.Tensor) -> tuple[VisualTokens, list[tuple[str, ...]]]:
    """Tokens of images, finite, and what is to be said of each image before its report."""
    visual = encode_batch(model, images)
    finite = torch.isfinite(visual.tokens).flatten(1).all(1)
    usable = torch.where(finite[:, None, None], visual.tokens, torch.zeros_like(visual.tokens))
    checked = model.check.warnings(images, usable)
    warnings = [said if fine else (NOT_FINITE,) for said, fine in zip(checked, finite.tolist(), strict=True)]
    return replace(visual, tokens=usable), warnings


def _write(models: Sequence[ReportModel], visuals: Sequence[VisualTokens], how: GenerateConfig) -> list[list[Report]]:
    """Reports of tokens by each model; where a decoder gives no numbers, none, and the reason: others still write."""
    try:
        if len(models) > 1:
            return [[report] for report in write_together(models, visuals, how)]
        return [write_from_tokens(models[0], visuals[0], how)]
    except CXRLensError as error:
        if len(models) > 1:
            parts = zip(models, visuals, strict=True)
            return [reports for model, visual in parts for reports in _write([model], [visual], how)]
        return [[Report("", (), 0.0, finished=True, warnings=(str(error),))] * len(visuals[0].tokens)]


def _with(report: Report, warnings: tuple[str, ...]) -> Report:
    """A report with what is to be said beside it; of an image that gave no numbers nothing is told."""
    if NOT_FINITE in warnings:
        return Report("", (), 0.0, finished=True, warnings=warnings)
    nothing = () if report.text or report.warnings else (NOTHING_WRITTEN,)
    return replace(report, warnings=(*warnings, *report.warnings, *nothing))


def pooled_embeddings(model: ReportModel, images: torch.Tensor) -> npt.NDArray[np.float32]:
    """Means of the encoder's tokens of images (B, 1, side, side), (B, D)."""
    pooled: npt.NDArray[np.float32] = encode_batch(model, images).tokens.mean(1).float().cpu().numpy()
    return pooled


def pooled_embedding(model: ReportModel, image: FloatImage) -> npt.NDArray[np.float32]:
    """Mean of the encoder's tokens of an image (H, W), (D,)."""
    pooled: npt.NDArray[np.float32] = encode_images(model, [image]).tokens[0].mean(0).float().cpu().numpy()
    return pooled


@torch.inference_mode()
def decoder_states(model: ReportModel, visual: VisualTokens, config: GenerateConfig) -> torch.Tensor:
    """What the decoder's last layer holds while it writes: the mean over the words of its own report.

    Args:
        visual: tokens (B, N, D) that its encoder made.

    Returns:
        (B, width); 0 for a study of which it writes nothing.
    """
    device = visual.tokens.device
    written = [torch.tensor([START, *report.ids], device=device) for report in write_from_tokens(model, visual, config)]
    ids = pad_sequence(written, batch_first=True, padding_value=PAD)[:, :-1]
    held: list[torch.Tensor] = []
    output = model.decoder.get_submodule("output")  # every decoder's states to its logits
    hook = output.register_forward_pre_hook(lambda _, inputs: held.append(inputs[0]))
    try:
        with model.computing():
            model.decoder.decode(model.decoder.encode(visual), ids)
    finally:
        hook.remove()
    lengths = torch.tensor([len(each) - 1 for each in written], device=device)
    counted = (torch.arange(ids.shape[1], device=device) < lengths[:, None])[..., None]
    return (held[0] * counted).sum(1) / lengths.clamp(min=1)[:, None]
