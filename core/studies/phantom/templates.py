"""Sentences that reports are made of: templates by observation, and what is said where there is nothing.

A template has choices "[a|b|]", one of which is taken, and slots "{severity}", "{side}", "{site}", "{amount}".
"""

from __future__ import annotations

from core.observations import SUPPORT_DEVICES

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
CLOSES = (".", ".", "[, as described|, as above].")
HEDGES = ("possible {noun}", "questionable {noun}", "possible {noun}")
