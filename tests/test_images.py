"""PNG and JPEG are read to known numbers; what is cut off, damaged or no image is refused with a helpful sentence."""

import hashlib
import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
)

from core.studies.images import ImageError, read_image, reading
from tests.images import making
from tests.images.ramps import J2K, LOSSLESS, RAMP, compressed, dicom, encode, gray_ramp

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


def test_the_hash_is_worked_out_once_and_only_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)).save(tmp_path / "a.png")
    made, sha256 = [], hashlib.sha256
    monkeypatch.setattr(hashlib, "sha256", lambda *given: made.append(1) or sha256(*given))
    film = read_image(tmp_path / "a.png")
    assert not made
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64).astype(np.float32) / 255
    expected = sha256(b"64x64:" + pixels.tobytes()).hexdigest()
    assert [film.sha256, film.sha256] == [expected] * 2
    assert len(made) == 1
