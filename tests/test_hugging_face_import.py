"""What `cxr-lens import hf` refuses, each in a sentence; words made of pieces; what pages and commands do with them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from core.bundles.card import BundleError
from core.bundles.hugging_face import import_folder
from core.bundles.hugging_face_folder import HuggingFaceError, read_folder
from core.bundles.library import BundleLibrary
from core.evaluation import results
from core.pieces import PieceVocabulary, numbering
from core.systems.pairs import pairs
from core.systems.system import Ability
from core.text import END, PAD, SENTENCE_END, START, UNKNOWN, tokenize, word_spans
from core.types import CXRLensError, Fit
from dashboard.components.report import card as report_card
from dashboard.services import bundles, embeddings, evaluations, explanations, reports, sources, studies
from tests import needs
from tests.app_pages import needs_bundles, open_page, words_on
from tests.conftest import BUNDLES
from tests.hugging_face_models import byte_pairs, word_pieces, write_folder
from training.cli import app

pytestmark = [pytest.mark.numeric, needs.TRANSFORMERS.packages("transformers", "tokenizers")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("made") / "model")


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


# --------------------------------------------------------------------------------------------------------- what is bad


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _of_text(folder: Path) -> None:
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("encoder.")}
    weights |= {f"encoder.{key}": value for key, value in BertModel(config).state_dict().items()}
    save_file(
        {key: value.contiguous() for key, value in weights.items()}, folder / "model.safetensors", {"format": "pt"}
    )
    edit(folder / "config.json", lambda content: content.update(encoder=config.to_dict()))


def _fewer_weights(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "h.1." not in k}, folder / "model.safetensors", {"format": "pt"})


def _cut_short(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda content: content.update(changes))


def _decoder(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", lambda content: content["decoder"].update(changes))


def _images(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "preprocessor_config.json", lambda content: content.update(changes))


def _no(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def _index(**files: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))

    return change


def _listed_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": ["a"]}))


def _not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["decoder.transformer.wte.weight"][7] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def _opt(folder: Path) -> None:
    """OPT takes the setting for cross-attention, and has none."""
    from transformers import OPTConfig, OPTForCausalLM

    size = json.loads((folder / "config.json").read_text())["decoder"]["vocab_size"]
    widths = {"hidden_size": 24, "word_embed_proj_dim": 24, "ffn_dim": 32, "num_attention_heads": 2}
    config = OPTConfig(vocab_size=size, num_hidden_layers=1, is_decoder=True, add_cross_attention=True, **widths)
    weights = {k: v for k, v in load_file(folder / "model.safetensors").items() if not k.startswith("decoder.")}
    theirs = {key: value for key, value in OPTForCausalLM(config).state_dict().items() if key != "lm_head.weight"}
    weights |= {f"decoder.{key}": value for key, value in theirs.items()}
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    edit(folder / "config.json", lambda content: content.update(decoder=config.to_dict()))


def _tokenizer_code(folder: Path) -> None:
    edit(folder / "tokenizer_config.json", lambda content: content.update(auto_map={"AutoTokenizer": ["a.B", None]}))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickles": (_pickled, "pytorch_model.bin only.*safetensors.*save_pretrained"),
    "no weights": (_no("model.safetensors"), "has no weights"),
    "parts missing": (_index(a="model-00001-of-00002.safetensors"), "lacks model-00001-of-00002.safetensors"),
    "parts elsewhere": (_index(a="../model.safetensors"), "names no files of weights beside it"),
    "remote code": (_config(auto_map={"AutoModel": "modeling.Mine"}), "code of its own .auto_map.*never runs"),
    "remote code of a part": (_decoder(auto_map={"AutoModelForCausalLM": "a.B"}), "code of its own"),
    "remote code of images": (_images(auto_map={"AutoImageProcessor": "a.B"}), "preprocessor_config.json asks for"),
    "remote code of words": (_tokenizer_code, "tokenizer_config.json asks for Python code"),
    "no tokenizer": (_no("tokenizer.json"), "has no tokenizer.*tokenizer.save_pretrained"),
    "no config": (_no("config.json"), "has no config.json"),
    "config cut short": (lambda folder: (folder / "config.json").write_text("{"), "cannot be read as JSON"),
    "config of another kind": (_config(model_type="bert"), "type 'bert'. Only VisionEncoderDecoderModel"),
    "config of no kind": (lambda folder: (folder / "config.json").write_text("[]"), "is no JSON object"),
    "unknown decoder": (_decoder(model_type="mine"), "cannot be opened by transformers"),
    "a decoder that never looks": (_opt, "cannot be used by CXR Lens"),
    "no cross-attention": (_decoder(add_cross_attention=False), "does not look at the image"),
    "an encoder of text": (_of_text, "reads input_ids, no images .pixel_values."),
    "weights of another size": (_decoder(n_embd=32), "weights do not fit config.json"),
    "weights missing": (_decoder(n_layer=3), "weights do not fit config.json: 20 are missing"),
    "weights left": (_decoder(n_layer=1), "weights do not fit config.json: it has no place for"),
    "fewer weights": (_fewer_weights, "weights do not fit config.json"),
    "weights cut short": (_cut_short, "damaged|cannot be opened"),
    "no images": (_no("preprocessor_config.json"), "has no preprocessor_config.json.*image_processor.save_pretrained"),
    "images cut off": (_images(do_center_crop=True, crop_size={"height": 16, "width": 16}), "borders.*cut off"),
    "images padded": (_images(do_pad=True), "not known here .do_pad."),
    "images not square": (_images(size={"height": 32, "width": 48}), "not made a square"),
    "the shortest side": (_images(size={"shortest_edge": 32}), "not made a square"),
    "images of another size": (_images(size={"height": 64, "width": 64}), "64 pixels wide, but the encoder.*reads 32"),
    "two means": (_images(image_mean=[0.5, 0.5]), "image_mean must be one number or three"),
    "no spread": (_images(image_std=[0, 1, 1]), "image_std is not above 0"),
    "an index of nothing": (_listed_index, "names no files of weights"),
    "a tokenizer of nothing": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "the tokenizer cannot be"),
    "a scale in words": (_images(rescale_factor="1/255"), "rescale_factor is not above 0"),
    "a mean in words": (_images(image_mean="half"), "image_mean must be one number or three"),
    "no beams": (
        lambda folder: edit(folder / "generation_config.json", lambda content: content.update(num_beams=-1)),
        "beam_size and max_words must be at least 1",
    ),
    "a penalty in words": (
        lambda folder: edit(folder / "generation_config.json", lambda content: content.update(length_penalty="x")),
        "'length_penalty' must be a number",
    ),
    "weights that are no numbers": (_not_finite, "gives NaN or infinity"),
    "several ends": (
        lambda folder: edit(folder / "generation_config.json", lambda content: content.update(eos_token_id=[0, 1])),
        "'eos_token_id' must be one whole number",
    ),
    "a start that is none": (
        lambda folder: edit(
            folder / "generation_config.json", lambda content: content.update(decoder_start_token_id=9_999)
        ),
        "decoder_start_token_id is 9999, but the decoder has",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_bad_is_refused_in_one_sentence_and_leaves_nothing(bad: str, folder: Path, tmp_path: Path) -> None:
    change, says = BAD[bad]
    change(folder)
    found = CliRunner().invoke(app, ["import", "hf", str(folder), "--name", "mine", "--bundles", str(tmp_path / "b")])
    assert isinstance(found.exception, CXRLensError)
    message = str(found.exception)
    assert re.search(says, message), message
    assert "\n" not in message
    assert len(message) < 420
    assert not list((tmp_path / "b").glob("*"))


def test_names_that_are_taken_or_none(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    import_folder(folder, "mine", place)
    for name, says in (
        ("mine", "already.*--replace"),
        ("Mine", "something else"),
        ("theirs", "something else"),
        ("../mine", "cannot be the name of a bundle"),
        ("", "cannot be the name of a bundle"),
    ):
        with pytest.raises(BundleError, match=says):
            import_folder(folder, name, place, taken=["Theirs"])
    before = (place / "mine" / "card.json").read_bytes()
    import_folder(folder, "mine", place, replace=True, title="Mine again")
    assert (place / "mine" / "card.json").read_bytes() != before
    with pytest.raises(BundleError, match="a group of models"):  # a family of pairs
        import_folder(folder, "phantom", BUNDLES)
    with pytest.raises(BundleError, match="was trained here, and is not replaced"):
        import_folder(folder, "phantom-fve-m2", BUNDLES, replace=True)


def test_without_transformers_a_sentence_says_what_to_install(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(HuggingFaceError, match=r"pip install 'cxr-lens\[hf\]'"):
        import_folder(folder, "mine", tmp_path / "bundles")


def test_a_file_that_was_edited_later_is_noticed(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, "mine", tmp_path / "bundles")
    path = tmp_path / "bundles" / "mine" / "preprocessor_config.json"
    edit(path, lambda content: content.update(image_mean=[0.1, 0.1, 0.1]))
    with pytest.raises(CXRLensError, match="preprocessor_config.json differs"):
        BundleLibrary(tmp_path / "bundles").load("mine")


def test_what_is_not_the_same_here_is_said(folder: Path, tmp_path: Path) -> None:
    _images(resample=3)(folder)
    edit(
        folder / "generation_config.json",
        lambda content: content.update(repetition_penalty=1.5, early_stopping=False, max_length=30, length_penalty=0.5),
    )
    command = ["import", "hf", str(folder), "--name", "mine", "--bundles", str(tmp_path / "b"), "--trained-on", "MINE"]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 0, found.output
    for said in ("asks for bicubic", "repetition_penalty = 1.5", "early_stopping=True"):
        assert said in found.output
    card = BundleLibrary(tmp_path / "b").card("mine")
    assert "bicubic" in card.fit_note
    settings = {"beam_size": 3, "length_penalty": 0.5, "max_words": 29, "removed_words": True}
    assert settings.items() <= card.write.items()
    assert "It learned from MINE." in card.data["description"]


def test_its_card_can_be_changed_like_a_pairs(folder: Path, tmp_path: Path) -> None:
    import_folder(folder, "mine", tmp_path / "b")
    command = ["card", "write.beam_size=2", "--bundle", "mine", "--bundles", str(tmp_path / "b")]
    assert CliRunner().invoke(app, command).exit_code == 0
    card = BundleLibrary(tmp_path / "b").card("mine")
    assert card.write["beam_size"] == 2
    assert card.write["removed_words"] is True  # what is not named stays


def test_settings_of_older_releases_stand_in_the_config(folder: Path, tmp_path: Path) -> None:
    (folder / "generation_config.json").unlink()
    _config(num_beams=2, max_length=20, no_repeat_ngram_size=3, pad_token_id=-1)(folder)
    card, told = import_folder(folder, "mine", tmp_path / "b")
    assert (card.write["beam_size"], card.write["max_words"]) == (2, 19)
    assert any("no_repeat_ngram_size = 3" in each for each in told)


def test_grey_levels_of_other_scales_are_the_models_own(folder: Path) -> None:
    _images(do_rescale=False, image_mean=[127.5], image_std=[127.5])(folder)
    plain = read_folder(folder).preparation
    assert (plain.mean, plain.std) == ((0.5,) * 3, (0.5,) * 3)
    _images(do_normalize=False, do_rescale=True)(folder)
    none = read_folder(folder).preparation
    assert (none.mean, none.std, none.fit) == ((0.0,) * 3, (1.0,) * 3, Fit("stretch"))


# ------------------------------------------------------------------------------------------------- pieces become words


@cache
def tokenizer_of(kind: str) -> Any:
    return {"byte pairs": byte_pairs, "word pieces": word_pieces}[kind]()


def vocabulary_of(kind: str) -> PieceVocabulary:
    tokenizer = tokenizer_of(kind)
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else end
    numbers = numbering(
        len(tokenizer), start=start, end=end, pad=tokenizer.pad_token_id, unknown=tokenizer.unk_token_id
    )
    return PieceVocabulary.of(tokenizer, numbers)


@pytest.mark.parametrize("kind", ["byte pairs", "word pieces"])
def test_pieces_are_joined_to_words(kind: str) -> None:
    vocabulary = vocabulary_of(kind)
    ids = vocabulary.encode("no pleural effusion.", 99)
    opening = vocabulary.numbers.ours.get(vocabulary.tokenizer.cls_token_id)  # BERT's tokenizer begins with it
    read = vocabulary.read(ids[1:])
    assert read.text == "no pleural effusion."
    assert read.words == ("no", "pleural", "effusion", ".")
    shown = [place for places in read.positions for place in places]
    assert sorted(shown) == [place for place, each in enumerate(ids[1:]) if each not in (END, opening)]
    assert len(read.positions[2]) > 1
    assert vocabulary.decode(ids) == list(read.words)
    assert (ids[0], ids[-1]) == (START, END)


def test_a_character_of_several_bytes_and_signs_that_share_a_piece() -> None:
    vocabulary = vocabulary_of("byte pairs")
    read = vocabulary.read(vocabulary.encode("né 2.5 cm", 99)[1:])
    assert read.words == ("né", "2", ".", "5", "cm")
    assert read.positions[0] == (0, 1, 2)  # é is two bytes, hence two pieces


@pytest.mark.parametrize("kind", ["byte pairs", "word pieces"])
@given(data=st.data())
def test_words_of_any_ids_stand_in_the_text_in_their_order(kind: str, data: st.DataObject) -> None:
    vocabulary = vocabulary_of(kind)
    drawn = data.draw(st.lists(st.integers(0, len(vocabulary) - 1), max_size=12))
    ids = [each for each in drawn if each != END]
    read = vocabulary.read([*ids, END, 7])
    theirs = [vocabulary.numbers.theirs[each] for each in ids if each > SENTENCE_END]
    assert read.text == vocabulary.tokenizer.decode(theirs, skip_special_tokens=True).strip()
    assert len(word_spans(read.words, read.text)) == len(read.words) == len(read.positions)
    assert [word.lower() for word in tokenize(read.text)] == list(read.words)
    assert all(places and all(0 <= place < len(ids) for place in places) for places in read.positions)
    assert list(read.positions) == sorted(read.positions)


def test_every_token_of_a_model_has_one_place_among_ours() -> None:
    shared = numbering(10, start=7, end=7, pad=7)  # as GPT-2: one token starts, ends and fills up
    assert sorted(shared.ours) == list(range(10))
    assert shared.ours[7] == END
    assert set(shared.silent) == {PAD, START, UNKNOWN, SENTENCE_END}
    assert shared.theirs[START] == 7
    apart = numbering(10, start=2, end=3, pad=0, unknown=1)
    assert sorted(apart.ours) == list(range(10))
    assert apart.ours[1] == UNKNOWN
    assert min(apart.ours[0], apart.ours[2]) > SENTENCE_END  # what it begins with can be written, as BERT's [CLS] is
    assert set(apart.silent) == {PAD, START, SENTENCE_END}


# --------------------------------------------------------------------------------------------------- pages and commands


@pytest.fixture(scope="module")
def beside(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pair of ours and the imported model."""
    place = tmp_path_factory.mktemp("beside")
    shutil.copytree(BUNDLES / "phantom-dve-transformer", place / "phantom-dve-transformer")
    import_folder(made, "swift", place, title="Swift reader")
    return place


def test_systems_list_it_in_a_group_of_its_own_with_all_abilities(beside: Path) -> None:
    (ours, theirs) = sorted(pairs(beside), key=lambda each: each.kind == "pair", reverse=True)
    assert (ours.kind, ours.group, ours.title) == ("pair", "phantom", "DVE + Transformer")
    assert (theirs.kind, theirs.group, theirs.title) == ("Hugging Face model", "swift", "Swift reader")
    assert theirs.abilities == frozenset(Ability)
    listed = CliRunner().invoke(app, ["systems", "list", "--bundles", str(beside)])
    assert "Hugging Face model" in listed.output
    verified = CliRunner().invoke(app, ["bundles", "--verify", "--bundles", str(beside)])
    assert verified.exit_code == 0, verified.output
    assert verified.output.count("verified") == 2


def test_scores_call_it_by_its_title_and_a_pair_by_its_parts(beside: Path) -> None:
    rows = {card.name: results.row_of_card(card) for card in BundleLibrary(beside).cards()}
    assert rows["swift"] == {
        "name": "swift",
        "title": "Swift reader",
        "kind": "Hugging Face model",
        "group": "swift",
    }
    assert rows["phantom-dve-transformer"]["encoder"] == "dve"
    assert list(results.first_pairs(BundleLibrary(beside).cards())) == ["dve"]


@pytest.fixture
def shown(beside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The pages with these two, and evaluations of this test alone."""
    monkeypatch.setenv("CXR_BUNDLES", str(beside))
    monkeypatch.setenv("CXR_EVALUATIONS", str(tmp_path / "evaluations"))
    monkeypatch.chdir(tmp_path)
    return beside


@needs_bundles
def test_read_shows_it_as_a_family_of_its_own_and_explains_its_words(shown: Path) -> None:
    assert bundles.families() == ("phantom", "swift")
    assert {bundles.family_for(sources.source(name)) for name in ("phantom", "example")} == {"phantom"}
    mine = "Models for X-rays elsewhere (swift)"
    test = open_page("read", family=[mine], asked="swift", word="1", explain="Word attention")
    assert not test.error
    assert "Swift reader" in words_on(test)
    assert "A Hugging Face model (vit, gpt2) from elsewhere. Its data are unknown." in words_on(test)
    assert "expect poor reports" not in words_on(test)  # nobody knows what it learned from
    assert not [each for each in test.button if each.key == "all"]  # no matrix of encoders and decoders
    assert "CCVE" not in words_on(test)
    assert any("comes from" in each.value for each in test.markdown)
    card = bundles.card_named("swift")
    assert card is not None
    case = studies.open_study(next(iter(studies.visible_studies())))
    question = explanations.Question("word", 0)
    assert set(explanations.choices(case, card, question)) >= {"attention", "grad-cam", "occlusion"}
    drawn = explanations.heat_map(explanations.answer(case, card, question, "attention"))
    assert drawn is not None
    assert drawn.values.shape == (4, 4)
    changed = explanations.without(case, card, (0.1, 0.1, 0.6, 0.6), "blank")
    assert len(changed.word_changes) == len(changed.before.words)
    told = report_card("swift", "Swift reader", changed.before, reports.label(changed.before.text), None)
    assert [word for piece in told["pieces"] for _, word in piece["words"]] == [
        changed.before.text[start:end] for start, end in word_spans(changed.before.words, changed.before.text)
    ]


@needs_bundles
@pytest.mark.parametrize(
    "name",
    ["about", *(pytest.param(each, marks=pytest.mark.slow) for each in ("filters", "embeddings", "cases", "review"))],
)
def test_other_pages_offer_what_it_can(name: str, shown: Path) -> None:
    test = open_page(name)
    if name == "about":
        assert any("Swift reader" in each for each in test.selectbox(key="card").options)
    if name == "filters":  # neither of the two has any
        assert "Swift" not in words_on(test)
    else:
        assert not test.error


@needs_bundles
@pytest.mark.slow
def test_it_is_scored_beside_a_pair_and_results_show_both(shown: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results.java, "missing", lambda: "METEOR is left out here.")
    command = ["evaluate", "--source", "phantom:60:0", "--split", "test", "--bundles", str(shown), "--json"]
    done = CliRunner().invoke(app, [*command, "--system", "swift", "--system", "phantom-dve-transformer"])
    assert done.exit_code == 0, done.output
    rows = {row["name"]: row for row in json.loads(done.stdout)["rows"]}
    assert rows["swift"]["title"] == "Swift reader"
    assert rows["swift"]["kind"] == "Hugging Face model"
    assert rows["phantom-dve-transformer"]["encoder"] == "dve"
    test = open_page("results")
    assert not test.error
    (found,) = [each for each in evaluations.result_sets()[0].values() if each.own is not None]
    assert found.titles["swift"] == "Swift reader"


@needs_bundles
@pytest.mark.slow
def test_its_encoder_has_a_map_of_its_own(shown: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_SOURCES", "phantom:60:5")
    name = next(name for name in sources.names() if name not in ("phantom", "example", sources.UPLOAD))
    work = embeddings.wanted("swift", name)
    command = ["embed", "phantom:60:5", "--bundle", "swift", "--bundles", str(shown), "--device", "cpu"]
    done = CliRunner().invoke(app, [*command, *(["--split", work.split] if work.split else [])])
    assert done.exit_code == 0, done.output
    assert embeddings.there("swift", name)
    points = embeddings.stored("swift", embeddings.POOLED, name)
    assert points.features.shape[1] == 16
    areas = embeddings.stored("swift", embeddings.TOKENS, name)  # the CLS token is none of them
    assert len(areas.features) % 16 == 0
    test = open_page("embeddings", source=name, encoder="Swift reader")
    assert not test.error
    assert "Swift reader" in words_on(test)
