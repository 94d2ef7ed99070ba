"""What holds over trainings that differ in their seed: means, intervals that are never too narrow, and the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.evaluation.claims import over_seeds
from tests.commands import refused, run


def row(name: str, score: float, difference: float, half: float, p: float = 0.2) -> dict[str, Any]:
    told = {"difference": difference, "low": difference - half, "high": difference + half, "p_holm": p}
    encoder, decoder = name.split("-")
    return {"name": f"openi-{name}", "encoder": encoder, "decoder": decoder, "f1": score / 2, "f1_frequent": score} | {
        kind: {"f1_frequent": told, "f1": {**told, "low": None, "high": None}}
        for kind in ("differences", "differences_own")
    }


def results(folder: Path, seed: int, *rows: dict[str, Any], **changes: Any) -> Path:
    content = {"family": "openi", "studies": 590, "fingerprint": "abc", "seed": seed, "rows": rows, "baselines": []}
    path = folder / f"{seed}-{len(list(folder.iterdir()))}.json"
    path.write_text(json.dumps(content | changes), encoding="utf-8")
    return path


def test_means_and_ends_are_those_of_the_seeds() -> None:
    one, other = row("cve-m2", 0.4, 0.1, 0.02, 0.01), row("cve-m2", 0.2, 0.3, 0.06, 0.3)
    found = over_seeds([{"a": one, "only here": one}, {"a": other}], "f1_frequent")
    assert list(found) == ["a"]
    assert found["a"].values == (0.4, 0.2)
    assert found["a"].difference == pytest.approx(0.2)
    assert (found["a"].low, found["a"].high) == (pytest.approx(0.16), pytest.approx(0.24))
    assert found["a"].above == (True, False)
    without_interval = over_seeds([{"a": one}, {"a": other}], "f1")["a"]
    assert without_interval.difference == pytest.approx(0.2)
    assert without_interval.low is without_interval.high is None
    not_compared = over_seeds([{"a": one}, {"a": {**other, "differences": {}}}], "f1_frequent")["a"]
    assert not_compared.difference is None
    assert not_compared.above == (True, False)


@given(
    st.floats(-1, 1),
    st.lists(st.floats(0.1, 3), min_size=2, max_size=2),
    st.integers(0, 5),
)
@settings(max_examples=20, deadline=None)
def test_an_interval_is_never_too_narrow(correlation: float, sds: list[float], seed: int) -> None:
    """Two trainings, whose differences from a truth of 0 depend on each other in any way."""
    rng = np.random.default_rng(seed)
    first, second = rng.normal(size=(2, 2_000))
    draws = [sds[0] * first, sds[1] * (correlation * first + (1 - correlation**2) ** 0.5 * second)]
    held = []
    for one, other in zip(*draws, strict=True):
        trainings = [{"a": row("cve-m2", 0, each, 1.96 * sd)} for each, sd in zip((one, other), sds, strict=True)]
        found = over_seeds(trainings, "f1_frequent")["a"]
        assert found.low is not None
        assert found.high is not None
        held.append(found.low <= 0 <= found.high)
    assert np.mean(held) > 0.935


def test_the_command_prints_the_highest_mean_first(tmp_path: Path) -> None:
    one = results(tmp_path, 1, row("cve-m2", 0.2, 0.1, 0.02, 0.01), row("fve-m2", 0.5, 0.1, 0.2))
    other = results(tmp_path, 2, row("cve-m2", 0.4, 0.3, 0.06), row("fve-m2", 0.3, 0.1, 0.2), row("dve-m2", 1, 1, 1))
    said = run("table", "seeds", "--results", one, "--results", other)
    assert said.exit_code == 0, said.output
    _, _, first, second, *_ = said.output.splitlines()
    assert first.startswith("| FVE + M2 | 0.200 ± 0.071 | 0.250, 0.150 | 0.400 ± 0.141 | 0.500, 0.300 |")
    assert "| +0.200 [+0.160, +0.240]: +0.100*, +0.300 |" in second
    assert "DVE" not in said.output
    told = json.loads(run("table", "seeds", "--results", one, "--results", other, "--json").output)
    assert told["f1_frequent"]["differences_own"]["openi-cve-m2"]["above"] == [True, False]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"fingerprint": "other"}, "must agree in 'fingerprint'"),
        ({"family": "phantom"}, "must agree in 'family'"),
        ({"seed": 1}, "seeds 1, 1: name each seed once"),
        ({"rows": [{"name": "other"}]}, "no system in common"),
        (None, "two evaluations or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(second: dict[str, Any] | None, message: str, tmp_path: Path) -> None:
    paths = [results(tmp_path, 1, row("cve-m2", 0.2, 0.1, 0.02))]
    if second is not None:
        second = dict(second)
        paths.append(results(tmp_path, second.pop("seed", 2), row("cve-m2", 0.2, 0.1, 0.02), **second))
    assert message in refused("table", "seeds", *(word for path in paths for word in ("--results", path)))
