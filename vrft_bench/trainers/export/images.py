"""The images of an export: resized by the profile's rule and written as PNG, each once."""

from __future__ import annotations

import hashlib
from pathlib import Path

from vrft_bench.errors import DataError
from vrft_bench.harness.images import ImageError, load_image
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.data import resized

IMAGES = "images"


class ImageFolder:
    """Writes images into ``folder/images``, named after the sha256 of the file that each comes from."""

    def __init__(self, folder: Path, profile: ModelProfile) -> None:
        self.folder = folder
        self.profile = profile
        self._written: dict[tuple[Path | str | None, int, int], str] = {}

    def add(self, ref: ImageRef) -> str:
        """The name of the image behind ``ref``, from the folder. Raises :class:`DataError` for one that cannot be read.

        A PNG holds no date and no name, so the same pixels give the same bytes.
        """
        source = ref.path if ref.data is None else hashlib.sha256(ref.data).hexdigest()
        key = source, ref.width, ref.height
        if key not in self._written:
            try:
                loaded = load_image(ref)
            except ImageError as error:
                raise DataError(
                    f"an image of the training set cannot be used: {error}",
                    fix="restore the image (`vrft-bench data check` says what is missing), or leave its samples out",
                ) from error
            name = f"{IMAGES}/{loaded.sha256[:32]}.png"
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            image = resized(loaded.image, self.profile)
            image.info.clear()
            image.save(file, "PNG")
            self._written[key] = name
        return self._written[key]


def images_digest(folder: Path) -> tuple[int, str]:
    """How many images there are in ``folder/images``, and a hash of their names and contents."""
    digest = hashlib.sha256()
    files = sorted((folder / IMAGES).glob("*.png"))
    for file in files:
        digest.update(f"{file.name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return len(files), digest.hexdigest()
