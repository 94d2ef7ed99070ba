"""In: the folder of bundles. Out: their cards by family, loaded models, and the lock that guards them.

Models are shared by all sessions, so one lock guards inference in this process. Where several readers wait, reports are
also written by processes beside it (``helpers``).
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import streamlit as st

from core.bundles.card import Card, no_bundle
from core.bundles.helpers import Helpers
from core.bundles.library import BundleLibrary
from core.devices import Precision
from core.files import hash_of
from core.registry import DECODERS, ENCODERS, all_pairs, pair_title
from core.studies.source import Source
from core.types import CXRLensError
from dashboard import settings

if TYPE_CHECKING:
    from core.bundles.pair import ReportModel
    from core.encoders.ccve import ClusterTexts

# Read when torch is first imported, which is later and not here: see `settings.threads`.
os.environ.setdefault("OMP_NUM_THREADS", str(settings.threads()))

PHANTOM = "phantom"


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """The bundles of a folder as they were when it was last changed.

    ``broken`` fills as bundles fail to load, ``kept`` has those that garbage collection passes over.
    """

    library: BundleLibrary
    cards: Mapping[str, Mapping[tuple[str, str], Card]]  # by family
    problems: Mapping[str, str]
    helpers: Helpers
    broken: dict[str, str] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let its processes go."""
        self.released.set()
        self.helpers.end()


FRESH = 2.0
"""Seconds for which a folder is not looked at again: a page asks a hundred times while it draws."""
_looked: dict[tuple[str, str, Precision], tuple[float, _Catalogue]] = {}
"""When it was last looked at, and what was there; Streamlit's caches take a tenth of a page's time for that."""


def _catalogue() -> _Catalogue:
    key = str(settings.bundles()), settings.device(), settings.precision()
    looked, found = _looked.get(key, (-math.inf, None))
    if found is None or found.released.is_set() or time.monotonic() - looked > FRESH:
        folder, *others = key
        found = _read_catalogue(folder, _stamp(folder), *others)
        _looked.clear()
        _looked[key] = time.monotonic(), found
    return found


def _stamp(folder: str) -> str:
    """Changes with any file of a folder."""
    files = sorted(path for path in Path(folder).glob("**/*") if path.is_file())
    return hashlib.sha256(repr([(str(path), path.stat().st_mtime_ns) for path in files]).encode()).hexdigest()


@st.cache_resource(max_entries=1, show_spinner=False, on_release=_Catalogue.release)
def _read_catalogue(folder: str, stamp: str, device: str, precision: Precision) -> _Catalogue:
    library = BundleLibrary(Path(folder), device, precision)
    problems = {name: without_folder(message) for name, message in library.problems().items()}
    found = {(card.family, card.encoder, card.decoder): card for card in library.cards() if card.name not in problems}
    imported = {card.family for card in found.values() if not card.trained_here}
    families = sorted({family for family, *_ in found}, key=lambda each: (each in imported, not synthetic(each), each))
    others = [key[1:] for key, card in found.items() if card.pair is None]
    cards = {
        family: {pair: found[family, *pair] for pair in (*all_pairs(), *others) if (family, *pair) in found}
        for family in families
    }
    if not cards and not problems:
        problems["No bundles"] = without_folder(str(no_bundle(Path(folder))))
    return _Catalogue(library, cards, problems, Helpers(Path(folder), device, precision, settings.helpers()))


def without_folder(message: str) -> str:
    """A message without the place of the models on this server: a page says what is wrong, not where a disk has it."""
    folder = settings.bundles()
    for path in sorted({str(folder), str(folder.absolute()), str(folder.resolve())}, key=len, reverse=True):
        message = message.replace(f"{path}/", "").replace(path, "the folder of models")
    return message


def families() -> tuple[str, ...]:
    """Families of usable bundles, each trained on one source of studies; phantoms first, models from elsewhere last."""
    return tuple(_catalogue().cards)


def synthetic(family: str) -> bool:
    """Did the models of a family learn from computed images, and not from patients'?"""
    return family == PHANTOM


def elsewhere(family: str) -> bool:
    """Did the models of a family learn elsewhere? Then nothing is known of their films."""
    return any(not card.trained_here for card in cards(family).values())


def from_elsewhere() -> list[Card]:
    """Cards of usable models that were trained elsewhere."""
    return [card for family in families() for card in cards(family).values() if card.pair is None]


def learned_from(family: str, source: Source) -> bool:
    """Did the models of a family learn from this kind of studies? Only its test studies tell what they can do."""
    return any(card.data.get("name") == source.name for card in cards(family).values())


def family_for(source: Source) -> str:
    """The family of bundles that fits a source: what learned from such studies, or at least from such images.

    A model from elsewhere only where there is nothing else: it is chosen by whoever reads.
    """
    return max(
        families(),
        key=lambda each: (not elsewhere(each), learned_from(each, source), synthetic(each) == source.synthetic),
        default=PHANTOM,
    )


def family_title(family: str) -> str:
    """What a family, or several, separated by commas, learned from, for the reader."""
    if ", " in family:
        return " and ".join(map(family_title, family.split(", ")))
    if synthetic(family):
        return "synthetic X-rays"
    if elsewhere(family):
        return f"X-rays elsewhere ({family})"
    return f"real X-rays ({ {'openi': 'Open-i', 'mimic-cxr': 'MIMIC-CXR'}.get(family, family) })"


def card_named(name: str) -> Card | None:
    """Card of a usable bundle of any family."""
    return next((card for card in library_cards() if card.name == name), None)


def cards(family: str | None = None) -> Mapping[tuple[str, str], Card]:
    """Usable bundles of a family, the first unless named, by (encoder, decoder), in the order of the registry.

    Models from elsewhere are families of their own, by the names of their parts.
    """
    known = _catalogue().cards
    return known.get(next(iter(known), PHANTOM) if family is None else family, {})


def how_many() -> int:
    """Of the family that has most usable models, how many."""
    return max((len(cards(family)) for family in families()), default=0)


def title_of(card: Card) -> str:
    """Of a pair, for the reader."""
    return card.title


_NAME = re.compile(rf"\b[a-z0-9-]+-({'|'.join(ENCODERS)})-({'|'.join(DECODERS)})\b(?= (\d))?")
"""A bundle's name in a sentence, and whether a number of it follows."""


def in_words(message: str) -> str:
    """A recorded sentence with the titles of pairs in place of the names of their bundles."""
    return _NAME.sub(lambda found: pair_title(found[1], found[2]) + ":" * (found[3] is not None), message)


def training_of(chosen: Sequence[Card]) -> str:
    """Which studies bundles of one family learned from, in a sentence or two."""
    numbers = {card.data.get("studies", {}).get("train") for card in chosen}
    amount = f"{numbers.pop():,} " if len(numbers) == 1 and None not in numbers else ""
    if all(synthetic(card.family) for card in chosen):
        return f"These models learned from {amount}synthetic X-rays."
    data = sorted({str(card.data.get("description") or card.data.get("name", "unknown data")) for card in chosen})
    if not any(card.trained_here for card in chosen):
        return " ".join(data)
    return f"These models learned from {amount}studies. {' '.join(data)}"


def mixed_data(family: str = PHANTOM) -> str:
    """What to say where bundles of one family learned from different studies; "" where all learned from the same."""
    of: dict[str, list[str]] = {}
    for card in cards(family).values():
        of.setdefault(str(card.data.get("fingerprint", "")), []).append(title_of(card))
    if len(of) < 2:
        return ""
    told = "; ".join(f"{', '.join(names)} (data {fingerprint or 'not recorded'})" for fingerprint, names in of.items())
    return (
        f"These models learned from different studies: {told}. A study that one has never seen may have taught "
        "another: do not compare their maps, reports and scores."
    )


def problems() -> Mapping[str, str]:
    """Message of each bundle that cannot be used, by name; one entry if there is no bundle at all."""
    return _catalogue().problems


def library_cards() -> list[Card]:
    """Cards of all usable bundles, of every family."""
    catalogue = _catalogue()
    return [card for card in catalogue.library.cards() if card.name not in catalogue.problems]


def bundle_key(card: Card) -> str:
    """Names a bundle and its content, all that decides its reports."""
    return f"{card.name}-{hash_of([card.content.get(each) for each in ('sha256', 'encoder', 'fit', 'write')], 16)}"


@st.cache_resource(show_spinner=False)
def _inference_lock() -> threading.Lock:
    return threading.Lock()


@st.cache_resource(show_spinner=False)
def _locks_of_users() -> defaultdict[str, threading.Lock]:
    return defaultdict(threading.Lock)


@contextmanager
def inference() -> Iterator[None]:
    """Hold the lock that guards the shared models.

    What one user asks for in many tabs waits for that user's own lock first, so that these tabs count as one waiter.
    """
    with _locks_of_users()[user()], _inference_lock():
        yield


def user() -> str:
    """Who is signed in on a server; on one's own machine everybody is one."""
    return str(st.user.get("email") or "")


def helpers() -> Helpers:
    """Processes that write reports beside this one, with the bundles of the folder as it is now."""
    return _catalogue().helpers


def load_models(names: Sequence[str]) -> list[ReportModel]:
    """Load bundles by name, in this order.

    Raises:
        CXRLensError: one is not there, or is damaged.
    """
    found = {name: card_named(name) for name in names}
    if missing := [name for name, card in found.items() if card is None]:
        raise CXRLensError(f"There is no usable bundle {', '.join(missing)} in the folder of models.")
    with inference():
        return [open_model(card) for card in found.values() if card is not None]


def open_model(card: Card) -> ReportModel:
    """Load a bundle.

    Raises:
        CXRLensError: it is damaged.
    """
    catalogue = _catalogue()
    if card.name in catalogue.broken:  # hashing it again would take seconds, at every click
        raise CXRLensError(catalogue.broken[card.name])
    try:
        return catalogue.library.load(card.name)
    except CXRLensError as error:
        raise CXRLensError(note_broken(card.name, error)) from error


def note_broken(name: str, error: CXRLensError) -> str:
    """Remember that a bundle cannot be loaded; returns what is said of it."""
    told = _catalogue().broken[name] = without_folder(str(error))
    return told


def cluster_texts(card: Card) -> ClusterTexts | None:
    """What the tokens of CCVE's filters are compared with; None where a bundle keeps none.

    Raises:
        CXRLensError: it is damaged.
    """
    return _catalogue().library.cluster_texts(card.name)


@contextmanager
def model_in_use(name: str) -> Iterator[ReportModel]:
    """A bundle by its name; nobody else uses a model meanwhile.

    Raises:
        CXRLensError: it is not there, or damaged.
    """
    with inference():
        yield _catalogue().library.load(name)


def broken() -> Mapping[str, str]:
    """Message of each bundle that could not be loaded since the folder was last changed, by name."""
    return _catalogue().broken


def open_usable(chosen: Sequence[Card]) -> tuple[list[ReportModel], dict[str, str]]:
    """Load bundles; those that cannot be loaded come back as name -> message."""
    models, damaged = [], {}
    for card in chosen:
        try:
            models.append(open_model(card))
        except CXRLensError as error:
            damaged[card.name] = str(error)
    kept = _catalogue().kept
    if not kept.issuperset(model.card.name for model in models):
        kept.update(model.card.name for model in models)
        # Python's own collections, which come while reports are written, would look through all parts of all models
        # each time, and nobody is served meanwhile. Streamlit's, after every run, is off (.streamlit/config.toml).
        gc.collect()
        gc.freeze()
    return models, damaged
