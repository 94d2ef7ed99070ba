"""DICOM files are read to known numbers; what they may say beyond that is in the corpus of test_image_corpus."""

import hashlib
import io
import struct

import numpy as np
import pydicom
import pytest
from imagecodecs import jpeg8_encode
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from core.studies.dicom_codecs import DECODERS
from core.studies.images import read_image
from tests import needs
from tests.images.ramps import LOSSLESS, RAMP, compressed, dicom, encode, gray_ramp, windowed

# --- DICOM ---


def test_dicom_window_over_all_values_is_the_stored_value() -> None:
    radiograph = read_image(windowed(ViewPosition="PA", PixelSpacing=[0.2, 0.1], ImagerPixelSpacing=[9, 9]))
    np.testing.assert_allclose(radiograph.pixels, RAMP / 4095, atol=1e-6)
    assert (radiograph.bits, radiograph.format, radiograph.view) == (12, "DICOM", "PA")
    assert radiograph.pixel_spacing == (0.2, 0.1)
    assert radiograph.warnings == ()


def test_window_worked_out_by_hand() -> None:
    # DICOM PS3.3 C.11.2.1.2, center 100, width 101: black up to 49.5, white from 149.5, half way at 99.5
    stored = RAMP % 200
    pixels = read_image(windowed(stored, WindowCenter=[100, 7], WindowWidth=[101, 9])).pixels.ravel()
    np.testing.assert_allclose(pixels[[0, 49, 99, 100, 150, 199]], [0, 0, 0.495, 0.505, 1, 1], atol=1e-6)
    data = windowed(stored, WindowCenter=100, WindowWidth=100, VOILUTFunction="LINEAR_EXACT")
    exact = read_image(data).pixels.ravel()
    np.testing.assert_allclose(exact[[50, 75, 100, 150]], [0, 0.25, 0.5, 1], atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_agrees_with_pydicom(function: str) -> None:
    data = windowed(WindowCenter=1800, WindowWidth=2700, VOILUTFunction=function)
    reference = apply_windowing(RAMP, pydicom.dcmread(io.BytesIO(data)))
    np.testing.assert_allclose(read_image(data).pixels, reference / 4095, atol=1e-5)


@pytest.mark.parametrize("photometric", ["MONOCHROME2", "MONOCHROME1"])
def test_the_files_own_values_are_kept_beyond_its_window(photometric: str) -> None:
    """What the window makes black or white is still there: whoever widens it sees it."""
    data = windowed(
        WindowCenter=4000, WindowWidth=6000, RescaleSlope=2, RescaleIntercept=-50, PhotometricInterpretation=photometric
    )
    radiograph = read_image(data)
    grey = radiograph.grey
    assert grey is not None
    assert grey.window == (4000, 6000)
    assert grey.inverse == (photometric == "MONOCHROME1")
    np.testing.assert_array_equal(grey.first + grey.step * grey.levels.astype(float), 2.0 * RAMP - 50)
    # Drawn with its window, they are the picture that the models read, up to the standard's half step.
    drawn = ((grey.first + grey.step * grey.levels - 4000) / 6000 + 0.5).clip(0, 1)
    drawn = 1 - drawn if grey.inverse else drawn
    np.testing.assert_allclose(drawn, radiograph.pixels, atol=2e-4)


def test_values_in_fractions_of_large_range_are_kept_to_16_bits() -> None:
    data = windowed(RescaleSlope="0.37", RescaleIntercept="-7.5", WindowCenter=800, WindowWidth=1500)
    grey = read_image(data).grey
    assert grey is not None
    np.testing.assert_allclose(grey.first + grey.step * grey.levels, 0.37 * RAMP - 7.5, atol=0.02)


def test_padding_is_the_blackest_level_and_a_curve_is_no_window() -> None:
    stored = RAMP + 500
    stored[:10] = 60_000
    padded = dicom(stored, bits=16, PixelPaddingValue=60_000, WindowCenter=2500, WindowWidth=4000)
    grey = read_image(padded).grey
    assert grey is not None
    assert grey.levels[:10].max() == 0 == grey.levels.min()
    assert grey.first == 1140  # without padding
    assert read_image(windowed(WindowCenter=1800, WindowWidth=2700, VOILUTFunction="SIGMOID")).grey is None
    assert read_image(encode(Image.fromarray(gray_ramp()))).grey is None


def test_voi_table_goes_before_the_window_and_is_scaled_by_its_bits() -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4, 1000, 10])  # four entries, the first for 1000 and below, 10 bits
    table.add_new("LUTData", "US", [0, 100, 500, 1023])
    stored = RAMP % 4 + 1000
    stored[0, :2] = 0, 4000
    data = dicom(stored, VOILUTSequence=Sequence([table]), WindowCenter=1, WindowWidth=1)
    pixels = read_image(data).pixels.ravel()
    np.testing.assert_allclose(pixels[[0, 4, 5, 6, 7, 1]], np.array([0, 0, 100, 500, 1023, 1023]) / 1023)


def test_without_a_window_the_own_range_is_used_and_padding_is_black() -> None:
    stored = RAMP + 500
    stored[:10] = 60_000
    radiograph = read_image(dicom(stored, bits=16, PixelPaddingValue=60_000))
    assert radiograph.pixels[:10].max() == 0
    np.testing.assert_allclose(radiograph.pixels[10:], (RAMP[10:] - 640) / (4095 - 640), atol=1e-6)
    assert "no display window" in radiograph.warnings[0]
    inverse = read_image(dicom(stored, bits=16, PixelPaddingValue=60_000, PhotometricInterpretation="MONOCHROME1"))
    assert inverse.pixels[:10].max() == 0


def test_lossy_pixels_are_read() -> None:
    baseline = encode(Image.fromarray(gray_ramp()), "JPEG", quality=100)
    eight = {"bits": 8, "WindowCenter": 128, "WindowWidth": 256}
    data = dicom(gray_ramp(), syntax=JPEGBaseline8Bit, encapsulated=baseline, **eight)
    np.testing.assert_allclose(read_image(data).pixels, gray_ramp() / 255, atol=0.01)
    extended = jpeg8_encode(RAMP, level=100, bitspersample=12)
    data = windowed(syntax=JPEGExtended12Bit, encapsulated=extended)
    np.testing.assert_allclose(read_image(data).pixels, RAMP / 4095, atol=0.001)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, *LOSSLESS])
def test_every_depth_is_read_in_every_lossless_coding(bits: int, signed: bool, syntax: UID) -> None:
    levels = 2**bits
    stored = np.round(np.linspace(0, levels - 1, 64 * 64)).reshape(64, 64)
    expected = stored / (levels - 1)
    low = levels // 2 if signed else 0
    kind = "i" if signed else "u"
    data = dicom(
        (stored - low).astype(f"{kind}{1 if bits == 8 else 2}"),
        bits=bits,
        WindowCenter=levels // 2 - low,
        WindowWidth=levels,
    )
    if syntax == ImplicitVRLittleEndian:
        dataset = pydicom.dcmread(io.BytesIO(data))
        dataset.file_meta.TransferSyntaxUID = syntax
        buffer = io.BytesIO()
        pydicom.dcmwrite(buffer, dataset, implicit_vr=True, little_endian=True)
        data = buffer.getvalue()
    elif syntax in LOSSLESS:
        data = compressed(data, syntax)
    radiograph = read_image(data)
    assert radiograph.bits == bits
    np.testing.assert_allclose(radiograph.pixels, expected, atol=1e-6)


def test_every_coding_that_pydicom_knows_has_one_decoder_whatever_else_is_installed(monkeypatch) -> None:
    known = {uid: decoder for uid, (decoder, _) in _PIXEL_DATA_DECODERS.items() if uid.is_encapsulated}
    assert set(DECODERS) == set(known)
    files = [compressed(windowed(), syntax) for syntax in LOSSLESS]
    for uid, name in DECODERS.items():
        assert name in known[uid].available_plugins
        another = {"another": lambda *_: pytest.fail("another decoder was asked")}
        monkeypatch.setattr(known[uid], "_available", another | known[uid]._available)
    for data in files:
        np.testing.assert_array_equal(read_image(data).pixels, read_image(windowed()).pixels)


def published(name: str) -> bytes:
    """A file of pydicom's own tests, made by other programs, called a radiograph."""
    path = get_testdata_file(name, download=False)
    if path is None:
        needs.DICOM_FILES.skip()
    dataset = pydicom.dcmread(str(path))
    dataset.Modality, dataset.BodyPartExamined = "DX", "CHEST"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name", ["MR_small_jpeg_ls_lossless.dcm", "MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "MR_small_bigendian.dcm"]
)
def test_files_coded_by_other_programs_equal_the_uncoded_one(name: str) -> None:
    assert read_image(published(name)).sha256 == read_image(published("MR_small.dcm")).sha256


def test_colours_of_a_lossless_jpeg_are_kept() -> None:
    # GDCM wrote it, from a picture of colour bars in RGB; pydicom has the same one uncoded.
    assert read_image(published("SC_rgb_jpeg_gdcm.dcm")).sha256 == read_image(published("SC_rgb_rle.dcm")).sha256


def test_lossy_codings_of_one_picture_by_other_programs_agree() -> None:
    extended, j2k = read_image(published("JPGExtended.dcm")), read_image(published("JPEG2000.dcm"))
    assert (extended.bits, j2k.bits) == (12, 16)
    assert np.corrcoef(extended.pixels.ravel(), j2k.pixels.ravel())[0, 1] > 0.9


def test_a_range_of_padding_is_black() -> None:
    for value, limit in ((4000, 4095), (4095, 4000)):
        tags = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
        pixels = read_image(windowed(**tags)).pixels.ravel()
        np.testing.assert_allclose(pixels[:4000], np.arange(4000) / 4095, atol=1e-6)
        assert pixels[4000:].max() == 0


def test_accepts_each_kind_of_radiography_and_detector_spacing() -> None:
    for modality in ("CR", "DX", "RG"):
        assert read_image(windowed(Modality=modality, ImagerPixelSpacing=[0.3, 0.3])).pixel_spacing == (0.3, 0.3)
    assert read_image(windowed(Modality="RG", NominalScannedPixelSpacing=[0.2, 0.2])).pixel_spacing == (0.2, 0.2)
    assert read_image(windowed(PixelSpacing=[0, 0])).pixel_spacing is None


def test_nothing_of_the_patient_is_kept_or_repeated(caplog) -> None:
    data = windowed(ViewPosition="SECRETVIEW", BodyPartExamined="SECRETPART")
    with caplog.at_level("DEBUG"):
        radiograph = read_image(data.replace(b"SECRET", b"Secret"))  # irregular: pydicom would log it
    assert "Secret" not in repr(radiograph)
    assert "Secret" not in caplog.text
    assert radiograph.view == ""


def test_a_study_uid_that_is_a_damaged_sequence_leaves_the_picture() -> None:
    data = windowed(StudyInstanceUID="1.2.3")
    whole = read_image(data, name="chest")
    assert whole.study == hashlib.sha256(b"1.2.3").hexdigest()[:16]
    uid = b"\x20\x00\x0d\x00UI\x06\x001.2.3\0"
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", 8) + b"\x08\x00\x60\x00CS\xff\x7f"
    sequence = b"\x20\x00\x0d\x00SQ\0\0\xff\xff\xff\xff" + item + b"\xfe\xff\xdd\xe0\0\0\0\0"
    assert data.count(uid) == 1
    spoiled = read_image(data.replace(uid, sequence), name="chest")
    assert spoiled.study == "" and np.array_equal(spoiled.pixels, whole.pixels)
