"""A bundle as a Hugging Face folder: weights in one file, their names kept, a configuration, a model card.

The head of the card is YAML of the fields that the Hub documents (huggingface.co/docs/hub/model-cards); each value is
written as JSON, which YAML includes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from core import __version__
from core.bundles.card import Card, check_files
from core.bundles.library import CLUSTER_FILE, BundleLibrary
from core.bundles.rounding import SCALE
from core.evaluation.metrics import titles
from core.exports.folder import LeftOut, as_json
from core.exports.writers import RESEARCH, SOFTWARE, UNKNOWN
from core.files import hash_of
from core.registry import pair_title

_LICENCES = (
    *("apache-2.0", "mit", "bsd-3-clause", "cc0-1.0"),
    *("cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
)
"""Names of the Hub for licences that a card may have; of another one the card's own words are given."""
_TASK = {"type": "image-to-text", "name": "Findings of a chest radiograph"}
_UNSURE = (
    "This evaluation does not record the hashes of the weights that it scored, nor how they wrote: these may write "
    "otherwise now."
)
_COPIED = ("vocab.json", "expected.safetensors")


def about(card: Card) -> dict[str, Any]:
    """What the export says of where it comes from."""
    return {
        "use": RESEARCH,
        "software": SOFTWARE,
        "version": __version__,
        "bundle": {"name": card.name, "content": hash_of(card.made_of), "seed": _seed(card)},
    }


def files(name: str, bundles: Path, notes: LeftOut) -> Iterator[tuple[str, bytes]]:
    """Weights, configuration, vocabulary, what the pair should make of one image, and the card.

    Args:
        name: of the bundle.
        bundles: its folder.
        notes: of what is left out: scores of other weights.

    Raises:
        BundleError: there is no such bundle, or it is damaged.
    """
    library = BundleLibrary(bundles)
    card = library.card(name)
    shared = [bundles / "shared" / each for each in card.content["encoder"]["shared"]]
    for folder in (bundles / name, *shared):
        check_files(folder)
    yield "model.safetensors", _weights(card, bundles / name, shared)
    yield "config.json", as_json({"model_type": "cxr-lens", "architectures": ["ReportModel"], **card.content})
    for file in _COPIED:
        yield file, (bundles / name / file).read_bytes()
    for folder in shared:
        if (folder / CLUSTER_FILE).is_file():
            yield CLUSTER_FILE, (folder / CLUSTER_FILE).read_bytes()
    yield "README.md", _readme(card, _row(card, bundles, notes), [folder.name for folder in shared]).encode()


def _weights(card: Card, folder: Path, shared: list[Path]) -> bytes:
    """The pair's tensors and those of its shared encoders; of several encoders each has its own name before its own."""
    from safetensors.numpy import load_file, save

    tensors = dict(load_file(folder / "model.safetensors"))
    for each in shared:
        before = f"{each.name}." if len(shared) > 1 else ""
        tensors |= {before + key: value for key, value in load_file(each / "model.safetensors").items()}
    told = {"format": "pt", "bundle": card.name, "content": hash_of(card.made_of), "use": RESEARCH}
    return save(tensors, metadata=told)


def _row(card: Card, bundles: Path, notes: LeftOut) -> Mapping[str, Any]:
    """The held-out scores of these weights; empty where there are none, or they are of others."""
    path = bundles / f"{card.family}-results.json"
    from core import schemas  # brings pydantic, which takes a while

    try:
        results = schemas.read_json(path, schemas.Results)
        row = next((each for each in results["rows"] if each["name"] == card.name), None)
        made_of = results.get("made_of", {}).get(card.name)
        same = results.get("fingerprint") == card.data["fingerprint"] and str(results.get("seed")) == _seed(card)
        same = same if made_of is None else made_of == hash_of(card.made_of)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        row, same = None, False
    if row is None or not same:
        notes.add("scores: there are none of these weights", card.name)
        return {}
    told = [*results.get("told", ()), *([_UNSURE] if made_of is None else [])]
    return {"studies": results["studies"], "told": told, "command": results["command"], **row}


def _seed(card: Card) -> str:
    return str(card.content.get("config", {}).get("seed", UNKNOWN))


def _head(card: Card, row: Mapping[str, Any]) -> str:
    licence, _, _ = card.licence.partition(":")
    known = licence.strip().lower().replace(" ", "-")
    head: dict[str, Any] = {"language": ["en"]}
    head |= {"license": known} if known in _LICENCES else {"license": "other", "license_name": known}
    head |= {
        "library_name": "cxr-lens",
        "pipeline_tag": _TASK["type"],
        "tags": ["radiology", "chest-x-ray", "report-generation", "research-only", "not-a-medical-device"],
        "datasets": [card.data["name"]],
    }
    if row:
        metrics = [
            {"type": name, "name": title, "value": row[name], "args": {"interval_95": row["intervals"][name]}}
            for name, title in titles(*row["intervals"]).items()
        ]
        of = {"name": card.data["name"], "type": card.data["name"], "split": "test"}
        head["model-index"] = [{"name": card.name, "results": [{"task": _TASK, "dataset": of, "metrics": metrics}]}]
    return "\n".join(f"{key}: {json.dumps(value)}" for key, value in head.items())


def _readme(card: Card, row: Mapping[str, Any], shared: list[str]) -> str:
    studies = card.data["studies"]
    parts = [
        f"---\n{_head(card, row)}\n---\n\n# {card.name}",
        f"> {card.intended_use}",
        f"{pair_title(card.encoder, card.decoder)}: writes the findings section of a report from one frontal chest "
        f"radiograph. Made on {card.created} with {SOFTWARE}, size {card.size}, seed {_seed(card)}.",
        f"## Data and licence\n\n{card.data['description']} Training studies: {studies['train']:,}, validation "
        f"{studies['validate']:,}, test {studies['test']:,}. Licence of the weights: {card.licence}.",
        "## Limitations\n\nIt was not made for, and not tested on, the care of patients. It misses findings, invents "
        "others, and writes as fluently where it is wrong. It knows the films of its training data: other views, "
        "devices and populations make it worse, without a sign in the text. Nobody reads its reports before you do.",
        f"## Scores\n\n{_scores(row)}",
        f"## Files\n\n`model.safetensors`: the pair's tensors under their own names{_of_shared(shared)}. Matrices are "
        f"rounded to 8 bits: `NAME` is restored as `NAME * NAME{SCALE}`, a factor a row; vectors have 16. "
        "`config.json`: the bundle's card, with how images are fitted and reports written. `vocab.json`: the words. "
        "`expected.safetensors`: a phantom image, and the words and logits that this pair gives of it. The weights are "
        f"for programs that read these files; {SOFTWARE} itself reads the bundle `{card.name}`, of content "
        f"`{hash_of(card.made_of)}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _of_shared(shared: list[str]) -> str:
    if len(shared) > 1:
        return f", and those of its encoders, {', '.join(shared)}, each under its name"
    return f", and those of its encoder, {shared[0]}" if shared else ""


def _scores(row: Mapping[str, Any]) -> str:
    if not row:
        return "None are recorded of these weights."
    lines = [
        f"On the {row['studies']:,} held-out studies, with 95 % intervals over patients (`{row['command']}`):",
        "",
        "| score | value | interval |",
        "|---|---:|---|",
    ]
    for name, title in titles(*row["intervals"]).items():
        low, high = row["intervals"][name]
        lines.append(f"| {title} | {row[name]:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join([*lines, *(f"\n{each}" for each in row["told"])])
