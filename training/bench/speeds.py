"""Measure speeds, as ratios against a baseline of the same run: ``make bench``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_images
from core.decoders.search import GenerateConfig, generate
from core.encoders.ccve import ClusterClipEncoder
from core.files import write_whole
from core.labels.rules import label_reports
from core.paths import BUNDLES
from core.studies.model_image import grey_levels, of_image
from core.studies.phantom import PhantomSource
from core.types import VisualTokens
from training.bench import ceilings, engines, hugging_face, maps, scale, shortcuts
from training.bench.record import Line, Part, changes, load, page, save, table
from training.bench.turns import Row, in_turns
from training.threads import use_threads_for

ROOT = Path(__file__).resolve().parents[2]
WORDS = 60
STUDIES = 8


def generation(library: BundleLibrary) -> Iterator[Row]:
    """Cached and batched beam search against one that reads every prefix anew, one study after another.

    Reports end where they end; to compare equal work, END is forbidden and every report has 60 words.
    """
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

        yield in_turns(
            f"beam 4, {WORDS} words, {STUDIES} studies, {decoder}",
            "every prefix read anew, study by study",
            one_by_one,
            lambda visual=visual, decoder=never_ends: generate(decoder, visual, config),  # type: ignore[misc]
            None,
            plain_turns=1,
        )


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


def ccve(library: BundleLibrary) -> Row:
    """Thirteen filtered images through CLIP, against thirteen single passes of one."""
    model = library.load("phantom-ccve-transformer")
    encoder = model.encoder
    assert isinstance(encoder, ClusterClipEncoder)
    images = torch.rand(4, 1, model.image_size, model.image_size)
    with torch.inference_mode():
        return in_turns(
            "CCVE, 4 images",
            "13 CLIP passes",
            lambda: [encoder.clip.image(encoder.normalize(images)) for _ in range(13)],
            lambda: encoder(images),
            None,
        )


def token_cache(library: BundleLibrary) -> Row:
    """Reading FVE's tokens of 24 studies from a cache, against encoding them."""
    from core.encoders.token_cache import TokenCache, write_token_cache

    encoder = library.load("phantom-fve-transformer").encoder
    images = torch.rand(24, 1, 128, 128)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        write_token_cache(Path(folder), "bench", encoder, lambda start, end: images[start:end], 24)
        cache, rows = TokenCache.open(Path(folder), "bench"), list(range(24))
        return in_turns(
            "tokens of 24 studies, cache", "encoding", lambda: encoder(images), lambda: cache.tokens(rows), None
        )


def labeler(reports: list[str]) -> Row:
    """Label reports in two processes, against one."""
    return in_turns(
        f"rule labeler, {len(reports)} reports, two processes",
        "one process",
        lambda: label_reports(reports),
        lambda: label_reports(reports, processes=2),
        clock=True,
        turns=3,
    )


def metrics(findings: list[str]) -> Iterator[Row]:
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

    yield in_turns(
        f"BLEU, ROUGE-L and CIDEr of {len(texts)} reports",
        "pycocoevalcap",
        reference_scores,
        lambda: language_statistics(texts, texts[1:] + texts[:1]).scores(),
        None,
        turns=3,
        plain_turns=1,
    )
    yield in_turns(
        "1,000 resamples of 12 pairs' BLEU (ours permutes too)",
        "sacrebleu",
        paired_bootstrap,
        all_intervals,
        None,
        clock=True,
        turns=1,
        plain_turns=1,
    )


def explanations(library: BundleLibrary) -> Iterator[Row]:
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

    pairs: list[tuple[str, str, Callable[[], object], Callable[[], object]]] = [
        ("attention of every word", "word by word", word_by_word, lambda: attention(subject, whole)),
        ("Grad-CAM of a word", "through the encoder", through_the_encoder, lambda: grad_cam(subject, target)),
        (
            "integrated gradients, 32 steps",
            "step by step",
            lambda: integrated_gradients(subject, target, batch=1),
            lambda: integrated_gradients(subject, target),
        ),
        (
            "occlusion 14 x 14",
            "cell by cell",
            lambda: occlusion(subject, target, batch=1),
            lambda: occlusion(subject, target),
        ),
    ]
    for name, way, naive, ours in pairs:
        yield in_turns(name, way, naive, ours, None, turns=3)


def one_image() -> Iterator[Line]:
    """The reports of one image by all pairs of each family, as an upload waits for them; written as the cards say."""
    source = PhantomSource(400, 0)
    image = source.image(source.study_ids[0], 512)
    cards = BundleLibrary(BUNDLES).cards()
    for family in dict.fromkeys(card.family for card in cards):
        names = [card.name for card in cards if card.family == family]
        use_threads_for(next(card.size for card in cards if card.family == family))
        library = BundleLibrary(BUNDLES)

        def texts(parts: Sequence[Sequence[str]], library: BundleLibrary = library) -> dict[str, str]:
            seen = of_image(image)  # what is encoded is kept with it, for these pairs
            return {
                name: report.text
                for part in parts
                for name, report in write_reports([library.load(each) for each in part], seen)
            }

        began = time.perf_counter()
        texts([names])
        yield f"One image, {len(names)} pairs of {family}, the first time: {time.perf_counter() - began:.1f} s."
        yield in_turns(
            f"one image, {len(names)} pairs of {family}, in memory",
            "one pair after another",
            lambda texts=texts, names=names: texts([[name] for name in names]),  # type: ignore[misc]
            lambda texts=texts, names=names: texts([names]),  # type: ignore[misc]
        )
    use_threads_for("tiny")


def cold() -> Iterator[Row]:
    """The report of one image by one pair, in a process of its own; nothing can be faster than the import of torch."""
    source = PhantomSource(40, 0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.png"
        Image.fromarray(grey_levels(source.image(source.study_ids[0], 512))).save(path)
        report = ["-m", "training.cli", "report", str(path), "--bundle", "phantom-fve-m2"]
        ways = [partial(_processor_time_of, words) for words in (["-c", "import torch"], report)]
        times = [[way() for way in ways] for _ in range(4)][1:]  # the first reads files from the disk
    theirs, ours = zip(*times, strict=True)
    yield Row("cxr-lens report IMAGE, one pair, a new process", "import torch alone", theirs, ours, "s of CPU")


def _processor_time_of(words: Sequence[str]) -> float:
    before = os.times()
    subprocess.run([sys.executable, *words], check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def beside() -> Iterator[Row]:
    """Films written by two processes at once, each with a thread a core, which spins while it waits or does not."""
    with tempfile.TemporaryDirectory() as folder:

        def both(policy: str, place: Path = Path(folder)) -> None:
            places = [tempfile.mkdtemp(dir=place) for _ in range(2)]
            of_two = [word for name in ("phantom-fve-m2", "openi-cve-m2") for word in ("--bundle", name)]
            asked = ["--finding", "cardiomegaly", "--extent", "0:1:3", "-n", "4", *of_two]
            environment = {**os.environ, "OMP_WAIT_POLICY": policy}
            running = [
                subprocess.Popen(
                    [sys.executable, "-m", "training.cli", "detect", *asked, "--out", out],
                    env=environment,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
                for out in places
            ]
            ends = [process.wait() for process in running]
            if any(ends):
                raise RuntimeError("A process that writes reports failed.")

        yield in_turns(
            "two processes that write reports at once",
            "OpenMP's own way to wait",
            partial(both, ""),
            partial(both, os.environ["OMP_WAIT_POLICY"]),
            None,
            clock=True,
            turns=3,
        )


def ratios() -> Iterator[Row]:
    """What was made fast once, against plain ways and peers."""
    library = BundleLibrary(BUNDLES)
    findings = _findings()
    yield from generation(library)
    yield ccve(library)
    yield token_cache(library)
    yield labeler(findings)
    yield from metrics(findings)
    yield from explanations(library)


def rates() -> Iterator[str]:
    """What one core renders and labels in a second."""
    source = PhantomSource(400, 0)
    ids = [study.study_id for study in source.studies("train")[:100]]
    began = time.process_time()
    for study_id in ids:
        source.image(study_id, 128)
    yield f"- Phantoms: {len(ids) / (time.process_time() - began):.0f} studies a second and core at 128 px."
    findings = _findings()
    began = time.process_time()
    label_reports(findings)
    rate = len(findings) / (time.process_time() - began)
    words = sum(len(text.split()) for text in findings) / len(findings)
    yield f"- Rule labeler: {rate:,.0f} reports of {words:.0f} words a second and core."


def _findings() -> list[str]:
    return [study.findings for study in PhantomSource(3000, 0).studies("train")]


PARTS: Mapping[str, tuple[str, Callable[[], Iterator[Line]]]] = {
    "ceilings": ("What this machine can do", ceilings.report),
    "one_image": ("Reports of one image", one_image),
    "cold": ("From a cold start", cold),
    "beside": ("Beside other work", beside),
    "engines": ("Other precisions and engines", engines.report),
    "hugging_face": ("Beside transformers", hugging_face.report),
    "shortcuts": ("What is done once", shortcuts.report),
    "ratios": ("Against plain ways and peers", ratios),
    "rates": ("Rates of one core", rates),
    "scale": ("At the paper's size", scale.report),
    "maps": ("Maps of embeddings", maps.rows),
}
"""What can be measured alone -> its title, and its lines, each as soon as it is measured."""
KEPT = ROOT / "docs" / "speeds"
"""Of the page that ships, and of its numbers: without ending."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the parts that are named, or all; print them, and compare their ratios with those that were kept."""
    parser = argparse.ArgumentParser(prog="python -m training.bench.speeds", description=main.__doc__)
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--keep", action="store_true", help="renew docs/speeds.md and docs/speeds.json in these parts")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench", help="folder of what is not kept")
    asked = parser.parse_args(arguments)
    if unknown := [part for part in asked.parts if part not in PARTS]:
        parser.error(f"no such part: {', '.join(unknown)}; choose from {', '.join(PARTS)}.")
    kept, measured = load(KEPT.with_suffix(".json")), dict[str, Part]()
    place = KEPT if asked.keep else asked.out / "speeds"
    use_threads_for("tiny")
    for name in asked.parts or PARTS:
        title, part = PARTS[name]
        lines: list[Line] = []

        def told(part: Callable[[], Iterator[Line]] = part, lines: list[Line] = lines) -> Iterator[Line]:
            for line in part():
                lines.append(line)
                yield line

        _say(f"## {title}\n")
        for line in table(told()):
            _say(line)
        _say("")
        measured[name] = Part.of_now(lines)
        shown = {**kept, **measured} if asked.keep else measured  # after each part: an interruption keeps those before
        save(place.with_suffix(".json"), shown)
        write_whole(place.with_suffix(".md"), page(shown, {name: title for name, (title, _) in PARTS.items()}))
    found = list(changes(kept, measured))
    _say("\n".join(found) if found else "Nothing changed by more than the spread, where there was something before.")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
