"""The dashboard without a browser: the pure parts, and every page through Streamlit's own test runner."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

import core.bundles.inference
from core.bundles.library import BundleLibrary
from core.labels.compare import Outcome
from core.labels.rules import LabeledReport, Mention
from core.observations import OBSERVATIONS, LabelState
from core.registry import ENCODERS
from core.studies.images import Grey
from core.text import to_text
from core.views import lateral_note
from dashboard import settings
from dashboard.components.viewer import Overlay, pack
from dashboard.services import bundles, reports, studies
from dashboard.services.reports import in_words, segments
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from tests.images import making
from tests.images.ramps import windowed

PAGES = ("read", "filters", "embeddings", "cases", "results", "about")


def mention(observation: str, state: LabelState, text: str, word: str) -> Mention:
    start = text.index(word)
    return Mention(observation, state, start, start + len(word), 0, len(text), "test")


def labeled(text: str, *mentions: Mention) -> LabeledReport:
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK) | {each.observation: each.state for each in mentions}
    return LabeledReport(states, mentions)


def test_segments_joined_are_the_text_and_carry_the_outcome() -> None:
    text = "No effusion. The heart is enlarged."
    labels = labeled(
        text,
        mention("Pleural Effusion", LabelState.NEGATIVE, text, "effusion"),
        mention("Cardiomegaly", LabelState.POSITIVE, text, "heart is enlarged"),
    )
    pieces = segments(text, labels, {"Cardiomegaly": Outcome.INVENTED})
    assert "".join(piece["text"] for piece in pieces) == text
    assert [piece.get("observation") for piece in pieces] == [None, "Pleural Effusion", None, "Cardiomegaly", None]
    assert [piece.get("outcome") for piece in pieces if "observation" in piece] == [None, "invented"]


@needs_bundles
def test_a_click_is_answered_after_the_report_that_is_being_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("phantom-dve-m2", "phantom-fve-m2", "phantom-fve-transformer")
    monkeypatch.setenv("CXR_BUNDLES", str(linked_bundles(tmp_path / "bundles", *names, "shared")))
    runs: list[int] = []
    written: dict[str, int] = {}  # name -> the run in which it was written

    def known(case: Any, chosen: Any) -> dict[str, str]:
        runs.append(len(runs) + 1)
        return dict.fromkeys(written, "written")

    def write(case: Any, chosen: Any) -> Iterator[tuple[str, str]]:
        for card in chosen:
            written[card.name] = runs[-1]
            if len(written) == 1:  # somebody clicks meanwhile
                context = get_script_run_ctx()
                assert context and context.script_requests
                context.script_requests.request_rerun(RerunData(page_script_hash=context.page_script_hash))
            yield card.name, "written"

    monkeypatch.setattr(reports, "written", known)
    monkeypatch.setattr(reports, "read", write)
    open_page("read")
    assert sorted(written.values()) == [1, 2, 2]


def test_in_words_cuts_the_text_into_the_reports_words_and_keeps_the_marks() -> None:
    words = ["no", "right", "-", "sided", "effusion", ".", "it", "measures", "1", ".", "5", "cm", "."]
    text = to_text(words)
    labels = labeled(text, mention("Pleural Effusion", LabelState.NEGATIVE, text, "effusion"))
    pieces = in_words(segments(text, labels), words)
    assert "".join(before + word for piece in pieces for before, word in piece["words"]) == text
    assert [word.lower() for piece in pieces for _, word in piece["words"]] == words
    assert [(piece.get("observation"), piece["first"]) for piece in pieces] == [
        (None, 0),
        ("Pleural Effusion", 4),
        (None, 5),
    ]


def test_segments_keep_the_first_of_two_mentions_that_overlap() -> None:
    text = "Left basal consolidation."
    labels = labeled(
        text,
        mention("Consolidation", LabelState.POSITIVE, text, "basal consolidation"),
        mention("Lung Opacity", LabelState.POSITIVE, text, "consolidation"),
    )
    assert [piece["text"] for piece in segments(text, labels)] == ["Left ", "basal consolidation", "."]


def test_segments_do_not_mark_a_denial_as_the_finding() -> None:
    text = "No effusion on the right. Small effusion on the left."
    denial = mention("Pleural Effusion", LabelState.NEGATIVE, text, "effusion")
    start = text.rindex("effusion")
    finding = Mention("Pleural Effusion", LabelState.POSITIVE, start, start + 8, 0, len(text), "test")
    pieces = segments(text, labeled(text, denial, finding), {"Pleural Effusion": Outcome.FOUND})
    assert [piece.get("outcome") for piece in pieces if "observation" in piece] == [None, "found"]


def test_pack_puts_16_bit_pixels_and_overlays_where_the_browser_looks_for_them() -> None:
    pixels = np.array([[0.0, 0.5, 1.0], [0.25, 2.0, -1.0]], dtype=np.float32)
    mask = np.array([[True, False]])
    blob = pack(pixels, study="a", bits=12, overlays=[Overlay("x", "Truth", "mask", mask, (0, 0, 0.5, 1))])
    length = int.from_bytes(blob[:4], "little")
    header = json.loads(blob[4 : 4 + length])
    assert length % 4 == 0
    assert (header["width"], header["height"], header["levels"]) == (3, 2, 4095)
    values = np.frombuffer(blob, "<u2", 6, 4 + length)
    assert values.tolist() == [0, 2048, 4095, 1024, 4095, 0]  # out of range is cut, not wrapped
    assert list(blob[4 + length + 12 :]) == [0b10000000]  # a mask is bits
    assert header["overlays"][0]["place"] == [0, 0, 0.5, 1]


def test_pack_puts_levels_that_fit_a_byte_into_one() -> None:
    heat = Overlay("x", "Map", "heat", np.array([[0.5]]))
    blob = pack(np.array([[0.0, 0.5, 1.0]], dtype=np.float32), study="a", bits=8, overlays=[heat])
    length = int.from_bytes(blob[:4], "little")
    assert list(blob[4 + length :]) == [0, 128, 255, 128]


def test_pack_sends_the_files_own_values_and_window_where_there_are_more_than_are_seen() -> None:
    levels = np.array([[0, 1000, 3000]], dtype=np.uint16)
    grey = Grey(levels, first=-50.0, step=2.0, window=(950.0, 400.0), inverse=True)
    blob = pack(np.array([[0.0, 0.5, 1.0]], dtype=np.float32), study="a", bits=12, overlays=[], grey=grey)
    length = int.from_bytes(blob[:4], "little")
    header = json.loads(blob[4 : 4 + length])
    assert np.frombuffer(blob, "<u2", 3, 4 + length).tolist() == [0, 1000, 3000]
    assert header["levels"] == 3000
    assert header["grey"] == {"first": -50, "step": 2, "window": [500, 200], "inverse": True}  # in levels


def test_no_page_needs_torch_before_it_is_drawn() -> None:
    # It takes seconds, in which the reader would see nothing: what a page imports first must not bring it.
    lines = {"import sys"}
    for path in (settings.REPOSITORY / "dashboard" / "app_pages").glob("*.py"):
        first = ast.parse(path.read_text(encoding="utf-8")).body
        lines |= {ast.unparse(node) for node in first if isinstance(node, ast.Import | ast.ImportFrom)}
    lines.remove("from __future__ import annotations")
    assert any("dashboard.services" in line and "filters" in line for line in lines)
    code = "\n".join([*sorted(lines), "sys.exit('torch' in sys.modules)"])
    subprocess.run([sys.executable, "-c", code], cwd=settings.REPOSITORY, check=True)


def test_film_and_reference_come_before_what_takes_long_to_read() -> None:
    # Of a server that has just started: what the Read page imports first, its sources' names, and a film.
    first = ast.parse((settings.REPOSITORY / "dashboard" / "app_pages" / "read.py").read_text(encoding="utf-8")).body
    lines = [ast.unparse(node) for node in first if isinstance(node, ast.Import | ast.ImportFrom)]
    slow = {"torch", "pandas", "pyarrow", "pydicom", "sqlalchemy", "sklearn", "scipy.sparse"}
    code = [
        *lines,
        "import sys",
        "from core.studies.sources import Catalogue",
        "catalogue = Catalogue(['phantom:2000:0', 'example'])",
        "assert catalogue.titles()['example'] == 'Example radiographs'",
        "source = catalogue.open('phantom')",
        "source.original(source.ids('test')[0])",
        f"sys.exit(' '.join({slow} & set(sys.modules)) or 0)",
    ]
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(code)], cwd=settings.REPOSITORY, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-300:]


def test_what_the_first_page_shows_is_there_before_a_reader_comes() -> None:
    code = (
        "from core.labels import rules; from core.studies.phantom import source; "
        "from dashboard.services import first_studies, sources, studies; "
        "first_studies.open_film(); first_studies.open_first(); "
        "kept = rules._remembered.cache_info(); name = next(iter(sources.catalogue().specs)); "
        "found = sources.source(name); first = found.ids('test')[0]; rules.label_report(found.study(first).findings); "
        "assert source._script.cache_info().hits and rules._remembered.cache_info().misses == kept.misses; "
        "source.draw = source._image = source._masks = None; "  # drawn again, it would fail
        "assert studies.open_case(found, name, first).title == first"
    )
    subprocess.run([sys.executable, "-c", code], cwd=settings.REPOSITORY, check=True)


def test_what_the_first_page_does_not_need_is_read_after_it_was_shown() -> None:
    code = (
        "import sys, threading; from dashboard import first_page, serve; "
        "arrived, asked = threading.Event(), first_page.SHOWN.wait; "
        "first_page.SHOWN.wait = lambda seconds: (arrived.set(), asked(300)); "
        "thread = threading.Thread(target=serve.get_ready, daemon=True); thread.start(); assert arrived.wait(300); "
        "assert 'dashboard.services.first_studies' in sys.modules and not set(serve.LATER) & set(sys.modules); "
        "first_page.SHOWN.set(); thread.join(300); assert set(serve.LATER) <= set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=settings.REPOSITORY, check=True)


@needs_bundles
@pytest.mark.parametrize("page", PAGES)
def test_every_page_runs(page: str) -> None:
    test = open_page(page)
    assert not test.error
    assert any("Research use only" in each.value for each in test.html)


@needs_bundles
def test_next_and_the_filter_choose_the_study() -> None:
    test = open_page("read", finding="Pneumothorax")
    first = test.session_state["study"]
    assert "Pneumothorax" in test.selectbox(key="study_choice").options[0]
    test.button(key="next").click().run()
    assert test.session_state["study"] != first
    assert test.query_params["study"] == test.session_state["study"]
    assert not test.exception


@needs_bundles
def test_reports_that_take_several_runs_encode_the_image_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[str] = []
    encode, write = core.bundles.inference.encode_batch, core.bundles.inference.write_from_tokens

    def counted(model: Any, images: Any) -> Any:
        encoded.append(model.card.encoder)
        return encode(model, images)

    def slow(model: Any, *arguments: Any) -> Any:
        if model.card.encoder == "fve":
            time.sleep(1.1)  # longer than the page writes before it draws again
        return write(model, *arguments)

    monkeypatch.setattr(core.bundles.inference, "encode_batch", counted)
    monkeypatch.setattr(core.bundles.inference, "write_from_tokens", slow)
    study = list(studies.visible_studies())[-1]  # nobody has opened it
    open_page("read", study=study)
    assert {name: encoded.count(name) for name in ENCODERS} == {"dve": 3, "fve": 1, "cve": 1, "ccve": 1}


@needs_bundles
def test_evaluations_are_named_by_what_their_models_learned_from() -> None:
    for page, key in (("results", "run"), ("cases", "case_run")):
        for choice in [each for each in open_page(page).selectbox if each.key == key]:
            assert not {"phantom", "openi"} & set(choice.options), page
    runs = open_page("results", view="Runs and seeds", run="Models for real X-rays (Open-i)")
    assert runs.selectbox(key="run").value == "openi"
    assert runs.dataframe[0].value["Run"].tolist()[0] == "Models for synthetic X-rays"
    assert "real X-rays (Open-i)" in runs.dataframe[0].value["Learned from"].tolist()


@needs_bundles
def test_one_click_chooses_four_and_one_all_twelve() -> None:
    test = open_page("read")
    test.button(key="four").click().run()
    assert any("4 of 12" in each.value for each in test.caption)
    test.button(key="all").click().run()
    assert any("12 of 12" in each.value for each in test.caption)


@pytest.fixture
def two_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One demo bundle, and the same again as if it had learned from Open-i."""
    folder = linked_bundles(tmp_path / "bundles", "phantom-fve-m2", "shared")
    real = folder / "openi-fve-m2"
    shutil.copytree(settings.bundles() / "phantom-fve-m2", real)
    card = json.loads((real / "card.json").read_text())
    card |= {"name": real.name, "family": "openi"}
    card["data"] |= {"description": "Real radiographs of Open-i."}
    (real / "card.json").write_text(json.dumps(card))
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    return folder


@needs_bundles
def test_the_family_fits_the_study_and_can_be_chosen(two_families: Path) -> None:
    test = open_page("read")
    assert test.session_state["family"] == ["phantom"]
    assert any("These models learned from 3,154 synthetic X-rays." in each.value for each in test.caption)
    test.button_group(key="family").set_value(["phantom", "openi"]).run()
    assert not test.exception
    for words in ("3,154 synthetic X-rays", "Real radiographs of Open-i"):  # both, side by side
        assert any(words in each.value for each in test.caption)
    test.button_group(key="family").set_value(["openi"]).run()
    assert not test.exception
    assert any("Real radiographs of Open-i" in each.value for each in test.caption)
    assert any("learned from real X-rays" in each.value for each in test.warning)
    upload = studies.open_upload(_png(), "chest.png")
    assert studies.family_for(upload) == "openi"
    assert [card.name for card in bundles.cards("openi").values()] == ["openi-fve-m2"]


def _png() -> bytes:
    picture = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(picture, "PNG")
    return picture.getvalue()


@needs_bundles
def test_an_upload_tells_its_view_and_what_the_ruler_measures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "phantom-dve-transformer").symlink_to(settings.bundles() / "phantom-dve-transformer")
    monkeypatch.setenv("CXR_BUNDLES", str(tmp_path))
    said = read_upload("film.dcm", windowed(ViewPosition="LL", PixelSpacing=[0.2, 0.2]))
    assert "lateral view" in said and "the models know frontal views" in said
    assert "the file gives 0.2 mm per pixel" in said and "on the detector" in said
    said = read_upload("film.dcm", windowed(ViewPosition="AP"))
    assert "AP view" in said and "lateral" not in said and "the ruler counts pixels" in said
    said = read_upload("chest.png", _png())
    assert "view not known" in said and "the ruler counts pixels" in said
    shown = open_page("read")
    said = words_on(shown)
    assert "PA view" in said or "AP view" in said
    assert "ruler" not in said


def read_upload(name: str, content: bytes) -> str:
    """All that the page says of an upload."""
    test = open_page("read", source="upload")
    test.file_uploader[0].upload(name, content).run()
    assert not test.exception and not test.error
    return words_on(test)


def test_a_lateral_view_is_no_surprise_to_a_pair_that_learned_from_such() -> None:
    for data in ({}, {"source": "phantom", "views": ""}, {"source": "mimic_cxr", "views": "ap"}):
        assert lateral_note("LATERAL", data) and not lateral_note("PA", data) and not lateral_note("", data)
    assert not lateral_note("LATERAL", {"source": "openi", "views": "both"})


@needs_bundles
def test_a_bad_upload_gets_a_message_and_no_traceback() -> None:
    test = open_page("read", source="upload")
    test.file_uploader[0].upload("chest.png", b"not a picture").run()
    assert not test.exception
    assert len(test.error) == 1


@needs_bundles
def test_an_upload_of_any_name_is_read_and_its_notes_stand_beside_it() -> None:
    test = open_page("read", source="upload")
    data = making.dicom(making.CHEST12, ViewPosition="LL", PhotometricInterpretation="MONOCHROME1")
    test.file_uploader[0].upload("IM000016", data).run()
    assert not test.exception
    assert not test.error
    said = " ".join(each.value for each in test.warning)
    assert "lateral view" in said
    assert "looks inverted" in said


@pytest.mark.parametrize("page", PAGES)
def test_without_bundles_every_page_says_so(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(tmp_path / "none"))
    test = open_page(page)
    said = [each.value for each in [*test.error, *test.info]]
    assert any(
        words in text
        for words in ("none", "CCVE", "no models here", "folder of models", "No bundle with")
        for text in said
    ), said


@needs_bundles
def test_a_broken_bundle_is_named_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = linked_bundles(tmp_path / "bundles")
    broken = next(path for path in sorted(folder.iterdir()) if (path / "card.json").is_file())
    whole = BundleLibrary(folder).cards()
    broken.unlink()
    broken.mkdir()
    (broken / "card.json").write_text("{")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    test = open_page("about")
    assert [broken.name in each.value for each in test.error] == [True]
    cards = test.selectbox(key="card")
    assert len(cards.options) == len(whole) - 1
    cards.select(cards.options[-1]).run()
    told = words_on(test)
    (last,) = [card for card in whole if f"**Name in commands** `{card.name}`" in told]
    assert f"**Size** {last.size} · **Made** {last.created}" in told
    assert cards.options[-1] == f"{last.title} · real X-rays (Open-i)"
    assert "Studies: train 2,063, validate 294, test 590." in told and "on validation studies" in told
    assert not re.search(r"validation_|[{}]|name: |phantom-…", told)


def test_recorded_sentences_name_pairs_as_the_pages_do() -> None:
    told = "Do not trust it. (Studies: phantom-ccve-cnn_rnn_rnn 7, openi-dve-m2 13.) Not of a-b-m2, fve-m2."
    wanted = "Do not trust it. (Studies: CCVE + CNN-RNN-RNN: 7, DVE + M2: 13.) Not of a-b-m2, fve-m2."
    assert bundles.in_words(told) == wanted
