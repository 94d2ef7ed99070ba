"""Films with one finding turned up: the same chest, from nothing, on both sides alike, and a source as any other."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from core.observations import LabelState
from core.studies.phantom import GradedFilms, GradedSource
from core.studies.phantom.graded import PLACES, Film, _patient, finding_named, slug, whole_design
from core.studies.phantom.render import line_integral
from core.studies.phantom.source import _anatomy
from core.studies.sources import open_source
from core.types import CXRLensError

SIDE = 96


def change(source: GradedSource, film: Film) -> float:
    """How far a film's line integral is from that of the same chest without the finding."""
    anatomy, exposure = _patient(source.design.seed, film.chest)
    normal = line_integral(anatomy, exposure, (), SIDE)
    return float(np.abs(line_integral(anatomy, exposure, source.facts(film.film_id), SIDE) - normal).mean())


@pytest.mark.parametrize("finding", PLACES)
def test_a_finding_grows_from_nothing(finding: str) -> None:
    sides, sites = PLACES[finding]
    design = GradedFilms(finding, 0.0, 1.0, 20, sides[:1], sites[:1], chests=2)
    source = GradedSource(design)
    changes = [change(source, Film(1, step, sides[0], sites[0])) for step in range(1, 21)]
    assert changes[0] > 0
    assert changes[-1] > 2 * changes[0] or finding == "Fracture"  # the smallest gap of a bone can be seen
    assert all(later >= 0.97 * earlier for earlier, later in pairwise(changes))


@pytest.mark.parametrize("finding", [name for name in PLACES if name != "Fracture"])
def test_the_slightest_finding_is_nearly_nothing(finding: str) -> None:
    sides, sites = PLACES[finding]
    films = [GradedFilms(finding, 0.0, high, 1, sides[:1], sites[:1], chests=1) for high in (0.002, 0.06)]
    faint, slight = (change(GradedSource(each), Film(0, 1, sides[0], sites[0])) for each in films)
    assert 0 < faint < 0.1 * slight


def test_a_perfect_observer_reports_more_and_more() -> None:
    """One who knows the finding and its place, and sees only the film's photons."""
    design = whole_design("Pleural Effusion", steps=6, chests=6)
    source = GradedSource(design)
    scores = np.zeros((design.chests, design.steps + 1))
    for chest in range(design.chests):
        normal = source.image(Film(chest).film_id, SIDE)
        sought = source.image(Film(chest, design.steps, "left").film_id, SIDE) - normal
        films = [Film(chest), *(Film(chest, step, "left") for step in range(1, design.steps + 1))]
        scores[chest] = [float(((source.image(film.film_id, SIDE) - normal) * sought).sum()) for film in films]
    assert (np.diff(scores.mean(0)) > 0).all()


def test_films_of_a_chest_share_the_patient_and_differ_only_by_the_finding() -> None:
    source = GradedSource(whole_design("Pneumothorax", steps=3, chests=2))
    left, right = source.facts("C0001-left-02")[0], source.facts("C0001-right-02")[0]
    assert (left.seed, left.extent) == (right.seed, right.extent)
    assert left.side != right.side
    assert source.facts("C0001-normal") == ()
    assert source.study("C0001-normal").labels["Pneumothorax"] is not LabelState.POSITIVE
    assert source.study("C0001-left-03").labels["Pneumothorax"] is LabelState.POSITIVE
    assert {source.study(each).subject_id for each in source.films if each.startswith("C0001")} == {"C0001"}
    mask = source.masks("C0001-left-03", (SIDE, SIDE))[0].mask
    assert mask[:, SIDE // 2 :].sum() > 20 * mask[:, : SIDE // 2].sum()  # the patient's left is the image's right


@pytest.mark.parametrize("finding", PLACES)
def test_a_name_opens_the_films_it_names(finding: str) -> None:
    design = GradedFilms(finding, 0.1, 0.9, 5, *PLACES[finding], 7, 3)
    opened = open_source(design.spec)
    assert isinstance(opened, GradedSource)
    assert opened.design == design
    assert open_source(opened.key).fingerprint() == opened.fingerprint()
    assert finding_named(slug(finding)) == finding
    assert len(opened.all_ids()) == 7 * (1 + 5 * len(design.places))
    assert opened.all_ids("train") == []


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("graded:pneumothorx", "There is no graded finding"),
        ("graded:edema:1:0", "should rise"),
        ("graded:edema:0:1:x", "should be graded:FINDING"),
        ("graded:edema:0:1:0:bilateral:none:5:0:9", "should be graded:FINDING"),
        ("graded:edema:0:1:3:left", "the side cannot be left"),
        ("graded:lung-lesion:0:1:3:left:basal", "the site cannot be basal"),
        ("graded:edema:0:1:3:::0", "chests"),
        ("graded:edema:0:1:3:::99999999", "chests"),
        ("graded:edema:nan:1", "should rise"),
    ],
)
def test_what_cannot_be_drawn_is_said(spec: str, told: str) -> None:
    with pytest.raises(CXRLensError, match=told):
        open_source(spec)


def test_the_chests_are_of_no_other_set() -> None:
    details = [[_patient(seed, chest)[0].detail_seed for chest in range(20)] for seed in (0, 1)]
    others = [_anatomy(patient, seed).detail_seed for patient in range(40) for seed in (0, 1, 7)]
    assert len({*details[0], *details[1], *others}) == 40 + 120
