"""Detection data in COCO's or LVIS's format as a :class:`Dataset`: one question per (image, category).

The annotation file is read once, when the dataset is loaded; samples are made on the fly and share the truth.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import Dataset, ImageRef, Sample
from vrft_bench.tasks.data.annotations import Category, Document, ImageEntry, read_document
from vrft_bench.tasks.data.image_files import check_links, check_some_exist, find_image
from vrft_bench.tasks.data.questions import IsAsked, ask_rule, asked_pairs, choose_categories


def load_detection(
    annotations: Path,
    images: Sequence[Path],
    *,
    split: str,
    categories: Sequence[str] = (),
    ask: str = "all",
    is_sample: bool = False,
    default_categories: Sequence[str] = (),
) -> Dataset:
    """The questions of a COCO- or LVIS-format file.

    Args:
        annotations: The JSON file. LVIS is recognised by its images' ``neg_category_ids``.
        images: Folders to look for images in; the first that has a file wins. LVIS names files as
            ``val2017/000000397133.jpg``: both that path and the bare name are looked for.
        split: What :attr:`Dataset.split` says; it selects nothing.
        categories: The user's choice, in the order to ask. Case and underscores do not matter.
        ask: Which pairs are asked: ``present``, ``all`` or ``file:PATH`` (see :mod:`~vrft_bench.tasks.data.questions`).
            With ``file:``, annotated pairs that the map leaves out are walked by :attr:`Dataset.unasked`.
        is_sample: Whether this is the embedded sample data.
        default_categories: What a task asks when ``categories`` is empty; every category of the file if both are.

    Samples come by ascending image id, then in category order. A sample's id is ``{image id}:{category}``; boxes keep
    the order of the annotations and crowd regions are kept apart.

    Raises:
        DataError: A file or folder is missing, the file is not what its format promises, or no question is left.
        UserError: ``categories`` names one that the file does not have, or ``ask`` is no rule.
    """
    document = read_document(annotations)
    chosen = _chosen(document, categories, default_categories)
    entries = document.images([category.id for category in chosen])
    rule = ask_rule(ask, document, entries)
    questions = _Questions(entries, chosen, rule.is_asked, _search_folders(document, entries, images))
    questions.check(ask, document.path)
    return Dataset(
        split=split,
        categories=tuple(category.name for category in chosen),
        samples=questions.asked,
        unasked=questions.unasked if rule.leaves_truth else lambda: iter(()),
        is_sample=is_sample,
        rules=document.rules,
        frequency={category.name: category.frequency for category in chosen if category.frequency is not None},
        ask=ask,
        notes=rule.notes,
        counts={key: len(document.raw[key]) for key in ("images", "annotations", "categories")},
    )


def _chosen(document: Document, categories: Sequence[str], defaults: Sequence[str]) -> tuple[Category, ...]:
    if categories or not defaults:
        return choose_categories(categories, document.categories, document.path)
    try:
        return choose_categories(defaults, document.categories, document.path)
    except UserError as error:
        raise DataError(
            f"this task asks for categories that the data does not have: {error.message}",
            fix="name the data that the task is made for, or choose with --categories",
        ) from error


@dataclass(frozen=True)
class _Folders:
    """Where the images are: ``by_prefix`` maps the first part of LVIS's file names to the folders to look in."""

    folders: tuple[Path, ...]
    by_prefix: dict[str, tuple[Path, ...]]

    def find(self, entry: ImageEntry) -> tuple[Path, Path]:
        """The image's file and the folder that it is under."""
        prefix, _, rest = entry.file_name.partition("/")
        folders = self.by_prefix.get(prefix) if rest else None
        return find_image(rest, folders) if folders else find_image(entry.file_name, self.folders)


def _search_folders(document: Document, entries: Sequence[ImageEntry], images: Sequence[Path]) -> _Folders:
    """LVIS's ``val2017/`` may be a link to where COCO is kept, so each such folder is looked in as one of its own."""
    folders = tuple(images)
    if document.rules != "lvis":
        return _Folders(folders, {})
    prefixes = {entry.file_name.partition("/")[0] for entry in entries if entry.file_name.count("/") == 1}
    return _Folders(folders, {prefix: (*(folder / prefix for folder in folders), *folders) for prefix in prefixes})


@dataclass(frozen=True)
class _Questions:
    """The pairs of a dataset, and the samples made of them."""

    images: Sequence[ImageEntry]
    categories: tuple[Category, ...]
    is_asked: IsAsked
    folders: _Folders

    def asked(self) -> Iterator[Sample]:
        return self._samples(self.is_asked)

    def unasked(self) -> Iterator[Sample]:
        """Pairs with objects that nobody asks about."""

        def is_missed(image: ImageEntry, category: int) -> bool:
            return bool(image.target(category).boxes) and not self.is_asked(image, category)

        return self._samples(is_missed)

    def check(self, ask: str, path: Path) -> None:
        """Raise :class:`DataError` if nothing is asked, or if the images are not where they are looked for."""
        if next(asked_pairs(self.images, self.categories, self.is_asked), None) is None:
            names = ", ".join(category.name for category in self.categories[:5]) or "none"
            raise DataError(
                f"no question is left of {path}: no image is asked about the chosen categories ({names}) by ask={ask}",
                fix="choose other --categories, or another --ask rule",
            )
        asked = (image for image in self.images if any(self.is_asked(image, item.id) for item in self.categories))
        check_some_exist((self.folders.find(image)[0] for image in asked), self.folders.folders)
        for image in self.images:
            check_links(*self.folders.find(image))

    def _samples(self, is_wanted: IsAsked) -> Iterator[Sample]:
        for image in self.images:
            ref: ImageRef | None = None
            image_id = str(image.id)
            for category in self.categories:
                if not is_wanted(image, category.id):
                    continue
                if ref is None:
                    ref = ImageRef(image.width, image.height, self.folders.find(image)[0])
                yield Sample(
                    f"{image_id}:{category.name}",
                    ref,
                    {"category": category.name, "image_id": image_id},
                    image.target(category.id),
                )
