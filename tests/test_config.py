"""Presets load; whatever is wrong is named with its full key."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core.config import DataConfig, ExperimentConfig, from_dict, load_config, to_dict
from core.registry import ENCODERS
from core.settings import ConfigError, Range, StartConfig
from training.options import PRESETS


@pytest.mark.parametrize("preset", sorted(path.stem for path in PRESETS.glob("*.toml")))
def test_every_preset_loads_and_survives_json(preset: str) -> None:
    config = load_config(PRESETS, preset)
    assert config.name == preset
    assert from_dict(ExperimentConfig, json.loads(json.dumps(to_dict(config)))) == config


def test_overrides_are_typed() -> None:
    config = load_config(
        PRESETS, "phantom", ["report.epochs=3", "clip.learning_rate=1", "encoders=['fve']", "size=paper"]
    )
    assert (config.report.epochs, config.clip.learning_rate, config.encoders, config.size) == (
        3,
        1.0,
        ("fve",),
        "paper",
    )


def test_what_a_preset_leaves_at_its_default_can_be_changed() -> None:
    assert load_config(PRESETS, "phantom", ["classifier.class_aware=true"]).classifier.class_aware
    assert load_config(PRESETS, "phantom", ["report.monitor=f1"]).report.monitor == "f1"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("report.epoch=3", "report.epoch: no such key"),
        ("nothing.at.all=3", "nothing.at.all: no such key"),
        ("report.epochs=many", "report.epochs: expected int, got 'many'"),
        ("report.epochs=true", "report.epochs: expected int, got True"),
        ("report.epochs", "not of the form key=value"),
        ("encoders=['fvee']", "encoders: unknown 'fvee'"),
        ("encoders=['fve+fvee']", "encoders: unknown 'fvee'"),
        ("encoders=['fve+fve']", "encoders: 'fve.fve' must join different encoders that are frozen"),
        ("encoders=['dve+fve']", "encoders: 'dve.fve' must join different encoders that are frozen"),
        ("pretrained=true", "start from published weights or from phantoms, not both"),
        ("clip.negatives=none", "clip.negatives: expected one of batch, same_cluster"),
        ("classifier.warmup_epochs=99", r"classifier.warmup_epochs \(99\) must not exceed classifier.epochs"),
        ("size=huge", "size: expected one of"),
        ("start.dve=published", "start.dve: nobody has published weights of size tiny"),
        ("image_size=100", "image_size: 100 at size tiny: it is 0, or a multiple of 32"),
    ],
)
def test_a_wrong_override_is_named(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(PRESETS, "phantom", [override])


def test_every_encoder_has_a_start_of_its_own() -> None:
    assert {each.name for each in dataclasses.fields(StartConfig)} == set(ENCODERS)


def test_joint_encoders_cannot_drift() -> None:
    with pytest.raises(ConfigError, match=r"report.drifting_norms is for single encoders, not 'fve\+ccve'"):
        load_config(PRESETS, "phantom", ["report.drifting_norms=true", "encoders=['fve+ccve']"])


def test_an_unknown_preset_is_answered_with_the_known() -> None:
    with pytest.raises(
        ConfigError,
        match="no preset 'phantm': it is neither one of openi, paper, phantom nor the path.*Did you mean 'phantom'",
    ):
        load_config(PRESETS, "phantm")


def test_a_preset_may_be_any_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (PRESETS / "phantom.toml").read_text().replace('name = "phantom"', 'name = "mine"')
    (tmp_path / "phantom.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    for path in ("phantom.toml", "./phantom.toml", str(tmp_path / "phantom.toml")):
        assert load_config(PRESETS, path, ["seed=5"]).name == "mine"
    assert load_config(PRESETS, "phantom").name == "phantom"  # a name is one of ours, whatever lies around


@pytest.mark.parametrize("content", [b"name = ", b"\xff\xfe", b"\x89PNG"])
def test_a_file_that_is_no_preset_is_refused_by_its_name(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=r"mine.toml is not valid TOML"):
        load_config(PRESETS, str(tmp_path / "mine.toml"))
    for missing in (tmp_path / "nobody.toml", tmp_path):
        with pytest.raises(ConfigError, match="neither one of openi, paper, phantom nor"):
            load_config(PRESETS, str(missing))


def test_wrong_keys_in_a_file_are_listed(tmp_path: Path) -> None:
    text = (PRESETS / "phantom.toml").read_text().replace("max_words = 128", "max_word = 128")
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"data: unknown keys \['max_word'\], missing keys \['max_words'\]"):
        load_config(tmp_path, "mine")


INDEX = {"source": "openi", "folder": "index", "views": "frontal", "min_word_count": 3, "min_fine_label_count": 10,
         "max_words": 60}  # fmt: skip


def test_an_index_needs_neither_count_nor_seed() -> None:
    config = from_dict(DataConfig, INDEX)
    assert (config.count, config.labels) == (0, "rules")
    assert from_dict(DataConfig, {**INDEX, "source": "mimic_cxr", "views": "ap", "labels": "chexpert"}).views == "ap"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": "ap"}, "data.views: expected one of frontal, both for openi, got 'ap'"),
        ({"source": "mimic_cxr", "views": "both"}, "data.views: expected one of ap, frontal, all for mimic_cxr"),
        ({"folder": ""}, "data.folder: openi needs the folder of its index. Make one: cxr-lens data"),
        ({"labels": "chexpert"}, "data.labels: of openi it is rules, not 'chexpert'"),
        ({"labels": "chexbert"}, "labels: expected one of rules, chexpert, negbio"),
        ({"source": "phantom"}, "data.count: phantoms are made to order"),
        ({"source": "iu_xray"}, "source: expected one of phantom, openi, mimic_cxr"),
    ],
)
def test_contradictions_of_an_index_are_named(change: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        from_dict(DataConfig, {**INDEX, **change})


def fields(kind: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full names and types of all fields of a config."""
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            yield from fields(hint, f"{prefix}{name}.")
        else:
            yield prefix + name, hint


NUMBERS = {
    name: hint
    for name, hint in fields(ExperimentConfig)
    if (typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint) in (int, float)
}


def test_every_number_of_a_preset_declares_its_range() -> None:
    assert len(NUMBERS) > 45
    for name, hint in NUMBERS.items():
        ranges = [each for each in getattr(hint, "__metadata__", ()) if isinstance(each, Range)]
        assert len(ranges) == 1, f"{name} says no range"


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_outside_its_range_is_refused_by_its_name(name: str) -> None:
    (limit,) = NUMBERS[name].__metadata__
    whole = NUMBERS[name].__origin__ is int
    below = limit.low if limit.above else limit.low - 1
    for wrong in (below, -(10**400), 10**400, *(() if whole else (math.nan, math.inf, -math.inf, 0.0 - 1e-9))):
        values = to_dict(load_config(PRESETS, "phantom"))
        *parents, last = name.split(".")
        table = values
        for parent in parents:
            table = table[parent]
        table[last] = int(wrong) if whole else wrong
        with pytest.raises(ConfigError, match=rf"^{re.escape(name)}: must be (at least|above|at most) "):
            from_dict(ExperimentConfig, values)


@pytest.mark.parametrize("text", ["1" + "0" * 400, "1" + "0" * 5000])
def test_a_number_of_hundreds_of_digits_is_a_message(text: str) -> None:
    with pytest.raises(ConfigError, match="report.epochs: "):
        load_config(PRESETS, "phantom", [f"report.epochs={text}"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoders=['fvee']", "Did you mean 'fve'"),
        ("decoders=['transformers']", "Did you mean 'transformer'"),
        ("report.epoch=3", "Did you mean 'report.epochs'"),
        ("epochs=3", "epochs: no such key"),
        ("clip.negatives=bach", "Did you mean 'batch'"),
        ("size=tinny", "Did you mean 'tiny'"),
        ("encoders=[]", "encoders: name at least one, and each once"),
        ("decoders=['m2','m2']", "decoders: name at least one, and each once"),
        ('name="../elsewhere"', "name: '../elsewhere' names folders"),
        ('name=""', "name: '' names folders"),
    ],
)
def test_what_is_unknown_is_answered_with_the_nearest(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        load_config(PRESETS, "phantom", [override])


def test_a_row_that_lacks_the_size_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {name: each for name, each in ENCODERS["cve"].sizes.items() if name != "small"}
    monkeypatch.setitem(ENCODERS, "cve", dataclasses.replace(ENCODERS["cve"], sizes=sizes))  # type: ignore[call-overload]
    with pytest.raises(ConfigError, match="size: cve has no size 'small', only paper, tiny. Leave it out of encoders"):
        load_config(PRESETS, "phantom", ["size=small"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("classifier.batch_size=0", "classifier.batch_size: must be at least 1, got 0"),
        ("clip.epochs=-1", "clip.epochs: must be at least 1, got -1"),
        ("clip.batch_size=1", "clip.batch_size: must be at least 2"),  # a pair alone has nothing to be told from
        ("report.learning_rate=-0.1", "report.learning_rate: must be above 0"),
        ("report.learning_rate=0.0", "report.learning_rate: must be above 0"),
        ("cluster_clip.weight_decay=nan", "cluster_clip.weight_decay: must be at least 0, got nan"),
        ("classifier.margin=inf", "classifier.margin: must be above 0, got inf"),
        ("write.beam_size=0", "write.beam_size: must be at least 1"),
        ("evaluate_studies=-5", "evaluate_studies: must be at least 0"),
        ("data.max_words=2", "data.max_words: must be at least 3"),  # START, a word, END
        ("backbone.epochs=0", "backbone.epochs and backbone.learning_rate must be above 0"),
        ("backbone.count=0", "backbone.count: phantoms are made to order"),
    ],
)
def test_numbers_are_checked_before_anything_runs(change: str, told: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(told)):
        load_config(PRESETS, "phantom", [change])
