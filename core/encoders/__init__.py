"""Radiographs in, visual tokens out: DVE, FVE, CVE, CCVE, and several of them jointly."""

from core.encoders.base import Encoder, build_encoder

__all__ = ["Encoder", "build_encoder"]
