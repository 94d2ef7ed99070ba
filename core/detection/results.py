"""What was measured of detection, on disk: one JSON file a design, with all that decided it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from core.detection.curves import Curve, Threshold
from core.detection.study import Detection, Mirror, Point, SystemDetection
from core.files import write_whole
from core.studies.phantom.graded import GRADED, GradedFilms, parse_films
from core.types import CXRLensError

SCHEMA = 1
FILE = "detection.json"
RESEARCH = "Research only. Not a medical device. Drawn findings: they do not show what a system reports of a patient."


@dataclass(frozen=True, slots=True)
class RealFilms:
    """The real films that a finding was drawn into.

    Attributes:
        title: of their source, for a reader.
        fingerprint: of the images of their source.
    """

    title: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class DetectionResult:
    """What a file holds.

    Attributes:
        design: the films.
        fingerprint: of the films.
        systems: by name.
        seed: of the intervals.
        resamples: for intervals.
        told: package versions, hashes of the reports and the command.
        real: the real films that the finding was drawn into; None of synthetic chests.
    """

    design: GradedFilms
    fingerprint: str
    systems: Mapping[str, SystemDetection]
    seed: int
    resamples: int
    told: Mapping[str, Any]
    real: RealFilms | None = None

    @property
    def title(self) -> str:
        """For a reader: "Pneumothorax", "Pneumothorax in real films (Open-i)"."""
        return f"{self.design.finding} in real films ({self.real.title})" if self.real else self.design.finding


def write_result(path: Path, result: DetectionResult) -> None:
    """Write a result whole."""
    content = {
        "schema": SCHEMA,
        "intended_use": RESEARCH,
        "films": result.design.spec,
        "fingerprint": result.fingerprint,
        **({"real_films": asdict(result.real)} if result.real else {}),
        "extents": list(result.design.extents),
        "seed": result.seed,
        "resamples": result.resamples,
        **result.told,
        "systems": {name: asdict(each) for name, each in result.systems.items()},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, json.dumps(content, indent=1) + "\n", private=False)


def read_result(path: Path) -> DetectionResult:
    """Read a result.

    Raises:
        CXRLensError: it is missing, damaged, or of another version.
    """
    from core import schemas  # brings pydantic, which takes a while

    try:
        content = schemas.read_json(path)
        if isinstance(content, dict) and content.get("schema", SCHEMA) != SCHEMA:
            raise CXRLensError(f"{path} has another schema; this version reads {SCHEMA}. Measure again.")
        schemas.check(content, schemas.Detection)
        told = {key: content[key] for key in ("versions", "reports", "command") if key in content}
        systems = {name: _system(each) for name, each in content["systems"].items()}
        films = str(content["films"]).removeprefix(GRADED)
        real = RealFilms(**content["real_films"]) if content.get("real_films") else None
        seed, resamples = int(content["seed"]), int(content["resamples"])
        return DetectionResult(parse_films(films), content["fingerprint"], systems, seed, resamples, told, real)
    except OSError as error:
        raise CXRLensError(f"{path} cannot be read ({error.strerror}). `cxr-lens detect` writes it.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CXRLensError(f"{path} is damaged ({error!s:.200}). Measure again: cxr-lens detect.") from error


def _system(content: Mapping[str, Any]) -> SystemDetection:
    low, high = content["false_alarm_interval"]
    return SystemDetection(
        int(content["false_alarms"]),
        int(content["normals"]),
        (float(low), float(high)),
        tuple(
            Detection(
                each["side"],
                each["site"],
                tuple(Point(**point) for point in each["points"]),
                Curve(**each["curve"]),
                Threshold(**each["half"]),
            )
            for each in content["detections"]
        ),
        tuple(Mirror(**each) for each in content["mirrors"]),
    )
