"""Configuration: frozen dataclasses, one TOML preset, ``key=value`` overrides. Imports no torch.

The dataclasses have no default for a scientific number: the preset is where a number lives, with its source. A number
that came later has one, which leaves what was trained before it as it was (``identity``).
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from core.paths import how_to_restore
from core.registry import DECODERS, ENCODERS, Size, did_you_mean, encoder_parts
from core.registry import image_size as usual_image_size
from core.settings import (
    AS_THE_PRESET_SAYS,
    GENTLE,
    AugmentConfig,
    BackboneConfig,
    ConfigError,
    Count,
    Momentum,
    Positive,
    Range,
    Rate,
    Seed,
    StartConfig,
    StepConfig,
    Weight,
    WriteConfig,
)
from core.types import Fit
from core.views import view_choices

Config = TypeVar("Config")

_LABELS = {"openi": ("rules",), "mimic_cxr": ("rules", "chexpert", "negbio"), "table": ("rules", "given")}


@dataclass(frozen=True, slots=True, kw_only=True)
class DataConfig:
    """Which studies.

    Attributes:
        source: name of the study source.
        count: studies in all splits together, of the phantom.
        seed: of the phantom.
        folder: of the index of Open-i, MIMIC-CXR or a table, as `cxr-lens data` makes it.
        views: which images of an index, see `core.views.view_choices`.
        labels: of the 14 observations: by our rules from the findings, from MIMIC-CXR's own tables, or as a table gives
            them.
        min_word_count: rarer words become <unknown>.
        min_fine_label_count: rarer fine labels are left out; counted on the training split only.
        max_words: longest target, START and END counted.
        removed_words: whether models learn to write what stands for words that a de-identification removed ("XXXX",
            "___"), as published code does; otherwise it is taken out of what is learned from, never out of references.
        impressions: whether training studies with an impression and no findings teach classifiers and CLIP too, but not
            decoders. R2Gen's split lacks Open-i's: `cxr-lens data openi --split r2gen+`.
        fit: how an image becomes the square that models read: "pad" keeps its proportions, "stretch" gives every image
            those of the training images, where they are lost already or shall not matter.
        aspect: width through height of stretched images; 1 is a square.
        trim: cut borders of one grey first; `core.studies.images.trim_borders`.
    """

    source: Literal["phantom", "openi", "mimic_cxr", "table"]
    count: Count = 0
    seed: Seed = 0
    folder: str = ""
    views: str = ""
    labels: Literal["rules", "chexpert", "negbio", "given"] = "rules"
    min_word_count: Positive
    min_fine_label_count: Positive
    max_words: Annotated[int, Range(3, high=2**31 - 1)]
    removed_words: bool = False
    impressions: bool = False
    fit: Literal["pad", "stretch"] = "pad"
    aspect: Annotated[float, Range(0.1, high=10)] = 1.0
    trim: bool = False

    @property
    def as_fit(self) -> Fit:
        """How images are fitted; goes onto the cards of bundles."""
        return Fit(self.fit, self.aspect, self.trim)

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if self.source == "phantom":
            if self.count <= 0:
                raise ConfigError("data.count: phantoms are made to order, say how many.")
            if self.impressions:
                raise ConfigError("data.impressions: every phantom has findings. Set it to false.")
            return
        if self.views not in (views := view_choices(self.source)):
            raise ConfigError(f"data.views: expected one of {', '.join(views)} for {self.source}, got '{self.views}'.")
        if not self.folder:
            raise ConfigError(
                f"data.folder: {self.source} needs the folder of its index. Make one: cxr-lens data --help."
            )
        if self.labels not in (known := _LABELS[self.source]):
            raise ConfigError(f"data.labels: of {self.source} it is {' or '.join(known)}, not '{self.labels}'.")


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassifierConfig(StepConfig):
    """CDC and FGC.

    Attributes:
        epochs: at most.
        batch_size: studies.
        learning_rate: of Adam, at its highest.
        weight_decay: decoupled.
        warmup_epochs: with cross-entropy, before the AUC margin loss.
        margin: m of the AUC margin loss.
        patience: epochs without a better mean AUC before stopping.
        augment: change the images a little, see `AugmentConfig`.
        optimizer: "adamw"; "pesg" runs the AUC margin loss with LibAUC's optimiser after an AdamW warm-up; "sam" is
            sharpness-aware AdamW, the paper's choice for ViT and Swin in Table 2.
        sam_rho: radius of SAM's ascent. src: davda54/sam's default; the paper has none.
        pesg_learning_rate: src: LibAUC, several labels (paper-notes 4.3).
        pesg_decay: pull towards the mean of earlier weights. src: LibAUC, 1/500.
        pesg_momentum: weight of the new direction beside that of the steps before; 0 takes the new one alone. src:
            LibAUC 2.0.
        class_aware: half of each batch has a positive of a class, all classes in turn.
    """

    epochs: Positive
    batch_size: Positive
    learning_rate: Rate
    weight_decay: Weight
    warmup_epochs: Count
    margin: Rate
    patience: Positive
    augment: bool
    optimizer: Literal["adamw", "pesg", "sam"] = "adamw"
    sam_rho: Rate = 0.05
    pesg_learning_rate: Rate = 0.1
    pesg_decay: Weight = 0.002
    pesg_momentum: Momentum = 0.9
    class_aware: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipConfig(StepConfig):
    """CLIP and cluster CLIP.

    Attributes:
        epochs: at most.
        batch_size: pairs.
        learning_rate: of the towers.
        filter_learning_rate: of CCVE's filters; at the towers' rate they would stay near their start (paper-notes 1.4).
        weight_decay: decoupled; not on gains, biases, norms and the temperature.
        patience: epochs without a lower validation loss before stopping.
        augment: as for the classifiers.
        freeze_norms: keep batch norms at their pretrained statistics.
        mask_duplicates: do not count pairs with the same text as negatives of each other.
        filters: kind of CCVE's filters (`core.encoders.filters`): "bank" starts as thirteen known filters.
        negatives: "batch", or "same_cluster" (a filter must not be told by its image alone).
        feature: what CVE hands on, "dense" or "layer4".
        gate: of independent filters, at the start; at 0 they change nothing.
        gate_learning_rate: of these gates; 0 is the filters' own.
        absent: the text of a cluster is also compared with an image without it through the same filter, one a pair.
            What a filter leaves on every image alike does not tell the two apart.
        across_filters: the text of a cluster is also compared with the same image through another filter, one a pair.
        class_aware: every second pair is of a cluster, all in turn, so that rare ones are learned.
        group_clusters: put pairs of like clusters into a batch.
        train_tower: else the image tower stays as it is, and only the filters and the text tower learn.
    """

    epochs: Positive
    batch_size: Annotated[int, Range(2, high=2**31 - 1)]
    learning_rate: Rate
    filter_learning_rate: Rate
    weight_decay: Weight
    patience: Positive
    augment: bool
    freeze_norms: bool
    mask_duplicates: bool
    filters: Literal["independent", "shared_stem", "bank"]
    negatives: Literal["batch", "same_cluster"]
    feature: Literal["dense", "layer4"]
    gate: Weight = 0.0
    gate_learning_rate: Weight = 0.0
    absent: bool = False
    across_filters: bool = False
    class_aware: bool = False
    group_clusters: bool = False
    train_tower: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportConfig(StepConfig):
    """Decoders, and DVE with them.

    Attributes:
        epochs: at most, for decoders of frozen encoders.
        epochs_direct: at most, for DVE, which trains with its decoder.
        batch_size: studies.
        learning_rate: of the decoder, at its highest.
        image_learning_rate: of DVE.
        weight_decay: decoupled.
        stop_weight: of the stop control loss.
        patience: epochs without a better validation score before stopping.
        augment: for DVE, as for the classifiers.
        abnormal_first: one order of sentences (``core.labels.order``) for decoders that plan them or read findings.
        class_aware: every second study is a positive of an observation, all in turn, so that rare ones are learned.
        group_lengths: put reports of like length into a batch, for speed.
        monitor: the greedy validation reports' score whose best epoch is kept: BLEU-4, or clinical macro F1.
        validate_studies: of the validation split that each epoch writes reports for, the first; 0 is all.
        layers: of the Transformer's and M2's encoder and decoder each; 0 is the size's own number (`core.registry`).
        cls_token: whether these two read a CLS token before the image's; the published code has none (paper-notes 2).
        word_scale: of word embeddings: the root of "width", or, as published, of data.max_words (paper-notes 3.0).
        drifting_norms: the published code's fault, to measure it: batch norms of "frozen" encoders normalise by the
            decoder's batches and go on learning their statistics (paper-notes 1.5). Images are encoded at every step.
        precision: "bf16" computes its steps in bfloat16 where that is safe, for speed; weights, the loss and what
            validation writes stay in fp32.
        findings_first: a linear reading of a frozen encoder's tokens finds observations, and decoders read these too
            (`core.decoders.findings`). Not where tokens change while the decoder learns: of DVE, and of joint encoders.
        findings_penalty: of that reading's weights: the inverse of scikit-learn's C, of standardised tokens.
    """

    epochs: Positive
    epochs_direct: Positive
    batch_size: Positive
    learning_rate: Rate
    image_learning_rate: Rate
    weight_decay: Weight
    stop_weight: Weight
    patience: Positive
    augment: bool
    abnormal_first: bool
    class_aware: bool = False
    group_lengths: bool = False
    monitor: Literal["bleu_4", "f1"] = "bleu_4"
    validate_studies: Count = 200
    layers: Count = 0
    cls_token: bool = True
    word_scale: Literal["width", "max_words"] = "width"
    drifting_norms: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    findings_first: bool = False
    findings_penalty: Rate = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentConfig:
    """A whole run.

    Attributes:
        name: of the preset, of its folder of runs and of the family of its bundles.
        size: of the models.
        seed: of everything that is random in training.
        pretrained: start from published weights.
        encoders: which to train; names joined by "+" feed one decoder jointly ("fve+ccve").
        decoders: which to train for each.
        augment: how training images are changed, where a stage asks for it.
        evaluate_studies: held-out studies that are scored, the first of the test split; 0 is all.
        image_size: side of the images that encoders read, pixels, a multiple of 32; 0 is that of the size.
        start: the weights that single encoders start from.
        encoders_from: folder of this preset's bundles whose encoders are taken as they are; "" trains encoders.
    """

    name: str
    size: Size
    seed: Seed
    pretrained: bool
    encoders: tuple[str, ...]
    decoders: tuple[str, ...]
    evaluate_studies: Count
    data: DataConfig
    backbone: BackboneConfig
    classifier: ClassifierConfig
    clip: ClipConfig
    cluster_clip: ClipConfig
    report: ReportConfig
    write: WriteConfig
    image_size: Count = 0
    start: StartConfig = AS_THE_PRESET_SAYS
    encoders_from: str = ""

    def image_side(self, encoder: str) -> int:
        """Side of the images that an encoder, or several jointly, read, pixels."""
        return self.image_size or usual_image_size(encoder, self.size)

    augment: AugmentConfig = GENTLE

    def __post_init__(self) -> None:
        """Refuse contradictions."""
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise ConfigError(f"name: '{self.name}' names folders: letters, digits, '_', '-' and '.', no other signs.")
        parts = [part for name in self.encoders for part in encoder_parts(name)]
        for key, names, known in (("encoders", parts, ENCODERS), ("decoders", self.decoders, DECODERS)):
            for name in names:
                if name not in known:
                    raise ConfigError(f"{key}: unknown '{name}'.{did_you_mean(name, known)} Known: {', '.join(known)}.")
                if self.size not in known[name].sizes:
                    sizes = ", ".join(known[name].sizes)
                    raise ConfigError(f"size: {name} has no size '{self.size}', only {sizes}. Leave it out of {key}.")
        for key, names in (("encoders", self.encoders), ("decoders", self.decoders)):
            if not names or len(set(names)) < len(names):
                raise ConfigError(f"{key}: name at least one, and each once.")
        for name in self.encoders:
            parts = list(encoder_parts(name))
            if len(parts) > 1 and (len(set(parts)) < len(parts) or not all(ENCODERS[part].frozen for part in parts)):
                raise ConfigError(f"encoders: '{name}' must join different encoders that are frozen.")
            if len(parts) > 1 and self.report.drifting_norms:
                raise ConfigError(f"report.drifting_norms is for single encoders, not '{name}'. Leave one of them out.")
        if self.image_size % 32 or (self.image_size and self.size == "paper"):
            raise ConfigError(
                f"image_size: {self.image_size} at size {self.size}: it is 0, or a multiple of 32 at sizes small and "
                "tiny. The paper's encoders have sides of their own."
            )
        if self.encoders_from and self.report.drifting_norms:
            raise ConfigError("report.drifting_norms: encoders_from takes encoders as they are. Leave one of them out.")
        for name in ENCODERS:
            if self.start.of(name) == "published" and self.size == "tiny":
                raise ConfigError(f"start.{name}: nobody has published weights of size tiny. Set it to random.")
        kind = self.data.source
        if self.backbone.laterals and (kind == "phantom" or view_choices(kind)[self.data.views].views is None):
            raise ConfigError("backbone.laterals: there are none, or data.views has them among all images already.")
        if self.backbone.codes and kind != "openi":
            raise ConfigError(f"backbone.codes: only Open-i has codes that people gave, not {kind}.")
        phantoms = self.backbone.source == "phantom"
        if phantoms and self.pretrained:
            raise ConfigError("backbone.source: encoders start from published weights or from phantoms, not both.")
        if phantoms and self.data.source == "phantom" and self.backbone.seed == self.data.seed:
            raise ConfigError("backbone.seed must differ from data.seed: held-out phantoms would be among its own.")
        if self.classifier.warmup_epochs > self.classifier.epochs:
            raise ConfigError(
                f"classifier.warmup_epochs ({self.classifier.warmup_epochs}) must not exceed "
                f"classifier.epochs ({self.classifier.epochs})."
            )


def load_config(folder: Path, preset: str, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """Read a preset and change it.

    Args:
        folder: of the presets that come with the code.
        preset: name of one of them, or path of a TOML file.
        overrides: "key.key=value", the value written as in TOML; a bare word is taken as a string.

    Raises:
        ConfigError: no such preset or file, or a key or value that does not fit.
    """
    known = {each.stem: each for each in sorted(folder.glob("*.toml"))}
    if not known:
        raise ConfigError(f"{folder} holds no preset. {how_to_restore(folder)}")
    path = known.get(preset, Path(preset))
    if not path.is_file():
        raise ConfigError(
            f"There is no preset '{preset}': it is neither one of {', '.join(known)} nor the path of a TOML file."
            f"{did_you_mean(preset, known)}"
        )
    from core.schemas import read_bounded  # brings pydantic, which takes a while

    try:
        values = tomllib.loads(read_bounded(path, _PRESET_BYTES).decode("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror}).") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid TOML: it is nested too deep.") from error
    except ValueError as error:  # of TOML, or of text that is no UTF-8
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    config = from_dict(ExperimentConfig, values)
    if overrides:
        values = to_dict(config)  # with the keys that the preset leaves at their defaults
        for override in overrides:
            _override(values, override)
        config = from_dict(ExperimentConfig, values)
    return config


_PRESET_BYTES = 2**20
"""Of a preset; ours have some thousands."""


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise ConfigError(f"'{override}' is not of the form key=value.")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # no TOML, or a number of thousands of digits
        value = text.strip()
    *parents, last = key.strip().split(".")
    table: Any = values
    for parent in parents:
        table = table.get(parent) if isinstance(table, dict) else None
    if not isinstance(table, dict) or last not in table:
        raise ConfigError(f"{key}: no such key in the preset.{did_you_mean(key.strip(), _keys(values))}")
    table[last] = value


def _keys(values: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Full names of all values."""
    return [
        key
        for name, value in values.items()
        for key in (_keys(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [prefix + name])
    ]


def from_dict(kind: type[Config], values: Mapping[str, Any], prefix: str = "") -> Config:
    """Build a config dataclass from plain values.

    Raises:
        ConfigError: an unknown or missing key, a wrong type, or a number out of its range; the message has the key.
    """
    hints = typing.get_type_hints(kind, include_extras=True)
    defaults = {each.name: each.default for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(values) - set(defaults))
    missing = sorted(name for name, default in defaults.items() if default is MISSING and name not in values)
    if unknown or missing:
        where = prefix.rstrip(".") or "the preset"
        hint = did_you_mean(unknown[0], missing or defaults) if unknown else ""
        raise ConfigError(f"{where}: unknown keys {unknown}, missing keys {missing}.{hint}")
    return kind(**{name: _fit(hints[name], value, prefix + name) for name, value in values.items()})


def _fit(hint: Any, value: Any, key: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{key}: expected a table, got {value!r}.")
        return from_dict(typing.cast(type[Any], hint), value, f"{key}.")
    origin = typing.get_origin(hint)
    if origin is Annotated:
        number = _fit(hint.__origin__, value, key)
        for limit in hint.__metadata__:
            limit.check(number, key)
        return number
    if origin is Literal:
        if value not in typing.get_args(hint):
            known = typing.get_args(hint)
            raise ConfigError(
                f"{key}: expected one of {', '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}"
            )
        return value
    if origin is tuple:
        if not isinstance(value, list | tuple):
            raise ConfigError(f"{key}: expected a list, got {value!r}.")
        return tuple(_fit(typing.get_args(hint)[0], each, key) for each in value)
    if origin is types.UnionType:
        raise ConfigError(f"{key}: a field of two types cannot be read from a preset.")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value) if abs(value) < 2**1023 else math.inf * (1 if value > 0 else -1)
    if type(value) is not hint:
        raise ConfigError(f"{key}: expected {hint.__name__}, got {value!r}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Plain values of a config, as JSON has them."""
    plain: dict[str, Any] = {}
    for each in dataclasses.fields(config):
        value = getattr(config, each.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        if isinstance(value, tuple):
            value = [to_dict(one) if dataclasses.is_dataclass(one) else one for one in value]
        plain[each.name] = value
    return plain


def identity(config: Any, unused: Collection[str] = ()) -> dict[str, Any]:
    """Plain values of a config without those that are at their default: what names a training's result.

    So a number added later does not undo what was trained before it.

    Args:
        config: a config dataclass.
        unused: names of fields that change nothing where it is used.
    """
    standard = {
        each.name: to_dict(each.default) if dataclasses.is_dataclass(each.default) else each.default
        for each in dataclasses.fields(config)
    }
    return {name: value for name, value in to_dict(config).items() if name not in unused and value != standard[name]}
