"""The Embeddings page without a browser: the figure, the services, and the page through Streamlit's test runner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from core.observations import CLUSTERS, OBSERVATIONS, LabelState
from core.projection.job import compute
from core.projection.methods import ProjectionConfig
from core.studies.phantom import PhantomSource
from core.types import CXRLensError, Study
from dashboard import figures, settings
from dashboard.services import bundles as catalogue
from dashboard.services import embeddings, evaluations, studies
from tests.app_pages import linked_bundles, needs_bundles, open_page, words_on


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))


def figure_of(count: int = 6, **changes: object) -> object:
    points = np.arange(2 * count, dtype=np.float32).reshape(count, 2)
    arguments: dict = {
        "order": ("present", "not present"),
        "axes": ("PC 1", "PC 2"),
        "picked": (),
        "here": None,
        "here_name": "",
        "height": 300,
    } | changes
    ids = [f"s{place}" for place in range(count)]
    groups = ["present", "not present"] * (count // 2)
    return figures.scatter_map(points, ids, ids, groups, **arguments)


def test_the_ids_go_with_their_points_and_the_choice_dims_the_others() -> None:
    figure = figure_of(picked={"s2", "s3", "elsewhere"})
    assert [list(trace.customdata) for trace in figure.data] == [["s0", "s2", "s4"], ["s1", "s3", "s5"]]
    assert [list(trace.selectedpoints) for trace in figure.data] == [[1], [1]]
    assert [list(trace.x) for trace in figure.data] == [[0, 4, 8], [2, 6, 10]]
    assert all(trace.selectedpoints is None for trace in figure_of().data)


def test_the_points_of_the_open_study_are_joined() -> None:
    figure = figure_of(here=np.array([[0, 0], [1, 2], [3, 1]], dtype=np.float32), here_name="s9")
    assert figure.data[-1].mode == "lines+markers"
    assert list(figure.data[-1].y) == [0, 2, 1]
    assert figure.data[-1].customdata is None  # it can be no part of a choice


def test_many_points_are_drawn_by_webgl_and_three_dimensions_in_a_scene() -> None:
    assert {trace.type for trace in figure_of(2 * figures.MOST_SVG).data} == {"scattergl"}
    points = np.zeros((4, 3), dtype=np.float32)
    solid = figures.scatter_map(
        points,
        list("abcd"),
        list("abcd"),
        ["present"] * 4,
        order=("present",),
        axes=("1", "2", "3"),
        picked={"a"},
        here=points[:1],
        here_name="a",
        height=300,
    )
    assert {trace.type for trace in solid.data} == {"scatter3d"}
    assert solid.layout.scene.zaxis.title.text == "3"


def test_every_filter_and_every_cluster_looks_different() -> None:
    count = len(CLUSTERS) + 1
    figure = figures.scatter_map(
        np.zeros((count, 2), dtype=np.float32),
        ["s"] * count,
        ["s"] * count,
        [*CLUSTERS, "Several"],
        order=[*CLUSTERS, "Several"],
        axes=("1", "2"),
        picked=(),
        here=None,
        here_name="",
        height=300,
    )
    assert len({(trace.marker.color, trace.marker.symbol) for trace in figure.data}) == count


def study(**states: LabelState) -> Study:
    labels = dict.fromkeys(OBSERVATIONS, LabelState.BLANK) | {
        name.replace("_", " "): state for name, state in states.items()
    }
    return Study("s", "p", "test", "PA", "", "", labels, (), {})


def test_main_cluster() -> None:
    positive, uncertain = LabelState.POSITIVE, LabelState.UNCERTAIN
    assert studies.main_cluster(study()) == "No Finding"
    assert studies.main_cluster(study(Edema=uncertain, Support_Devices=positive)) == "Edema"
    assert studies.main_cluster(study(Support_Devices=positive)) == "Support Devices"
    assert studies.main_cluster(study(Pleural_Other=positive, Pleural_Effusion=positive)) == "Pleural Effusion"
    assert studies.main_cluster(study(Edema=positive, Fracture=positive)) == "Several"
    assert studies.main_cluster(study(Edema=LabelState.NEGATIVE)) == "No Finding"


def test_the_nearest_are_nearest_in_the_embedding_and_not_the_study_itself() -> None:
    features = np.array([[0, 0], [3, 0], [1, 0], [9, 9]], dtype=np.float32)
    stored = embeddings.Embeddings("dve", "pooled", ("a", "b", "c", "d"), (), features)
    assert embeddings.neighbours(stored, "a", 2) == [("c", 1.0), ("b", 3.0)]
    assert embeddings.neighbours(stored, "unknown", 2) == []
    twice = embeddings.Embeddings("ccve", "tokens", ("a", "a", "b", "b"), ("x", "y"), np.zeros((4, 2), np.float32))
    assert embeddings.neighbours(twice, "a", 5) == [("b", 0.0)]


# The page.


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo bundles, CCVE's file with the points of filters: two studies' clouds, drawn at random."""
    without = ("phantom-embeddings-ccve.safetensors", "phantom-reports.jsonl")
    folder = linked_bundles(tmp_path_factory.mktemp("embeddings") / "bundles", without=without)
    from safetensors import safe_open

    source = settings.bundles() / "phantom-embeddings-ccve.safetensors"
    with safe_open(source, framework="numpy") as file:
        ids = json.loads(file.metadata()["study_ids"])
    stored = load_file(source)
    pooled = (stored["pooled"] * stored["pooled.scale"][:, None]).astype(np.float32)
    rng = np.random.default_rng(0)
    offsets = rng.normal(0, 1, (1, 13, pooled.shape[1]))
    tokens = (pooled[:, None] + offsets).astype(np.float16)
    control = (pooled[:, None] + 0.1 * offsets).astype(np.float16)
    save_file(
        {"pooled": pooled, "tokens": tokens, "random_filters": control},
        folder / source.name,
        {"study_ids": json.dumps(ids)},
    )
    card = json.loads(next(settings.bundles().glob("phantom-*/card.json")).read_text())["data"]
    phantoms = PhantomSource(card["count"], card["seed"]).studies("test")
    with (folder / "phantom-reports.jsonl").open("w") as file:
        for each in phantoms:
            row = {"study_id": each.study_id, "reference": each.findings, "phantom-dve-transformer": each.findings}
            file.write(json.dumps(row) + "\n")
    return folder


@needs_bundles
def test_the_first_view_has_a_map_its_quality_and_the_neighbours() -> None:
    test = open_page("embeddings")
    assert not test.error
    assert len(test.get("plotly_chart")) == 1
    assert "Map quality (trustworthiness)" in words_on(test)
    assert "at random it would be" in words_on(test)
    assert any("Nearest to" in each.value for each in test.header)
    assert any(each.proto.component_name == "cxr_study_cards" for each in test.get("bidi_component"))
    alike = test.selectbox(key="beside").options[1:4]  # the same points, by the other encoders
    assert [each.partition(": ")[2] for each in alike] == ["One point per X-ray (image)"] * 3


@needs_bundles
def test_the_address_restores_the_choice_and_names_strange_studies() -> None:
    ids = list(studies.visible_studies())[:3]
    test = open_page("embeddings", picked=",".join([*ids, "P999999-9"]), encoder="CVE")
    assert any("Chosen studies: 3" in each.value for each in test.header)
    assert "1 of the studies in the address" in words_on(test)
    assert ids in [each.value["Study"].tolist() for each in test.dataframe if "Study" in each.value]
    test.button(key="clear").click().run()
    assert "picked" not in test.query_params
    assert any(each.value == "Chosen studies" for each in test.header)


@needs_bundles
def test_a_group_is_chosen_without_a_mouse_and_goes_into_the_address() -> None:
    test = open_page("embeddings", colour="Cardiomegaly")
    test.selectbox(key="group").select("present").run()
    assert not test.exception
    picked = test.session_state["picked"]
    known = studies.visible_studies()
    assert picked
    assert all(known[each].labels["Cardiomegaly"] is LabelState.POSITIVE for each in picked)
    assert test.query_params["picked"] in (",".join(picked), [",".join(picked)])


@needs_bundles
def test_filters_stand_beside_their_control(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(bundles))
    test = open_page("embeddings", encoder="CCVE")
    test.selectbox(key="points_ccve").select("tokens").run()
    assert not test.exception
    assert len(test.get("plotly_chart")) == 2
    assert "Filters are " in words_on(test)
    assert "Untrained filters are " in words_on(test)
    assert "stand further apart than with untrained filters" in words_on(test)


@needs_bundles
def test_colours_by_what_a_pair_got_right(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(bundles))
    test = open_page("embeddings", by="Right or wrong")
    groups = set(test.selectbox(key="group").options)
    assert "found" in groups
    assert groups <= {"found", "missed", "invented", "opposite", "neither says it"}
    # The reports are the references: next to nothing is missed or invented.
    outcomes = evaluations.pair_outcomes("phantom-dve-transformer")
    told = [outcome.value for found in outcomes.values() for outcome in found.values()]
    assert told.count("found") > 0.95 * len(told)


@needs_bundles
def test_says_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without = ("phantom-embeddings-cve.safetensors", "phantom-reports.jsonl")
    folder = linked_bundles(tmp_path / "bundles", without=without)
    (folder / "phantom-embeddings-cve.safetensors").write_bytes(b"not a file of tensors")
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    told = words_on(open_page("embeddings", by="Right or wrong"))
    assert "phantom-reports.jsonl is missing" in told
    test = open_page("embeddings", encoder="CVE")
    assert any("embeddings-cve.safetensors is damaged" in each.value for each in test.error)
    with pytest.raises(CXRLensError, match="no 'text'"):
        embeddings.stored("dve", "text")  # only CLIP's encoders read texts


# Data that a map cannot be made of, or that do not belong together.


@pytest.fixture
def ids() -> list[str]:
    """Forty test studies."""
    return list(studies.visible_studies())[:40]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The demo bundles without DVE's and CVE's embeddings."""
    without = ("phantom-embeddings-dve.safetensors", "phantom-embeddings-cve.safetensors")
    folder = linked_bundles(tmp_path / "bundles", without=without)
    monkeypatch.setenv("CXR_BUNDLES", str(folder))
    return folder


def store(folder: Path, encoder: str, study_ids: list[str], **tensors: np.ndarray) -> None:
    content = {name.replace("_", "."): values.astype(np.float16) for name, values in tensors.items()}
    about = {"study_ids": json.dumps(study_ids)}
    save_file(content, folder / f"phantom-embeddings-{encoder}.safetensors", about)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@needs_bundles
def test_tokens_of_a_grid_have_their_areas_and_single_studies_their_states(folder: Path, ids: list[str]) -> None:
    tokens = np.zeros((10, 16, 4))
    tokens[:, :, 0] = np.arange(16)
    store(folder, "dve", ids, pooled=noise(40, 4), tokens=tokens, states_m2=noise(40, 6))
    assert embeddings.kinds("dve") == {
        "pooled": "One point per X-ray (image)",
        "tokens": "One point per area of the X-ray (10 studies)",
        "states.m2": "One point per X-ray (while M2 writes)",
    }
    stored = embeddings.stored("dve", "tokens")
    assert stored.study_ids == tuple(each for each in ids[:10] for _ in range(16))
    assert stored.parts[:16] == (
        "upper left", "upper centre", "upper centre", "upper right",
        *("middle left", "middle centre", "middle centre", "middle right") * 2,
        "lower left", "lower centre", "lower centre", "lower right",
    )  # fmt: skip
    assert stored.features[:16, 0].tolist() == list(range(16))
    test = open_page("embeddings")
    test.selectbox(key="points_dve").select("tokens").run()
    assert not test.exception
    assert "Areas of the image are " in words_on(test)
    assert set(test.selectbox(key="group").options) <= set(embeddings.AREAS)
    test.selectbox(key="points_dve").select("states.m2").run()
    assert not test.exception
    assert "Disease groups are " in words_on(test)
    store(folder, "dve", ids, pooled=noise(40, 4), tokens=noise(10, 15, 4))
    with pytest.raises(CXRLensError, match="neither 13 filters nor a square grid"):
        embeddings.stored("dve", "text")  # only CLIP's encoders read texts


@needs_bundles
def test_tokens_one_after_another_are_a_row_a_study(bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_BUNDLES", str(bundles))
    joined, single = (embeddings.stored("ccve", kind) for kind in ("joined", "tokens"))
    assert joined.features.shape == (len(joined.study_ids), 13 * single.features.shape[1])
    assert np.array_equal(joined.features[7], single.features[7 * 13 : 8 * 13].ravel())
    assert joined.study_ids[7] == single.study_ids[7 * 13]


@needs_bundles
def test_few_and_equal_points_are_explained(folder: Path, ids: list[str]) -> None:
    few = noise(12, 4).astype(np.float16).astype(np.float32)
    store(folder, "dve", ids[:12], pooled=few)
    store(folder, "cve", ids, pooled=np.ones((40, 4)))
    compute(few, ProjectionConfig(method="t-SNE"))
    assert "Perplexity 3 instead of 30: 12 points allow a third of their number." in words_on(
        open_page("embeddings", method="t-SNE")
    )
    told = open_page("embeddings", encoder="CVE")
    assert "All 40 embeddings are equal: there is nothing to map." in words_on(told)
    assert not [each for each in told.button if each.label == "Compute again"]  # it would change nothing


@needs_bundles
def test_embeddings_and_bundles_of_other_data_are_explained(folder: Path, ids: list[str]) -> None:
    store(folder, "dve", [*ids, "P999999-1", "P999999-2"], pooled=noise(42, 4))
    store(folder, "cve", ids[10:], pooled=noise(30, 4))
    test = open_page("embeddings", beside="CVE: One point per X-ray (image)")
    assert len(test.get("plotly_chart")) == 2
    assert "2 of its 42 studies are not shown: they are not among those that are shown of Synthetic" in words_on(test)
    assert "The maps are of different studies: 42 and 30, 30 of them on both." in words_on(test)
    assert "learned from different studies" not in words_on(test)
    store(folder, "dve", ["A-1", "A-2", "A-3"], pooled=noise(3, 4))
    name = "phantom-cve-m2"
    (folder / name).unlink()
    (folder / name).mkdir()
    for source in (settings.REPOSITORY / "assets" / "bundles" / name).iterdir():
        if source.name != "card.json":
            (folder / name / source.name).symlink_to(source)
    card = json.loads((settings.REPOSITORY / "assets" / "bundles" / name / "card.json").read_text())
    card["data"]["fingerprint"] = "another"
    (folder / name / "card.json").write_text(json.dumps(card))
    catalogue._looked.clear()  # it looks at the folder every two seconds
    told = words_on(open_page("embeddings"))
    assert "Of 3 stored studies none is among those that are shown of Synthetic X-rays with known truth" in told
    assert "DVE's bundle makes embeddings of 128 features, the stored ones have 4: they are of another bundle." in told
    assert "These models learned from different studies" in told
    assert "CVE + M2 (data another)" in told
