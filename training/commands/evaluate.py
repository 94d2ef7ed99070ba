"""``cxr-lens evaluate --source``: systems scored on the studies of any source, kept where pages find them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.types import CXRLensError
from training.console import note, print_result, print_text, progress_bar

if TYPE_CHECKING:
    from core.types import Split


def score_source(
    source: str,
    split: Split | None,
    bundles: Path,
    names: Sequence[str],
    scores: Path | None,
    as_json: bool,
) -> None:
    """Score systems on a source; what was done before is not done again.

    Args:
        source: of the studies.
        split: whose studies; None is all.
        bundles: folder of bundles.
        names: of bundles, and of systems that were added.
        scores: of other programs.
        as_json: whether results are printed as JSON.

    Raises:
        CXRLensError: as of `core.evaluation.own.evaluate_source`; or there is no such bundle or system.
    """
    from core.bundles.library import BundleLibrary
    from core.evaluation import own
    from core.evaluation.outside import read_scores
    from core.studies.sources import open_source
    from core.systems.added import system
    from training.evaluation_text import evaluation_markdown
    from training.scores import keep_scores, scores_markdown

    library = BundleLibrary(bundles)
    there = {card.name for card in library.cards()}
    asked = own.ask(
        open_source(source),
        [library.card(name) for name in names if name in there],
        bundles,
        split,
        [system(name) for name in names if name not in there],
    )
    with progress_bar("%", "evaluating") as tell:
        own.evaluate_source(asked, lambda share, what: tell(round(100 * share), 100))
    results = json.loads((asked.folder / "results.json").read_text(encoding="utf-8"))
    if not results["rows"]:
        raise CXRLensError(" ".join(results["told"]))
    print_result(results, as_json, lambda: evaluation_markdown(results))
    if scores is not None:
        facts = own.read_facts(asked.folder / "studies.jsonl")
        found = read_scores(scores, list(facts), [row["name"] for row in results["rows"]])
        if not as_json:
            print_text(scores_markdown(found, [each.subject for each in facts.values()], scores.name))
        keep_scores(scores, asked.folder)
    note(f"kept in {asked.folder}; the Cases and Results pages show it")
