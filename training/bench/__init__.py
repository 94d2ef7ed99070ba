"""Measurements: of speed, each a ratio against a baseline of the same run (``make bench``); of intervals' coverage."""
