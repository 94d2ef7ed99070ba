"""Which library decodes which compressed DICOM file.

One library a transfer syntax, whatever else is installed. pydicom tries every library that it finds, in an order of its
own: then the grey levels of a lossy image hang on what else is in the environment, and GDCM, its first choice, ends the
process on a damaged lossless JPEG. ``docs/dependencies.md`` says which licences these have, and which others were left
out.
"""

from __future__ import annotations

from imagecodecs import jpeg8_decode, jpegls_decode
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
    JPEGLSTransferSyntaxes,
    RLELossless,
)

_OURS = "imagecodecs"
"""Our plug-in below: libjpeg-turbo 3, which reads lossy and lossless JPEG of 2 to 16 bits, and CharLS for JPEG-LS."""

DECODERS: dict[UID, str] = {
    JPEGBaseline8Bit: "pillow",
    JPEGExtended12Bit: _OURS,
    JPEGLossless: _OURS,
    JPEGLosslessSV1: _OURS,
    JPEGLSLossless: _OURS,
    JPEGLSNearLossless: _OURS,
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


def decode(codestream: bytes, runner: DecodeRunner) -> bytes:
    """Decode a frame as pydicom's plug-ins do.

    Args:
        codestream: JPEG or JPEG-LS. Its size must be known to be harmless.
        runner: what the file's header says of it.

    Returns:
        the samples, as wide as the runner then says, the colours of a pixel side by side and not converted.

    Raises:
        ValueError: the samples have more bits than the header has room for.
        imagecodecs.Jpeg8Error, imagecodecs.JpeglsError: the codestream is damaged.
    """
    if runner.transfer_syntax in JPEGLSTransferSyntaxes:
        samples = jpegls_decode(codestream)
    elif runner.samples_per_pixel == 3:
        colours = "YCBCR" if runner.photometric_interpretation.startswith("YBR") else "RGB"
        samples = jpeg8_decode(codestream, colorspace=colours, outcolorspace=colours)
    else:
        samples = jpeg8_decode(codestream)
    bits = 8 * samples.itemsize
    if bits > runner.bits_allocated:
        raise ValueError("the samples have more bits than the header has room for")
    runner.set_option("bits_allocated", bits)
    if runner.samples_per_pixel > 1:
        runner.set_option("planar_configuration", 0)
    return samples.tobytes()


for _syntax, _name in DECODERS.items():
    # A module that is imported anew, as Streamlit does with changed ones, finds its plug-in in place.
    if _name == _OURS and _OURS not in (_decoder := get_decoder(_syntax)).available_plugins:
        _decoder.add_plugin(_OURS, (__name__, decode.__name__))
