"""What a user of reviews may be."""

from typing import Literal

Role = Literal["reader", "researcher", "admin"]
"""From whom may do least to whom may do most."""
