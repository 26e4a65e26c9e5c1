"""The images of a run as an engine in this process is given them: decoded, and resized as the profile says."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from vrft_bench.errors import UserError
from vrft_bench.harness.images import ImageCache, ImageError, LoadedImage
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import ModelProfile

WORKERS = 4
"""Threads that decode and resize. Pillow lets go of the interpreter lock in both."""

Size = tuple[int, int]
"""(width, height)"""


class ImageLoader:
    """Images out of ``cache`` for one event loop, which it never keeps waiting."""

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._threads = ThreadPoolExecutor(min(WORKERS, os.cpu_count() or 1), thread_name_prefix="images")
        self._making: dict[tuple[ImageRef, Size | None], asyncio.Future[LoadedImage]] = {}

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def load(self, ref: ImageRef, size: Size | None) -> LoadedImage:
        """The image in ``size``. Raises :class:`ImageError` for one that cannot be used.

        It is made in a thread; those who want the same image meanwhile wait for it without taking up another.
        """
        held = self._cache.held(ref, size)
        if held is not None:
            return held
        key = (ref, size)
        if key not in self._making:
            self._making[key] = asyncio.get_running_loop().run_in_executor(self._threads, self._cache.load, ref, size)
            self._making[key].add_done_callback(lambda _: self._making.pop(key))
        return await asyncio.shield(self._making[key])


@lru_cache(maxsize=1024)
def sizes(width: int, height: int, profile: ModelProfile) -> tuple[Size | None, Size | None]:
    """The size to give an image in (``None``: as it is), and that in which the model sees it (``None``: unknown).

    An image is given in the size that the engine's own resizing leaves alone, so that the same library resizes for
    every backend. Very few sizes have none (a strip whose short side may not shrink with the other).
    Raises :class:`ImageError` for an image that no processor takes.
    """
    if profile.factor is None:
        return None, None
    try:
        processed = profile.processed_size(width, height)
        is_left_alone = profile.processed_size(*processed) == processed
    except UserError as error:
        raise ImageError(error.message) from error
    return (processed if is_left_alone else None), processed
