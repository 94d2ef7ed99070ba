"""Reports written from facts: which sentences, in which order, with which words.

What a sentence claims is known when it is written, so the labels need no labeler.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from core.observations import NO_FINDING, OBSERVATIONS, SUPPORT_DEVICES
from core.studies.phantom.findings import LUNG_FINDINGS, Fact
from core.studies.phantom.pathology import lesion_radius
from core.studies.phantom.statements import NEGATIVE, POSITIVE, UNCERTAIN, Claim, Statement
from core.studies.phantom.templates import (
    CLOSES,
    DENIALS,
    DENIED,
    DEVICE,
    DOUBTFUL,
    HEDGES,
    NORMAL_BONES,
    NORMAL_HEART,
    NORMAL_HILA,
    NORMAL_LUNGS,
    NORMAL_MEDIASTINUM,
    NOTHING,
    NOUN,
    OTHERWISE_CLEAR,
    PRESENT,
    PRESENT_BILATERAL,
)

_LY = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
_SITES = (
    *("upper lobe", "middle lobe", "lower lobe", "lingula", "upper lung", "mid lung", "lower lung", "lung base"),
    *("apical", "lateral", "clavicle", "rib"),
)
_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_GROUPS = (
    ("Pneumothorax", "Fracture"),
    ("Cardiomegaly", "Edema", "Pleural Effusion", "Enlarged Cardiomediastinum"),
    ("Consolidation", "Pneumonia", "Lung Opacity", "Lung Lesion", "Atelectasis", "Pleural Other"),
    (SUPPORT_DEVICES,),
)


def _pick(rng: np.random.Generator, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _expand(rng: np.random.Generator, template: str) -> str:
    """Take one of each choice."""
    while (match := _CHOICE.search(template)) is not None:
        template = template[: match.start()] + _pick(rng, match[1].split("|")) + template[match.end() :]
    return template


def _sentence(text: str) -> str:
    """Tidy the spaces and start with a capital."""
    text = re.sub(r"\s+", " ", text).replace(" ,", ",").replace(" .", ".").strip()
    return text[0].upper() + text[1:]


def _zone(rng: np.random.Generator, fact: Fact) -> str:
    words = {
        "upper": ("upper lung", "upper lung zone"),
        "mid": ("mid lung", "mid lung zone"),
        "lower": ("lung base", "lower lung"),
    }
    return f"{fact.side} {_pick(rng, words.get(fact.site, ('lung',)))}"


def _words(rng: np.random.Generator, fact: Fact) -> dict[str, str]:
    """Say a fact's side, site and severity in the words its templates ask for."""
    severity, side = fact.severity, fact.side
    lobes = {
        "upper": "upper lobe",
        "mid": "middle lobe" if side == "right" else "lingula",
        "lower": "lower lobe",
    }
    lobe = lobes.get(fact.site, "")
    bone = "clavicle" if fact.site == "clavicle" else f"{fact.site} ribs"
    radius = lesion_radius(fact) if fact.observation == "Lung Lesion" else 0.0
    words = {
        "severity": severity,
        "severity_ly": _LY.get(severity, severity),
        "article_severity": f"a {severity}",
        "amount": severity,
        "side": side,
        "side_ly": "bilaterally",
        "zone": _zone(rng, fact),
        "lobe": lobe if lobe == "lingula" else f"{side} {lobe}",
        "lesion": "mass" if radius > 1.5 else "nodule",
        "size": {"moderate": "moderate-sized"}.get(severity, severity),
        "centimetres": f"{2 * radius:.0f}",
        "place": f"[at the {side} lung base|in the {side} lower lobe]"
        if fact.site == "lower"
        else f"in the {side} mid lung",
        "rim": "apical" if fact.site == "apical" else "lateral",
        "rim_place": ("apices" if side == "bilateral" else "apex") if fact.site == "apical" else "lateral chest wall",
        "bone": bone,
        "bone_adjective": "clavicle" if fact.site == "clavicle" else f"{fact.site} rib",
    }
    return words | {name.capitalize(): word.capitalize() for name, word in words.items()}


def _modifiers(fact: Fact, text: str) -> tuple[tuple[str, str], ...]:
    """Find which of a fact's modifiers its sentence names."""
    if fact.state is not POSITIVE:
        return ()
    lower = text.lower()
    named = [fact.kind] if fact.kind else []
    if fact.severity and (fact.severity in lower):
        named.append(fact.severity)
    if fact.side in ("right", "left") and fact.side in lower:
        named.append(fact.side)
    if fact.side == "bilateral" and ("bilateral" in lower):
        named.append(fact.side)
    named += [site for site in _SITES if re.search(rf"\b{site}\b", lower)]
    return tuple((fact.observation, name.removesuffix(" lung").removeprefix("lung ")) for name in named)


def _claims(fact: Fact, text: str) -> tuple[Claim, ...]:
    """What the sentence about a fact says, an opacity named on the way included."""
    claims: list[Claim] = [(fact.observation, fact.state)]
    if fact.observation != "Lung Opacity" and re.search(r"opacit|infiltrate", text):
        claims.append(("Lung Opacity", POSITIVE))
    return tuple(claims)


def _describe(rng: np.random.Generator, fact: Fact) -> Statement:
    if fact.kind:
        template = _pick(rng, DEVICE[fact.kind])
    elif fact.state is UNCERTAIN:
        template = _pick(rng, DOUBTFUL[fact.observation])
    elif fact.side == "bilateral" and fact.observation in PRESENT_BILATERAL:
        template = _pick(rng, PRESENT_BILATERAL[fact.observation])
    else:
        template = _pick(rng, PRESENT[fact.observation])
    text = _sentence(_expand(rng, _expand(rng, template).format_map(_words(rng, fact))))
    return Statement("findings", text, _claims(fact, text), (fact.id,), _modifiers(fact, text))


def _deny(rng: np.random.Generator, names: Sequence[str]) -> Statement:
    words = [_pick(rng, DENIED[name]) for name in names]
    things = (
        words[0] if len(words) == 1 else ", ".join(words[:-1]) + (", or " if len(words) > 2 else " or ") + words[-1]
    )
    text = _sentence(_expand(rng, _pick(rng, DENIALS)).format(things=things))
    return Statement("findings", text, tuple((name, NEGATIVE) for name in names))


def _say(rng: np.random.Generator, templates: Sequence[str], *claims: Claim) -> Statement:
    return Statement("findings", _sentence(_expand(rng, _pick(rng, templates))), claims)


def _denials(rng: np.random.Generator, absent: set[str]) -> list[Statement]:
    """Deny some of what is absent: the pleura nearly always, lungs and bones often, the rest now and then."""
    said: list[Statement] = []
    pleura = [name for name in ("Pleural Effusion", "Pneumothorax") if name in absent]
    lungs = [
        name
        for name in ("Consolidation", "Pneumonia", "Edema", "Lung Lesion", "Atelectasis", "Lung Opacity")
        if name in absent
    ]
    chosen = [name for name in lungs if rng.random() < 0.4][:3]
    if chosen and pleura and rng.random() < 0.35:
        return [_deny(rng, [*chosen[:2], *pleura])]
    if rng.random() < 0.3:
        pleura.reverse()
    if pleura and rng.random() < 0.92:
        said.append(_deny(rng, pleura))
    if chosen:
        said.append(_deny(rng, chosen))
    rare = [name for name in ("Fracture", "Pleural Other") if name in absent]
    if rare and rng.random() < 0.3:
        said.append(_deny(rng, [_pick(rng, rare)]))
    return said


def write_findings(rng: np.random.Generator, facts: Sequence[Fact]) -> tuple[Statement, ...]:
    """Write the findings.

    Args:
        rng: decides the words, never the facts.
        facts: of the study.

    Returns:
        About 4 to 9 sentences.
    """
    touched = {fact.observation for fact in facts}
    if "Pneumonia" in touched:
        # Its patches may be called opacities or an infiltrate; a sentence that denies them would contradict.
        touched |= {"Lung Opacity", "Consolidation"}
    if "Consolidation" in touched:
        touched |= {"Pneumonia", "Lung Opacity"}
    if "Atelectasis" in touched or "Edema" in touched or "Lung Lesion" in touched:
        touched |= {"Lung Opacity"}
    absent = set(OBSERVATIONS) - touched - {NO_FINDING, SUPPORT_DEVICES}
    about = {fact.id: _describe(rng, fact) for fact in facts}

    def told(*names: str) -> list[Statement]:
        return [about[fact.id] for fact in facts if fact.observation in names]

    devices = told(SUPPORT_DEVICES)
    heart = told("Cardiomegaly") or [_say(rng, NORMAL_HEART, ("Cardiomegaly", NEGATIVE))]
    mediastinum = told("Enlarged Cardiomediastinum")
    if not mediastinum and rng.random() < 0.75:
        mediastinum = [_say(rng, NORMAL_MEDIASTINUM, ("Enlarged Cardiomediastinum", NEGATIVE))]
    pleura = told("Pneumothorax", "Pleural Effusion", "Pleural Other")
    lungs = told(*LUNG_FINDINGS, "Edema", "Atelectasis")
    if not lungs and rng.random() < 0.85:
        lungs = [_say(rng, OTHERWISE_CLEAR if pleura else NORMAL_LUNGS)]
    bones = told("Fracture")
    denials = _denials(rng, absent)
    room = 8 - sum(map(len, (devices, heart, mediastinum, lungs, pleura, bones, denials)))
    extras: list[Statement] = []
    if room > 0 and "Edema" not in touched and rng.random() < (0.5 if room < 3 else 0.9):
        extras.append(_say(rng, NORMAL_HILA))
    if room > 1 and "Fracture" not in touched and rng.random() < (0.6 if room < 3 else 0.9):
        bones = [_say(rng, NORMAL_BONES)]
    if room > 4 and not extras and "Edema" not in touched:
        extras.append(_say(rng, NORMAL_HILA))
    if room > 3 and not mediastinum:
        mediastinum = [_say(rng, NORMAL_MEDIASTINUM, ("Enlarged Cardiomediastinum", NEGATIVE))]
    centre = [*heart, *mediastinum] if rng.random() < 0.7 else [*mediastinum, *heart]
    orders = (
        [devices, centre, extras, lungs, pleura, denials, bones],
        [centre, lungs, extras, pleura, denials, bones, devices],
        [lungs, pleura, denials, centre, extras, bones, devices],
        [devices, lungs, denials, pleura, centre, bones, extras],
        [lungs, denials, pleura, devices, centre, bones, extras],
    )
    order = orders[int(rng.integers(len(orders)))]
    return tuple(statement for group in order for statement in group)


def _noun(rng: np.random.Generator, fact: Fact) -> str:
    words = _words(rng, fact)
    words["kind"] = fact.kind
    if fact.state is UNCERTAIN:
        words |= dict.fromkeys(("severity", "severity_ly", "amount", "size"), "")
    noun = _expand(rng, _pick(rng, NOUN[fact.observation]).format_map(words))
    noun = noun.replace("effusion", "effusions") if fact.side == "bilateral" else noun
    noun = " ".join(noun.split())
    return _pick(rng, HEDGES).format(noun=noun) if fact.state is UNCERTAIN else noun


def write_impression(rng: np.random.Generator, facts: Sequence[Fact]) -> tuple[Statement, ...]:
    """Write the impression: one to three sentences, related abnormalities in one."""
    groups = [[fact for fact in facts if fact.observation in names] for names in _GROUPS]
    devices = groups.pop()
    groups = [group for group in groups if group]
    said: list[Statement] = []
    for group in groups:
        nouns = [_noun(rng, fact) for fact in group]
        joint = nouns[0] if len(nouns) == 1 else ", ".join(nouns[:-1]) + " and " + nouns[-1]
        text = _sentence(joint + _expand(rng, _pick(rng, CLOSES)))
        said.append(
            Statement(
                "impression",
                text,
                tuple((fact.observation, fact.state) for fact in group),
                tuple(fact.id for fact in group),
            )
        )
    if not groups:
        said.append(Statement("impression", _sentence(_expand(rng, _pick(rng, NOTHING))), ((NO_FINDING, POSITIVE),)))
    elif rng.random() < 0.3:
        said.reverse()
    if devices and len(said) < 3 and rng.random() < 0.6:
        named = " and ".join(" ".join(f"{fact.side} {fact.kind}".split()) for fact in devices)
        text = _sentence(_expand(rng, _pick(rng, (named + " in place.", named + " [as described|in position]."))))
        said.append(Statement("impression", text, ((SUPPORT_DEVICES, POSITIVE),), tuple(f.id for f in devices)))
    return tuple(said)
