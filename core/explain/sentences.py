"""A sentence that names a finding and its side, for questions about findings that a report does not name."""

from __future__ import annotations

from collections.abc import Mapping

from core.types import CXRLensError, Mask

_ONE_SIDED = 0.75
"""Share of a finding's area on one side of the image from which on it is a finding of that side; ours."""

_SENTENCES: Mapping[str, tuple[str, str]] = {
    "Enlarged Cardiomediastinum": ("", "the mediastinum is widened ."),
    "Cardiomegaly": ("", "the heart is enlarged ."),
    "Lung Opacity": ("there is an opacity in the {side} lung .", "there are opacities in both lungs ."),
    "Lung Lesion": ("there is a {lesion} in the {side} lung .", "there is a {lesion} in both lungs ."),
    "Edema": ("", "there is pulmonary edema ."),
    "Consolidation": ("there is consolidation in the {side} lung .", "there is consolidation in both lungs ."),
    "Pneumonia": ("there is pneumonia in the {side} lung .", "there is pneumonia in both lungs ."),
    "Atelectasis": ("there is atelectasis in the {side} lung .", "there is atelectasis in both lungs ."),
    "Pneumothorax": ("there is a {side} pneumothorax .", "there is a pneumothorax ."),
    "Pleural Effusion": ("there is a {side} pleural effusion .", "there are bilateral pleural effusions ."),
    "Pleural Other": ("there is {side} pleural thickening .", "there is pleural thickening ."),
    "Fracture": ("there is a {side} rib fracture .", "there is a rib fracture ."),
}
"""Of each observation that has a place: with the patient's side, and without; "" where no side is said of it."""


def side_of(mask: Mask) -> str:
    """The patient's side on which most of a mask (H, W) lies, "left" or "right"; "" where it lies on both.

    The patient's left is on the right of a frontal image.
    """
    width = mask.shape[1]
    on_the_right_of_the_image = float(mask[:, (width + 1) // 2 :].sum())
    share = on_the_right_of_the_image / max(float(mask.sum()), 1.0)
    return "left" if share >= _ONE_SIDED else "right" if share <= 1 - _ONE_SIDED else ""


def says_side(observation: str) -> bool:
    """Whether sentences about an observation name its side."""
    return bool(_SENTENCES.get(observation, ("", ""))[0])


def finding_sentence(observation: str, side: str = "", finding: str = "") -> str:
    """A plain sentence that asserts a finding: "there is a left pleural effusion .".

    Args:
        observation: one of the 14.
        side: the patient's, "left" or "right"; "" for both, or where it is not known.
        finding: as the source names it; a lesion that it calls a mass is called so.

    Raises:
        CXRLensError: the observation has no place, as "No Finding".
    """
    if observation not in _SENTENCES:
        raise CXRLensError(f"'{observation}' has no place in the image, so no sentence asks for one.")
    sided, plain = _SENTENCES[observation]
    lesion = "mass" if "mass" in finding.lower() else "nodule"
    return (sided if side and sided else plain).format(side=side, lesion=lesion)
