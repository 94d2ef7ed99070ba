"""Checkpoints of R2Gen and IFCC become bundles that compute what the originals do; others are refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.models import densenet121, resnet101
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.transforms import Resize
from torchvision.transforms.functional import pad, to_tensor
from typer.testing import CliRunner

from core.bundles.checkpoints.ifcc import read_ifcc
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
from core.studies.model_image import model_image, of_image
from core.systems.pairs import pairs
from core.text import END, SENTENCE_END, START, UNKNOWN, Vocabulary
from core.types import CXRLensError, Fit, VisualTokens
from tests.app_pages import open_page, words_on
from tests.foreign_models import (
    CHANNELS,
    EMBEDDED,
    WORDS,
    Ifcc,
    IfccPlanner,
    R2Gen,
    densenet,
    resnet,
    save_annotations,
    save_embeddings,
    save_ifcc,
    save_r2gen,
    save_words,
    settle,
    some_ifcc,
    some_r2gen,
)
from tests.tiny_models import random_image
from training.cli import app

pytestmark = pytest.mark.numeric

IMAGE = torch.rand(2, 1, 224, 224, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def words(tmp_path: Path) -> Path:
    return save_words(tmp_path)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    return save_embeddings(tmp_path)


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
    foreign = some_r2gen(block=block, layers=layers)
    imported = read_r2gen(save_r2gen(tmp_path, foreign.state_dict()), vocabulary=words)
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


@pytest.mark.parametrize("seed", [0, 1])
def test_r2gen_writes_the_originals_greedy_reports(seed: int, tmp_path: Path, words: Path) -> None:
    foreign = some_r2gen(seed)
    imported = read_r2gen(save_r2gen(tmp_path, foreign.state_dict()), vocabulary=words)
    encoder, decoder = built(imported)
    config = GenerateConfig(beam_size=1, max_words=12)
    found = generate(decoder, encoder(IMAGE), config, imported.vocabulary)
    for row, hypothesis in enumerate(found):
        ids, seen = [0], foreign.see(IMAGE[row : row + 1])
        while len(ids) <= config.max_words:
            logits = foreign.write(seen, torch.tensor([ids]))[0, -1]
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
        model = settle(R2Gen(len(kept), resnet(BasicBlock, CHANNELS, (1, 1, 1, 1)), 8, width=16))
        imported = read_r2gen(save_r2gen(tmp_path, model.state_dict()), annotations=path)
        assert list(imported.vocabulary.words[5:]) == [word for word in kept if word != "<unk>"]
    torch.manual_seed(0)
    model = settle(R2Gen(9, resnet(BasicBlock, CHANNELS, (1, 1, 1, 1)), 8, width=16))
    written = some_r2gen().state_dict()
    own = read_r2gen(save_r2gen(tmp_path, written), annotations=save_annotations(tmp_path))
    assert own.vocabulary.words[5:] == tuple(word for word in WORDS if word != "<unk>")
    path.write_text(json.dumps({"train": [{"report": each} for each in reports]}))
    with pytest.raises(
        CheckpointError, match="gives 4 with --threshold 10, 5 with --threshold 3; the checkpoint has 9"
    ):
        read_r2gen(save_r2gen(tmp_path, model.state_dict()), annotations=path)


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


@pytest.mark.parametrize(("height", "width"), [(300, 260), (250, 410)])
def test_images_are_prepared_as_theirs(height: int, width: int) -> None:
    grey = np.random.default_rng(3).integers(0, 256, (height, width), dtype=np.uint8)
    picture, smaller = Image.fromarray(grey), Resize((224, 224))
    stretched = to_tensor(smaller(picture))[0]
    top, left = max(0, width - height), max(0, height - width)
    sides = [left // 2, top // 2, left - left // 2, top - top // 2]
    padded = to_tensor(smaller(pad(picture, sides)))[0]
    for fit, theirs in ((Fit("stretch"), stretched), (Fit("pad"), padded)):
        (ours, _) = model_image(grey.astype(np.float32) / 255, 224, fit)
        assert (torch.from_numpy(ours) - theirs).abs().max() < 1.01 / 255


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> BundleLibrary:
    """A folder with an imported R2Gen, brought in by the command."""
    folder = tmp_path_factory.mktemp("imported")
    words = save_words(folder)
    file = save_r2gen(folder, some_r2gen().state_dict())
    wanted = [
        "import",
        "r2gen",
        str(file),
        "--name",
        "theirs",
        "--trained-on",
        "MIMIC-CXR",
        "--vocabulary",
        str(words),
    ]
    done = CliRunner().invoke(app, [*wanted, "--bundles", str(folder / "bundles")])
    assert done.exit_code == 0, done.output
    assert "theirs: DVE + R2Gen" in done.output
    return BundleLibrary(folder / "bundles")


def test_the_bundle_is_one_like_others(library: BundleLibrary) -> None:
    (card,) = library.cards()
    assert (card.name, card.family, card.encoder, card.decoder) == ("theirs", "theirs", "dve", "r2gen")
    assert (card.token_width, card.image_side, card.fit.how, card.trained_here) == (32, 224, "stretch", False)
    assert card.content["imported"]["from"] == "R2Gen"
    assert card.data["description"] == "Imported from a checkpoint of R2Gen. It learned from: MIMIC-CXR."
    assert card.licence.startswith("not told")
    assert library.problems() == {}
    assert library.verify("theirs") < 1e-5
    foreign, model = some_r2gen(), library.load("theirs")
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
    foreign, ids = some_r2gen(), subject.model.vocabulary.encode(TEXT, 40)
    theirs = in_r2gen(subject.model.vocabulary, torch.tensor([ids]))
    steps = foreign(IMAGE[:1], theirs[:, :-1]).log_softmax(2)[0]
    likelihood = steps.gather(1, theirs[0, 1:, None]).sum()
    found = reference(subject, TEXT).of_tokens(subject, visual.tokens)[0]
    torch.testing.assert_close(found, likelihood, atol=1e-3, rtol=1e-4)


def encoded(model: ReportModel) -> VisualTokens:
    with torch.no_grad():
        visual: VisualTokens = model.encoder(IMAGE[:1])
    return visual


@pytest.mark.parametrize("page", ["read", "about"])
def test_pages_show_it(page: str, library: BundleLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(library.folder))
    opened = open_page(page)
    assert not [each.value for each in opened.error]
    if page == "read":  # it is all that there is: no matrix of pairs to choose from, and its report is written
        assert not [each for each in opened.button_group if each.key == "dve"]
        assert "MIMIC-CXR" in words_on(opened)
        assert opened.session_state["study"]


@pytest.mark.slow
def test_full_sizes_have_their_place(tmp_path: Path, words: Path, embeddings: Path) -> None:
    torch.manual_seed(0)
    cnn = nn.Sequential(*list(resnet101().children())[:-2])
    foreign = settle(R2Gen(len(WORDS), cnn, 2048, width=512, feed_forward=512, layers=3))
    imported = read_r2gen(save_r2gen(tmp_path, foreign.state_dict()), vocabulary=words)
    encoder, decoder = built(imported)
    ids = torch.tensor([[START, 5, 6]])
    ours = decoder(encoder(IMAGE[:1]), ids).logits[0, :, 5:].log_softmax(1)
    kept = [place for place, word in enumerate(WORDS, 1) if word != "<unk>"]
    theirs = foreign(IMAGE[:1], in_r2gen(imported.vocabulary, ids))[0][:, kept].log_softmax(1)
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    foreign = settle(Ifcc(len(EMBEDDED), nn.Sequential(*densenet121().features.children()), 1024, width=512, slots=40))
    imported = read_ifcc(save_ifcc(tmp_path, foreign.state_dict()), vocabulary=embeddings, views=1)
    encoder, decoder = built(imported)
    ours = decoder(encoder(IMAGE[:1]), ids).logits[0, :, 5:].log_softmax(1)
    torch.testing.assert_close(ours, foreign(IMAGE[:1], in_ifcc(ids))[0, :, 4:].log_softmax(1), atol=1e-3, rtol=1e-3)


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
    foreign = some_ifcc(**IFCC_KINDS[kind])
    imported = read_ifcc(save_ifcc(tmp_path, foreign.state_dict()), vocabulary=embeddings, views=views)
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
        written, seen = [1], foreign.see(IMAGE[row : row + 1])
        while len(written) <= config.max_words and written[-1] != 3:
            scores = foreign.write(seen, torch.tensor([written]), views - 1)[0, -1]
            scores[:3] = -torch.inf
            written.append(int(scores.argmax()))
        assert in_ifcc(torch.tensor(hypothesis.ids)).tolist() == written[1:]


@pytest.mark.parametrize("parallel", [True, False])
def test_ifccs_planner_computes_what_the_original_does(parallel: bool, tmp_path: Path, embeddings: Path) -> None:
    torch.manual_seed(1)
    foreign = settle(IfccPlanner(len(EMBEDDED), densenet(), 9, parallel=parallel))
    file = save_ifcc(tmp_path, foreign.state_dict())
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
    file = save_ifcc(tmp_path, foreign.state_dict())
    imported = read_ifcc(file, vocabulary=embeddings, views=1)
    encoder, _ = built(imported)
    image = torch.rand(1, 1, 294, 294)
    visual = encoder(image)
    assert visual.grids == ((9, 9),)
    features = cnn.forward_features(encoder.normalize(image))
    torch.testing.assert_close(visual.tokens, features.flatten(2).transpose(1, 2))


def test_an_imported_m2_is_a_bundle(tmp_path: Path, embeddings: Path) -> None:
    file = save_ifcc(tmp_path, some_ifcc(slots=3).state_dict())
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
