"""Decoders that read what a linear reading found, from the fit to a bundle, on encoders that are trained or taken."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from core.bundles.library import BundleLibrary
from core.bundles.pair import encode_images, write_from_tokens
from core.config import ConfigError, ExperimentConfig, load_config
from core.decoders import Decoder, build_decoder
from core.decoders.findings import FindingsFirst, found_observations
from core.decoders.search import GenerateConfig, generate, generate_together
from core.encoders.token_cache import TokenCache
from core.explain.found import found as found_target
from core.explain.found import without_each_found
from core.explain.methods import explain, possible
from core.explain.subject import open_subject, token_runs, twin
from core.explain.targets import whole_report
from core.files import sha256_of
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.registry import DECODERS
from core.text import START, tokenize
from core.types import CXRLensError, Report, VisualTokens
from dashboard.components.report import card
from dashboard.services import explanations
from tests.test_training import FEW
from training.bench import readings
from training.options import PRESETS
from training.stages.decoder import decoder as train_decoder
from training.stages.export import export
from training.stages.findings import WORTH_SAYING, fit_findings, worth_saying
from training.stages.run import Run

pytestmark = pytest.mark.numeric

WIDTH = 12
CARDIOMEGALY, EFFUSION = OBSERVATIONS.index("Cardiomegaly"), OBSERVATIONS.index("Pleural Effusion")


def visual(studies: int, seed: int = 0) -> VisualTokens:
    tokens = torch.randn(studies, 4, WIDTH, generator=torch.Generator().manual_seed(seed))
    return VisualTokens(tokens, ((2, 2),), ("fve",) * 4)


def reading(observation: int, dimension: int) -> FindingsFirst:
    """Finds an observation where a dimension of the mean token is above 0, and nothing else."""
    torch.manual_seed(1)
    head = FindingsFirst(WIDTH)
    weight, bias = torch.zeros(len(OBSERVATIONS), WIDTH), torch.full((len(OBSERVATIONS),), -1.0)
    weight[observation, dimension], bias[observation] = 1.0, 0.0
    head.set(weight, bias, 1.0)
    return head


def read(head: FindingsFirst, seen: VisualTokens) -> torch.Tensor:
    tokens: torch.Tensor = head(seen.tokens, head.found(seen))
    return tokens


def built(name: str) -> Decoder:
    torch.manual_seed(0)
    return build_decoder(name, "tiny", token_width=WIDTH, vocabulary_size=20, findings_first=True).eval()


def test_every_token_gets_the_vectors_of_what_is_found_and_of_nothing_else() -> None:
    head, seen = reading(CARDIOMEGALY, 3), visual(8)
    found = seen.tokens.mean(1)[:, 3] >= 0
    assert 0 < found.sum() < 8
    added = read(head, seen) - seen.tokens
    assert torch.allclose(added[found], head.vectors[CARDIOMEGALY].expand_as(added[found]), atol=1e-6)
    assert not added[~found].any()


def test_a_new_reading_finds_nothing() -> None:
    assert torch.equal(read(FindingsFirst(WIDTH), visual(3)), visual(3).tokens)


def test_given_findings_stand_in_for_those_that_are_found() -> None:
    given = torch.zeros(8, len(OBSERVATIONS))
    given[:, [CARDIOMEGALY, EFFUSION]] = 1.0
    head = reading(CARDIOMEGALY, 3)
    added = read(head, replace(visual(8), findings=given)) - visual(8).tokens
    assert torch.allclose(added, head.vectors[[CARDIOMEGALY, EFFUSION]].sum(0).expand_as(added), atol=1e-6)


def test_gradients_reach_the_image_through_what_is_found() -> None:
    """As the sigmoid's, so that an explanation by gradients sees what the step would hide; the value is the step's."""
    head, tokens = reading(CARDIOMEGALY, 3), visual(2).tokens.requires_grad_()
    out = read(head, VisualTokens(tokens, ((2, 2),), ("fve",) * 4))
    assert torch.allclose(out, read(head, visual(2)), atol=1e-6)
    (slope,) = torch.autograd.grad(out.sum(), tokens)
    sigmoid = tokens.detach().mean(1)[:, 3].sigmoid()
    through = sigmoid * (1 - sigmoid) / 4 * 4 * head.vectors[CARDIOMEGALY].sum()  # a fourth of the mean, four tokens
    assert torch.allclose(slope[:, 0, 3], 1 + through, atol=1e-5)
    assert torch.allclose(slope[:, 0, 2], torch.ones(2))


@pytest.mark.parametrize("name", ["transformer", "m2", "cnn_rnn_rnn"])
def test_a_decoder_reads_what_is_found(name: str) -> None:
    """Teacher-forced, word by word, and side by side with others; without findings it is what it was."""
    decoder, seen = built(name), visual(3)
    assert decoder.findings is not None
    ids = torch.tensor([[1, 7, 8, 9]]).expand(3, -1)
    with torch.inference_mode():
        plain = decoder(seen, ids).logits
        assert torch.equal(decoder(replace(seen, findings=torch.zeros(3, 14)), ids).logits, plain)
        given = torch.zeros(3, 14)
        given[1, EFFUSION] = 1.0
        other = decoder(replace(seen, findings=given), ids).logits
        assert torch.allclose(other[[0, 2]], plain[[0, 2]], atol=1e-5)
        assert (other[1] - plain[1]).abs().max() > 1e-3
        memory = decoder.encode(replace(seen, findings=given))
        assert memory.found is not None
        assert found_observations(memory.found[1]) == ("Pleural Effusion",)
        assert found_observations(memory.found[0]) == ()
        config = GenerateConfig(beam_size=1, max_words=8)
        alone = generate(decoder, seen, config)
        decoders = [decoder, decoder, decoder]
        memories = [decoder.encode(replace(seen, tokens=each[None])) for each in seen.tokens]
        assert [each.ids for each in generate_together(decoders, memories, config)] == [each.ids for each in alone]


def test_decoders_without_findings_have_the_weights_that_they_had() -> None:
    for name in DECODERS:
        if "tiny" not in DECODERS[name].sizes:
            continue
        decoder = build_decoder(name, "tiny", token_width=WIDTH, vocabulary_size=20)
        assert decoder.findings is None
        assert not [key for key in decoder.state_dict() if key.startswith("findings")]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, None),
        ((), {}),
        (("Cardiomegaly", "Pleural Effusion"), {"Cardiomegaly": True, "Pleural Effusion": False}),
    ],
)
def test_a_report_says_what_was_found_and_is_not_written(
    found: tuple[str, ...] | None, words: dict[str, bool] | None
) -> None:
    text = "The heart is enlarged. There is no pleural effusion."
    report = Report(text, tuple(tokenize(text)), -1.0, finished=True, found_first=found)
    told = card("phantom-fve-m2", "FVE + M2", report, label_report(text), None)["found"]
    assert (None if told is None else {each["name"]: each["written"] for each in told}) == words


# ------------------------------------------------------------------------------------------------------------- training


class Tokens:
    """A cache of tokens (studies, 2, width)."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self._tokens = tokens

    def __len__(self) -> int:
        return len(self._tokens)

    def tokens(self, rows: list[int]) -> torch.Tensor:
        return self._tokens[rows]


def told(labels: dict[str, torch.Tensor], patients: list[str], penalty: float = 10.0) -> Run:
    data = SimpleNamespace(
        coarse_targets=labels.__getitem__,
        studies={"train": [SimpleNamespace(subject_id=each) for each in patients]},
    )
    return cast(
        Run,
        SimpleNamespace(data=data, config=SimpleNamespace(seed=1, report=SimpleNamespace(findings_penalty=penalty))),
    )


def planted(studies: int, seed: int, share: float = 0.25) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (studies, 2, WIDTH) whose mean shows Cardiomegaly in dimension 5; labels (studies, 14)."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((studies, len(OBSERVATIONS)), np.float32)
    labels[:, CARDIOMEGALY] = rng.random(studies) < share
    labels[:4, EFFUSION] = 1.0  # too few to learn from
    tokens = rng.normal(size=(studies, 2, WIDTH)) * 3 + 10
    tokens[:, :, 5] += 8 * labels[:, CARDIOMEGALY, None]
    return torch.tensor(tokens, dtype=torch.float32), torch.tensor(labels)


def fitted(run: Run, head: FindingsFirst, train: torch.Tensor, validate: torch.Tensor) -> dict[str, dict[str, float]]:
    caches = {"train": Tokens(train), "validate": Tokens(validate)}
    return fit_findings(run, head, cast("dict[Any, TokenCache]", caches)).found


def test_a_planted_finding_is_found_in_other_studies_and_a_rare_one_never() -> None:
    (train, labels), (validate, theirs), (test, truth) = planted(300, 0), planted(60, 1), planted(200, 2)
    head = FindingsFirst(WIDTH)
    found = fitted(told({"train": labels, "validate": theirs}, [str(i) for i in range(300)]), head, train, validate)
    assert found["Cardiomegaly"]["studies"] == labels[:, CARDIOMEGALY].sum()
    assert found["Cardiomegaly"]["f1"] > 0.9
    assert found["Pleural Effusion"] == {"studies": 4, "f1": 0.0}
    says = head.logits(test) >= 0
    right = (says[:, CARDIOMEGALY] == truth[:, CARDIOMEGALY].bool()).float().mean()
    assert right > 0.9
    others = [index for index in range(len(OBSERVATIONS)) if index != CARDIOMEGALY]
    assert not says[:, others].any()


def test_thresholds_are_not_told_by_studies_that_the_reading_learned_from() -> None:
    """With as many dimensions as studies a reading knows its own studies by heart; the F1 that is told is of others."""
    rng = np.random.default_rng(0)
    tokens = torch.tensor(rng.normal(size=(80, 2, 160)), dtype=torch.float32)
    labels = torch.zeros(80, len(OBSERVATIONS))
    labels[:, CARDIOMEGALY] = torch.tensor(rng.random(80) < 0.3)
    head = FindingsFirst(160)
    run = told({"train": labels, "validate": labels[:1]}, [str(i) for i in range(80)], penalty=1e-3)
    found = fitted(run, head, tokens, tokens[:1])
    by_chance = 2 * 0.3 / 1.3
    assert found["Cardiomegaly"]["f1"] < by_chance + 0.2


def test_a_patients_studies_are_never_on_both_sides() -> None:
    """All studies with the observation are one patient's: no fold without that patient can learn it."""
    train, labels = planted(60, 3)
    patients = ["one" if has else f"other {i}" for i, has in enumerate(labels[:, CARDIOMEGALY].bool().tolist())]
    head = FindingsFirst(WIDTH)
    found = fitted(told({"train": labels, "validate": labels[:5]}, patients), head, train, train[:5])
    assert found["Cardiomegaly"]["f1"] == 0.0
    assert not (head.logits(train) >= 0).any()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("findings")


def config_of(*more: str) -> ExperimentConfig:
    return load_config(PRESETS, "phantom", [*FEW, 'encoders=["dve","fve"]', 'decoders=["m2"]', *more])


@pytest.fixture(scope="module")
def trained(here: Path) -> Run:
    """Both pairs, their encoders trained here; bundles in ``here / bundles``."""
    run = Run(config_of("report.findings_first=true", "write.say_found=true"), here / "run")
    for encoder in run.config.encoders:
        train_decoder(run, encoder, "m2")
    with pytest.MonkeyPatch.context() as patch:  # so few studies tell of no reading how good it is
        patch.setattr("training.stages.export.worth_saying", lambda found: ["Cardiomegaly", "No Finding"])
        export(run, here / "bundles")
    return run


def test_reports_may_say_what_is_found_well_enough_in_other_studies() -> None:
    f1 = {"Cardiomegaly": WORTH_SAYING, "Lung Lesion": WORTH_SAYING - 0.01, "Edema": 0.0, "Pneumonia": 1.0}
    assert worth_saying({name: {"f1": each} for name, each in f1.items()}) == ["Cardiomegaly", "Pneumonia"]


def test_a_pair_learns_with_findings_and_its_bundle_writes_with_them(trained: Run, here: Path) -> None:
    library = BundleLibrary(here / "bundles")
    model = library.load("phantom-fve-m2")
    assert model.decoder.findings is not None
    assert model.card.content["decoder"]["changes"] == {"findings_first": True}
    image = np.random.default_rng(0).random((model.image_size, model.image_size), dtype=np.float32)
    (report,) = write_from_tokens(model, encode_images(model, [image]), model.write)
    logits = model.decoder.findings.logits(encode_images(model, [image]).tokens)[0]
    assert report.found_first == tuple(n for n, each in zip(OBSERVATIONS, logits.tolist(), strict=True) if each >= 0)
    opened = open_subject(model, image)
    asked = whole_report(opened)
    changes = without_each_found(opened, asked)
    assert changes is not None
    assert tuple(changes) == opened.report.found_first
    told = json.loads((trained.folder / "fve-m2" / "findings.json").read_text(encoding="utf-8"))
    assert list(told) == list(OBSERVATIONS)
    labels = trained.data.coarse_targets("train").sum(0)
    assert [told[name]["studies"] for name in OBSERVATIONS] == labels.int().tolist()
    can_say = model.card.write["finding_sentences"]
    assert list(can_say) == ["Cardiomegaly"]
    assert can_say["Cardiomegaly"]
    assert all(label_report(text).states["Cardiomegaly"] is LabelState.POSITIVE for text in can_say["Cardiomegaly"])
    assert model.write.say_found
    with_its_decoder = library.load("phantom-dve-m2")  # learned together: its tokens changed while the decoder learned
    assert with_its_decoder.decoder.findings is None
    assert "finding_sentences" not in with_its_decoder.card.write


def test_words_owe_what_they_owe_to_what_was_found(trained: Run, here: Path) -> None:
    """With two findings made to be found, each change is that of the likelihood computed with the other alone."""
    model = twin(BundleLibrary(here / "bundles").load("phantom-fve-m2"))
    head = model.decoder.findings
    assert head is not None
    with torch.no_grad():
        head.reading.bias.fill_(-1e4)
        head.reading.bias[[CARDIOMEGALY, EFFUSION]] = 1e4
        head.vectors.mul_(20)
    image = np.random.default_rng(1).random((model.image_size, model.image_size), dtype=np.float32)
    opened = open_subject(model, image)
    assert opened.report.found_first == ("Cardiomegaly", "Pleural Effusion")
    asked = whole_report(opened)
    changes = without_each_found(opened, asked)
    assert changes is not None

    def likelihood(*found: int) -> float:
        given = torch.zeros(1, len(OBSERVATIONS))
        given[0, list(found)] = 1.0
        with torch.no_grad():
            memory = model.decoder.encode(replace(opened.visual, findings=given))
            ids = torch.tensor([[START, *asked.ids[:-1]]])
            logits = model.decoder.decode(memory, ids).logits[0].log_softmax(1)
        return float(sum(logits[place, asked.ids[place]] for place in asked.positions))

    both = likelihood(CARDIOMEGALY, EFFUSION)
    assert changes["Cardiomegaly"] == pytest.approx(likelihood(EFFUSION) - both, abs=1e-3)
    assert changes["Pleural Effusion"] == pytest.approx(likelihood(CARDIOMEGALY) - both, abs=1e-3)
    assert min(map(abs, changes.values())) > 1e-3
    without = BundleLibrary(here / "bundles").load("phantom-dve-m2")
    of_other = open_subject(without, image)
    assert without_each_found(of_other, whole_report(of_other)) is None


def test_where_a_finding_was_found_is_a_sum_over_cells(trained: Run, here: Path) -> None:
    """Grad-CAM of the logit is each cell's own part of it; more methods run, attention does not."""
    model = twin(BundleLibrary(here / "bundles").load("phantom-fve-m2"))
    head = model.decoder.findings
    assert head is not None
    known = head.known()
    assert known
    image = np.random.default_rng(2).random((model.image_size, model.image_size), dtype=np.float32)
    opened = open_subject(model, image)
    asked = found_target(opened, known[0])
    score = float(asked.of_tokens(opened, opened.visual.tokens))
    row = OBSERVATIONS.index(known[0])
    parts = opened.visual.tokens[0] @ head.reading.weight[row] / opened.visual.tokens.shape[1]
    assert float(parts.sum() + head.reading.bias[row]) == pytest.approx(score, abs=1e-4)
    assert float(asked.of_images(opened, opened.square)) == pytest.approx(score, abs=1e-4)
    maps = explain(opened, asked, "grad-cam")
    columns = [run.columns for run in token_runs(opened.visual)]
    for found, run in zip(maps, columns, strict=True):
        assert np.allclose(found.values.ravel(), parts[run].numpy(), atol=1e-5)
    ways = possible(opened, asked)
    assert "grad-cam" in ways
    assert "occlusion" in ways
    assert not {"attention", "cls-attention"} & set(ways)
    with pytest.raises(CXRLensError, match="decides on no findings"):
        found_target(open_subject(BundleLibrary(here / "bundles").load("phantom-dve-m2"), image), "Cardiomegaly")
    never = next(name for name in OBSERVATIONS if name not in known)
    with pytest.raises(CXRLensError, match=f"never finds {never} first. It knows: {known[0]}"):
        found_target(opened, never)


@pytest.mark.parametrize(
    ("change", "words"),
    [(0.5, "about as likely"), (-1.0, "2.7 times less likely"), (3.0, "20 times more likely"), (-9.0, "over 1000")],
)
def test_changes_are_told_in_words(change: float, words: str) -> None:
    assert words in explanations._without_it(change)


def test_encoders_of_bundles_are_taken_as_they_are(trained: Run, here: Path) -> None:
    """Shared ones byte for byte; one that learned with its decoder is frozen, so its new decoder reads findings too."""
    source = here / "bundles"
    run = Run(config_of("report.findings_first=true", f"encoders_from={source}"), here / "again")
    for encoder in run.config.encoders:
        train_decoder(run, encoder, "m2")
    export(run, here / "new")
    assert not [each for each in run.folder.iterdir() if "backbone" in each.name or each.name.startswith("cdc")]
    shared = "shared/phantom-fve/model.safetensors"
    assert sha256_of(here / "new" / shared) == sha256_of(source / shared)
    before, after = (BundleLibrary(each).load("phantom-dve-m2") for each in (source, here / "new"))
    assert after.decoder.findings is not None
    image = torch.rand(1, 1, before.image_size, before.image_size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(before.encoder(image).tokens, after.encoder(image).tokens, atol=1e-4)
    config = json.loads((here / "new" / "phantom-dve-m2" / "card.json").read_text(encoding="utf-8"))["config"]
    assert config["encoders_from"] == "bundles"  # where it lies is nobody's business


def test_other_encoders_make_other_stages(trained: Run, here: Path) -> None:
    run = Run(config_of("report.findings_first=true", f"encoders_from={here / 'bundles'}"), here / "key")
    train_decoder(run, "fve", "m2")
    first = json.loads((run.folder / "tokens_fve" / "config.json").read_text(encoding="utf-8"))
    assert any(key.startswith("bundle_fve") for key in first["identity"]["after"])


def test_encoders_are_compared_by_what_can_be_read_from_them(
    trained: Run, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readings, "read_preset", lambda *_: config_of("data.count=120"))
    monkeypatch.setattr("sys.argv", ["readings", "phantom", str(here / "bundles"), str(here / "bundles")])
    monkeypatch.setattr(readings, "FREQUENT", 3)
    readings.main()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if str(here) in line]
    assert [row[2].strip() for row in rows] == ["DVE + M2", "fve"]  # the same folder twice is one
    assert all(0 < float(row[3]) < 1 and not row[4].strip() for row in rows)


def test_bad_requests_are_named(here: Path, trained: Run) -> None:
    missing = Run(config_of(f"encoders_from={here / 'nowhere'}"), here / "missing")
    with pytest.raises(CXRLensError, match=r"encoders_from: .*nowhere has no bundle of the preset phantom.* with fve"):
        train_decoder(missing, "fve", "m2")
    other = replace(config_of(f"encoders_from={here / 'bundles'}"), decoders=("transformer",))
    with pytest.raises(CXRLensError, match="with dve with transformer"):
        train_decoder(Run(other, here / "other"), "dve", "transformer")
    with pytest.raises(ConfigError, match="drifting_norms"):
        config_of(f"encoders_from={here}", "report.drifting_norms=true")
