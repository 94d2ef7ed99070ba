"""A study has one image for a pair, and one report of it, on every page and in every command."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from core.bundles.card import Card
from core.bundles.inference import pooled_embedding, write_batch, write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_batch, to_batch
from core.config import ExperimentConfig, load_config
from core.explain.filters import filter_views
from core.explain.subject import open_subject
from core.reviews.design import Choice, Design, image_sha256
from core.reviews.rubrics import ReviewError
from core.reviews.sources import name_index, name_phantoms, open_source, session_image, write_cases
from core.studies.image_cache import write_image_cache
from core.studies.images import fit_square
from core.studies.index import StudyIndex, open_index
from core.studies.indexed import IndexedSource
from core.studies.model_image import grey_levels, model_image, of_image, of_study
from core.studies.openi import index_openi
from core.studies.phantom import PhantomSource
from core.text import Vocabulary, sentence_spans
from core.types import StudySource
from dashboard import settings
from dashboard.reviews import pictures, pool
from dashboard.services import bundles, evaluations, filters, reports, sources, studies
from tests.app_pages import linked_bundles, needs_bundles
from tests.conftest import BUNDLES
from tests.openi_tree import Study, write_annotation, write_kaggle
from tests.tiny_models import tiny_pair
from training import evaluate as scoring
from training.cli import main
from training.data import StudyData, to_images
from training.options import PRESETS

NAMES = ("phantom-dve-transformer", "phantom-fve-m2")
pytestmark = pytest.mark.numeric
Texts = list[dict[str, str]]
"""A study each: text by pair."""


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two of the repository's bundles, which the pages use."""
    folder = linked_bundles(tmp_path / "bundles", *NAMES, "shared")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    monkeypatch.setattr(scoring.java, "missing", lambda: "METEOR is left out here.")
    return folder


def evaluated(config: ExperimentConfig, folder: Path, where: Path) -> tuple[list[str], Texts]:
    """Ids and texts as `cxr-lens evaluate` writes them, in one batch; they are put where the Cases page reads them."""
    scoring.evaluate(config, StudyData(config.data, where / "images"), folder, where / "out")
    content = (where / "out" / "reports.jsonl").read_text(encoding="utf-8")
    (folder / "phantom-reports.jsonl").write_text(content, encoding="utf-8")
    rows = [json.loads(line) for line in content.splitlines()]
    return [row["study_id"] for row in rows], [{name: row[name] for name in NAMES} for row in rows]


def read_on_the_page(cases: Sequence[studies.Case]) -> Texts:
    cards: list[Card] = [BundleLibrary(BUNDLES).load(name).card for name in NAMES]
    found: Texts = []
    for case in cases:
        readings = dict(reports.read(case, cards))
        found.append({name: reading.report.text for name, reading in readings.items()})  # type: ignore[union-attr]
    return found


def read_in_a_session(name: str, ids: Sequence[str]) -> Texts:
    models = bundles.load_models(NAMES)
    source = open_source(name)
    listed = Choice("listed", 0, tuple(ids))
    cases = write_cases(source, [source.study(each) for each in ids], listed, 0, models, reference=False)  # type: ignore[attr-defined]
    return [dict(case.reports) for case in cases]


def commanded(path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> dict[str, str]:
    """Texts as `cxr-lens report FILE` prints them."""
    monkeypatch.setattr(sys, "argv", ["cxr-lens", "report", str(path), "--json", "--bundles", str(folder)])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main()
    printed = capsys.readouterr()
    assert not ended.value.code, printed.err
    return {each["bundle"]: each["findings"] for each in json.loads(printed.out)["reports"]}


@needs_bundles
def test_a_phantom_has_one_report_everywhere(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = load_config(PRESETS, "phantom", ["data.count=40", "evaluate_studies=3"])
    ids, texts = evaluated(config, two, tmp_path)
    assert len({each[NAMES[1]] for each in texts}) > 1, "these studies cannot tell one image from another"
    assert read_on_the_page([studies.open_study(each) for each in ids]) == texts  # one after another
    there = settings.bundles()
    written = (there / f"phantom{end}" for end in (evaluations.RESULTS, evaluations.REPORTS))
    cases = evaluations.read_reports(evaluations.ResultSet("phantom", "phantom", *written, {}, "1"))
    shown = [{name: cases.texts[name][place] for name in NAMES} for place in map(cases.study_ids.index, ids)]
    assert shown == texts

    count, seed = sources.phantom_numbers()
    name = name_phantoms(count, seed)
    assert read_in_a_session(name, ids) == texts
    design = Design("T", "report-quality", ("anna",), NAMES, Choice("listed", 0, (ids[0],)), source=name)
    study, _, reports = pool.preview(design)
    assert study.study_id == ids[0] and {text for _, text in reports} <= set(texts[0].values())

    source = PhantomSource(count, seed)
    size = BundleLibrary(BUNDLES).load(NAMES[0]).image_size
    for study_id, expected in zip(ids[:1], texts, strict=False):
        path = tmp_path / f"{study_id}.png"
        Image.fromarray(grey_levels(source.image(study_id, size))).save(path)
        assert commanded(path, two, monkeypatch, capsys) == expected


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> StudyIndex:
    """An index of an Open-i-like release whose films are phantoms: large, not square, and worth a word."""
    folder = tmp_path_factory.mktemp("films")
    source = PhantomSource(40, 5)
    studies: dict[int, Study] = {}
    films = []
    for number, study_id in enumerate(source.study_ids[:7], start=1):
        study = source.study(study_id)
        name = f"{number}_IM-000{number}-1001"
        studies[number] = ("PA", study.findings, study.impression, "normal", [(name, "Frontal")])
        film = io.BytesIO()
        pixels = grey_levels(source.image(study_id, 440))[: 440 - 13 * number, 7:]
        Image.fromarray(pixels).save(film, "PNG")
        films.append(film.getvalue())
    write_kaggle(folder / "release", studies=studies, image=lambda number: films[number])
    write_annotation(folder / "release", studies, {"train": [1, 2, 3], "val": [4], "test": [5, 6, 7]}, images=1)
    return index_openi(folder / "release", folder / "index")


@needs_bundles
def test_a_film_of_an_index_has_one_report_everywhere(
    films: StudyIndex, two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    index = films
    options = ["data.source=openi", f"data.folder={index.folder}", "data.views=frontal", "evaluate_studies=0"]
    ids, texts = evaluated(load_config(PRESETS, "phantom", options), two, tmp_path)
    assert len(ids) == 3 and len({each[NAMES[1]] for each in texts}) > 1
    name = name_index(index.folder, "frontal")
    assert read_in_a_session(name, ids) == texts
    source = IndexedSource(index.folder, "frontal")
    paths = [index.root / index.images["path"][source._samples["image"][source._place(each)].as_py()] for each in ids]
    uploads = [studies.open_upload(path.read_bytes(), "film.png") for path in paths]
    assert read_on_the_page(uploads) == texts
    assert commanded(paths[0], two, monkeypatch, capsys) == texts[0]
    # With a cache of images, of another size too, nothing changes.
    size = BundleLibrary(BUNDLES).load(NAMES[0]).image_size
    write_image_cache(open_index(index.folder), [size, 224], list(range(len(index.images))))
    assert read_in_a_session(name, ids) == texts


@pytest.fixture(scope="module")
def pair() -> ReportModel:
    words = ("the", ".", "lungs", "are", "clear", "heart", "is", "large")
    return tiny_pair("ccve", "transformer", Vocabulary.build([" ".join(words)], 1))


def test_all_that_a_model_reads_is_the_model_image(pair: ReportModel, films: StudyIndex) -> None:
    """Reports, embeddings, filters and explanations of a phantom and of a film: the same numbers as in training."""
    phantoms = PhantomSource(10, 3)
    indexed = IndexedSource(films.folder, "frontal")
    opened: list[tuple[StudySource, str]] = [
        (phantoms, phantoms.study_ids[0]),
        (indexed, indexed.studies("test")[0].study_id),
    ]
    for source, study_id in opened:
        size = pair.image_size
        training = to_images(grey_levels(source.image(study_id, size))[None])
        given = source.image(study_id, size)  # of a phantom with more than 256 levels
        for image in (given, of_study(source, study_id)(size)):
            assert torch.equal(to_batch([image], size), training)
            assert torch.equal(open_subject(pair, image).square, training)
            np.testing.assert_array_equal(filter_views(pair, image).image, training[0, 0].numpy())
            pooled = encode_batch(pair, training).tokens[0].mean(0).numpy()
            np.testing.assert_array_equal(pooled_embedding(pair, image), pooled)
    film = indexed.original(opened[1][1]).pixels
    assert film.shape[0] != film.shape[1]
    subject = open_subject(pair, film)
    assert torch.equal(subject.square, training)
    np.testing.assert_array_equal(pair.reads(of_image(film)), training[0, 0].numpy())  # as an upload comes
    assert (subject.geometry.height, subject.geometry.width) == film.shape


@given(
    height=st.integers(32, 90), width=st.integers(32, 90), size=st.sampled_from([32, 64]), seed=st.integers(0, 2**31)
)
def test_the_model_image_has_256_levels_and_stays_itself(height: int, width: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((height, width), dtype=np.float32)
    square, geometry = model_image(image, size)
    assert square.dtype == np.float32 and square.shape == (size, size)
    assert (geometry.height, geometry.width, geometry.size) == (height, width, size)
    np.testing.assert_array_equal(square, np.round(square * 255).astype(np.float32) / np.float32(255))
    assert np.abs(square - fit_square(image, size)[0]).max() <= 0.5 / 255 + 1e-6
    again, _ = model_image(square, size)
    np.testing.assert_array_equal(again, square)
    for pixels in (of_image(image), of_image(square)):
        np.testing.assert_array_equal(model_image(pixels(size), size)[0], square)


def test_a_session_keeps_its_picture_and_its_hash() -> None:
    """What is shown, and what the hashes of sessions of every version are of, is larger than what models read."""
    source = PhantomSource(40, 3)
    image = session_image(source, source.study_ids[0])
    assert image.shape == (512, 512)
    assert image_sha256(image) == image_sha256(source.image(source.study_ids[0], 512))
    case = write_cases(source, [source.study(source.study_ids[0])], Choice(), 0, [], reference=True)[0]
    assert case.image_sha256 == image_sha256(image)


@needs_bundles
def test_evaluate_tells_where_the_preset_is_not_followed(
    two: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    card = BundleLibrary(two).load(NAMES[0]).card
    same = load_config(PRESETS, "phantom")
    scoring._tell_other_settings(same, [card])
    assert capsys.readouterr().err == ""
    scoring._tell_other_settings(load_config(PRESETS, "phantom", ["write.beam_size=1"]), [card])
    assert f"{NAMES[0]} writes as its card says" in capsys.readouterr().err


def old_text(model: ReportModel, source: StudySource, study_id: str) -> str:
    """As sessions had it once: from the session's picture, shrunk and not rounded."""
    square = fit_square(session_image(source, study_id), model.image_size)[0]
    return next(write_batch([model], lambda *_: torch.from_numpy(square)[None, None]))[1][0].text


def drawn(source: str, study_id: str, name: str, text: str) -> list[dict[str, Any]]:
    """The overlays of a session's screen on explanations, as the browser gets them."""
    image = session_image(open_source(source), study_id)
    screen = SimpleNamespace(
        id="1",
        source=source,
        study_id=study_id,
        image_sha256=image_sha256(image),
        explanation="attention",
        reports=(("A", text),),
    )
    content = pictures.draw(screen, {"A": (name, "")})  # type: ignore[arg-type]
    overlays: list[dict[str, Any]] = json.loads(content[4 : 4 + int.from_bytes(content[:4], "little")])["overlays"]
    return overlays


@needs_bundles
def test_explanations_are_of_the_image_that_the_report_was_written_from() -> None:
    """Of new sessions and of old ones; a text that the pair writes from neither has none."""
    source, name = PhantomSource(200, 0), NAMES[0]
    (model,) = bundles.load_models([name])
    study_id = next(
        study.study_id
        for study in source.studies("test")
        if old_text(model, source, study.study_id) != new_text(model, source, study.study_id)
    )
    for text in (old_text(model, source, study_id), new_text(model, source, study_id)):
        assert len(drawn("phantom:200:0", study_id, name, text)) == len(sentence_spans(text))
    with pytest.raises(ReviewError, match="What report A is based on cannot be shown"):
        drawn("phantom:200:0", study_id, name, "The lungs are clear.")


def new_text(model: ReportModel, source: StudySource, study_id: str) -> str:
    return next(write_reports([model], of_study(source, study_id)))[1].text


@needs_bundles
def test_explanations_lie_where_they_belong_on_a_film_that_is_not_square(films: StudyIndex) -> None:
    source, name = IndexedSource(films.folder, "frontal"), name_index(films.folder, "frontal")
    study_id = source.studies("test")[0].study_id
    height, width = source.original(study_id).pixels.shape
    for model in bundles.load_models([NAMES[0], "phantom-ccve-transformer"]):
        overlays = drawn(name, study_id, model.card.name, new_text(model, source, study_id))
        for each in overlays:
            if each["label"].startswith("No filter stands out"):  # nothing is shown, and that is said
                assert (each["height"], each["width"]) == (2, 2)
            elif each["kind"] == "heat":  # cells of the film itself
                assert each["place"] == [0, 0, 1, 1]
                sampled = [len(range(0, side, side // pictures.MAP_SIZE)) for side in (height, width)]
                assert [each["height"], each["width"]] == sampled
            else:  # the square that the filter made, padding outside the film
                top, left, high, wide = each["place"]
                assert each["height"] == each["width"]
                assert high * height == pytest.approx(wide * width) == max(height, width)
                assert (2 * top + high, 2 * left + wide) == pytest.approx((1, 1))


@needs_bundles
@pytest.mark.slow
def test_the_repositorys_reports_are_those_of_every_page() -> None:
    """A measurement: on another processor a tie may fall the other way, so one report in fifty may differ."""
    rows = [json.loads(line) for line in (BUNDLES / "phantom-reports.jsonl").read_text().splitlines()[:60]]
    source = PhantomSource(*sources.phantom_numbers())
    models = bundles.load_models([*NAMES, "phantom-ccve-m2"])
    same = {model.card.name: 0 for model in models}
    for row in rows:
        for name, report in write_reports(models, of_study(source, row["study_id"])):
            same[name] += report.text == row[name]
    print(f"equal to the stored reports, of {len(rows)}: {same}")  # noqa: T201
    other = {
        model.card.name: sum(
            next(write_reports([model], of_image(source.image(row["study_id"], 512))))[1].text == row[model.card.name]
            for row in rows[:24]
        )
        for model in models
    }
    print(f"and where the phantom is drawn at 512 pixels, of 24: {other}")  # noqa: T201
    assert min(same.values()) >= 0.95 * len(rows)


@needs_bundles
def test_filters_and_words_are_of_the_report_on_the_page() -> None:
    """The Filters page explains the report that Read shows."""
    case = studies.open_study(next(iter(studies.visible_studies())))
    card = BundleLibrary(BUNDLES).load("phantom-ccve-transformer").card
    ((_, reading),) = reports.read(case, [card])
    assert isinstance(reading, reports.Reading)
    shown = filters.pictures(case, card)
    source = PhantomSource(*sources.phantom_numbers())
    expected = to_images(grey_levels(source.image(case.title, shown.image.shape[0]))[None])[0, 0]
    np.testing.assert_array_equal(shown.image, expected.numpy())
    assert reports.report_of(case, card).text == reading.report.text
