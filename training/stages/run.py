"""One run of a preset: what every stage is given. Stages are functions of it, a file each beside this one."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.config import ExperimentConfig, identity
from training.data import StudyData
from training.identity import stage_identity
from training.launch import ONE, Placement
from training.run_folder import Done


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
    def backbone(self) -> Done:
        """The backbone that encoders start from, trained if it is not yet; empty where the preset has none."""
        from training.stages.backbone import backbone

        return backbone(self) if self.config.backbone.source != "none" else {}

    def augmentation(self, used: bool) -> dict[str, Any]:
        """What an identity says of the augmentation: nothing where it is not used, or is as it was at first."""
        changes = identity(self.config.augment) if used else {}
        return {"augment": changes} if changes else {}

    def identity(self, stage: str, *, after: Done | None = None, **parts: Any) -> dict[str, Any]:
        """What decides the result of a stage, as plain values: see `training.identity`.

        Args:
            stage: its kind.
            after: the stages that it stands on; None is the backbone.
            parts: of the preset, and what else the stage depends on. A number that is at its default is left out.
        """
        return stage_identity(
            stage,
            size=self.config.size,
            seed=self.config.seed,
            pretrained=self.config.pretrained,
            data=self.data.identity(),
            after=dict(self.backbone if after is None else after),
            **{key: identity(value) if is_dataclass(value) else value for key, value in parts.items()},
        )
