"""Stage: Table 3's model, which writes findings from a study's true fine labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from core.config import identity
from core.decoders import build_decoder, decoder_class
from core.decoders.search import GenerateConfig, generate
from core.encoders.label_text import LabelTextEncoder, label_text
from core.files import write_whole
from core.registry import DECODERS
from core.text import PAD, Vocabulary, to_text
from core.types import SPLITS, Split
from training.fit import fit
from training.loaders import pad
from training.modules.report import ReportModule
from training.run_folder import Done, run_stage, save_weights
from training.stages.clip import LEARNING
from training.stages.reports import finding_ids, report_loaders
from training.stages.run import Run

DECODER = "transformer"  # src: paper, section 4.3.3


def label_text_decoder(run: Run) -> Done:
    """Train Table 3's model, true fine labels as text to findings, and write its held-out reports."""
    config, settings = run.config, run.config.report
    architecture = decoder_class(DECODER).arguments(config)

    def work(folder: Path) -> None:
        studies = run.data.studies
        labels = {split: [study.fine_labels for study in studies[split]] for split in SPLITS}
        vocabulary = Vocabulary.build((label_text(each) for each in labels["train"]), 1)
        longest = max(len(vocabulary.encode(label_text(each), 512)) for each in labels["train"])
        torch.manual_seed(config.seed)
        width = int(DECODERS[DECODER].sizes[config.size]["width"])
        encoder = LabelTextEncoder(vocabulary, width, longest)
        words = len(run.data.vocabulary)
        decoder = build_decoder(DECODER, config.size, token_width=width, vocabulary_size=words, **architecture)
        module = ReportModule(encoder, (), decoder, run.data.vocabulary, settings)
        targets = {split: finding_ids(run, split, sentences=False, ordered=False) for split in LEARNING}
        read = {split: encoder.ids(labels[split]) for split in SPLITS}

        def worded(split: Split) -> Callable[[list[int]], dict[str, Tensor]]:
            return lambda rows: {"labels": read[split][rows], "ids": pad([targets[split][row] for row in rows], PAD)}

        fit(
            folder,
            module,
            report_loaders(run, (worded("train"), worded("validate")), targets["train"]),
            epochs=settings.epochs,
            monitor=f"val_{settings.monitor}",
            mode="max",
            patience=settings.patience,
            seed=config.seed,
            gradient_clip=settings.gradient_clip,
        )
        save_weights(folder, {"encoder": encoder, "decoder": decoder})
        write, device = GenerateConfig(**run.data.write_settings(config.write)), run.placement.device
        encoder.to(device)
        decoder.to(device)
        count = config.evaluate_studies or len(studies["test"])
        with torch.inference_mode():
            texts = [
                to_text(run.data.vocabulary.decode(hypothesis.ids))
                for ids in read["test"][:count].split(50)
                for hypothesis in generate(decoder, encoder(ids.to(device)), write, run.data.vocabulary)
            ]
        write_whole(folder / "reports.json", json.dumps(texts))

    unused = ("epochs_direct", "image_learning_rate", "augment", "abnormal_first", "drifting_norms")
    used = identity(settings, (*unused, "findings_first", "findings_penalty", "layers", "cls_token", "word_scale"))
    own = {"architecture": architecture} if architecture else {}
    made_of = run.identity("table_3", after={}, report=used, write=config.write, studies=config.evaluate_studies, **own)
    return run_stage(run.folder / "table3", made_of, work)
