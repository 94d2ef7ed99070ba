"""Which library decodes which compressed DICOM file.

One library a transfer syntax, whatever else is installed. pydicom tries every library that it finds, in an order of its
own: then the grey levels of a lossy image hang on what else is in the environment, and GDCM, its first choice, ends the
process on a damaged lossless JPEG (:func:`tests.test_images.test_damage_gives_an_image_or_an_image_error` tries such
files). All of these have licences that an Apache-2.0 product may depend on: ``docs/dependencies.md``.
"""

from __future__ import annotations

import numpy as np
from imagecodecs import jpeg8_decode
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

_OURS = "imagecodecs"
"""Our plug-in below: libjpeg-turbo 3, which reads JPEG of 2 to 16 bits, lossy and lossless."""

DECODERS: dict[UID, str] = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: _OURS,
    JPEGLossless: _OURS,
    JPEGLosslessSV1: _OURS,
    JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
    JPEG2000Lossless: "pylibjpeg",
    JPEG2000: "pylibjpeg",
    HTJ2KLossless: "pylibjpeg",
    HTJ2KLosslessRPCL: "pylibjpeg",
    HTJ2K: "pylibjpeg",
    RLELossless: "pydicom",
}
"""pydicom's name of the plug-in that decodes a transfer syntax; one that is not compressed needs none."""


def is_available(uid: str) -> bool:
    """Part of pydicom's protocol of plug-ins: whether this one decodes a transfer syntax."""
    return DECODERS.get(UID(uid)) == _OURS


def decode_jpeg(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame as pydicom's plug-ins do.

    Args:
        codestream: a JPEG image, lossy or lossless. Its size must be known to be harmless.
        runner: what the file's header says of it.

    Returns:
        the samples, little endian, as wide as the header says, colours of one pixel side by side and not converted.

    Raises:
        ValueError: the samples have more bits than the header has room for.
        imagecodecs.Jpeg8Error: the codestream is damaged.
    """
    colours = "YCBCR" if runner.photometric_interpretation.startswith("YBR") else "RGB"
    kept = {"colorspace": colours, "outcolorspace": colours} if runner.samples_per_pixel == 3 else {}
    samples = jpeg8_decode(codestream, **kept)
    room = np.dtype(f"<u{runner.bits_allocated // 8}")
    if samples.itemsize > room.itemsize:
        raise ValueError("the samples have more bits than the header allocates")
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    return samples.astype(room).tobytes()


for _syntax, _name in DECODERS.items():
    # A module that is imported anew, as Streamlit does with changed ones, finds its plug-in in place.
    if _name == _OURS and _OURS not in (_decoder := get_decoder(_syntax)).available_plugins:
        _decoder.add_plugin(_OURS, (__name__, decode_jpeg.__name__))
