"""How far to trust an explanation: the verdict of what was measured of it, with the sign that fits."""

from __future__ import annotations

from core.explain.measured import Measured

_SIGNS = {
    "better": ":material/verified:",
    "usual": ":material/rule:",
    "unproven": ":material/help:",
    "worse": ":material/block:",
}


def verdict(found: Measured | None, unmeasured: str) -> tuple[str, str]:
    """Sign and sentence of what was measured; ``unmeasured`` is the sentence where nothing was."""
    return (_SIGNS["unproven"], unmeasured) if found is None else (_SIGNS[found.trust], found.verdict)
