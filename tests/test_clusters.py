"""Clusters of an impression's sentences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.labels.clusters import cluster_texts, count_clusters
from core.observations import CLUSTERS
from core.studies.phantom import PhantomSource


@pytest.mark.parametrize(
    ("impression", "texts"),
    [
        ("Mild cardiomegaly. No effusion.", {"Cardiomegaly": "Mild cardiomegaly."}),
        (
            "Mild cardiomegaly and small effusion. Possible pneumonia.",
            {
                "Cardiomegaly": "Mild cardiomegaly and small effusion.",
                "Pneumonia": "Possible pneumonia.",
                "Pleural Effusion": "Mild cardiomegaly and small effusion.",
            },
        ),
        ("Small effusion. Clear apex. Large\n effusion.", {"Pleural Effusion": "Small effusion. Large effusion."}),
        ("Apical pleural thickening. Effusion.", {"Pleural Effusion": "Apical pleural thickening. Effusion."}),
        ("No acute cardiopulmonary process.", {"No Finding": "No acute cardiopulmonary process."}),
        ("No edema. No effusion.", {"No Finding": "No edema. No effusion."}),
        (
            "No acute disease. Pacemaker in place. Clear lungs.",
            {"Support Devices": "Pacemaker in place.", "No Finding": "No acute disease. Clear lungs."},
        ),
        ("Pacemaker in place.", {"Support Devices": "Pacemaker in place."}),
        ("Pacemaker in place. Edema.", {"Edema": "Edema.", "Support Devices": "Pacemaker in place."}),
        # nothing is said
        ("", {}),
        (" \n ", {}),
        ("XXXX.", {}),
        ("___ . 1 .", {}),
    ],
)
def test_sentences_go_where_they_belong(impression: str, texts: dict[str, str]) -> None:
    assert cluster_texts(impression) == texts


def test_agrees_with_the_phantom() -> None:
    source = PhantomSource(600, 3)
    studies = [study for split in ("train", "validate", "test") for study in source.studies(split)]
    different = [s.impression for s in studies if cluster_texts(s.impression) != dict(s.cluster_texts)]
    assert different == []
    counts = count_clusters(cluster_texts(study.impression) for study in studies)
    assert counts == {name: sum(name in study.cluster_texts for study in studies) for name in CLUSTERS}
    assert min(counts.values()) > 0


WORDS = ["no", "effusion", "edema", "pacemaker", "possible", ".", "clear", "XXXX", "and", "\n"]


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join)))
def test_any_text_is_sorted_without_changing_a_word(impression: str) -> None:
    texts = cluster_texts(impression)
    assert list(texts) == [name for name in CLUSTERS if name in texts]
    assert not ("No Finding" in texts and texts.keys() - {"No Finding", "Support Devices"})
    for text in texts.values():
        assert text
        assert text == " ".join(text.split())
        letters = iter("".join(impression.split()))
        assert all(letter in letters for letter in text.replace(" ", ""))  # in order, some left out


def test_counts_name_every_cluster() -> None:
    assert count_clusters([]) == dict.fromkeys(CLUSTERS, 0)
    assert count_clusters([{"Edema": "a"}, {"Edema": "b", "Fracture": "c"}])["Edema"] == 2
