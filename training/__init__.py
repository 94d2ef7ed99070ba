"""The stages one can run, their presets and the command line."""
