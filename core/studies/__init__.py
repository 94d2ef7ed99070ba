"""Releases, files and phantoms in, studies with images out, all through ``core.types.StudySource``."""
