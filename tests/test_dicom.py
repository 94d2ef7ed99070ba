"""DICOM files are read to known numbers: windows, tables, depths, codings, padding."""

import io

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
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    RLELossless,
)

from core.studies.dicom_codecs import DECODERS
from core.studies.images import read_image
from tests import needs
from tests.images.ramps import J2K, LOSSLESS, RAMP, compressed, dicom, encode, gray_ramp, lossless_jpeg, windowed

# --- DICOM ---


def test_dicom_window_over_all_values_is_the_stored_value() -> None:
    radiograph = read_image(windowed(ViewPosition="PA", PixelSpacing=[0.2, 0.1], ImagerPixelSpacing=[9, 9]))
    np.testing.assert_allclose(radiograph.pixels, RAMP / 4095, atol=1e-6)
    assert (radiograph.bits, radiograph.format, radiograph.view) == (12, "DICOM", "PA")
    assert radiograph.pixel_spacing == (0.2, 0.1)
    assert radiograph.warnings == ()


def test_monochrome1_is_the_inverse_of_monochrome2() -> None:
    dense_is_bright = read_image(windowed(WindowCenter=1500, WindowWidth=2000)).pixels
    dense_is_dark = read_image(
        windowed(WindowCenter=1500, WindowWidth=2000, PhotometricInterpretation="MONOCHROME1")
    ).pixels
    np.testing.assert_allclose(dense_is_dark, 1 - dense_is_bright, atol=1e-6)


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


def test_a_window_that_leaves_nothing_to_see_is_ignored() -> None:
    for center, width in ((1000, 1), (2048, 0), (2048, -5), (9000, 100)):
        radiograph = read_image(windowed(WindowCenter=center, WindowWidth=width))
        np.testing.assert_allclose(radiograph.pixels, RAMP / 4095, atol=1e-6)
        assert "darkest and brightest values" in radiograph.warnings[0]


def test_rescale_comes_before_the_window() -> None:
    # modality value = 2 * stored - 1000; the window covers -1000 ... 7190, so stored 0 ... 4095
    data = windowed(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=3095.5, WindowWidth=8191)
    np.testing.assert_allclose(read_image(data).pixels, RAMP / 4095, atol=1e-3)


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


def test_8_bit_and_signed_values_are_read() -> None:
    eight = read_image(dicom(gray_ramp(), bits=8, WindowCenter=128, WindowWidth=256))
    np.testing.assert_allclose(eight.pixels, gray_ramp() / 255, atol=1e-6)
    signed = RAMP.astype(np.int16) - 2048
    data = dicom(signed, bits=16, WindowCenter=0, WindowWidth=4096)
    np.testing.assert_allclose(read_image(data).pixels, RAMP / 4095, atol=1e-6)


@pytest.mark.parametrize(
    ("syntax", "encapsulated", "tolerance"),
    [
        (RLELossless, None, 1e-6),
        (JPEG2000Lossless, J2K, 1e-6),
        (JPEGBaseline8Bit, encode(Image.fromarray(gray_ramp()), "JPEG", quality=100), 0.01),
        (JPEGExtended12Bit, jpeg8_encode(RAMP, level=100, bitspersample=12), 0.001),
    ],
)
def test_compressed_pixels_are_read(syntax: UID, encapsulated: bytes | None, tolerance: float) -> None:
    if syntax == JPEGBaseline8Bit:
        data = dicom(gray_ramp(), bits=8, syntax=syntax, encapsulated=encapsulated, WindowCenter=128, WindowWidth=256)
        expected = gray_ramp() / 255
    else:
        bits = 16 if syntax == JPEG2000Lossless else 12  # Pillow writes 16-bit J2K
        data = windowed(bits=bits, syntax=syntax, encapsulated=encapsulated)
        expected = RAMP / 4095
    np.testing.assert_allclose(read_image(data).pixels, expected, atol=tolerance)


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


@pytest.mark.parametrize("bits", [12, 16])
def test_lossless_jpeg_is_read(bits: int) -> None:
    stored = (RAMP * 2 ** (bits - 12)).astype(np.uint16)[::-1, ::3][:64, :64]
    stored = np.ascontiguousarray(np.pad(stored, ((0, 0), (0, 64 - stored.shape[1])), mode="reflect"))
    data = dicom(
        stored,
        bits=bits,
        syntax=JPEGLosslessSV1,
        encapsulated=lossless_jpeg(stored, bits),
        WindowCenter=2 ** (bits - 1),
        WindowWidth=2**bits,
    )
    np.testing.assert_allclose(read_image(data).pixels, stored / (2**bits - 1), atol=1e-6)


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


def test_what_lies_above_the_stored_bits_is_ignored_and_another_layout_told() -> None:
    np.testing.assert_allclose(read_image(windowed(RAMP | 0xA000)).pixels, RAMP / 4095, atol=1e-6)
    upper = read_image(windowed((RAMP << 4).astype(np.uint16), HighBit=15))
    np.testing.assert_allclose(upper.pixels, RAMP / 4095, atol=1e-6)
    assert "outdated layout" in upper.warnings[0]


def test_a_modality_table_comes_before_the_window() -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", (4095 - np.arange(4096, dtype=np.uint16)).tobytes())
    table.ModalityLUTType = "US"
    np.testing.assert_allclose(
        read_image(windowed(ModalityLUTSequence=Sequence([table]))).pixels, 1 - RAMP / 4095, atol=1e-6
    )


def test_a_range_of_padding_is_black() -> None:
    for value, limit in ((4000, 4095), (4095, 4000)):
        tags = {"PixelPaddingValue": value, "PixelPaddingRangeLimit": limit}
        pixels = read_image(windowed(**tags)).pixels.ravel()
        np.testing.assert_allclose(pixels[:4000], np.arange(4000) / 4095, atol=1e-6)
        assert pixels[4000:].max() == 0


def test_first_of_several_frames_is_read() -> None:
    radiograph = read_image(windowed(np.stack([RAMP, RAMP[::-1]]), NumberOfFrames=2))
    np.testing.assert_allclose(radiograph.pixels, RAMP / 4095, atol=1e-6)
    assert "2 frames" in radiograph.warnings[0]


def test_colour_dicom_is_read_as_gray() -> None:
    rgb = np.repeat(gray_ramp()[..., None], 3, axis=2)
    np.testing.assert_allclose(read_image(dicom(rgb, bits=8)).pixels, gray_ramp() / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("tags", "warning"),
    [
        ({"BurnedInAnnotation": "YES"}, "look for names"),
        ({"Modality": None}, "does not say its modality"),
        ({"BodyPartExamined": "KNEE"}, "another body part"),
    ],
)
def test_doubts_about_a_dicom_file_are_said(tags: dict[str, object], warning: str) -> None:
    (note,) = read_image(windowed(**tags)).warnings
    assert warning in note


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
