"""How bundles write, changed without training; how reports read, counted from a file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from core.bundles.card import read_content
from core.bundles.editing import edit_card
from core.bundles.library import BundleLibrary
from core.evaluation.own import ask
from core.studies.phantom import PhantomSource
from tests import needs
from tests.commands import refused, run, setting
from tests.conftest import BUNDLES

NAME = "phantom-fve-transformer"
CHANGES = ("data.count=80", "write.beam_size=2", "write.min_sentence_words=3", "write.say_again=false")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in (NAME, "shared/phantom-fve"):
        shutil.copytree(BUNDLES / name, tmp_path / name)
    return tmp_path


@needs.BUNDLES.unless(BUNDLES.is_dir())
def test_cards_get_the_presets_settings_and_keep_the_rest(copy: Path) -> None:
    sentences = {"Cardiomegaly": ["Mild cardiomegaly.", "The heart is enlarged."]}
    edit_card(copy / NAME, {"write": {"finding_sentences": sentences}})  # of what it learned from
    before, asked = read_content(copy / NAME), ask(PhantomSource(5, 0), BundleLibrary(copy).cards(), copy)
    assert run("rewrite-cards", "--preset", "phantom", *setting(CHANGES), "--bundles", copy).exit_code == 0
    after = read_content(copy / NAME)
    write = after.pop("write")
    assert {name: write[name] for name in ("beam_size", "min_sentence_words", "say_again")} == {
        "beam_size": 2, "min_sentence_words": 3, "say_again": False,
    }  # fmt: skip
    assert all(len(text.split()) < 3 for text in write["short_sentences"])
    assert (write["finding_sentences"], write["say_found"]) == (sentences, False)
    before.pop("write")
    assert after == before
    assert BundleLibrary(copy).card(NAME).write == write
    assert not BundleLibrary(copy).problems()
    # Reports that were written otherwise are not taken for those of these settings.
    assert ask(PhantomSource(5, 0), BundleLibrary(copy).cards(), copy).folder != asked.folder


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize("value", ["short_sentences=5", "short_sentences=abc", 'finding_sentences={"Edema"=3}'])
def test_sentences_that_a_card_cannot_have_leave_it_as_it_was(copy: Path, value: str) -> None:
    before = (copy / NAME / "card.json").read_bytes()
    assert value.split("=")[0] in refused("card", f"write.{value}", "--bundle", NAME, "--bundles", copy)
    assert (copy / NAME / "card.json").read_bytes() == before


def test_a_family_without_bundles_is_named(tmp_path: Path) -> None:
    assert "no bundle of the family 'phantom'" in refused("rewrite-cards", "--preset", "phantom", "--bundles", tmp_path)


def test_how_reports_read_is_counted_from_a_file(tmp_path: Path) -> None:
    rows = [
        {"study_id": "1", "reference": "Lungs are clear.", "pair": "No effusion. There is no pleural effusion."},
        {"study_id": "2", "reference": "The XXXX is clear.", "pair": "The <unknown> is seen. Nodule. Clear lungs."},
    ]
    file = tmp_path / "reports.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = json.loads(run("reading", file, "--json").stdout)
    none = {"removed": 0, "wordless": 0}
    assert found["pair"] == {"unknown": 0.5, "short": 1.0, "repeated_denials": 0.5, "contradictions": 0.5, **none}
    none = {"unknown": 0, "short": 0, "wordless": 0, "repeated_denials": 0, "contradictions": 0}
    assert found["reference"] == {"removed": 0.5, **none}
    table = run("reading", file).stdout
    assert "| pair | 50.0% | 0.0% | 100.0% | 0.0% | 50.0% | 50.0% |" in table
    assert "is missing" in refused("reading", tmp_path / "other.jsonl")
