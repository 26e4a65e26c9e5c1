"""Class folders as a classification :class:`Dataset`: the folder's name is the class.

::

    pets37/val/abyssinian/cat_001.jpg   -> label "abyssinian"
    pets37/val/scottish_terrier/17.jpg  -> label "scottish_terrier"
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vrft_bench.errors import DataError, UserError, did_you_mean
from vrft_bench.tasks.base import ClassTarget, Dataset, ImageRef, Sample
from vrft_bench.tasks.data.image_files import IMAGE_SUFFIXES, check_text, image_size
from vrft_bench.tasks.data.questions import fold

SAMPLE_SUBJECT = "coloured shape"
"""What a classification task asks for on the sample data, whose classes are never flowers or cars."""


def load_class_folders(folder: Path, split: str, *, categories: Sequence[str] = (), is_sample: bool = False) -> Dataset:
    """One question per image under ``folder/<class>/``, by path; the options are the names of all chosen classes.

    A sample's id is its path relative to ``folder``. Files that are not images by their suffix, and hidden ones, are
    left out. ``categories`` chooses classes, ignoring case and underscores; ``split`` is only what
    :attr:`Dataset.split` says. Sizes are read from the image headers while iterating.

    Raises :class:`DataError` for a folder that is missing or has no class folder with images, :class:`UserError` for an
    unknown class.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", fix="name a folder that holds one folder per class")
    found = sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    for name in found:
        check_text(name, f"{folder} has the class folder")
    classes = _chosen(categories, found, folder)
    images = {name: _images(folder / name) for name in classes}
    if not any(images.values()):
        raise DataError(
            f"{folder} has no class folder with images in it",
            fix=f"put images ({', '.join(sorted(IMAGE_SUFFIXES))}) into a folder per class: {folder}/<class>/",
        )
    fields = {"options": ", ".join(classes)} | ({"subject": SAMPLE_SUBJECT} if is_sample else {})

    def samples() -> Iterator[Sample]:
        for name in sorted(classes):
            for path in images[name]:
                yield Sample(
                    path.relative_to(folder).as_posix(),
                    ImageRef(*image_size(path), path),
                    fields,
                    ClassTarget(name),
                )

    empty = [name for name in classes if not images[name]]
    notes = (f"no images in the class folders: {', '.join(empty)}",) if empty else ()
    return Dataset(split, classes, samples, is_sample=is_sample, notes=notes)


def _chosen(categories: Sequence[str], found: Sequence[str], folder: Path) -> tuple[str, ...]:
    if not categories:
        return tuple(found)
    folded = {fold(name): name for name in found}
    for name in categories:
        if fold(name) not in folded:
            raise UserError(
                f"{folder} has no class {name!r}{did_you_mean(name, found)}",
                fix=f"choose from its class folders: {', '.join(found[:8])}" + (", ..." if len(found) > 8 else ""),
            )
    return tuple(dict.fromkeys(folded[fold(name)] for name in categories))


def _images(folder: Path) -> list[Path]:
    images = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    for path in images:
        check_text(path.name, f"{folder} has the file")
    return images
