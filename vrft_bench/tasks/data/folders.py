"""A classification :class:`Dataset` from class folders, where the folder's name is the class, or from image lists.

::

    pets37/val/abyssinian/cat_001.jpg   -> label "abyssinian"
    pets37/val/scottish_terrier/17.jpg  -> label "scottish_terrier"

Lists are those that the owners of the four benchmark sets publish (see :mod:`~vrft_bench.tasks.data.class_lists`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from vrft_bench.errors import DataError, UserError, did_you_mean
from vrft_bench.tasks.base import ClassTarget, Dataset, ImageRef, Sample
from vrft_bench.tasks.data.class_lists import VAL_IS_TEST, ClassList, read_class_list
from vrft_bench.tasks.data.image_files import IMAGE_SUFFIXES, check_some_exist, check_text, find_image, image_size
from vrft_bench.tasks.data.questions import fold

_Images = dict[str, list[tuple[str, Path]]]
"""Class -> the sample id and the file of each of its images."""

SAMPLE_SUBJECT = "coloured shape"
"""What a classification task asks for on the sample data, whose classes are never flowers or cars."""


def load_class_folders(folder: Path, split: str, *, categories: Sequence[str] = (), is_sample: bool = False) -> Dataset:
    """One question per image under ``folder/<class>/``, by path; the options are the names of all chosen classes.

    Where ``folder`` holds a set as its owners publish it, the images are those of its list of ``split``, class by class
    in the order of the list; for class folders ``split`` is only what :attr:`Dataset.split` says. A sample's id is the
    name that the list has for it, wherever the owner's copy keeps the file, or its path relative to ``folder``. Of
    class folders, files that are not images by their suffix, and hidden ones, are left out. ``categories`` chooses
    classes, ignoring case and underscores. Sizes are read from the image headers while iterating.

    Raises :class:`DataError` for a folder that is missing or has neither lists nor a class folder with images,
    :class:`UserError` for an unknown class.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}", fix="name a folder that holds one folder per class")
    listed = read_class_list(folder, split)
    classes, images = _from_list(listed, folder, categories) if listed else _from_folders(folder, categories)
    fields = {"options": ", ".join(classes)} | ({"subject": SAMPLE_SUBJECT} if is_sample else {})

    def samples() -> Iterator[Sample]:
        for name in sorted(classes):
            for sample_id, path in images[name]:
                yield Sample(sample_id, ImageRef(*image_size(path), path), fields, ClassTarget(name))

    notes = []
    if empty := [name for name in classes if not images[name]]:
        notes.append(f"no images in the class folders: {', '.join(empty)}")
    if listed and listed.note is not None:
        notes.append(listed.note)
    elif not listed and (split, folder.name) == ("val", "test"):
        notes.append(VAL_IS_TEST)
    return Dataset(split, classes, samples, is_sample=is_sample, notes=tuple(notes))


def _from_folders(folder: Path, categories: Sequence[str]) -> tuple[tuple[str, ...], _Images]:
    found = sorted(item.name for item in folder.iterdir() if item.is_dir() and not item.name.startswith("."))
    for name in found:
        check_text(name, f"{folder} has the class folder")
    classes = _chosen(categories, found, folder)
    images = {name: [(f"{name}/{path.name}", path) for path in _images(folder / name)] for name in classes}
    if not any(images.values()):
        raise DataError(
            f"{folder} has no class folder with images in it",
            fix=f"put images ({', '.join(sorted(IMAGE_SUFFIXES))}) into a folder per class: {folder}/<class>/",
        )
    return classes, images


def _from_list(listed: ClassList, folder: Path, categories: Sequence[str]) -> tuple[tuple[str, ...], _Images]:
    classes = _chosen(categories, sorted({label for _, label in listed.rows}), folder)
    images: _Images = {name: [] for name in classes}
    for name, label in listed.rows:
        if label in images:
            images[label].append((name, find_image(name, listed.folders)[0]))
    check_some_exist((path for listed_images in images.values() for _, path in listed_images), listed.folders)
    return classes, images


def _chosen(categories: Sequence[str], found: Sequence[str], folder: Path) -> tuple[str, ...]:
    if not categories:
        return tuple(found)
    folded = {fold(name): name for name in found}
    for name in categories:
        if fold(name) not in folded:
            raise UserError(
                f"{folder} has no class {name!r}{did_you_mean(name, found)}",
                fix=f"choose from its classes: {', '.join(found[:8])}" + (", ..." if len(found) > 8 else ""),
            )
    return tuple(dict.fromkeys(folded[fold(name)] for name in categories))


def _images(folder: Path) -> list[Path]:
    images = sorted(
        path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )
    for path in images:
        check_text(path.name, f"{folder} has the file")
    return images
