"""The explanation benchmark: intervals and verdicts by hand, parts that resume, the table."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.config import ExperimentConfig, load_config
from core.explain.measured import measured
from core.studies.phantom import PhantomSource
from core.types import CXRLensError
from tests import needs
from tests.conftest import BUNDLES, ROOT
from training.explain import benchmark
from training.explain.benchmark import Settings, explain_benchmark, visible_studies
from training.explain.summary import benchmark_markdown, compact, interval, summarise

pytestmark = pytest.mark.numeric

SETTINGS = Settings(studies=2, checked=1, seed=0)
NAMES = ["phantom-ccve-m2", "phantom-dve-m2"]


def row(method: str, study: str, **numbers: Any) -> dict[str, Any]:
    about = {"encoder": "fve", "decoder": "m2", "kind": "sentence", "observation": "Edema", "severity": "mild"}
    return {**about, "method": method, "study": study, **numbers}


# -------------------------------------------------------------------------------------------------------------- summary


def test_intervals_resample_studies_not_findings() -> None:
    values = np.array([1.0, 1.0, 1.0, 0.0, math.nan])
    mean, low, high = interval(values, np.array(["a", "a", "a", "b", "b"]), seed=0)
    assert mean == 0.75
    assert (low, high) == (0.0, 1.0)  # two studies: a resample may hold either of them twice
    assert interval(np.array([2.0, 2.0]), np.array(["a", "b"]), 0) == (2, 2, 2)
    assert all(math.isnan(each) for each in interval(np.array([math.nan]), np.array(["a"]), 0))
    many = np.random.default_rng(1).normal(size=400)
    mean, low, high = interval(many, np.arange(400), seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * many.std() / 20, rel=0.15)


def test_the_verdicts_by_hand() -> None:
    rows = []
    for place in range(20):
        study = str(place)
        rows += [
            row("grad-cam", study, pointing=1.0),
            row("occlusion", study, pointing=0.5),
            row("centre", study, pointing=0.4),
            row("usual place", study, pointing=0.9),
        ]
        for method, value in (("cls-attention", 0.1 + 0.01 * (place % 2)), ("attention", 0.02), ("random", 0.05)):
            filters = {
                "encoder": "ccve",
                "kind": "report",
                "observation": "",
                "severity": "",
                "comprehensiveness": value,
                "usual_ranking": {"cls-attention": 0.12, "attention": 0.01}.get(method, math.nan),
            }
            rows.append({**row(method, study), **filters})
    results = summarise(rows, seed=0)
    (best,) = results["pointing"]
    assert (best["encoder"], best["method"], best["reached"]) == ("fve", "grad-cam", True)
    assert best["difference"] == pytest.approx(0.6)
    verdicts = {(each["method"], each["prior"]): each["verdict"] for each in results["filters"]}
    assert verdicts == {
        ("cls-attention", "random"): "beats random",
        ("cls-attention", "usual ranking"): "worse than usual ranking",
        ("attention", "random"): "worse than random",
        ("attention", "usual ranking"): "beats usual ranking",
    }
    text = benchmark_markdown(results)
    assert (
        "FVE: Grad-CAM, asked for the sentence that names it, points at the finding in 100%, the centre prior in 40%"
        in text
    )
    assert "+60 points [+60, +60]; 20 were asked for: reached" in text
    assert "CCVE, m2, the whole report: comprehensiveness +0.0550" in text
    assert "against the method's own mean ranking of other studies: worse than usual ranking" in text
    assert "| fve | Edema | 20 | 1.00 [1.00, 1.00] | 0.40 [0.40, 0.40] | 0.90 [0.90, 0.90] |" in text


def test_a_difference_that_is_not_shown_is_not_claimed() -> None:
    generator = np.random.default_rng(0)
    rows = []
    for place in range(20):
        for method in ("cls-attention", "random"):
            filters = {"encoder": "ccve", "kind": "report", "observation": "", "severity": ""}
            rows.append({**row(method, str(place), comprehensiveness=generator.random()), **filters})
    (found,) = summarise(rows, seed=0)["filters"]
    assert found["verdict"] == "no difference shown"
    assert found["low"] < 0 < found["high"]


def write_measured(folder: Path, rows: list[dict[str, Any]]) -> None:
    about = {"command": "cxr-lens explain-benchmark", "fingerprint": "", "settings": {}, "pairs": []}
    text = json.dumps(compact({**about, **summarise(rows, seed=0)}))
    (folder / "phantom.json").write_text(text, encoding="utf-8")


def test_what_was_measured_is_read_back_with_a_verdict(tmp_path: Path) -> None:
    rows = []
    for place in range(20):
        study, hit = str(place), float(place % 2)
        rows += [
            row("grad-cam", study, pointing=1.0, sanity=0.9),
            row("attention", study, pointing=0.75),
            row("occlusion", study, pointing=hit),
            row("smoothgrad", study, pointing=0.0),
            row("centre", study, pointing=0.5),
            row("usual place", study, pointing=0.8),
        ]
        for decoder, value in (("m2", 0.03), ("transformer", 0.01)):
            filters = {"encoder": "ccve", "decoder": decoder, "kind": "report", "observation": "", "severity": ""}
            rows.append({**row("cls-attention", study), **filters, "comprehensiveness": value})
            rows.append({**row("random", study), **filters, "comprehensiveness": 0.02})
    write_measured(tmp_path, rows)

    def trust(method: str) -> str:
        found = measured(tmp_path, "phantom", "fve", method, "sentence")
        assert found is not None
        return found.trust

    assert [trust(each) for each in ("grad-cam", "attention", "occlusion", "smoothgrad")] == [
        "better",
        "usual",
        "unproven",
        "worse",
    ]
    found = measured(tmp_path, "phantom", "fve", "grad-cam", "sentence")
    assert found is not None
    assert found.gains["centre"] == (0.5, 0.5, 0.5)
    assert (found.questions, found.studies) == (20, 20)
    assert "its peak hit the finding 100 times in 100" in found.verdict
    assert "the image's centre would hit it 50 times" in found.verdict
    assert "shuffled weights gives nearly the same picture" in found.verdict
    ours, theirs, both = (
        measured(tmp_path, "phantom", "ccve", "cls-attention", "report", decoder)
        for decoder in ("m2", "transformer", "")
    )
    assert ours is not None
    assert theirs is not None
    assert both is not None
    assert (ours.trust, theirs.trust, both.trust) == ("better", "worse", "unproven")
    assert "lowered the words' probability by 3.0 percentage points, random filters lowered it by 2.0" in ours.verdict


def test_what_was_not_measured_is_none_and_a_damaged_file_is_named(tmp_path: Path) -> None:
    assert measured(tmp_path, "openi-small", "fve", "grad-cam", "sentence") is None
    write_measured(tmp_path, [row("grad-cam", "1", pointing=1.0), row("centre", "1", pointing=1.0)])
    assert measured(tmp_path, "phantom", "fve", "occlusion", "sentence") is None
    assert measured(tmp_path, "phantom", "fve", "grad-cam", "report") is None
    for kind in ("mention", "sentence"):  # words were not asked for: their sentence was
        nearest = measured(tmp_path, "phantom", "fve", "grad-cam", kind)
        assert nearest is not None and nearest.kind == "sentence"
    (tmp_path / "phantom.json").write_text('{"entries": 3}', encoding="utf-8")
    with pytest.raises(CXRLensError, match=r"phantom\.json is damaged"):
        measured(tmp_path, "phantom", "fve", "grad-cam", "sentence")


# -------------------------------------------------------------------------------------------------------------- studies


def test_studies_are_held_out_and_show_something() -> None:
    source = PhantomSource(300, 0)
    found = visible_studies(source, 5)
    assert len(found) == 5
    for study_id in found:
        assert source.study(study_id).split == "test"
        assert any(fact.severity != "subtle" for fact in source.facts(study_id))
    with pytest.raises(CXRLensError, match="5000 were asked for"):
        visible_studies(source, 5000)


@pytest.fixture(scope="module")
def config() -> ExperimentConfig:
    return load_config(ROOT / "training" / "presets", "phantom", [])


def test_what_cannot_be_measured_is_refused(config: ExperimentConfig, tmp_path: Path) -> None:
    with pytest.raises(CXRLensError, match="Unknown method 'tea-leaves'. Known: attention"):
        explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, methods=["tea-leaves"])
    with pytest.raises(CXRLensError, match="'grad-kam'. Did you mean 'grad-cam'"):
        explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, methods=["grad-kam"])
    with pytest.raises(CXRLensError, match="Unknown bundle of .*'phantom-fve-m3'. Did you mean 'phantom-fve-m2'"):
        explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, names=["phantom-fve-m3"])
    with pytest.raises(CXRLensError, match="no bundle of the family 'phantom'. Run: cxr-lens train"):
        explain_benchmark(config, tmp_path, tmp_path, SETTINGS)
    real = replace(config, data=replace(config.data, source="openi", folder="index", views="frontal"))
    with pytest.raises(CXRLensError, match="known on the phantom only, not on 'openi'"):
        explain_benchmark(real, BUNDLES, tmp_path, SETTINGS)


def test_reports_that_mention_nothing_are_a_message(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        benchmark, "_prepare", lambda *_: (None, [SimpleNamespace(name="phantom-fve-m2")], ["grad-cam"])
    )
    monkeypatch.setattr(benchmark, "compute_part", lambda *_: [])
    with pytest.raises(
        CXRLensError, match="no report mentions a finding of the 2 studies. Ask for more with --studies"
    ):
        explain_benchmark(config, BUNDLES, tmp_path / "out", SETTINGS)
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------- parts


@pytest.mark.slow
@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_the_benchmark_runs_resumes_and_repeats(
    config: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "USUAL_MASKS", 1)
    monkeypatch.setattr(benchmark, "RANDOM_MAPS", 1)
    monkeypatch.setattr(benchmark, "RANDOM_RANKINGS", 2)
    methods = ["cls-attention", "grad-cam"]
    results = explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, methods=methods, names=NAMES)
    rows = pd.read_csv(tmp_path / "findings.csv", keep_default_na=False)
    assert set(rows[rows["encoder"] == "ccve"]["method"]) == {"cls-attention", "random"}
    assert set(rows[rows["encoder"] == "dve"]["method"]) == {*methods, "random", "centre", *_usual(rows)}
    whole = rows[(rows["kind"] == "report") & (rows["method"] == "cls-attention")]
    assert len(whole) == 2
    assert {each["kind"] for each in results["filters"]} >= {"report", "reference"}
    assert "Does cls-attention beat a ranking of the filters that does not look at the image?" in (
        tmp_path / "table.md"
    ).read_text(encoding="utf-8")
    assert json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))["pairs"] == NAMES

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a part that is done was computed again")

    with monkeypatch.context() as patched:
        patched.setattr(benchmark, "_row", never)
        assert explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, methods=methods, names=NAMES) == results
        other = replace(SETTINGS, seed=1)
        with pytest.raises(AssertionError, match="computed again"):  # other settings, other parts
            explain_benchmark(config, BUNDLES, tmp_path, other, methods=methods, names=NAMES)
    (tmp_path / "parts" / "phantom-dve-m2--grad-cam.json").unlink()
    assert explain_benchmark(config, BUNDLES, tmp_path, SETTINGS, methods=methods, names=NAMES) == results


def _usual(rows: pd.DataFrame) -> set[str]:
    return {"usual place"} if (rows["observation"] != "").any() else set()
