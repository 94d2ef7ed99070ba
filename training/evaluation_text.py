"""An evaluation as text: the table that ``cxr-lens evaluate`` prints, and its finds as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from core.evaluation.finds import Share, false_alarms_of, finds_of
from core.evaluation.language import PROTOCOLS
from core.evaluation.metrics import FREQUENT, METRICS, READING
from core.evaluation.votes import FEW, bands, in_words, right, votes_of
from core.observations import OBSERVATIONS

_NUMBERS = [metric.name for metric in METRICS.values() if metric.in_table]
_MACRO = ("f1", "f1_frequent")


def evaluation_markdown(results: Mapping[str, Any]) -> str:
    """The results as Markdown: the pairs, then the baselines; what they find and invent; published protocols."""
    frequent = results.get("frequent", ())
    lines = [*_scores(results), "", f"{results['studies']} held-out studies. {results['protocol']}"]
    if frequent:
        lines += [f"At least {FREQUENT} positives have {len(frequent)} observations: {', '.join(frequent)}."]
    for told in (results.get("told", ()), _matching(results)):
        lines += told
    lines += ["", *_finds(results), "", *_votes(results)]
    for name, systems in results.get("published", {}).items():
        lines += _published(PROTOCOLS[name].describe(), systems)
    if "references" in results:
        systems = {"*references*": results["references"], **{row["name"]: row for row in results["rows"]}}
        lines += [*reading_table({name: row["reading"] for name, row in systems.items()}), ""]
    lines += [f"- {row['name']}: {warning}" for row in results["rows"] for warning in row["warnings"]]
    for row in [*results["rows"], *results["baselines"]]:
        lines += [f"- {row['name']}: no {score.upper()}. {why}" for score, why in row.get("missing", {}).items()]
    return "\n".join(lines).rstrip() + "\n"


def reading_table(systems: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Lines of a Markdown table: of each system, the shares of its reports by name of `READING`."""
    heads = [f"`{title}`" if title.startswith("<") else title for title in READING.values()]
    lines = [f"| reports with | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name, each in systems.items():
        lines.append(
            f"| {name} | {' | '.join(f'{each[column]:.1%}' if column in each else '' for column in READING)} |"
        )
    return lines


def finds_csv(results: Mapping[str, Any]) -> str:
    """A line for each system and observation, and for normal studies that were called abnormal."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["system", "observation", "measure", "count", "among", "share", "low", "high"])

    def line(row: Mapping[str, Any], observation: str, measure: str, share: Share | None) -> None:
        if share is not None:
            numbers = (share.value, *(share.interval or (None, None)))
            shown = ["" if number is None else f"{number:.6g}" for number in numbers]
            writer.writerow([row["name"], observation, measure, share.count, share.among, *shown])

    for row in _all(results):
        line(row, "", "normal studies called abnormal", false_alarms_of(row))
        for name, found in finds_of(row).items():
            line(row, name, "sensitivity", found.sensitivity)
            line(row, name, "precision", found.precision)
    return out.getvalue()


def _all(results: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [*results["rows"], *results["baselines"]]


def _scores(results: Mapping[str, Any]) -> list[str]:
    heads = ["encoder", "decoder", *(METRICS[name].title for name in (*_NUMBERS, *_MACRO, "f1_5"))]
    for score in _MACRO:
        heads.append(f"{METRICS[score].title} less the nearest report's")
        heads.append(f"{METRICS[score].title} less the nearest report's by its own embeddings")
    heads += ["distinct", "shuffled F1"]
    lines = [f"| {' | '.join(heads)} |", "|---|---|" + "---:|" * (len(heads) - 2)]
    for row in _all(results):
        name = f"{row['encoder']} | {row['decoder']}" if "encoder" in row else f"*{row.get('title', row['name'])}* | "
        cells = [f"{row[key]:.3f}" if key in row else "" for key in _NUMBERS]
        cells += [_with_interval(row, score) for score in _MACRO]
        cells.append(f"{row['f1_5']:.3f}")
        for score in _MACRO:
            cells += [_less(row.get(kind, {}).get(score)) for kind in ("differences", "differences_own")]
        cells += [f"{row['distinct']:.0%}", f"{row['shuffled_f1']:.3f}" if "shuffled_f1" in row else ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _with_interval(row: Mapping[str, Any], score: str) -> str:
    if score not in row:
        return ""
    low, high = row["intervals"][score]
    return f"{row[score]:.3f} ({low:.3f} to {high:.3f})"


def _less(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    told = f"{found['difference']:+.3f}{'*' * (found['p_holm'] < 0.05)}"
    return told if found["low"] is None else f"{told} ({found['low']:+.3f} to {found['high']:+.3f})"


def _finds(results: Mapping[str, Any]) -> list[str]:
    """What each system finds of each observation, and how often it calls a normal study abnormal."""
    first = next(iter(results["rows"]))
    counts = {name: found.positive for name, found in finds_of(first).items()}
    shown = [name for name in OBSERVATIONS if counts.get(name)]
    heads = ["system", "normal studies called abnormal", *(f"{name} ({counts[name]})" for name in shown)]
    lines = [
        "Found of the positive studies, and in brackets right of those written; intervals are in finds.csv (`--out`).",
        "",
        f"| {' | '.join(heads)} |",
        "|---|" + "---:|" * (len(heads) - 1),
    ]
    for row in _all(results):
        alarms, finds = false_alarms_of(row), finds_of(row)
        cells = [_share(alarms) if alarms else ""]
        for name in shown:
            precision = finds[name].precision
            written = "" if precision is None else f" ({precision.count}/{precision.among})"
            cells.append(f"{finds[name].sensitivity.value or 0:.0%}{written}")
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return lines


def _share(share: Share) -> str:
    if share.interval is None:
        return ""
    low, high = share.interval
    return f"{share.value:.0%} ({low:.0%} to {high:.0%}; {share.count} of {share.among})"


def _votes(results: Mapping[str, Any]) -> list[str]:
    """How often the reference says what so many of the pairs say."""
    names, counts = votes_of(results)
    if len(names) < 2:
        return []
    told = bands(len(names))
    lines = [
        f"How often the reference says a finding, by how many of the {len(names)} pairs say it, present or uncertain; "
        f"of fewer than {FEW} studies no share is told. Intervals: Wilson's, over studies.",
        "",
        f"| finding | all studies | {' | '.join(f'{in_words(*band)} say it' for band in told)} |",
        "|---|---:|" + "---:|" * len(told),
    ]
    for name, each in counts.items():
        shares = [right(each, *band) for band in [(0, len(names)), *told]]
        lines.append(f"| {name} | {' | '.join(_of_votes(share) for share in shares)} |")
    return [*lines, ""]


def _of_votes(share: Share) -> str:
    return _share(share) if share.among >= FEW else f"{share.count} of {share.among}"


def _matching(results: Mapping[str, Any]) -> Sequence[str]:
    return [str(found["told"]) for found in results.get("matching", {}).values()]


def _published(about: str, systems: Mapping[str, Mapping[str, float]]) -> list[str]:
    language = [name for name in _NUMBERS if any(name in row for row in systems.values())]
    lines = [about, "", f"| system | {' | '.join(METRICS[each].title for each in language)} |"]
    lines += ["|---|" + "---:|" * len(language)]
    for system, scores in systems.items():
        cells = [f"{scores[key]:.3f}" if key in scores else "" for key in language]
        lines.append(f"| {system} | {' | '.join(cells)} |")
    return [*lines, ""]
