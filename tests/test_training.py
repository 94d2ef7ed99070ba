"""The training chain on few phantom studies: it runs, it resumes to the same result, it skips what is done."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from core.config import ExperimentConfig, load_config
from core.encoders import build_encoder
from core.encoders.label_text import LabelTextEncoder
from core.files import sha256_of
from core.observations import OBSERVATIONS
from core.paper.tables import read_table
from core.settings import StepConfig
from core.text import Vocabulary
from core.types import CXRLensError
from tests.commands import run as run_command
from tests.commands import setting
from training.commands.tables import PAPER
from training.data import StudyData
from training.loaders import loaders
from training.modules.report import ReportModule
from training.options import PRESETS
from training.paper.tables import table_2, table_3
from training.run_folder import StageError, load_weights
from training.stages.backbone import backbone
from training.stages.chain import run_all
from training.stages.classifiers import classifier
from training.stages.clip import clip, cluster_clip
from training.stages.decoder import decoder as train_decoder
from training.stages.encoders import Stage, trained_encoder
from training.stages.export import card, export
from training.stages.label_text import label_text_decoder
from training.stages.models import new_decoder, new_encoder, new_join
from training.stages.reports import report_loaders
from training.stages.run import Run
from training.stages.tokens import cache, tokens

pytestmark = pytest.mark.numeric

FEW = [
    "data.count=48", "backbone.count=96", "backbone.epochs=1", "backbone.batch_size=8",
    "data.min_fine_label_count=2", "data.min_word_count=1", "classifier.epochs=2",
    "classifier.warmup_epochs=1", "classifier.batch_size=8", "clip.epochs=1", "clip.batch_size=8",
    "cluster_clip.epochs=1", "cluster_clip.batch_size=8", "report.epochs=2", "report.epochs_direct=1",
    "report.batch_size=8", "evaluate_studies=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def few() -> ExperimentConfig:
    return load_config(PRESETS, "phantom", FEW)


@pytest.fixture(scope="module")
def run(few: ExperimentConfig, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return Run(few, tmp_path_factory.mktemp("runs"))


def test_words_and_labels_are_counted_on_the_training_split_only(run: Run) -> None:
    data = run.data
    train = {label for study in data.studies["train"] for label in study.fine_labels}
    assert set(data.fine_labels) <= train
    subjects = {split: {study.subject_id for study in studies} for split, studies in data.studies.items()}
    assert not subjects["train"] & (subjects["validate"] | subjects["test"])


def test_rendered_images_are_cached_and_repaired(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first = np.array(run.data.images("test", 32))
    about = run.folder / "images" / "test-32.json"
    content = json.loads(about.read_text())
    about.write_text(json.dumps(content | {"done": 0}))  # as after an interruption
    assert np.array_equal(run.data.images("test", 32), first)
    monkeypatch.setattr(StudyData, "source", property(lambda self: pytest.fail("rendered again")))
    fresh = StudyData(run.config.data, run.folder / "images")
    monkeypatch.undo()
    assert np.array_equal(fresh.images("test", 32), first)


@pytest.mark.parametrize(
    "pair", [("dve", "transformer"), ("fve", "m2"), ("ccve", "cnn_rnn_rnn"), ("fve+ccve", "transformer")]
)
def test_pairs_train_export_and_verify(pair: tuple[str, str], run: Run, tmp_path: Path) -> None:
    from core.bundles.library import BundleLibrary

    encoder, decoder = pair
    train_decoder(run, encoder, decoder)
    stage = run.folder / f"{encoder}-{decoder}"
    assert {"config.json", "done.json", "model.safetensors", "summary.json"} <= {each.name for each in stage.iterdir()}
    assert not list(stage.glob("*.ckpt"))
    config = load_config(PRESETS, "phantom", [*FEW, f"encoders=['{encoder}']", f"decoders=['{decoder}']"])
    export(Run(config, run.folder), tmp_path)
    library = BundleLibrary(tmp_path)
    (card,) = library.cards()
    assert card.name == f"phantom-{encoder}-{decoder}"
    assert library.verify(card.name) < 1e-4


def test_drifting_norms_move_statistics_and_nothing_else_of_the_encoder(
    run: Run, few: ExperimentConfig, tmp_path: Path
) -> None:
    """The published code's fault: weights are still, what batch norms remember is not. The bundle keeps what came."""
    from core.bundles.library import BundleLibrary

    clip(run, "cve")
    steady = trained_encoder(run, "cve").state_dict()
    report = replace(few.report, drifting_norms=True)
    drifting = Run(replace(few, report=report, encoders=("cve",), decoders=("m2",)), run.folder)
    train_decoder(drifting, "cve", "m2")
    after = new_encoder(drifting, "cve")
    load_weights(run.folder / "cve-m2", "encoder", after)
    moved = {key for key, value in after.state_dict().items() if not torch.equal(value, steady[key])}
    assert moved
    assert all(key.rsplit(".", 1)[1] in ("running_mean", "running_var", "num_batches_tracked") for key in moved)
    export(drifting, tmp_path)
    library = BundleLibrary(tmp_path)
    assert library.verify("phantom-cve-m2") < 1e-4
    read = library.load("phantom-cve-m2").encoder.state_dict()
    key = next(key for key in moved if key.endswith("running_var"))
    assert torch.allclose(read[key], after.state_dict()[key], rtol=1e-3)
    assert not torch.allclose(read[key], steady[key], rtol=1e-3)


def test_the_published_architecture_trains_and_its_bundle_says_so(
    run: Run, few: ExperimentConfig, tmp_path: Path
) -> None:
    """One layer, no CLS token, words scaled by the length limit, plain Adam in steps (docs/training.md)."""
    from core.bundles.library import BundleLibrary

    published = replace(
        few.report, layers=1, cls_token=False, word_scale="max_words", decay="coupled", beta_2=0.999, eps=1e-8,
        schedule="steps", warmup_share=0.0, gradient_clip=0.0, epochs=1, validate_studies=3,
    )  # fmt: skip
    other = Run(replace(few, report=published, encoders=("fve",), decoders=("m2", "cnn_rnn_rnn")), run.folder)
    for decoder in other.config.decoders:
        train_decoder(other, "fve", decoder)
    export(other, tmp_path)
    library = BundleLibrary(tmp_path)
    model = library.load("phantom-fve-m2")
    assert model.card.content["decoder"]["changes"] == {
        "layers": 1, "cls_token": False, "word_scale": pytest.approx(128**0.5)
    }  # fmt: skip
    assert model.decoder.embed.scale == pytest.approx(128**0.5)  # type: ignore[union-attr]
    assert library.verify("phantom-fve-m2") < 1e-4
    assert library.load("phantom-fve-cnn_rnn_rnn").card.content["decoder"]["changes"] == {}


@pytest.mark.parametrize(
    ("table", "where", "stage"),
    [
        ("backbone", "classifiers", backbone),
        ("classifier", "classifiers", lambda run: classifier(run, "fve", "cdc")),
        ("clip", "clip", lambda run: clip(run, "cve")),
        ("cluster_clip", "clip", lambda run: cluster_clip(run, "ccve")),
        ("report", "decoder", lambda run: train_decoder(run, "dve", "transformer")),
        ("report", "label_text", label_text_decoder),
    ],
)
def test_every_stage_moves_its_weights_as_its_table_says(
    table: str, where: str, stage: Stage, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, StepConfig]] = []

    def watch(folder: Path, module: Any, *_: Any, gradient_clip: float, **__: Any) -> None:
        seen.append((gradient_clip, module.config))
        raise KeyboardInterrupt

    monkeypatch.setattr(f"training.stages.{where}.fit", watch)
    monkeypatch.setattr(Run, "backbone", {})
    chosen = [*FEW, f"backbone.source={'train' if table == 'backbone' else 'none'}"]
    chosen += [
        f"{table}.{change}" for change in ("gradient_clip=0.25", "beta_2=0.7", "schedule=steps", "decay=coupled")
    ]
    with pytest.raises(KeyboardInterrupt):
        stage(Run(load_config(PRESETS, "phantom", chosen), tmp_path, shared=run.folder))
    ((clip_at, steps),) = seen
    assert (clip_at, steps.beta_2, steps.schedule, steps.decay) == (0.25, 0.7, "steps", "coupled")


@pytest.mark.parametrize("asked", [3, 0, 200])
def test_validation_writes_for_as_many_studies_as_the_preset_names(
    asked: int, run: Run, few: ExperimentConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr("training.stages.reports.loaders", lambda sizes, *_: seen.append(sizes))
    report_loaders(Run(replace(few, report=replace(few.report, validate_studies=asked)), run.folder), (), ())  # type: ignore[arg-type]
    there = len(run.data.studies["validate"])
    assert seen == [(len(run.data.studies["train"]), min(asked or there, there))]


def test_an_encoder_reads_another_side_from_its_backbone_to_its_bundle(few: ExperimentConfig, tmp_path: Path) -> None:
    from core.bundles.library import BundleLibrary

    chosen = ["image_size=64", "encoders=['cve','dve']", "decoders=['transformer']", "report.epochs=1"]
    chosen.append("backbone.count=80")
    side = Run(load_config(PRESETS, "phantom", [*FEW, *chosen]), tmp_path / "run")
    for encoder in side.config.encoders:
        train_decoder(side, encoder, "transformer")
    export(side, tmp_path / "bundles")
    library = BundleLibrary(tmp_path / "bundles")
    for made in library.cards():
        assert made.image_side == library.load(made.name).image_size == 64
        assert library.load(made.name).encoder(torch.rand(1, 1, 64, 64)).grids == ((2, 2),)
        assert library.verify(made.name) < 1e-4


def test_small_encoders_read_256_pixels_as_8_by_8_tokens() -> None:
    words = Vocabulary.build(["no effusion"], 1)
    for name in ("dve", "fve", "cve", "ccve"):
        more = {"vocabulary": words} if name in ("cve", "ccve") else {}
        with torch.device("meta"):
            encoder = build_encoder(name, "small", image_size=256, **more).eval()
            found = encoder(torch.zeros(1, 1, 256, 256))
        assert all(grid == (8, 8) for grid in found.grids)
        assert found.tokens.shape[1] == (13 if name == "ccve" else 64 * len(found.grids))


def test_an_encoder_starts_from_what_its_own_key_says(run: Run, few: ExperimentConfig, tmp_path: Path) -> None:
    def made(encoder: str, start: str) -> dict[str, torch.Tensor]:
        chosen = replace(few, start=replace(few.start, **{encoder: start}))
        return new_encoder(Run(chosen, run.folder), encoder).state_dict()

    backbone(run)
    trained = load_file(run.folder / "backbone" / "model.safetensors")
    first = "model.conv1.0.weight"
    preset, random = made("dve", "preset"), made("dve", "random")
    assert torch.equal(preset[first], trained["backbone.conv1.0.weight"])
    assert not torch.equal(random[first], preset[first])
    again = made("dve", str(run.folder / "backbone" / "model.safetensors"))  # a CNN, as the backbone's stage writes it
    assert all(torch.equal(value, again[key]) for key, value in preset.items())
    clip(run, "cve")
    whole = made("cve", str(run.folder / "clip_cve" / "model.safetensors"))  # a whole encoder, its text tower too
    assert all(torch.equal(value, whole[key]) for key, value in trained_encoder(run, "cve").state_dict().items())
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(b"no weights")
    save_file({"backbone.fc.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    for path, message in (
        (damaged, "start.dve: .*damaged.safetensors cannot be read as safetensors"),
        (
            tmp_path / "other.safetensors",
            "start.dve: the weights in .*other.safetensors are of another encoder or another size",
        ),
    ):
        with pytest.raises(StageError, match=message):
            made("dve", str(path))


def test_a_decoder_keeps_the_epoch_that_its_preset_watches(run: Run, few: ExperimentConfig) -> None:
    aware = replace(few.report, monitor="f1", class_aware=True, group_lengths=True)
    other = Run(replace(few, report=aware), run.folder)
    train_decoder(other, "ccve", "transformer")
    stage = other.folder / "ccve-transformer"
    rows = list(csv.DictReader((stage / "log" / "metrics.csv").open()))
    watched = [float(row["val_f1"]) for row in rows if row.get("val_f1")]
    summary = json.loads((stage / "summary.json").read_text())
    assert summary["monitor"] == "val_f1"
    assert summary["best"] == pytest.approx(max(watched))
    assert len(watched) == 2
    before = json.loads((stage / "done.json").read_text())["key"]
    assert train_decoder(run, "ccve", "transformer")["ccve-transformer"] != before  # another choice, another stage


def test_a_card_of_patients_data_names_its_licence_and_no_folder(tmp_path: Path) -> None:
    run = Run(load_config(PRESETS, "openi", [f"data.folder={tmp_path}"]), tmp_path)
    source = SimpleNamespace(fingerprint=lambda: "abc")
    run.__dict__["data"] = SimpleNamespace(source=source, studies={"train": [1, 2]})
    about = card(run, "openi-dve-m2")
    assert "CC BY-NC" in about["licence"]
    assert about["data"]["studies"] == {"train": 2}
    assert str(tmp_path) not in json.dumps(about)
    assert about["config"]["data"]["source"] == "openi"


def test_a_trained_encoder_is_the_one_its_decoder_saw(run: Run) -> None:
    tokens(run, "fve")
    encoder = trained_encoder(run, "fve")
    images = run.data.images("test", 128)
    stored = cache(run, "fve", "test")
    fresh = encoder(torch.from_numpy(np.array(images[:2])).unsqueeze(1).float() / 255).tokens
    torch.testing.assert_close(stored.tokens([0, 1]), fresh, atol=2e-2, rtol=1e-2)


def test_stages_write_what_they_were_given(run: Run) -> None:
    classifier(run, "fve", "cdc")
    about = json.loads((run.folder / "cdc_fve" / "config.json").read_text())
    assert about["identity"]["seed"] == 1
    assert about["identity"]["data"]["studies"] == run.data.fingerprint()
    assert about["identity"]["classifier"]["epochs"] == 2
    weights = load_file(run.folder / "cdc_fve" / "model.safetensors")
    assert all(key.startswith("cdc.") for key in weights)


def test_every_encoder_starts_from_the_backbone(run: Run) -> None:
    backbone(run)
    trained = load_file(run.folder / "backbone" / "model.safetensors")["backbone.conv1.0.weight"]
    for name, count in (("dve", 1), ("fve", 2), ("cve", 1), ("ccve", 1)):
        backbones = new_encoder(run, name).backbones()
        assert len(backbones) == count
        for each in backbones:
            assert torch.equal(each.state_dict()["conv1.0.weight"], trained)


def test_the_backbone_learns_from_other_phantoms(run: Run) -> None:
    assert run.backbone_data.source.fingerprint() != run.data.source.fingerprint()
    with pytest.raises(CXRLensError, match="backbone.seed must differ"):
        load_config(PRESETS, "phantom", ["backbone.seed=0"])


def test_the_backbone_learns_the_training_split_where_asked(tmp_path: Path) -> None:
    run = Run(load_config(PRESETS, "phantom", [*FEW, "backbone.source=train"]), tmp_path)
    assert run.backbone_data is run.data
    backbone(run)
    head = load_file(tmp_path / "backbone" / "model.safetensors")["backbone.fc.weight"]
    assert len(head) == len(OBSERVATIONS) + len(run.data.fine_labels)
    before = json.loads((tmp_path / "backbone" / "done.json").read_text())["key"]
    other = Run(load_config(PRESETS, "phantom", [*FEW, "backbone.source=train", "data.seed=9"]), tmp_path)
    assert backbone(other)["backbone"] != before  # other studies, another backbone


def test_every_size_has_a_backbone_for_its_encoders(tmp_path: Path) -> None:
    """Open-i's preset on phantoms: at its size towers have arguments that a classifier alone does not take."""
    few = [*FEW, "data.source=phantom", 'data.views=""', "data.count=24", "data.impressions=false"]
    few.append("backbone.before=none")
    run = Run(load_config(PRESETS, "openi", few), tmp_path)
    backbone(run)
    trained = load_file(tmp_path / "backbone" / "model.safetensors")["backbone.blocks.3.0.conv_dw.weight"]
    for name, count in (("dve", 1), ("fve", 2), ("cve", 1), ("ccve", 1)):
        towers = new_encoder(run, name).backbones()
        assert len(towers) == count
        assert all(torch.equal(each.state_dict()["blocks.3.0.conv_dw.weight"], trained) for each in towers)


def test_a_missing_stage_is_named(few: ExperimentConfig, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"model.safetensors is missing. Run the stage 'cdc_fve' first"):
        trained_encoder(Run(few, tmp_path), "fve")


def test_a_bundle_that_was_deleted_is_exported_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(PRESETS, "phantom", [*FEW, 'encoders=["dve"]', 'decoders=["transformer"]'])
    bundles, evaluated = tmp_path / "bundles", list[int]()

    def evaluate() -> None:
        evaluated.append(1)
        (bundles / "phantom-results.json").write_text("{}")

    def train() -> str:
        capsys.readouterr()
        run_all(Run(config, tmp_path / "run"), bundles, evaluate)
        return capsys.readouterr().err

    train()
    assert len(evaluated) == 1
    assert "export: done before, skipped" in train()
    weights = sha256_of(bundles / "phantom-dve-transformer" / "model.safetensors")
    shutil.rmtree(bundles)
    assert "phantom-dve-transformer is missing" in train()
    assert sha256_of(bundles / "phantom-dve-transformer" / "model.safetensors") == weights
    assert len(evaluated) == 2  # its scores were deleted too


@pytest.mark.slow
def test_the_whole_chain_and_its_evaluation(tmp_path: Path) -> None:
    done = run_command("train", "--preset", "phantom", *setting(FEW), "--runs", tmp_path, "--jobs", "2")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "phantom" / "bundles" / "phantom-results.json").read_text())
    assert len(results["rows"]) == 12
    assert {row["name"] for row in results["baselines"]} == {
        "constant report", "nearest training report", "shuffled images"
    }  # fmt: skip


@pytest.mark.slow
def test_seeds_share_images_and_give_mean_and_spread(few: ExperimentConfig, tmp_path: Path) -> None:
    """Two seeds, one pair: other weights, one set of images, and Table 1 with a standard deviation."""
    chosen = ['encoders=["dve"]', 'decoders=["transformer"]', "backbone.source=none", *FEW[:1], *FEW[4:]]
    options = setting(chosen)
    command = ["train", "--preset", "phantom", *options, "--runs", str(tmp_path), "--jobs", "1", "--seeds", "2"]
    done = run_command(*command)
    assert done.exit_code == 0, done.output
    folder = tmp_path / "phantom"
    pair = "dve-transformer/model.safetensors"
    assert (folder / pair).read_bytes() != (folder / "seed-2" / pair).read_bytes()
    assert (folder / "images").is_dir()
    assert not (folder / "seed-2" / "images").exists()
    table = read_table(folder / "tables" / "phantom" / "table-1.json")
    assert table.seeds == (1, 2)
    results = [json.loads((each / "evaluate" / "results.json").read_text()) for each in (folder, folder / "seed-2")]
    ours = [each["rows"][0]["bleu_1"] for each in results]
    cell = table.rows[0].metrics["bleu_1"]
    assert cell.value == pytest.approx(sum(ours) / 2)
    assert cell.sd == pytest.approx(abs(ours[0] - ours[1]) / 2**0.5)


@pytest.mark.slow
def test_the_encoder_study_trains_both_ways_and_goes_on_where_it_stopped(few: ExperimentConfig, tmp_path: Path) -> None:
    chosen = ['encoders=["cve","ccve"]', 'decoders=["m2"]', *FEW]
    options = setting(chosen)
    command = ["study", "encoders", "--preset", "phantom", *options, "--runs", str(tmp_path), "--jobs", "1"]
    command += ["--seeds", "2", "--out", str(tmp_path / "out")]
    done = run_command(*command)
    assert done.exit_code == 0, done.output
    made = read_table(tmp_path / "out" / "phantom" / "encoders.json")
    assert made.seeds == (1, 2)
    assert [row.name for row in made.rows if row.kind == "control"] == [
        "CVE less CVE, norms drifting, M2", "CCVE less CCVE, norms drifting, M2",
        "CVE, norms drifting less CCVE, norms drifting, M2",
    ]  # fmt: skip
    for seed in (tmp_path / "phantom", tmp_path / "phantom" / "seed-2"):  # equal encoders, trained once
        one, other = (each / "clip_ccve" / "model.safetensors" for each in (seed, seed / "drifting_norms"))
        assert one.read_bytes() == other.read_bytes()
    assert not (tmp_path / "phantom" / "seed-2" / "drifting_norms" / "images").exists()
    again = run_command(*command)
    assert "▸" not in again.output
    assert read_table(tmp_path / "out" / "phantom" / "encoders.json") == made


@pytest.mark.slow
def test_table_2_trains_scores_and_names_what_it_left_out(run: Run) -> None:
    table = table_2(run, ["resnet18", "vit_small_patch16_224"], PAPER, "again")
    assert [row.name for row in table.rows] == ["ResNet-18", "ViT-small"]
    assert table.rows[1].note.endswith("SAM.")
    cell = table.rows[0].metrics["auc"]
    assert cell.paper == 0.808
    assert 0 <= cell.low <= cell.value <= cell.high <= 1  # type: ignore[operator]
    assert any(note.startswith("Left out:") for note in table.notes)  # 48 phantoms do not have everything


def test_only_an_image_encoder_learns_at_the_rate_of_images(run: Run) -> None:
    """What reads labels or joins tokens starts from nothing, as its decoder does."""
    settings = replace(run.config.report, learning_rate=2e-3, image_learning_rate=1e-4)
    words = run.data.vocabulary
    for encoder, expected in (
        (build_encoder("dve", "tiny"), {2e-3, 1e-4}),
        (LabelTextEncoder(words, 64, 8), {2e-3}),
        (new_join(run, "fve+cve"), {2e-3}),
    ):
        module = ReportModule(encoder, (), new_decoder(run, "dve", "transformer"), words, settings)
        module.trainer = SimpleNamespace(estimated_stepping_batches=100)  # type: ignore[assignment]
        optimizer = module.configure_optimizers()["optimizer"]
        assert {group["initial_lr"] for group in optimizer.param_groups} == expected
        learned = {id(weight) for group in optimizer.param_groups for weight in group["params"]}
        assert learned == {id(weight) for weight in module.parameters() if weight.requires_grad}


def test_table_3_draws_studies_as_decoders_do(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where a preset draws rare findings oftener, the model that is given the labels learns from the same studies."""
    seen: list[list[list[int]]] = []
    places = lambda chosen: {"places": chosen}  # noqa: E731

    def watch(*arguments: Any) -> Any:
        batches, _ = loaders(arguments[0], (places, places), *arguments[2:])  # type: ignore[arg-type]
        seen.append([batch["places"] for batch in batches])  # type: ignore[index]
        raise KeyboardInterrupt

    monkeypatch.setattr("training.stages.reports.loaders", watch)
    config = replace(run.config, report=replace(run.config.report, class_aware=True, group_lengths=True))
    chosen = Run(config, tmp_path, shared=run.folder)
    monkeypatch.setattr(Run, "backbone", {"backbone": "made"})
    monkeypatch.setattr("training.stages.decoder.tokens", lambda run, name, of: {f"tokens_{name}": "made"})
    monkeypatch.setattr(
        "training.stages.decoder.cache", lambda run, name, split, of: SimpleNamespace(template=lambda: None)
    )
    for stage in (lambda: train_decoder(chosen, "fve", "transformer"), lambda: label_text_decoder(chosen)):
        with pytest.raises(KeyboardInterrupt):
            stage()
    assert seen[0] == seen[1]
    plain, _ = loaders((len(run.data.studies["train"]), 4), (places, places), config.report.batch_size, config.seed)
    assert seen[0] != [batch["places"] for batch in plain]  # type: ignore[index]


@pytest.mark.slow
def test_table_3_writes_reports_from_the_true_labels(run: Run) -> None:
    table = table_3(run, PAPER, "again")
    assert [row.kind for row in table.rows] == ["system", "control", "baseline", "baseline"]
    assert table.rows[0].metrics["f1"].paper == 0.778
    assert table.n == len(json.loads((run.folder / "table3" / "reports.json").read_text()))
    # Listing the true labels is clinically near perfect: the rule labeler reads them back.
    assert table.rows[1].metrics["f1"].value > 2 * table.rows[2].metrics["f1"].value
