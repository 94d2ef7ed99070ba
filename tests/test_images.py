"""Images are read to known numbers, or refused with a sentence that helps."""

import io
import struct

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from imagecodecs import jpeg8_encode, jpegls_encode
from PIL import Image
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import _PIXEL_DATA_DECODERS
from pydicom.pixels.processing import apply_windowing
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from core.studies.dicom_codecs import DECODERS
from core.studies.images import ImageError, fit_square, read_image, reading, to_original
from core.types import Geometry
from tests import needs
from tests.images import making

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


# --- PNG and JPEG ---


def test_reads_8_bit_gray_as_it_is() -> None:
    values = gray_ramp()
    radiograph = read_image(encode(Image.fromarray(values)))
    np.testing.assert_allclose(radiograph.pixels, values / 255, atol=1e-7)
    assert radiograph.pixels.dtype == np.float32
    assert (radiograph.bits, radiograph.format, radiograph.view) == (8, "PNG", "")
    assert radiograph.pixel_spacing is None
    assert radiograph.warnings == ()


def test_reads_16_bit_png_with_all_its_levels() -> None:
    values = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16
    radiograph = read_image(encode(Image.fromarray(values)))
    np.testing.assert_allclose(radiograph.pixels, values / 65535, atol=1e-6)
    assert radiograph.bits == 16
    assert len(np.unique(radiograph.pixels)) == 4096


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_every_mode_of_a_gray_picture_gives_the_same_pixels(mode: str) -> None:
    gray = Image.fromarray(gray_ramp())
    kind = "JPEG" if mode == "CMYK" else "PNG"
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    radiograph = read_image(
        encode(gray.convert("RGB").convert(mode) if mode == "CMYK" else gray.convert(mode), kind, **options)
    )
    expected = gray_ramp() / 255
    np.testing.assert_allclose(radiograph.pixels, expected, atol=0.02 if kind == "JPEG" else 1e-6)
    assert radiograph.warnings == ()


def test_one_bit_picture_is_black_and_white() -> None:
    values = np.zeros((40, 40), dtype=bool)
    values[10:20] = True
    radiograph = read_image(encode(Image.fromarray(values)))
    np.testing.assert_array_equal(radiograph.pixels, values)
    assert radiograph.bits == 1


def test_what_is_transparent_is_black() -> None:
    rgba = np.full((40, 40, 4), 255, dtype=np.uint8)
    rgba[:20, :, 3] = 0
    pixels = read_image(encode(Image.fromarray(rgba))).pixels
    assert pixels[:20].max() == 0
    assert pixels[20:].min() == 1


def test_gray_png_and_rgb_png_have_one_hash_and_another_image_another() -> None:
    gray = Image.fromarray(gray_ramp())
    first, second = read_image(encode(gray)), read_image(encode(gray.convert("RGB")))
    other = read_image(encode(Image.fromarray(gray_ramp()[::-1])))
    assert first.sha256 == second.sha256 != other.sha256


def test_jpeg_is_turned_as_its_exif_note_says() -> None:
    values = np.zeros((64, 96), dtype=np.uint8)
    values[:32, :48] = 255  # bright in the upper left
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    pixels = read_image(encode(Image.fromarray(values), "JPEG", exif=exif, quality=95)).pixels
    assert pixels.shape == (96, 64)
    assert pixels[:40, 40:].min() > 0.9  # now in the upper right
    assert pixels[56:].max() < 0.1


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_unreadable_exif_does_not_refuse_the_picture() -> None:
    data = encode(Image.fromarray(gray_ramp()), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")
    assert read_image(data).pixels.shape == (64, 64)


def test_name_is_no_evidence(tmp_path) -> None:
    path = tmp_path / "image.dcm"
    path.write_bytes(encode(Image.fromarray(gray_ramp())))
    assert read_image(path).format == "PNG"


def test_colour_photograph_is_read_with_a_warning() -> None:
    colours = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    radiograph = read_image(encode(Image.fromarray(colours)))
    assert radiograph.pixels.ndim == 2
    assert "photograph" in " ".join(radiograph.warnings)


def test_a_small_coloured_mark_is_no_photograph() -> None:
    rgb = np.repeat(gray_ramp()[..., None], 3, axis=2)
    rgb[:8, :16] = (255, 0, 0)
    assert read_image(encode(Image.fromarray(rgb))).warnings == ()


def test_warns_of_an_unusual_shape_of_few_grey_levels_and_of_several_pictures() -> None:
    assert "unusual shape" in read_image(encode(Image.fromarray(gray_ramp(40, 200)))).warnings[0]
    assert "grey levels" in read_image(encode(Image.fromarray(RAMP))).warnings[0]
    pictures = [Image.fromarray(gray_ramp()), Image.fromarray(gray_ramp()[::-1])]
    animated = encode(pictures[0], save_all=True, append_images=pictures[1:])
    assert "several pictures" in read_image(animated).warnings[0]


# --- what is refused ---


def png_header(width: int, height: int) -> bytes:
    return making.png(size=(width, height), rows=bytes(1000))


PNG = encode(Image.fromarray(np.random.default_rng(1).integers(0, 255, (128, 128), dtype=np.uint8)))
JPEG = encode(Image.fromarray(np.random.default_rng(1).integers(0, 255, (128, 128), dtype=np.uint8)), "JPEG")
J2K = encode(Image.fromarray(RAMP), "JPEG2000", no_jp2=True)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "is empty", id="empty"),
        pytest.param(b"%PDF-1.7 hello", "not a PNG, JPEG or DICOM", id="pdf"),
        pytest.param(b"GIF89a" + bytes(200), "not a PNG, JPEG or DICOM", id="gif"),
        pytest.param(PNG[: len(PNG) // 2], "is cut off", id="truncated PNG"),
        pytest.param(PNG[:20], "is cut off", id="PNG header cut"),
        pytest.param(JPEG[: len(JPEG) // 2], "is cut off", id="truncated JPEG"),
        pytest.param(JPEG[:10], "is cut off", id="JPEG header cut"),
        pytest.param(png_header(9000, 9000), "limit is 64 million", id="81 megapixels"),
        pytest.param(png_header(12_000, 12_000), "64 million", id="144 megapixels: Pillow warns"),
        pytest.param(png_header(60_000, 60_000), "64 million", id="3600 megapixels: Pillow refuses"),
        pytest.param(encode(Image.new("L", (64, 64), 80)), "same value", id="constant"),
        pytest.param(encode(Image.fromarray(gray_ramp(31, 64))), "at least 32 x 32", id="too small"),
        pytest.param(dicom()[:3000], "cut off: it holds fewer pixels", id="DICOM cut in the pixels"),
        pytest.param(dicom()[:200], "damaged, cut off|no image in it", id="DICOM cut in the header"),
        pytest.param(dicom()[:132], "damaged, cut off|no image in it", id="DICOM of a prefix only"),
        pytest.param(dicom(PixelData=None), "no image in it", id="DICOM without pixels"),
        pytest.param(dicom(Modality="CT"), "modality is CT", id="CT"),
        pytest.param(dicom(Modality="SECRET"), "modality is another one", id="odd modality is not echoed"),
        pytest.param(dicom(Rows=9000, Columns=9000), "limit is 64 million", id="DICOM of 81 megapixels"),
        pytest.param(dicom(NumberOfFrames=100_000), "in 100000 frames", id="DICOM of many frames"),
        pytest.param(dicom(NumberOfFrames=2), "cut off: it holds fewer pixels", id="DICOM with fewer frames"),
        pytest.param(dicom(Rows=65), "cut off: it holds fewer pixels", id="DICOM with fewer pixels than it says"),
        pytest.param(dicom(RAMP * 0), "same value", id="constant DICOM"),
        pytest.param(dicom(PhotometricInterpretation="PALETTE COLOR"), "in palette colours", id="palette"),
        pytest.param(dicom(syntax=JPEG2000Lossless, encapsulated=J2K[: len(J2K) // 3]), "cut off", id="cut J2K"),
        pytest.param(
            dicom(Rows=32, Columns=32, syntax=JPEG2000Lossless, encapsulated=J2K),
            "another size",
            id="J2K of another size",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_bad_files_are_refused_with_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        read_image(data, name="upload 1")
    assert str(caught.value).startswith("upload 1: ")
    assert "SECRET" not in str(caught.value)


def test_large_and_missing_files_are_refused(tmp_path, monkeypatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    for unreadable in (tmp_path / "nothing.png", tmp_path):
        with pytest.raises(ImageError, match="cannot be read"):
            read_image(unreadable)
    monkeypatch.setattr(reading, "MAX_FILE_BYTES", 1000)
    for data in (PNG, path):
        with pytest.raises(ImageError, match="0 MiB, the limit"):
            read_image(data)


@settings(max_examples=150, deadline=None)
@given(
    start=st.sampled_from([PNG, JPEG, dicom(), *(compressed(dicom(), syntax) for syntax in LOSSLESS)]),
    cut=st.integers(0, 20_000),
    flips=st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=4),
)
@pytest.mark.filterwarnings("ignore")
def test_damage_gives_an_image_or_an_image_error(start: bytes, cut: int, flips: list[tuple[int, int]]) -> None:
    data = bytearray(start[:cut])
    for position, value in flips:
        if position < len(data):
            data[position] = value
    try:
        pixels = read_image(bytes(data)).pixels
    except ImageError:
        return
    assert pixels.min() >= 0
    assert pixels.max() <= 1


@pytest.mark.parametrize("syntax", [*LOSSLESS, JPEGBaseline8Bit, JPEGExtended12Bit], ids=lambda syntax: syntax.name)
@pytest.mark.filterwarnings("ignore")
def test_no_damage_of_a_codestream_ends_the_process(syntax: UID) -> None:
    if syntax in LOSSLESS:
        start = compressed(dicom(), syntax)
    else:
        start = dicom(gray_ramp(), bits=8, syntax=syntax, encapsulated=encode(Image.fromarray(gray_ramp()), "JPEG"))
    stream = len(start) - len(pydicom.dcmread(io.BytesIO(start)).PixelData)
    random = np.random.default_rng(0)
    outcomes = set()
    for _ in range(300):
        data = bytearray(start)
        within = 150 if random.random() < 0.6 else len(start) - stream  # what a decoder believes stands at the start
        for position in stream + random.integers(0, within, random.integers(1, 5)):
            data[position] = random.choice([0, 255, data[position] ^ 1 << random.integers(0, 8)])
        try:
            outcomes.add(read_image(bytes(data)).pixels.shape)
        except ImageError:
            outcomes.add("refused")
    assert outcomes == {(64, 64), "refused"}


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


# --- geometry ---


def test_square_of_its_own_size_is_the_image_itself() -> None:
    image = np.random.default_rng(2).random((48, 48), dtype=np.float32)
    square, geometry = fit_square(image, 48)
    np.testing.assert_array_equal(square, image)
    np.testing.assert_array_equal(to_original(square, geometry), image)
    assert geometry == Geometry(48, 48, 48)


def test_padding_is_black_and_the_same_on_both_sides() -> None:
    square, geometry = fit_square(np.ones((40, 80), dtype=np.float32), 80, pixel_spacing=(0.1, 0.2))
    np.testing.assert_array_equal(square[:20], 0)
    np.testing.assert_array_equal(square[20:60], 1)
    np.testing.assert_array_equal(square[60:], 0)
    assert geometry.content == (0.25, 0, 0.5, 1)
    assert geometry.pixel_spacing == (0.1, 0.2)


def test_odd_padding_is_split_in_halves() -> None:
    square, _ = fit_square(np.ones((41, 80), dtype=np.float32), 80)  # margins of 19.5 pixels
    np.testing.assert_allclose(square[[18, 19, 20, 59, 60, 61], 0], [0, 0.5, 1, 1, 0.5, 0], atol=1e-6)


def test_reduction_is_antialiased() -> None:
    stripes = np.tile(np.array([0, 1], dtype=np.float32), (64, 32))
    square, _ = fit_square(stripes, 16)
    np.testing.assert_allclose(square[:, 1:-1], 0.5, atol=1e-3)


sides = st.integers(32, 300)
TRIANGLE_IS_OFF = (3 - 2 * np.sqrt(2)) / 2
"""Pixels by which the mean of a triangle filter differs from its middle at most, when it is reduced to whole pixels."""


def test_a_triangle_at_whole_pixels_is_off_its_middle_by_this_much() -> None:
    """What PIL's filter may move a place by, from the filter's formula alone; the worst width is (1 + sqrt 2) / 2."""
    middle, pixels = np.linspace(0, 1, 2001)[:, None], np.arange(-6, 8)
    off = 0.0
    for width in [(1 + np.sqrt(2)) / 2, *np.linspace(1, 5, 400)]:
        weights = np.clip(1 - np.abs(pixels - middle) / width, 0, None)
        off = max(off, np.abs((weights * (pixels - middle)).sum(1) / weights.sum(1)).max())
    assert off == pytest.approx(TRIANGLE_IS_OFF, rel=1e-3)  # places are sampled


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, size=st.integers(32, 200))
@example(height=32, width=32, size=37)  # moves by more than 0.002 of its height
def test_places_survive_the_way_there_and_back(height: int, width: int, size: int) -> None:
    side = max(height, width)
    rows = (np.arange(height, dtype=np.float32) + 0.5)[:, None] / height * np.ones((1, width), dtype=np.float32)
    square, geometry = fit_square(rows, size)
    assert square.shape == (size, size)
    assert square.min() >= 0
    assert square.max() <= 1
    back = to_original(square, geometry)
    assert back.shape == (height, width)
    # A linear ramp is kept, except near the border where padding and edges mix in.
    margin = int(np.ceil(2 * max(1, side / size))) + 1
    inside = (slice(margin, height - margin), slice(margin, width - margin))
    moved = np.abs(back - rows)[inside] * height  # in pixels of the original
    assert moved.max(initial=0) < TRIANGLE_IS_OFF + 1e-3


@settings(max_examples=60, deadline=None)
@given(height=sides, width=sides, cells=st.integers(2, 24))
def test_a_map_of_places_returns_each_pixels_own_place(height: int, width: int, cells: int) -> None:
    # Cell centres hold their own x in [0, 1]; pixel j of the original lies at (j + 1/2 + margin) / side.
    side = max(height, width)
    x = np.tile((np.arange(cells) + 0.5) / cells, (cells, 1))
    back = to_original(x, Geometry(height, width, 64))
    expected = (np.arange(width) + 0.5 + (side - width) / 2) / side
    step = side / cells  # pixels per cell; when cells are smaller than pixels, borders are averaged
    inside = (expected > (0.5 + 1 / step) / cells) & (expected < 1 - (0.5 + 1 / step) / cells)
    if step >= 1:
        np.testing.assert_allclose(back[:, inside], np.tile(expected[inside], (height, 1)), atol=1e-3)


def test_map_keeps_its_range_and_sign() -> None:
    values = np.array([[-3.0, 5.0], [5.0, -3.0]])
    back = to_original(values, Geometry(100, 100, 64))
    assert back.min() == -3
    assert back.max() == 5
