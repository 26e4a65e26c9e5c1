"""An image's size comes from its header, whatever the file is called, and a broken file stops nobody."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.tasks.data.image_files import UNREADABLE_SIZE, header_size, image_size


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "I;16"])
def test_every_mode_has_a_size(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.tif"
    Image.new(mode, (60, 40)).save(path)
    assert header_size(path) == header_size(path.read_bytes()) == (60, 40)


def test_the_size_is_that_of_the_stored_pixels_whatever_exif_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (60, 40)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (60, 40)


def test_what_is_no_image_has_no_size(tmp_path: Path) -> None:
    """Neither what others hand to another program, nor a format that nobody reads here."""
    dds = io.BytesIO()
    Image.new("RGB", (60, 40)).save(dds, "DDS")
    for number, content in enumerate((b"", b"\xff\xd8\xff", dds.getvalue(), b"%!PS-Adobe-3.0 EPSF-3.0\n")):
        path = tmp_path / f"{number}.jpg"
        path.write_bytes(content)
        assert header_size(path) is header_size(content) is None
        assert image_size(path) == UNREADABLE_SIZE
    assert header_size(tmp_path) is None
    assert header_size(tmp_path / "gone.jpg") is None
