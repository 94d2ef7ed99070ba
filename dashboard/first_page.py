"""In: the app has run once for somebody. Out: what waited for that, to leave the processor to it, goes on."""

from __future__ import annotations

import threading

SHOWN = threading.Event()
