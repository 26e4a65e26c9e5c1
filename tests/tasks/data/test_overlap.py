"""Shared images are found: the same pixels in another file, and the same picture scaled or recompressed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import ClassTarget, ImageRef, Sample
from vrft_bench.tasks.data.overlap import (
    Named,
    SharedPair,
    _bits,
    _close,
    difference_hashes,
    find_overlap,
    images_in,
    images_of,
)


def picture(seed: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Smooth noise, as photographs are smooth."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def sets(tmp_path: Path) -> tuple[Path, Path]:
    train, test = tmp_path / "train", tmp_path / "test"
    (train / "sub").mkdir(parents=True)
    test.mkdir()
    (test / "notes.txt").write_text("no image")
    for seed in range(5):
        picture(seed).save(train / "sub" / f"{seed}.png")
        picture(100 + seed).save(test / f"{seed}.png")
    picture(3).save(test / "same.BMP")
    picture(4).resize((32, 24)).save(test / "smaller.jpg", quality=60)
    return train, test


def test_equal_pixels_and_near_duplicates_are_told_apart(sets: tuple[Path, Path]) -> None:
    report = find_overlap(images_in(sets[0]), images_in(sets[1]))
    assert report.exact == (SharedPair("sub/3.png", "same.BMP", 0, True),)
    assert [(pair.a, pair.b) for pair in report.near] == [("sub/4.png", "smaller.jpg")]
    assert report.near[0].distance <= 4
    assert (report.images_a, report.images_b, report.unreadable) == (5, 7, ())


def test_threshold_0_wants_equal_hashes(sets: tuple[Path, Path]) -> None:
    everything = find_overlap(images_in(sets[0]), images_in(sets[1]), threshold=64)
    assert len(everything.pairs) == 5 * 7
    assert [pair.distance for pair in everything.near] == sorted(pair.distance for pair in everything.near)
    none = find_overlap(images_in(sets[0]), images_in(sets[1]), threshold=0)
    assert all(pair.distance == 0 for pair in none.pairs)


def test_a_turned_picture_is_another_one(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.png")
    (tmp_path / "b").mkdir()
    picture(1).transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b" / "a.png")
    a = [Named("a", ImageRef(0, 0, tmp_path / "a.png"))]
    assert find_overlap(a, images_in(tmp_path / "b")).pairs == ()


def test_the_same_bytes_in_another_shape_are_other_pixels(tmp_path: Path) -> None:
    for side, size in (("a", (32, 16)), ("b", (16, 32))):
        (tmp_path / side).mkdir()
        Image.new("RGB", size, "red").save(tmp_path / side / "1.png")
    assert find_overlap(images_in(tmp_path / "a"), images_in(tmp_path / "b")).exact == ()


def test_a_mirrored_picture_is_told_as_such(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    for seed in range(3):
        picture(seed).save(tmp_path / "a" / f"{seed}.png")
    picture(1).transpose(Image.Transpose.FLIP_LEFT_RIGHT).resize((128, 96)).save(tmp_path / "b" / "1.jpg")
    (pair,) = find_overlap(images_in(tmp_path / "a"), images_in(tmp_path / "b")).pairs
    assert (pair.a, pair.b, pair.exact, pair.mirrored) == ("1.png", "1.jpg", False, True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_compared_as_they_are_shown(tmp_path: Path, orientation: int) -> None:
    """One file is stored lying and turned by its EXIF, the other stored upright, as many tools rewrite it."""
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture(1).save(tmp_path / "a" / "lying.png", exif=exif)
    with Image.open(tmp_path / "a" / "lying.png") as image:
        ImageOps.exif_transpose(image).save(tmp_path / "b" / "upright.png")
    assert find_overlap(images_in(tmp_path / "a"), images_in(tmp_path / "b")).exact == (
        SharedPair("lying.png", "upright.png", 0, True),
    )


def test_a_broken_exif_turns_nothing(tmp_path: Path) -> None:
    picture(1).save(tmp_path / "a.webp", exif=b"Exif\0\0no TIFF here")
    report = find_overlap(images_in(tmp_path), images_in(tmp_path))
    assert (len(report.exact), report.unreadable) == (1, ())


def test_a_file_of_a_strange_format_is_not_opened(tmp_path: Path) -> None:
    """What Pillow would hand to another program, under a name that says JPEG."""
    picture(1).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    report = find_overlap(images_in(tmp_path), images_in(tmp_path))
    assert (report.unreadable, report.pairs) == (("a.jpg", "a.jpg"), ())


def test_the_hash_of_a_known_picture() -> None:
    """Brighter to the right in the upper half, darker in the lower one."""
    ramp = np.tile(np.arange(9, dtype=np.uint8) * 20, (8, 1))
    ramp[4:] = ramp[4:, ::-1]
    assert difference_hashes(Image.fromarray(ramp)) == (0xFFFFFFFF_00000000, 0x00000000_FFFFFFFF)


def test_unreadable_images_are_named(sets: tuple[Path, Path]) -> None:
    (sets[1] / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    report = find_overlap(images_in(sets[0]), images_in(sets[1]))
    assert report.unreadable == ("broken.png",)
    assert len(report.pairs) == 2


def test_images_of_samples_are_taken_once(tmp_path: Path) -> None:
    data = (tmp_path / "a.png", tmp_path / "b.png")
    for number, path in enumerate(data):
        picture(number).save(path)
    refs = [ImageRef(64, 48, data[0]), ImageRef(64, 48, data[0]), ImageRef(64, 48, data=data[1].read_bytes())]
    samples = [Sample(str(index), ref, {}, ClassTarget("a")) for index, ref in enumerate(refs)]
    assert [item.name for item in images_of(samples)] == ["a.png", "2"]
    assert find_overlap(images_of(samples), images_of(samples)).exact == (
        SharedPair("a.png", "a.png", 0, True),
        SharedPair("2", "2", 0, True),
    )


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no images"):
        list(images_in(tmp_path))


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20), st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_every_close_pair_is_found(a: list[int], b: list[int]) -> None:
    close = set(_close(np.array(a, dtype=np.uint64), np.array(b, dtype=np.uint64), 30))
    assert close == {
        (i, j, (x ^ y).bit_count()) for i, x in enumerate(a) for j, y in enumerate(b) if (x ^ y).bit_count() <= 30
    }
    assert _bits(np.array(a, dtype=np.uint64)).tolist() == [x.bit_count() for x in a]


def test_close_pairs_are_found_across_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrft_bench.tasks.data.overlap._CELLS", 7)
    hashes = np.arange(10, dtype=np.uint64)
    assert [(i, j) for i, j, _ in _close(hashes, hashes, 0)] == [(i, i) for i in range(10)]


def test_real_photographs_do_not_look_alike(tinycoco: Path) -> None:
    report = find_overlap(images_in(tinycoco / "images" / "train2017"), images_in(tinycoco / "images" / "val2017"))
    assert (report.images_a, report.images_b, report.pairs) == (32, 6, ())


def test_the_rows_of_a_dataset_are_compared(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    picture(1).save(tmp_path / "a" / "1.png")
    picture(2).save(tmp_path / "a" / "2.png")
    (tmp_path / "b.json").write_text('[{"image": "a/2.png", "problem": "?", "solution": "cat"}]')
    report = find_overlap(images_in(tmp_path / "b.json"), images_in(tmp_path / "a"))
    assert report.exact == (SharedPair("row 0", "2.png", 0, True),)
