"""A film is fitted as the pair's training images were, however the file came: squashed, padded, or as it was taken."""

from __future__ import annotations

import csv
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.bundles.card import BundleError, read_card
from core.bundles.editing import edit_card
from core.bundles.inference import pooled_embedding, write_batch, write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel, to_batch
from core.config import ConfigError, load_config
from core.evaluation.own import _embeddings
from core.explain.subject import open_subject
from core.labels.rules import label_report
from core.observations import NO_FINDING, LabelState
from core.studies.images import fit_square, to_original, to_square, trim_borders
from core.studies.images.geometry import _resize
from core.studies.model_image import model_image, of_image
from core.studies.source import bare_study
from core.text import Vocabulary
from core.types import PAD, CXRLensError, Fit, FloatImage
from tests import needs
from tests.commands import refused, run
from tests.conftest import BUNDLES
from tests.tiny_models import WORDS, tiny_pair
from training.data import StudyData
from training.options import PRESETS

STRETCH = Fit("stretch", 1.0, trim=True)
pytestmark = pytest.mark.numeric
needs_bundles = needs.BUNDLES.unless(BUNDLES.is_dir())


def film(height: int, width: int, seed: int = 0) -> FloatImage:
    """Smooth, like a radiograph, and with something in every row and column."""
    coarse = np.random.default_rng(seed).uniform(0.2, 0.9, (6, 6)).astype(np.float32)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.float32)
    across = 0.08 * np.sin(np.linspace(0, 20, width))[None] + 0.08 * np.sin(np.linspace(0, 20, height))[:, None]
    return np.clip(smooth + across, 0.1, 0.98).astype(np.float32)


def bordered(image: FloatImage, widths: tuple[int, int, int, int], grey: float) -> FloatImage:
    top, bottom, left, right = widths
    return np.pad(image, ((top, bottom), (left, right)), constant_values=grey)


# ------------------------------------------------------------------------------------------------------------- borders

width_of_border = st.integers(0, 40)


@settings(max_examples=60, deadline=None)
@given(
    widths=st.tuples(*[width_of_border] * 4),
    grey=st.sampled_from([0.0, 0.05, 1.0]),
    noise=st.sampled_from([0.0, 1.5 / 255]),
    seed=st.integers(0, 2**31),
)
def test_just_the_border_is_cut(widths: tuple[int, int, int, int], grey: float, noise: float, seed: int) -> None:
    image = bordered(film(90, 70, seed), widths, grey)
    dirt = np.random.default_rng(seed).uniform(-noise, noise, image.shape)
    dirty = np.clip(image + dirt, 0, 1).astype(np.float32)
    assert trim_borders(dirty) == (widths[0], widths[2], 90, 70)


@settings(max_examples=40, deadline=None)
@given(widths=st.tuples(*[width_of_border] * 4), seed=st.integers(0, 2**31), quality=st.integers(70, 95))
def test_a_border_that_was_kept_as_jpeg_is_cut_to_a_block(
    widths: tuple[int, int, int, int], seed: int, quality: int, tmp_path_factory: Any
) -> None:
    path = tmp_path_factory.getbasetemp() / "padded.jpg"
    Image.fromarray((bordered(film(90, 70, seed), widths, 0) * 255).astype(np.uint8)).save(path, quality=quality)
    top, left, height, width = trim_borders(np.asarray(Image.open(path), np.float32) / 255)
    for cut, border in zip(
        (top, sum(widths[:2]) + 90 - top - height, left, sum(widths[2:]) + 70 - left - width), widths, strict=True
    ):
        assert border - 8 <= cut <= border


def test_what_has_anything_in_it_is_kept() -> None:
    inside = film(80, 60)
    marked = bordered(inside, (20, 0, 0, 0), 0)
    marked[8:12, 4:8] = 1  # a marker on the border
    assert trim_borders(marked) == (8, 0, 92, 60)
    slope = np.repeat(np.linspace(0, 1, 100, dtype=np.float32)[:, None], 50, 1)  # no line differs from its neighbour
    assert trim_borders(slope)[2] >= 96  # the outermost grey at each end
    for even in (np.zeros((40, 40), np.float32), np.ones((40, 40), np.float32), bordered(inside, (300,) * 4, 0)):
        assert trim_borders(even) == (0, 0, *even.shape)  # nothing tells a border from the rest


def test_borders_of_two_greys_and_in_corners() -> None:
    image = film(80, 60)
    assert trim_borders(bordered(bordered(image, (0, 0, 9, 9), 0), (7, 0, 0, 0), 1)) == (7, 9, 80, 60)


# ---------------------------------------------------------------------------------------------------------- one film


@pytest.mark.parametrize("shape", [(256, 210), (256, 312), (400, 328)])
def test_squashed_padded_and_plain_copies_are_one_image_to_a_pair_that_learned_to_stretch(shape: Any) -> None:
    plain = film(*shape)
    squashed = _resize(plain, (256, 256), (0, 0, shape[1], shape[0]))
    padded, _ = fit_square(plain, max(shape))
    read = [model_image(each, 96, STRETCH)[0] for each in (plain, squashed, padded)]
    for one in read[1:]:
        assert np.abs(one - read[0]).max() < 0.08
        assert np.abs(one - read[0]).mean() < 0.004
    assert np.abs(model_image(padded, 96)[0] - model_image(squashed, 96)[0]).mean() > 0.05


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(40, 200), width=st.integers(40, 200), y=st.floats(0.15, 0.85), x=st.floats(0.15, 0.85),
    aspect=st.sampled_from([0.5, 0.8, 1.0, 1.5]), how=st.sampled_from(["pad", "stretch"]),
    border=st.tuples(*[st.integers(0, 20)] * 4),
)  # fmt: skip
def test_places_survive_the_way_there_and_back(
    height: int, width: int, y: float, x: float, aspect: float, how: Any, border: tuple[int, int, int, int]
) -> None:
    """A bright spot lies in the square where `content` and `square` say, and back in the image where it was."""
    image = bordered(film(height, width), border, 0)
    rows, columns = image.shape
    _, geometry = fit_square(image, 160, fit=Fit(how, aspect, trim=True))
    assert geometry.read == (border[0], border[2], height, width)
    at_row, at_column = border[0] + y * height, border[2] + x * width
    r, c = np.mgrid[:rows, :columns] + 0.5
    spot = np.exp(-(((r - at_row) / (0.04 * height)) ** 2) - ((c - at_column) / (0.04 * width)) ** 2)
    square = to_square(spot.astype(np.float32), geometry)

    def middle(values: FloatImage) -> tuple[float, float]:
        weights = values**2  # no tails
        a, b = np.mgrid[: values.shape[0], : values.shape[1]] + 0.5
        return float((a * weights).sum() / weights.sum()), float((b * weights).sum() / weights.sum())

    top, left, high, wide = geometry.content
    found = middle(square)
    assert found[0] / 160 == pytest.approx(top + y * high, abs=0.01)
    assert found[1] / 160 == pytest.approx(left + x * wide, abs=0.01)
    s_top, s_left, s_high, s_wide = geometry.square
    assert (s_top + found[0] / 160 * s_high) * rows == pytest.approx(at_row, abs=0.012 * s_high * rows)
    assert (s_left + found[1] / 160 * s_wide) * columns == pytest.approx(at_column, abs=0.012 * s_wide * columns)
    back = to_original(square, geometry)
    assert back.shape == image.shape
    again = middle(back)
    assert again[0] == pytest.approx(at_row, abs=0.02 * max(geometry.sides))
    assert again[1] == pytest.approx(at_column, abs=0.02 * max(geometry.sides))
    outside = np.ones(image.shape, bool)
    outside[border[0] : border[0] + height, border[2] : border[2] + width] = False
    assert not back[outside].any()
    if how == "stretch":
        assert wide / high == pytest.approx(aspect)
        assert max(wide, high) == pytest.approx(1)


@given(seed=st.integers(0, 2**31), fit=st.sampled_from([PAD, STRETCH, Fit("stretch", 0.8), Fit("pad", trim=True)]))
def test_what_was_fitted_once_stays_itself(seed: int, fit: Fit) -> None:
    square, _ = model_image(bordered(film(50, 41, seed), (0, 0, 12, 3), 0), 48, fit)
    np.testing.assert_array_equal(model_image(square, 48, fit)[0], square)


def test_an_image_with_nan_is_refused_in_a_sentence() -> None:
    image = film(60, 60)
    image[10, 10] = np.nan
    with pytest.raises(CXRLensError, match="NaN or infinity"):
        model_image(image, 48)


# ------------------------------------------------------------------------------------------------------------- a pair's


def test_each_pair_of_a_family_reads_the_film_as_it_learned() -> None:
    vocabulary = Vocabulary.build([" ".join(WORDS)], 1)
    padding = tiny_pair("dve", "transformer", vocabulary)
    content = {"fit": {"how": "stretch", "aspect": 1.0, "trim": True}}
    stretching = replace(padding, card=replace(padding.card, name="stretching", content=content))
    plain = film(128, 90)
    read: list[torch.Tensor] = []
    hook = padding.encoder.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0].clone()))
    try:
        assert [name for name, _ in write_reports([padding, stretching], of_image(plain))] == [
            padding.card.name,
            "stretching",
        ]
    finally:
        hook.remove()
    size = padding.image_size
    for batch, fit in zip(read, (PAD, STRETCH), strict=True):
        np.testing.assert_array_equal(batch[0, 0].numpy(), model_image(plain, size, fit)[0])
    assert open_subject(stretching, plain).geometry.aspect == 1.0
    np.testing.assert_array_equal(open_subject(stretching, plain).square, read[1])


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    shutil.copytree(BUNDLES / "phantom-fve-m2", tmp_path / "phantom-fve-m2")
    return tmp_path / "phantom-fve-m2"


def rewrite(folder: Path, change: Any) -> None:
    content = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    change(content)
    (folder / "card.json").write_text(json.dumps(content), encoding="utf-8")


@needs_bundles
def test_a_card_that_does_not_tell_is_taken_for_padding_and_that_is_said(bundle: Path) -> None:
    assert read_card(bundle).fit_note == ""
    rewrite(bundle, lambda content: content.pop("fit"))
    card = read_card(bundle)
    assert card.fit == PAD
    assert "does not say how its training images were fitted: padding" in card.fit_note
    rewrite(bundle, lambda content: content.update(fit={"how": "crop"}))
    with pytest.raises(BundleError, match=r"phantom-fve-m2.*images are fitted by.*'crop'"):
        read_card(bundle)


@needs_bundles
@pytest.mark.parametrize("family", ["phantom", "openi"])
def test_every_bundle_that_ships_tells_its_fit(family: str) -> None:
    fits = {card.fit for card in BundleLibrary(BUNDLES).cards() if card.family == family}
    assert fits == {load_config(PRESETS, family).data.as_fit}
    assert not any(card.fit_note for card in BundleLibrary(BUNDLES).cards())


@needs_bundles
def test_a_card_is_edited_by_a_command_and_stays_whole(bundle: Path) -> None:
    before = read_card(bundle)
    edit_card(bundle, {"fit": {"how": "stretch", "aspect": 0.8}})
    after = read_card(bundle)
    assert (after.fit, after.write, after.content["sha256"]) == (
        Fit("stretch", 0.8),
        before.write,
        before.content["sha256"],
    )
    assert run("card", "write.beam_size=2", "fit.trim=true", "--bundles", bundle.parent).exit_code == 0
    assert read_card(bundle).write["beam_size"] == 2
    assert read_card(bundle).fit == Fit("stretch", 0.8, trim=True)
    whole = (bundle / "card.json").read_bytes()
    for wrong, message in (
        ("fit.how=crop", "'pad' or 'stretch'"),
        ("fit.aspect=99", "between 0.1 and 10"),
        ("fit.size=3", "size"),
        ("write.beam_size=0", "at least 1"),
        ("data.count=3", "fit and write can be changed"),
        ("fit.how", "not of the form"),
    ):
        assert message in refused("card", wrong, "--bundles", bundle.parent)
    assert (bundle / "card.json").read_bytes() == whole


def test_a_presets_fit_is_that_of_the_images_that_are_learned(tmp_path: Path) -> None:
    config = load_config(PRESETS, "openi").data
    assert config.as_fit == STRETCH
    with pytest.raises(ConfigError, match=r"data\.fit: expected one of pad, stretch"):
        load_config(PRESETS, "openi", ["data.fit=crop"])
    phantoms = replace(load_config(PRESETS, "phantom").data, count=10)
    padded = StudyData(phantoms, tmp_path).images("test", 32)
    stretched = StudyData(replace(phantoms, fit="stretch", trim=True), tmp_path).images("test", 32)
    np.testing.assert_array_equal(padded, stretched)  # phantoms are drawn as squares
    assert padded.filename != stretched.filename  # type: ignore[attr-defined]


def normal_films(count: int) -> list[FloatImage]:
    """Frontal films of Open-i's test split whose findings are normal by the rules, squashed as its copy is."""
    folder = needs.SHARED / "openi"
    with (folder / "indiana_reports.csv").open(newline="", encoding="utf-8") as file:
        findings = {row["uid"]: row["findings"] for row in csv.DictReader(file)}
    with (folder / "indiana_projections.csv").open(newline="", encoding="utf-8") as file:
        frontal = [row for row in csv.DictReader(file) if row["projection"] == "Frontal"]
    files = {row["uid"]: folder / "images" / "images_normalized" / row["filename"] for row in reversed(frontal)}
    test = [row["id"].split("_")[0][3:] for row in json.loads((folder / "annotation.json").read_text())["test"]]
    normal = [uid for uid in test if uid in files and is_normal(findings.get(uid, ""))]
    paths = [files[uid].with_suffix(".jpg") for uid in normal[:count]]
    return [np.asarray(Image.open(path).convert("L"), np.float32) / 255 for path in paths]


def is_normal(text: str) -> bool:
    return label_report(text).states[NO_FINDING] is LabelState.POSITIVE


PAIRS = ("openi-fve-transformer", "openi-cve-transformer", "openi-fve-m2")
FILMS = 300
KINDS = ("squashed", "as taken", "padded", "narrowed and padded", "softened and padded")


def copies_of(film: FloatImage) -> dict[str, FloatImage]:
    """A squashed film, and what it may have been; portrait films have a width of about 0.82 of their height.

    Lanczos' filter keeps the detail of a film that is made higher; the triangle filter, which many programs enlarge
    with, softens it, and a film that is made narrower loses a part of it.
    """
    square = (0, 0, *film.shape)
    taken = Image.fromarray(film).resize((256, 312), Image.Resampling.LANCZOS)
    plain = np.asarray(taken, np.float32).clip(0, 1)
    narrow, soft = (_resize(film, size, square) for size in ((210, 256), (256, 312)))
    padded = [fit_square(each, max(each.shape))[0] for each in (plain, narrow, soft)]
    return dict(zip(KINDS, (film, plain, *padded), strict=True))


@pytest.mark.slow
@pytest.mark.timeout(1500)
@needs_bundles
@needs.OPENI.unless((needs.SHARED / "openi").is_dir())
def test_a_normal_film_is_as_often_called_abnormal_squashed_and_padded() -> None:
    """Prints the table of docs/images.md."""
    films = normal_films(FILMS)
    of_each = [copies_of(each) for each in films]
    copies = {kind: [each[kind] for each in of_each] for kind in KINDS}
    sys.stdout.write(f"\n| normal films called abnormal, of {len(films)} | {' | '.join(KINDS)} | padded, not known |\n")
    for name in PAIRS:
        model = BundleLibrary(BUNDLES).load(name)
        called = [called_abnormal(model, copies[kind], model.fit) for kind in KINDS]
        called.append(called_abnormal(model, copies["padded"], PAD))
        sys.stdout.write(f"| {model.card.title} | {' | '.join(f'{share:.1%}' for share in called)} |\n")
        kept = called[: KINDS.index("softened and padded")]
        assert max(kept) - min(kept) <= 0.03
        assert called[-1] > max(kept)


def called_abnormal(model: ReportModel, films: Sequence[FloatImage], fit: Fit) -> float:
    """Share of films whose report, greedy, names a finding."""
    texts = []
    for at in range(0, len(films), 25):
        batch = to_batch(list(films[at : at + 25]), model.image_size, fit)
        (_, reports), *_ = write_batch([model], lambda *_, batch=batch: batch, beam_size=1)  # type: ignore[misc]
        texts += [report.text for report in reports]
    return float(1 - np.mean([is_normal(text) for text in texts]))


class Asked:
    """A source of three studies that notes in which way it is asked for their images."""

    def __init__(self) -> None:
        self.fits: list[tuple[int, Fit]] = []

    def image(self, study_id: str, size: int, fit: Fit = PAD) -> FloatImage:
        self.fits.append((size, fit))
        return model_image(film(90, 120, int(study_id)), size, fit)[0]


def test_the_nearest_report_is_looked_for_among_images_as_the_pair_reads_them() -> None:
    model = tiny_pair("cve", "transformer", Vocabulary.build([" ".join(WORDS)], 1))
    stretched = {"fit": {"how": "stretch", "aspect": 1.0, "trim": True}}
    model = replace(model, card=replace(model.card, content=stretched))
    asked, studies = Asked(), [bare_study(str(number)) for number in range(3)]
    found = _embeddings(asked, model, studies, lambda share, what: None)  # type: ignore[arg-type]
    assert asked.fits == [(model.image_size, STRETCH)] * 3
    image = model_image(film(90, 120, 1), model.image_size, STRETCH)[0]
    assert found[1] == pytest.approx(pooled_embedding(model, image), abs=1e-5)
