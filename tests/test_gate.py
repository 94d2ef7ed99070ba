"""Before any report: is this image like the films that the pair learned from? Said wherever the report is."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from core.bundles.gates import check_of, gate_file, gate_key, kept_gates, read_gates, write_gates
from core.bundles.inference import NOT_FINITE, NOTHING_WRITTEN, write_batch, write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, encode_batch
from core.evaluation.writing import Work, write_source
from core.gate.distance import Distance
from core.gate.gate import COMPONENTS, TURNS, Gate, Limits, flat, learn_gate, pooled, small_pictures
from core.studies.model_image import of_image
from core.studies.phantom import PhantomSource
from core.text import Vocabulary
from core.types import CXRLensError, Report
from tests import needs
from tests.app_pages import linked_bundles, open_page, words_on
from tests.commands import run
from tests.conftest import BUNDLES
from tests.tiny_models import WORDS, tiny_pair
from training.bench.gate import coloured_noise

pytestmark = pytest.mark.numeric
needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())
NAME = "phantom-fve-m2"
UNLIKE = "unlike the films that this model learned from"


# ------------------------------------------------------------------------------------------------------------- distance


def test_with_all_directions_it_is_mahalanobis_distance() -> None:
    random = np.random.default_rng(0)
    turn, _ = np.linalg.qr(random.standard_normal((6, 6)))
    values = (random.standard_normal((500, 6)) * np.linspace(1, 4, 6) @ turn).astype(np.float32)
    distance = Distance.learn(values, 5)  # the sixth direction is the rest: nothing is left out
    centred = values - values.mean(0)
    inverse = np.linalg.inv(centred.T @ centred / len(values))
    expected = np.einsum("ij,jk,ik->i", centred, inverse, centred) / 6
    np.testing.assert_allclose(distance.of(values), expected, rtol=0.02)
    assert distance.of(values).mean() == pytest.approx(1, abs=1e-3)


def test_few_directions_know_what_is_usual_and_what_was_never_seen() -> None:
    random = np.random.default_rng(1)
    mixed = random.standard_normal((8, 200)) * 3

    def draw(count: int) -> np.ndarray[Any, Any]:
        return (random.standard_normal((count, 8)) @ mixed + random.standard_normal((count, 200))).astype(np.float32)

    distance = Distance.learn(draw(600), 8)
    usual = distance.of(draw(300))
    assert usual.mean() == pytest.approx(1, abs=0.1)
    elsewhere = distance.of(draw(300) + 2 * np.sign(random.standard_normal((300, 200))).astype(np.float32))
    assert elsewhere.min() > usual.max()


def test_too_few_films_and_broken_numbers_are_refused() -> None:
    few = np.random.default_rng(0).random((9, 20)).astype(np.float32)
    assert Distance.learn(few, 16).basis.shape == (4, 20)
    with pytest.raises(CXRLensError, match="cannot be learned from 2 of them"):
        Distance.learn(few[:2], 16)
    broken = np.full((100, 20), np.nan, np.float32)
    with pytest.raises(CXRLensError, match="finite"):
        Distance.learn(broken, 4)


# ----------------------------------------------------------------------------------------------------------------- gate


def drawn(count: int, seed: int = 11, size: int = 48) -> Tensor:
    source = PhantomSource(count, seed)
    return torch.from_numpy(np.stack([source.image(name, size) for name in source.study_ids]))[:, None]


@pytest.fixture(scope="module")
def films() -> tuple[Tensor, Tensor, Tensor]:
    """Phantoms to learn from, to set limits with, and to try."""
    images = drawn(200)
    return images[:130], images[130:170], images[170:]


def as_tokens(images: Tensor) -> Tensor:
    """Some numbers that an encoder might make of images: means of coarse cells, as two tokens."""
    cells = torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1)
    edges = images.diff(dim=3).abs().mean((1, 2, 3))[:, None].expand(-1, 16)
    return torch.stack([cells, edges * 20], 1)


@pytest.fixture(scope="module")
def gate(films: tuple[Tensor, Tensor, Tensor]) -> Gate:
    train, validate, _ = films
    picture = Distance.learn(flat(small_pictures(train)), COMPONENTS[0])
    tokens = Distance.learn(pooled(as_tokens(train)), 8)
    return learn_gate(picture, tokens, (small_pictures(validate), pooled(as_tokens(validate))))


CHANGES = {
    "left": lambda images: images.rot90(-1, (2, 3)),
    "right": lambda images: images.rot90(1, (2, 3)),
    "half": lambda images: images.rot90(2, (2, 3)),
    "flipped": lambda images: images.flip(2),
    "inverted": lambda images: 1 - images,
    "mirrored": lambda images: images.flip(3),
}
"""What makes a film need the turn of this name."""


@pytest.mark.parametrize("turn", TURNS)
def test_a_turned_film_is_told_how_to_turn_it(turn: str, gate: Gate, films: tuple[Tensor, Tensor, Tensor]) -> None:
    changed = CHANGES[turn](films[2])
    said = gate.warnings(changed, as_tokens(changed))
    assert np.mean([each[0].startswith(TURNS[turn]) for each in said if each]) > 0.95
    assert np.mean([bool(each) for each in said]) > (0.6 if turn == "mirrored" else 0.95)


def test_usual_films_pass_whatever_their_exposure(gate: Gate, films: tuple[Tensor, Tensor, Tensor]) -> None:
    assert np.mean([bool(each) for each in gate.warnings(films[2], as_tokens(films[2]))]) <= 0.12
    darker = films[2] * 0.7 + 0.1
    np.testing.assert_allclose(
        gate.scores(darker, as_tokens(films[2])).picture, gate.scores(films[2], as_tokens(films[2])).picture, rtol=0.15
    )


def test_noise_and_pictures_are_unlike(gate: Gate) -> None:
    random = np.random.default_rng(3)
    noise = [random.random((256, 256), dtype=np.float32), *(coloured_noise(random, power) for power in (1, 1, 2, 2))]
    step = np.indices((256, 256)).sum(0) // 64 % 2
    images = torch.from_numpy(np.stack([*noise, step.astype(np.float32)]))[:, None]
    for said in gate.warnings(images, as_tokens(images)):
        assert said and ("means nothing" in said[0] or "Do not trust" in said[0])


def test_a_limit_is_where_validation_films_set_it(gate: Gate, films: tuple[Tensor, Tensor, Tensor]) -> None:
    scores = gate.scores(films[1], as_tokens(films[1]))
    for values, limit in ((scores.picture, gate.limits.picture), (scores.tokens, gate.limits.tokens)):
        assert (values > limit).sum() == 1  # of 40
    assert gate.limits.turned >= 1.1 and gate.limits.mirrored >= 1.1
    silent = np.array([not said for said in gate.warnings(films[1], as_tokens(films[1]))])
    assert silent.mean() > 0.9
    assert (gate.unlike(scores)[silent] <= 1).all()


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_gate_comes_back_from_its_small_file(
    gate: Gate, films: tuple[Tensor, Tensor, Tensor], tmp_path: Path
) -> None:
    path = gate_file(tmp_path, "test")
    other = replace(gate, limits=Limits(1, 2, 3, 4))
    write_gates(path, {"a" * 16: gate, "b" * 16: other}, {"studies": 200})
    read = read_gates(path)
    assert path.stat().st_size < 30_000
    assert read["b" * 16].limits == Limits(1, 2, 3, 4)
    images = films[2]
    before, after = (each.scores(images, as_tokens(images)) for each in (gate, read["a" * 16]))
    np.testing.assert_array_equal(after.picture, before.picture)
    np.testing.assert_array_equal(after.tokens, before.tokens)
    assert kept_gates(path, {"studies": 200}, {"a" * 16}).keys() == {"a" * 16}
    assert kept_gates(path, {"studies": 201}, {"a" * 16}) == {}  # of other films
    write_gates(path, read, {"studies": 200})  # read and written again it is the same
    assert read_gates(path)["b" * 16].limits == Limits(1, 2, 3, 4) and path.stat().st_size < 30_000
    path.write_bytes(path.read_bytes()[:1000])
    assert kept_gates(path, {"studies": 200}, {"a" * 16}) == {}
    with pytest.raises(CXRLensError, match=r"test-gate\.safetensors cannot be read"):
        read_gates(path)


@needs_bundles
def test_what_was_not_checked_is_said(tmp_path: Path, films: tuple[Tensor, Tensor, Tensor], gate: Gate) -> None:
    card = BundleLibrary(BUNDLES).card(NAME)
    images = films[2][:2]

    def told() -> list[tuple[str, ...]]:
        return check_of(tmp_path, card).warnings(images, as_tokens(images))

    assert all("not checked" in said[0] and "is not beside the bundles" in said[0] for said in told())
    write_gates(gate_file(tmp_path, "phantom"), {"0" * 16: gate}, {})
    assert "knows nothing of this encoder" in told()[0][0]
    gate_file(tmp_path, "phantom").write_bytes(b"no tensors")
    assert "cannot be read" in told()[1][0]
    write_gates(gate_file(tmp_path, "phantom"), {gate_key(card): gate}, {})
    assert told() == gate.warnings(images, as_tokens(images)) or isinstance(check_of(tmp_path, card), Gate)


@needs_bundles
def test_every_bundle_that_ships_has_its_gate_and_all_are_small() -> None:
    for card in BundleLibrary(BUNDLES).cards():
        assert isinstance(check_of(BUNDLES, card), Gate), card.name
    assert sum(path.stat().st_size for path in BUNDLES.glob("*-gate.safetensors")) < 150_000


# ------------------------------------------------------------------------------------- on reports, pages and in exports


@pytest.fixture(scope="module")
def turned_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "turned.png"
    source = PhantomSource(4, 5)
    image = np.rot90(source.image(source.study_ids[0], 256))
    Image.fromarray((image * 255).astype(np.uint8)).save(path)
    return path


@needs_bundles
def test_a_turned_film_and_noise_have_a_warning_and_their_report(turned_film: Path, tmp_path: Path) -> None:
    said = run("report", turned_film, "--bundle", NAME)
    assert "Warning: This image seems to be turned by 90 degrees" in said.stdout
    told = json.loads(run("report", turned_film, "--bundle", NAME, "--json").stdout)
    assert told["reports"][0]["warnings"] and told["reports"][0]["findings"]
    folder = tmp_path / "images"
    folder.mkdir()
    usual = PhantomSource(4, 5)
    for name in usual.study_ids[:3]:
        Image.fromarray((usual.image(name, 128) * 255).astype(np.uint8)).save(folder / f"{name}.png")
    Image.open(turned_film).save(folder / "turned.png")
    noise = coloured_noise(np.random.default_rng(0), 1)
    Image.fromarray((noise * 255).astype(np.uint8)).save(folder / "noise.png")
    census = write_source(Work(str(folder), None, BUNDLES, (NAME,), device="cpu"), tmp_path / "out.jsonl")
    assert census.written == 5
    assert {"turned", "noise"} <= census.warned.keys()
    assert "turned by 90 degrees" in census.warned["turned"][0]
    about = json.loads((tmp_path / "out.jsonl.about.json").read_text())
    assert about["census"]["warned"] == census.warned
    reports = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert all(row[NAME] for row in reports)


@needs_bundles
def test_the_page_warns_above_the_reports_that_it_still_shows(
    turned_film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = linked_bundles(tmp_path / "bundles", NAME, "shared", "phantom-gate.safetensors")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    page = open_page("read", source="upload")
    page.file_uploader[0].upload("turned.png", turned_film.read_bytes()).run()
    assert not page.exception
    assert any("seems to be turned by 90 degrees" in each.value for each in page.warning)
    assert "Reports" in words_on(page)


# -------------------------------------------------------------------------------------------------------------- numbers


def pair_of(decoder: str = "transformer") -> ReportModel:
    return tiny_pair("dve", decoder, Vocabulary.build([" ".join(WORDS)], 1))


def test_an_image_that_gives_nan_costs_its_own_report_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair_of()
    images = torch.rand(3, 1, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    alone = next(write_batch([model], lambda *_: images[[0, 2]]))[1]

    def breaks(model: ReportModel, batch: Tensor) -> Any:
        visual = encode_batch(model, batch)
        tokens = visual.tokens.clone()
        tokens[1, 0, 0] = float("nan")
        return replace(visual, tokens=tokens)

    monkeypatch.setattr("core.bundles.inference.encode_batch", breaks)
    reports = next(write_batch([model], lambda *_: images))[1]
    assert [reports[0].text, reports[2].text] == [each.text for each in alone]
    assert (reports[1].text, reports[1].warnings) == ("", (NOT_FINITE,))
    assert all(NOT_FINITE not in each.warnings for each in (reports[0], reports[2]))


def test_a_decoder_that_gives_nan_leaves_the_others_reports() -> None:
    broken, whole = pair_of(), pair_of("m2")
    with torch.no_grad():
        broken.decoder.output.weight.fill_(float("nan"))  # type: ignore[union-attr, operator]
    image = of_image(np.random.default_rng(0).random((80, 60), dtype=np.float32))
    reports = dict(write_reports([broken, replace(whole, card=replace(whole.card, name="whole"))], image))
    assert reports[broken.card.name].text == ""
    assert "NaN instead of word scores" in reports[broken.card.name].warnings[-1]
    assert reports["whole"].text


def test_an_empty_report_says_that_it_is_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair_of()
    wordless = Report("", (), -1.0, finished=True)
    monkeypatch.setattr("core.bundles.inference.write_from_tokens", lambda *_: [wordless])
    image = of_image(np.random.default_rng(0).random((80, 60), dtype=np.float32))
    ((_, report),) = write_reports([model], image)
    assert (report.text, report.warnings[-1]) == ("", NOTHING_WRITTEN)
