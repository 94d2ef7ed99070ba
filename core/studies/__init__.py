"""Where studies come from; every source has the interface of ``core.types.StudySource``."""
