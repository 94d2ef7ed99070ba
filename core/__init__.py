"""The engine, room by room along the way of the data: studies and reports in, reports with explanations out."""

import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036, who runs a clone was not checked by an installer
    sys.exit(f"CXR Lens needs Python 3.11 or newer; this is {sys.version.split()[0]}. Install a newer Python.")
