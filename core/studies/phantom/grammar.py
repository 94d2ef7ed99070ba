"""Reports written from facts.

A sentence is a template with choices "[a|b|]", one of which is taken, and slots "{severity}", "{side}", "{site}",
"{amount}". What a sentence claims is known when it is written, so the labels need no labeler.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from core.observations import (
    CLUSTER_OF,
    CLUSTERS,
    NO_FINDING,
    OBSERVATIONS,
    SUPPORT_DEVICES,
    LabelState,
    no_finding_state,
)
from core.studies.phantom.findings import LUNG_FINDINGS, Fact
from core.studies.phantom.pathology import lesion_radius

POSITIVE, NEGATIVE, UNCERTAIN = LabelState.POSITIVE, LabelState.NEGATIVE, LabelState.UNCERTAIN

Claim = tuple[str, LabelState]


@dataclass(frozen=True, slots=True)
class Statement:
    """One sentence and its truth.

    Attributes:
        section: "findings" or "impression".
        text: the sentence.
        claims: (observation, state) for each observation it speaks of; none for normal anatomy.
        facts: ids of the abnormalities it describes.
        modifiers: (observation, word) for each severity, side or site it names of a positive observation.
    """

    section: str
    text: str
    claims: tuple[Claim, ...]
    facts: tuple[str, ...] = ()
    modifiers: tuple[tuple[str, str], ...] = ()


PRESENT: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "[There is|Note is made of] {severity} [widening of the mediastinum|mediastinal widening].",
        "The [superior |upper |]mediastinum is {severity_ly} widened.",
        "{Severity} widening of the [superior |upper |]mediastinum is [seen|noted|present].",
        "The mediastinal contour is {severity_ly} enlarged.",
        "[Enlarged mediastinal contour|Widened mediastinum], {severity} in degree.",
    ),
    "Cardiomegaly": (
        "[There is|Note is made of] {severity} cardiomegaly.",
        "{Severity} cardiomegaly is [present|seen|noted].",
        "The heart is {severity_ly} enlarged.",
        "{Severity} [cardiac enlargement|enlargement of the heart] is [present|seen].",
        "The [heart size|cardiac silhouette] is {severity_ly} enlarged.",
    ),
    "Lung Opacity": (
        "[There is|Note is made of] {article_severity} hazy opacity in the {zone}.",
        "{Severity} [hazy|ill-defined|veil-like] opacity is [seen|present|noted] in the {zone}.",
        "[A|An ill-defined] hazy opacity of {severity} degree [is seen in|overlies|projects over] the {zone}.",
        "The {zone} shows {article_severity} ill-defined [ground-glass |]opacity.",
    ),
    "Lung Lesion": (
        "[There is|Note is made of] a {size} [round|rounded|well-defined] {lesion} in the {zone}.",
        "A {size} [round |well-circumscribed |]{lesion} [is seen in|projects over|is present in] the {zone}.",
        "{Size} {lesion} in the {zone}[, well circumscribed|, smoothly marginated|].",
        "A {lesion} in the {zone} measures [about|approximately] {centimetres} cm.",
    ),
    "Edema": (
        "[There is|Findings show] {severity} [pulmonary edema|interstitial pulmonary edema].",
        "{Severity} [bilateral |perihilar |]pulmonary edema is [present|seen|noted].",
        "{Severity} pulmonary vascular congestion [with|and] perihilar haze [is seen|is present].",
        "[The pulmonary vessels are engorged|Vessels are indistinct], in keeping with {severity} pulmonary edema.",
        "Perihilar haze [and septal lines are|with septal lines is] seen, consistent with {severity} edema.",
    ),
    "Consolidation": (
        "[There is|Note is made of] a {amount} [dense |]consolidation in the {lobe}.",
        "{Amount} [dense |lobar |]consolidation [is seen in|is present in|occupies] the {lobe}.",
        "The {lobe} shows a {amount} area of [dense |]consolidation[, with air bronchograms|].",
        "Air bronchograms are seen within a {amount} consolidation of the {lobe}.",
    ),
    "Pneumonia": (
        "[There is|Findings show] {severity} patchy pneumonia in the {zone}.",
        "[Patchy|Multifocal patchy|Fluffy] [opacities|infiltrates] in the {zone} are [consistent|compatible] with "
        "{severity} pneumonia.",
        "{Severity} multifocal pneumonia [is seen in|involves] the {zone}.",
        "[Scattered|Multiple] patchy [opacities|infiltrates] in the {zone} are typical of {severity} pneumonia.",
    ),
    "Atelectasis": (
        "[There is|Note is made of] {severity} [linear|plate-like|subsegmental|discoid] atelectasis {place}.",
        "{Severity} [linear |plate-like |subsegmental |]atelectasis is [seen|present|noted] {place}.",
        "[Linear|Plate-like|Horizontal] bands {place} [represent|are due to] {severity} atelectasis.",
    ),
    "Pneumothorax": (
        "[There is] a {amount} {side} pneumothorax.",
        "A {amount} {side} pneumothorax is [present|seen|noted][ with a visible pleural line|].",
        "{Amount} pneumothorax on the {side}[, with a visible pleural line|].",
        "A {amount} pneumothorax [outlines|separates] the {side} lung[ from the chest wall|].",
    ),
    "Pleural Effusion": (
        "[There is|Note is made of] a {amount} {side} pleural effusion.",
        "[A|The] {amount} {side} pleural effusion [is present|is seen|blunts the costophrenic angle].",
        "{Amount} [layering |]pleural effusion on the {side}.",
        "The {side} costophrenic angle is [obscured|blunted] by a {amount} pleural effusion.",
    ),
    "Pleural Other": (
        "[There is|Note is made of] {severity} {side} {rim} pleural thickening.",
        "{Severity} {side} {rim} pleural thickening is [present|seen|noted].",
        "{Severity} pleural thickening is [seen|present] at the {side} {rim_place}.",
    ),
    "Fracture": (
        "[There is|Note is made of] a {severity_ly} displaced fracture of the {side} {bone}.",
        "A {severity_ly} displaced {side} {bone_adjective} fracture is [seen|noted|present].",
        "Fracture of the {side} {bone} with {severity} displacement.",
        "Fracture of the {side} {bone}[,| is seen,] {severity_ly} displaced.",
    ),
}

PRESENT_BILATERAL: dict[str, tuple[str, ...]] = {
    "Pleural Effusion": (
        "[There are|Note is made of] {amount} {side} pleural effusions.",
        "{Amount} {side} pleural effusions [are present|are seen|blunt both costophrenic angles].",
        "{Amount} pleural effusions are [seen|noted] {side_ly}.",
        "Both costophrenic angles are [obscured|blunted] by {amount} {side} pleural effusions.",
    ),
}

DOUBTFUL: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": (
        "[Possible|Questionable] [slight |minimal |]widening of the mediastinum.",
        "[Slight|Minimal] mediastinal widening cannot be excluded.",
        "The mediastinum [may be|is possibly] [slightly|minimally] widened.",
    ),
    "Cardiomegaly": (
        "[Possible|Questionable] [borderline |minimal |]cardiomegaly.",
        "[Borderline|Minimal] cardiomegaly cannot be excluded.",
        "The heart [may be|is possibly] [slightly|minimally] enlarged.",
    ),
    "Lung Opacity": (
        "[Possible|Questionable] [faint|subtle] opacity in the {zone}.",
        "A [faint|subtle] hazy opacity in the {zone} cannot be excluded.",
        "There may be a [faint|subtle] opacity in the {zone}.",
    ),
    "Lung Lesion": (
        "[Possible|Questionable] [tiny|subtle] nodule in the {zone}.",
        "A [tiny|subtle] nodule in the {zone} cannot be excluded.",
        "There may be a [tiny|subtle] nodule in the {zone}.",
    ),
    "Edema": (
        "[Possible|Questionable] [minimal|early] pulmonary edema.",
        "[Minimal|Early] pulmonary edema cannot be excluded.",
        "There may be [minimal|early] pulmonary vascular congestion.",
    ),
    "Consolidation": (
        "[Possible|Questionable] [early|subtle] consolidation in the {lobe}.",
        "[Early|Subtle] consolidation in the {lobe} cannot be excluded.",
        "There may be [early|subtle] consolidation in the {lobe}.",
    ),
    "Pneumonia": (
        "[Possible|Questionable] [early|subtle] pneumonia in the {zone}.",
        "[Early|Subtle] [pneumonia|infectious process] in the {zone} cannot be excluded.",
        "Faint patchy density in the {zone} may represent [early |]pneumonia.",
    ),
    "Atelectasis": (
        "[Possible|Questionable] [minimal|subtle] atelectasis {place}.",
        "[Minimal|Subtle] atelectasis {place} cannot be excluded.",
        "A faint band {place} may represent [minimal |]atelectasis.",
    ),
    "Pneumothorax": (
        "[Possible|Questionable] [tiny|trace] {side} [apical |]pneumothorax.",
        "A [tiny|trace] {side} pneumothorax cannot be excluded.",
        "There may be a [tiny|trace] {side} [apical |]pneumothorax.",
    ),
    "Pleural Effusion": (
        "[Possible|Questionable] [trace|tiny] {side} pleural effusion.",
        "A [trace|tiny] {side} pleural effusion cannot be excluded.",
        "There may be a [trace|tiny] {side} pleural effusion.",
    ),
    "Pleural Other": (
        "[Possible|Questionable] [minimal|subtle] {side} {rim} pleural thickening.",
        "[Minimal|Subtle] {side} {rim} pleural thickening cannot be excluded.",
        "There may be [minimal|subtle] {side} {rim} pleural thickening.",
    ),
}

DEVICE: dict[str, tuple[str, ...]] = {
    "endotracheal tube": (
        "[An|The] endotracheal tube [ends|terminates] above the carina.",
        "Endotracheal tube [is in place|in standard position|tip is above the carina].",
    ),
    "central venous catheter": (
        "A {side} [central venous catheter|central line|internal jugular catheter] [ends|terminates] in the superior "
        "vena cava.",
        "{Side} [central venous catheter|central line] [is in place|tip is in the superior vena cava].",
    ),
    "pacemaker": (
        "A {side} [chest wall |]pacemaker [is in place|with two leads is seen|is present].",
        "{Side} dual-lead pacemaker [is in place|is seen|is noted].",
    ),
    "chest tube": (
        "A {side} chest tube is [in place|present|seen].",
        "{Side} [chest tube|thoracostomy tube] [is in place|projects over the upper chest].",
    ),
    "sternal wires": (
        "[Median sternotomy|Sternotomy|Sternal] wires are [intact|in place|seen|aligned].",
        "[Midline|Median] sternotomy wires are [noted|present].",
    ),
    "enteric tube": (
        "[An|The] enteric tube [passes|courses] below the diaphragm.",
        "[Nasogastric|Enteric] tube [ends|terminates] in the stomach.",
    ),
}

NORMAL_HEART = (
    "[The heart size is|Heart size is|The cardiac silhouette is] [normal|within normal limits|unremarkable].",
    "The heart is [normal in size|not enlarged].",
    "[The heart is of normal size|No cardiomegaly is seen].",
)
NORMAL_MEDIASTINUM = (
    "[The mediastinal contours are|Mediastinal contours are] [normal|unremarkable|within normal limits].",
    "The mediastinum is [normal|unremarkable|not widened].",
    "[No mediastinal widening is seen|There is no widening of the mediastinum].",
)
NORMAL_LUNGS = (
    "[The lungs are|Lungs are|Both lungs are] [clear|well expanded and clear|clear bilaterally].",
    "The lungs are [well aerated|well inflated][ and clear|].",
)
OTHERWISE_CLEAR = (
    "The [lungs|lung fields] are [otherwise clear|without focal abnormality].",
    "The remaining lung is [clear|well aerated].",
)
NORMAL_HILA = (
    "[The hila are|Hilar contours are|Both hila are] [normal|unremarkable].",
    "The [trachea is midline|airways are unremarkable].",
    "The pulmonary vasculature is [normal|unremarkable].",
)
NORMAL_BONES = (
    "[The osseous structures are|Bony structures are|The visualized bones are] [unremarkable|intact|grossly intact].",
    "[The upper abdomen is|Visualized upper abdomen is] [normal|unremarkable].",
    "The soft tissues are unremarkable.",
    "The aorta is [normal in caliber|unremarkable].",
)

# Observations that reports deny together, in the words they use for it.
DENIED = {
    "Pleural Effusion": ("pleural effusion", "effusion"),
    "Pneumothorax": ("pneumothorax",),
    "Consolidation": ("focal consolidation", "consolidation", "lobar consolidation"),
    "Pneumonia": ("pneumonia", "infectious process"),
    "Edema": ("pulmonary edema", "vascular congestion", "edema"),
    "Lung Lesion": ("nodule", "mass", "suspicious nodule"),
    "Fracture": ("acute fracture", "displaced fracture", "fracture"),
    "Pleural Other": ("pleural thickening",),
    "Atelectasis": ("atelectasis",),
    "Lung Opacity": ("focal opacity", "airspace opacity"),
}
DENIALS = (
    "No {things}[ is seen| is identified| is present| is evident|].",
    "There is no {things}.",
    "[There is no evidence of|No evidence of] {things}.",
    "[Negative for|The study is negative for] {things}.",
)

NOTHING = (
    "No acute cardiopulmonary [process|abnormality|disease|findings].",
    "[Normal chest radiograph|Normal chest|Unremarkable chest radiograph|Unremarkable study].",
    "No [radiographic |]evidence of acute [cardiopulmonary |intrathoracic |]disease.",
    "No acute intrathoracic [process|abnormality].",
)

_LY = {"mild": "mildly", "moderate": "moderately", "severe": "severely"}
_PLACES = (
    *("upper lobe", "middle lobe", "lower lobe", "lingula", "upper lung", "mid lung", "lower lung", "lung base"),
    *("apical", "lateral", "clavicle", "rib"),
)
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


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
    named += [place for place in _PLACES if re.search(rf"\b{place}\b", lower)]
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


NOUN: dict[str, tuple[str, ...]] = {
    "Enlarged Cardiomediastinum": ("{severity} mediastinal widening", "{severity} widening of the mediastinum"),
    "Cardiomegaly": ("{severity} cardiomegaly", "{severity} cardiac enlargement"),
    "Lung Opacity": ("{severity} {zone} opacity", "{severity} hazy opacity in the {zone}"),
    "Lung Lesion": ("{size} {lesion} in the {zone}", "{size} {zone} {lesion}"),
    "Edema": ("{severity} pulmonary edema", "{severity} pulmonary vascular congestion"),
    "Consolidation": ("{amount} {lobe} consolidation", "{amount} consolidation in the {lobe}"),
    "Pneumonia": ("{severity} {zone} pneumonia", "{severity} pneumonia in the {zone}"),
    "Atelectasis": ("{severity} atelectasis {place}", "{severity} {side} atelectasis"),
    "Pneumothorax": ("{amount} {side} pneumothorax",),
    "Pleural Effusion": ("{amount} {side} pleural effusion",),
    "Pleural Other": ("{severity} {side} {rim} pleural thickening", "{severity} {side} pleural thickening"),
    "Fracture": ("{severity_ly} displaced {side} {bone_adjective} fracture",),
    SUPPORT_DEVICES: ("{side} {kind} in place",),
}
_CLOSES = (".", ".", "[, as described|, as above].")
_HEDGES = ("possible {noun}", "questionable {noun}", "possible {noun}")
_GROUPS = (
    ("Pneumothorax", "Fracture"),
    ("Cardiomegaly", "Edema", "Pleural Effusion", "Enlarged Cardiomediastinum"),
    ("Consolidation", "Pneumonia", "Lung Opacity", "Lung Lesion", "Atelectasis", "Pleural Other"),
    (SUPPORT_DEVICES,),
)


def _noun(rng: np.random.Generator, fact: Fact) -> str:
    words = _words(rng, fact)
    words["kind"] = fact.kind
    if fact.state is UNCERTAIN:
        words |= dict.fromkeys(("severity", "severity_ly", "amount", "size"), "")
    noun = _expand(rng, _pick(rng, NOUN[fact.observation]).format_map(words))
    noun = noun.replace("effusion", "effusions") if fact.side == "bilateral" else noun
    noun = " ".join(noun.split())
    return _pick(rng, _HEDGES).format(noun=noun) if fact.state is UNCERTAIN else noun


def write_impression(rng: np.random.Generator, facts: Sequence[Fact]) -> tuple[Statement, ...]:
    """Write the impression: one to three sentences, related abnormalities in one."""
    groups = [[fact for fact in facts if fact.observation in names] for names in _GROUPS]
    devices = groups.pop()
    groups = [group for group in groups if group]
    said: list[Statement] = []
    for group in groups:
        nouns = [_noun(rng, fact) for fact in group]
        joint = nouns[0] if len(nouns) == 1 else ", ".join(nouns[:-1]) + " and " + nouns[-1]
        text = _sentence(joint + _expand(rng, _pick(rng, _CLOSES)))
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


def labels_of(statements: Sequence[Statement]) -> dict[str, LabelState]:
    """Gather what the sentences claim: positive wins over uncertain, uncertain over negative."""
    rank = {LabelState.BLANK: 0, NEGATIVE: 1, UNCERTAIN: 2, POSITIVE: 3}
    states = dict.fromkeys(OBSERVATIONS, LabelState.BLANK)
    for statement in statements:
        for name, state in statement.claims:
            if rank[state] > rank[states[name]]:
                states[name] = state
    states[NO_FINDING] = no_finding_state(states)
    return states


def fine_labels_of(statements: Sequence[Statement]) -> tuple[str, ...]:
    """List "modifier observation" of what the sentences call present; the bare observation where none is named."""
    modified = {f"{word} {name}".lower() for s in statements for name, word in s.modifiers}
    with_modifier = {name for s in statements for name, _ in s.modifiers}
    bare = {
        name.lower()
        for s in statements
        for name, state in s.claims
        if state is POSITIVE and name not in with_modifier and name != NO_FINDING
    }
    return tuple(sorted(modified | bare))


def cluster_texts_of(statements: Sequence[Statement]) -> Mapping[str, str]:
    """Sort an impression's sentences into clusters; a sentence about several belongs to each."""
    texts: dict[str, list[str]] = {}
    for statement in statements:
        for cluster in dict.fromkeys(CLUSTER_OF[name] for name, _ in statement.claims):
            texts.setdefault(cluster, []).append(statement.text)
    return {cluster: " ".join(texts[cluster]) for cluster in CLUSTERS if cluster in texts}
