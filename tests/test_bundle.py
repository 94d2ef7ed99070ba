"""Bundles: whole ones load and verify, damaged ones are refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from core.bundles.card import BundleError, read_card
from core.bundles.library import BundleLibrary, _fill
from core.bundles.rounding import rounded
from core.observations import OBSERVATIONS
from core.registry import compared_pairs
from tests import needs
from tests.conftest import BUNDLES

NAME = "phantom-fve-transformer"
FAMILIES = ("phantom", "openi")

pytestmark = [pytest.mark.numeric, needs.BUNDLES.unless(BUNDLES.is_dir())]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    shutil.copytree(BUNDLES / NAME, folder / NAME)
    shutil.copytree(BUNDLES / "shared" / "phantom-fve", folder / "shared" / "phantom-fve")
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_the_demo_has_all_pairs_and_each_verifies(family: str) -> None:
    library = BundleLibrary(BUNDLES)
    assert library.problems() == {}
    cards = [card for card in library.cards() if card.family == family]
    assert {(card.encoder, card.decoder) for card in cards} == set(compared_pairs())
    for card in cards:
        assert library.verify(card.name) < 2e-3


def test_the_demo_bundles_are_small_enough() -> None:
    for family in FAMILIES:
        assert sum(path.stat().st_size for path in BUNDLES.glob(f"**/{family}-*/*")) < 25e6
    binary = [path for path in BUNDLES.parent.rglob("*") if path.suffix in (".safetensors", ".npz")]
    assert sum(path.stat().st_size for path in binary) < 40e6  # all there is


def test_of_patients_data_only_weights_and_scores_are_given_away() -> None:
    names = {path.name for path in BUNDLES.glob("openi-*") if path.is_file()}
    # Means and directions over all films; counts and limits.
    assert names == {"openi-results.json", "openi-gate.safetensors", "openi-trust.json"}
    scores = json.loads((BUNDLES / "openi-results.json").read_text(encoding="utf-8"))
    texts = [value for row in scores["rows"] for value in row.values() if isinstance(value, str)]
    assert all(len(text.split()) == 1 for text in texts)  # names, no sentence of a report
    for card in BundleLibrary(BUNDLES).cards():
        assert card.content["config"]["data"]["folder"] == ""


def test_pairs_share_their_frozen_encoder() -> None:
    library = BundleLibrary(BUNDLES)
    first, second = library.load("phantom-fve-transformer"), library.load("phantom-fve-m2")
    assert first.encoder is second.encoder
    assert library.load("phantom-dve-m2").encoder is not library.load("phantom-dve-transformer").encoder
    assert not any(parameter.requires_grad for parameter in first.encoder.parameters())
    assert not first.encoder.training


def test_every_card_says_what_it_is_for_and_what_it_was_trained_on() -> None:
    for card in BundleLibrary(BUNDLES).cards():
        assert "Not for use in diagnostic procedures" in card.intended_use
        assert card.data["fingerprint"]
        assert card.data["studies"]["train"] > 1000
        assert card.licence


@pytest.mark.parametrize("file", ["model.safetensors", "vocab.json", "expected.safetensors"])
def test_an_edited_file_is_refused(file: str, copy: Path) -> None:
    path = copy / NAME / file
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError, match=f"{NAME}: {file} differs from the hash on its card"):
        BundleLibrary(copy).load(NAME)


def test_a_truncated_file_is_refused(copy: Path) -> None:
    path = copy / NAME / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(BundleError, match="differs from the hash"):
        BundleLibrary(copy).load(NAME)


def test_a_missing_file_is_a_problem_that_leaves_the_others(copy: Path) -> None:
    shutil.copytree(BUNDLES / "phantom-fve-m2", copy / "phantom-fve-m2")
    (copy / "phantom-fve-m2" / "model.safetensors").unlink()
    library = BundleLibrary(copy)
    missing = "Bundle phantom-fve-m2: phantom-fve-m2/model.safetensors is missing."
    assert library.problems() == {"phantom-fve-m2": f"{missing} Restore it, or make it again."}
    assert library.load(NAME).card.name == NAME


def test_a_missing_shared_encoder_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "shared")
    assert "phantom-fve" in BundleLibrary(copy).problems()[NAME]
    with pytest.raises(BundleError, match="phantom-fve: card.json is missing"):
        BundleLibrary(copy).load(NAME)


def test_another_encoder_in_the_shared_place_is_refused(copy: Path) -> None:
    card = copy / NAME / "card.json"
    content = json.loads(card.read_text())
    content["encoder"]["shared"] = {"phantom-fve": "0" * 64}
    card.write_text(json.dumps(content))
    with pytest.raises(BundleError, match="not the one these bundles were trained with"):
        BundleLibrary(copy).load(NAME)


def test_a_folder_with_the_card_of_another_bundle_is_said_to_be_so(copy: Path) -> None:
    shutil.copytree(copy / NAME, copy / "mine")
    library = BundleLibrary(copy)
    said = f"Bundle mine has the card of {NAME}: name the folder {NAME}, or put the right card there."
    assert library.problems() == {"mine": said}
    assert [card.name for card in library.cards()] == [NAME]
    for ask in (library.load, library.verify, library.classes):
        with pytest.raises(BundleError, match="has the card of"):
            ask("mine")
    assert library.load(NAME).card.name == NAME


def test_a_shared_encoder_with_the_card_of_another_is_refused(copy: Path) -> None:
    card = copy / "shared" / "phantom-fve" / "card.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "name": "phantom-cve"}))
    assert "Bundle phantom-fve has the card of phantom-cve" in BundleLibrary(copy).problems()[NAME]
    with pytest.raises(BundleError, match="phantom-fve has the card of phantom-cve"):
        BundleLibrary(copy).load(NAME)


@pytest.mark.parametrize("name", ["shared", "shared/phantom-fve", f"../bundles/{NAME}", ".", ""])
def test_a_name_that_is_no_folder_of_a_bundle_is_unknown(name: str, copy: Path) -> None:
    for ask in (BundleLibrary(copy).load, BundleLibrary(copy).classes):
        with pytest.raises(BundleError, match="There is no bundle"):
            ask(name)


def test_an_encoder_that_serves_one_pair_is_still_checked_for_the_next(copy: Path) -> None:
    shutil.copytree(BUNDLES / "phantom-fve-m2", copy / "phantom-fve-m2")
    card = copy / "phantom-fve-m2" / "card.json"
    content = json.loads(card.read_text())
    content["encoder"]["shared"] = {"phantom-fve": "0" * 64}
    card.write_text(json.dumps(content))
    library = BundleLibrary(copy)
    library.load(NAME)
    with pytest.raises(BundleError, match="not the one these bundles were trained with"):
        library.load("phantom-fve-m2")


def test_a_bundle_that_is_being_written_is_none_yet(copy: Path) -> None:
    shutil.copytree(copy / NAME, copy / f".{NAME}.0123456789abcdef.part")
    assert BundleLibrary(copy).problems() == {}
    assert [card.name for card in BundleLibrary(copy).cards()] == [NAME]


def test_an_unknown_bundle_is_answered_with_the_known(copy: Path) -> None:
    with pytest.raises(BundleError, match=f"There is no bundle 'phantom' in .* Found: {NAME}"):
        BundleLibrary(copy).load("phantom")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ('{"schema": 99}', "has schema 99, this version of CXR Lens reads 3"),
        ('{"schema": 3}', "has no field"),
    ],
)
def test_a_damaged_card_is_refused(text: str, message: str, copy: Path) -> None:
    (copy / NAME / "card.json").write_text(text)
    with pytest.raises(BundleError, match=message):
        read_card(copy / NAME)
    assert NAME in BundleLibrary(copy).problems()


def reseal(folder: Path) -> None:
    """Write the hashes anew, as someone would who edits weights on purpose."""
    import hashlib

    card = folder / "card.json"
    content = json.loads(card.read_text())
    content["sha256"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in content["sha256"]}
    card.write_text(json.dumps(content))


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    path = copy / NAME / "model.safetensors"
    tensors = load_file(path)
    tensors["decoder.output.weight"] = tensors["decoder.output.weight"][:-1].contiguous()
    save_file(tensors, path)
    reseal(copy / NAME)
    with pytest.raises(BundleError, match="does not fit its card"):
        BundleLibrary(copy).load(NAME)


def test_changed_weights_fail_verification(copy: Path) -> None:
    path = copy / NAME / "model.safetensors"
    tensors = load_file(path)
    tensors["decoder.output.weight.scale"][7] *= 1.2
    save_file(tensors, path)
    reseal(copy / NAME)
    with pytest.raises(BundleError, match="gives another output than when it was written"):
        BundleLibrary(copy).verify(NAME)


def test_reading_cards_loads_no_weights(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.bundles.library._read_tensors", lambda path: pytest.fail(f"read {path}"))
    assert [card.name for card in BundleLibrary(copy).cards()] == [NAME]


def test_classes_of_both_classifiers_are_named_on_the_shared_card() -> None:
    library = BundleLibrary(BUNDLES)
    model, classes = library.load("phantom-fve-m2"), library.classes("phantom-fve-m2")
    assert classes["cdc"] == OBSERVATIONS
    for tower, names in classes.items():
        assert len(names) == getattr(model.encoder, tower).model.num_classes
    assert library.classes("phantom-dve-m2") == {}
    with pytest.raises(BundleError):
        library.classes("phantom-xyz")


def test_rounding_keeps_each_row_within_half_a_step() -> None:
    torch.manual_seed(0)
    state = {
        "matrix": torch.randn(5, 40) * torch.tensor([1e-4, 1e-2, 1, 100, 0])[:, None],
        "kernel": torch.randn(4, 1, 3, 3),
        "bias": torch.randn(7),
        "steps": torch.tensor(12),
    }
    kept = rounded(state, "part.")
    assert {kept[f"part.{name}"].dtype for name in ("matrix", "kernel")} == {torch.int8}
    module = torch.nn.Module()
    for name, value in state.items():
        module.register_buffer(name, torch.zeros_like(value))
    _fill(module, kept, "part.", Path("somewhere"))
    for name in ("matrix", "kernel"):
        step = state[name].flatten(1).abs().amax(1) / 127
        error = (getattr(module, name) - state[name]).flatten(1).abs().amax(1)
        assert (error <= 0.501 * step + 1e-12).all()
    torch.testing.assert_close(module.bias, state["bias"], atol=1e-3, rtol=1e-3)
    assert module.steps == 12
