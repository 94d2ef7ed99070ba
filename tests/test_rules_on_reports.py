"""The rule labeler on whole reports: sections, lists, slips, what weighs more, any text, and its time."""

import re
import textwrap
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.labels import rules
from core.labels.report_text import SLIPS
from core.labels.rules import label_report, label_reports
from core.observations import NO_FINDING, OBSERVATIONS, LabelState, no_finding_state
from core.studies.phantom import PhantomSource
from tests.test_rules import SENTENCES, expected_states

RELEASED = """                                 FINAL REPORT
 EXAMINATION:  CHEST (PA AND LAT)

 INDICATION:  ___ year old man with shortness of breath // question of pneumonia or
 pneumothorax

 TECHNIQUE:  Chest PA and lateral

 COMPARISON:  CT of ___ with a nodule in the right lung.

 FINDINGS:

 A left PICC ends in the low SVC. There is a small left pleural effusion without
 evidence of consolidation. No pulmonary edema or
 pneumothorax.

 IMPRESSION:

 Small left effusion.
"""


def test_a_whole_report_is_read_by_its_sections() -> None:
    expected = expected_states("SD+ PE+ CO- ED- PX-")
    for text in (RELEASED, RELEASED.replace("\n", "\r\n"), RELEASED.upper(), RELEASED.replace("\n ", "\n")):
        assert label_report(text).states == expected


@pytest.mark.parametrize("heading", ["HISTORY", "Indication", "CLINICAL HISTORY", "Comparison", "REASON FOR EXAM"])
@pytest.mark.parametrize("gap", [" ", "\n", "\n\n", " \n \n "])
def test_what_was_known_before_the_image_does_not_count(heading: str, gap: str) -> None:
    text = f"{heading}: Edema, rule out pneumonia.{gap}FINDINGS: Small effusion."
    assert label_report(text).states == expected_states("PE+")
    assert label_report(text.replace("FINDINGS: ", "")).states == expected_states("PE+")  # unheaded text counts


def test_words_of_a_line_that_goes_on_are_read_together() -> None:
    prose = "There is no focal consolidation in the left or right lung, and no evidence of a pleural effusion is seen."
    for width in range(20, 100, 7):
        wrapped = textwrap.fill(prose, width)
        assert label_report(wrapped).states == expected_states("CO- PE-"), wrapped
        assert label_report(wrapped.upper()).states == expected_states("CO- PE-"), wrapped


PARTS = {"No pneumothorax": "PX-", "Small effusion": "PE+", "Possible nodule": "LL?", "Mild edema": "ED+"}
BETWEEN = ["\n", "\r\n", "\n- ", "\n* ", " - ", " \u2014 ", "\u2028", "\n\n", "; ", "\n\u2022 "]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(list(PARTS)), min_size=2, unique=True), st.sampled_from(BETWEEN))
def test_statements_of_a_list_do_not_influence_each_other(parts: list[str], between: str) -> None:
    expected = expected_states(" ".join(PARTS[part] for part in parts))
    assert label_report(between.join(parts)).states == expected


SAME = [
    ("fi", "\ufb01"),
    ("ff", "\ufb00"),
    (" ", "\u00a0"),
    ("m", "m\u00ad"),
    ("-", "\u2011"),
    ("e", "e\u0301"),
]


@pytest.mark.parametrize(("plain", "written"), SAME)
def test_characters_that_look_the_same_are_read_alike_and_found_where_they_are(plain: str, written: str) -> None:
    text = "No findings of left-sided pneumonia. Small effusion, normal heart size."
    other = text.replace(plain, written)
    assert other != text
    first, second = label_report(text), label_report(other)
    assert second.states == first.states
    for one, two in zip(first.mentions, second.mentions, strict=True):
        assert other[two.start : two.end] == text[one.start : one.end].replace(plain, written).rstrip("\u00ad\u0301")
        assert other[two.sentence_start : two.sentence_end].startswith(("No", "S"))


def test_slips_are_mended_and_found_where_they_are() -> None:
    text = "No pnuemothorax.  Small effussion; the heart isn't enalrged."
    report = label_report(text)
    assert report.states == expected_states("PX- PE+ CM-")
    assert [text[m.start : m.end] for m in report.mentions] == ["pnuemothorax", "effussion", "heart"]


def test_no_slip_is_a_word_of_the_rules() -> None:
    whole = re.findall(r"\b[a-z]{4,}\b(?!\*)", Path(rules.__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    assert not set(whole) & set(SLIPS)
    for word in ("hemithorax", "pleura", "infusion", "remove", "contours", "enlarge"):
        assert word not in SLIPS


NOTHING = ["", " \n", ".", "-", "N/A", "n/a", "None.", "nan", "null", "___", "XXXX", "unknown", "<unknown>",
    "<unknown> <unknown> .", "the the of .", "See separate CT report.", "Indication: pneumonia.", "Findings: None.",
    "CHEST: N/A"]  # fmt: skip


@pytest.mark.parametrize("text", NOTHING)
def test_silence_is_no_normal_report(text: str) -> None:
    assert set(label_report(text).states.values()) == {LabelState.BLANK}


# --- aggregation ---


@pytest.mark.parametrize(
    ("text", "state"),
    [
        ("No effusion. Possible effusion.", LabelState.UNCERTAIN),
        ("Possible effusion. Small effusion. No effusion.", LabelState.POSITIVE),
        ("No effusion. Small effusion.", LabelState.POSITIVE),
        ("No effusion. No effusion.", LabelState.NEGATIVE),
        ("The lungs are clear.", LabelState.BLANK),
    ],
)
def test_positive_outweighs_uncertain_outweighs_negative(text: str, state: LabelState) -> None:
    assert label_report(text).states["Pleural Effusion"] is state


def test_no_finding_is_blocked_by_findings_and_doubts_but_not_by_devices_and_denials() -> None:
    for text in ("Clear lungs.", "No pneumothorax. Pacemaker in place.", "Normal heart size.", "Negative."):
        assert label_report(text).states[NO_FINDING] is LabelState.POSITIVE
    for text in ("Possible nodule.", "Small effusion. Pacemaker in place."):
        assert label_report(text).states[NO_FINDING] is LabelState.BLANK


def test_evidence_is_where_the_text_says_it() -> None:
    text = "Heart size is normal. İ  No effusion or\npneumothorax; nodule may represent a mass."
    report = label_report(text)
    found = [(m.observation, str(m.state), text[m.start : m.end], m.reason) for m in report.mentions]
    assert found == [
        ("Cardiomegaly", "negative", "Heart size", "normal"),
        ("Pleural Effusion", "negative", "effusion", "no"),
        ("Pneumothorax", "negative", "pneumothorax", "no"),
        ("Lung Lesion", "positive", "nodule", ""),
        ("Lung Lesion", "uncertain", "mass", "may represent"),
    ]
    first = report.mentions[0]
    assert text[first.sentence_start : first.sentence_end] == "Heart size is normal."


# --- properties ---

WORDS = """no not cannot exclude may represent or and , . ; with effusion pneumothorax heart size is normal enlarged
mediastinum edema nodule tube removed resolved stable calcified possible versus without change in / ( ) 1.5 ?"""
words = st.sampled_from([*WORDS.split(), "\n", ""])
texts = st.one_of(st.text(max_size=300), st.lists(words, max_size=60).map(" ".join))


@settings(max_examples=300, deadline=None)
@given(texts)
def test_any_text_is_labeled_with_evidence_for_every_state(text: str) -> None:
    report = label_report(text)
    assert tuple(report.states) == OBSERVATIONS
    assert label_report(text) == report
    expected = no_finding_state(dict(report.states))
    assert report.states[NO_FINDING] in ((expected,) if report.mentions else (expected, LabelState.BLANK))
    for name in OBSERVATIONS[:-1]:
        states = {mention.state for mention in report.mentions if mention.observation == name}
        strongest = [state for state in ("positive", "uncertain", "negative") if state in states]
        assert report.states[name] == (strongest[0] if strongest else "blank")
    for mention in report.mentions:
        assert 0 <= mention.sentence_start <= mention.start < mention.end <= mention.sentence_end <= len(text)
        assert mention.state is not LabelState.BLANK
        assert mention.observation in OBSERVATIONS[:-1]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([sentence for sentence, _ in SENTENCES]), min_size=1, max_size=6))
def test_sentences_do_not_influence_each_other(sentences: list[str]) -> None:
    apart = [m.state for sentence in sentences for m in label_report(sentence).mentions]
    together = [m.state for m in label_report(" ".join(sentences)).mentions]
    assert together == apart


ENDLESS = ["no effusion, ", "effusion or ", "heart normal, ", "central venous ", "extubation and removal of tube and ",
    "heart: ", "density over ", "tip over the lower ", "1 . ", "\n ", "!", "'", "- ", "indication: ", "history\n\n",
    "effusion: none ", "no effusion\n", "ct would help to ", "consider ct and ", "[ ] ", "(no) ", "no:\n- ", "edmea ",
    "\u00ad", "isn't ", "effu-\nsion ", "a? no. ", "effusion / ", "one one ", "tip of the ", "... "]  # fmt: skip


@pytest.mark.parametrize("part", ENDLESS)
def test_time_grows_with_the_length_only(part: str) -> None:
    def seconds(characters: int) -> float:
        text = part * (characters // len(part)) + "x"
        times = []
        for _ in range(2):
            began = time.process_time()
            label_report(text)
            times.append(time.process_time() - began)
        return min(times)

    assert seconds(20_000) < 3 * seconds(10_000) + 0.1  # four times, were it to grow with the square


@pytest.mark.parametrize("size", [2**17, pytest.param(2**20, marks=pytest.mark.slow)])
def test_a_long_report_is_labeled(size: int) -> None:
    text = " ".join(sentence for sentence, _ in SENTENCES)
    states = label_report(text).states
    began = time.process_time()
    assert label_report((text * (size // len(text) + 1))[:size]).states == states
    assert label_report("?" * size + "x").mentions == ()
    assert time.process_time() - began < size / 2**20 * 60 + 1


def test_many_reports_in_processes_equal_one_by_one() -> None:
    reports = [sentence for sentence, _ in SENTENCES[:20]]
    assert label_reports(reports, processes=2) == label_reports(reports) == [label_report(text) for text in reports]
    assert label_reports([]) == label_reports([], processes=2) == []


# --- the phantom knows its truth ---


def test_agrees_with_the_phantoms_truth() -> None:
    studies = PhantomSource(count=400, seed=1).studies("train")[:300]
    assert len(studies) >= 250
    reports = label_reports([study.findings for study in studies])
    scores = []
    for name in OBSERVATIONS:
        true = [study.labels[name] == "positive" for study in studies]
        read = [report.states[name] == "positive" for report in reports]
        both = sum(a and b for a, b in zip(true, read, strict=True))
        scores.append(2 * both / (sum(true) + sum(read)))
    assert sum(scores) / len(scores) >= 0.97, dict(zip(OBSERVATIONS, scores, strict=True))
