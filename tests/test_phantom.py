"""The phantom against hand-worked numbers and against its own truth."""

from __future__ import annotations

import csv
import json
import os
import re
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.observations import CLUSTER_OF, NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES, LabelState
from core.studies.phantom import Anatomy, Exposure, Fact, PhantomSource, make_phantom, write_phantom
from core.studies.phantom.anatomy import draw_anatomy, draw_exposure
from core.studies.phantom.render import VISIBLE, WATER, expose, line_integral, mask_of
from core.studies.phantom.shapes import averaging, ellipsoid, interpolation, make_grid, polyline, segments
from core.types import SPLITS, CXRLensError, FloatImage, Study

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN


@pytest.fixture(scope="module")
def source() -> PhantomSource:
    return PhantomSource(2000, seed=0)


@pytest.fixture(scope="module")
def studies(source: PhantomSource) -> list[Study]:
    return [study for split in SPLITS for study in source.studies(split)]


@pytest.fixture(scope="module")
def patient() -> tuple[Anatomy, Exposure]:
    """A patient who stands straight, so that sides can be read off the columns."""
    anatomy = draw_anatomy(np.random.default_rng(11))
    exposure = draw_exposure(np.random.default_rng(12), bedridden=False)
    straight = replace(
        exposure,
        view="PA",
        rotation=0.0,
        tilt=0.0,
        offset=(0.0, 0.0),
        inspiration=0.3,
        marker="",
        collimation=(0, 0, 0, 0),
    )
    return anatomy, straight


def fact(observation: str, extent: float, side: str = "", site: str = "", kind: str = "") -> Fact:
    return Fact("it", observation, POSITIVE, side, site, "moderate", kind, extent, seed=5)  # type: ignore[arg-type]


EACH = [
    fact("Enlarged Cardiomediastinum", 0.6),
    fact("Cardiomegaly", 0.6),
    fact("Lung Opacity", 0.6, "right", "upper"),
    fact("Lung Lesion", 0.6, "left", "mid"),
    fact("Edema", 0.6, "bilateral"),
    fact("Consolidation", 0.6, "right", "lower"),
    fact("Pneumonia", 0.6, "left", "upper"),
    fact("Atelectasis", 0.3, "left", "lower"),
    fact("Pneumothorax", 0.6, "right"),
    fact("Pleural Effusion", 0.6, "left"),
    fact("Pleural Other", 0.6, "right", "lateral"),
    fact("Fracture", 0.6, "left", "fifth and sixth"),
    fact("Fracture", 0.6, "right", "clavicle"),
    fact(SUPPORT_DEVICES, 1.0, "left", kind="pacemaker"),
    fact(SUPPORT_DEVICES, 1.0, "right", kind="chest tube"),
]
NAMES = [f"{f.observation} {f.kind or f.site}".strip() for f in EACH]


# Attenuation


def test_ellipsoid_length_by_hand() -> None:
    # Semi-axes 3, 4, 5: through the middle 10; at x = 1.8, 10 * sqrt(1 - 0.36) = 8; at (1.8, 2.4) 10 * sqrt(0.28).
    x = np.array([0.0, 1.8, 1.8, 3.1], dtype=np.float32)
    y = np.array([0.0, 0.0, 2.4, 0.0], dtype=np.float32)
    lengths = ellipsoid(x, y, (0.0, 0.0), (3.0, 4.0, 5.0))
    np.testing.assert_allclose(lengths, [10.0, 8.0, 10 * np.sqrt(0.28), 0.0], rtol=1e-5)


def test_ellipsoid_adds_up_to_its_volume() -> None:
    grid = make_grid(512, tilt=0.0, stretch=(1.0, 1.0), offset=(0.0, 0.0))
    volume = ellipsoid(grid.x, grid.y, (1.0, -2.0), (3.0, 4.0, 5.0), 0.7).sum() * grid.pixel**2
    assert volume == pytest.approx(4 / 3 * np.pi * 3 * 4 * 5, rel=2e-3)


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("radius", [0.1, 0.5])
def test_tube_adds_up_to_its_volume_at_every_size(size: int, radius: float) -> None:
    grid = make_grid(size, tilt=0.1, stretch=(1.0, 1.0), offset=(0.0, 0.0))
    volume = segments(grid, polyline([(-8.0, -3.0), (8.0, 5.0)], radius)).sum() * grid.pixel**2
    length = np.hypot(16.0, 8.0)
    ends = np.pi * max(radius, 0.75 * grid.pixel) * radius**2 * 4 / 3
    assert volume == pytest.approx(np.pi * radius**2 * length, rel=0.05, abs=2 * ends)


def test_beer_lambert_through_the_abdomen(patient: tuple[Anatomy, Exposure]) -> None:
    """Below the lungs, off the spine and between the ribs there is only water: the integral is WATER times depth."""
    anatomy, exposure = patient
    anatomy = replace(anatomy, breast=0.0, bubble=0.0, width=1.0, height=1.0)
    integral = line_integral(anatomy, exposure, (), 512)
    row, column = int((18.7 + 19) / 38 * 512), int((-6.0 + 19) / 38 * 512)
    half_width = anatomy.chest + 1.3 + 0.9 * (0.9 + 2.6 * anatomy.habitus)
    half_depth = anatomy.depth + 1.4 + 0.9 + 2.6 * anatomy.habitus
    x = (column + 0.5) / 512 * 38 - 19
    assert integral[row, column] == pytest.approx(WATER * 2 * half_depth * np.sqrt(1 - (x / half_width) ** 2), rel=1e-3)


@given(st.integers(2, 80), st.integers(2, 300))
@settings(max_examples=30, deadline=None)
def test_resampling_weights_keep_a_constant(cells: int, size: int) -> None:
    # Coarse cells that hold no fine pixel at all cannot be averaged; the renderer never asks for them.
    np.testing.assert_allclose(interpolation(cells, size).sum(axis=1), 1, rtol=1e-4)
    np.testing.assert_allclose(averaging(cells, size).sum(axis=1), 1, rtol=1e-4)


# Images


def test_a_study_is_the_same_whenever_it_is_made() -> None:
    first = PhantomSource(50, seed=3)
    last = first.study_ids[-1]
    before = first.image(last, 64)
    np.random.default_rng(0).random(100)
    np.random.seed(4)  # noqa: NPY002
    second = PhantomSource(200, seed=3)
    second.image(second.study_ids[0], 64)
    np.testing.assert_array_equal(second.image(last, 64), before)
    assert second.study(last) == first.study(last)
    assert not np.array_equal(
        PhantomSource(50, seed=4).image(first.study_ids[0], 64), first.image(first.study_ids[0], 64)
    )


def test_fingerprint_tells_sets_apart() -> None:
    prints = {PhantomSource(*key).fingerprint() for key in ((10, 0), (10, 1), (11, 0))}
    assert len(prints) == 3
    assert PhantomSource(10, 0).fingerprint() in prints


def test_images_are_float32_in_range(source: PhantomSource) -> None:
    for study_id in source.study_ids[:8]:
        image = source.image(study_id, 128)
        assert image.shape == (128, 128) and image.dtype == np.float32
        assert image.min() >= 0 and image.max() <= 1 and image.std() > 0.1


def test_sizes_show_the_same_thorax(source: PhantomSource) -> None:
    for study_id in source.study_ids[5:12]:
        small = source.image(study_id, 128)
        large = source.image(study_id, 512).reshape(128, 4, 128, 4).mean(axis=(1, 3))
        assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97
        assert abs(float(small.mean() - large.mean())) < 0.01


def test_unknown_study_is_refused(source: PhantomSource) -> None:
    with pytest.raises(CXRLensError, match="P999999-1"):
        source.image("P999999-1", 64)


# Abnormalities and their masks


def integrals(patient: tuple[Anatomy, Exposure], facts: list[Fact], size: int = 128) -> FloatImage:
    return line_integral(*patient, facts, size)


@pytest.mark.parametrize("it", EACH, ids=NAMES)
def test_mask_is_where_the_abnormality_changes_the_image(patient: tuple[Anatomy, Exposure], it: Fact) -> None:
    other = replace(fact("Lung Lesion", 0.3, "left", "upper"), id="other")
    mask = mask_of(it, *patient, [it, other], integrals(patient, [it, other]))
    change = np.abs(integrals(patient, [it, other]) - integrals(patient, [other]))
    assert (change[mask] > VISIBLE).all()
    assert (change[~mask] <= VISIBLE).all()
    assert 20 < mask.sum() < 0.5 * mask.size


@pytest.mark.parametrize("it", EACH, ids=NAMES)
def test_abnormality_is_seen_above_the_noise_at_128(patient: tuple[Anatomy, Exposure], it: Fact) -> None:
    anatomy, exposure = patient
    with_it = expose(integrals(patient, [it]), anatomy, exposure, noise=False)
    without = expose(integrals(patient, []), anatomy, exposure, noise=False)
    noise = expose(integrals(patient, []), anatomy, exposure) - without
    mask = mask_of(it, anatomy, exposure, [it], integrals(patient, [it]))
    signal = np.sqrt(np.sum((with_it - without)[mask] ** 2))
    assert signal > 5 * noise[mask].std()
    assert np.abs(with_it - without).max() > 0.04


@pytest.mark.parametrize(
    "it",
    [f for f in EACH if f.side in ("left", "right") and f.kind != "pacemaker"],
    ids=lambda f: f"{f.observation} {f.side}",
)
def test_the_patients_left_is_on_the_images_right(patient: tuple[Anatomy, Exposure], it: Fact) -> None:
    mask = mask_of(it, *patient, [it], integrals(patient, [it]))
    columns = np.nonzero(mask)[1]
    assert (columns >= 64).all() if it.side == "left" else (columns < 64).all()


def test_left_effusion_brightens_the_base_on_the_images_right(patient: tuple[Anatomy, Exposure]) -> None:
    anatomy, exposure = patient
    with_it = expose(integrals(patient, [fact("Pleural Effusion", 0.6, "left")]), anatomy, exposure, noise=False)
    without = expose(integrals(patient, []), anatomy, exposure, noise=False)
    change = with_it - without
    assert change[85:95, 92:105].mean() > 0.15
    assert abs(float(change[85:95, 23:36].mean())) < 0.03


def test_heart_points_to_the_images_right_and_right_dome_is_higher(patient: tuple[Anatomy, Exposure]) -> None:
    large = fact("Cardiomegaly", 0.6)
    grown = mask_of(large, *patient, [large], integrals(patient, [large]))
    columns = np.nonzero(grown)[1] - 63.5
    assert columns.max() > -columns.min()
    assert patient[0].dome[0] < patient[0].dome[1]


def test_pneumothorax_darkens_and_effusion_brightens(patient: tuple[Anatomy, Exposure]) -> None:
    clear = integrals(patient, [])
    gas = integrals(patient, [fact("Pneumothorax", 0.9, "left")]) - clear
    # By the wall there is gas only; nearer the hilum the collapsing lung grows denser.
    for row in gas[40:80]:
        outermost = np.nonzero(np.abs(row) > VISIBLE)[0][-6:]
        assert row[outermost].max() < 0
    assert gas[gas < 0].sum() < -3 * gas[gas > 0].sum()
    fluid = integrals(patient, [fact("Pleural Effusion", 0.9, "left")]) - clear
    assert fluid.min() > -1e-4


@pytest.mark.parametrize(
    "it", [f for f in EACH if f.observation != SUPPORT_DEVICES], ids=lambda f: f"{f.observation} {f.site}"
)
def test_worse_changes_more(patient: tuple[Anatomy, Exposure], it: Fact) -> None:
    clear = integrals(patient, [])
    changes = [np.abs(integrals(patient, [replace(it, extent=e)]) - clear).sum() for e in (0.08, 0.28, 0.6, 0.95)]
    if it.observation == "Fracture":
        changes = changes[1:]
    assert all(better * 1.04 < worse for better, worse in pairwise(changes)), changes


def test_none_hides_another_entirely(source: PhantomSource) -> None:
    tried = 0
    for study_id in source.study_ids[:60]:
        if len(source.facts(study_id)) < 2:
            continue
        made = source.phantom(study_id, 128)
        assert set(made.masks) == {f.id for f in made.facts}
        for name, mask in made.masks.items():
            assert mask.dtype == np.bool_ and mask.shape == (128, 128)
            assert mask.sum() >= 8, (study_id, name)
            tried += 1
    assert tried > 20


# Reports and labels


def test_splits_are_by_patient(studies: list[Study]) -> None:
    of_patient: dict[str, set[str]] = {}
    for study in studies:
        of_patient.setdefault(study.subject_id, set()).add(study.split)
    assert all(len(splits) == 1 for splits in of_patient.values())
    share = {split: sum(s.split == split for s in studies) / len(studies) for split in SPLITS}
    assert 0.74 < share["train"] < 0.86 and 0.05 < share["validate"] < 0.11 and 0.08 < share["test"] < 0.17
    visits = Counter(study.subject_id for study in studies)
    assert max(visits.values()) <= 4 and 1.3 < np.mean(list(visits.values())) < 2.5
    assert len({study.study_id for study in studies}) == len(studies) == 2000


def test_every_observation_is_frequent_enough(studies: list[Study]) -> None:
    for name in OBSERVATIONS:
        share = np.mean([study.labels[name] is POSITIVE for study in studies])
        assert 0.05 <= share <= 0.42, (name, share)
    assert 0.25 <= np.mean([study.labels[NO_FINDING] is POSITIVE for study in studies]) <= 0.31
    with_edema = [study for study in studies if study.labels["Edema"] is POSITIVE]
    failing = np.mean([study.labels["Cardiomegaly"] is POSITIVE for study in with_edema])
    assert failing > 2 * np.mean([study.labels["Cardiomegaly"] is POSITIVE for study in studies])


def test_reports_are_varied_and_of_clinical_length(studies: list[Study]) -> None:
    assert len({study.findings for study in studies[:1000]}) >= 900
    words = [len(study.findings.split()) for study in studies]
    assert 30 <= np.mean(words) <= 65 and np.percentile(words, 2) >= 20 and np.percentile(words, 98) <= 80
    vocabulary = {word for study in studies for word in re.findall(r"[a-z]+", study.findings.lower())}
    assert 150 < len(vocabulary) < 600


def test_text_is_clean(studies: list[Study]) -> None:
    for study in studies:
        for text in (study.findings, study.impression):
            assert 4 <= len(re.split(r"(?<=\.) ", study.findings)) <= 12
            assert text and not re.search(
                r"[\[\]{}|_]|  | [.,]|\.\.|,\.|\bnone\b|\ba [aeiou](?!n?i)", text.replace("None", "")
            ), text
            assert all(sentence[0].isupper() or sentence[0].isdigit() for sentence in re.split(r"(?<=\.) ", text))
        assert 1 <= len(re.split(r"(?<=\.) ", study.impression)) <= 3


# What a reader looks for in the sentence about each observation.
WORDS = {
    "Enlarged Cardiomediastinum": r"mediastin",
    "Cardiomegaly": r"cardiomegaly|heart|cardiac",
    "Lung Opacity": r"opacit|infiltrate",
    "Lung Lesion": r"nodule|mass",
    "Edema": r"edema|congestion",
    "Consolidation": r"consolidation",
    "Pneumonia": r"pneumonia|infectious process",
    "Atelectasis": r"atelectasis",
    "Pneumothorax": r"pneumothorax",
    "Pleural Effusion": r"effusion",
    "Pleural Other": r"pleural thickening",
    "Fracture": r"fracture",
    SUPPORT_DEVICES: r"tube|line|catheter|pacemaker|wires",
}
NEGATION = r"\b(no|not|negative|normal|unremarkable|within normal limits)\b"
HEDGE = r"\b(possible|possibly|questionable|may|cannot be excluded)\b"


def test_sentences_say_what_their_truth_claims(source: PhantomSource) -> None:
    for study_id in source.study_ids:
        for statement in source.statements(study_id):
            text = statement.text.lower()
            for name, state in statement.claims:
                if name == NO_FINDING:
                    continue
                assert re.search(WORDS[name], text), (name, text)
                if statement.section == "findings":
                    assert bool(re.search(NEGATION, text)) == (state is NEGATIVE), (state, text)
                if state is UNCERTAIN:
                    assert re.search(HEDGE, text), text
                elif statement.section == "findings" and len(statement.claims) == 1:
                    assert not re.search(HEDGE, text), text


def test_labels_are_what_the_findings_claim(source: PhantomSource, studies: list[Study]) -> None:
    for study in studies:
        said = [s for s in source.statements(study.study_id) if s.section == "findings"]
        assert " ".join(s.text for s in said) == study.findings
        assert set(study.labels) == set(OBSERVATIONS)
        for name in WORDS:
            claims = [state for s in said for about, state in s.claims if about == name]
            for state in (POSITIVE, UNCERTAIN, NEGATIVE):
                if state in claims:
                    assert study.labels[name] is state
                    break
            else:
                assert study.labels[name] is LabelState.BLANK
                if name not in ("Cardiomegaly", "Enlarged Cardiomediastinum", SUPPORT_DEVICES):
                    assert not re.search(WORDS[name], study.findings.lower()), (name, study.findings)


def test_no_sentence_contradicts_another(source: PhantomSource, studies: list[Study]) -> None:
    for study in studies:
        claims = {claim for s in source.statements(study.study_id) if s.section == "findings" for claim in s.claims}
        for name in OBSERVATIONS:
            assert not ((name, NEGATIVE) in claims and study.labels[name] in (POSITIVE, UNCERTAIN)), study.findings


def test_every_fact_is_reported_and_none_is_made_up(source: PhantomSource, studies: list[Study]) -> None:
    for study in studies:
        facts = {f.id: f for f in source.facts(study.study_id)}
        for section in ("findings", "impression"):
            told = [s for s in source.statements(study.study_id) if s.section == section]
            named = {name for s in told for name in s.facts}
            assert named <= set(facts)
            if section == "findings":
                assert named == set(facts)
            else:
                assert {n for n, f in facts.items() if f.observation != SUPPORT_DEVICES} <= named
        for name, state in study.labels.items():
            if state is POSITIVE and name not in (NO_FINDING, "Lung Opacity"):
                assert any(f.observation == name and f.state is POSITIVE for f in facts.values())
        for it in facts.values():
            if it.side in ("left", "right"):
                about = [s for s in source.statements(study.study_id) if it.id in s.facts and s.section == "findings"]
                assert ("lingula" if it.site == "mid" and "lingula" in about[0].text else it.side) in about[
                    0
                ].text.lower()


def test_fine_labels_are_words_of_the_report(studies: list[Study]) -> None:
    for study in studies:
        assert list(study.fine_labels) == sorted(set(study.fine_labels))
        present = {name for name, state in study.labels.items() if state is POSITIVE and name != NO_FINDING}
        assert all(any(label.endswith(name.lower()) for label in study.fine_labels) for name in present)
        for label in study.fine_labels:
            name = next(name for name in sorted(present, key=len, reverse=True) if label.endswith(name.lower()))
            modifier = label.removesuffix(name.lower()).strip()
            if name != SUPPORT_DEVICES or modifier in ("left", "right"):
                assert modifier in study.findings.lower(), (label, study.findings)
    assert "moderate cardiomegaly" in {label for study in studies for label in study.fine_labels}


def test_clusters_hold_the_impression(studies: list[Study]) -> None:
    for study in studies:
        sentences = set(re.split(r"(?<=\.) ", study.impression))
        kept = {s for text in study.cluster_texts.values() for s in re.split(r"(?<=\.) ", text)}
        assert kept == sentences
        found = {n for n, s in study.labels.items() if s in (POSITIVE, UNCERTAIN)} - {NO_FINDING, SUPPORT_DEVICES}
        if not found:
            assert NO_FINDING in study.cluster_texts
        else:
            assert NO_FINDING not in study.cluster_texts
            assert set(study.cluster_texts) <= {CLUSTER_OF[name] for name in found | {SUPPORT_DEVICES}}


# Files


def test_written_set_is_complete_and_can_be_resumed(tmp_path: Path) -> None:
    out, seen = tmp_path / "set", []
    write_phantom(out, 8, seed=2, size=64, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(number, 8) for number in range(1, 9)]
    source = PhantomSource(8, seed=2)
    described = json.loads((out / "dataset.json").read_text())
    assert described["fingerprint"] == source.fingerprint() and described["complete"] is True and described["seed"] == 2
    for study_id in source.study_ids:
        pixels = np.asarray(Image.open(out / "images" / f"{study_id}.png"))
        assert pixels.dtype == np.uint8
        np.testing.assert_allclose(pixels / 255, source.image(study_id, 64), atol=0.6 / 255)
        record = json.loads((out / "facts" / f"{study_id}.json").read_text())
        assert record["labels"] == source.study(study_id).labels
        for it, (name, mask) in zip(record["facts"], source.phantom(study_id, 64).masks.items(), strict=True):
            assert it["id"] == name
            np.testing.assert_array_equal(np.asarray(Image.open(out / "masks" / f"{study_id}_{name}.png")) > 0, mask)
    with (out / "reports.csv").open() as file:
        reports = {row["study_id"]: row for row in csv.DictReader(file)}
    assert reports[source.study_ids[3]]["findings"] == source.study(source.study_ids[3]).findings
    with (out / "splits.csv").open() as file:
        assert {row["study_id"] for row in csv.DictReader(file)} == set(source.study_ids)
    assert not list(out.rglob("*.part"))

    kept, lost = (out / "images" / f"{source.study_ids[i]}.png" for i in (0, 1))
    os.utime(kept, (1, 1))
    content = lost.read_bytes()
    lost.unlink()
    write_phantom(out, 8, seed=2, size=64)
    assert kept.stat().st_mtime == 1
    assert lost.read_bytes() == content
    with pytest.raises(CXRLensError, match="another"):
        write_phantom(out, 8, seed=3, size=64)


@given(st.integers(0, 999_999), st.integers(1, 4), st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_patient_can_be_made(number: int, visit: int, seed: int) -> None:
    made = make_phantom(number, visit, seed=seed, size=128)  # coarser pixels miss the slightest abnormalities
    assert made.study.study_id == f"P{number:06}-{visit}"
    assert np.isfinite(made.image).all()
    assert all(mask.any() for mask in made.masks.values())
    assert len({f.id for f in made.facts}) == len(made.facts)
