"""Which (image, category) pairs of a detection dataset are asked: the ``ask`` rule.

* ``present``: the pairs that have at least one annotation that is not a crowd region. The question then tells the model
  that there is something to find.
* ``all``: for COCO every pair. For LVIS every pair that LVIS judges, which is one whose category is annotated in the
  image or verified to be absent: LVIS's AP drops predictions for the others, so they cannot change it.
* ``file:PATH``: the pairs that a JSON map of image id to category names gives, as Visual-RFT's exist maps do. A pair of
  LVIS data may be one that LVIS does not judge: its truth then says ``verified=False``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import DataError, UserError, did_you_mean
from vrft_bench.tasks.data.annotations import Category, Document, ImageEntry, ImageId, read_json
from vrft_bench.tasks.data.image_files import check_text

IsAsked = Callable[[ImageEntry, int], bool]
"""Whether an image is asked about a category, given by its id."""

_MAP_FIX = 'give a JSON object of image id to category names, such as {"397133": ["person", "tie"]}'


@dataclass(frozen=True)
class Rule:
    """An ``ask`` rule bound to a dataset. ``leaves_truth``: it may leave annotated pairs unasked."""

    is_asked: IsAsked
    leaves_truth: bool = False
    notes: tuple[str, ...] = ()


def ask_rule(ask: str, document: Document, images: Sequence[ImageEntry]) -> Rule:
    """The rule that ``ask`` names. Raises :class:`UserError` for an unknown one, :class:`DataError` for a wrong map."""
    if ask == "present":
        return Rule(_is_present)
    if ask == "all":
        return Rule(_is_judged)
    if ask.startswith("file:") and ask != "file:":
        return _map_rule(Path(ask.removeprefix("file:")).expanduser(), document, images)
    raise UserError(
        f"unknown ask rule {ask!r}{did_you_mean(ask, ('present', 'all'))}", fix="use present, all or file:PATH"
    )


def choose_categories(names: Sequence[str], categories: Sequence[Category], path: Path) -> tuple[Category, ...]:
    """The categories called ``names``, in that order; all of them for no names.

    Case and underscores do not matter; a category that is named twice is taken once. Raises :class:`UserError` for a
    name that is not there.
    """
    if not names:
        return tuple(categories)
    exact = {category.name: category for category in categories}
    folded = {fold(category.name): category for category in categories}
    chosen: list[Category] = []
    for name in names:
        category = exact.get(name) or folded.get(fold(name))
        if category is None:
            near = did_you_mean(name.replace("_", " "), (other.name.replace("_", " ") for other in categories))
            some = ", ".join(other.name for other in categories[:8])
            more = f" and {len(categories) - 8} more" if len(categories) > 8 else ""
            raise UserError(f"{path} has no category {name!r}{near}", fix=f"choose from its categories: {some}{more}")
        if category not in chosen:
            chosen.append(category)
    return tuple(chosen)


def fold(name: str) -> str:
    """A category name as it is compared: ``Hot_Dog`` and ``hot dog`` are one."""
    return " ".join(name.casefold().replace("_", " ").split())


def asked_pairs(
    images: Sequence[ImageEntry], categories: Sequence[Category], is_asked: IsAsked
) -> Iterator[tuple[ImageEntry, Category]]:
    """The pairs that are asked, image by image."""
    for image in images:
        for category in categories:
            if is_asked(image, category.id):
                yield image, category


def _is_present(image: ImageEntry, category: int) -> bool:
    return bool(image.target(category).boxes)


def _is_judged(image: ImageEntry, category: int) -> bool:
    return image.target(category).verified


def _map_rule(path: Path, document: Document, images: Sequence[ImageEntry]) -> Rule:
    asked_names = _read_map(path)
    ids = {fold(category.name): category.id for category in document.categories}
    asked: dict[ImageId, frozenset[int]] = {}
    unknown: set[str] = set()
    for image in images:
        names = asked_names.get(str(image.id))
        if names is not None:
            folded = {fold(name) for name in names}
            unknown |= folded - ids.keys()
            asked[image.id] = frozenset(ids[name] for name in folded & ids.keys())
    if not asked:
        some = ", ".join(repr(str(image.id)) for image in images[:3])
        raise DataError(f"{path} names no image of {document.path}, whose ids are {some}, ...", fix=_MAP_FIX)
    if not any(fold(name) in ids for names in asked_names.values() for name in names):
        some = ", ".join(repr(category.name) for category in document.categories[:3])
        raise DataError(f"{path} names no category of {document.path}, which has {some}, ...", fix=_MAP_FIX)
    notes = []
    if len(asked) < len(images):
        notes.append(
            f"{len(images) - len(asked)} of {len(images)} images are not in the ask map: their objects count as missed"
        )
    if unknown:
        notes.append(f"the ask map names categories that the data does not have: {', '.join(sorted(unknown)[:8])}")
    nothing: frozenset[int] = frozenset()
    return Rule(lambda image, category: category in asked.get(image.id, nothing), True, tuple(notes))


def _read_map(path: Path) -> Mapping[str, list[str]]:
    value = read_json(path)
    if not isinstance(value, dict):
        raise DataError(f"{path} is not an ask map: it is a {type(value).__name__}", fix=_MAP_FIX)
    for image_id, names in value.items():
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{path} is not an ask map: image {image_id!r} has {names!r:.80}", fix=_MAP_FIX)
        for name in names:
            check_text(name, f"{path}: image {image_id!r} has the category")
    return value
