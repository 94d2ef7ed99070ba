"""Effects that a rehearsal is given, so that it can be seen whether the session's figures find them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.evaluation.resampling import FloatArray
from core.reviews.questions import CANNOT_JUDGE, NONE, ReviewError, Rubric

_PARTS = ("seed", "systems", "seconds", "answers")


@dataclass(frozen=True, slots=True)
class Planted:
    """What is true of the systems of a rehearsal; what is not said is drawn from its seed.

    Attributes:
        systems: how many times as many errors as usual a system makes.
        seconds: how many times as long as usual a report of a system takes to read.
        answers: by question and system the share of each answer; of questions with a scale, a choice or a confidence.
    """

    systems: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    answers: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)

    def shares(self, question: str, models: Iterable[str], steps: Sequence[str | int]) -> FloatArray | None:
        """Share of each of some answers, of a screen with one report; None where nothing is said of it."""
        import numpy as np

        of_models = [self.answers.get(question, {}).get(model) for model in models]
        if len(of_models) != 1 or of_models[0] is None:
            return None
        found = np.array([of_models[0].get(str(step), 0.0) for step in steps], np.float64)
        return found / found.sum()

    def check(self, systems: Iterable[str], rubric: Rubric) -> None:
        """Refuse effects of systems, questions or answers that a design does not have.

        Raises:
            ReviewError: which.
        """
        known = set(systems)
        named = {*self.systems, *self.seconds, *(name for of in self.answers.values() for name in of)}
        if unknown := sorted(named - known):
            raise ReviewError(f"rehearsal: the design has no {', '.join(unknown)}; it has {', '.join(sorted(known))}.")
        for name, of_systems in self.answers.items():
            question = rubric.find(name)
            answers = [str(each) for each in question.answers() if each not in (CANNOT_JUDGE, NONE)]
            if question.kind not in ("scale", "choice", "confidence"):
                raise ReviewError(f"rehearsal.answers.{name}: shares are of a scale, a choice or a confidence.")
            for system, shares in of_systems.items():
                where = f"rehearsal.answers.{name}.{system}"
                if unknown := sorted(set(shares) - set(answers)):
                    raise ReviewError(f"{where}: {', '.join(unknown)} is no answer; there are {', '.join(answers)}.")
                if not math.isclose(sum(shares.values()), 1, abs_tol=0.005):
                    raise ReviewError(f"{where}: the shares add up to {sum(shares.values()):g}, not to 1.")


NOTHING_PLANTED = Planted()


def read_planted(values: Mapping[str, Any]) -> tuple[int, Planted]:
    """The seed of a rehearsal and its effects, from the values of a TOML file.

    Raises:
        ReviewError: an unknown part, or something that is no number.
    """
    if unknown := sorted(set(values) - set(_PARTS)):
        raise ReviewError(f"rehearsal: {', '.join(unknown)} is unknown; there are {', '.join(_PARTS)}.")
    seed = values.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise ReviewError("rehearsal.seed: a whole number from 0.")
    factors = {part: _numbers(values.get(part, {}), f"rehearsal.{part}") for part in ("systems", "seconds")}
    for part, numbers in factors.items():
        if any(number == 0 for number in numbers.values()):
            raise ReviewError(f"rehearsal.{part}: a factor is above 0.")
    answers = {
        str(question): {
            str(system): _numbers(shares, f"rehearsal.answers.{question}.{system}")
            for system, shares in _table(of_systems, f"rehearsal.answers.{question}").items()
        }
        for question, of_systems in _table(values.get("answers", {}), "rehearsal.answers").items()
    }
    return seed, Planted(factors["systems"], factors["seconds"], answers)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ReviewError(f"{where}: a table is expected.")
    return value


def _numbers(value: Any, where: str) -> dict[str, float]:
    found = {}
    for name, number in _table(value, where).items():
        if type(number) not in (int, float) or not (math.isfinite(number) and number >= 0):
            raise ReviewError(f"{where}.{name}: a number from 0 is expected.")
        found[str(name)] = float(number)
    return found
