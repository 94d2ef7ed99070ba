"""What is known of the training films of a family of bundles: one small file beside them, a part an encoder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from core.bundles.card import Card, encoder_weights
from core.files import open_plain, whole_file
from core.gate.distance import Distance
from core.gate.gate import Check, Gate, Limits, Unchecked
from core.paths import how_to_restore
from core.types import CXRLensError

_PICTURE = "picture"


def gate_file(folder: Path, family: str) -> Path:
    """Where the gates of a family lie, in a folder of bundles."""
    return folder / f"{family}-gate.safetensors"


def gate_key(card: Card) -> str:
    """Names an encoder and how its images are fitted: with others, what was measured of its films holds no more."""
    return hashlib.sha256(json.dumps([encoder_weights(card), asdict(card.fit)]).encode()).hexdigest()[:16]


def write_gates(path: Path, gates: Mapping[str, Gate], about: Mapping[str, Any]) -> None:
    """Write the gates of a family.

    Args:
        path: as `gate_file` gives it.
        gates: by `gate_key`; pictures are of the same films, but may be fitted in different ways.
        about: plain values that tell what they were made from.

    Raises:
        DiskError: it cannot be written.
    """
    from safetensors.numpy import save_file

    tensors: dict[str, Any] = {}
    pictures = {gate.picture.mean.tobytes(): gate.picture for gate in gates.values()}  # mostly one and the same
    names = list(pictures)
    for number, picture in enumerate(pictures.values()):
        tensors |= {f"{_PICTURE}{number}.{part}": values for part, values in _arrays(picture).items()}
    for key, gate in gates.items():
        tensors |= {f"{key}.tokens.{part}": values for part, values in _arrays(gate.tokens).items()}
        tensors[f"{key}.{_PICTURE}"] = np.array([names.index(gate.picture.mean.tobytes())])
        tensors[f"{key}.limits"] = np.array(list(asdict(gate.limits).values()), np.float32)
    with whole_file(path, private=False) as fresh:
        save_file(tensors, fresh, {"about": json.dumps(about, sort_keys=True)})


def read_gates(path: Path) -> dict[str, Gate]:
    """Read the gates of a family, by `gate_key`.

    Raises:
        CXRLensError: the file is damaged.
        FileNotFoundError: there is none.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        open_plain(path).close()
        tensors = load_file(path)
        found = {}
        for key in [name.removesuffix(".limits") for name in tensors if name.endswith(".limits")]:
            names = (each.name for each in fields(Limits))
            limits = Limits(**dict(zip(names, tensors[f"{key}.limits"].tolist(), strict=True)))
            picture = _distance(tensors, f"{_PICTURE}{int(tensors[f'{key}.{_PICTURE}'][0])}")
            found[key] = Gate(picture, _distance(tensors, f"{key}.tokens"), limits)
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise CXRLensError(f"{path.name} cannot be read ({error}). {how_to_restore(path)}") from error
    return found


def kept_gates(path: Path, about: Mapping[str, Any], keys: Collection[str]) -> dict[str, Gate]:
    """Gates of a file that were made from the same, and are still wanted; none where there is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            same = (file.metadata() or {}).get("about") == json.dumps(about, sort_keys=True)
        return {key: gate for key, gate in read_gates(path).items() if key in keys} if same else {}
    except (SafetensorError, OSError, CXRLensError):
        return {}


def check_of(folder: Path, card: Card) -> Check:
    """The gate of a bundle; where there is none, what says so."""
    path = gate_file(folder, card.family)
    unchecked = "It was not checked whether this image is like those that this model learned from: "
    if not card.trained_here:
        return Unchecked(f"{unchecked}it was imported, and what its training images look like is not known here.")
    try:
        gate = read_gates(path).get(gate_key(card))
    except FileNotFoundError:
        return Unchecked(f"{unchecked}{path.name} is not beside the bundles. Make it: cxr-lens gate.")
    except CXRLensError as error:
        return Unchecked(f"{unchecked}{error}")
    return gate or Unchecked(f"{unchecked}{path.name} knows nothing of this encoder. Make it anew: cxr-lens gate.")


def _arrays(distance: Distance) -> dict[str, Any]:
    return {
        "mean": distance.mean,
        "basis": distance.basis.astype(np.float16),
        "variances": np.append(distance.variances, distance.rest).astype(np.float32),
    }


def _distance(tensors: Mapping[str, Any], name: str) -> Distance:
    *variances, rest = tensors[f"{name}.variances"]
    return Distance(
        tensors[f"{name}.mean"].astype(np.float32),
        tensors[f"{name}.basis"].astype(np.float32),
        np.array(variances, np.float32),
        float(rest),
    )
