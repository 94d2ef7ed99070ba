"""Measure speeds, as ratios against a baseline of the same run: ``make bench``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.bundle import BundleLibrary
from core.encoders.ccve import ClusterClipEncoder
from core.generation import GenerateConfig, generate
from core.inference import write_reports
from core.labels.rules import label_reports
from core.report_model import encode_images
from core.studies.phantom import PhantomSource
from core.types import VisualTokens
from training.cli import BUNDLES

WORDS = 60
STUDIES = 8


def fastest(work: Callable[[], object], repeats: int = 3) -> float:
    """Seconds of the fastest of some runs, after one that warms up."""
    work()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def generation(library: BundleLibrary) -> list[tuple[str, float, float]]:
    """Cached and batched beam search against one that reads every prefix anew, one study after another.

    Reports end where they end; to compare equal work, END is forbidden and every report has 60 words.
    """
    rows = []
    source = PhantomSource(200, 0)
    images = [source.image(study.study_id, 128) for study in source.studies("train")[:STUDIES]]
    config = GenerateConfig(beam_size=4, max_words=WORDS)
    for decoder in ("transformer", "m2", "cnn_rnn_rnn"):
        model = library.load(f"phantom-fve-{decoder}")
        visual = encode_images(model, images)
        never_ends = _never_ending(model.decoder)

        def one_by_one(visual: VisualTokens = visual, decoder: torch.nn.Module = never_ends) -> None:
            for row in visual.tokens.split(1):
                generate(decoder, VisualTokens(row, visual.grids, visual.sources), config, cached=False)  # type: ignore[arg-type]

        fast = fastest(lambda visual=visual, decoder=never_ends: generate(decoder, visual, config))  # type: ignore[misc]
        rows.append((f"beam 4, {WORDS} words, {STUDIES} studies, {decoder}", fastest(one_by_one, 1), fast))
    return rows


def _never_ending(decoder: torch.nn.Module) -> torch.nn.Module:
    import copy

    endless: Any = copy.deepcopy(decoder)
    with torch.no_grad():
        if hasattr(endless, "to_stop"):
            endless.to_stop.bias.fill_(-1e4)
            endless.max_sentences = 10_000
        else:
            # Every normed state has the same direction in common: its bias. Let END dislike it.
            endless.output.weight[3] = -20 * endless.layers[-1].feed_forward.norm.bias.sign()
    result: torch.nn.Module = endless
    return result


def ccve(library: BundleLibrary) -> tuple[str, float, float]:
    """Thirteen filtered images through CLIP, against thirteen single passes of one."""
    model = library.load("phantom-ccve-transformer")
    encoder = model.encoder
    assert isinstance(encoder, ClusterClipEncoder)
    images = torch.rand(4, 1, model.image_size, model.image_size)
    with torch.inference_mode():
        single = fastest(lambda: [encoder.clip.image(encoder.normalize(images)) for _ in range(13)])
        whole = fastest(lambda: encoder(images))
    return "CCVE, 4 images, against 13 CLIP passes", single, whole


def token_cache(library: BundleLibrary) -> tuple[str, float, float]:
    """Reading FVE's tokens of 24 studies from a cache, against encoding them."""
    import tempfile

    from core.token_cache import write_token_cache

    encoder = library.load("phantom-fve-transformer").encoder
    images = torch.rand(24, 1, 128, 128)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        cache = write_token_cache(Path(folder), "bench", encoder, iter([images]), 24)
        return (
            "tokens of 24 studies, cache",
            fastest(lambda: encoder(images)),
            fastest(lambda: cache.tokens(list(range(24)))),
        )


def labeler(reports: list[str]) -> tuple[str, float, float]:
    """Label reports in two processes, against one."""
    two = fastest(lambda: label_reports(reports, processes=2))
    return f"rule labeler, {len(reports)} reports, two processes", fastest(lambda: label_reports(reports)), two


def main() -> None:
    """Print one table; times are of this machine, ratios are what to compare."""
    library = BundleLibrary(BUNDLES)
    findings = [study.findings for study in PhantomSource(3000, 0).studies("train")]
    rows = [*generation(library), ccve(library), token_cache(library), labeler(findings)]
    out = sys.stdout.write
    out("| what | baseline, s | ours, s | times faster |\n|---|---:|---:|---:|\n")
    for name, baseline, ours in rows:
        out(f"| {name} | {baseline:.3f} | {ours:.3f} | {baseline / ours:.1f} |\n")

    source = PhantomSource(400, 0)
    ids = [study.study_id for study in source.studies("train")[:100]]
    began = time.process_time()
    for study_id in ids:
        source.image(study_id, 128)
    out(f"\nphantom: {len(ids) / (time.process_time() - began):.0f} studies a second and core at 128 px\n")

    began = time.process_time()
    label_reports(findings)
    rate = len(findings) / (time.process_time() - began)
    words = sum(len(text.split()) for text in findings) / len(findings)
    out(f"rule labeler: {rate:,.0f} reports of {words:.0f} words a second and core\n")

    models = [library.load(card.name) for card in library.cards()]
    image = source.image(ids[0], 512)
    seconds = fastest(lambda: list(write_reports(models, image)))
    out(f"dashboard: the reports of all {len(models)} pairs for one image in {seconds:.2f} s, beam 4\n")
    assert np.isfinite(seconds)


if __name__ == "__main__":
    main()
