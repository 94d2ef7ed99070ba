"""Files as the field has them: shown as they are, with a note where something was left out, or refused with the reason.

The corpus and what must become of each file are in `tests/images`; here a part of it is read in this process, all of it
in processes with limits as a slow test, and the files that were collected from bug reports where they are at hand.
"""

import io
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from core.studies.images import ImageError, fit_square, geometry, read_image
from core.studies.images.inversion import likeness, looks_inverted
from tests import needs
from tests.conftest import ROOT
from tests.images import making, peers, run
from tests.images.corpus import corpus
from tests.images.kinds import Odd
from tests.images.making import CHEST, CHEST8, compressed, dicom, jpeg, png

FAST = [odd for odd in corpus() if odd.group != "asking for much" and not odd.name.startswith("damage-")]


@pytest.mark.parametrize("group", dict.fromkeys(odd.group for odd in FAST))
def test_odd_files_are_read_rightly_told_or_refused(group: str, caplog: pytest.LogCaptureFixture) -> None:
    faults = []
    with caplog.at_level("DEBUG"):
        for odd in FAST:
            if odd.group == group:
                faults += run.outcome(odd, odd.make()).faults(odd)
    assert not faults
    assert "SECRET" not in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_the_whole_corpus_stays_within_limits_of_time_and_memory() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.images.run"], cwd=ROOT, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_the_table_of_the_docs_counts_this_corpus() -> None:
    text = (ROOT / "docs" / "images.md").read_text(encoding="utf-8")
    counts: dict[str, int] = {}
    for odd in corpus():
        counts[odd.group] = counts.get(odd.group, 0) + 1
    for group, count in [*counts.items(), ("**all**", sum(counts.values()))]:
        assert f"| {group} | {count} |" in text


def test_a_fault_of_the_reader_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runner itself: a reader that shows something else, or takes too long, is found out."""
    odd = Odd("sound", "", png, frozenset({"right"}))
    assert run.outcome(odd, png()).faults(odd) == []
    wrong = run.outcome(odd, png(CHEST8[:, ::-1] // 2))
    assert wrong.kind == "wrong"
    assert wrong.faults(odd)
    assert run.Outcome("right", "", 6.0, 0.1).faults(odd)
    assert run.Outcome("right", "", 1.0, 1.1).faults(odd)
    assert run.Outcome("right", "of SECRET", 1.0, 0.1).faults(odd)


def test_no_file_that_pydicom_reads_is_refused_or_read_otherwise() -> None:
    found = peers.compare()
    assert sum(outcome == "both read it" for _, outcome, _ in found) > 60
    assert {outcome for _, outcome, _ in found} <= {"both read it", "refused by both", "read by us only"}


# --- collected files ---

SHOWN = {
    "IM000016": None,
    "f01_window_of_8_bits_on_12.dcm": "hides most of the picture",
    "f02_window_misses_the_values.dcm": "hides most of the picture",
    "f03_window_with_decimal_comma.dcm": None,
    "f04_rescale_present_but_empty.dcm": None,
    "f05_voi_table_shorter_than_it_says.dcm": "shorter than it says",
    "f06_voi_table_below_zero_implicit_vr.dcm": None,
    "f07_voi_table_says_16_bits_holds_12.dcm": "other bits than it says",
    "f09_no_preamble_no_meta.dcm": None,
    "f10_meta_without_transfer_syntax.dcm": None,
    "f11_modality_dr.dcm": "modality is DR",
    "f12_body_part_chest_pa.dcm": None,
    "f13_high_bit_missing.dcm": "HighBit",
    "f14_view_is_lateral.dcm": "lateral view",
    "f17_palette_colour.dcm": "palette colours",
    "f19_14_bits_in_a_16_bit_png.png": "14 of its 16 bits",
    "f21_voi_table_of_8_bit_entries.dcm": None,
    "f22_jpeg_12_bit_scan_end_0.dcm": None,
}


def collected(name: str) -> Path:
    if not needs.FIELD.is_dir():
        needs.CASES.skip()
    return needs.FIELD / name


@pytest.mark.parametrize("name", SHOWN)
def test_collected_files_are_shown(name: str) -> None:
    formula = read_image(collected("IM000016")).pixels
    radiograph = read_image(collected(name))
    assert np.corrcoef(radiograph.pixels.ravel(), formula.ravel())[0, 1] > 0.99
    assert ((radiograph.pixels <= 0) | (radiograph.pixels >= 1)).mean() < 0.05
    notes = SHOWN[name]
    assert radiograph.warnings == () if notes is None else notes in " ".join(radiograph.warnings)


def test_collected_files_are_told_of_or_refused() -> None:
    with pytest.raises(ImageError, match="is cut off"):
        read_image(collected("f08_jpeg_stream_ends_halfway.dcm"))
    assert "FOR PROCESSING" in " ".join(read_image(collected("f15_for_processing.dcm")).warnings)
    assert "looks inverted" in " ".join(read_image(collected("f20_inverted.png")).warnings)
    padded = read_image(collected("f18_padding_of_signed_pixels_as_unsigned.dcm"))
    formula = read_image(collected("IM000016")).pixels
    inside = padded.pixels > 0
    assert 0.5 < inside.mean() < 0.95
    assert np.corrcoef(padded.pixels[inside], formula[inside])[0, 1] > 0.99
    assert np.ptp(padded.pixels[inside]) > 0.99


# --- paths ---


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    pipe, plug = tmp_path / "pipe", tmp_path / "socket"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(plug))
        link = tmp_path / "chest.png"
        link.symlink_to("/dev/zero")
        for path in (Path("/dev/zero"), Path("/dev/urandom"), link, pipe, plug, tmp_path, tmp_path / "missing.png"):
            with pytest.raises(ImageError, match="cannot be read"):
                read_image(path)
    real = tmp_path / "IM000016"
    real.write_bytes(png())
    (tmp_path / "link").symlink_to(real)
    assert read_image(tmp_path / "link").sha256 == read_image(png()).sha256


@pytest.mark.parametrize(
    "data", [bytes(5000), b"\x08\0" + bytes(3000), b"\x08\0\x05\0CS\x0a\0ISO_IR 100" + bytes(99), b"\x02\0hello" * 100]
)
def test_junk_is_not_taken_for_a_dicom_file_without_a_beginning(data: bytes) -> None:
    with pytest.raises(ImageError, match="this is not a PNG, JPEG or DICOM file"):
        read_image(data)


@pytest.mark.parametrize(("start", "kind"), [(b"GIF89a", "a GIF"), (b"II*\0", "a TIFF"), (b"PK\x03\x04", "a ZIP")])
def test_other_kinds_are_called_by_their_names(start: bytes, kind: str) -> None:
    with pytest.raises(ImageError, match=f"this is {kind}"):
        read_image(start + bytes(900))


def test_nothing_that_a_file_says_is_logged_or_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    exif = Image.Exif()
    exif[0x010E] = "SECRET"  # ImageDescription
    exif[0x0112] = 3
    files = [
        jpeg(exif=exif.tobytes()),
        png(extra=making.chunk(b"tEXt", b"Author\0SECRET")),
        dicom(WindowCenter="SECRET", NumberOfFrames="SECRET", BodyPartExamined="SECRET", Modality="OT"),
        dicom(PhotometricInterpretation="SECRET"),
        dicom(Modality="SECRET"),
        making.element(0x00080005, "CS", b"SECRET") + dicom(preamble=False),
        compressed("jpegls", making.STREAMS["jpegls"][:900], PixelSpacing="SECRET\\SECRET"),
        compressed("jpeg2000", making.STREAMS["jpeg2000"][:900]),
    ]
    with caplog.at_level("DEBUG"):
        for data in files:
            try:
                words = repr(read_image(data))
            except ImageError as error:
                words = str(error)
            assert "SECRET" not in words
    assert "SECRET" not in caplog.text
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]
    assert capfd.readouterr() == ("", "")


# --- turning, inversion, geometry ---


@pytest.mark.parametrize("number", range(1, 9))
def test_pictures_are_turned_as_pillow_turns_them(number: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = number
    xmp = f'<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{number}"/>'.encode()
    for kind, options in (("JPEG", {"exif": exif}), ("PNG", {"exif": exif}), ("JPEG", {"xmp": xmp})):
        buffer = io.BytesIO()
        Image.fromarray(CHEST8).save(buffer, kind, **options)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
        np.testing.assert_allclose(read_image(buffer.getvalue()).pixels, expected / 255, atol=1e-6)


def test_a_chest_its_negative_and_other_pictures_are_told_apart() -> None:
    chest = CHEST.astype(np.float32)
    assert likeness(chest) > 0.3
    assert not looks_inverted(chest)
    assert looks_inverted(1 - chest)
    assert looks_inverted(np.pad(1 - chest, 20))
    assert not looks_inverted(np.full((64, 64), 0.5, np.float32))
    assert "looks inverted" in read_image(dicom(PhotometricInterpretation="MONOCHROME1")).warnings[-1]


def padded_whole(image: np.ndarray, size: int) -> np.ndarray:
    """The square as it was once made: padded first, then resized. Bundles learned from such squares."""
    height, width = image.shape
    side = max(height, width)
    top, left = (side - height + 1) // 2, (side - width + 1) // 2
    padded = np.pad(image, ((top, top), (left, left)))
    x, y = left - (side - width) / 2, top - (side - height) / 2
    square = Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
    return np.asarray(square, dtype=np.float32).clip(0, 1)


@settings(max_examples=80, deadline=None)
@given(height=st.integers(32, 300), width=st.integers(32, 300), size=st.integers(16, 300), band=st.integers(1, 90_000))
def test_a_square_is_bit_for_bit_that_of_the_padded_image(height: int, width: int, size: int, band: int) -> None:
    image = np.random.default_rng(height * width).random((height, width), dtype=np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(geometry, "_BAND", band)
        square = fit_square(image, size)[0]
    if max(height, width) <= 3 * width:
        np.testing.assert_array_equal(square, padded_whole(image, size))
    else:
        np.testing.assert_allclose(square, padded_whole(image, size), atol=2e-5)


def test_a_long_strip_takes_no_more_memory_than_its_square() -> None:
    code = (
        "import numpy; from core.studies.images import fit_square; "
        "[fit_square(numpy.ones(shape, numpy.float32), 224) for shape in ((30_000, 32), (32, 30_000))]; "
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) / 2**20 < 0.5  # GB; a padded square has 3.6


@pytest.mark.parametrize("shape", [(32, 30_000), (30_000, 32), (40, 400)])
def test_shapes_that_no_radiograph_has_are_refused(shape: tuple[int, int]) -> None:
    values = np.zeros(shape, np.uint8)
    values[:, ::2] = 9
    for data in (png(values), dicom(values)):
        with pytest.raises(ImageError, match=re.escape("no radiograph has this shape")):
            read_image(data)
