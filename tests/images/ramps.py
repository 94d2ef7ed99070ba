"""Ramps of grey as Pillow and pydicom write them: every value of the image is known."""

import io
import struct

import numpy as np
import pydicom
from imagecodecs import jpegls_encode
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

RAMP = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)  # 0 ... 4095: every 12-bit value once


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def gray_ramp(height: int = 64, width: int = 64) -> np.ndarray:
    return np.linspace(0, 255, height * width).reshape(height, width).astype(np.uint8)


def dicom(
    stored: np.ndarray = RAMP,
    *,
    bits: int = 12,
    syntax: UID = ExplicitVRLittleEndian,
    encapsulated: bytes | None = None,
    **tags: object,
) -> bytes:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "Secret^Person"
    dataset.Modality = "DX"
    dataset.Rows, dataset.Columns = stored.shape[-2:] if stored.shape[-1] != 3 else stored.shape[-3:-1]
    dataset.SamplesPerPixel = 3 if stored.shape[-1] == 3 else 1
    if dataset.SamplesPerPixel == 3:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = "RGB" if dataset.SamplesPerPixel == 3 else "MONOCHROME2"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if encapsulated is not None:
        dataset.PixelData = encapsulate([encapsulated])
        dataset["PixelData"].VR = "OB"
    elif syntax == RLELossless:
        dataset.PixelData = b""
    else:
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OB" if dataset.BitsAllocated == 8 else "OW"
    for name, value in tags.items():
        if value is None:
            if name in dataset:
                del dataset[name]
        else:
            setattr(dataset, name, value)
    if syntax == RLELossless:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.PixelData = stored.tobytes()
        dataset["PixelData"].VR = "OW"
        dataset.compress(RLELossless)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def windowed(stored: np.ndarray = RAMP, **tags: object) -> bytes:
    return dicom(stored, **({"WindowCenter": 2048, "WindowWidth": 4096} | tags))


def lossless_jpeg(stored: np.ndarray, bits: int) -> bytes:
    """Encode as JPEG Lossless, process 14, selection value 1 (ITU-T T.81 annex H): differences to the left."""
    height, width = stored.shape
    values = stored.astype(np.int64)
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 2 ** (bits - 1)
    stream = []
    for difference in ((values - predicted + 2**15) % 2**16 - 2**15).ravel().tolist():
        category = 16 if difference == -(2**15) else abs(difference).bit_length()
        stream.append(f"{category:05b}")  # 17 categories, each with a code of 5 bits
        if 0 < category < 16:
            stream.append(f"{difference if difference > 0 else difference + 2**category - 1:0{category}b}")
    text = "".join(stream)
    text += "1" * (-len(text) % 8)
    coded = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = struct.pack(">BHHBBBB", bits, height, width, 1, 1, 0x11, 0)
    codes = bytes([0, *(17 if length == 5 else 0 for length in range(1, 17)), *range(17)])
    scan = bytes([1, 1, 0, 1, 0, 0])

    def segment(marker: int, body: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body

    return b"\xff\xd8" + segment(0xC3, frame) + segment(0xC4, codes) + segment(0xDA, scan) + coded + b"\xff\xd9"


LOSSLESS = (RLELossless, JPEG2000Lossless, JPEGLSLossless, JPEGLosslessSV1)


def compressed(data: bytes, syntax: UID) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(data))
    if syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax)
    else:
        bits = dataset.pixel_array.view(f"u{dataset.BitsAllocated // 8}")
        if syntax == JPEGLosslessSV1:
            stream = lossless_jpeg(bits & (2**dataset.BitsStored - 1), dataset.BitsStored)
        else:
            stream = jpegls_encode(bits)
        dataset.PixelData = encapsulate([stream])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


J2K = encode(Image.fromarray(RAMP), "JPEG2000", no_jp2=True)
