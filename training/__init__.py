"""The stages one can run, their presets and the command line."""

import core as core  # refuses a Python that is too old, before anything else can fail
