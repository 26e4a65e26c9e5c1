"""The one place that turns an :class:`~vrft_bench.tasks.base.ImageRef` into pixels, or into a reason why it cannot.

A model in this process is given the pixels; a server is given an image file, the stored one wherever that shows the
same pixels to every reader.

What is read is untrusted: the header is checked before anything is decoded, and whatever a broken file does to the
decoder comes out as :class:`ImageError`, so that one bad image fails one sample and never a run.

Every image becomes 8-bit RGB: transparent pixels are shown on white, and grey levels of more than 8 bits are scaled
down from the range that the file declares. EXIF orientation is not applied: COCO and LVIS annotate the stored pixel
grid, and turning the image would put every box in the wrong place.
"""

from __future__ import annotations

import base64
import hashlib
import io
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vrft_bench.tasks.data.image_files import DECODER_FAILURES, FORMATS

if TYPE_CHECKING:
    from PIL.Image import Image

    from vrft_bench.tasks.base import ImageRef

MAX_PIXELS = 178_956_970
"""Images that declare more pixels than this are refused as decompression bombs (it is Pillow's own hard limit)."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
"""Tags of the TIFF 6.0 specification, and the value of the second that makes 0 white."""

_ORIENTATION, _UPRIGHT = 0x0112, 1
"""EXIF's tag for how to turn an image before it is shown, and the value that says not to."""

_SENT_AS_STORED = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "L", "P")}
"""Formats that every server reads -> the modes in which every reader finds the same pixels."""

SentFormat = Literal["png", "jpeg"]
_SAVE_OPTIONS: dict[SentFormat, dict[str, Any]] = {
    "png": {"compress_level": 1},  # as lossless as level 6, a little larger, and several times as fast
    "jpeg": {"quality": 95, "subsampling": 0},
}


class ImageError(Exception):
    """Why one image cannot be used. Not a user error: the sample fails with this reason and the run goes on."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """A decoded RGB image, and the sha256 of the encoded file that it came from."""

    image: Image
    sha256: str


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file of ``width`` x ``height`` pixels as a server is sent it: a ``data:`` URL, in ASCII.

    ``sha256`` is that of the file that it came from; ``as_stored`` says that the URL holds that very file.
    """

    data_url: bytes
    width: int
    height: int
    sha256: str
    as_stored: bool


def load_image(ref: ImageRef, *, max_pixels: int = MAX_PIXELS) -> LoadedImage:
    """The image behind ``ref`` in 8-bit RGB on white, in stored orientation, with the size that the annotations state.

    Raises :class:`ImageError` when the file is missing, not an image, truncated, above ``max_pixels``, of another size
    than annotated (every box would be wrong), not the file whose sha256 the reference names, or holds numbers whose
    black and white no format declares (floats, 32-bit and signed integers).
    """
    return _decode(ref, max_pixels)[0]


def encode_image(ref: ImageRef, size: tuple[int, int] | None = None, kind: SentFormat = "png") -> EncodedImage:
    """The image behind ``ref`` as a file for a server, resized to ``size`` (width, height) where that is given.

    The stored file is sent unchanged if it is a JPEG or PNG that nothing has to be done to: not resized, no
    transparency, 8 bits, one frame, and no EXIF orientation by which a server might turn it. Any other is written anew
    as ``kind``, without metadata. Raises :class:`ImageError` as :func:`load_image` does.
    """
    loaded, stored = _decode(ref)
    image = loaded.image
    if stored is not None and size in (None, image.size):
        return EncodedImage(stored, *image.size, loaded.sha256, as_stored=True)
    image = _resized(image, size)
    image.info.clear()
    stream = io.BytesIO()
    image.save(stream, kind.upper(), **_SAVE_OPTIONS[kind])
    return EncodedImage(_data_url(kind, stream.getvalue()), *image.size, loaded.sha256, as_stored=False)


def _load_resized(ref: ImageRef, size: tuple[int, int] | None) -> LoadedImage:
    loaded = load_image(ref)
    return LoadedImage(_resized(loaded.image, size), loaded.sha256)


def _resized(image: Image, size: tuple[int, int] | None) -> Image:
    from PIL.Image import Resampling

    return image if size in (None, image.size) else image.resize(size, Resampling.BICUBIC)  # as Qwen's processors do


def _decode(ref: ImageRef, max_pixels: int = MAX_PIXELS) -> tuple[LoadedImage, bytes | None]:
    """As :func:`load_image`, and the stored file as a ``data:`` URL if it may be sent as it is."""
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
            return LoadedImage(_rgb(image, what), digest), _as_stored(image, encoded)
    except (ImageError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{what}: declares more pixels than the limit of {max_pixels}") from error
    except DECODER_FAILURES as error:
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


def _as_stored(image: Image, encoded: bytes) -> bytes | None:
    """The file ``encoded``, opened and read as ``image``, as a URL; ``None`` where a server might see other pixels."""
    kind = image.format or ""
    unchanged = (
        image.mode in _SENT_AS_STORED.get(kind, ())
        and not image.has_transparency_data
        and getattr(image, "n_frames", 1) == 1
        and _is_upright(image)
    )
    return _data_url(kind.lower(), encoded) if unchanged else None


def _is_upright(image: Image) -> bool:
    """Whether no reader turns ``image`` by its EXIF. Nobody knows what one makes of a broken block."""
    try:
        return bool(image.getexif().get(_ORIENTATION, _UPRIGHT) == _UPRIGHT)
    except MemoryError:
        raise
    except DECODER_FAILURES:
        return False


def _data_url(kind: str, file: bytes) -> bytes:
    return b"data:image/%s;base64,%s" % (kind.encode(), base64.b64encode(file))


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


_Key = tuple[Any, ...]
"""File or its bytes, width, height, sha256, the size that is wanted; for an encoding also its format."""


class ImageCache:
    """The most recently used images, decoded or encoded for a server, up to ``max_bytes`` of them. Thread-safe.

    Detection asks about one image up to 80 times, once per category; reading it once is most of the saving. Threads
    that want the same image at the same time share one piece of work. ``decoded``, ``resized`` and ``encoded`` count
    what was really done.
    """

    def __init__(self, max_bytes: int = 256 << 20) -> None:
        self.max_bytes = max_bytes
        self.decoded = self.resized = self.encoded = 0
        self._held: OrderedDict[_Key, LoadedImage | EncodedImage] = OrderedDict()
        self._making: dict[_Key, Future[Any]] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def load(self, ref: ImageRef, size: tuple[int, int] | None = None) -> LoadedImage:
        """As :func:`load_image`, resized to ``size`` (width, height) where given. A failure is not remembered."""
        loaded: LoadedImage = self._once((*_key(ref), size), lambda: _load_resized(ref, size))
        return loaded

    def held(self, ref: ImageRef, size: tuple[int, int] | None = None) -> LoadedImage | None:
        """What :meth:`load` gives if it is held, without any work or waiting."""
        with self._lock:
            found = self._look_up((*_key(ref), size))
        return found if isinstance(found, LoadedImage) else None

    def encode(self, ref: ImageRef, size: tuple[int, int] | None = None, kind: SentFormat = "png") -> EncodedImage:
        """As :func:`encode_image`. A failure is not remembered. The pixels on the way are not kept."""
        encoded: EncodedImage = self._once((*_key(ref), size, kind), lambda: encode_image(ref, size, kind))
        return encoded

    def held_encoding(self, ref: ImageRef, size: tuple[int, int] | None, kind: SentFormat) -> EncodedImage | None:
        """What :meth:`encode` gives if it is held, without any work or waiting."""
        with self._lock:
            found = self._look_up((*_key(ref), size, kind))
        return found if isinstance(found, EncodedImage) else None

    def _once(self, key: _Key, make: Callable[[], LoadedImage | EncodedImage]) -> Any:
        with self._lock:
            if (held := self._look_up(key)) is not None:
                return held
            others = self._making.get(key)
            if others is None:
                mine: Future[Any] = Future()
                self._making[key] = mine
        if others is not None:
            return others.result()
        try:
            made = make()
        except BaseException as error:
            with self._lock:
                del self._making[key]
            mine.set_exception(error)
            raise
        with self._lock:
            del self._making[key]
            self._hold(key, made)
        mine.set_result(made)
        return made

    def _look_up(self, key: _Key) -> LoadedImage | EncodedImage | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key]

    def _hold(self, key: _Key, made: LoadedImage | EncodedImage) -> None:
        self.decoded += 1
        self.encoded += isinstance(made, EncodedImage)
        self.resized += ((made.width, made.height) if isinstance(made, EncodedImage) else made.image.size) != key[1:3]
        self._held[key] = made
        self._bytes += _size(key, made)
        while self._bytes > self.max_bytes and len(self._held) > 1:
            dropped = self._held.popitem(last=False)
            self._bytes -= _size(*dropped)

    def __len__(self) -> int:
        return len(self._held)


def _key(ref: ImageRef) -> _Key:
    return (ref.path if ref.data is None else ref.data, ref.width, ref.height, ref.sha256)


def _size(key: _Key, made: LoadedImage | EncodedImage) -> int:
    """Bytes that the cache holds on to, those of a file in its key included."""
    stored = len(key[0]) if isinstance(key[0], bytes) else 0
    if isinstance(made, EncodedImage):
        return stored + len(made.data_url)
    return stored + made.image.width * made.image.height * 3
