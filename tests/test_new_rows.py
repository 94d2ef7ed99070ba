"""A fifth encoder and a fourth decoder, registered here by the recipe of CONTRIBUTING: everything serves them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor, nn

from core.bundles.library import BundleLibrary
from core.config import load_config
from core.encoders.base import Encoder, Normalize, grid_tokens
from core.explain.methods import METHODS, explain, possible
from core.explain.subject import open_subject
from core.explain.targets import whole_report
from core.registry import DECODERS, ENCODERS, IMAGENET, EncoderShape, EncoderSpec, token_names
from core.studies.phantom import PhantomSource
from core.types import VisualTokens
from tests.app_pages import open_page
from tests.test_training import FEW
from training.options import PRESETS
from training.paper.chain import run_chain
from training.plan import stages
from training.stages.run import Run

pytestmark = pytest.mark.numeric

NEW = ("grey", "second")


class GreyEncoder(Encoder):
    """One convolution, a token a cell: it learns with its decoder."""

    def __init__(self, normalize: Normalize, *, width: int, fetch: bool = False) -> None:
        super().__init__()
        self.normalize = normalize
        self.model = nn.Conv2d(3, width, 32, stride=32)

    def encode(self, images: Tensor) -> VisualTokens:
        tokens, grid = grid_tokens(self.model(self.normalize(images)))
        return VisualTokens(tokens, (grid,), ("grey",) * tokens.shape[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of bundles of two new encoders with a new decoder, trained, evaluated and exported by the chain."""
    patch = pytest.MonkeyPatch()
    row = EncoderSpec(
        name="grey",
        title="GREY",
        summary="A single convolution.",
        build="tests.test_new_rows:GreyEncoder",
        objective=None,
        normalization=IMAGENET,
        source="a test",
        sizes={"tiny": EncoderShape(image_size=128, num_tokens=16, width=24, grids=((4, 4),), arch={"width": 24})},
    )
    patch.setitem(ENCODERS, "grey", row)  # type: ignore[call-overload]
    patch.setitem(ENCODERS, "second", replace(ENCODERS["fve"], name="second", title="SECOND"))  # type: ignore[call-overload]
    one_layer = {"tiny": {**DECODERS["m2"].sizes["tiny"], "layers": 1}}
    patch.setitem(DECODERS, "short", replace(DECODERS["m2"], name="short", title="Short", sizes=one_layer))  # type: ignore[call-overload]
    patch.setattr("core.evaluation.java.missing", lambda: "METEOR is left out here.")
    folder = tmp_path_factory.mktemp("new")
    chosen = [*FEW, "encoders=['grey','second']", "decoders=['short']"]
    config = load_config(PRESETS, "phantom", chosen)
    run_chain(Run(config, folder / "runs"), folder / "bundles")
    yield folder
    patch.undo()


def test_the_chain_trains_scores_and_exports_them(trained: Path) -> None:
    library = BundleLibrary(trained / "bundles")
    assert [card.name for card in library.cards()] == ["phantom-grey-short", "phantom-second-short"]
    assert all(library.verify(card.name) < 1e-3 for card in library.cards())
    assert set(library.classes("phantom-second-short")) == {"cdc", "fgc"}
    assert library.classes("phantom-grey-short") == {}
    rows = json.loads((trained / "runs" / "evaluate" / "results.json").read_text())["rows"]
    assert {(row["encoder"], row["decoder"]) for row in rows} == {("grey", "short"), ("second", "short")}


def test_the_plan_counts_their_stages(trained: Path) -> None:
    config = load_config(PRESETS, "phantom", [*FEW, "encoders=['grey','second']", "decoders=['short']"])
    named = [each.name for each in stages(config)]
    assert {"backbone", "cdc_second", "fgc_second", "tokens_second", "grey-short", "second-short"} == set(named)


@pytest.mark.parametrize("name", NEW)
def test_every_method_that_can_explains_them(trained: Path, name: str) -> None:
    model = BundleLibrary(trained / "bundles").load(f"phantom-{name}-short")
    source = PhantomSource(count=48, seed=0)
    subject = open_subject(model, source.image(source.study_ids[0], 128))
    assert not token_names(name)
    methods = possible(subject, whole_report(subject))
    assert set(methods) == set(METHODS)
    quick = {"integrated-gradients": {"steps": 2}, "random-masks": {"masks": 4}, "smoothgrad": {"samples": 2}}
    for method in methods:
        for each in explain(subject, whole_report(subject), method, **quick.get(method, {})):
            assert each.geometry is not None


@pytest.mark.parametrize("page", ["read", "embeddings", "results", "cases", "about"])
def test_pages_show_them(trained: Path, page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(trained / "bundles"))
    assert not [each.value for each in open_page(page, encoder="second").error]
