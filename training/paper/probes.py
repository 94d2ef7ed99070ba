"""What features know of labels: PCA and CatBoost as in the paper's study of CCVE, and a linear probe."""

from __future__ import annotations

import importlib.util
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from core.evaluation.auc import both_kinds, weighted_aucs
from core.types import Split
from training.run_folder import StageError

Floats = npt.NDArray[np.float32]
Scores = dict[Split, Floats]
"""(n, K) of the validation and of the test split; higher is more likely."""
Tell = Callable[[str], None]
STRENGTHS = (1e-4, 1e-2, 1.0)
"""Inverse regularisation that the linear probe tries, the best mean AUC on the validation split is kept; ours."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """Targets by split, of the classes that can be learned and scored.

    Attributes:
        targets: split -> (n, K) in {0, 1}.
        names: of the K classes.
        left_out: classes without positives or without negatives in a split, with the split's name.
    """

    targets: Mapping[Split, Floats]
    names: tuple[str, ...]
    left_out: Mapping[str, str]


def usable(targets: Mapping[Split, Floats], names: Sequence[str]) -> Labelled:
    """Leave out classes without both kinds in a split.

    Raises:
        StageError: no class is left; the message names the splits.
    """
    kinds = {split: both_kinds(values) for split, values in targets.items()}
    left_out: dict[str, str] = {}
    for k, name in enumerate(names):
        for split, values in targets.items():
            if not kinds[split][k]:
                missing = "positives" if values[:, k].sum() == 0 else "negatives"
                left_out.setdefault(name, f"no {missing} in the {split} split")
    kept = [k for k, name in enumerate(names) if name not in left_out]
    if not kept:
        why = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise StageError(f"No class has both positives and negatives in every split ({why}). Take more studies.")
    return Labelled(
        {split: values[:, kept] for split, values in targets.items()}, tuple(names[k] for k in kept), left_out
    )


@dataclass(frozen=True, slots=True)
class Reduced:
    """Features by split on principal axes of the training split.

    Attributes:
        features: split -> (n, components).
        components: kept.
        variance: share of the training split's variance that they keep.
    """

    features: Mapping[Split, Floats]
    components: int
    variance: float


def reduce(features: Mapping[Split, Floats], components: int | None, variance: float, seed: int = 0) -> Reduced:
    """Fit PCA on the training split only.

    Args:
        features: split -> (n, D).
        components: how many, as the paper's 2,000; None keeps as many as ``variance`` needs.
        variance: share to keep, of (0, 1).
        seed: of the randomised solver, which a fixed number of components may use.

    Raises:
        StageError: more components than the training split has studies, or than there are features.
    """
    for most, what in sorted(zip(features["train"].shape, ("training studies", "features a study"), strict=True)):
        require_components(components, most, what)
    pca = PCA(n_components=components or variance, random_state=seed, svd_solver="auto" if components else "full")
    pca.fit(features["train"])
    return Reduced(
        {split: pca.transform(values).astype(np.float32) for split, values in features.items()},
        int(pca.n_components_),
        float(pca.explained_variance_ratio_.sum()),
    )


def require_components(components: int | None, most: int, what: str) -> None:
    """Refuse before hours of encoding.

    Args:
        components: that PCA is asked for; None is any number.
        most: that it can give.
        what: there are so many of.

    Raises:
        StageError: it is asked for more.
    """
    if components is not None and components > most:
        raise StageError(
            f"PCA cannot give {components:,} components from {most:,} {what}. Ask for {most:,} or fewer "
            "(--components), take more studies, or leave the number out: then a share of the variance decides."
        )


def require_catboost() -> None:
    """Refuse before hours of encoding.

    Raises:
        StageError: CatBoost is not installed.
    """
    if importlib.util.find_spec("catboost") is None:
        raise StageError("The CCVE study needs CatBoost: pip install 'cxr-lens[study]'.")


def catboost_probe(
    features: Mapping[Split, Floats], labels: Labelled, *, iterations: int, depth: int, threads: int, tell: Tell
) -> Scores:
    """One CatBoost model a class, stopped early on the validation split.

    Raises:
        StageError: CatBoost is not installed.
    """
    require_catboost()
    from catboost import CatBoostClassifier

    scores = _unscored(labels)
    for k, name in enumerate(labels.names):
        tell(f"CatBoost, {name}")
        model = CatBoostClassifier(
            iterations=iterations,
            depth=depth,
            random_seed=0,
            thread_count=threads,
            verbose=False,
            allow_writing_files=False,
        )
        model.fit(
            features["train"],
            labels.targets["train"][:, k],
            eval_set=(features["validate"], labels.targets["validate"][:, k]),
            early_stopping_rounds=30,
        )
        for split, values in scores.items():
            values[:, k] = model.predict(features[split], prediction_type="RawFormulaVal")
    return scores


def linear_probe(features: Mapping[Split, Floats], labels: Labelled, *, tell: Tell) -> tuple[Scores, float]:
    """One logistic regression a class on standardised features.

    Returns:
        Scores, and the inverse regularisation of ``STRENGTHS`` that was best on validation.
    """
    scaler = StandardScaler().fit(features["train"])
    scaled: dict[Split, Any] = {split: scaler.transform(values) for split, values in features.items()}
    best: tuple[float, float, Scores] | None = None
    models = [
        LogisticRegression(solver="lbfgs", warm_start=True, max_iter=200, tol=1e-3) for _ in labels.names
    ]  # warm: from strong to weak regularisation
    one = np.ones((1, len(labels.targets["validate"])))
    for strength in STRENGTHS:
        tell(f"linear probe, C = {strength:g}")
        scores = _unscored(labels)
        for k, model in enumerate(models):
            model.set_params(C=strength)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # 200 steps are the recipe, not a failure
                model.fit(scaled["train"], labels.targets["train"][:, k])
            for split, values in scores.items():
                values[:, k] = model.decision_function(scaled[split])
        auc = float(weighted_aucs(labels.targets["validate"], scores["validate"], one).mean())
        if best is None or auc > best[0]:
            best = (auc, strength, scores)
    assert best is not None and math.isfinite(best[0])
    return best[2], best[1]


def decide(scores: Scores, labels: Labelled) -> npt.NDArray[np.bool_]:
    """Claim a class of a test study where its score reaches the threshold with the best F1 on the validation split.

    Of thresholds that are equally good the highest is taken, which claims least.

    Returns:
        (test studies, K).
    """
    claimed = np.empty(labels.targets["test"].shape, dtype=bool)
    for k in range(len(labels.names)):
        seen, true = scores["validate"][:, k], labels.targets["validate"][:, k]
        values, group = np.unique(-seen, return_inverse=True)  # from the highest down
        hits = np.cumsum(np.bincount(group, weights=true))
        claims = np.cumsum(np.bincount(group))
        claimed[:, k] = scores["test"][:, k] >= -values[np.argmax(2 * hits / (claims + true.sum()))]
    return claimed


def _unscored(labels: Labelled) -> Scores:
    return {split: np.empty_like(labels.targets[split]) for split in ("validate", "test")}
