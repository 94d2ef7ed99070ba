"""One run of a preset: what every stage is given. Stages are functions of it, a file each beside this one."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from core.config import ExperimentConfig, identity
from core.studies.index import ReleaseError, open_index
from training.console import note
from training.data import Kind, StudyData
from training.identity import stage_identity
from training.launch import ONE, Placement
from training.run_folder import Done, StageError
from training.taught import Taught

_NONE = {
    "impressions": "no training study with an impression and no findings. R2Gen's split of Open-i leaves these out: "
    "make the index with --split r2gen+.",
    "laterals": "no lateral image among its training studies.",
}


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
    def taught(self) -> Taught:
        """What classifiers and CLIP learn from: the run's own data, and where asked for studies without findings."""
        return Taught(self.data, self._more("impressions") if self.config.data.impressions else ())

    @cached_property
    def backbone_taught(self) -> Taught:
        """What the backbone learns from: as `taught`, and lateral images where asked for; or phantoms."""
        if self.config.backbone.source != "train":
            return Taught(self.backbone_data)
        laterals = self._more("laterals") if self.config.backbone.laterals else ()
        return replace(self.taught, more=(*self.taught.more, *laterals))

    def _more(self, kind: Kind) -> tuple[StudyData, ...]:
        found = StudyData(self.config.data, (self.shared or self.folder) / f"images_{kind}", kind)
        if found.studies["train"]:
            return (found,)
        note(f"  {self.config.data.folder} has {_NONE[kind]}")
        return ()

    @cached_property
    def before_data(self) -> StudyData:
        """What the backbone learns from first.

        Raises:
            StageError: it is not there.
        """
        folder = self.config.backbone.before_folder
        try:
            labels = open_index(Path(folder)).told.labels
        except ReleaseError as error:
            raise StageError(
                f"backbone.before: {error} docs/training.md names the command for ChestX-ray14; without such a "
                "collection: --set backbone.before=none."
            ) from error
        chosen = replace(
            self.config.data,
            source="table",
            folder=folder,
            views="frontal",
            labels=labels,  # type: ignore[arg-type]
            impressions=False,
        )
        return StudyData(chosen, (self.shared or self.folder) / "backbone_before_images", "labels")

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
