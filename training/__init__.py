"""Presets in, trained pairs and the paper's tables out; and the command line."""

import core as core  # refuses a Python that is too old, before anything else can fail
