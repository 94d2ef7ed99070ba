"""Options of the command line: one option means one thing in every command, and what cannot be is refused first."""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from core.studies.phantom import PhantomSource
from tests import needs
from tests.conftest import BUNDLES
from training.cli import app, main
from training.data import StudyData

OWN = {
    "--out": "where results are written: a file of some commands, a folder of others",
    "--from": "what is read: a release, or a table of reports",
    "--column": "one column, or several that are joined; of findings or of impressions",
    "--size": "one size, or several",
    "--studies": "of each split, or held-out studies with a visible finding",
    "--views": "views of Open-i, or of MIMIC-CXR, which tells more",
    "--images": "of an index that is made, or of a session's cases; or whether an export has them",
    "--films": "a folder that films are read from, or one that they are written into",
    "--reports": "a folder of MIMIC-CXR's reports, or a table",
    "--source": "whose studies are scored or exported, or in which a file's reports are counted",
    "--system": "one that is scored too, or one of those that are exported",
    "--id": "of the studies of a table, or of the rows of a file of reports",
    "--title": "of data, or of a system",
    "--vocabulary": "of R2Gen's checkpoint, or the embeddings of IFCC's",
    "--max-words": "of a report, or of a sentence",
    "--readers": "of a rehearsal, or of the studies that are planned",
    "--cases": "of a rehearsal, or of the studies that are planned",
    "--margin": "of a comparison, or of the studies that are planned",
    "--of": "of a comparison, of the studies that are planned, or of a sheet's pilot",
    "--change": "what is planned for, or of a sheet's pilot",
    "--simulations": "of studies that are planned, or of a sheet's pilot",
    "--split": "how a release is split, a column, or the studies that are chosen",
}
"""Options whose help must differ, and why."""


def options(command: Any, name: str = "") -> Iterator[tuple[str, str, Any]]:
    """Name of a command, of an option, and the option."""
    for sub, each in getattr(command, "commands", {}).items():
        yield from options(each, f"{name} {sub}".strip())
    if not hasattr(command, "commands"):
        for parameter in command.params:
            if parameter.param_type_name == "option":
                yield name, max(parameter.opts, key=len), parameter


def test_the_same_option_is_said_in_the_same_words_everywhere() -> None:
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, option, parameter in options(typer.main.get_command(app)):
        said[option][str(parameter.help)].append(command)
    assert len(said["--preset"].popitem()[1]) > 10
    differing = {option: dict(helps) for option, helps in said.items() if len(helps) > 1}
    assert differing.keys() == OWN.keys(), differing


def test_where_a_preset_is_asked_for_its_numbers_can_be_changed() -> None:
    having = defaultdict(set)
    for command, option, _ in options(typer.main.get_command(app)):
        having[option].add(command)
    assert having["--preset"] == having["--set"]


@pytest.fixture
def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The message of a command that must end before it reads a study."""

    def read(*_: object) -> None:
        pytest.fail("a study was read before the refusal")

    def run(*arguments: str) -> str:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["cxr-lens", *map(str, arguments)])
            patch.setattr(PhantomSource, "studies", read)
            patch.setattr(PhantomSource, "study", read)
            patch.setattr(PhantomSource, "image", read)
            patch.setattr(StudyData, "images", read)
            with pytest.raises(SystemExit) as ended:
                main()
        assert ended.value.code == 2
        return " ".join(capsys.readouterr().err.split())

    return run


WITH_A_PRESET = (
    "train", "evaluate", "paper", "explain-benchmark", "plan", "table 1", "table 2", "table 3", "study ccve",
    "study encoders",
)  # fmt: skip


@pytest.mark.parametrize("command", WITH_A_PRESET)
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--preset", "phantm"), "There is no preset 'phantm'"),
        (("--preset", "phantom", "--set", "encoders=['fvee']"), "encoders: unknown 'fvee'. Did you mean 'fve'?"),
        (("--preset", "phantom", "--set", "decoders=['m22']"), "decoders: unknown 'm22'. Did you mean 'm2'?"),
        (("--preset", "phantom", "--set", "encoders=['dve+fve']"), "'dve+fve' must join different encoders"),
        (("--preset", "phantom", "--set", "report.epoch=3"), "Did you mean 'report.epochs'?"),
        (("--preset", "phantom", "--set", "classifier.batch_size=0"), "classifier.batch_size: must be at least 1"),
    ],
)
def test_a_wrong_preset_is_refused_by_every_command(
    command: str, arguments: tuple[str, ...], message: str, refused: Callable[..., str]
) -> None:
    assert message in refused(*command.split(), *arguments)


@needs.BUNDLES.unless(BUNDLES.is_dir())
@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("explain-benchmark --preset phantom --method grad-kam", "Did you mean 'grad-cam'?"),
        ("explain-benchmark --preset phantom --bundle phantom-fve-m3", "Did you mean 'phantom-fve-m2'?"),
        ("explain-benchmark --preset phantom --set name=phanton", "no bundle of the family 'phanton'. Did you mean"),
        ("evaluate --preset phantom --set name=phanton", "no bundle of the family 'phanton'. Did you mean 'phantom'?"),
        ("evaluate --preset phantom --scores {here}/none.csv", "There is no file"),
        ("evaluate --preset phantom --reports none.csv", "it should be NAME=FILE"),
        ("evaluate --preset phantom --system none", "There is no system 'none'"),
        ("evaluate --preset phantom --labeler chexbert", "CheXbert needs its published checkpoint"),
        ("evaluate", "Which studies? Give a preset (--preset) or a source of studies (--source)"),
        ("evaluate --preset phantom --seeds 2 --bundles {here}", "--bundles: several seeds keep theirs"),
        ("evaluate --preset phantom --seeds 2 --out {here}", "--out: several seeds keep theirs"),
        ("evaluate --preset phantom --seeds 2 --runs {here}", "no bundle of the family 'phantom'"),
        ("train --preset phantom --seeds 2 --bundles {here}", "--bundles: several seeds keep theirs"),
        ("paper --preset phantom --seeds 2 --bundles {here}", "--bundles: several seeds keep theirs"),
        ("table 1 --preset phantom --set name=phanton", "phanton-results.json is missing. Did you mean"),
        ("table 2 --preset phantom --backbone resnet19 --runs {here}", "Did you mean 'resnet18'?"),
        ("study ccve --preset phantom --set name=phanton", "no bundle of the family 'phanton'"),
        ("study ccve --preset phantom --variance 1.5", "share of variance to keep is between 0 and 1, not 1.5"),
        ("study encoders --set encoders=['dve'] --runs {here}", "compares at least two of the encoders"),
        ("study encoders --set report.drifting_norms=true --runs {here}", "leave report.drifting_norms=true out"),
        ("study encoders --set encoders=['fve+ccve','dve'] --runs {here}", "compares at least two of the encoders"),
    ],
)
def test_what_cannot_be_is_refused_before_a_study_is_read(
    command: str, message: str, refused: Callable[..., str], tmp_path: Path
) -> None:
    assert message in refused(*command.replace("{here}", str(tmp_path)).split())


def test_a_labeler_without_its_weights_is_refused_before_the_reports_are_read(
    refused: Callable[..., str], tmp_path: Path
) -> None:
    assert "--labeler chexbert needs its weights" in refused("label", tmp_path / "none.csv", "--labeler", "chexbert")


def test_no_help_has_brackets_which_the_terminal_would_take_for_markup() -> None:
    """Rich swallows them: a default that stands in brackets in the text of the help is never seen."""
    for command, option, parameter in options(typer.main.get_command(app)):
        assert "[" not in str(parameter.help), (command, option)
        assert "default:" not in str(parameter.help).lower(), (command, option)
