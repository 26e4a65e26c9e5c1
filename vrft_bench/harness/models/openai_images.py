"""How the images of a run reach a server: in the request or by reference, and resized as the profile says."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
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


class ImageSender:
    """Makes what ``image_url`` says. For one event loop, which it never keeps waiting."""

    def __init__(self, options: OpenAIOptions, cache: ImageCache) -> None:
        self._options = options
        self._cache = cache
        self._threads = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1), thread_name_prefix="images")
        self._making: dict[tuple[ImageRef, tuple[int, int] | None], asyncio.Future[EncodedImage]] = {}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(self, ref: ImageRef, profile: ModelProfile) -> SentImage:
        """``ref`` for a model of ``profile``.

        Raises :class:`ImageError` for an image that cannot be used, and :class:`UserError` for one that lies outside
        ``image_root``.
        """
        resized = self._options.resize == "profile"
        size, processed = sizes(ref.width, ref.height, profile) if resized else (None, None)
        encoded = self._cache.held_encoding(ref, size, self._options.image_format)
        if encoded is None:
            encoded = await self._encode(ref, size)
        url = encoded.data_url
        if self._options.image_url != "data" and encoded.as_stored and ref.path is not None:
            url = json.dumps(self._reference(ref.path))[1:-1].encode()
        return SentImage(url, processed, encoded.sha256)

    async def _encode(self, ref: ImageRef, size: tuple[int, int] | None) -> EncodedImage:
        """Encode in a thread; requests that want the same image meanwhile wait for it without taking up another."""
        key = (ref, size)
        if key not in self._making:
            work = partial(self._cache.encode, ref, size, self._options.image_format)
            self._making[key] = asyncio.get_running_loop().run_in_executor(self._threads, work)
            self._making[key].add_done_callback(lambda _: self._making.pop(key))
        return await asyncio.shield(self._making[key])

    def _reference(self, path: Path) -> str:
        path = path.resolve()
        root, base = self._options.image_root, self._options.image_base_url
        if root is None or base is None:
            return path.as_uri()
        if not path.is_relative_to(root):
            raise UserError(f"{path} does not lie in image_root {root}", fix="give a folder that holds all images")
        return f"{base}/{quote(path.relative_to(root).as_posix())}"


@lru_cache(maxsize=1024)
def sizes(width: int, height: int, profile: ModelProfile) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The size to send an image in (``None``: as it is), and that in which the model will see it (``None``: unknown).

    A server's processor rounds the sides to the family's ``factor`` by itself, whatever its pixel limits are, as long
    as the image is within them. So only an image outside the profile's limits is resized here, and to a size that the
    server's own resizing leaves alone. Raises :class:`ImageError` for an image that no processor takes.
    """
    if profile.factor is None:
        return None, None
    try:
        processed = profile.processed_size(width, height)
        rounded = replace(profile, min_pixels=1, max_pixels=sys.maxsize).processed_size(width, height)
    except UserError as error:
        raise ImageError(error.message) from error
    return (None if processed == rounded else processed), processed
