"""Explanations on real films: planted maps and questions with known answers, what is refused, what pages say of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.bundles.card import Card
from core.bundles.library import BundleLibrary
from core.explain import sentences, targets
from core.explain.gradients import cam_layers
from core.explain.measured import best_first, measured, shows_a_place
from core.explain.methods import explain
from core.explain.subject import open_subject
from core.labels.rules import label_report
from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES
from core.studies.source import TrueFinding
from core.studies.sources import open_source
from core.text import Vocabulary
from core.types import SPLITS, Attribution, CXRLensError, Geometry
from tests import needs
from tests.conftest import BUNDLES
from tests.tiny_models import random_image, report_of, tiny_pair
from training.explain import film_table, films, places
from training.explain.benchmark import Settings
from training.explain.films import content_of, held_out, score
from training.explain.places import USUAL_SIDE, Place, choose_films, usual_place

pytestmark = pytest.mark.numeric

SIZE = 64


def box(left: float, top: float, width: float, height: float, side: int = SIZE) -> np.ndarray:
    mask = np.zeros((side, side), dtype=np.bool_)
    mask[round(top * side) : round((top + height) * side), round(left * side) : round((left + width) * side)] = True
    return mask


def as_map(values: np.ndarray, height: int = SIZE, width: int = SIZE) -> tuple[Attribution, ...]:
    return (Attribution(values.astype(np.float32), True, "planted", "it", Geometry(height, width, SIZE)),)


def place(study: str, patient: str, mask: np.ndarray, finding: str = "Effusion") -> Place:
    return Place(study, patient, finding, ("Pleural Effusion",), sentences.side_of(mask), mask)


@needs.BUNDLES.unless((BUNDLES / "openi-fve-m2").is_dir())
def test_films_that_a_pair_learned_from_in_any_stage_are_left_out() -> None:
    source, card = open_source("example"), BundleLibrary(BUNDLES).card("openi-fve-m2")
    config = card.content["config"]

    def started_from(before: str) -> Card:
        changed = config | {"backbone": config["backbone"] | {"before": before}}
        return replace(card, content={**card.content, "config": changed})

    never, taught = started_from("none"), started_from(source.name)
    assert held_out(source, [never]) == SPLITS
    assert held_out(source, [never, taught]) == ("test",)
    assert held_out(source, [card]) == ("test",)  # the bundles that ship started from ChestX-ray14's labels


# ------------------------------------------------------------------------------------------------------------ sentences


@pytest.mark.parametrize("observation", [each for each in OBSERVATIONS if each not in (NO_FINDING, SUPPORT_DEVICES)])
@pytest.mark.parametrize("side", ["left", "right", ""])
def test_a_given_sentence_asserts_its_observation_and_no_other(observation: str, side: str) -> None:
    text = sentences.finding_sentence(observation, side)
    states = label_report(text).states
    asserted = [name for name, state in states.items() if state in ASSERTED]
    assert observation in asserted
    assert set(asserted) <= {observation, "Lung Opacity"}, text
    assert (side in text.split()) == (bool(side) and sentences.says_side(observation))


def test_what_has_no_place_is_not_asked_for() -> None:
    for name in (NO_FINDING, SUPPORT_DEVICES):
        with pytest.raises(CXRLensError, match="has no place in the image"):
            sentences.finding_sentence(name)
    assert "mass" in sentences.finding_sentence("Lung Lesion", "left", "Mass").split()
    assert "nodule" in sentences.finding_sentence("Lung Lesion", "left", "Nodule").split()


def test_the_side_is_the_patients() -> None:
    assert sentences.side_of(box(0.6, 0.2, 0.3, 0.3)) == "left"
    assert sentences.side_of(box(0.1, 0.2, 0.3, 0.3)) == "right"
    assert sentences.side_of(box(0.2, 0.4, 0.6, 0.4)) == ""
    assert sentences.side_of(np.fliplr(box(0.6, 0.2, 0.3, 0.3))) == "right"


def test_a_planted_sentence_is_asked_word_by_word() -> None:
    vocabulary = Vocabulary.build(["there is a left pleural effusion .", "no effusion . heart is large ."], min_count=1)
    for decoder in ("m2", "cnn_rnn_rnn"):
        subject = open_subject(tiny_pair("dve", decoder, vocabulary), random_image(), report_of(vocabulary))
        asked = targets.given(subject, "there is a left pleural effusion .")
        words = [vocabulary.words[asked.ids[position]] for position in asked.positions]
        assert words == ["there", "is", "a", "left", "pleural", "effusion", "."]
        with_it = open_subject(subject.model, subject.image, report_of(vocabulary, words))
        own = targets.sentence(with_it, 0)  # the same words, now as the report's first sentence
        tokens = subject.visual.tokens
        assert asked.of_tokens(subject, tokens).item() == pytest.approx(own.of_tokens(with_it, tokens).item(), abs=1e-4)
        with pytest.raises(CXRLensError, match="never learned the word 'pneumothorax'"):
            targets.given(subject, "there is a left pneumothorax .")
        with pytest.raises(CXRLensError, match="is empty"):
            targets.given(subject, " ")


# ----------------------------------------------------------------------------------------------------------------- maps


def test_maps_with_known_answers() -> None:
    mask = box(0.6, 0.5, 0.25, 0.25)
    fits = score(as_map(mask), mask)
    assert fits["pointing"] == 1
    assert fits["iou"] > 0.85 and fits["average_precision"] > 0.95 and fits["energy"] > 0.75  # the maps are smoothed
    beside = score(as_map(np.fliplr(mask)), mask)
    assert beside["pointing"] == 0 and beside["energy"] < 0.01
    middle = np.zeros((SIZE, SIZE))
    middle[SIZE // 2, SIZE // 2] = 1
    assert score(as_map(middle), mask)["pointing"] == 0
    assert score(as_map(middle), box(0.4, 0.4, 0.2, 0.2))["pointing"] == 1
    drawn = np.random.default_rng(0).random((60, 16, 16))
    hits = np.mean([score(as_map(each), box(0, 0, 0.5, 1))["pointing"] for each in drawn])
    assert 0.35 < hits < 0.7  # half of the film, and the tolerance beside it


def test_a_wide_film_lies_in_the_middle_of_its_square() -> None:
    assert content_of(Geometry(height=50, width=100, size=SIZE)) == (16, 0, 32, 64)
    assert content_of(Geometry(height=100, width=100, size=SIZE)) == (0, 0, SIZE, SIZE)


def test_the_usual_place_leaves_the_patient_out() -> None:
    here, there = box(0.6, 0.5, 0.2, 0.2, USUAL_SIDE), box(0.1, 0.5, 0.2, 0.2, USUAL_SIDE)
    mine = place("a", "1", here)
    again = place("b", "1", here)
    assert usual_place([mine, again], mine, of_its_side=False) is None
    found = [mine, again, place("c", "2", there), place("d", "3", here), place("e", "4", here, "Mass")]
    usual = usual_place(found, mine, of_its_side=False)
    assert usual is not None
    assert np.allclose(usual, (here + there.astype(np.float32)) / 2)
    of_its_side = usual_place(found, mine, of_its_side=True)
    assert of_its_side is not None and np.array_equal(of_its_side > 0.5, here)


def test_films_are_drawn_so_that_findings_come_equally_often() -> None:
    mask = box(0.6, 0.5, 0.2, 0.2, USUAL_SIDE)
    found = [place(f"e{number}", f"{number}", mask) for number in range(90)]
    found += [place(f"m{number}", f"m{number}", mask, "Mass") for number in range(10)]
    chosen = choose_films(found, 12, 0)
    assert len(set(chosen)) == 12
    assert sum(study_id.startswith("m") for study_id in chosen) == 6
    assert choose_films(found, 12, 0) == chosen != choose_films(found, 12, 1)
    assert len(choose_films(found, 0, 0)) == 100
    with pytest.raises(CXRLensError, match="There are 100 films with a box, 101 were asked for"):
        choose_films(found, 101, 0)


# ------------------------------------------------------------------------------------------------------ what is refused


def test_a_source_without_boxes_or_findings_that_are_known_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_source("phantom:40:0")

    def planted(*found: TrueFinding) -> None:
        places.places.cache_clear()
        places.opened.cache_clear()
        monkeypatch.setattr(type(source), "masks", lambda *_: found)

    planted(TrueFinding("Hernia", (), box(0.1, 0.1, 0.2, 0.2)))
    with pytest.raises(CXRLensError, match="no place of any of the 14 observations. It has places of Hernia"):
        places.places(source.key, ("test",))
    planted(TrueFinding("Effusion", ("Pleural Effusion",), np.zeros((SIZE, SIZE), dtype=np.bool_)))
    with pytest.raises(CXRLensError, match="The place of Effusion lies outside the film of study"):
        places.places(source.key, ("test",))
    planted()
    with pytest.raises(CXRLensError, match="no place of any of the 14 observations"):
        places.places(source.key, ("test",))
    monkeypatch.setattr(type(source), "truth", "")
    planted()
    with pytest.raises(CXRLensError, match="has no boxes and no masks"):
        places.places(source.key, ("test",))
    places.places.cache_clear()
    places.opened.cache_clear()


# --------------------------------------------------------------------------------------------------------------- tables


def row(method: str, patient: str, pointing: float, **about: Any) -> dict[str, Any]:
    usual = {"encoder": "fve", "decoder": "m2", "kind": "given", "finding": "Effusion", "size": "over 8 %"}
    numbers = {"pointing": pointing, "energy": pointing / 2, "iou": pointing / 2, "average_precision": pointing / 2}
    return {**usual, "method": method, "study": patient, "patient": patient, **numbers, **about}


def planted_rows(encoder: str = "fve", **better: float) -> list[dict[str, Any]]:
    hits = {"random": 0.1, "centre": 0.4, "usual place": 0.6, **better}
    generator = np.random.default_rng(0)
    return [
        row(method, str(patient), float(generator.random() < hit), encoder=encoder)
        for method, hit in hits.items()
        for patient in range(80)
    ]


def results_of(rows: list[dict[str, Any]]) -> dict[str, Any]:
    about = {"command": "cxr-lens explain-benchmark", "fingerprint": "", "settings": {"seed": 0}, "pairs": []}
    told = {"title": "ChestX-ray14", "truth": "boxes that radiologists drew", "credit": "NIH"}
    more = {"films": told, "patients": 80, "boxes": {"Effusion": 80}, "unknown_words": {}}
    return {**about, **more, **film_table.summarise(rows, 0)}


def test_the_best_is_chosen_on_one_half_and_scored_on_the_other() -> None:
    (best,) = film_table.summarise(planted_rows(occlusion=0.95, attention=0.1), 0)["best"]
    assert best["methods"] == ["occlusion"] and best["reached"]
    assert best["n"] == 80
    assert best["gains"]["usual place"][1] > 0.1
    # Of many methods that are as good as the middle one looks better by chance, where it is chosen and scored at once.
    gains = []
    for seed in range(10):
        hits = np.random.default_rng(seed).random((len(film_table.VARIANTS) + 1, 60)) < 0.4
        methods = ("centre", *film_table.VARIANTS)
        rows = [row(name, str(at), float(hits[of, at])) for of, name in enumerate(methods) for at in range(60)]
        best = film_table.best_of(pd.DataFrame(rows), "fve", "given", 0)
        gains.append((best["gains"]["centre"][0], hits[1:].mean(1).max() - hits[0].mean()))
    honest, flattered = np.mean(gains, axis=0)
    assert abs(honest) < 0.06 < flattered


def test_the_table_says_what_was_asked_and_named() -> None:
    rows = planted_rows(occlusion=0.95, attention=0.1)
    rows += [
        row(method, str(patient), 1.0, kind="sentence") for method in ("centre", "occlusion") for patient in range(8)
    ]
    text = film_table.films_markdown(results_of(rows))
    assert "80 films of 80 patients, ChestX-ray14, boxes that radiologists drew: Effusion 80" in text
    assert "| fve, m2 | 10% |" in text
    assert "FVE, given: Occlusion points into the box" in text and "10 above the usual place: reached" in text
    assert "Asked by the report's own sentence, where it names the finding" in text


def test_pages_say_what_was_measured_on_real_films(tmp_path: Path) -> None:
    rows = planted_rows(occlusion=0.95, attention=0.1) + planted_rows("ccve", occlusion=0.3, smoothgrad=0.1)
    rows += [row(method, "1", 0.0, kind="sentence") for method in ("centre", "usual place", "occlusion")]
    content = film_table.compact(results_of(rows))
    assert len(json.dumps(content)) < 60_000
    (tmp_path / "openi.json").write_text(json.dumps(content), encoding="utf-8")
    methods = ("attention", "grad-cam", "occlusion")
    found = {name: measured(tmp_path, "openi", "fve", name, "sentence", "m2") for name in methods}
    occlusion = found["occlusion"]
    assert occlusion is not None and found["grad-cam"] is None
    assert occlusion.kind == "given"  # one report that names it is too few
    assert occlusion.trust == "better"
    told = "80 X-rays of patients with boxes that radiologists drew (ChestX-ray14), asked for a sentence that was given"
    assert told in occlusion.verdict and "synthetic" not in occlusion.verdict
    assert "the usual place of such findings" in occlusion.verdict
    assert best_first(found) == ["occlusion", "grad-cam", "attention"]  # not measured before worse
    assert shows_a_place(found.values())
    assert not shows_a_place([found["attention"], None])
    assert shows_a_place([None])
    ccve = {
        name: measured(tmp_path, "openi", "ccve", name, "mention", "m2") for name in ("occlusion", "occlusion-pixels")
    }
    assert ccve["occlusion"] is None  # its rankings of filters were not measured, its maps of pixels were
    assert not shows_a_place(ccve.values())
    assert measured(tmp_path, "openi", "fve", "occlusion", "report", "m2") is None


# ----------------------------------------------------------------------------------------------------------------- runs


@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_films_of_the_example_are_scored_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(studies=2, checked=0, seed=0)
    chosen: dict[str, Any] = {"methods": ["grad-cam"], "names": ["phantom-cve-m2", "phantom-fve-m2"]}
    results = films.score_films("phantom", "example", BUNDLES, tmp_path, settings, **chosen)
    asked = {(each["encoder"], each["kind"]) for each in results["rows"]}
    assert {("fve", "given"), ("fve", "logit"), ("cve", "likeness")} <= asked
    usual = [each for each in results["rows"] if each["method"] == "usual place"]
    assert usual, "other patients of the example have the same finding"
    assert results["films"]["credit"].startswith("NIH Clinical Center")
    assert "--films example" in results["command"]
    assert {path.name for path in tmp_path.glob("*.*")} >= {"table.md", "measured.json", "findings.csv", "results.json"}

    def never(*arguments: Any, **options: Any) -> None:
        raise AssertionError("a part that is done was computed again")

    monkeypatch.setattr(films, "_row", never)
    assert films.score_films("phantom", "example", BUNDLES, tmp_path, settings, **chosen) == results
    with pytest.raises(AssertionError, match="computed again"):
        films.score_films("phantom", "example", BUNDLES, tmp_path, replace(settings, seed=1), **chosen)
    with pytest.raises(CXRLensError, match="Did you mean 'grad-cam'"):
        films.score_films("phantom", "example", BUNDLES, tmp_path, settings, methods=["grad-kam"])


@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_a_cnn_that_was_cut_short_has_the_stages_that_are_left() -> None:
    model = BundleLibrary(BUNDLES).load("openi-dve-m2")
    subject = open_subject(model, random_image(height=192, width=192))
    target = targets.word(subject, 0)
    layers = cam_layers(subject, target)
    assert len(layers) >= 2
    (coarse,), (fine,) = (explain(subject, target, "grad-cam", layer=layer) for layer in (layers[-1], layers[0]))
    assert fine.values.size > coarse.values.size


def test_a_planted_model_that_looks_at_one_place_is_found_there() -> None:
    """A target that is the brightness of one box: occlusion must point into it, and not into its mirror image."""
    vocabulary = Vocabulary.build(["no effusion . heart is large ."], min_count=1)
    subject = open_subject(tiny_pair("dve", "m2", vocabulary), random_image(), report_of(vocabulary))
    size = subject.geometry.size
    mask = box(0.6, 0.5, 0.25, 0.25, size)

    class Brightness:
        name = "brightness of a box"

        def of_images(self, subject: Any, images: Any) -> Any:
            import torch

            return (images[:, 0] * torch.from_numpy(mask)).sum((1, 2)) * 10

    bright = replace(subject, square=subject.square + 0)
    bright.square[0, 0][mask] = 1.0
    found = explain(bright, Brightness(), "occlusion", over="pixels")  # type: ignore[arg-type]
    assert score(found, mask)["pointing"] == 1
    assert score(found, np.fliplr(mask))["pointing"] == 0
