"""The paper's study of CCVE (section 4.3.1) with the controls that it lacks.

Paper: flatten 13 x 640, PCA to 2,000 (about 70 % of the variance), CatBoost, ROC-AUC 0.711 on "disease
classification"; labels, split and CatBoost's settings are not given (paper-notes 6.5). Ours: one model an observation,
mean AUC, everything fitted on the training split; beside it a linear probe, raw features, the same probes on DVE, FVE
and CVE, on CCVE with random filters as strong as the learned ones and without any, and how much of CCVE's own task the
filter's index gives away. The probes' macro F1 is that of Table 1, over the same fourteen observations: what a report
could say that says all that a probe reads, and nothing else. A pair far below its encoder's probe loses findings in its
decoder.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.encoders import Encoder
from core.encoders.ccve import ClusterClipEncoder
from core.encoders.random_filters import with_random_filters, without_filters
from core.encoders.token_cache import TokenCache, write_token_cache
from core.evaluation.auc import macro_aucs, weighted_aucs
from core.evaluation.clinical import clinical_statistics
from core.evaluation.finds import Share
from core.evaluation.matching import AMONG as MATCH
from core.evaluation.matching import matched
from core.evaluation.metrics import METRICS
from core.evaluation.resampling import StudyStatistics, intervals
from core.observations import CLUSTERS, OBSERVATIONS, LabelState
from core.paper.filter_map import FilterMap
from core.paper.tables import Cell, PaperTable, Row, paper_numbers
from core.projection.methods import ProjectionConfig, project
from core.registry import ENCODERS
from core.types import SPLITS, CXRLensError, Split, Study
from training.console import note
from training.data import StudyData, to_images
from training.evaluate import cards_of
from training.identity import content_hash
from training.paper.probes import (
    Labelled,
    Scores,
    Tell,
    catboost_probe,
    decide,
    linear_probe,
    reduce,
    require_catboost,
    require_components,
    usable,
)
from training.paper.tables import OTHER_DATA
from training.run_folder import StageError

Floats = npt.NDArray[np.float32]
RANDOM = "ccve, random filters"
UNFILTERED = "ccve, no filter"
CONTROLS = {RANDOM: "CCVE with random filters as strong", UNFILTERED: "CCVE without filters"}
SAMPLE = 64
"""Training images on which random filters get the learned ones' strength."""
MAP_STUDIES = 100
"""Held-out studies on the map: 1,300 points in each of its two halves."""
SHUFFLES = 8
"""Permutations of the labels in the control that must find nothing."""
F1_NOTE = (
    "Macro F1 as in Table 1, over the fourteen observations, at the thresholds with the best F1 on the validation "
    "split; an observation that is left out is never claimed and counts as 0."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyConfig:
    """How the study is made.

    Attributes:
        components: of PCA; None keeps ``variance``. The paper's 2,000 belong to 8,320 features.
        variance: src: paper 4.3.1, "about 70 %".
        iterations: of CatBoost at most; it stops early on the validation split. Ours.
        depth: of its trees; ours, CatBoost's default is 6.
        threads: of CatBoost.
        studies: of each split at most, the first; 0 is all.
    """

    components: int | None = None
    variance: float = 0.7
    iterations: int = 200
    depth: int = 4
    threads: int = 1
    studies: int = 0

    def __post_init__(self) -> None:
        """Refuse before hours of encoding."""
        if not 0 < self.variance < 1:
            raise StageError(f"The share of variance to keep is between 0 and 1, not {self.variance:g}.")


def ccve_study(
    data: StudyData,
    bundles: Path,
    family: str,
    config: StudyConfig,
    work: Path,
    paper: Path,
    command: str,
    device: str = "cpu",
) -> tuple[PaperTable, FilterMap]:
    """Run the study on a family's bundles.

    Args:
        data: studies and images.
        bundles: folder of the bundles; no training run is needed.
        family: of the bundles.
        config: numbers.
        work: where encoded studies are kept, so that an interrupted study goes on.
        paper: folder of the paper's numbers.
        command: that runs it again.
        device: where the encoders compute; see `core.devices.open_device`. In fp32: what they know is asked, not what
            rounding leaves of it.

    Returns:
        The table, and :func:`filter_map` of the first held-out studies.

    Raises:
        StageError: CatBoost or a bundle is missing, there are fewer studies than PCA components, or no class has
            both kinds.
    """
    cards = _first_pairs(family, bundles)
    require_catboost()
    most = config.studies or None
    labels = usable({split: data.coarse_targets(split).numpy()[:most] for split in SPLITS}, OBSERVATIONS)
    require_components(config.components, len(labels.targets["train"]), "training studies")
    encoders = _encoders(data, bundles, cards, device)
    tokens = {
        name: {split: _tokens(data, split, most, encoder, key, work / name.replace(", ", "-")) for split in SPLITS}
        for name, (encoder, key) in encoders.items()
    }
    flat: dict[str, dict[Split, Floats]] = {
        name: {split: values.reshape(len(values), -1) for split, values in splits.items()}
        for name, splits in tokens.items()
    }
    scores: dict[str, Scores] = {}
    about: dict[str, tuple[str, str, str]] = {}  # name of a row -> encoder, probe, remark

    def probe(row: str, encoder: str, kind: str, values: Scores, remark: str = "") -> None:
        scores[row], about[row] = values, (encoder, kind, remark)

    def tell(what: str) -> None:
        note(f"  {what}")

    for name, features in flat.items():
        note(f"▸ probes of {name}: {features['train'].shape[1]:,} features")
        reduced = reduce(features, config.components, config.variance)
        options = {"iterations": config.iterations, "depth": config.depth, "threads": config.threads}
        kept = f"{reduced.components:,} components keep {reduced.variance:.0%} of the variance."
        probe(
            f"{_title(name)}: PCA, CatBoost",
            name,
            "pca_catboost",
            catboost_probe(reduced.features, labels, **options, tell=tell),  # type: ignore[arg-type]
            kept,
        )
        if name == "ccve":
            raw = catboost_probe(features, labels, **options, tell=tell)  # type: ignore[arg-type]
            probe(f"{_title(name)}: raw features, CatBoost", name, "raw_catboost", raw)
        values, strength = linear_probe(features, labels, tell=tell)
        probe(f"{_title(name)}: raw features, linear", name, "linear", values, f"C = {strength:g}.")

    tested = data.studies["test"][:most]
    subjects = [study.subject_id for study in tested]
    aucs = {row: values["test"] for row, values in scores.items()}
    measured = macro_aucs(labels.targets["test"], aucs, subjects=subjects)
    printed = paper_numbers(paper, "ccve")
    rows = []
    for row, (encoder, kind, remark) in about.items():
        value, draws = measured[row]
        low, high = np.quantile(draws, [0.025, 0.975]).tolist()
        number = printed.get((encoder, kind), {}).get("auc")
        f1 = claims_f1(tested, decide(scores[row], labels), labels.names)
        ends, defined = intervals(f1, subjects=subjects), f1.scores()
        rows.append(
            Row(
                name=row,
                kind="control" if encoder in CONTROLS else "system",
                keys={"encoder": encoder, "probe": kind},
                metrics={
                    "auc": Cell(value=value, low=low, high=high, paper=number),
                    **{
                        score: Cell(value=value, low=ends[score].low, high=ends[score].high)
                        for score, value in defined.items()
                        if np.isfinite(value)
                    },
                },
                note=remark,
            )
        )
    rows.append(shuffled_row(flat["ccve"], labels, tested, tell))
    cluster_clip = encoders["ccve"][0]
    assert isinstance(cluster_clip, ClusterClipEncoder)
    rows += leak_rows(data, cluster_clip, device)
    notes = [OTHER_DATA, F1_NOTE, *_comparisons(measured)]
    if labels.left_out:
        notes.append("Left out: " + "; ".join(f"{name} ({why})" for name, why in labels.left_out.items()) + ".")
    table = PaperTable(
        name="ccve",
        family=family,
        metrics={
            "auc": f"mean ROC-AUC of {len(labels.names)} observations",
            "f1": "macro F1",
            "f1_frequent": METRICS["f1_frequent"].title,
            "match": f"matched among {MATCH}",
        },
        rows=tuple(rows),
        n=len(tested),
        seeds=(),
        command=command,
        data=f"{family}, fingerprint {data.fingerprint()}; learned from {len(labels.targets['train']):,} studies.",
        notes=tuple(notes),
    )
    studies = [study.study_id for study in tested][:MAP_STUDIES]
    return table, filter_map(studies, tokens["ccve"]["test"], tokens[RANDOM]["test"])


def claims_f1(studies: Sequence[Study], claimed: npt.NDArray[np.bool_], names: Sequence[str]) -> StudyStatistics:
    """Macro F1 over the fourteen observations of what a probe claims, scored as a report's labels are.

    Args:
        studies: with their labels.
        claimed: (studies, K).
        names: of the K observations; the others are never claimed.
    """
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    states = [
        blank | {name: LabelState.POSITIVE for name, positive in zip(names, row, strict=True) if positive}
        for row in claimed.tolist()
    ]
    return clinical_statistics([study.labels for study in studies], states).select("f1", "f1_frequent")


def shuffled_row(features: Mapping[Split, Floats], labels: Labelled, tested: Sequence[Study], tell: Tell) -> Row:
    """A linear probe that learned the labels of other studies, the mean of some permutations.

    One alone may be some hundredths off 0.5: all observations are read along the same few directions of the features,
    so their errors are one error. An interval over studies does not know that.
    """
    one = np.ones((1, len(tested)))
    aucs, f1s = [], []
    for seed in range(SHUFFLES):
        tell(f"labels of other studies, permutation {seed + 1} of {SHUFFLES}")
        scores, _ = linear_probe(features, _shuffled(labels, seed), tell=lambda _: None)
        aucs.append(float(weighted_aucs(labels.targets["test"], scores["test"], one).mean()))
        f1s.append(claims_f1(tested, decide(scores, labels), labels.names).scores()["f1"])
    return Row(
        name="CCVE: linear, labels of other studies",
        kind="control",
        keys={"encoder": "ccve", "probe": "linear_shuffled"},
        metrics={"auc": Cell(value=float(np.mean(aucs))), "f1": Cell(value=float(np.mean(f1s)))},
        note=f"Mean of {SHUFFLES} permutations, whose AUC is from {min(aucs):.3f} to {max(aucs):.3f}; near 0.5.",
    )


def leak_rows(data: StudyData, encoder: ClusterClipEncoder, device: str = "cpu") -> list[Row]:
    """How often the right text is the nearest, of held-out pairs, with and without a look at the radiograph.

    The filter of a pair is chosen from its text. An image without content, through that filter, can therefore still
    find its text: what it finds so is the label leak (paper-notes 1.4). Texts that are equal count as right.
    """
    pairs = data.cluster_pairs("test")
    side = encoder.normalize.image_size
    images = data.images("test", side)
    mean = np.asarray(data.images("train", side)[:500], dtype=np.float32).mean(0).round().astype(np.uint8)
    texts = [text for _, _, text in pairs]
    clusters = torch.tensor([cluster for _, cluster, _ in pairs])
    rows = []
    with torch.inference_mode():
        words = _batched(encoder.clip.text.tokenize(texts).to(device), encoder.clip.text).cpu()
        sides = {
            "its radiograph": to_images(np.asarray(images[[study for study, _, _ in pairs]])),
            "the mean radiograph": to_images(mean[None]).expand(len(pairs), -1, -1, -1),
        }
        for name, seen in sides.items():
            own = torch.cat(
                [
                    encoder.embed_pairs(seen[part].to(device), clusters[part].to(device)).cpu()
                    for part in torch.arange(len(pairs)).split(MATCH)
                ]
            )
            for among, where in (("any", None), ("the same cluster", clusters.tolist())):
                found = matched(own.numpy(), words.numpy(), texts, groups=where, among=MATCH)
                rows.append(
                    Row(
                        name=f"CCVE: text by {name}, among texts of {among}",
                        kind="control" if name == "the mean radiograph" else "system",
                        keys={"encoder": "ccve", "probe": "match"},
                        metrics={"match": _match_cell(found.share)},
                        note=f"{found.share.among:,} held-out pairs in groups of up to {MATCH}; by chance "
                        f"{found.chance:.3f}.",
                    )
                )
    return rows


def filter_map(studies: Sequence[str], trained: Floats, random: Floats) -> FilterMap:
    """t-SNE of all filters' embeddings of some studies, trained and with random filters (paper's Figure 4).

    Args:
        studies: ids.
        trained: (studies and more, 13, D).
        random: likewise.
    """
    settings = ProjectionConfig(method="t-SNE")

    def coordinates(tokens: Floats) -> npt.NDArray[np.float64]:
        chosen = tokens[: len(studies)]
        placed = project(chosen.reshape(-1, chosen.shape[-1]), settings).coordinates
        return placed.reshape(len(studies), len(CLUSTERS), 2).astype(np.float64)

    return FilterMap(
        studies=tuple(studies),
        filters=tuple(CLUSTERS),
        settings=settings.used(),
        trained=coordinates(trained),
        random_filters=coordinates(random),
    )


def _first_pairs(family: str, bundles: Path) -> dict[str, Card]:
    """Name of an encoder -> card of its first pair.

    Raises:
        StageError: an encoder has none.
    """
    cards: dict[str, Card] = {}
    for card in cards_of(family, bundles):
        cards.setdefault(card.encoder, card)
    if missing := [name for name in ENCODERS if name not in cards]:
        raise StageError(
            f"The study needs bundles of {', '.join(ENCODERS)}; {bundles} has none of the family '{family}' with "
            f"{', '.join(missing)}. Run: cxr-lens train --preset {family}"
        )
    return cards


def _encoders(
    data: StudyData, bundles: Path, cards: Mapping[str, Card], device: str = "cpu"
) -> dict[str, tuple[Encoder, str]]:
    """Name -> encoder and a hash of its weights; of DVE, which has one a decoder, the first pair's."""
    library = BundleLibrary(bundles, device)
    found: dict[str, tuple[Encoder, str]] = {}
    for name in ("ccve", *(name for name in ENCODERS if name != "ccve")):
        card = cards[name]
        encoder = library.load(card.name).encoder
        key = content_hash(card.content["encoder"]["shared"] or card.content["sha256"])
        found[name] = (encoder, key)
        if isinstance(encoder, ClusterClipEncoder):
            sample = to_images(np.asarray(data.images("train", encoder.normalize.image_size)[:SAMPLE]))
            found[RANDOM] = (with_random_filters(encoder, sample), key + "-random-as-strong")
            found[UNFILTERED] = (without_filters(encoder), key + "-unfiltered")
    return found


def _tokens(data: StudyData, split: Split, most: int | None, encoder: Encoder, key: str, folder: Path) -> Floats:
    images = data.images(split, int(encoder.normalize.image_size))[:most]
    full = content_hash([key, data.fingerprint(), split, most])
    try:
        cache = TokenCache.open(folder / split, full)
    except CXRLensError:  # none yet, or of other weights
        with tqdm(total=len(images), desc=f"  {folder.name}, {split}", unit="study") as bar:
            write_token_cache(
                folder / split,
                full,
                encoder,
                lambda start, end: to_images(images[start:end]).to(encoder.normalize.mean.device),
                len(images),
                lambda done, _: bar.update(done - bar.n),
            )
        cache = TokenCache.open(folder / split, full)
    return cache.tokens(list(range(len(cache)))).float().numpy()


def _batched(ids: Tensor, tower: Any) -> Tensor:
    return functional.normalize(torch.cat([tower(part) for part in ids.split(256)]), dim=1)


def _match_cell(share: Share) -> Cell:
    low, high = share.interval or (None, None)
    return Cell(value=share.value or 0.0, low=low, high=high)


def _shuffled(labels: Labelled, seed: int) -> Labelled:
    random = np.random.default_rng(seed)
    mixed = {
        split: values if split == "test" else values[random.permutation(len(values))]
        for split, values in labels.targets.items()
    }
    return dataclasses.replace(labels, targets=mixed)


def _title(name: str) -> str:
    return CONTROLS.get(name) or ENCODERS[name].title


def _comparisons(measured: Mapping[str, tuple[float, npt.NDArray[np.float64]]]) -> list[str]:
    """CCVE less its random filters, less itself without filters, and less CVE, on the same draws."""
    sentences = []
    for kind in ("PCA, CatBoost", "raw features, linear"):
        for other in (*CONTROLS.values(), ENCODERS["cve"].title):
            (ours, draws), (theirs, others) = measured[f"CCVE: {kind}"], measured[f"{other}: {kind}"]
            low, high = np.quantile(draws - others, [0.025, 0.975]).tolist()
            sentences.append(
                f"{kind}: CCVE less {other} {ours - theirs:+.3f} (95 % {low:+.3f} to {high:+.3f}), paired."
            )
    return sentences
