"""Which abnormalities a patient has, and how they come and go from visit to visit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import numpy as np

from core.observations import SUPPORT_DEVICES, LabelState

T = TypeVar("T")

Side = Literal["right", "left", "bilateral", ""]

AMOUNTS = ("small", "moderate", "large")
DEGREES = ("mild", "moderate", "severe")

SEVERITIES: dict[str, tuple[str, str, str]] = {
    "Pneumothorax": AMOUNTS,
    "Pleural Effusion": AMOUNTS,
    "Lung Lesion": AMOUNTS,
    "Consolidation": AMOUNTS,
}
"""Words for rising severity; `DEGREES` where an observation is not listed."""

ZONES = ("upper", "mid", "lower")
RIB_SITES = {"third and fourth": 3, "fifth and sixth": 5, "seventh and eighth": 7}
DEVICES = (
    "endotracheal tube",
    "central venous catheter",
    "pacemaker",
    "chest tube",
    "sternal wires",
    "enteric tube",
)

CHRONIC = {"Cardiomegaly", "Enlarged Cardiomediastinum", "Pleural Other", "Lung Lesion"}
CHRONIC_DEVICES = {"pacemaker", "sternal wires"}

# How often an abnormal study starts with each, and what then tends to come with it.  ours: for balanced training, with
# the company these findings keep in practice.
FIRST: dict[str, float] = {
    "Enlarged Cardiomediastinum": 0.09,
    "Cardiomegaly": 0.10,
    "Lung Opacity": 0.09,
    "Lung Lesion": 0.10,
    "Edema": 0.11,
    "Consolidation": 0.10,
    "Pneumonia": 0.09,
    "Atelectasis": 0.09,
    "Pneumothorax": 0.09,
    "Pleural Effusion": 0.05,
    "Pleural Other": 0.09,
    "Fracture": 0.09,
}
COMPANY: dict[str, dict[str, float]] = {
    "Edema": {"Cardiomegaly": 0.6, "Pleural Effusion": 0.5},
    "Cardiomegaly": {"Edema": 0.22, "Pleural Effusion": 0.18},
    "Pleural Effusion": {"Atelectasis": 0.3},
    "Pneumonia": {"Pleural Effusion": 0.15},
    "Consolidation": {"Pleural Effusion": 0.15},
    "Pneumothorax": {"Fracture": 0.15},
    "Fracture": {"Pneumothorax": 0.12, "Atelectasis": 0.12},
    "Lung Lesion": {"Pleural Effusion": 0.1, "Enlarged Cardiomediastinum": 0.12},
    "Enlarged Cardiomediastinum": {"Cardiomegaly": 0.2},
    "Pleural Other": {"Atelectasis": 0.12},
}
LUNG_FINDINGS = {"Lung Opacity", "Lung Lesion", "Consolidation", "Pneumonia"}


@dataclass(frozen=True, slots=True)
class Fact:
    """One abnormality: what the image shows and the report says.

    Attributes:
        id: unique in its study, "pleural-effusion-1".
        observation: one of the 14.
        state: POSITIVE, or UNCERTAIN where it is so slight that a reader hedges.
        side: of the patient; "" where it has none.
        site: "upper", "mid", "lower", a lobe, "apical", the ribs' names, "clavicle"; "" where it has none.
        severity: "subtle", or one of `SEVERITIES`; "" where it has none.
        kind: of a device or pattern; "" where there is only one.
        extent: 0 (hardly there) to 1 (as bad as it gets); severity is cut from it.
        seed: of the details that have no name.
    """

    id: str
    observation: str
    state: LabelState
    side: Side
    site: str
    severity: str
    kind: str
    extent: float
    seed: int


def severity_of(observation: str, extent: float) -> str:
    """Name an extent."""
    if extent < 0.12:
        return "subtle"
    words = SEVERITIES.get(observation, DEGREES)
    return words[0 if extent < 0.42 else 1 if extent < 0.72 else 2]


def _with_extent(fact: Fact, extent: float) -> Fact:
    """Change how bad a fact is, and what follows from that."""
    severity = severity_of(fact.observation, extent)
    state = LabelState.UNCERTAIN if severity == "subtle" else LabelState.POSITIVE
    return replace(fact, extent=extent, severity=severity, state=state)


def _choose(rng: np.random.Generator, values: tuple[T, ...], weights: tuple[float, ...] | None = None) -> T:
    return values[int(rng.choice(len(values), p=weights))]


def _extent(rng: np.random.Generator, *, may_be_subtle: bool = True) -> float:
    """Draw an extent; gaps between the severities keep them apart in the image."""
    if may_be_subtle and rng.random() < 0.12:
        return float(rng.uniform(0.06, 0.1))
    low, high = _choose(rng, ((0.2, 0.36), (0.5, 0.66), (0.8, 1.0)), (0.36, 0.38, 0.26))
    return float(rng.uniform(low, high))


def _draw_fact(rng: np.random.Generator, observation: str, facts: list[Fact]) -> Fact | None:
    """Draw one abnormality that can be told apart from those already there, or none."""
    side: Side = "right" if rng.random() < 0.5 else "left"
    site, kind = "", ""
    extent = _extent(rng, may_be_subtle=observation != "Fracture")
    filled = {f.side for f in facts if f.observation == "Pleural Effusion" and f.extent > 0.4}
    collapsed = {f.side for f in facts if f.observation == "Pneumothorax" and f.extent > 0.4}
    taken = {(f.side, f.site) for f in facts if f.observation in LUNG_FINDINGS}
    if observation in {"Cardiomegaly", "Enlarged Cardiomediastinum"}:
        side = ""
    elif observation == "Edema":
        side = "bilateral"
    elif observation in LUNG_FINDINGS:
        site = _choose(rng, ZONES)
        if side in collapsed or (site == "lower" and (side in filled or "bilateral" in filled)):
            return None
        if (side, site) in taken:
            return None
    elif observation == "Atelectasis":
        site = "lower" if rng.random() < 0.75 else "mid"
        if side in filled or "bilateral" in filled or side in collapsed or (side, site) in taken:
            return None
    elif observation == "Pleural Effusion":
        lower = {f.side for f in facts if f.site == "lower"}
        if rng.random() < 0.35 and not lower and not collapsed:
            side = "bilateral"
        if extent > 0.4 and side in lower:
            extent = float(rng.uniform(0.2, 0.36))
    elif observation == "Pneumothorax":
        if any(f.side in {side, "bilateral"} and f.observation != "Edema" for f in facts):
            extent = float(rng.uniform(0.2, 0.36))
        if any(f.observation == "Pleural Other" and f.side in {side, "bilateral"} for f in facts):
            return None
    elif observation == "Pleural Other":
        site = _choose(rng, ("apical", "lateral"))
        if site == "apical" and rng.random() < 0.3:
            side = "bilateral"
        if any(f.observation == "Pneumothorax" and (f.side == side or side == "bilateral") for f in facts):
            return None
    elif observation == "Fracture":
        site = "clavicle" if rng.random() < 0.4 else _choose(rng, tuple(RIB_SITES))
    return _with_extent(
        Fact(
            id=observation.lower().replace(" ", "-"),
            observation=observation,
            state=LabelState.POSITIVE,
            side=side,
            site=site,
            severity="",
            kind=kind,
            extent=extent,
            seed=int(rng.integers(2**63)),
        ),
        extent,
    )


def _draw_devices(rng: np.random.Generator, facts: list[Fact]) -> list[Fact]:
    """Draw the devices that fit the patient's state."""
    present = {f.observation: f for f in facts}
    ill = len(facts) >= 2
    chances = {
        "endotracheal tube": 0.16 if ill else 0.02,
        "central venous catheter": 0.18 if ill else 0.06,
        "pacemaker": 0.2 if "Cardiomegaly" in present else 0.04,
        "chest tube": 0.45 if "Pneumothorax" in present else 0.03 if "Pleural Effusion" in present else 0.0,
        "sternal wires": 0.16 if "Cardiomegaly" in present else 0.04,
        "enteric tube": 0.0,
    }
    devices: list[Fact] = []
    for kind, chance in chances.items():
        intubated = any(f.kind == "endotracheal tube" for f in devices)
        if rng.random() >= (0.6 if kind == "enteric tube" and intubated else chance):
            continue
        side: Side = ""
        if kind == "chest tube":
            host = present.get("Pneumothorax") or present["Pleural Effusion"]
            side = "right" if host.side == "bilateral" else host.side
        elif kind == "central venous catheter":
            side = "right" if rng.random() < 0.65 else "left"
        elif kind == "pacemaker":
            side = "left" if rng.random() < 0.8 else "right"
        devices.append(
            Fact(
                id=kind.replace(" ", "-"),
                observation=SUPPORT_DEVICES,
                state=LabelState.POSITIVE,
                side=side,
                site="",
                severity="",
                kind=kind,
                extent=1.0,
                seed=int(rng.integers(2**63)),
            )
        )
    return devices


def _draw_new(rng: np.random.Generator, facts: list[Fact], healthy: float) -> list[Fact]:
    """Add fresh abnormalities to those that stayed."""
    facts = list(facts)
    if not facts and rng.random() < healthy:
        return facts
    names, weights = tuple(FIRST), tuple(w / sum(FIRST.values()) for w in FIRST.values())
    chances = (1.0 if not facts else 0.3, 0.3, 0.15)
    wanted = [_choose(rng, names, weights) for chance in chances if rng.random() < chance]
    for name in tuple(wanted):
        wanted += [other for other, chance in COMPANY.get(name, {}).items() if rng.random() < chance]
    for name in wanted:
        if len(facts) < 5 and all(f.observation != name for f in facts):
            fact = _draw_fact(rng, name, facts)
            if fact is not None:
                facts.append(fact)
    return facts


def _follow(rng: np.random.Generator, fact: Fact) -> Fact | None:
    """Let an abnormality persist, change or resolve until the next visit."""
    if fact.observation == SUPPORT_DEVICES:
        stays = fact.kind in CHRONIC_DEVICES or rng.random() < 0.5
        return fact if stays else None
    if fact.observation in CHRONIC:
        return _with_extent(fact, float(np.clip(fact.extent * rng.uniform(0.97, 1.03), 0.06, 1)))
    if rng.random() < (0.25 if fact.observation == "Fracture" else 0.5):
        return None
    if fact.observation == "Fracture":
        return fact
    return _with_extent(fact, _extent(rng, may_be_subtle=True))


def draw_facts(rng: np.random.Generator, visit: int) -> tuple[Fact, ...]:
    """Draw what a patient shows at a visit.

    Args:
        rng: of the patient; the earlier visits are drawn from it first.
        visit: from 1.
    """
    healthy = 0.4
    facts: list[Fact] = []
    devices: list[Fact] = []
    for number in range(1, visit + 1):
        stayed = [f for f in (_follow(rng, f) for f in facts) if f is not None] if number > 1 else []
        facts = _draw_new(rng, stayed, healthy)
        kept = [f for f in (_follow(rng, f) for f in devices) if f is not None] if number > 1 else []
        kept = [f for f in kept if f.kind != "enteric tube" or any(d.kind == "endotracheal tube" for d in kept)]
        kept = [
            f
            for f in kept
            if f.kind != "chest tube"
            or any(g.observation in {"Pneumothorax", "Pleural Effusion"} and g.side == f.side for g in facts)
        ]
        fresh = [f for f in _draw_devices(rng, facts) if all(f.kind != k.kind for k in kept)]
        devices = kept + fresh
    return tuple(facts + devices)
