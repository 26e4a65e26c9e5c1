"""Images that two sets share: the same pixels, or nearly the same by a perceptual hash.

*Exact*: equal sha256 of size and decoded RGB pixels, so that a picture saved twice without loss counts as one whatever
its file says. *Near*: a Hamming distance of at most ``threshold`` between 64-bit difference hashes, which survive
scaling and recompression (dHash: 9x8 grey levels, a bit for each pixel that is brighter than its left neighbour;
N. Krawetz, "Kind of Like That", 2013), also between an image and the mirrored other. Near pairs are candidates to look
at: pictures with little in them have similar hashes without being alike. Crops and other turns are not found.

Pictures are compared as they are shown, turned as their EXIF says.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import ImageRef, Sample
from vrft_bench.tasks.data.image_files import DECODER_FAILURES, FORMATS, IMAGE_SUFFIXES
from vrft_bench.tasks.data.rows import find_rows, is_rows
from vrft_bench.tasks.data.virft import row_image

THRESHOLD = 4
"""Bits of 64 that near-duplicates may differ in."""

_CELLS = 4_000_000
"""Pairs that are compared at once: 32 MB."""


@dataclass(frozen=True, slots=True)
class Named:
    """An image and the name that it is reported by."""

    name: str
    image: ImageRef


@dataclass(frozen=True, slots=True)
class SharedPair:
    """An image of A and one of B; ``distance`` is in bits, and 0 for equal pixels.

    ``mirrored``: only one of them mirrored, left to right, is like the other.
    """

    a: str
    b: str
    distance: int
    exact: bool
    mirrored: bool = False


@dataclass(frozen=True)
class OverlapReport:
    """What two sets share: every exact pair, and every near pair that is not exact."""

    images_a: int
    images_b: int
    threshold: int
    pairs: tuple[SharedPair, ...]
    unreadable: tuple[str, ...]

    @property
    def exact(self) -> tuple[SharedPair, ...]:
        return tuple(pair for pair in self.pairs if pair.exact)

    @property
    def near(self) -> tuple[SharedPair, ...]:
        return tuple(pair for pair in self.pairs if not pair.exact)

    def to_json(self) -> dict[str, Any]:
        return {
            "images": [self.images_a, self.images_b],
            "threshold": self.threshold,
            "exact": [{"a": pair.a, "b": pair.b} for pair in self.exact],
            "near": [
                {"a": pair.a, "b": pair.b, "distance": pair.distance, "mirrored": pair.mirrored} for pair in self.near
            ],
            "unreadable": list(self.unreadable),
        }


def images_in(folder: Path) -> Iterator[Named]:
    """Every image file under ``folder``, by path, or every row's of a ViRFT dataset (a file or folder of rows).

    Raises :class:`DataError` where there is none.
    """
    if is_rows(folder):
        rows = find_rows(folder, "train")
        beside = folder.parent if folder.is_file() else folder
        for index, image in enumerate(rows.images()):
            yield Named(f"row {index}", row_image(image, beside, f"{folder}: row {index}"))
        return
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not paths:
        raise DataError(
            f"{folder} holds no images", fix=f"name a folder with {', '.join(sorted(IMAGE_SUFFIXES))} files"
        )
    for path in paths:
        yield Named(path.relative_to(folder).as_posix(), ImageRef(0, 0, path))


def images_of(samples: Iterable[Sample]) -> Iterator[Named]:
    """The images of ``samples``, each once, by the id of the first sample that has it."""
    seen: set[Any] = set()
    for sample in samples:
        image = sample.image
        key = image.path if image.path is not None else image.sha256 or image.data
        if key not in seen:
            seen.add(key)
            yield Named(image.path.name if image.path is not None else sample.id, image)


def find_overlap(a: Iterable[Named], b: Iterable[Named], *, threshold: int = THRESHOLD) -> OverlapReport:
    """What ``a`` and ``b`` share. Pairs come by distance, then in the order of the sets.

    Every image is decoded once and none is kept: memory grows by 48 bytes and a name per image. Images that cannot be
    read are named in the report and compared with nothing.
    """
    unreadable: list[str] = []
    first, second = _hashed(a, unreadable), _hashed(b, unreadable)
    by_pixels: dict[bytes, list[int]] = {}
    for index, pixels in enumerate(second.pixels):
        by_pixels.setdefault(pixels, []).append(index)
    exact = {(i, j) for i, pixels in enumerate(first.pixels) for j in by_pixels.get(pixels, ())}
    pairs = [SharedPair(first.names[i], second.names[j], 0, True) for i, j in sorted(exact)]
    near = {(i, j): (d, False) for i, j, d in _close(first.hashes, second.hashes, threshold) if (i, j) not in exact}
    for i, j, distance in _close(first.hashes, second.mirrored, threshold):
        if (i, j) not in exact:
            near.setdefault((i, j), (distance, True))
    pairs += [
        SharedPair(first.names[i], second.names[j], distance, False, mirrored)
        for (distance, mirrored), (i, j) in sorted((how, which) for which, how in near.items())
    ]
    return OverlapReport(len(first.names), len(second.names), threshold, tuple(pairs), tuple(unreadable))


def difference_hashes(image: Any) -> tuple[int, int]:
    """The 64-bit dHash of a Pillow image, row by row, the first pixel in the highest bit; and that of its mirror."""
    from PIL import Image

    grey = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    upright, mirrored = (
        int.from_bytes(np.packbits(levels[:, 1:] > levels[:, :-1]).tobytes(), "big") for levels in (grey, grey[:, ::-1])
    )
    return upright, mirrored


@dataclass(frozen=True)
class _Hashed:
    names: list[str]
    pixels: list[bytes]
    hashes: npt.NDArray[np.uint64]
    mirrored: npt.NDArray[np.uint64]


def _hashed(images: Iterable[Named], unreadable: list[str]) -> _Hashed:
    names, pixels, hashes, mirrored = [], [], [], []
    for item in images:
        found = _hashes(item.image)
        if found is None:
            unreadable.append(item.name)
            continue
        names.append(item.name)
        pixels.append(found[0])
        hashes.append(found[1])
        mirrored.append(found[2])
    return _Hashed(names, pixels, np.array(hashes, dtype=np.uint64), np.array(mirrored, dtype=np.uint64))


def _hashes(ref: ImageRef) -> tuple[bytes, int, int] | None:
    """(sha256 of size and pixels, dHash, its mirror's dHash); ``None`` for an image that cannot be read."""
    from PIL import Image

    file = io.BytesIO(ref.data) if ref.data is not None else ref.path or ""
    try:
        with Image.open(file, formats=FORMATS) as image:
            rgb = _as_shown(image).convert("RGB")
    except MemoryError:
        raise
    except DECODER_FAILURES:
        return None
    return hashlib.sha256(b"%dx%d:" % rgb.size + rgb.tobytes()).digest(), *difference_hashes(rgb)


def _as_shown(image: Any) -> Any:
    """``image`` turned as its EXIF says; as it is where that is broken."""
    from PIL import ImageOps

    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except DECODER_FAILURES:
        return image


def _close(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64], threshold: int) -> Iterator[tuple[int, int, int]]:
    """(index in a, index in b, distance) of every pair within ``threshold`` bits."""
    if not len(a) or not len(b):
        return
    rows = max(1, _CELLS // len(b))
    for start in range(0, len(a), rows):
        distances = _bits(a[start : start + rows, None] ^ b[None, :])
        for i, j in np.argwhere(distances <= threshold).tolist():
            yield start + i, j, int(distances[i, j])


_M1, _M2, _M4 = (np.uint64(mask) for mask in (0x5555555555555555, 0x3333333333333333, 0x0F0F0F0F0F0F0F0F))


def _bits(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """How many bits are set in each number, by sums of ever wider fields (numpy 1 has no function for it)."""
    one, two, four, top = (np.uint64(shift) for shift in (1, 2, 4, 56))
    values = values - ((values >> one) & _M1)
    values = (values & _M2) + ((values >> two) & _M2)
    values = (values + (values >> four)) & _M4
    return (values * np.uint64(0x0101010101010101)) >> top
