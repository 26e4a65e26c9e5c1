"""Images for replicas that cannot read them themselves: through Ray's object store, where each is put once.

Detection asks about one image up to 80 times, once per category.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

from vrft_bench.harness.models.base import Request
from vrft_bench.tasks.base import ImageRef


class SharedImages:
    """Encoded images in Ray's object store: each is put there once, and the most recently used are kept."""

    MAX_BYTES = 64 << 20

    def __init__(self) -> None:
        self._held: OrderedDict[Path | bytes, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def reference(self, image: ImageRef) -> Any | None:
        """The reference of the encoded file; ``None`` where it cannot be read here either."""
        import ray

        key = image.data if image.data is not None else image.path
        if key is None:
            return None
        if key in self._held:
            self._held.move_to_end(key)
            return self._held[key][0]
        try:
            file = key if isinstance(key, bytes) else key.read_bytes()
        except OSError:
            return None
        reference = ray.put(file)
        self._held[key] = reference, len(file)
        self._bytes += len(file)
        while self._bytes > self.MAX_BYTES and len(self._held) > 1:
            _, (_, size) = self._held.popitem(last=False)
            self._bytes -= size
        return reference


def without_file(request: Request) -> Request:
    """``request`` with no image file in it, to travel beside one."""
    return _with_image(request, replace(request.sample.image, data=None))


def with_file(request: Request, file: bytes) -> Request:
    """``request`` about the encoded image ``file``."""
    return _with_image(request, replace(request.sample.image, path=None, data=file))


def _with_image(request: Request, image: ImageRef) -> Request:
    return replace(request, sample=replace(request.sample, image=image))
