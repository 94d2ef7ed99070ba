"""The engine, room by room along the way of the data: studies and reports in, reports with explanations out."""

import os
import sys

__version__ = "0.1.0"

if sys.version_info < (3, 11):  # noqa: UP036, who runs a clone was not checked by an installer
    sys.exit(f"CXR Lens needs Python 3.11 or newer; this is {sys.version.split()[0]}. Install a newer Python.")

# Read when torch is imported. Threads that wait for work give their core away instead of spinning on it: beside other
# work on the same cores, spinning makes small models several times slower (`make bench PARTS=beside`).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
