"""Bundles: damaged cards, weights, words and folders, with the hashes that belong to them and without."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from core.bundles.library import BundleLibrary
from core.types import CXRLensError
from tests.attacks import Tally
from tests.attacks.damage import OF_ANY, Damage, of_json
from tests.conftest import BUNDLES

NAME, SHARED, OTHER = "phantom-fve-m2", "phantom-fve", "phantom-dve-m2"


def make(folder: Path) -> Path:
    """A folder of two small pairs, one with a shared encoder."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in (NAME, OTHER, f"shared/{SHARED}"):
        shutil.copytree(BUNDLES / name, folder / name)
    return folder


def reseal(folder: Path) -> None:
    """Write the hashes anew, as someone does who edits files on purpose."""
    card = folder / "card.json"
    content = json.loads(card.read_text("utf-8"))
    for name in content["sha256"]:
        if (folder / name).is_file():
            content["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    card.write_text(json.dumps(content), encoding="utf-8")


def _tensors(change: Callable[[dict[str, torch.Tensor]], None]) -> Damage:
    def damage(path: Path) -> None:
        tensors = load_file(path)
        change(tensors)
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)

    return damage


def _first(tensors: dict[str, torch.Tensor], ending: str) -> str:
    return next(key for key in tensors if key.endswith(ending))


def _set(values: dict[str, torch.Tensor], key: str, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    values[key] = change(values[key])


def _header(header: bytes, body: bytes = b"") -> Damage:
    return lambda path: path.write_bytes(struct.pack("<Q", len(header)) + header + body) and None


OF_WEIGHTS: dict[str, Damage] = {
    "a header of 2^63 bytes": lambda path: path.write_bytes(struct.pack("<Q", 2**63) + b"{}") and None,
    "no tensors": _header(b"{}"),
    "offsets beyond the file": _header(b'{"decoder.x":{"dtype":"F32","shape":[10],"data_offsets":[0,40]}}'),
    "a shape of 2^60": _header(
        b'{"decoder.x":{"dtype":"F32","shape":[1099511627776,1048576],"data_offsets":[0,4]}}', b"0000"
    ),
    "a name twice": _header(
        b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
        b"0",
    ),
    "a tensor more, of the decoder": _tensors(lambda t: t.update({"decoder.more": torch.zeros(3)})),
    "a tensor more, of the encoder": _tensors(lambda t: t.update({"encoder.more": torch.zeros(3)})),
    "a tensor more, of no part": _tensors(lambda t: t.update({"somewhere": torch.zeros(3)})),
    "a scale more": _tensors(lambda t: t.update({"decoder.more.scale": torch.zeros(3)})),
    "a tensor less": _tensors(lambda t: t.__delitem__(_first(t, ".bias"))),
    "scales of one row": _tensors(lambda t: _set(t, _first(t, ".scale"), lambda value: value[:1])),
    "scales of two rows": _tensors(lambda t: _set(t, _first(t, ".scale"), lambda value: value[:2])),
    "scales that are no numbers": _tensors(lambda t: _set(t, _first(t, ".scale"), lambda value: value * torch.nan)),
    "a bias that is no number": _tensors(lambda t: _set(t, _first(t, ".bias"), lambda value: value * torch.nan)),
    "a bias of infinity": _tensors(lambda t: _set(t, _first(t, ".bias"), lambda value: value + torch.inf)),
    "scales twice as large": _tensors(
        lambda t: [_set(t, key, lambda v: v * 2) for key in t if key.endswith(".scale")] and None
    ),
    "a matrix turned round": _tensors(lambda t: _set(t, "decoder.output.weight", lambda value: value.T)),
}
"""Damage to weights of someone who writes the hash of them on the card."""

OF_WORDS: dict[str, Any] = {
    "an object": {"a": 1},
    "a text": "x",
    "numbers": [1, 2, 3],
    "too few": ["<pad>", "<start>", "<unknown>", "<end>", "<sentence-end>", "a"],
    "none": [],
    "lists": [["a"]],
    "null": None,
}
"""Words in place of a vocabulary, with the hash of them on the card."""


def _card(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(path: Path) -> None:
        content = json.loads(path.read_text("utf-8"))
        change(content)
        path.write_text(json.dumps(content), encoding="utf-8")

    return damage


OF_CARDS: dict[str, Damage] = {
    "no hashes": _card(lambda card: card.update(sha256={})),
    "no hash of the weights": _card(lambda card: card["sha256"].pop("model.safetensors") and None),
    "no hash of the words": _card(lambda card: card["sha256"].pop("vocab.json") and None),
    "a hash of a file elsewhere": _card(lambda card: card["sha256"].update({"../../etc/hostname": "0" * 64})),
    "a width of a thousand million": _card(lambda card: card["decoder"].update(changes={"width": 10**9})),
    "a width of 65,536": _card(lambda card: card["decoder"].update(changes={"width": 65_536})),
    "an unknown setting": _card(lambda card: card["decoder"].update(changes={"nothing": 1})),
    "an unknown decoder": _card(lambda card: card["decoder"].update(name="nothing")),
    "an unknown encoder": _card(lambda card: card["encoder"].update(name="nothing")),
    "an unknown size": _card(lambda card: card.update(size="huge")),
    "an unknown kind": _card(lambda card: card.update(kind="nothing")),
    "a shared encoder elsewhere": _card(lambda card: card["encoder"].update(shared={f"../{OTHER}": "0" * 64})),
    "a shared encoder without a name": _card(lambda card: card["encoder"].update(shared={"": "0" * 64})),
    "a shared encoder of another hash": _card(lambda card: card["encoder"].update(shared={SHARED: "0" * 64})),
    "a beam of a thousand million": _card(lambda card: card["write"].update(beam_size=10**9)),
    "a beam below 0": _card(lambda card: card["write"].update(beam_size=-1)),
    "an image of no rows": _card(lambda card: card["inputs"].update(image=[1, 0, 0])),
}
"""Damage to a card that keeps its form."""


def _with_a_space(path: Path) -> None:
    """The same content, in another file: only its hash tells."""
    path.write_bytes(path.read_bytes() + b" ")


def attacks(most: int) -> Iterator[tuple[str, Callable[[Path], None]]]:
    """(name, what it does to a folder of bundles): ``most`` changes of single values of a card, and all others."""
    for of, where in (("card", f"{NAME}/card.json"), ("card of a shared encoder", f"shared/{SHARED}/card.json")):
        for name, damage in of_json(BUNDLES / where, most).items():
            yield f"{of}, {name}", lambda folder, where=where, damage=damage: damage(folder / where)  # type: ignore[misc]
    for name, damage in OF_CARDS.items():
        yield f"card, {name}", lambda folder, damage=damage: damage(folder / NAME / "card.json")  # type: ignore[misc]
    for file in ("model.safetensors", "vocab.json", "expected.safetensors"):
        for name, damage in OF_ANY.items():
            yield f"{file}, {name}", lambda folder, file=file, damage=damage: damage(folder / NAME / file)  # type: ignore[misc]
            if name in ("UTF-16", "a folder", "nothing") or name.startswith(("a link", "a pipe")):
                continue

            def sealed(folder: Path, file: str = file, damage: Damage = damage) -> None:
                damage(folder / NAME / file)
                reseal(folder / NAME)

            yield f"{file}, {name}, with its hash", sealed
        yield f"{file}, a space more", lambda folder, file=file: _with_a_space(folder / NAME / file)  # type: ignore[misc]
    for name, damage in OF_WEIGHTS.items():

        def weights(folder: Path, damage: Damage = damage) -> None:
            damage(folder / NAME / "model.safetensors")
            reseal(folder / NAME)

        yield f"weights, {name}", weights
    for name, words in OF_WORDS.items():

        def vocabulary(folder: Path, words: Any = words) -> None:
            (folder / NAME / "vocab.json").write_text(json.dumps(words), encoding="utf-8")
            reseal(folder / NAME)

        yield f"words, {name}", vocabulary
    yield "a file more", lambda folder: (folder / NAME / "tokenizer_config.json").write_text("{}") and None
    yield "no shared encoder", lambda folder: shutil.rmtree(folder / "shared")
    yield "a half-written copy", lambda folder: shutil.copytree(folder / NAME, folder / f"{NAME}.part") and None
    yield "a copy under another name", lambda folder: shutil.copytree(folder / NAME, folder / "copy") and None
    yield "another name", lambda folder: (folder / NAME).rename(folder / "名前 <b>") and None


def use(folder: Path) -> bool:
    """What a user does: look at all bundles, and let each write; whether both write as they should.

    Raises:
        CXRLensError: one is refused, and the other can still be used.
    """
    library = BundleLibrary(folder)
    problems = library.problems()
    names = [card.name for card in library.cards() if card.name not in problems]
    if OTHER not in names or any(name.endswith(".part") for name in (*names, *problems)):
        return False
    library.verify(OTHER)
    refused: CXRLensError | None = None
    for name in [each for each in names if each != OTHER]:
        try:
            library.verify(name)
        except CXRLensError as error:
            refused = error
    if refused is not None:
        raise refused
    if problems:
        raise CXRLensError(next(iter(problems.values())))
    return all(_is_sealed(folder / name) for name in names)


def _is_sealed(folder: Path) -> bool:
    """Whether all files are those whose hashes the card has: what is another must not have come through."""
    hashes = json.loads((folder / "card.json").read_text("utf-8"))["sha256"]
    return all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == right for name, right in hashes.items())


def run(folder: Path, most: int) -> Tally:
    """Attack bundles."""
    tally = Tally("bundles")
    for name, damage in attacks(most):
        damage(make(folder / "bundles"))
        tally.attempt(name, lambda: use(folder / "bundles"))
    return tally
