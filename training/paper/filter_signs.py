"""What a pair shows of CCVE's filters, and whether it tells that a filter's observation is there.

Signs are what the pages show beside a filter: the decoder's attention, and what switching the filter off costs. A
ranking that is the same for every study tells nothing here: each filter is judged over studies, not beside others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from core.bundles.pair import ReportModel, write_from_tokens
from core.decoders.attention_shares import word_mass
from core.evaluation.auc import resample_weights, weighted_aucs
from core.explain.attention import is_word
from core.explain.methods import explain
from core.explain.subject import Subject
from core.explain.targets import whole_report
from core.paper.tables import Row
from core.registry import DECODERS
from core.studies.model_image import model_image
from core.text import START
from training.data import StudyData, to_images
from training.paper.filter_measures import RESAMPLES, Floats, Truth, interval

SIGNS: Mapping[str, str] = {
    "cls-attention": "attention before the first word",
    "attention": "attention of the words",
    "occlusion": "how much less likely the report is without the filter",
}
"""Key of ``core.explain.methods.METHODS`` -> what it is, for a reader."""
BATCH = 32


def sign_rows(data: StudyData, model: ReportModel, truth: Truth) -> list[Row]:
    """AUC of each sign of a pair for the presence of the filter's observation, mean over filters; one row a sign.

    Reports are written word by word without a beam, for speed.
    """
    signs, mass = signs_of(data, model, len(truth.subjects))
    weights = resample_weights(truth.subjects, RESAMPLES)
    title = DECODERS[model.card.decoder].title
    rows = []
    for sign, values in signs.items():
        aucs = np.where(truth.usable, weighted_aucs(truth.targets["test"], values, weights), np.nan)
        top = np.bincount(values.argmax(1), minlength=values.shape[1]).max() / len(values)
        note = f"The same filter is first in {top:.0%} of the studies."
        if "attention" in sign:
            note += f" {mass:.0%} of the words' attention goes to the image at all."
        rows.append(
            Row(
                name=f"CCVE + {title}: {SIGNS[sign]}",
                keys={"design": "bundles", "decoder": model.card.decoder, "sign": sign},
                metrics={"presence": interval(np.nanmean(aucs, axis=1))},
                note=note,
            )
        )
    return rows


@torch.inference_mode()
def signs_of(data: StudyData, model: ReportModel, studies: int) -> tuple[dict[str, Floats], float]:
    """Each sign of the first held-out studies (n, 13), and the mean share of the words' attention for the image."""
    greedy = replace(model.write, beam_size=1)
    images = data.images("test", model.image_size)[:studies]
    found: dict[str, list[Floats]] = {}
    masses = []
    for at in range(0, len(images), BATCH):
        batch = to_images(images[at : at + BATCH])
        visual = model.encoder(batch)
        reports = write_from_tokens(model, visual, greedy)
        for row, report in enumerate(reports):
            square, geometry = model_image(batch[row, 0].numpy(), model.image_size)
            one = replace(visual, tokens=visual.tokens[row : row + 1].clone())
            subject = Subject(model, square, batch[row : row + 1], geometry, one, report, greedy)
            for sign, values in _signs(subject).items():
                found.setdefault(sign, []).append(values)
            masses.append(_mass(subject))
    return {sign: np.stack(values) for sign, values in found.items()}, float(np.mean(masses))


def _signs(subject: Subject) -> dict[str, Floats]:
    """Of one study, (13,) each. A decoder without a CLS token has no attention before the first word."""
    target = whole_report(subject)
    found: dict[str, Floats] = {}
    for sign in SIGNS:
        if sign == "cls-attention" and subject.report.cls_attention is None:
            continue
        found[sign] = next(each.values for each in explain(subject, target, sign, over="tokens") if not each.geometry)
    return found


def _mass(subject: Subject) -> float:
    """Share of the words' attention that goes to the image."""
    ids = list(subject.report.ids)
    decoder = subject.model.decoder
    memory = decoder.encode(subject.visual)
    output = decoder.decode(memory, torch.tensor([[START, *ids[:-1]]]), return_attention=True)
    assert output.attention is not None
    rows = output.attention[0].permute(2, 0, 1, 3)
    counts = torch.tensor([is_word(subject, each) for each in ids])
    return float(word_mass(rows, memory.visual)[counts].mean()) if bool(counts.any()) else 0.0
