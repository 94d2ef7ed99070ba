"""Sections of MIMIC-CXR's reports: the public rules, by hand-worked cases."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.studies.sections import Exceptions, read_exceptions, read_report, split_sections
from core.types import CXRLensError
from tests.mimic_tree import report


def test_a_usual_report_is_read() -> None:
    sections = read_report(report())
    assert sections["findings"] == "There is a small left pleural effusion. The heart is normal in size."
    assert sections["impression"] == "Small left pleural effusion."
    assert sections["indication"] == "___ year old patient with cough."
    assert sections["comparison"] == "None."
    assert "FINAL REPORT" in sections["preamble"]


@pytest.mark.parametrize(
    ("header", "section"),
    [
        ("FINDINGS", "findings"),
        ("FINDINGS AND IMPRESSION", "impression"),
        ("FINDINGS/IMPRESSION", "impression"),
        ("FINDINGS/ IMPRESSION", "impression"),
        ("CONCLUSION", "impression"),
        ("IMPRESSON", "impression"),
        ("NDICATION", "impression"),  # a slip that the published table has
        ("FINDNGS", "findings"),
        ("CHEST, TWO VIEWS", "findings"),
        ("PORTABLE UPRIGHT", "findings"),
        ("LEFT RIBS", "findings"),
        ("PRELIMINARY IMPRESSION", "impression"),
        ("ADDITIONAL FINDINGS", "findings"),
        ("REASON FOR EXAM", "indication"),
        ("CLINICAL INFORMATION", "history"),
        ("PFI", "history"),
        ("COMPARISON FILM", "comparison"),
        ("RECOMMENDATION(S)", "recommendations"),
        ("SOMETHING ELSE", "something else"),
    ],
)
def test_headers_are_told_apart(header: str, section: str) -> None:
    assert (section, "text. ") in split_sections(f"FINAL REPORT\n {header}: text. ")


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        pytest.param("FINDINGS: seen\n IMPRESSION: read", [("preamble", "FINDINGS: seen\n "), ("impression", "read")],
                     id="a header on the first line is not seen"),
        pytest.param("x\n Findings: a", [("full report", "x\n Findings: a")], id="capitals only"),
        pytest.param("x\nFINDINGS: a", [("full report", "x\nFINDINGS: a")], id="one space before it"),
        pytest.param("x\n FINDINGS: a\n IMPRESSION: b", [("preamble", "x\n "), ("findings", "a"), ("impression", "b")],
                     id="a header on the next line is found"),
        pytest.param("x\n FINDINGS: \n IMPRESSION: b", [("preamble", "x\n "), ("impression", "b")],
                     id="empty findings go"),
        pytest.param("x\n HISTORY: a\n \n b\n \n c",
                     [("preamble", "x\n "), ("history", "a"), ("last_paragraph", " b\n \n c")], id="last paragraph"),
        pytest.param("x\n \n y", [("full report", "x"), ("last_paragraph", " y")], id="no header at all"),
        pytest.param("x\n FINDINGS: a\n \n b", [("preamble", "x\n "), ("findings", "a\n \n b")],
                     id="paragraphs of findings stay together"),
        pytest.param("", [("full report", "")], id="nothing"),
    ],
)  # fmt: skip
def test_rules_to_the_letter(text: str, sections: list[tuple[str, str]]) -> None:
    assert split_sections(text) == sections


def test_the_last_section_of_a_name_counts() -> None:
    assert read_report("x\n FINDINGS: a\n CHEST, TWO VIEWS: b")["findings"] == "b"


@given(st.text(alphabet="AB:\n ,FINDGS", max_size=80))
def test_no_text_is_lost_or_made_up(text: str) -> None:
    for _, body in split_sections(text):
        assert body in text


PARSER = """
import re

def custom_mimic_cxr_rules():
    custom_section_names = {
        's50000001': 'indication',  # files/p10/p10000001/s50000001.txt
    }
    custom_indices = {
        's50000002': [6, 11],
        's50000003': [0, 0],
    }
    return custom_section_names, custom_indices

raise SystemExit("this file must not be run")
"""


def test_exceptions_are_read_from_the_published_file_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "section_parser.py"
    path.write_text(PARSER)
    rules = read_exceptions(path)
    assert rules == Exceptions({"s50000001": "indication"}, {"s50000002": (6, 11), "s50000003": (0, 0)})
    text = "hello lungs clear\n INDICATION: the heart is large\n FINDINGS: none"
    assert read_report(text, "s50000001", rules) == {"findings": "the heart is large"}
    assert read_report(text, "s50000002", rules) == {"findings": "lungs"}
    assert read_report(text, "s50000003", rules) == {"findings": ""}
    assert read_report(text, "s50000009", rules)["findings"] == "none"


@pytest.mark.parametrize("content", ["x = 1", "custom_section_names = {", "", "custom_indices = {'s1': 3}"])
def test_another_file_of_exceptions_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "section_parser.py"
    path.write_text(content)
    with pytest.raises(CXRLensError, match="is not MIT-LCP's section_parser.py"):
        read_exceptions(path)
