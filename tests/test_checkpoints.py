"""Checkpoints of R2Gen and IFCC become bundles that compute what the originals do; others are refused by name."""

from __future__ import annotations

import gzip
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from typer.testing import CliRunner

from core.bundles.checkpoints.ifcc import read_embedded, read_ifcc
from core.bundles.checkpoints.r2gen import mimic_words, read_r2gen, read_words
from core.bundles.checkpoints.reading import CheckpointError
from core.bundles.checkpoints.writing import Imported, new_decoder, new_encoder
from core.bundles.inference import write_reports
from core.bundles.library import BundleLibrary
from core.bundles.pair import ReportModel
from core.decoders.search import GenerateConfig, generate
from core.explain.methods import explain, possible
from core.explain.subject import open_subject
from core.explain.targets import given, reference, whole_report
from core.studies.model_image import of_image
from core.systems.pairs import pairs
from core.text import END, SENTENCE_END, START, UNKNOWN, Vocabulary
from core.types import CXRLensError, VisualTokens
from tests.foreign_models import Ifcc, IfccPlanner, R2Gen, densenet, resnet, settle
from tests.tiny_models import random_image
from training.cli import app

pytestmark = pytest.mark.numeric

WORDS = [".", "<unk>", "clear", "effusion", "heart", "is", "left", "lungs", "no", "right-sided", "the", "with"]
"""In the order of R2Gen's ids, from 1."""
EMBEDDED = ["the", ".", "lungs", "are", "clear", "no", "effusion", "heart", "is", "large"]
"""In the order of IFCC's ids, from 4."""
SMALL = (4, 4, 8, 8)
IMAGE = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(7))


def foreign_r2gen(seed: int = 0, block: Any = Bottleneck, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    cnn = resnet(block, SMALL, (2, 1, 1, 1))
    model = settle(R2Gen(len(WORDS), cnn, SMALL[-1] * block.expansion, **sizes))
    model.encoder_decoder.logit.weight.mul_(3)
    return model


def foreign_ifcc(seed: int = 0, **sizes: Any) -> Any:
    torch.manual_seed(seed)
    model = settle(Ifcc(len(EMBEDDED), densenet(), 9, **sizes))
    model.word_dense.weight.mul_(3)
    return model


@pytest.fixture
def words(tmp_path: Path) -> Path:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(WORDS))
    return path


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    path = tmp_path / "glove.txt.gz"
    lines = [f"{len(EMBEDDED) + 1} 2", *(f"{word} 0.5 1.0" for word in EMBEDDED[:4]), "<unk> 0 0"]
    lines += [f"{word} 0.5 1.0" for word in EMBEDDED[4:]]
    path.write_bytes(gzip.compress("\n".join([*lines, ""]).encode()))
    return path


def saved(folder: Path, state: dict[str, Any], **more: Any) -> Path:
    """As R2Gen's trainer writes it."""
    path = folder / "model_best.pth"
    torch.save({"epoch": 3, "state_dict": state, "monitor_best": 0.1, **more}, path)
    return path


def saved_by_ifcc(folder: Path, state: dict[str, Any]) -> Path:
    path = folder / "model_31-152173.dict.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        torch.save({"epoch": 31, "model": state, "bests": {0: 0.5}}, file)
    return path


def built(imported: Imported) -> tuple[Any, Any]:
    """Encoder and decoder with their weights."""
    encoder = new_encoder(imported.encoder, imported.side)
    encoder.load_state_dict(imported.encoder_state)
    decoder = new_decoder(imported.decoder, imported.width, len(imported.vocabulary), imported.decoder_changes)
    decoder.load_state_dict(imported.decoder_state)
    return encoder.freeze(), decoder.eval().requires_grad_(False)


def in_r2gen(vocabulary: Vocabulary, ids: Tensor) -> Tensor:
    """Our ids as R2Gen's."""
    theirs = [WORDS.index(word) + 1 if word in WORDS else 0 for word in vocabulary.words]
    theirs[UNKNOWN] = WORDS.index("<unk>") + 1
    return torch.tensor(theirs)[ids]


TEXT = "the lungs with no right-sided effusion. heart is swollen."

# -------------------------------------------------------------------------------------------------------------- R2Gen


@pytest.mark.parametrize(("block", "layers"), [(Bottleneck, 2), (BasicBlock, 1)])
def test_r2gen_computes_what_the_original_does(block: Any, layers: int, tmp_path: Path, words: Path) -> None:
    foreign = foreign_r2gen(block=block, layers=layers)
    imported = read_r2gen(saved(tmp_path, foreign.state_dict()), vocabulary=words)
    encoder, decoder = built(imported)
    ids = torch.tensor([imported.vocabulary.encode(TEXT, 40)] * 2)[:, :-1]
    assert UNKNOWN in ids  # "swollen"
    theirs = in_r2gen(imported.vocabulary, ids)
    visual = encoder(IMAGE)
    ours = decoder(visual, ids).logits.log_softmax(2)
    expected = foreign(IMAGE, theirs).log_softmax(2)
    for index, word in enumerate(imported.vocabulary.words[END:], END):
        if index != SENTENCE_END:
            column = WORDS.index(word) + 1 if word in WORDS else 0
            torch.testing.assert_close(ours[:, :, index], expected[:, :, column], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours[:, :, UNKNOWN], expected[:, :, WORDS.index("<unk>") + 1], atol=1e-4, rtol=1e-4)
    memory = decoder.encode(visual)
    state = decoder.start(memory, beams=2)
    for place in range(ids.shape[1]):  # a step of two beams, of the whole prefix
        logits, state = decoder.step(ids[:, place].repeat_interleave(2), state)
        torch.testing.assert_close(
            logits[::2], decoder.decode(memory, ids[:, : place + 1]).logits[:, -1], atol=2e-4, rtol=1e-4
        )


@pytest.mark.parametrize("seed", range(3))
def test_r2gen_writes_the_originals_greedy_reports(seed: int, tmp_path: Path, words: Path) -> None:
    foreign = foreign_r2gen(seed)
    imported = read_r2gen(saved(tmp_path, foreign.state_dict()), vocabulary=words)
    encoder, decoder = built(imported)
    config = GenerateConfig(beam_size=1, max_words=20)
    found = generate(decoder, encoder(IMAGE), config, imported.vocabulary)
    for row, hypothesis in enumerate(found):
        ids = [0]
        while len(ids) <= config.max_words:
            logits = foreign(IMAGE[row : row + 1], torch.tensor([ids]))[0, -1]
            logits[WORDS.index("<unk>") + 1] = -torch.inf  # we write no unknown words
            ids.append(int(logits.argmax()))
            if ids[-1] == 0:
                break
        text = [WORDS[index - 1] for index in ids[1:] if index]
        assert imported.vocabulary.decode(hypothesis.ids) == text
        assert hypothesis.finished == (ids[-1] == 0)


def test_its_vocabulary_follows_from_its_annotations(tmp_path: Path) -> None:
    often = {"the": 12, "lungs": 11, "clear": 4, "bulla": 2}
    reports = [" ".join(word for word, count in often.items() if count > number) + "." for number in range(12)]
    path = tmp_path / "annotation.json"
    path.write_text(json.dumps({"train": [{"report": each} for each in reports], "val": [], "test": []}))
    for kept in ([".", "<unk>", "lungs", "the"], [".", "<unk>", "clear", "lungs", "the"]):
        torch.manual_seed(0)
        model = settle(R2Gen(len(kept), resnet(BasicBlock, SMALL, (1, 1, 1, 1)), 8, width=16))
        imported = read_r2gen(saved(tmp_path, model.state_dict()), annotations=path)
        assert list(imported.vocabulary.words[5:]) == [word for word in kept if word != "<unk>"]
    torch.manual_seed(0)
    model = settle(R2Gen(9, resnet(BasicBlock, SMALL, (1, 1, 1, 1)), 8, width=16))
    with pytest.raises(
        CheckpointError, match="gives 4 with --threshold 10, 5 with --threshold 3; the checkpoint has 9"
    ):
        read_r2gen(saved(tmp_path, model.state_dict()), annotations=path)


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("The lungs are clear.", "the lungs are clear ."),
        ("1. Clear  lungs.\n2. No effusion.. 3. Heart,\nlarge", "clear lungs . no effusion . heart large ."),
        ('A 4.5 cm "mass"/node in the right-sided ___ (T2).', "a 45 cm massnode in the right-sided t2 ."),
        ("Small. ", "small ."),
        ("", "."),
    ],
)
def test_reports_are_cleaned_as_r2gen_does(text: str, cleaned: str) -> None:
    assert mimic_words(text) == cleaned.split()


@pytest.mark.parametrize("form", ["list", "ids by word", "words by id"])
def test_words_come_in_three_forms(form: str, tmp_path: Path) -> None:
    numbered = list(enumerate(WORDS, 1))
    content: Any = {
        "list": WORDS,
        "ids by word": {word: number for number, word in reversed(numbered)},
        "words by id": {str(number): word for number, word in reversed(numbered)},
    }[form]
    path = tmp_path / "words.json"
    path.write_text(json.dumps(content))
    assert read_words(path) == WORDS


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> BundleLibrary:
    """A folder with an imported R2Gen, brought in by the command."""
    folder = tmp_path_factory.mktemp("imported")
    (folder / "words.json").write_text(json.dumps(WORDS))
    file = saved(folder, foreign_r2gen().state_dict())
    wanted = ["import", "r2gen", str(file), "--name", "theirs", "--vocabulary", str(folder / "words.json")]
    done = CliRunner().invoke(app, [*wanted, "--bundles", str(folder / "bundles")])
    assert done.exit_code == 0, done.output
    assert "theirs: DVE + R2Gen" in done.output
    return BundleLibrary(folder / "bundles")


def test_the_bundle_is_one_like_others(library: BundleLibrary) -> None:
    (card,) = library.cards()
    assert (card.name, card.family, card.encoder, card.decoder) == ("theirs", "theirs", "dve", "r2gen")
    assert (card.token_width, card.image_side, card.fit.how, card.trained_here) == (32, 224, "stretch", False)
    assert card.content["imported"]["from"] == "R2Gen"
    assert library.problems() == {}
    assert library.verify("theirs") < 1e-5
    foreign, model = foreign_r2gen(), library.load("theirs")
    kept = model.decoder.get_submodule("output").weight[5:]  # type: ignore[index]
    assert torch.equal(kept[1:], foreign.encoder_decoder.logit.weight[3:])  # not rounded
    ((name, report),) = write_reports([model], of_image(random_image()))
    assert name == "theirs"
    assert report.word_attention is not None
    assert report.word_attention.shape == (len(report.words), 49)
    assert "it was imported" in report.warnings[0]
    (system,) = pairs(library.folder)
    assert system.title == "DVE + R2Gen"
    assert system.of_image(random_image(), None) == report.text  # type: ignore[arg-type]


def test_every_method_that_can_explains_it(library: BundleLibrary) -> None:
    subject = open_subject(library.load("theirs"), random_image())
    target = whole_report(subject)
    quick = {"integrated-gradients": {"steps": 2}, "random-masks": {"masks": 4}, "smoothgrad": {"samples": 2}}
    methods = possible(subject, target)
    assert {"attention", "cls-attention", "grad-cam", "integrated-gradients"} <= set(methods)
    for method in methods:
        if method not in ("occlusion", "shapley"):  # a pass a window: the others ask for the same numbers
            (found,) = explain(subject, target, method, **quick.get(method, {}))
            assert torch.isfinite(torch.from_numpy(found.values)).all()
    asked = given(subject, "no right-sided effusion")
    assert len(asked.positions) == 3  # "right-sided" is one word to it
    with pytest.raises(CXRLensError, match="never learned the word 'swollen'"):
        given(subject, "swollen")
    visual = encoded(subject.model)
    foreign, ids = foreign_r2gen(), subject.model.vocabulary.encode(TEXT, 40)
    theirs = in_r2gen(subject.model.vocabulary, torch.tensor([ids]))
    steps = foreign(IMAGE[:1], theirs[:, :-1]).log_softmax(2)[0]
    likelihood = steps.gather(1, theirs[0, 1:, None]).sum()
    found = reference(subject, TEXT).of_tokens(subject, visual.tokens)[0]
    torch.testing.assert_close(found, likelihood, atol=1e-3, rtol=1e-4)


def encoded(model: ReportModel) -> VisualTokens:
    with torch.no_grad():
        visual: VisualTokens = model.encoder(IMAGE[:1])
    return visual


# --------------------------------------------------------------------------------------------------------------- IFCC


def in_ifcc(ids: Tensor) -> Tensor:
    """Our ids as those of IFCC's Transformers."""
    return torch.where(ids > SENTENCE_END, ids - 1, ids)


IFCC_KINDS: dict[str, dict[str, Any]] = {
    "m2": {"slots": 5},
    "m2 of one layer, without norm": {"slots": 3, "layers": 1, "encoder_layers": 1, "layer_norm": False},
    "m2 of uneven depth": {"slots": 5, "layers": 1, "encoder_layers": 2},
    "trans": {},
}


@pytest.mark.parametrize("kind", IFCC_KINDS)
@pytest.mark.parametrize("views", [1, 3])
def test_ifcc_computes_what_the_original_does(kind: str, views: int, tmp_path: Path, embeddings: Path) -> None:
    foreign = foreign_ifcc(**IFCC_KINDS[kind])
    imported = read_ifcc(saved_by_ifcc(tmp_path, foreign.state_dict()), vocabulary=embeddings, views=views)
    assert imported.decoder == ("m2" if "slots" in IFCC_KINDS[kind] else "transformer")
    encoder, decoder = built(imported)
    ids = torch.tensor([imported.vocabulary.encode("the lungs are clear . no effusion, heart", 40)] * 2)
    visual = encoder(IMAGE)
    ours = decoder(visual, ids).logits.log_softmax(2)
    expected = foreign(IMAGE, in_ifcc(ids), absent=views - 1).log_softmax(2)
    kept = [index for index in range(len(imported.vocabulary)) if index != SENTENCE_END]
    torch.testing.assert_close(ours[:, :, kept], expected, atol=1e-4, rtol=1e-4)
    assert (ours[:, :, SENTENCE_END] < -1000).all()
    if views == 1 and kind == "m2":  # that other images are absent matters
        absent = read_ifcc(tmp_path / "model_31-152173.dict.gz", vocabulary=embeddings, views=3)
        assert not torch.allclose(built(absent)[1](visual, ids).logits.log_softmax(2)[:, :, kept], expected, atol=1e-2)
    state = decoder.start(decoder.encode(visual), beams=2)
    for place in range(4):
        logits, state = decoder.step(ids[:, place].repeat_interleave(2), state)
        torch.testing.assert_close(logits[::2].log_softmax(1), ours[:, place], atol=2e-4, rtol=1e-4)
    config = GenerateConfig(beam_size=1, max_words=16)
    for row, hypothesis in enumerate(generate(decoder, visual, config, imported.vocabulary)):
        written = [1]
        while len(written) <= config.max_words and written[-1] != 3:
            scores = foreign(IMAGE[row : row + 1], torch.tensor([written]), absent=views - 1)[0, -1]
            scores[:3] = -torch.inf
            written.append(int(scores.argmax()))
        assert in_ifcc(torch.tensor(hypothesis.ids)).tolist() == written[1:]


@pytest.mark.parametrize("parallel", [True, False])
def test_ifccs_planner_computes_what_the_original_does(parallel: bool, tmp_path: Path, embeddings: Path) -> None:
    torch.manual_seed(1)
    foreign = settle(IfccPlanner(len(EMBEDDED), densenet(), 9, parallel=parallel))
    file = saved_by_ifcc(tmp_path, foreign.state_dict())
    imported = read_ifcc(file, vocabulary=embeddings, views=1, max_sentences=3, max_words=12)
    encoder, decoder = built(imported)
    vocabulary = imported.vocabulary
    sentences = [
        vocabulary.ids(each.split()) for each in ("the lungs are clear .", "no effusion .", "heart is large .")
    ]
    ids = [START, *(each for sentence in sentences for each in (*sentence, SENTENCE_END))]
    output = decoder(encoder(IMAGE[:1]), torch.tensor([ids]))
    theirs, stops = foreign(IMAGE[:1], [[each - 1 for each in sentence] for sentence in sentences])
    torch.testing.assert_close(output.stop_logits[0], stops, atol=1e-5, rtol=1e-4)
    place = 0
    kept = [index for index in range(len(vocabulary)) if index != END]
    for rows in theirs:  # its end of a sentence, 3, is our SENTENCE_END
        ours = output.logits[0, place : place + len(rows)].log_softmax(1)
        torch.testing.assert_close(ours[:, kept], rows.log_softmax(1), atol=1e-4, rtol=1e-4)
        place += len(rows)
    with pytest.raises(CheckpointError, match="mixes their features word by word"):
        read_ifcc(file, vocabulary=embeddings, views=3)


def test_the_papers_own_code_has_timms_densenet(tmp_path: Path, embeddings: Path) -> None:
    torch.manual_seed(0)
    cnn = timm.create_model("densenet121", growth_rate=4, block_config=(1, 1, 1, 1), bn_size=2)
    foreign = settle(Ifcc(len(EMBEDDED), nn.Module(), 8, slots=2))
    foreign.image_feats.densenet = settle(cnn)
    file = saved_by_ifcc(tmp_path, foreign.state_dict())
    imported = read_ifcc(file, vocabulary=embeddings, views=1)
    encoder, _ = built(imported)
    image = torch.rand(1, 1, 294, 294)
    visual = encoder(image)
    assert visual.grids == ((9, 9),)
    features = cnn.forward_features(encoder.normalize(image))
    torch.testing.assert_close(visual.tokens, features.flatten(2).transpose(1, 2))


def test_an_imported_m2_is_a_bundle(tmp_path: Path, embeddings: Path) -> None:
    file = saved_by_ifcc(tmp_path, foreign_ifcc(slots=3).state_dict())
    wanted = ["import", "ifcc", str(file), "--name", "m2", "--vocabulary", str(embeddings), "--json"]
    done = CliRunner().invoke(app, [*wanted, "--bundles", str(tmp_path / "bundles")])
    assert done.exit_code == 0, done.output
    library = BundleLibrary(tmp_path / "bundles")
    assert library.verify("m2") < 1e-5
    model = library.load("m2")
    assert model.decoder.layers[0].absent_images  # type: ignore[index, union-attr]
    ((_, report),) = write_reports([model], of_image(random_image()))
    assert report.cls_attention is None
    again = CliRunner().invoke(app, [*wanted, "--bundles", str(tmp_path / "bundles")])
    assert isinstance(again.exception, CXRLensError)
    assert "There is a bundle m2" in str(again.exception)
    replaced = CliRunner().invoke(app, [*wanted, "--replace", "--bundles", str(tmp_path / "bundles")])
    assert replaced.exit_code == 0, replaced.output


@pytest.mark.parametrize("text", ["3 2\nthe 1 2\nlungs 0 0\n", "the 1 2\n", "", '["the", 3]', "[", "\ufeff"])
def test_embeddings_that_are_none_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(CheckpointError, match=r"glove\.txt"):
        read_embedded(path)
    path.write_bytes(gzip.compress(b"1 2\nthe 1 2\n")[:-9])
    with pytest.raises(CheckpointError, match=r"glove\.txt cannot be read"):
        read_embedded(path)


# ----------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("how", ["safetensors", "parallel", "bare", "half", "older torch"])
def test_other_forms_of_the_same_weights(how: str, tmp_path: Path, words: Path) -> None:
    state = foreign_r2gen().state_dict()
    expected = read_r2gen(saved(tmp_path, state), vocabulary=words).decoder_state
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
    state = dict(foreign_r2gen().state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message) as told:
        read_r2gen(saved(tmp_path, state), vocabulary=words)
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
    "one matrix": (
        lambda state: state.update({"decoder.layers.0.self_attn.in_proj_weight": torch.ones(47, 16)}),
        r"in_proj_weight has the shape \(47, 16\), not \(48, 16\)",
    ),
}


@pytest.mark.parametrize("fault", IFCC_FAULTS)
def test_what_differs_from_ifcc_is_named(fault: str, tmp_path: Path, embeddings: Path) -> None:
    change, message = IFCC_FAULTS[fault]
    state = dict(foreign_ifcc(slots=3).state_dict())
    change(state)
    with pytest.raises(CheckpointError, match=message):
        read_ifcc(saved_by_ifcc(tmp_path, state), vocabulary=embeddings, views=1)


class Harmful:
    """What a pickle can do to whoever opens it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_with_code_is_refused_and_not_run(zipped: bool, tmp_path: Path, words: Path) -> None:
    path, sign = tmp_path / "best.pth", tmp_path / "it-ran"
    content = {"state_dict": foreign_r2gen().state_dict(), "args": Harmful(sign)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"holds more than tensors \(.*system\)") as told:
        read_r2gen(path, vocabulary=words)
    assert not sign.exists()
    assert "save_file" in str(told.value)
    assert "'best.safetensors'" in str(told.value)


def test_the_way_out_that_is_told_leads_out(tmp_path: Path, words: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, foreign_r2gen().state_dict(), args=pytest.approx(1))
    with pytest.raises(CheckpointError) as told:
        read_r2gen(path, vocabulary=words)
    monkeypatch.chdir(tmp_path)
    exec(str(told.value).partition("import that file: ")[2], {})  # what the message tells to run
    assert read_r2gen(tmp_path / "model_best.safetensors", vocabulary=words).decoder == "r2gen"


@pytest.mark.parametrize("form", ["zip", "gzip", "older torch", "safetensors"])
def test_a_file_that_is_cut_short_is_refused(form: str, tmp_path: Path, words: Path) -> None:
    state = foreign_r2gen().state_dict()
    path = tmp_path / "cut.pth"
    if form == "gzip":
        path = saved_by_ifcc(tmp_path, state)
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
        ({"vocabulary": None}, r"\(--annotations\)"),
    ],
)
def test_what_cannot_be_is_said(wanted: dict[str, Any], message: str, tmp_path: Path, words: Path) -> None:
    path = saved(tmp_path, foreign_r2gen().state_dict())
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
        read_r2gen(saved(tmp_path, foreign_r2gen().state_dict()), vocabulary=path)


@pytest.mark.parametrize("name", ["shared", "../elsewhere", "", ".hidden", "a/b", "x" * 65])
def test_a_name_that_no_folder_can_have_is_refused(name: str, tmp_path: Path, words: Path) -> None:
    file = saved(tmp_path, {})
    wanted = ["import", "r2gen", str(file), "--name", name, "--vocabulary", str(words)]
    done = CliRunner().invoke(app, [*wanted, "--bundles", str(tmp_path / "bundles")])
    assert isinstance(done.exception, CXRLensError)
    assert "cannot be the name of a bundle" in str(done.exception)
