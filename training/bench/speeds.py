"""Measure speeds, as ratios against a baseline of the same run: ``make bench``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_images
from core.decoders.search import GenerateConfig, generate
from core.encoders.ccve import ClusterClipEncoder
from core.labels.rules import label_reports
from core.paths import BUNDLES
from core.studies.model_image import of_image
from core.studies.phantom import PhantomSource
from core.types import VisualTokens
from training.bench import hugging_face as bench_hugging_face
from training.bench import maps as bench_maps
from training.bench import scale as bench_scale
from training.bench import shortcuts as bench_shortcuts
from training.bench.scale import fastest
from training.threads import use_threads_for

WORDS = 60
STUDIES = 8


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
            endless.max_sentences = (
                WORDS // 3
            )  # more than 60 words have; teacher forcing plans them all, so not too many
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
    from core.encoders.token_cache import TokenCache, write_token_cache

    encoder = library.load("phantom-fve-transformer").encoder
    images = torch.rand(24, 1, 128, 128)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        write_token_cache(Path(folder), "bench", encoder, lambda start, end: images[start:end], 24)
        cache = TokenCache.open(Path(folder), "bench")
        return (
            "tokens of 24 studies, cache",
            fastest(lambda: encoder(images)),
            fastest(lambda: cache.tokens(list(range(24)))),
        )


def labeler(reports: list[str]) -> tuple[str, float, float]:
    """Label reports in two processes, against one."""
    two = fastest(lambda: label_reports(reports, processes=2))
    return f"rule labeler, {len(reports)} reports, two processes", fastest(lambda: label_reports(reports)), two


def metrics(findings: list[str]) -> list[tuple[str, float, float]]:
    """Language scores against pycocoevalcap's, intervals and tests of all pairs' BLEU against sacrebleu's bootstrap."""
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from sacrebleu.metrics import BLEU
    from sacrebleu.significance import PairedTest

    from core.evaluation.language import bleu_statistics, language_statistics
    from core.evaluation.resampling import compare, intervals
    from core.text import tokenize

    texts = (findings * 2)[:3800]
    references = [tokenize(text) for text in texts]
    pairs = [references[index:] + references[:index] for index in range(1, 13)]  # a dozen systems that do not know
    lines = [[" ".join(tokens) for tokens in reports] for reports in (references, *pairs)]
    theirs, guess = ({index: [line] for index, line in enumerate(side)} for side in lines[:2])

    def reference_scores() -> None:
        Bleu(4).compute_score(theirs, guess, verbose=0)
        Rouge().compute_score(theirs, guess)
        Cider().compute_score(theirs, guess)

    ours = fastest(lambda: language_statistics(texts, texts[1:] + texts[:1]).scores())
    systems = [bleu_statistics(references, reports) for reports in pairs]

    def paired_bootstrap() -> None:
        named = [(str(index), reports) for index, reports in enumerate(lines[1:])]
        scorer = {"BLEU": BLEU(tokenize="none", smooth_method="none", force=True, references=[lines[0]])}
        PairedTest(named, scorer, None, test_type="bs", n_samples=1000)()

    def all_intervals() -> None:
        for system in systems:
            intervals(system)
        for system in systems[1:]:
            compare(system, systems[0])

    return [
        (f"BLEU, ROUGE-L and CIDEr of {len(texts)} reports, pycocoevalcap", fastest(reference_scores, 1), ours),
        (
            "1,000 resamples of 12 pairs' BLEU, sacrebleu (ours permutes too)",
            fastest(paired_bootstrap, 1),
            fastest(all_intervals, 1),
        ),
    ]


def explanations(library: BundleLibrary) -> list[tuple[str, float, float]]:
    """Explanations of one word of FVE and M2, against one pass at a time, and Grad-CAM through the whole encoder."""
    from captum.attr import LayerGradCam

    from core.explain import targets
    from core.explain.attention import attention
    from core.explain.gradients import grad_cam, integrated_gradients
    from core.explain.perturbations import occlusion
    from core.explain.subject import open_subject
    from core.text import START

    source = PhantomSource(200, 0)
    subject = open_subject(library.load("phantom-fve-m2"), source.image(source.study_ids[0], 128))
    target = targets.word(subject, len(subject.report.words) // 2)
    whole, encoder, decoder = targets.whole_report(subject), subject.model.encoder, subject.model.decoder

    def word_by_word() -> None:
        with torch.no_grad():
            memory = decoder.encode(subject.visual)
            for length in range(1, len(whole.ids) + 1):
                decoder.decode(memory, torch.tensor([[START, *whole.ids[: length - 1]]]), return_attention=True)

    def through_the_encoder() -> None:
        for tower in (encoder.cdc, encoder.fgc):
            score: Callable[[Any], Any] = lambda images: target.of_images(subject, images)  # noqa: E731
            LayerGradCam(score, tower.model.layer4).attribute(subject.square.clone().requires_grad_())  # type: ignore[union-attr]

    pairs: list[tuple[str, Callable[[], object], Callable[[], object]]] = [
        ("attention of every word, word by word", word_by_word, lambda: attention(subject, whole)),
        ("Grad-CAM of a word, through the encoder", through_the_encoder, lambda: grad_cam(subject, target)),
        (
            "integrated gradients, 32 steps, step by step",
            lambda: integrated_gradients(subject, target, batch=1),
            lambda: integrated_gradients(subject, target),
        ),
        (
            "occlusion 14 x 14, one by one",
            lambda: occlusion(subject, target, batch=1),
            lambda: occlusion(subject, target),
        ),
    ]
    return [(name, fastest(naive, 1), fastest(ours)) for name, naive, ours in pairs]


def one_image() -> Iterator[str]:
    """A line for each family of bundles: the reports of one image by all its pairs, as an upload waits for them.

    Written as the cards say; the first time bundles are read from disk, the second time they are in memory.
    """
    source = PhantomSource(400, 0)
    image = source.image(source.study_ids[0], 512)
    cards = BundleLibrary(BUNDLES).cards()
    for family in dict.fromkeys(card.family for card in cards):
        names = [card.name for card in cards if card.family == family]
        use_threads_for(next(card.size for card in cards if card.family == family))
        library = BundleLibrary(BUNDLES)

        def read(names: list[str] = names, library: BundleLibrary = library) -> None:
            list(write_reports([library.load(name) for name in names], of_image(image)))

        began = time.perf_counter()
        read()
        first, again = time.perf_counter() - began, fastest(read)
        yield f"one image, {len(names)} pairs of {family}: {first:.1f} s the first time, then {again:.2f} s"
    use_threads_for("tiny")


def ratios() -> Iterator[str]:
    """One table: a baseline's seconds, ours, and how many times faster."""
    library = BundleLibrary(BUNDLES)
    findings = _findings()
    yield "| what | baseline, s | ours, s | times faster |\n|---|---:|---:|---:|"
    for rows in (
        generation(library),
        [ccve(library), token_cache(library), labeler(findings)],
        metrics(findings),
        explanations(library),
    ):
        for name, baseline, ours in rows:
            yield f"| {name} | {baseline:.3f} | {ours:.3f} | {baseline / ours:.1f} |"


def rates() -> Iterator[str]:
    """What one core renders and labels in a second."""
    source = PhantomSource(400, 0)
    ids = [study.study_id for study in source.studies("train")[:100]]
    began = time.process_time()
    for study_id in ids:
        source.image(study_id, 128)
    yield f"phantom: {len(ids) / (time.process_time() - began):.0f} studies a second and core at 128 px"
    findings = _findings()
    began = time.process_time()
    label_reports(findings)
    rate = len(findings) / (time.process_time() - began)
    words = sum(len(text.split()) for text in findings) / len(findings)
    yield f"rule labeler: {rate:,.0f} reports of {words:.0f} words a second and core"


def _findings() -> list[str]:
    return [study.findings for study in PhantomSource(3000, 0).studies("train")]


PARTS: Mapping[str, Callable[[], Iterator[str]]] = {
    "ratios": ratios,
    "rates": rates,
    "one_image": one_image,
    "maps": bench_maps.rows,
    "scale": bench_scale.report,
    "hugging_face": bench_hugging_face.report,
    "shortcuts": bench_shortcuts.report,
}
"""What can be measured alone -> its lines, each as soon as it is measured."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the parts that are named, or all; times are of this machine, ratios are what to compare."""
    parser = argparse.ArgumentParser(prog="python -m training.bench.speeds", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    chosen = parser.parse_args(arguments).parts
    if unknown := [part for part in chosen if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    use_threads_for("tiny")
    for part in chosen or PARTS:
        for line in PARTS[part]():
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
        sys.stdout.write("\n")


if __name__ == "__main__":
    main()
