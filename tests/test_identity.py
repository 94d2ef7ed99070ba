"""What a stage is known by: plain values, changed by what matters and by nothing else; and why it is made anew."""

from __future__ import annotations

import enum
import json
import math
import typing
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.bundles.library import read_card
from core.config import ExperimentConfig, Range, from_dict, load_config, to_dict
from core.paths import ASSETS, BUNDLES
from core.registry import ENCODERS
from core.types import CXRLensError
from tests import needs
from tests.test_config import fields
from training import identity, run_folder
from training.data import StudyData
from training.identity import VERSIONS, content_hash, why_anew
from training.options import PRESETS
from training.paper.tables import stages_of_table_2
from training.plan import stages as planned
from training.run_folder import run_stage
from training.stages.chain import run_all
from training.stages.label_text import label_text_decoder
from training.stages.run import Run

# --------------------------------------------------------------------------------------------------------------- hashes

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), plain, max_size=3))
def test_equal_values_have_equal_hashes_in_any_order_and_after_json(value: dict[str, Any]) -> None:
    backwards = dict(reversed(list(value.items())))
    assert content_hash(value) == content_hash(backwards) == content_hash(json.loads(json.dumps(value)))
    assert content_hash(value) != content_hash({**value, "one more": 1})
    assert why_anew(value, json.loads(json.dumps(value))) == ""


class Plain(enum.Enum):
    ONE = 1


@pytest.mark.parametrize(
    "value",
    [Path("runs"), {1, 2}, math.nan, math.inf, np.float64(1.0), np.arange(2), Plain.ONE, {1: "a"}, b"x", Plain, print],
)
def test_what_is_no_plain_value_is_refused_wherever_it_is(value: Any) -> None:
    for whole in (value, [value], {"a": {}, "b": {"c": [1, (None, value)]}}):
        with pytest.raises(TypeError, match="no plain value of JSON"):
            content_hash(whole)


def test_a_refusal_says_where() -> None:
    with pytest.raises(TypeError, match=r"^classifier\.folders\.1 is no plain value of JSON: PosixPath\('x'\)"):
        content_hash({"classifier": {"folders": ["a", Path("x")]}})


# --------------------------------------------------------------------------------------------------------------- stages

STAGES = [stage for stage in VERSIONS if stage != "explanation"]  # which belongs to the benchmark
SMALL = [
    "data.count=48",
    "backbone.count=30",
    "encoders=['dve','fve','cve','fve+ccve']",
    "decoders=['m2','cnn_rnn_rnn']",
]
Identities = Mapping[str, dict[str, Any]]
"""Of all stages of a run, by their folders."""


class Recorded(typing.Protocol):
    def __call__(self, config: ExperimentConfig, jobs: int = 1, shared: Path | None = None) -> Identities: ...


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """Goes through all stages of a preset without doing any."""
    root = tmp_path_factory.mktemp("runs")

    def record(config: ExperimentConfig, jobs: int = 1, shared: Path | None = None) -> Identities:
        found: dict[str, dict[str, Any]] = {}

        def begin(folder: Path, key: str, made_of: dict[str, Any], damaged: object) -> bool:
            found[folder.relative_to(root).as_posix()] = made_of
            return False

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(run_folder, "_begin", begin)
            patch.setattr(run_folder, "FileLock", lambda _: nullcontext())
            patch.setattr(StudyData, "images", lambda *_: None)
            run = Run(config, root, shared=shared)
            run_all(run, root / "bundles", lambda: None, jobs)
            for stage in (*stages_of_table_2(["resnet18", "vit_small_patch16_224", "cdc"]), label_text_decoder):
                stage(run)
        return found

    return record


def config_of(*changes: str) -> ExperimentConfig:
    return load_config(PRESETS, "phantom", [*SMALL, *changes])


def test_every_stage_is_known_by_plain_values_and_a_version(recorded: Recorded) -> None:
    stages = recorded(config_of())
    assert {each["stage"] for each in stages.values()} == set(STAGES)
    for each in stages.values():
        assert json.loads(json.dumps(each, allow_nan=False)) == each
        assert each["version"] == VERSIONS[each["stage"]]
    assert stages["fve-m2"]["after"].keys() == {"tokens_fve"}
    assert stages["fve+ccve-m2"]["after"].keys() == {"tokens_fve", "tokens_ccve"}
    assert stages["tokens_fve"]["after"].keys() == {"cdc_fve", "fgc_fve"}
    assert stages["dve-m2"]["after"].keys() == {"backbone"}


def standing_on(stages: Identities, first: set[str]) -> set[str]:
    """Those stages, and all that stand on one of them."""
    found = set(first)
    while more := {
        name
        for name, each in stages.items()
        if name not in found and {Path(one).name for one in found} & each.get("after", {}).keys()
    }:
        found |= more
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_a_raised_version_makes_that_stage_and_what_stands_on_it_anew(
    stage: str, recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = recorded(config_of())
    monkeypatch.setattr(identity, "VERSIONS", {**VERSIONS, stage: VERSIONS[stage] + 1})
    after = recorded(config_of())
    changed = {name for name in before if before[name] != after[name]}
    first = {name for name, each in before.items() if each["stage"] == stage}
    assert first
    assert changed == standing_on(before, first)
    for name in first:
        told = f"made in another way now (version {VERSIONS[stage] + 1}, was {VERSIONS[stage]})"
        assert told in why_anew(before[name], after[name])


def classifiers(name: str) -> bool:
    return name.startswith(("cdc_", "fgc_")) or name in ("table2/resnet18", "table2/vit_small_patch16_224")


def clips(which: str) -> Callable[[str], bool]:
    return lambda name: name == f"clip_{which}"


def decoders(name: str) -> bool:
    return any(name.startswith(f"{each}-") or name.startswith(f"{each}+") for each in ENCODERS)


def every(name: str) -> bool:
    return name not in ("export", "evaluate")


READERS: Mapping[str, Callable[[str], bool]] = {
    "name": lambda name: name == "export",
    "seed": every,
    "evaluate_studies": lambda name: name in ("evaluate", "table3"),
    "data.count": lambda name: (every(name) and name != "backbone") or name == "evaluate",
    "data.seed": lambda name: (every(name) and name != "backbone") or name == "evaluate",
    "data.min_word_count": every,
    "data.min_fine_label_count": every,
    "data.max_words": every,
    "data.folder": lambda name: False,  # of an index; where it lies changes nothing
    "data.views": lambda name: False,
    "data.labels": lambda name: False,
    "data.removed_words": every,
    "data.fit": lambda name: every(name) or name == "evaluate",
    "data.aspect": lambda name: every(name) or name == "evaluate",
    "data.trim": lambda name: every(name) or name == "evaluate",
    "augment": lambda name: name == "backbone" or classifiers(name) or name.startswith(("clip_", "dve")),
    "backbone": lambda name: name == "backbone",
    **{f"backbone.before_{name}": lambda name: False for name in ("folder", "epochs", "learning_rate")},  # of no stage
    "classifier": classifiers,
    "classifier.optimizer": lambda name: classifiers(name) and name != "table2/vit_small_patch16_224",  # always SAM
    "clip": clips("cve"),
    "cluster_clip": clips("ccve"),
    "report": lambda name: decoders(name) or name == "table3",
    "report.epochs": lambda name: (decoders(name) and not name.startswith("dve")) or name == "table3",
    "report.epochs_direct": lambda name: name.startswith("dve"),
    "report.image_learning_rate": lambda name: name.startswith("dve"),
    "report.augment": lambda name: name.startswith("dve"),
    "report.abnormal_first": lambda name: name.endswith("-cnn_rnn_rnn"),
    "report.findings_first": lambda name: name.startswith(("fve-", "cve-")),
    "report.findings_penalty": lambda name: False,  # nothing is found first here
    "report.layers": lambda name: name.endswith("-m2") or name == "table3",
    "report.cls_token": lambda name: name.endswith("-m2") or name == "table3",
    "report.word_scale": lambda name: name.endswith("-m2") or name == "table3",
    "write": lambda name: name in ("export", "table3"),
}
"""Of a field, or of all of its table that are not named: the stages that read it."""
LEFT_OUT = {
    "pretrained": "not with a backbone of phantoms: see the test below",
    "size": "another size has no backbone of phantoms",
    "encoders": "another set of stages",
    "decoders": "another set of stages",
    "data.source": "the phantom needs no files",
    "data.impressions": "no phantom lacks findings",
    "backbone.before": "another set of stages",
    "backbone.laterals": "the phantom has none",
    "backbone.codes": "the phantom has none",
    "backbone.source": "another set of stages",
    "report.drifting_norms": "another set of stages, and not for joint encoders",
    "classifier.pesg_momentum": "below 1",
    "encoders_from": "it needs bundles: tests/test_findings_first.py",
    "image_size": "a multiple of 32: see the test below",
    **{f"start.{name}": "see the test below" for name in ENCODERS},
}
FIELDS = {name: hint for name, hint in fields(ExperimentConfig) if name not in LEFT_OUT}


def another(hint: Any, value: Any) -> st.SearchStrategy[Any]:
    """Values of a field that are not its own."""
    if typing.get_origin(hint) is typing.Literal:
        return st.sampled_from([each for each in typing.get_args(hint) if each != value])
    kind = typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
    if kind is bool:
        return st.just(not value)
    if kind is str:
        return st.text("abc", min_size=1).filter(lambda each: each != value)
    if kind is int:
        return st.integers(3, 400).filter(lambda each: each != value)
    (limit,) = typing.get_args(hint)[1:] or (Range(0.01),)
    return st.floats(max(limit.low, 0.01), min(limit.high, 10)).filter(lambda each: each != value)


@pytest.mark.parametrize("name", FIELDS)
@settings(max_examples=3, deadline=None)
@given(data=st.data())
def test_a_change_of_a_field_makes_its_readers_anew_and_nothing_else(
    name: str, recorded: Recorded, data: st.DataObject
) -> None:
    values = to_dict(config_of("classifier.epochs=400", "classifier.warmup_epochs=2"))
    before = recorded(from_dict(ExperimentConfig, values))
    *parents, last = name.split(".")
    table = values
    for parent in parents:
        table = table[parent]
    table[last] = data.draw(another(FIELDS[name], table[last]).filter(lambda each: allowed(name, each)))
    after = recorded(from_dict(ExperimentConfig, values))
    assert before.keys() == after.keys()
    reads = READERS.get(name) or READERS[name.partition(".")[0]]
    readers = {each for each in before if reads(each)}
    changed = {each for each in before if before[each] != after[each]}
    assert changed == standing_on(before, readers)
    for each in readers:
        assert why_anew(before[each], after[each])


@pytest.mark.parametrize(
    ("change", "readers"),
    [
        ("start.dve=random", lambda name: name.startswith("dve-")),
        ("start.fve=random", lambda name: name in ("cdc_fve", "fgc_fve")),
        ("start.cve=random", clips("cve")),
        ("start.ccve=random", clips("ccve")),
        ("image_size=160", lambda name: name == "backbone"),
        ("classifier.pesg_momentum=0.5", classifiers),
    ],
)
def test_a_start_or_a_side_makes_anew_what_begins_with_it(
    change: str, readers: Callable[[str], bool], recorded: Recorded
) -> None:
    before, after = recorded(config_of()), recorded(config_of(change))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == standing_on(before, set(filter(readers, before)))


def test_a_file_to_start_from_counts_by_its_content(recorded: Recorded, tmp_path: Path) -> None:
    weights = tmp_path / "weights.safetensors"
    with pytest.raises(CXRLensError, match=r"start.dve: there is no file .*weights.* It is preset, published"):
        recorded(config_of(f"start.dve={weights}"))
    found = []
    for path, content in ((weights, b"one"), (weights, b"two"), (tmp_path / "elsewhere", b"one")):
        path.write_bytes(content)
        found.append(recorded(config_of(f"start.dve={path}"))["dve-m2"])
    assert found[0] == found[2] != found[1]


def test_published_weights_make_every_stage_anew(recorded: Recorded) -> None:
    before, after = (recorded(config_of("backbone.source=train", f"pretrained={on}")) for on in ("false", "true"))
    assert {name for name in before if before[name] != after[name]} == standing_on(before, set(filter(every, before)))


def allowed(name: str, value: Any) -> bool:
    """Whether a value contradicts no other of the preset."""
    return not (name == "backbone.seed" and value == 0) and not (name == "data.seed" and value == 7)


@settings(max_examples=5, deadline=None)
@given(seed=st.randoms(use_true_random=False))
def test_what_does_not_matter_changes_nothing(recorded: Recorded, seed: Any, tmp_path_factory: Any) -> None:
    def shuffled(values: dict[str, Any]) -> dict[str, Any]:
        keys = list(values)
        seed.shuffle(keys)
        return {key: shuffled(values[key]) if isinstance(values[key], dict) else values[key] for key in keys}

    config = config_of()
    before = recorded(config)
    assert recorded(from_dict(ExperimentConfig, shuffled(to_dict(config)))) == before
    assert recorded(config, shared=tmp_path_factory.mktemp("elsewhere")) == before


def test_an_encoder_of_an_unknown_objective_is_refused_before_any_stage(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = replace(ENCODERS["cve"], objective="impresions")  # type: ignore[arg-type]
    monkeypatch.setitem(ENCODERS, "cve", row)  # type: ignore[call-overload]
    monkeypatch.setattr(StudyData, "fingerprint", lambda _: pytest.fail("studies were read"))
    message = "Unknown objective of the encoder cve, 'impresions'. Did you mean 'impressions'"
    with pytest.raises(CXRLensError, match=message):
        recorded(config_of())
    with pytest.raises(CXRLensError, match=message):
        planned(config_of())


# ------------------------------------------------------------------------------------------------------------ why anew


def test_a_stage_that_is_made_anew_says_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(made_of: dict[str, Any]) -> str:
        run_stage(tmp_path / "cdc_fve", made_of, lambda folder: None)
        return capsys.readouterr().err.strip()

    first = {"stage": "classifier", "version": 1, "classifier": {"epochs": 6, "class_aware": True}, "after": {"b": "1"}}
    assert told(first) == "▸ cdc_fve"
    assert told(first) == "· cdc_fve: done before, skipped"
    changed = {**first, "classifier": {"epochs": 7}}
    assert told(changed) == (
        "▸ cdc_fve (made anew: classifier.epochs is 7, was 6; classifier.class_aware is not set, was true)"
    )
    assert "it stands on b, which is another now" in told({**changed, "after": {"b": "2"}})
    many = {f"n{number}": number for number in range(7)}
    assert told({**changed, **many}).endswith("; and 5 more differences)")


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ('{"key": "old", "inputs": {"seed": 1}}', "an earlier release made it"),
        ("", "its config.json is missing or damaged"),
        ("[]", "its config.json is missing or damaged"),
    ],
)
def test_a_folder_of_an_earlier_version_or_a_damaged_one_is_made_anew_and_says_so(
    config: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "backbone"
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "done.json").write_text('{"key": "old"}')
    (folder / "model.safetensors").write_text("weights")
    run_stage(folder, {"seed": 1}, lambda _: None)
    assert why in capsys.readouterr().err
    assert not (folder / "model.safetensors").exists()
    run_stage(folder, {"seed": 1}, lambda _: pytest.fail("done again"))


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize("family", ["phantom", "openi"])
def test_shipped_scores_and_tables_are_of_the_studies_that_the_cards_name(family: str) -> None:
    cards = [read_card(path.parent) for path in BUNDLES.glob(f"{family}-*/card.json")]
    (fingerprint,) = {card.data["fingerprint"] for card in cards}
    results = json.loads((BUNDLES / f"{family}-results.json").read_text(encoding="utf-8"))
    assert results["fingerprint"] == fingerprint
    for path in (ASSETS / "results" / family).glob("*.json"):
        told = json.loads(path.read_text(encoding="utf-8")).get("data")
        assert told is None or f"fingerprint {fingerprint}" in told
