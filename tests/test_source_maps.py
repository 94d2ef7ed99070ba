"""Maps of any source: embeddings equal those of single studies, outlive kills, tell what was left out; their page."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import streamlit as st
from PIL import Image
from typer.testing import CliRunner

from core import paths
from core.bundles.inference import pooled_embedding
from core.bundles.library import BundleLibrary
from core.observations import CLUSTERS
from core.projection import embeddings as core_embeddings
from core.projection.embeddings import (
    Embedding,
    EmbeddingJob,
    content_key,
    embed,
    embeddings_folder,
    find,
    read_embeddings,
)
from core.studies.columns import Columns
from core.studies.model_image import of_study
from core.studies.sources import open_source
from core.studies.table import index_table
from core.types import CXRLensError
from dashboard.services import embedding_jobs, embeddings
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on
from training.cli import app

pytestmark = pytest.mark.numeric

DVE, CCVE = "phantom-dve-m2", "phantom-ccve-m2"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_DEVICE", "cpu")


def work(source: str = "phantom:10:3", bundle: str = DVE, **changes: Any) -> Embedding:
    return Embedding(**{"source": source, "bundles": paths.BUNDLES, "bundle": bundle, "device": "cpu", **changes})


def films(folder: Path, *names: str) -> Path:
    """A folder of images of noise, a file a name."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(len(list(folder.iterdir())))
    for name in names:
        Image.fromarray(rng.integers(0, 255, (64, 80), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks of four studies; the list fills with the places of those that are computed."""
    written: list[int] = []
    write_block = core_embeddings._write_block

    def counted(path: Path, *arguments: Any) -> None:
        written.append(arguments[4])
        write_block(path, *arguments)

    monkeypatch.setattr(core_embeddings, "BLOCK", 4)
    monkeypatch.setattr(core_embeddings, "_write_block", counted)
    return written


# --------------------------------------------------------------------------------------------------------- the files


@needs_bundles
def test_a_job_gives_each_study_the_row_that_it_has_alone() -> None:
    job = EmbeddingJob(work("phantom:3:3", CCVE))
    job.wait()
    assert not job.folder.exists()
    source, model = open_source("phantom:3:3"), BundleLibrary(paths.BUNDLES).load(CCVE)
    found = find(content_key(work("phantom:3:3", CCVE), source))
    assert found is not None
    ids, tensors = read_embeddings(found.path)
    assert sorted(ids) == sorted(study_id for split in source.splits() for study_id in source.ids(split))
    for study_id, row, tokens in zip(ids, tensors["pooled"], tensors["tokens"], strict=True):
        alone = pooled_embedding(model, of_study(source, study_id)(model.image_size))
        step = np.abs(alone).max() / 127  # the file has 8 bits a number, as the demo's
        assert np.abs(row - alone).max() <= 0.51 * step
        assert np.abs(tokens.mean(0) - alone).max() <= np.abs(tokens).max() / 127
    assert tensors["tokens"].shape == tensors["random_filters"].shape == (3, len(CLUSTERS), tensors["pooled"].shape[1])
    assert not np.allclose(tensors["tokens"], tensors["random_filters"], atol=1e-3)


@needs_bundles
def test_an_interruption_costs_a_block_and_the_end_is_the_same(
    blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = embed(work(batch=3)).path
    assert blocks == [0, 4, 8]
    content, (ids, tensors) = whole.read_bytes(), read_embeddings(whole)
    whole.unlink()
    embed_batch, calls = core_embeddings._embed_batch, []

    def fails(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:  # in the second block
            raise KeyboardInterrupt
        return embed_batch(*arguments)

    monkeypatch.setattr(core_embeddings, "_embed_batch", fails)
    with pytest.raises(KeyboardInterrupt):
        embed(work(batch=3))
    assert not whole.exists()
    next(embeddings_folder().glob(".*.blocks/000000000-4.safetensors"))
    blocks.clear()
    heard: list[float] = []
    assert embed(work(batch=3), lambda share, what: heard.append(share)).path == whole
    assert blocks == [4, 8]
    assert heard == sorted(heard)
    again = read_embeddings(whole)
    assert again[0] == ids
    assert all(np.array_equal(again[1][key], tensors[key]) for key in tensors)
    assert [each.name for each in embeddings_folder().iterdir() if not each.name.endswith(".lock")] == [whole.name]
    blocks.clear()
    embed(work(batch=3))
    assert not blocks
    whole.write_bytes(content[:-1])  # damaged
    assert find(content_key(work(), open_source(work().source))) is None
    embed(work(batch=3))
    assert np.array_equal(read_embeddings(whole)[1]["pooled"], tensors["pooled"])


@needs_bundles
def test_a_job_that_is_killed_says_so_and_its_blocks_stay() -> None:
    job = EmbeddingJob(work("phantom:4000:3"))
    deadline = time.monotonic() + 120
    while not list(embeddings_folder().glob(".*.blocks/0*.safetensors")):
        assert not job.done()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    job._process.kill()
    with pytest.raises(CXRLensError, match="ended before its time"):
        job.wait()
    assert list(embeddings_folder().glob(".*.blocks/000000000-64.safetensors"))


@needs_bundles
def test_a_sample_is_the_first_of_all_in_the_order_drawn() -> None:
    some, whole = embed(work(most=4)), embed(work())
    assert (some.kept, whole.kept) == (4, 10)
    ids, tensors = read_embeddings(whole.path)
    assert list(ids) != sorted(ids)
    first, sampled = read_embeddings(some.path)
    assert first == ids[:4]
    assert np.abs(sampled["pooled"] - tensors["pooled"][:4]).max() < 0.02 * np.abs(tensors["pooled"]).max()
    cut, beginning = read_embeddings(whole.path, 4)
    assert cut == first
    assert {key: len(values) for key, values in beginning.items()} == {"pooled": 4, "tokens": 4}
    key = content_key(work(), open_source(work().source))
    assert find(key, 4) == find(key) == whole  # all of them tell more than a sample


@needs_bundles
def test_the_key_follows_images_studies_and_the_encoders_weights() -> None:
    source = open_source("phantom:10:3")
    keys = [
        content_key(work(), source),
        content_key(work(bundle="phantom-dve-transformer"), source),  # DVE learns with its decoder
        content_key(work(bundle="phantom-fve-m2"), source),
        content_key(work(split="train"), source),
        content_key(work(), open_source("phantom:10:4")),
        content_key(work(precision="bf16"), source),
    ]
    assert len(set(keys)) == len(keys)
    same = content_key(work(bundle="phantom-fve-transformer", most=3, batch=1), source)
    assert same == keys[2]  # these share a frozen encoder


@needs_bundles
def test_images_that_cannot_be_read_are_left_out_and_told_and_read_when_they_are_mended(tmp_path: Path) -> None:
    folder = films(tmp_path / "films", "a", "b", "c", "d")
    (folder / "b.png").write_bytes(b"no image")
    found = embed(work(str(folder)))
    assert (found.studies, found.kept, list(found.unreadable)) == (4, 3, ["b"])
    assert "b" not in read_embeddings(found.path)[0]
    done = CliRunner().invoke(app, ["embed", str(folder), "--bundle", DVE, "--device", "cpu", "--json"])
    assert json.loads(done.stdout)[DVE]["unreadable"] == dict(found.unreadable)
    for name in "acd":
        (folder / f"{name}.png").write_bytes(b"no image")
    with pytest.raises(CXRLensError, match="Of 4 images none can be read"):
        embed(work(str(folder)))


@needs_bundles
def test_what_cannot_be_embedded_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(CXRLensError, match="There is no bundle 'nobody'"):
        embed(work(bundle="nobody"))
    with pytest.raises(CXRLensError, match="holds no image"):
        embed(work(str(tmp_path)))
    with pytest.raises(CXRLensError, match="has no studies in its split 'train'"):
        embed(work("example", split="train"))
    done = CliRunner().invoke(app, ["embed", "example", "--bundle", DVE, "--bundle", "nobody"])
    assert done.exit_code
    assert "There is no bundle 'nobody'" in str(done.exception)


# ---------------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def one_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Demo bundles of DVE only."""
    folder = linked_bundles(tmp_path / "bundles", DVE, "openi-dve-m2", "phantom-embeddings-dve.safetensors")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    return folder


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of forty studies with reports, a ward, and a study whose image is gone."""
    names = [f"s {number:02}&1" for number in range(40)]
    folder = films(tmp_path / "images", *names)
    rows = [
        f"{name},p{number},{'There is a pleural effusion.' if number % 4 == 0 else 'The lungs are clear.'},"
        f"{'north' if number % 3 else 'south'},test"
        for number, name in enumerate(names)
    ]
    (tmp_path / "reports.csv").write_text("\n".join(["id,patient,findings,ward,split", *rows]) + "\n")
    columns = Columns().named(
        {"id": "id", "patient": "patient", "findings": "findings", "split": "split"}, {}, {"ward": "ward"}
    )
    index_table(folder, tmp_path / "reports.csv", tmp_path / "mine", columns)
    (folder / f"{names[5]}.png").unlink()
    monkeypatch.setenv("CXR_INDEX", str(tmp_path / "mine"))
    return tmp_path / "mine"


@needs_bundles
def test_one_button_computes_the_map_of_the_chosen_source(one_bundle: Path) -> None:
    test = open_page("embeddings", source="example")
    button = next(each for each in test.button if each.label == "Compute the map of these 16 studies")
    assert not test.get("plotly_chart")
    button.click().run()
    assert not test.exception
    job = embedding_jobs.running("dve", "example")
    assert job is not None
    assert any(each.label == "Cancel" for each in test.button)
    job._process.wait(120)
    test = open_page("embeddings", source="example")
    assert not test.error
    assert len(test.get("plotly_chart")) == 1
    assert not job.folder.exists()
    assert "Nearest to" in words_on(test)
    assert "source=example" in "".join(str(each.proto) for each in test.get("bidi_component"))
    assert "16" not in words_on(test).split("Chosen studies")[0]  # all are there: nothing is to be said of a sample
    assert open_source("example").credit in words_on(test)
    read = open_page("read", source="example", where="true", dve="")
    assert "16 studies of Example radiographs as DVE sees them" in words_on(read)


@needs_bundles
def test_a_map_of_an_index_has_its_reports_traits_and_links_and_tells_of_an_image_that_is_gone(
    one_bundle: Path, table: Path
) -> None:
    embed(embeddings.wanted("dve", "mine"))
    test = open_page("embeddings", source="mine", colour="Pleural Effusion")
    assert not test.error
    assert "1 of 40 studies is left out: their images cannot be read. s 05&1" in words_on(test)
    assert "of its 10 studies" in words_on(test)
    colours = next(each for each in test.selectbox if each.label == "Colour and symbol")
    assert "Ward" in colours.options
    colours.select("Ward").run()
    assert set(test.selectbox(key="group").options) == {"north", "south"}
    test.selectbox(key="group").select("south").run()
    picked = test.session_state["picked"]
    assert len(picked) == 14
    rows = next(each.value for each in test.dataframe if "Study" in each.value)
    assert set(rows["Ward"]) == {"south"}
    assert rows["Read"][0].startswith("./?source=mine&study=s+")
    cards = "".join(str(each.proto) for each in test.get("bidi_component"))
    assert "study=s%20" in cards
    assert "source=mine" in cards
    assert "The lungs are clear." in cards


@needs_bundles
def test_a_study_is_placed_into_the_map_of_another_source_and_that_is_said(one_bundle: Path) -> None:
    test = open_page("embeddings", source="example", map="Synthetic X-rays with known truth")
    assert not test.error
    assert "The points are synthetic X-rays. Where a real X-ray lies among them says nothing" in words_on(test)
    assert "most alike for DVE" in words_on(test)
    assert "source=phantom" in "".join(str(each.proto) for each in test.get("bidi_component"))


@needs_bundles
def test_an_encoder_without_a_bundle_and_a_job_that_fails_are_told(
    one_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CXRLensError, match="No bundle with CVE can be read"):
        embeddings.key_of("cve", "example")
    folder = films(tmp_path / "broken", "a", "b", "c")
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    monkeypatch.setenv("CXR_SOURCES", str(folder))
    embedding_jobs.start("dve", "broken")
    job = embedding_jobs.running("dve", "broken")
    assert job is not None
    job._process.wait(120)
    with pytest.raises(CXRLensError, match="Of 3 images none can be read"):
        embedding_jobs.running("dve", "broken")
    shutil.rmtree(job.folder, ignore_errors=True)


@needs_bundles
def test_of_many_studies_a_sample_is_drawn_and_that_is_said(
    one_bundle: Path, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "MOST", 12)
    test = open_page("embeddings", source="mine")
    assert any(each.label == "Compute the map of 12 of 40 studies, drawn at random" for each in test.button)
    embed(embeddings.wanted("dve", "mine"))
    told = words_on(open_page("embeddings", source="mine"))
    assert "12 of 40 studies, drawn at random; the same ones each time." in told


@pytest.mark.slow
@needs_bundles
def test_a_map_of_590_studies_stands_from_disk_in_two_seconds(
    one_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = films(tmp_path / "images", *(f"s{number:03}" for number in range(590)))
    texts = ("The heart is large.", "The lungs are clear.", "There is a left pleural effusion. No pneumothorax.")
    rows = [f"s{number:03},{texts[number % 3]}" for number in range(590)]
    (tmp_path / "reports.csv").write_text("\n".join(["id,findings", *rows]) + "\n")
    columns = Columns().named({"id": "id", "findings": "findings"}, {}, {})
    index_table(folder, tmp_path / "reports.csv", tmp_path / "many", columns, only_test=True)
    monkeypatch.setenv("CXR_INDEX", str(tmp_path / "many"))
    embed(embeddings.wanted("dve", "many"))
    open_page("embeddings", source="many")  # libraries are read once
    st.cache_resource.clear()
    st.cache_data.clear()
    began = time.process_time()
    test = open_page("embeddings", source="many")
    seconds = time.process_time() - began
    assert len(test.get("plotly_chart")) == 1
    sys.stdout.write(f"the page with its map of 590 studies: {seconds:.2f} s\n")
    assert seconds < 2
