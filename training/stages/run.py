"""One run of a preset: what every stage is given. Stages are functions of it, a file each beside this one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.config import ExperimentConfig, identity
from training.data import StudyData
from training.launch import ONE, Placement


@dataclass(frozen=True)
class Run:
    """One run of a preset.

    Attributes:
        config: the preset with its changes.
        folder: a folder a stage in it.
        placement: processes and their devices.
        shared: folder of the images, where several runs have the same; else the run's own.
    """

    config: ExperimentConfig
    folder: Path
    placement: Placement = ONE
    shared: Path | None = None

    @cached_property
    def data(self) -> StudyData:
        """Studies and images."""
        return StudyData(self.config.data, (self.shared or self.folder) / "images")

    @cached_property
    def backbone_data(self) -> StudyData:
        """What the backbone learns from: the run's own data, or phantoms of which none is in them."""
        settings = self.config.backbone
        if settings.source == "train":
            return self.data
        chosen = replace(self.config.data, source="phantom", count=settings.count, seed=settings.seed)
        return StudyData(chosen, (self.shared or self.folder) / "backbone_images")

    @cached_property
    def backbone_key(self) -> str | None:
        """Of the backbone that encoders start from, trained if it is not yet; None where the preset has none."""
        from training.stages.backbone import backbone

        return backbone(self) if self.config.backbone.source != "none" else None

    def inputs(self, *, starts_from_backbone: bool = True, **parts: Any) -> dict[str, Any]:
        """What decides a stage's result: the preset's size and seed, data, backbone, and the stage's own parts."""
        plain = {
            key: identity(value) if hasattr(value, "__dataclass_fields__") else value for key, value in parts.items()
        }
        common: dict[str, Any] = {
            "size": self.config.size,
            "seed": self.config.seed,
            "pretrained": self.config.pretrained,
        }
        if starts_from_backbone and self.backbone_key is not None:
            common["backbone"] = self.backbone_key
        return {**common, "data": self.data.fingerprint(), **plain}
