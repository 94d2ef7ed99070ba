"""Presets in, trained pairs and the paper's tables out; and the command line."""
