"""What is no checkpoint of R2Gen or IFCC is refused by name, and nothing in a file is run."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from core.bundles.checkpoints.ifcc import read_embedded, read_ifcc
from core.bundles.checkpoints.r2gen import read_r2gen
from core.bundles.checkpoints.reading import CheckpointError
from core.bundles.library import BundleLibrary
from core.types import CXRLensError
from tests.foreign_models import WORDS, save_embeddings, save_ifcc, save_r2gen, save_words, some_ifcc, some_r2gen
from training.cli import app

pytestmark = pytest.mark.numeric


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return save_words(tmp_path)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return save_embeddings(tmp_path)


@pytest.mark.parametrize("how", ["safetensors", "parallel", "bare", "half", "older torch"])
def test_other_forms_of_the_same_weights(how: str, tmp_path: Path, words: Path) -> None:
    state = some_r2gen().state_dict()
    expected = read_r2gen(save_r2gen(tmp_path, state), vocabulary=words).decoder_state
    path = tmp_path / "other.pth"
    if how == "safetensors":
        path = tmp_path / "other.safetensors"
        save_file({key: value.clone() for key, value in state.items()}, path)
    elif how == "parallel":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    elif how == "bare":
        torch.save({key: each for key, each in state.items() if "num_batches" not in key}, path)
    elif how == "half":
        torch.save({"state_dict": {key: v.half() if v.is_floating_point() else v for key, v in state.items()}}, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=False)
    found = read_r2gen(path, vocabulary=words).decoder_state
    tolerance = {"atol": 1e-2, "rtol": 1e-2} if how == "half" else {"atol": 0, "rtol": 0}
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, **tolerance)


Change = Callable[[dict[str, Any]], Any]
LUT, GAMMA = "encoder_decoder.model.tgt_embed.0.lut.weight", "encoder_decoder.model.encoder.norm.gamma"
FAULTS: dict[str, tuple[Change, str]] = {
    "missing": (lambda state: state.pop(GAMMA), rf"does not fit R2Gen: missing is {re.escape(GAMMA)}\."),
    "no words": (lambda state: state.pop(LUT), rf"no checkpoint of R2Gen: {re.escape(LUT)} is missing"),
    "more": (lambda state: state.update({"cmn.head.weight": torch.zeros(2)}), r"not known is cmn\.head\.weight"),
    "shape": (lambda state: state.update({GAMMA: torch.ones(9)}), r"gamma has the shape \(9,\), not \(16,\)"),
    "axes": (lambda state: state.update({LUT: torch.ones(13)}), "has the shape .*, where 2 axes are needed"),
    "another depth": (
        lambda state: [state.pop(key) for key in list(state) if "model.decoder.layers.0.src_attn" in key],
        r"missing is .*decoder\.layers\.0\.src_attn\.linears\.0\.weight, .* and 5 more",
    ),
    "a gap": (
        lambda state: [state.pop(key) for key in list(state) if "model.encoder.layers.0." in key],
        r"missing is .*encoder\.layers\.0\.",
    ),
    "not finite": (lambda state: state[GAMMA].fill_(torch.nan), "gamma has numbers that are not finite"),
    "whole numbers": (lambda state: state.update({GAMMA: torch.ones(16).long()}), "numbers of another kind"),
    "complex": (lambda state: state.update({GAMMA: torch.ones(16) * 1j}), "is no plain tensor"),
    "spread": (lambda state: state.update({GAMMA: torch.ones(1).expand(2**40)}), "is no plain tensor"),
    "no tensor": (lambda state: state.update({GAMMA: "ones"}), "holds what is no tensor"),
    "positions": (
        lambda state: state["encoder_decoder.model.tgt_embed.1.pe"].mul_(2),
        "positions of words that are not those",
    ),
    "batch norms": (
        lambda state: state.update({"encoder_decoder.att_embed.1.running_var": torch.ones(16)}),
        "not known is encoder_decoder.att_embed.1.running_var",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_differs_is_named(fault: str, tmp_path: Path, words: Path) -> None:
    change, message = FAULTS[fault]
    state = dict(some_r2gen().state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message) as told:
        read_r2gen(save_r2gen(tmp_path, state), vocabulary=words)
    assert len(str(told.value)) < 500


IFCC_FAULTS: dict[str, tuple[Change, str]] = {
    "image positions": (lambda state: state.update({"image_pe.pe": torch.ones(7, 1, 16)}), "positions of the image's"),
    "no encoder": (
        lambda state: [state.pop(key) for key in list(state) if key.startswith("encoder.")],
        r"no encoder over the image's tokens \(trans-s\)",
    ),
    "clip": (lambda state: state.update({"image_feats.dve.conv1.weight": torch.ones(1)}), "CLIP's image tower"),
    "fewer words": (
        lambda state: state.update({"embeddings.weight": torch.ones(9, 16)}),
        r"has 10 words, the checkpoint 5",
    ),
    "a gate": (
        lambda state: state.update({"decoder.layers.0.linear_alpha7.bias": torch.ones(1)}),
        r"not known is decoder\.layers\.0\.linear_alpha7\.bias",
    ),
    "no room": (lambda state: state.update({"word_pe.pe": torch.ones(1, 1, 16)}), "room for no word"),
    "one matrix": (
        lambda state: state.update({"decoder.layers.0.self_attn.in_proj_weight": torch.ones(47, 16)}),
        r"in_proj_weight has the shape \(47, 16\), not \(48, 16\)",
    ),
}


@pytest.mark.parametrize("fault", IFCC_FAULTS)
def test_what_differs_from_ifcc_is_named(fault: str, tmp_path: Path, embeddings: Path) -> None:
    change, message = IFCC_FAULTS[fault]
    state = dict(some_ifcc(slots=3).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        read_ifcc(save_ifcc(tmp_path, state), vocabulary=embeddings, views=1)


class Harmful:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(zipped: bool, tmp_path: Path, words: Path) -> None:
    path, sign = tmp_path / "best.pth", tmp_path / "it-ran"
    content = {"state_dict": some_r2gen().state_dict(), "args": Harmful(sign)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"holds more than tensors \(.*system\)") as told:
        read_r2gen(path, vocabulary=words)
    assert not sign.exists()
    assert "save_file" in str(told.value)
    assert "'best.safetensors'" in str(told.value)


def test_the_way_out_that_is_told_leads_out(tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_r2gen(tmp_path, some_r2gen().state_dict(), args=pytest.approx(1))
    with pytest.raises(CheckpointError) as told:
        read_r2gen(path, vocabulary=words)
    monkeypatch.chdir(tmp_path)
    exec(str(told.value).partition("import that file: ")[2], {})  # what the message tells to run
    assert read_r2gen(tmp_path / "model_best.safetensors", vocabulary=words).decoder == "r2gen"


@pytest.mark.parametrize("form", ["zip", "gzip", "older torch", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(form: str, tmp_path: Path, words: Path) -> None:
    state = some_r2gen().state_dict()
    path = tmp_path / "cut.pth"
    if form == "gzip":
        path = save_ifcc(tmp_path, state)
    elif form == "safetensors":
        path = tmp_path / "cut.safetensors"
        save_file(state, path)
    else:
        torch.save({"state_dict": state}, path, _use_new_zipfile_serialization=form == "zip")
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(CheckpointError, match=r"cannot be .*cut short"):
        read_r2gen(path, vocabulary=words)


@pytest.mark.parametrize("content", [[1, 2], {}, {"state_dict": 3}, {"state_dict": {}}, "text"])
def test_a_checkpoint_without_tensors_is_refused(content: Any, tmp_path: Path, words: Path) -> None:
    path = tmp_path / "odd.pth"
    torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"odd\.pth holds"):
        read_r2gen(path, vocabulary=words)


@pytest.mark.parametrize("content", [b"", b"\x1f\x8b", b"PK\x03\x04", b"text, no checkpoint", bytes(3000)])
def test_what_is_no_checkpoint_is_refused(content: bytes, tmp_path: Path, words: Path) -> None:
    path = tmp_path / "none.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"none\.pth cannot be"):
        read_r2gen(path, vocabulary=words)
    with pytest.raises(CheckpointError, match="There is no file"):
        read_r2gen(tmp_path / "not-there.pth", vocabulary=words)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"views": 2}, "reads one image"),
        ({"heads": 5}, "--heads 5: the model's width, 16, is no multiple of it"),
        ({"memory_heads": 3}, "--memory-heads 3"),
        ({"max_words": 512}, "--max-words 512"),
        ({"vocabulary": None}, r"\(--annotations\)"),
    ],
)
def test_what_cannot_be_is_said(wanted: dict[str, Any], message: str, tmp_path: Path, words: Path) -> None:
    path = save_r2gen(tmp_path, some_r2gen().state_dict())
    with pytest.raises(CheckpointError, match=message):
        read_r2gen(path, **{"vocabulary": words, **wanted})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (WORDS[:-1], "has 11 words; the checkpoint has 12"),
        ([*WORDS[:1], "unknown", *WORDS[2:]], "has no <unk>"),
        ([*WORDS[:-1], "the"], "has a word twice: 'the'"),
        ([*WORDS[:-1], "two words"], "has what is no word: 'two words'"),
        ({word: number for number, word in enumerate(WORDS)}, "ids, from 1 without a gap"),
        ({"words": 3.5}, "ids, from 1 without a gap"),
        (7, "is no list of words"),
    ],
)
def test_words_that_do_not_fit_are_refused(content: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        read_r2gen(save_r2gen(tmp_path, some_r2gen().state_dict()), vocabulary=path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        *((each, "cannot be the name of a bundle") for each in ("../elsewhere", "", ".hidden", "a/b", "x" * 65, "a\n")),
        *((each, "is the name of something else") for each in ("shared", "Phantom", "openi", "reference", "group")),
    ],
)
def test_a_name_that_cannot_be_had_is_refused(name: str, message: str, tmp_path: Path, words: Path) -> None:
    a_trained_pair(tmp_path / "bundles")
    wanted = ["import", "r2gen", str(save_r2gen(tmp_path, {})), "--name", name, "--vocabulary", str(words)]
    done = CliRunner().invoke(app, [*wanted, "--bundles", str(tmp_path / "bundles")])
    assert isinstance(done.exception, CXRLensError)
    assert message in str(done.exception)


def test_a_pair_that_was_trained_here_is_not_replaced(tmp_path: Path, words: Path) -> None:
    card = a_trained_pair(tmp_path / "bundles")
    before = card.read_bytes()
    wanted = ["import", "r2gen", str(save_r2gen(tmp_path, some_r2gen().state_dict())), "--vocabulary", str(words)]
    wanted += ["--name", card.parent.name, "--replace", "--bundles", str(tmp_path / "bundles")]
    refused = CliRunner().invoke(app, wanted)
    assert "was trained here, and is not replaced" in str(refused.exception)
    assert card.read_bytes() == before


def a_trained_pair(bundles: Path) -> Path:
    """The card of a bundle of another family, as training writes it; its weights are not there."""
    path = bundles / "group-dve-m2" / "card.json"
    path.parent.mkdir(parents=True)
    own = {"name": path.parent.name, "family": "group"}
    card = {
        "schema": 3, "name": "", "family": "", "size": "tiny", "created": "2026-11-29", "config": {}, "metrics": {},
        "data": {"name": "table"}, "write": {}, "intended_use": "research", "licence": "none",
        "inputs": {"image": [1, 64, 64], "range": [0, 1], "normalization": "in the encoder"},
        "encoder": {"name": "dve", "changes": {}, "shared": {}}, "decoder": {"name": "m2", "changes": {}},
        "sha256": {"model.safetensors": "0" * 64, "vocab.json": "0" * 64, "expected.safetensors": "0" * 64},
    }  # fmt: skip
    path.write_text(json.dumps(card | own))
    assert [each.family for each in BundleLibrary(bundles).cards()] == ["group"]
    return path


@pytest.mark.parametrize("text", ["3 2\nthe 1 2\nlungs 0 0\n", "the 1 2\n", "", '["the", 3]', "[", "\ufeff"])
def test_embeddings_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"glove\.txt"):
        read_embedded(path)
    path.write_bytes(gzip.compress(b"1 2\nthe 1 2\n")[:-9])
    with pytest.raises(CheckpointError, match=r"glove\.txt cannot be read"):
        read_embedded(path)
