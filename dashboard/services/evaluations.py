"""In: results.json and reports.jsonl of evaluations on disk. Out: scores, labelled reports, slices, comparisons.

They lie beside the bundles, below CXR_RUNS, and in the user's folder (`services.own`). Reports are read and labelled
once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import streamlit as st

from core import schemas
from core.evaluation import own
from core.evaluation.own import Asked, known_of, read_facts
from core.evaluation.reports import Evaluation, NoKnownStudyError, Slice, read_evaluation
from core.evaluation.resampling import Comparison, Interval, intervals
from core.evaluation.results import VERSION
from core.files import is_unfinished
from core.labels.compare import Outcome
from core.observations import ASSERTED, NO_FINDING, OBSERVATIONS
from core.projection.job import cache_folder
from core.registry import DECODERS, ENCODERS, pair_title, table_order
from core.studies.source import Source
from core.types import CXRLensError
from core.wording import counted
from dashboard import settings
from dashboard.services import bundles, sources, systems

BY_FINDING = "Finding"
FEWEST_NAMED = 10
"""Studies of a finding in detail, as "mild edema", to be a slice."""
MOST_GROUPS = 40
"""Values of a trait; what has more, as an id, divides studies into nothing that could be compared."""
FEWEST = 10
"""Studies of a slice, to be listed among all slices; of fewer, a score says nothing."""
RESULTS, REPORTS = "-results.json", "-reports.jsonl"
"""How the files of a family's evaluation end, beside the bundles."""

Ways = Mapping[str, Mapping[str, npt.NDArray[np.bool_]]]
"""Ways to divide the studies: what by -> group -> (n,) which studies."""


# ------------------------------------------------------------------------------------------------------------- scores


@dataclass(frozen=True, slots=True)
class ResultSet:
    """One evaluation on disk.

    Attributes:
        name: the family of the bundles, the folder below CXR_RUNS, or the source that was evaluated with the button.
        family: of its bundles.
        results: its scores.
        reports: its reports; need not exist.
        content: of ``results``.
        seed: of the training, as text; "not recorded" where it is not known.
        own: what was asked for, of an evaluation in the user's folder.
    """

    name: str
    family: str
    results: Path
    reports: Path
    content: Mapping[str, Any]
    seed: str
    own: Asked | None = None

    @property
    def title(self) -> str:
        """In the address and for the reader: the name, or what the bundles learned from where that is all it says."""
        return f"Models for {bundles.family_title(self.name)}" if self.name == self.family else self.name

    @property
    def rows(self) -> Mapping[str, Mapping[str, Any]]:
        """The scores by the system's name: pairs in the order of the paper's Table 1, then others by group."""
        order = table_order()

        def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
            pair = pair_of(row)
            return (
                (1, row.get("group", ""), row["name"]) if pair is None else (0, row.get("group", ""), order.index(pair))
            )

        return {row["name"]: row for row in sorted(self.content["rows"], key=place)}

    @property
    def titles(self) -> Mapping[str, str]:
        """Name of each system -> its title, "FVE + M2"; where two have one title, with their group."""
        return {name: title for group in groups_of(self, self.rows).values() for name, title in group.items()}

    @property
    def told(self) -> list[str]:
        """Sentences on what it leaves out, with the models' titles."""
        return [bundles.in_words(str(each)) for each in self.content.get("told", ())]

    @property
    def data(self) -> tuple[str, int]:
        """Names the held-out studies: scores of evaluations that differ in it are of different studies."""
        return str(self.content.get("fingerprint", "")), int(self.content.get("studies", 0))


def pair_of(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """Encoder and decoder of a row of scores; None of a system that is no pair."""
    return (row["encoder"], row.get("decoder", "")) if "encoder" in row else None


def pair_named(results: ResultSet, name: str) -> tuple[str, str] | None:
    """Encoder and decoder of a system of an evaluation; None of one that is no pair."""
    row = next((row for row in results.content["rows"] if row["name"] == name), None)
    if row is not None:
        return pair_of(row)
    if card := bundles.card_named(name):
        return card.pair
    parts = name.split("-")  # reports without scores: what their bundle's name says
    return (parts[1], parts[2]) if len(parts) == 3 and parts[1] in ENCODERS and parts[2] in DECODERS else None


def groups_of(results: ResultSet, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Systems of an evaluation by group, in the order given: group -> name -> title, each title once."""
    rows = {row["name"]: row for row in results.content["rows"]}
    found: dict[str, dict[str, str]] = {}
    for name in names:
        row = rows.get(name, {})
        if pair := pair_named(results, name):
            family = row.get("group") or (name.partition("-")[0] if not row else results.family)
            group, title = f"Models for {bundles.family_title(family)}", pair_title(*pair)
        else:
            other = None if "title" in row else systems.named(name)
            group = str(row.get("group") or (other.group if other else "Reports from elsewhere"))
            title = str(row.get("title") or (other.title if other else title_of(name)))
        found.setdefault(group, {})[name] = title
    often = Counter(title for group in found.values() for title in group.values())
    return {
        group: {
            name: title if often[title] == 1 else f"{title}, {group.removeprefix('Models for ')}"
            for name, title in titles.items()
        }
        for group, titles in found.items()
    }


def families() -> list[str]:
    """Families whose scores lie beside the bundles, the synthetic one's first."""
    found = sorted(path.name.removesuffix(RESULTS) for path in settings.bundles().glob(f"*{RESULTS}"))
    return sorted(found, key=lambda name: (not bundles.synthetic(name), name))


def result_sets() -> tuple[dict[str, ResultSet], dict[str, str]]:
    """Evaluations beside the bundles, below CXR_RUNS and in the user's folder, by name; messages of damaged ones."""
    beside = settings.bundles()
    files = {name: (beside / f"{name}{RESULTS}", beside / f"{name}{REPORTS}") for name in families()}
    folder = settings.runs()
    if folder is not None:
        for pattern in ("results.json", "*/results.json", "*/*/results.json", "*/*/*/results.json"):
            for path in sorted(folder.glob(pattern)):
                if any(is_unfinished(each) for each in path.relative_to(folder).parents if each.name):
                    continue
                name = path.parent.relative_to(folder).as_posix().removesuffix("/evaluate")
                files[f"{folder.name}/{name}".removesuffix("/.")] = path, path.with_name("reports.jsonl")
    asked: dict[str, Asked] = {}
    for each in own.evaluations():
        if each.whole:
            name = _name_of(each)
            name = name if name not in files else f"{name} {each.folder.name[:4]}"
            asked[name], files[name] = each, (each.folder / "results.json", each.folder / "reports.jsonl")
    found, damaged = {}, {name: bundles.without_folder(message) for name, message in own.damaged().items()}
    for name, (path, reports) in files.items():
        try:
            found[name] = replace(
                _result_set(name, str(path), str(reports), path.stat().st_mtime_ns), own=asked.get(name)
            )
        except _ForeignError:
            continue
        except CXRLensError as error:
            damaged[name] = bundles.without_folder(str(error))
        except OSError as error:  # a link to nowhere
            damaged[name] = f"The scores of {name} cannot be read ({error.strerror})."
    return found, damaged


def _name_of(asked: Asked) -> str:
    """What an evaluation of one's own is called: its source, and who wrote."""
    parts = [f"models for {bundles.family_title(asked.family)}"] if asked.pairs else []
    return ", ".join([asked.title, *parts, *asked.systems])


def no_evaluation() -> CXRLensError:
    """What to say where there is no evaluation at all."""
    return CXRLensError(
        f"No evaluation yet: {bundles.PHANTOM}{RESULTS} is missing in the folder of models. "
        f"`cxr-lens train --preset {bundles.PHANTOM}` writes it."
    )


def source_of(results: ResultSet) -> str | None:
    """Short name of the source that an evaluation's studies come from; None where it is not here."""
    if results.own is not None:
        return sources.with_key(results.own.source)
    name = sources.of_family(results.family)
    if name is None or not sources.source(name).synthetic:
        return name
    made = results.data[0]  # other phantoms have the same ids
    return name if made in ("", sources.source(name).fingerprint()) else None


def source_title(results: ResultSet) -> str:
    """What the studies of an evaluation are, for the reader."""
    name = source_of(results)
    if name is not None:
        return sources.names()[name]
    return results.own.title if results.own is not None else bundles.family_title(results.family)


def with_reports(source_name: str) -> tuple[list[ResultSet], list[ResultSet]]:
    """Evaluations whose reports are there: those of a source, and those whose source is not here."""
    there = [each for each in result_sets()[0].values() if each.reports.is_file()]
    named = [(each, source_of(each)) for each in there]
    return [each for each, name in named if name == source_name], [each for each, name in named if name is None]


def told_of(results: ResultSet, found: Evaluation) -> list[str]:
    """What is to be said of an evaluation: what it leaves out, and why."""
    told = results.told
    if found.left_out:
        all_studies = found.left_out + len(found.study_ids)
        told.append(
            f"{found.left_out} of the {counted(all_studies, 'study', 'studies')} in these reports "
            f"{'is' if found.left_out == 1 else 'are'} not among {source_title(results)}, and left out."
        )
    return told


def strange_bundles(results: ResultSet) -> str:
    """What to say where an evaluation is of other bundles than those of the same names that are here; else ""."""
    if results.own is None:
        return ""
    cards = {name: bundles.card_named(name) for name in results.own.pairs}
    changed = [
        title_of(name) for name, card in cards.items() if card is None or card.made_of != results.own.pairs[name]
    ]
    changed += [
        name for name, content in results.own.systems.items()
        if (there := systems.named(name)) is not None and there.content_hash() != content
    ]  # fmt: skip
    if not changed:
        return ""
    return (
        f"These reports are of other bundles than those that are here now: {', '.join(changed)}. Write and score them "
        "again on the Cases page."
    )


class _ForeignError(Exception):
    """A results.json of something else, as of `cxr-lens explain-benchmark`."""


@st.cache_resource(max_entries=64, show_spinner=False)  # shared: a copy of all scores takes milliseconds
def _result_set(name: str, path: str, reports: str, stamp: int) -> ResultSet:
    try:
        content = schemas.read_json(Path(path))
        may_be_foreign = Path(path).name == "results.json" and isinstance(content, dict)
        if may_be_foreign and "rows" not in content and "family" not in content:
            raise _ForeignError
        schemas.check(content, schemas.Results)
        known = table_order()
        if strange := [row["name"] for row in content["rows"] if pair_of(row) not in (None, *known)]:
            raise ValueError(f"a row is of no known pair: {strange[0]!r:.80}")
        if content.get("version", 1) > VERSION:
            raise ValueError("a newer version of CXR Lens wrote it: update this one")
        family = str(content.get("family", name))
    except (OSError, ValueError) as error:
        what = getattr(error, "strerror", None) or error
        raise CXRLensError(
            f"{path} is damaged ({what}). Write it again with `cxr-lens train` or `cxr-lens evaluate --out DIR`."
        ) from error
    return ResultSet(name, family, Path(path), Path(reports), content, _seed(content, family, Path(path)))


def _seed(content: Mapping[str, Any], family: str, path: Path) -> str:
    """Of the training: as the evaluation says, or the cards of the bundles that lie beside it."""
    if "seed" in content:
        return str(content["seed"])
    if path.parent == settings.bundles():
        for card in bundles.cards(family).values():
            if "seed" in card.content.get("config", {}):
                return str(card.content["config"]["seed"])
    return "not recorded"


def title_of(name: str) -> str:
    """Of a pair's bundle, for a reader: "FVE + M2"."""
    if card := bundles.card_named(name):
        return bundles.title_of(card)
    parts = name.split("-")
    if len(parts) == 3 and parts[1] in ENCODERS and parts[2] in DECODERS:
        return pair_title(*parts[1:])
    return name


# ------------------------------------------------------------------------------------------------------------ reports


def read_reports(results: ResultSet) -> Evaluation:
    """The reports of an evaluation, with their labels, of whatever bundles.

    Raises:
        CXRLensError: they are not there, or damaged; those of patients' studies stay with who has the data.
    """
    path = results.reports
    if not path.is_file() and not bundles.synthetic(results.family):
        raise CXRLensError(
            "The reports of these studies are not here: they contain patients' reports, so they do not come with the "
            "program. Choose your copy of these studies as the source on the Cases page, and press the button there. "
            f"Or `cxr-lens evaluate --preset {results.family} --out DIR` writes them; copy DIR/reports.jsonl to {path}."
        )
    name = source_of(results)
    source = None if name is None else sources.source(name)
    facts = "" if results.own is None else str(results.own.folder / "studies.jsonl")
    key = "" if source is None else sources.content_key(source)
    return _read_reports(*_stamp(results), key, facts, source)


@st.cache_resource(max_entries=4, show_spinner="Reading what the reports say …")
def _read_reports(path: str, stamp: int, key: str, facts: str, _source: Source | None) -> Evaluation:
    labels = cache_folder().parent / "labels"
    if facts:
        return read_evaluation(Path(path), read_facts(Path(facts)), labels)
    if _source is not None:
        try:
            return read_evaluation(Path(path), known_of(_source), labels)
        except NoKnownStudyError:
            pass  # of other studies of this kind
    return read_evaluation(Path(path), None, labels)


def reports_of(results: ResultSet) -> Evaluation:
    """The reports of an evaluation, with their labels.

    Raises:
        CXRLensError: they are not there, damaged, or of other bundles.
    """
    found = read_reports(results)
    missing = [name for name in results.titles if name not in found.texts]
    if missing:
        raise CXRLensError(
            f"{results.reports} has no reports of {', '.join(missing)}: it is of other bundles. Evaluate again."
        )
    return found


def pair_outcomes(name: str, source_name: str | None = None) -> Mapping[str, Mapping[str, Outcome]]:
    """What became of each observation in a bundle's evaluated reports: study id -> observation -> outcome.

    Args:
        name: of the bundle.
        source_name: short name of the source whose studies are asked about; the chosen one unless given.

    Raises:
        CXRLensError: the reports of the evaluation are not there, damaged, or lack this bundle.
    """
    wanted = sources.chosen() if source_name is None else source_name
    for results in with_reports(wanted)[0]:
        found = read_reports(results)
        if name in found.outcomes and found.referenced:
            return dict(zip(found.study_ids, found.outcomes[name], strict=True))
    for results in result_sets()[0].values():
        if source_of(results) == wanted and not results.reports.is_file():
            read_reports(results)  # says what is missing
    title = sources.names().get(wanted, wanted)
    raise CXRLensError(
        f"There is no evaluation of {name} with the reports of {title}. Write and score them on the Cases page."
    )


# ------------------------------------------------------------------------------------------------------------- slices


def divide(found: Evaluation) -> Ways:
    """Ways to divide the studies: by what their reports say, and by whatever else is known of them.

    By finding, studies are in as many groups as they have findings; otherwise each is in one.
    """
    ways: dict[str, dict[str, npt.NDArray[np.bool_]]] = {}
    if found.referenced:
        positive: dict[str, npt.NDArray[np.bool_]] = {
            name: np.array([truth[name] in ASSERTED for truth in found.truth]) for name in OBSERVATIONS
        }
        words = np.array([len(text.split()) for text in found.references])
        shorter, longer = np.quantile(words, [1 / 3, 2 / 3])
        count = np.sum([positive[name] for name in OBSERVATIONS if name != NO_FINDING], axis=0)
        ways = {
            BY_FINDING: positive,
            "Number of findings": {
                "none": count == 0, "one": count == 1, "two": count == 2, "three or more": count > 2
            },
            "Length of the reference": {
                f"up to {shorter:.0f} words": words <= shorter,
                f"up to {longer:.0f} words": (words > shorter) & (words <= longer),
                f"more than {longer:.0f} words": words > longer,
            },
        }  # fmt: skip
    for name in dict.fromkeys(name for each in found.traits for name in each):
        groups = _grouped([each.get(name, "not known") for each in found.traits])
        if 1 < len(groups) <= MOST_GROUPS:
            ways[name] = groups
    fine = sorted({label for each in found.details for label in each})
    named = {label: np.array([label in each for each in found.details]) for label in fine}
    if detailed := {label: chosen for label, chosen in named.items() if chosen.sum() >= FEWEST_NAMED}:
        ways["Finding in detail"] = detailed
    return ways


def _grouped(values: list[str]) -> dict[str, npt.NDArray[np.bool_]]:
    named = np.array(values)
    return {value: named == value for value in dict.fromkeys(values)}


def ways_to_divide(results: ResultSet) -> Ways:
    """Ways to divide the studies of an evaluation; see `divide`."""
    return _ways(*_stamp(results), reports_of(results))


@st.cache_resource(max_entries=4, show_spinner=False)
def _ways(path: str, stamp: int, _found: Evaluation) -> Ways:
    return divide(_found)


def _stamp(results: ResultSet) -> tuple[str, int]:
    there = results.reports.is_file()
    return str(results.reports), results.reports.stat().st_mtime_ns if there else 0


def scored_slices(results: ResultSet, system: str, score: str, by: str | None) -> Sequence[tuple[str, Slice]]:
    """(way, slice) of a pair's reports, the worst first.

    Args:
        results: whose reports.
        system: name of a pair's bundle.
        score: a name of `Evaluation.scored`.
        by: one of `ways_to_divide`; None for the slices of all with at least ``FEWEST`` studies.
    """
    found: Sequence[tuple[str, Slice]]
    found = _scored_slices(*_stamp(results), system, score, by, reports_of(results), ways_to_divide(results))
    return found


@st.cache_resource(max_entries=200, show_spinner="Scoring the slices …")
def _scored_slices(
    path: str, stamp: int, system: str, score: str, by: str | None, _found: Evaluation, _ways: Ways
) -> Sequence[tuple[str, Slice]]:
    scored = []
    for way, groups in _ways.items():
        if by is None:
            groups = {name: chosen for name, chosen in groups.items() if FEWEST <= chosen.sum() < len(chosen)}
        if by in (None, way):
            scored += [(way, each) for each in _found.slices(system, groups, score)]
    return sorted(scored, key=lambda each: (each[1].score, each[1].name))


# --------------------------------------------------------------------------------------------------------- comparisons


def comparison(results: ResultSet, first: str, second: str, scores: Sequence[str]) -> Mapping[str, Comparison]:
    """The paired tests of two pairs."""
    return _comparison(*_stamp(results), first, second, tuple(scores), reports_of(results))


@st.cache_resource(max_entries=200, show_spinner="Comparing the two …")
def _comparison(
    path: str, stamp: int, first: str, second: str, scores: tuple[str, ...], _found: Evaluation
) -> Mapping[str, Comparison]:
    return _found.against(first, second, scores)


def interval(results: ResultSet, system: str, score: str) -> tuple[float, float] | None:
    """95 % interval of a score: the evaluation's own, or computed alike from its reports; None without them."""
    row = next(row for row in results.content["rows"] if row["name"] == system)
    if score in row.get("intervals", {}):
        low, high = row["intervals"][score]
        return low, high
    if not results.reports.is_file() or score == "meteor":  # METEOR takes Java and seconds a pair
        return None
    ends: Interval = _interval(*_stamp(results), system, score, reports_of(results))
    return ends.low, ends.high


@st.cache_resource(max_entries=400, show_spinner=False)
def _interval(path: str, stamp: int, system: str, score: str, _found: Evaluation) -> Interval:
    return intervals(_found.scored(system, score), subjects=_found.subjects)[score]
