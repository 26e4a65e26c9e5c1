"""The one place that turns an :class:`~vrft_bench.tasks.base.ImageRef` into pixels, or into a reason why it cannot.

What is read is untrusted: the header is checked before anything is decoded, and whatever a broken file does to the
decoder comes out as :class:`ImageError`, so that one bad image fails one sample and never a run.

Every image becomes 8-bit RGB: transparent pixels are shown on white, and grey levels of more than 8 bits are scaled
down from the range that the file declares. EXIF orientation is not applied: COCO and LVIS annotate the stored pixel
grid, and turning the image would put every box in the wrong place.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

    from vrft_bench.tasks.base import ImageRef

MAX_PIXELS = 178_956_970
"""Images that declare more pixels than this are refused as decompression bombs (it is Pillow's own hard limit)."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""Formats that are opened. Left out on purpose: those that run another program to decode (EPS) or fetch files."""

_DECODER_FAILURES = (Exception,)
"""What a decoder may raise about a broken file. Only a lack of memory is not the file's fault, and goes through."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Tags of the TIFF 6.0 specification, and the value of the second that makes 0 white."""


class ImageError(Exception):
    """Why one image cannot be used. Not a user error: the sample fails with this reason and the run goes on."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded RGB image, and the sha256 of the encoded file that it came from."""

    image: Image
    sha256: str


def load_image(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The image behind ``ref`` in 8-bit RGB on white, in stored orientation, with the size that the annotations state.

    Raises :class:`ImageError` when the file is missing, not an image, truncated, above ``max_pixels``, of another size
    than annotated (every box would be wrong), not the file whose sha256 the reference names, or holds numbers whose
    black and white no format declares (floats, 32-bit and signed integers).
    """
    from PIL import Image

    what = ref.path.name if ref.path is not None else "image data"
    encoded = _encoded(ref)
    digest = hashlib.sha256(encoded).hexdigest()
    if ref.sha256 is not None and ref.sha256 != digest:
        raise ImageError(f"{what}: the file changed (sha256 {digest[:12]}..., expected {ref.sha256[:12]}...)")
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise ImageError(f"{what}: declares {width}x{height} pixels, above the limit of {max_pixels}")
            if (width, height) != (ref.width, ref.height):
                raise ImageError(
                    f"{what}: is {width}x{height} pixels, but its annotation says {ref.width}x{ref.height}"
                )
            return LoadedImage(_rgb(image, what), digest)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{what}: declares more pixels than the limit of {max_pixels}") from error
    except _DECODER_FAILURES as error:
        raise ImageError(f"{what}: not a readable image ({str(error) or type(error).__name__})") from error


def _rgb(image: Image, what: str) -> Image:
    """``image`` in 8-bit RGB, with what is transparent on white."""
    from PIL import Image as Pillow

    image.load()
    if image.mode == "F" or image.mode.startswith("I"):
        return Pillow.fromarray(_grey_levels(image, what)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    shown = Pillow.new("RGBA", image.size, "white")
    shown.alpha_composite(image.convert("RGBA"))
    return shown.convert("RGB")


def _grey_levels(image: Image, what: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The (height, width) levels 0 to 255 of a grey image whose pixels have more than 8 bits.

    ``convert("RGB")`` would clip them at 255, which leaves a 16-bit image all white. Raises :class:`ImageError` where
    the format does not say which number is white.
    """
    tags: Any = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        white = 2 ** int(tags.get(_BITS_PER_SAMPLE, (16,))[0]) - 1
    elif image.mode == "I" and image.format in ("PNG", "PPM"):  # 16-bit files, held by Pillow in 32 bits
        white = 65_535
    else:
        raise ImageError(f"{what}: its pixels are numbers without a declared black and white (mode {image.mode})")
    scaled = (np.asarray(image).astype(np.uint32) * 255 + white // 2) // white
    levels: np.ndarray[Any, np.dtype[np.uint8]] = scaled.astype(np.uint8)
    return 255 - levels if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else levels


def _encoded(ref: ImageRef) -> bytes:
    if ref.data is not None:
        return ref.data
    if ref.path is None:
        raise ImageError("the sample names no image")
    path = Path(ref.path)
    try:
        if not path.is_file():
            raise ImageError(f"{path.name}: no such file in {path.parent}")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path.name}: cannot be read ({error.strerror})") from error


class ImageCache:
    """The most recently used decoded images, up to ``max_bytes`` of pixels. Thread-safe.

    Detection asks about one image up to 80 times, once per category; decoding it once is most of the saving.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes = max_bytes
        self._held: OrderedDict[tuple[object, ...], LoadedImage] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def load(self, ref: ImageRef) -> LoadedImage:
        """As :func:`load_image`. A failure is not remembered."""
        key = (ref.path if ref.data is None else ref.data, ref.width, ref.height, ref.sha256)
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key]
        loaded = load_image(ref)
        with self._lock:
            if key not in self._held:
                self._held[key] = loaded
                self._bytes += _pixel_bytes(loaded)
            while self._bytes > self.max_bytes and len(self._held) > 1:
                _, dropped = self._held.popitem(last=False)
                self._bytes -= _pixel_bytes(dropped)
        return loaded

    def __len__(self) -> int:
        return len(self._held)


def _pixel_bytes(loaded: LoadedImage) -> int:
    return loaded.image.width * loaded.image.height * 3
