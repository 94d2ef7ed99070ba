"""The stages of a run, in their order: classifiers, CLIP, cluster CLIP, token caches, decoders, bundles."""

from __future__ import annotations

import datetime
import json
import logging
import multiprocessing
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from core import ranks
from core.bundles import library as bundle
from core.bundles.inference import decoder_states
from core.config import ClassifierConfig, ClipConfig, ExperimentConfig, identity, to_dict
from core.decoders import Decoder, build_decoder
from core.decoders.search import GenerateConfig, generate
from core.encoders import Encoder, build_encoder
from core.encoders.base import Normalize
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.classifier import ImageClassifier
from core.encoders.cve import ClipEncoder
from core.encoders.fve import FineGrainedEncoder
from core.encoders.joint import JointProjection
from core.encoders.label_text import LabelTextEncoder, label_text
from core.encoders.pretrained import start_from
from core.encoders.random_filters import with_random_filters
from core.encoders.token_cache import TokenCache, write_token_cache
from core.labels.order import abnormal_first
from core.observations import OBSERVATIONS
from core.registry import DECODERS, ENCODERS, encoder_parts, image_size, token_width
from core.studies.model_image import grey_levels
from core.studies.phantom import PhantomSource
from core.text import PAD, Vocabulary, to_text
from core.types import SPLITS, Split, VisualTokens
from training.backbones import build_classifier, settings_of
from training.data import StudyData, to_images
from training.launch import ONE, Placement
from training.modules.classifier import ClassifierModule
from training.modules.clip import ClipModule
from training.modules.report import ReportModule
from training.runs import (
    QUIET,
    Collate,
    StageError,
    content_hash,
    file_hash,
    fit,
    is_quiet,
    keep_memory,
    load_weights,
    loaders,
    pad,
    part_of,
    run_stage,
    save_weights,
)

EMBEDDING_STUDIES = 400
"""Held-out studies whose embeddings the demo shows."""
TOKEN_STUDIES = 200
"""The first of them, whose single tokens it shows."""


DESCRIPTIONS = {
    "phantom": "Computed phantom radiographs, no patients. Do not expect sense on a real X-ray.",
    "openi": "Open-i (Indiana University), R2Gen's training split, frontal views. Few studies, "
    "mostly normal: rare findings are missed, and a fluent report may be wrong.",
    "mimic_cxr": "MIMIC-CXR, its own training split.",
}
"""Of a bundle's training data, for its readers."""
LICENCES = {
    "phantom": "Apache-2.0",
    "openi": "CC BY-NC 4.0: learned from Open-i, whose records say CC BY-NC-ND 4.0",
    "mimic_cxr": "not to be shared: learned under the PhysioNet Credentialed Health Data License",
}
"""Of a bundle's weights; the code's is Apache-2.0."""


@dataclass(frozen=True)
class Run:
    """One run of a preset; each method is a stage, and asks for the stages it needs."""

    config: ExperimentConfig
    folder: Path
    placement: Placement = ONE
    shared: Path | None = None
    """Folder of the images, where several runs have the same; else the run's own."""

    @cached_property
    def data(self) -> StudyData:
        """Studies and images."""
        return StudyData(self.config.data, (self.shared or self.folder) / "images")

    @cached_property
    def backbone_data(self) -> StudyData:
        """What the backbone learns from: the run's own data, or phantoms of which none is in them."""
        settings = self.config.backbone
        if settings.source == "train":
            return self.data
        chosen = replace(self.config.data, source="phantom", count=settings.count, seed=settings.seed)
        return StudyData(chosen, (self.shared or self.folder) / "backbone_images")

    def backbone(self) -> str:
        """Train what all encoders start from: a classifier of coarse and fine labels together."""
        settings = self.config.backbone

        def work(folder: Path) -> None:
            data = self.backbone_data
            targets = {
                split: torch.cat([data.coarse_targets(split), data.fine_targets(split)], dim=1)
                for split in ("train", "validate")
            }
            torch.manual_seed(self.config.seed)
            shape = ENCODERS["fve"].sizes[self.config.size]
            normalize = Normalize(shape.image_size, **ENCODERS["fve"].normalization)
            classes = targets["train"].shape[1]
            # A classifier hands on no tokens.
            tower = {key: value for key, value in shape.arch.items() if key != "pool"}
            network = ImageClassifier(num_classes=classes, fetch=self.config.pretrained, **tower)
            network = network.to(memory_format=torch.channels_last)
            training = ClassifierConfig(
                epochs=settings.epochs,
                batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                warmup_epochs=settings.epochs,
                margin=1.0,
                patience=settings.epochs,
                augment=True,
            )
            self._fit_classifier(folder, ClassifierModule(normalize, network, _rate(targets), training), targets, data)
            save_weights(folder, {"backbone": network.model})

        inputs = {
            "size": self.config.size,
            "seed": self.config.seed,
            "pretrained": self.config.pretrained,
            "data": self.backbone_data.fingerprint(),
            **to_dict(settings),
        }
        return run_stage(self.folder / "backbone", inputs, work)

    def classifier(self, kind: str) -> str:
        """Train CDC (``kind="cdc"``, 14 observations) or FGC (``"fgc"``, fine labels)."""

        def work(folder: Path) -> None:
            encoder = self.encoder("fve")
            assert isinstance(encoder, FineGrainedEncoder)
            targets = {split: self._targets(kind, split) for split in ("train", "validate")}
            tower = encoder.cdc if kind == "cdc" else encoder.fgc
            module = ClassifierModule(encoder.normalize, tower, _rate(targets), self.config.classifier)
            self._fit_classifier(folder, module, targets, self.data)
            save_weights(folder, {kind: tower})

        return run_stage(self.folder / kind, self._inputs(classifier=self.config.classifier, kind=kind), work)

    def clip(self, name: str) -> str:
        """Train CVE (``name="cve"``) or CCVE (``"ccve"``)."""
        settings = self._clip_config(name)

        def work(folder: Path) -> None:
            encoder = self.encoder(name)
            assert isinstance(encoder, ClipEncoder | ClusterClipEncoder)
            pairs = {
                split: self.data.cluster_pairs(split) if name == "ccve" else self.data.pairs(split)
                for split in ("train", "validate")
            }
            size = encoder.normalize.image_size  # type: ignore[union-attr]
            fit(
                folder,
                ClipModule(encoder, settings),
                loaders(
                    (len(pairs["train"]), len(pairs["validate"])),
                    (
                        self._paired("train", size, pairs["train"], encoder),
                        self._paired("validate", size, pairs["validate"], encoder),
                    ),
                    settings.batch_size,
                    self.config.seed,
                ),
                epochs=settings.epochs,
                monitor="val_loss",
                mode="min",
                patience=settings.patience,
                seed=self.config.seed,
                placement=self.placement,
            )
            census = {
                "pairs": {split: len(each) for split, each in pairs.items()},
                "truncated": encoder.clip.text.truncated,
            }
            if ranks.is_first():
                (folder / "census.json").write_text(json.dumps(census, indent=2), encoding="utf-8")
            save_weights(folder, {"encoder": encoder})

        return run_stage(self.folder / f"clip_{name}", self._inputs(clip=settings, encoder=name), work)

    def tokens(self, name: str) -> str:
        """Run a frozen encoder once over all studies."""
        before = self._encoder_stages(name)

        def work(folder: Path) -> None:
            device = self.placement.device
            encoder = self.trained_encoder(name).to(device)
            for split in SPLITS:
                values = self.data.images(split, encoder.normalize.image_size)
                with tqdm(desc=f"  {name} tokens, {split}", unit="study", disable=is_quiet()) as bar:

                    def show(done: int, total: int, bar: Any = bar) -> None:
                        bar.total = total
                        bar.update(done - bar.n)

                    write_token_cache(
                        folder / split,
                        self._cache_key(name, split),
                        encoder,
                        lambda start, end, values=values: to_images(values[start:end]).to(device),  # type: ignore[misc]
                        len(values),
                        show,
                        rank=ranks.rank(),
                        ranks=ranks.count(),
                    )

        return run_stage(self.folder / f"tokens_{name}", self._inputs(encoder=before), work)

    def decoder(self, encoder_name: str, decoder_name: str) -> str:
        """Train a decoder on cached tokens, of one encoder or of several, or with its encoder where that learns too."""
        parts = encoder_parts(encoder_name)
        frozen, cached = all(ENCODERS[part].frozen for part in parts), self._reads_cache(encoder_name)
        before = "+".join(self.tokens(part) if cached else self._encoder_stages(part) for part in parts if frozen)
        settings = self.config.report
        epochs = settings.epochs if frozen else settings.epochs_direct

        def work(folder: Path) -> None:
            torch.manual_seed(self.config.seed)
            make = self._join if cached else self._drifting if frozen else self.encoder
            encoder = make(encoder_name)
            decoder = self.new_decoder(encoder_name, decoder_name)
            caches = {split: [self._cache(part, split) for part in parts] if cached else [] for split in SPLITS}
            templates = [cache.template() for cache in caches["train"]]
            # What an encoder would see once, it sees each time: unturned.
            seen = replace(settings, augment=settings.augment and not frozen)
            module = ReportModule(encoder, templates, decoder, self.data.vocabulary, seen)
            sentences = DECODERS[decoder_name].sentences
            splits: tuple[Split, ...] = ("train", "validate")
            words = {split: self._words(split, sentences) for split in splits}
            collate = tuple(self._worded(split, encoder_name, caches[split], words[split]) for split in words)
            fit(
                folder,
                module,
                self._report_loaders((collate[0], collate[1]), words["train"]),
                epochs=epochs,
                monitor=f"val_{settings.monitor}",
                mode="max",
                patience=settings.patience,
                seed=self.config.seed,
                placement=self.placement,
            )
            save_weights(folder, {"decoder": decoder, **({"encoder": encoder} if encoder else {})})

        # What only the other kind uses does not matter: changing it must not undo this stage.
        direct_only = ("image_learning_rate", "augment") if frozen else ()
        used = {**identity(settings), "epochs": epochs, "epochs_direct": None, **dict.fromkeys(direct_only)}
        # Once it was the rate of images.
        joining: dict[str, Any] = {"joining": "at the decoder's rate"} if len(parts) > 1 else {}
        inputs = self._inputs(report=used, encoder=encoder_name, decoder=decoder_name, before=before, **joining)
        return run_stage(self.folder / f"{encoder_name}-{decoder_name}", inputs, work)

    def backbone_classifier(self, name: str) -> str:
        """Train a row of Table 2 on the 14 observations, and write its held-out scores."""
        settings = settings_of(name, self.config)

        def work(folder: Path) -> None:
            targets = {split: self.data.coarse_targets(split) for split in ("train", "validate")}
            torch.manual_seed(self.config.seed)
            normalize, network = build_classifier(name, self.config.size, pretrained=self.config.pretrained)
            module = ClassifierModule(normalize, network, _rate(targets), settings)
            self._fit_classifier(folder, module, targets, self.data)
            save_weights(folder, {"classifier": network})
            self._score_held_out(folder, normalize, network)

        inputs = self._inputs(starts_from_backbone=False, classifier=settings, backbone_of_table_2=name)
        return run_stage(self.folder / "table2" / name, inputs, work)

    def coarse_scores(self) -> str:
        """Write CDC's held-out scores, to stand beside the rows of Table 2."""
        before = self.classifier("cdc")

        def work(folder: Path) -> None:
            encoder = build_encoder("fve", self.config.size, **self._encoder_changes("fve"))
            assert isinstance(encoder, FineGrainedEncoder)
            load_weights(self.folder / "cdc", "cdc", encoder.cdc)
            self._score_held_out(folder, encoder.normalize, encoder.cdc)
            shutil.copyfile(self.folder / "cdc" / "summary.json", folder / "summary.json")

        return run_stage(self.folder / "table2" / "cdc", self._inputs(cdc=before), work)

    def _score_held_out(self, folder: Path, normalize: Normalize, network: ImageClassifier) -> None:
        """Write "scores" (held-out studies, classes), logits."""
        network.eval()
        images = self.data.images("test", normalize.image_size)
        with torch.inference_mode():
            scores = torch.cat([network(normalize(batch)) for batch in _batches(images, 64)])
        save_file({"scores": scores}, folder / "scores.safetensors")

    def label_text_decoder(self) -> str:
        """Train Table 3's model, true fine labels as text to findings, and write its held-out reports."""
        settings = self.config.report

        def work(folder: Path) -> None:
            studies = self.data.studies
            labels = {split: [study.fine_labels for study in studies[split]] for split in SPLITS}
            vocabulary = Vocabulary.build((label_text(each) for each in labels["train"]), 1)
            longest = max(len(vocabulary.encode(label_text(each), 512)) for each in labels["train"])
            torch.manual_seed(self.config.seed)
            width = int(DECODERS["transformer"].sizes[self.config.size]["width"])
            encoder = LabelTextEncoder(vocabulary, width, longest)
            decoder = build_decoder(
                "transformer", self.config.size, token_width=width, vocabulary_size=len(self.data.vocabulary)
            )
            module = ReportModule(encoder, (), decoder, self.data.vocabulary, settings)
            splits: tuple[Split, ...] = ("train", "validate")
            words = {split: self._words(split, sentences=False) for split in splits}
            read = {split: encoder.ids(labels[split]) for split in SPLITS}

            def worded(split: Split) -> Callable[[list[int]], dict[str, Tensor]]:
                return lambda places: {
                    "labels": read[split][places],
                    "ids": pad([words[split][place] for place in places], PAD),
                }

            fit(
                folder,
                module,
                self._report_loaders((worded("train"), worded("validate")), words["train"]),
                epochs=settings.epochs,
                monitor=f"val_{settings.monitor}",
                mode="max",
                patience=settings.patience,
                seed=self.config.seed,
            )
            save_weights(folder, {"encoder": encoder, "decoder": decoder})
            write = GenerateConfig(**to_dict(self.config.write))
            count = self.config.evaluate_studies or len(studies["test"])
            with torch.inference_mode():
                texts = [
                    to_text(self.data.vocabulary.decode(hypothesis.ids))
                    for ids in read["test"][:count].split(50)
                    for hypothesis in generate(decoder, encoder(ids), write)
                ]
            (folder / "reports.json").write_text(json.dumps(texts), encoding="utf-8")

        inputs = self._inputs(
            starts_from_backbone=False,
            report=settings,
            as_decoders="rates, studies drawn",
            write=self.config.write,
            studies=self.config.evaluate_studies,
            max_words=self.config.data.max_words,
        )
        return run_stage(self.folder / "table3", inputs, work)

    def export(self, out: Path) -> None:
        """Write all pairs as bundles into ``out``, weights rounded to 8 bits; they are verified afterwards."""
        for name in _frozen_parts(self.config):
            if self._reads_cache(name):
                self._export_encoder(name, out)
        for name in self.config.encoders:
            for decoder_name in self.config.decoders:
                self._export_pair(name, decoder_name, out)
        library = bundle.BundleLibrary(out)
        for card in library.cards():
            library.verify(card.name)
        if self.config.data.source == "phantom":  # embeddings of patients' radiographs are not ours to give away
            for name in self.config.encoders:
                self._export_embeddings(name, library, out)

    # What stages share.

    @cached_property
    def _backbone_key(self) -> str:
        return self.backbone()

    def encoder(self, name: str) -> Encoder:
        """A new encoder, with published weights or those of the backbone where the preset asks for them."""
        torch.manual_seed(self.config.seed)
        encoder = build_encoder(
            name, self.config.size, pretrained=self.config.pretrained, **self._encoder_changes(name)
        )
        if self.config.backbone.source != "none":
            weights = part_of(self.folder / "backbone", "backbone")
            for each in encoder.backbones():
                start_from(each, weights)
        return encoder

    def trained_encoder(self, name: str) -> Encoder:
        """A frozen encoder with the weights of its stages."""
        torch.manual_seed(self.config.seed)
        encoder = build_encoder(name, self.config.size, **self._encoder_changes(name))
        if isinstance(encoder, FineGrainedEncoder):
            load_weights(self.folder / "cdc", "cdc", encoder.cdc)
            load_weights(self.folder / "fgc", "fgc", encoder.fgc)
        else:
            load_weights(self.folder / f"clip_{name}", "encoder", encoder)
        return encoder.freeze()

    def _reads_cache(self, encoder_name: str) -> bool:
        """Whether its tokens are the same at every step."""
        return not self.config.report.drifting_norms and all(
            ENCODERS[part].frozen for part in encoder_parts(encoder_name)
        )

    def _drifting(self, encoder_name: str) -> Encoder:
        """A trained encoder whose weights are still but whose batch norms go on."""
        encoder = self.trained_encoder(encoder_name)
        encoder.is_frozen = False
        return encoder.train()

    def new_decoder(self, encoder_name: str, decoder_name: str) -> Decoder:
        """A new decoder for an encoder's tokens."""
        return build_decoder(
            decoder_name,
            self.config.size,
            token_width=token_width(encoder_name, self.config.size),
            vocabulary_size=len(self.data.vocabulary),
        )

    def _join(self, encoder_name: str) -> JointProjection | None:
        """What joins the tokens of several encoders; None for one."""
        parts = encoder_parts(encoder_name)
        widths = [ENCODERS[part].sizes[self.config.size].width for part in parts]
        return JointProjection(widths, token_width(encoder_name, self.config.size)) if len(parts) > 1 else None

    def _clip_config(self, name: str) -> ClipConfig:
        return self.config.cluster_clip if name == "ccve" else self.config.clip

    def _encoder_changes(self, name: str) -> dict[str, Any]:
        if name == "fve":
            return {"coarse_classes": len(OBSERVATIONS), "fine_classes": len(self.data.fine_labels)}
        if name == "cve":
            return {"vocabulary": self.data.vocabulary, "feature": self.config.clip.feature}
        if name == "ccve":
            return {"vocabulary": self.data.vocabulary, "filters": self.config.cluster_clip.filters}
        return {}

    def _encoder_stages(self, name: str) -> str:
        if name == "fve":
            return content_hash([self.classifier("cdc"), self.classifier("fgc")])
        return self.clip(name)

    def _inputs(self, *, starts_from_backbone: bool = True, **parts: Any) -> dict[str, Any]:
        plain = {
            key: identity(value) if hasattr(value, "__dataclass_fields__") else value for key, value in parts.items()
        }
        common: dict[str, Any] = {
            "size": self.config.size,
            "seed": self.config.seed,
            "pretrained": self.config.pretrained,
        }
        if starts_from_backbone and self.config.backbone.source != "none":
            common["backbone"] = self._backbone_key
        return {**common, "data": self.data.fingerprint(), **plain}

    def _targets(self, kind: str, split: str) -> Tensor:
        return self.data.coarse_targets(split) if kind == "cdc" else self.data.fine_targets(split)  # type: ignore[arg-type]

    def _fit_classifier(
        self, folder: Path, module: ClassifierModule, targets: Mapping[str, Tensor], data: StudyData
    ) -> None:
        def labelled(split: Split) -> Callable[[list[int]], dict[str, Tensor]]:
            images = data.images(split, module.normalize.image_size)
            return lambda places: {"images": to_images(images[places]), "targets": targets[split][places]}

        settings = module.config
        fit(
            folder,
            module,
            loaders(
                (len(targets["train"]), len(targets["validate"])),
                (labelled("train"), labelled("validate")),
                settings.batch_size,
                self.config.seed,
                positives=targets["train"] if settings.class_aware else None,
            ),
            epochs=settings.epochs,
            monitor="val_auc",
            mode="max",
            patience=settings.patience,
            seed=self.config.seed,
            placement=self.placement,
        )

    def _paired(
        self, split: Split, size: int, pairs: list[tuple[int, int, str]], encoder: ClipEncoder | ClusterClipEncoder
    ) -> Callable[[list[int]], dict[str, Tensor]]:
        images = self.data.images(split, size)
        ids = encoder.clip.text.tokenize([text for _, _, text in pairs]) if pairs else torch.zeros(0, 1)
        clusters = torch.tensor([cluster for _, cluster, _ in pairs])
        places_of = np.array([place for place, _, _ in pairs])
        return lambda places: {
            "images": to_images(images[places_of[places]]),
            "ids": ids[places],
            "clusters": clusters[places],
        }

    def _report_loaders(
        self, collate: tuple[Collate, Collate], words: Sequence[Sequence[int]]
    ) -> tuple[DataLoader[int], DataLoader[int]]:
        """What every model that writes findings learns from, drawn alike: validation takes 200 studies at most."""
        settings, studies = self.config.report, self.data.studies
        return loaders(
            (len(studies["train"]), min(len(studies["validate"]), 200)),
            collate,
            settings.batch_size,
            self.config.seed,
            self.data.coarse_targets("train") if settings.class_aware else None,
            [len(row) for row in words] if settings.group_lengths else (),
        )

    def _words(self, split: Split, sentences: bool) -> list[list[int]]:
        """Ids of each study's findings."""
        in_order = abnormal_first if sentences and self.config.report.abnormal_first else str
        return [
            self.data.vocabulary.encode(in_order(study.findings), self.config.data.max_words, sentences=sentences)
            for study in self.data.studies[split]
        ]

    def _worded(
        self, split: Split, encoder_name: str, caches: Sequence[TokenCache], rows: Sequence[Sequence[int]]
    ) -> Callable[[list[int]], dict[str, Any]]:
        if caches:
            return lambda places: {
                "tokens": [cache.tokens(places) for cache in caches],
                "ids": pad([rows[each] for each in places], PAD),
            }
        images = self.data.images(split, image_size(encoder_name, self.config.size))
        return lambda places: {"images": to_images(images[places]), "ids": pad([rows[each] for each in places], PAD)}

    def _cache(self, name: str, split: Split) -> TokenCache:
        return TokenCache.open(self.folder / f"tokens_{name}" / split, self._cache_key(name, split))

    def _cache_key(self, name: str, split: Split) -> str:
        """Hash of the stages that made an encoder's weights, and of the split."""
        keys = [
            json.loads((self.folder / stage / "done.json").read_text(encoding="utf-8"))["key"]
            for stage in (("cdc", "fgc") if name == "fve" else (f"clip_{name}",))
        ]
        return content_hash([*keys, split])

    def _card(self, name: str) -> dict[str, Any]:
        data, config = self.config.data, to_dict(self.config)
        config["data"]["folder"] = ""  # where an index lies is nobody's business
        return {
            "name": name,
            "family": self.config.name,
            "size": self.config.size,
            "created": datetime.date.today().isoformat(),
            "licence": LICENCES[data.source],
            "intended_use": bundle.INTENDED_USE,
            "data": {
                "name": data.source,
                "description": DESCRIPTIONS[data.source],
                "fingerprint": self.data.source.fingerprint(),
                "count": data.count,
                "seed": data.seed,
                "studies": {split: len(studies) for split, studies in self.data.studies.items()},
            },
            "config": config,
        }

    def _shared_name(self, name: str) -> str:
        return f"{self.config.name}-{name}"

    def _saved_changes(self, name: str) -> dict[str, Any]:
        """Of an encoder, for its card; the vocabulary has a file of its own."""
        return {key: value for key, value in self._encoder_changes(name).items() if key != "vocabulary"}

    def _export_encoder(self, name: str, out: Path) -> None:
        encoder = self.trained_encoder(name)
        changes = self._saved_changes(name)
        about: dict[str, Any] = {"name": name, "changes": changes}
        if name == "fve":
            about |= {"coarse_labels": list(OBSERVATIONS), "fine_labels": list(self.data.fine_labels)}
        card = {**self._card(self._shared_name(name)), "encoder": about}
        bundle.write_bundle(
            out / "shared" / self._shared_name(name),
            card,
            {"model.safetensors": bundle.rounded(encoder.state_dict(), "encoder.")},
            {},
        )

    def _export_pair(self, encoder_name: str, decoder_name: str, out: Path) -> None:
        stage = self.folder / f"{encoder_name}-{decoder_name}"
        decoder = self.new_decoder(encoder_name, decoder_name)
        load_weights(stage, "decoder", decoder)
        tensors = bundle.rounded(decoder.state_dict(), "decoder.")
        parts = encoder_parts(encoder_name)
        cached = self._reads_cache(encoder_name)
        changes = {} if cached else self._saved_changes(encoder_name)
        about: dict[str, Any] = {"name": encoder_name, "changes": changes, "shared": {}}
        for shared in (self._shared_name(part) for part in parts if cached):
            content = json.loads((out / "shared" / shared / "card.json").read_text(encoding="utf-8"))
            about["shared"][shared] = content["sha256"]["model.safetensors"]
        own = self._join(encoder_name) if about["shared"] else self.encoder(encoder_name)
        if own is not None:
            load_weights(stage, "encoder", own)
            tensors |= bundle.rounded(own.state_dict(), "encoder.")
        name = f"{self.config.name}-{encoder_name}-{decoder_name}"
        side = image_size(encoder_name, self.config.size)
        summary = json.loads((stage / "summary.json").read_text(encoding="utf-8"))
        write, watched = to_dict(self.config.write), f"validation_{self.config.report.monitor}_greedy"
        card = {
            **self._card(name),
            "encoder": about,
            "decoder": {"name": decoder_name, "changes": {}},
            "inputs": {"image": [1, side, side], "range": [0, 1], "normalization": "in the encoder"},
            "metrics": {watched: summary["best"], "epochs": summary["epochs"]},
            "write": write,
        }
        vocabulary = json.dumps(self.data.vocabulary.words, ensure_ascii=False, indent=0)
        folder = out / name
        bundle.write_bundle(folder, card, {"model.safetensors": tensors}, {"vocab.json": vocabulary})
        model = bundle.BundleLibrary(out).load(name)
        image = _specimen(side)
        expected = bundle.compute_expected(model, image)
        bundle.write_bundle(
            folder, card, {"model.safetensors": tensors, "expected.safetensors": expected}, {"vocab.json": vocabulary}
        )

    def _export_embeddings(self, name: str, library: bundle.BundleLibrary, out: Path) -> None:
        """Embeddings of held-out studies; `dashboard.services` reads them.

        "pooled" (n, D) is the mean of all tokens, "pooled.<source>" that of one tower's where there are several;
        "tokens" (m, N, D), or "tokens.<source>" likewise, are single tokens of the first m studies; CLIP's encoders add
        "text" (n, D), the impressions; CCVE has the tokens of all studies, and "random_filters" (n, 13, D), the same
        with filters that learned nothing; "states.<decoder>" (n, D') are a decoder's, see `decoder_states`.
        """
        encoder = library.load(f"{self.config.name}-{name}-{self.config.decoders[0]}").encoder
        studies = self.data.studies["test"][:EMBEDDING_STUDIES]
        images = self.data.images("test", image_size(name, self.config.size))[:EMBEDDING_STUDIES]

        @torch.inference_mode()
        def tokens_of(network: Encoder) -> VisualTokens:
            batches = [network(batch) for batch in _batches(images, 64)]
            return VisualTokens(torch.cat([each.tokens for each in batches]), batches[0].grids, batches[0].sources)

        visual = tokens_of(encoder)
        tokens = visual.tokens
        tensors = {"pooled": tokens.mean(1)}
        towers = tuple(dict.fromkeys(visual.sources))
        place = np.asarray(visual.sources)
        if len(towers) > 1:
            tensors |= {f"pooled.{each}": tokens[:, place == each].mean(1) for each in towers}
        if isinstance(encoder, ClipEncoder | ClusterClipEncoder):
            with torch.inference_mode():
                tensors["text"] = encoder.clip.text(encoder.clip.text.tokenize([each.impression for each in studies]))
        if isinstance(encoder, ClusterClipEncoder):
            tensors |= {"tokens": tokens, "random_filters": tokens_of(with_random_filters(encoder)).tokens}
        else:
            names = {each: "tokens" if len(towers) == 1 else f"tokens.{each}" for each in towers}
            tensors |= {names[each]: tokens[:TOKEN_STUDIES, place == each] for each in towers}
        write = GenerateConfig(**to_dict(self.config.write))
        for decoder in self.config.decoders:
            model = library.load(f"{self.config.name}-{name}-{decoder}")
            own = visual if model.encoder is encoder else tokens_of(model.encoder)  # DVE learns with its decoder
            parts = [replace(own, tokens=each) for each in own.tokens.split(64)]
            tensors[f"states.{decoder}"] = torch.cat([decoder_states(model, part, write) for part in parts])
        save_file(
            {key: value.contiguous() for key, value in bundle.rounded(tensors, "").items()},
            out / f"{self.config.name}-embeddings-{name}.safetensors",
            {"study_ids": json.dumps([each.study_id for each in studies])},
        )


def run_all(run: Run, bundles: Path, evaluate: Callable[[], None], jobs: int = 1) -> None:
    """The whole chain of a preset; what is done is skipped.

    Args:
        run: what to run.
        bundles: where bundles go.
        evaluate: scores them.
        jobs: stages that train side by side, a thread each. Small models on a CPU train faster so than one after
            another on all cores. 1 shows progress bars, more shows a line an epoch.
    """
    config = run.config
    frozen = _frozen_parts(config)
    if ranks.count() > 1:
        jobs = 1  # its processes share each stage
    with ranks.first_alone():
        run.data.fingerprint()  # labels an index's reports, once
    if config.backbone.source != "none":
        side_by_side(run, [("backbone",)], jobs)
    for split in SPLITS:
        for size in {ENCODERS[part].sizes[config.size].image_size for part in frozen} | {
            image_size(name, config.size) for name in config.encoders
        }:
            run.data.images(split, size)
    encoders: list[tuple[str, ...]] = [("clip", name) for name in frozen if name != "fve"]
    if "fve" in frozen:
        encoders += [("classifier", "cdc"), ("classifier", "fgc")]
    pairs = [("decoder", encoder, decoder) for encoder in config.encoders for decoder in config.decoders]
    direct = [pair for pair in pairs if not ENCODERS[encoder_parts(pair[1])[0]].frozen]
    tokens = [("tokens", name) for name in frozen if run._reads_cache(name)]
    # Each after what it needs: a worker that is free takes the next, and at worst waits for a stage that runs.
    side_by_side(run, [*encoders, *direct, *tokens, *(pair for pair in pairs if pair not in direct)], jobs)

    keys = [run.decoder(encoder, decoder) for _, encoder, decoder in pairs]
    if not keys:
        raise StageError("The preset names no encoder or no decoder.")
    inputs = {"decoders": keys, "bundles": str(bundles), "write": to_dict(config.write)}
    run_stage(run.folder / "export", inputs, _by_first(lambda: run.export(bundles)))
    cards = sorted(bundles.glob("*/card.json"))
    scored = {"bundles": [file_hash(card) for card in cards], "studies": config.evaluate_studies}
    run_stage(run.folder / "evaluate", scored, _by_first(evaluate))


def side_by_side(run: Run, stages: Sequence[tuple[str, ...]], jobs: int) -> None:
    """Run stages, each after those that it needs, ``jobs`` at a time; a stage alone has the threads of all jobs."""
    if jobs == 1:
        for name, *arguments in stages:
            getattr(run, name)(*arguments)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    threads = max(1, jobs // len(stages))
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        waiting = [pool.submit(_one_stage, replace(run), stage, threads) for stage in stages]
        try:
            for each in as_completed(waiting):
                each.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _by_first(work: Callable[[], None]) -> Callable[[Path], None]:
    return lambda folder: work() if ranks.is_first() else None


def _one_stage(run: Run, stage: tuple[str, ...], threads: int) -> None:
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_memory()
    os.environ[QUIET] = "1"
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    name, *arguments = stage
    getattr(run, name)(*arguments)


def _leave_with_parent() -> None:
    """End this process when the command that began it is gone: an orphan would write beside the next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _frozen_parts(config: ExperimentConfig) -> list[str]:
    """Encoders that are trained on their own and then frozen, each once, parts of joint ones too."""
    parts = dict.fromkeys(part for name in config.encoders for part in encoder_parts(name))
    return [part for part in parts if ENCODERS[part].frozen]


def _rate(targets: Mapping[str, Tensor]) -> Tensor:
    """Positive rate of each class in the training split, kept away from 0 and 1."""
    train = targets["train"]
    return train.mean(0).clamp(1 / len(train), 1 - 1 / len(train))


def _specimen(size: int) -> Tensor:
    """The phantom (size, size) uint8 whose report every bundle carries: no patient's image leaves with the weights."""
    source = PhantomSource(count=1, seed=0)
    image = source.image(source.study_ids[0], size)
    return torch.from_numpy(grey_levels(image))


def _batches(images: Any, size: int) -> Iterator[Tensor]:
    for start in range(0, len(images), size):
        yield to_images(np.asarray(images[start : start + size]))
