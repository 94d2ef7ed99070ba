"""What the documents and the program's messages say of commands is found, and a wrong word in it is seen."""

from __future__ import annotations

import tomllib
from contextlib import nullcontext

import pytest

from core.config import DataConfig, from_dict
from core.evaluation.clinical import clinical_statistics
from core.evaluation.language import PROTOCOLS, language_statistics
from core.evaluation.resampling import join
from core.labels.rules import label_report
from tests import documented
from tests.conftest import ROOT
from tests.documented import UnknownError, words_of
from training.cli import app


def test_what_the_program_tells_its_users_to_run_is_there() -> None:
    said = list(documented.messages())
    assert len(said) > 30
    for text, where in said:
        try:
            documented.check_mention(app, text)
        except UnknownError as error:
            pytest.fail(f"{where}: {error}")


def test_every_extra_that_is_named_is_declared() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = list(documented.extras())
    assert len(named) > 10
    assert [each for each in named if each[0] not in declared] == []


PAGE = """
Prose with `cxr-lens bundles
--verify` and `core/bundles/library.py`.

1. In a list:
   ```
   torchrun --nnodes 2 \\
       -m training.cli train   # two machines
   # nothing here
   ```

```
$ cxr-lens data census data/openi
openi, read from somewhere
```

```toml
[data]
```
"""


def test_commands_are_found_wherever_they_stand_on_a_page() -> None:
    found = [(each.text, each.fenced, each.where) for each in documented.commands_of(PAGE, "page")]
    assert found == [
        ("torchrun --nnodes 2 -m training.cli train", True, "page:7"),
        ("cxr-lens data census data/openi", True, "page:13"),
        ("cxr-lens bundles --verify", False, "page:2"),
    ]
    with pytest.raises(documented.NotACommandError, match="page:2: 'studies -> labels' is no command"):
        list(documented.commands_of("```\nstudies -> labels\n```\n", "page"))


@pytest.mark.parametrize(
    "text",
    [
        "cxr-lens trian --preset phantom",
        "cxr-lens data mimic-cxr --help",
        "cxr-lens train --preset phantom --sedes 3",
        "cxr-lens train --sedes 3",
        "cxr-lens train --preset phantom --seeds three",
        "cxr-lens table 2 phantom",
        "cxr-lens label reports.csv --format html",
    ],
)
def test_a_wrong_command_is_seen(text: str) -> None:
    with pytest.raises(UnknownError):
        documented.is_whole(app, words_of(text)[1:])


def test_a_mention_may_lack_what_a_command_needs() -> None:
    for text in ("cxr-lens", "cxr-lens table", "cxr-lens train --seeds 3", "cxr-lens evaluate --out"):
        assert not documented.is_whole(app, words_of(text)[1:])
    documented.check_mention(app, "data openi (or mimic) --from RELEASE --out FOLDER.")
    for wrong in ("data mimic-cxr --help (docs/data.md).", "evaluate --output DIR writes it", "reviews list"):
        with pytest.raises(UnknownError):
            documented.check_mention(app, wrong)


@pytest.mark.numeric
def test_the_other_blocks_of_the_documents_are_read_by_what_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    (preset,) = documented.blocks("docs/data.md", "toml")
    assert from_dict(DataConfig, tomllib.loads(preset)["data"], "data").source == "openi"
    for page in documented.PAGES:
        for block in documented.blocks(str(page), "toml"):
            tomllib.loads(block)
    monkeypatch.setattr("core.evaluation.java.Meteor", nullcontext)
    (example,) = [block for block in documented.blocks("docs/metrics.md", "python") if "theirs" in block]
    references, reports = ["The heart is large. No effusion."] * 6, ["The heart is large."] * 5 + ["Clear lungs."]
    states = [label_report(text).states for text in references]
    theirs = join(
        language_statistics(references, references, PROTOCOLS["wordpunct"]), clinical_statistics(states, states)
    )
    known = {"references": references, "reports": reports, "reference_states": states, "theirs": theirs}
    exec(example, known | {"patients": list(range(6))})
