"""An image is either decoded as annotated, or there is a reason."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from vrft_bench.harness import images
from vrft_bench.harness.images import EncodedImage, ImageCache, ImageError, encode_image, load_image
from vrft_bench.tasks.base import ImageRef


def encoded(width: int = 6, height: int = 4, mode: str = "RGB", kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    Image.new(mode, (width, height), 200 if mode == "L" else (200, 10, 10)).save(stream, kind, **options)
    return stream.getvalue()


def png_declaring(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header claims any size."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0"))


def test_reads_a_path_and_bytes_alike(tmp_path: Path) -> None:
    data = encoded()
    file = tmp_path / "a.png"
    file.write_bytes(data)
    by_path, by_bytes = load_image(ImageRef(6, 4, path=file)), load_image(ImageRef(6, 4, data=data))
    assert by_path.image.tobytes() == by_bytes.image.tobytes() == bytes((200, 10, 10)) * 24
    assert by_path.sha256 == by_bytes.sha256 == hashlib.sha256(data).hexdigest()


def test_grey_images_become_rgb() -> None:
    loaded = load_image(ImageRef(6, 4, data=encoded(mode="L")))
    assert (loaded.image.mode, loaded.image.getpixel((0, 0))) == ("RGB", (200, 200, 200))


def written(image: Image.Image, kind: str, **options: object) -> ImageRef:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return ImageRef(image.width, image.height, data=stream.getvalue())


RAMP = np.linspace(0, 65_535, 256).astype(np.uint16).reshape(16, 16)  # 0, 257, ..., 65535


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    loaded = load_image(written(Image.fromarray(RAMP), kind))
    assert loaded.image.mode == "RGB"
    assert (np.asarray(loaded.image)[..., 0].ravel() == np.arange(256)).all()


def test_sixteen_bits_of_a_big_endian_tiff_are_scaled_alike() -> None:
    loaded = load_image(written(Image.frombytes("I;16B", (16, 16), RAMP.astype(">u2").tobytes()), "TIFF"))
    assert (np.asarray(loaded.image)[..., 1].ravel() == np.arange(256)).all()


def test_a_tiff_in_which_zero_is_white_is_turned_round() -> None:
    loaded = load_image(written(Image.fromarray(RAMP), "TIFF", tiffinfo={262: 0}))
    assert (np.asarray(loaded.image)[..., 2].ravel() == np.arange(255, -1, -1)).all()


@pytest.mark.parametrize("pixels", [RAMP / 65_535, RAMP.astype(np.int32) * 1000], ids=["floats", "32 bits"])
def test_numbers_without_a_declared_white_are_refused(pixels: np.ndarray) -> None:
    image = Image.fromarray(pixels.astype(np.float32) if pixels.dtype.kind == "f" else pixels)
    with pytest.raises(ImageError, match="numbers without a declared black and white"):
        load_image(written(image, "TIFF"))


@pytest.mark.parametrize(
    ("colour", "seen"),
    [((200, 10, 10, 0), (255, 255, 255)), ((200, 10, 10, 255), (200, 10, 10)), ((0, 0, 0, 51), (204, 204, 204))],
    ids=["transparent", "opaque", "a fifth"],
)
def test_what_is_transparent_is_shown_on_white(colour: tuple[int, ...], seen: tuple[int, ...]) -> None:
    assert load_image(written(Image.new("RGBA", (6, 4), colour), "PNG")).image.getpixel((0, 0)) == seen


def test_a_transparent_colour_of_a_palette_or_of_rgb_is_white_too() -> None:
    palette = Image.new("P", (6, 4), 1)
    palette.putpalette([0, 0, 0, 9, 90, 200])
    plain = Image.new("RGB", (6, 4), (9, 90, 200))
    assert load_image(written(palette, "PNG")).image.getpixel((0, 0)) == (9, 90, 200)
    assert load_image(written(palette, "PNG", transparency=1)).image.getpixel((0, 0)) == (255, 255, 255)
    assert load_image(written(plain, "PNG", transparency=(9, 90, 200))).image.getpixel((0, 0)) == (255, 255, 255)


def test_whatever_a_decoder_raises_fails_the_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a lack of memory is not the file's fault: a backend may try again with less at once."""

    def raising(error: Exception) -> None:
        def load(self: object) -> None:
            raise error

        monkeypatch.setattr(PngImageFile, "load", load)

    raising(EOFError())
    with pytest.raises(ImageError, match=r"not a readable image \(EOFError\)"):
        load_image(ImageRef(6, 4, data=encoded()))
    raising(MemoryError())
    with pytest.raises(MemoryError):
        load_image(ImageRef(6, 4, data=encoded()))


def test_a_path_that_cannot_be_looked_up_fails_the_image_alone(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(ImageRef(6, 4, path=tmp_path / ("long" * 100)))


def test_exif_orientation_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "rotate by 90 degrees to show"
    loaded = load_image(ImageRef(6, 4, data=encoded(kind="JPEG", exif=exif)))
    assert loaded.image.size == (6, 4)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg: no such file"):
        load_image(ImageRef(6, 4, path=tmp_path / "gone.jpg"))


@pytest.mark.parametrize("data", [b"", b"<html>404</html>", encoded()[:40], encoded(60, 60, kind="JPEG")[:-200]])
def test_what_is_not_a_whole_image_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        load_image(ImageRef(60, 60, data=data) if data[:2] == b"\xff\xd8" else ImageRef(6, 4, data=data))


@pytest.mark.parametrize("side", [14_000, 30_000])
def test_a_decompression_bomb_is_refused_by_its_header(side: int) -> None:
    """Above our limit, and above the one at which Pillow itself refuses to look at the file."""
    data = png_declaring(side, side)
    with pytest.raises(ImageError, match="declares"):
        load_image(ImageRef(side, side, data=data), max_pixels=100_000_000)


def test_another_size_than_annotated_is_refused() -> None:
    with pytest.raises(ImageError, match="is 6x4 pixels, but its annotation says 4x6"):
        load_image(ImageRef(4, 6, data=encoded()))


def test_a_file_that_changed_is_refused() -> None:
    with pytest.raises(ImageError, match="the file changed"):
        load_image(ImageRef(6, 4, data=encoded(), sha256="0" * 64))


def test_formats_that_run_other_programs_are_not_opened() -> None:
    script = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\n"
    with pytest.raises(ImageError, match="not a readable image"):
        load_image(ImageRef(6, 4, data=script))


def test_the_cache_decodes_once_and_forgets_the_least_recently_used(tmp_path: Path) -> None:
    refs = []
    for index in range(3):
        file = tmp_path / f"{index}.png"
        file.write_bytes(encoded(10, 10))
        refs.append(ImageRef(10, 10, path=file))
    cache = ImageCache(max_bytes=2 * 300)
    first, second = cache.load(refs[0]), cache.load(refs[1])
    assert cache.load(refs[0]) is first
    cache.load(refs[2])
    assert len(cache) == 2
    assert cache.load(refs[0]) is first
    assert cache.load(refs[1]) is not second


def test_a_cached_image_does_not_hide_a_wrong_size() -> None:
    cache = ImageCache()
    cache.load(ImageRef(6, 4, data=encoded()))
    with pytest.raises(ImageError, match="its annotation says 4x6"):
        cache.load(ImageRef(4, 6, data=encoded()))


def test_one_image_larger_than_the_cache_still_loads() -> None:
    cache = ImageCache(max_bytes=10)
    ref = ImageRef(6, 4, data=encoded())
    assert cache.load(ref) is cache.load(ref)


def sent(encoded: EncodedImage) -> tuple[str, Image.Image]:
    """Media type and image of a ``data:`` URL, as a server reads it."""
    head, _, body = encoded.data_url.decode("ascii").partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(body, validate=True)))
    image.load()
    return head.removeprefix("data:"), image


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_png_or_jpeg_that_needs_no_change_is_sent_as_the_very_file(kind: str, mode: str) -> None:
    ref = ImageRef(6, 4, data=encoded(kind=kind, mode=mode))
    for size in (None, (6, 4)):
        found = encode_image(ref, size, "jpeg")
        assert found.as_stored
        assert found.data_url == b"data:image/%s;base64,%s" % (kind.lower().encode(), base64.b64encode(ref.data or b""))
        assert (found.width, found.height, found.sha256) == (6, 4, hashlib.sha256(ref.data or b"").hexdigest())


def exif(orientation: int) -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = orientation
    return made


@pytest.mark.parametrize(
    "ref",
    [
        written(Image.new("RGB", (6, 4), (200, 10, 10)), "WEBP", lossless=True),
        written(Image.new("RGB", (6, 4), (200, 10, 10)), "BMP"),
        written(Image.new("RGB", (6, 4), (200, 10, 10)), "TIFF"),
        written(Image.new("RGBA", (6, 4), (200, 10, 10, 255)), "PNG"),
        written(Image.new("RGBA", (6, 4), (200, 10, 10, 90)), "PNG"),
        written(Image.fromarray(RAMP), "PNG"),
        written(Image.new("CMYK", (6, 4), (9, 99, 99, 9)), "JPEG"),
        written(Image.new("RGB", (6, 4), (200, 10, 10)), "JPEG", exif=exif(6)),
        written(Image.new("RGB", (6, 4), (200, 10, 10)), "PNG", exif=exif(3)),
    ],
    ids=["webp", "bmp", "tiff", "alpha", "see-through", "16 bits", "cmyk", "turned jpeg", "turned png"],
)
def test_what_servers_may_read_differently_is_sent_as_the_pixels_that_a_model_here_would_see(ref: ImageRef) -> None:
    found = encode_image(ref)
    media_type, image = sent(found)
    assert (media_type, image.mode, found.as_stored) == ("image/png", "RGB", False)
    assert image.tobytes() == load_image(ref).image.tobytes()
    assert 0x0112 not in image.getexif()
    assert found.sha256 == hashlib.sha256(ref.data or b"").hexdigest()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("block", [b"Exif\0\0no TIFF header at all", b"no EXIF"])
def test_a_broken_exif_block_costs_no_pixel(kind: str, block: bytes) -> None:
    """The image is whole; only who reads the file itself might turn it, so that a server is sent another one."""
    plain = written(Image.new("L", (6, 4), 200), kind)
    ref = written(Image.new("L", (6, 4), 200), kind, exif=block)
    assert block.removeprefix(b"Exif\0\0") in (ref.data or b"")
    assert load_image(ref).image.tobytes() == load_image(plain).image.tobytes()
    media_type, image = sent(found := encode_image(ref))
    assert image.convert("RGB").tobytes() == load_image(plain).image.tobytes()
    if not found.as_stored:
        assert (media_type, dict(image.getexif())) == ("image/png", {})


def test_a_png_whose_exif_block_cannot_be_read_is_not_sent_as_it_is() -> None:
    ref = written(Image.new("RGB", (6, 4)), "PNG", exif=b"Exif\0\0no TIFF header at all")
    with pytest.raises(SyntaxError):
        Image.open(io.BytesIO(ref.data or b"")).getexif()
    assert not encode_image(ref).as_stored


def test_an_exif_block_that_turns_nothing_is_left_alone() -> None:
    assert encode_image(written(Image.new("RGB", (6, 4)), "JPEG", exif=exif(1))).as_stored


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_a_resized_image_has_the_size_that_was_asked_for_and_is_written_in_the_format_asked_for(kind: str) -> None:
    ref = written(Image.fromarray(np.tile(np.arange(80, dtype=np.uint8)[None, :, None] * 3, (60, 1, 3))), "JPEG")
    found = encode_image(ref, (28, 56), kind)  # type: ignore[arg-type]
    media_type, image = sent(found)
    assert (media_type, image.size, image.mode) == (f"image/{kind}", (28, 56), "RGB")
    assert (found.width, found.height, found.as_stored) == (28, 56, False)
    wanted = load_image(ref).image.resize((28, 56), Image.Resampling.BICUBIC)
    worst = np.abs(np.asarray(image).astype(int) - np.asarray(wanted)).max()
    assert worst == 0 if kind == "png" else worst <= 4


def test_a_colour_profile_does_not_come_along_with_written_pixels() -> None:
    ref = written(Image.new("RGB", (6, 4), (200, 10, 10)), "TIFF", icc_profile=b"x" * 200)
    assert "icc_profile" not in sent(encode_image(ref))[1].info


@pytest.mark.parametrize("data", [b"", encoded()[:40], encoded(60, 60, kind="JPEG")[:-200]])
def test_what_is_not_a_whole_image_is_not_sent(data: bytes) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        encode_image(ImageRef(60, 60, data=data) if data[:2] == b"\xff\xd8" else ImageRef(6, 4, data=data))


def test_the_cache_keeps_encodings_by_size_and_format_and_counts_the_work() -> None:
    ref, cache = ImageRef(6, 4, data=encoded()), ImageCache()
    stored = cache.encode(ref)
    assert cache.encode(ref) is cache.held_encoding(ref, None, "png") is stored
    assert (cache.decoded, cache.resized, cache.encoded) == (1, 0, 1)
    assert cache.held_encoding(ref, (3, 2), "png") is None
    small = cache.encode(ref, (3, 2))
    assert cache.encode(ref, (3, 2), "jpeg") is not small
    assert (cache.decoded, cache.resized, cache.encoded) == (3, 2, 3)
    cache.load(ref)
    cache.load(ref)
    assert (cache.decoded, cache.resized, cache.encoded) == (4, 2, 3)


def test_the_cache_is_bounded_by_what_its_encodings_weigh() -> None:
    refs = [ImageRef(40, 40, data=encoded(40, 40, kind="BMP") + bytes([n])) for n in range(9)]
    weight = len(refs[0].data or b"") + len(encode_image(refs[0]).data_url)
    cache = ImageCache(max_bytes=3 * weight + 10)
    for ref in refs:
        cache.encode(ref)
    assert len(cache) == 3
    assert [cache.held_encoding(ref, None, "png") is not None for ref in refs] == [False] * 6 + [True] * 3


def test_threads_that_want_one_image_share_the_work_and_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on, calls = threading.Event(), threading.Event(), []
    real = images.encode_image

    def slow(ref: ImageRef, *more: object) -> EncodedImage:
        calls.append(ref)
        begun.set()
        go_on.wait(30)
        return real(ref, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(images, "encode_image", slow)
    good, broken, cache = ImageRef(6, 4, data=encoded()), ImageRef(6, 4, data=b"broken"), ImageCache()
    with ThreadPoolExecutor(8) as pool:
        for ref, calls_until_now in ((good, 1), (broken, 2)):
            begun.clear()
            go_on.clear()
            first = pool.submit(cache.encode, ref)
            assert begun.wait(30)
            others = [pool.submit(cache.encode, ref) for _ in range(7)]
            go_on.set()
            if ref is good:
                assert {id(work.result()) for work in others} == {id(first.result())}
                assert len(calls) == calls_until_now
            else:
                assert all(isinstance(work.exception(), ImageError) for work in (first, *others))
    assert (cache.decoded, cache.encoded, len(cache)) == (1, 1, 1)
    with pytest.raises(ImageError):
        cache.encode(broken)
