"""How the images of a run reach a server: in the request or by reference, and resized as the profile says.

Requests are made ready a few hundred ahead. An image may have a kilobyte or a hundred megabytes, so what requests hold
is bounded in bytes too.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from urllib.parse import quote

from vrft_bench.errors import UserError
from vrft_bench.harness.images import EncodedImage, ImageCache, ImageError
from vrft_bench.harness.models.openai_chat import SentImage
from vrft_bench.harness.models.openai_options import OpenAIOptions
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import ModelProfile

WORKERS = 4
"""Threads that decode and encode. Pillow lets go of the interpreter lock in both."""

MOST_HELD = 256 << 20
"""Bytes of encoded images that requests hold, each image counted once. No more are made while they hold as much."""


class ImageSender:
    """Makes what ``image_url`` says. For one event loop, which it never keeps waiting.

    ``held_bytes`` is what the requests under way hold.
    """

    def __init__(self, options: OpenAIOptions, cache: ImageCache) -> None:
        workers = min(WORKERS, os.cpu_count() or 1)
        self.held_bytes = 0
        self._options = options
        self._cache = cache
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="images")
        self._turns = asyncio.Semaphore(workers)
        self._making: dict[tuple[ImageRef, tuple[int, int] | None], _Making] = {}
        self._holders: dict[int, int] = {}
        self._room = asyncio.Event()
        self._room.set()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def hold(self, ref: ImageRef, profile: ModelProfile) -> SentImage:
        """``ref`` for a model of ``profile``, to be :meth:`let_go`.

        Waits where it has to be made and others hold :data:`MOST_HELD` bytes. Raises :class:`ImageError` for an image
        that cannot be used, and :class:`UserError` for one that lies outside ``image_root``.
        """
        resized = self._options.resize == "profile"
        size, processed = sizes(ref.width, ref.height, profile) if resized else (None, None)
        encoded = self._cache.held_encoding(ref, size, self._options.image_format)
        if encoded is None:
            encoded = await self._encoded(ref, size)
        url = encoded.data_url
        if self._options.image_url != "data" and encoded.as_stored and ref.path is not None:
            url = json.dumps(self._reference(ref.path))[1:-1].encode()
        holders = self._holders.get(id(url), 0)
        self._holders[id(url)] = holders + 1
        if not holders:
            self._count(len(url))
        return SentImage(url, processed, encoded.sha256)

    def let_go(self, image: SentImage) -> None:
        url = image.url
        self._holders[id(url)] -= 1
        if not self._holders[id(url)]:
            del self._holders[id(url)]
            self._count(-len(url))

    async def _encoded(self, ref: ImageRef, size: tuple[int, int] | None) -> EncodedImage:
        """Requests that want the same image meanwhile wait for it without taking up another thread."""
        key = (ref, size)
        making = self._making.get(key)
        if making is None:
            making = self._making[key] = _Making(asyncio.ensure_future(self._encode_in_turn(ref, size)))
        making.wanted_by += 1
        try:
            return await asyncio.shield(making.task)
        finally:
            making.wanted_by -= 1
            if not making.wanted_by:
                making.task.cancel()
                del self._making[key]

    async def _encode_in_turn(self, ref: ImageRef, size: tuple[int, int] | None) -> EncodedImage:
        async with self._turns:
            await self._room.wait()
            work = partial(self._cache.encode, ref, size, self._options.image_format)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _count(self, more: int) -> None:
        self.held_bytes += more
        if self.held_bytes < MOST_HELD:
            self._room.set()
        else:
            self._room.clear()

    def _reference(self, path: Path) -> str:
        path = path.resolve()
        root, base = self._options.image_root, self._options.image_base_url
        if root is None or base is None:
            return path.as_uri()
        if not path.is_relative_to(root):
            raise UserError(f"{path} does not lie in image_root {root}", fix="give a folder that holds all images")
        return f"{base}/{quote(path.relative_to(root).as_posix())}"


@dataclass(slots=True)
class _Making:
    """An image that is being made, and how many requests wait for it: when the last gives up, so does the work."""

    task: asyncio.Future[EncodedImage]
    wanted_by: int = 0


@lru_cache(maxsize=1024)
def sizes(width: int, height: int, profile: ModelProfile) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The size to send an image in (``None``: as it is), and that in which the model will see it (``None``: unknown).

    A server's processor rounds the sides to the family's ``factor`` by itself, whatever its pixel limits are, as long
    as the image is within them. So only an image outside the profile's limits is resized here, and to a size that the
    server's own resizing leaves alone. The thinnest strips have none: rounding to whole patches takes them below the
    smallest area, and the server enlarges them again. Raises :class:`ImageError` for such a strip where boxes are in
    pixels of the resized image, and for an image that no processor takes.
    """
    if profile.factor is None:
        return None, None
    try:
        processed = profile.processed_size(width, height)
        rounded = replace(profile, min_pixels=1, max_pixels=sys.maxsize).processed_size(width, height)
        settles = profile.processed_size(*processed) == processed
    except UserError as error:
        raise ImageError(error.message) from error
    if settles or processed == rounded:
        return (None if processed == rounded else processed), processed
    if profile.convention == "abs_resized":
        raise ImageError(
            f"an image of {width}x{height} pixels is too thin to be resized to {profile.min_pixels} to "
            f"{profile.max_pixels} pixels"
        )
    return processed, None
