"""Where each dataset's files lie under a data root, in the layouts that their owners publish.

A missing file is a :class:`~vrft_bench.errors.DataError` that lists every path that was looked for, and where it is
published.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from vrft_bench.errors import DataError

COCO_OWNER = "https://cocodataset.org/#download"
LVIS_OWNER = "https://www.lvisdataset.org/dataset (the images are COCO's: https://cocodataset.org/#download)"
REASONSEG_OWNER = "the README of https://github.com/dvlab-research/LISA"
CLASS_OWNERS = {
    "flower102": "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    "pets37": "https://www.robots.ox.ac.uk/~vgg/data/pets/",
    "fgvc_aircraft": "https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/",
    "cars196": "the paper 3D Object Representations for Fine-Grained Categorization (Krause et al., 2013); its page is "
    "gone, and copies are kept on Kaggle (see https://github.com/pytorch/vision/issues/7545)",
}
PUBLISHED_FOLDERS = {
    "flower102": ("flowers-102", "oxford_flowers"),
    "pets37": ("oxford-iiit-pet", "oxford_pets"),
    "fgvc_aircraft": ("fgvc-aircraft-2013b",),
    "cars196": ("stanford_cars",),
}
"""What torchvision, CoOp and the owners' archives call the folder of each set."""
_DETECTION_SPLITS = ("train", "val")
_CLASS_SPLITS = ("train", "val", "test")


def coco_files(root: Path, split: str) -> tuple[Path, list[Path]]:
    """COCO 2017's annotation file of ``split`` (``train`` or ``val``), and the folders that hold its images.

    Under ``root`` or ``root/coco``: ``annotations/instances_{split}2017.json``, and images in ``images/{split}2017/``
    or ``{split}2017/``. Raises :class:`DataError`.
    """
    _check_root(root)
    bases = [root, root / "coco"]
    files = [base / "annotations" / f"instances_{split}2017.json" for base in bases]
    annotations = _first_file(files, COCO_OWNER, split)
    folders = [base / part / f"{split}2017" for base in bases for part in ("images", "")]
    return annotations, _existing(folders, COCO_OWNER)


def lvis_files(root: Path, split: str) -> tuple[Path, list[Path]]:
    """LVIS v1's annotation file of ``split`` (``train``, ``val``), and the folders above its ``*2017/`` image folders.

    ``lvis_v1_{split}.json`` under ``root`` or ``root/lvis``, there or in ``annotations/``; images where COCO has them.
    LVIS's val takes images from both of COCO's folders. Raises :class:`DataError`.
    """
    _check_root(root)
    bases = [root, root / "lvis"]
    name = f"lvis_v1_{split}.json"
    files = [base / part / name for base in bases for part in ("annotations", "")]
    annotations = _first_file(files, LVIS_OWNER, split)
    parents = [base / part for base in (root, root / "coco", root / "lvis") for part in ("images", "")]
    splits = [parent / folder for parent in parents for folder in ("val2017", "train2017")]
    found = _existing(splits, LVIS_OWNER)
    return annotations, [parent for parent in parents if any(folder.parent == parent for folder in found)]


def reasonseg_root(root: Path) -> Path:
    """The folder that holds ReasonSeg's ``train/``, ``val/`` and ``test/``: ``root/ReasonSeg`` or ``root`` itself.

    Raises :class:`DataError`.
    """
    _check_root(root)
    bases = [root / "ReasonSeg", root]
    found = _existing([base / split for base in bases for split in ("train", "val", "test")], REASONSEG_OWNER)
    return found[0].parent


def class_folders(root: Path, name: str, split: str) -> Path:
    """The folder of a classification set: a folder per class, or the set as its owners publish it.

    The first that is there of ``root/{name}/{split}`` (a folder per class), ``root/{name}`` and the owners' own name
    for it (lists, see :mod:`~vrft_bench.tasks.data.class_lists`), and ``root/{name}/test`` for the split ``val`` of a
    set without one. Raises :class:`DataError`.
    """
    from vrft_bench.tasks.data.class_lists import has_lists

    _check_root(root)
    names = (name, *PUBLISHED_FOLDERS.get(name, ()))
    published = [folder for folder in (root / part for part in names) if has_lists(folder, split)]
    by_class = [root / part / split for part in names]
    if split == "val":
        by_class += [root / part / "test" for part in names]
    found = [folder for folder in by_class if folder.is_dir()]
    if by_class[0] in found or not published:
        published = found
    if not published:
        raise _missing([*by_class, root / name], CLASS_OWNERS.get(name), split, _CLASS_SPLITS)
    return published[0]


def check_readable(root: Path) -> None:
    """Raise :class:`DataError` for a folder that is there and may not be looked into."""
    if root.is_dir() and not os.access(root, os.R_OK | os.X_OK):
        raise DataError(f"the data folder {root} may not be read", fix="get the right to read it, or name another")


def _check_root(root: Path) -> None:
    check_readable(root)
    if not root.is_dir():
        raise DataError(
            f"there is no data folder {root}",
            fix="name an existing folder with --data DIR, or leave it out to run on the embedded sample data",
        )


def _first_file(paths: Sequence[Path], owner: str, split: str) -> Path:
    for path in paths:
        if path.is_file():
            return path
    raise _missing(paths, owner, split, _DETECTION_SPLITS)


def _existing(folders: Sequence[Path], owner: str | None) -> list[Path]:
    if found := [folder for folder in folders if folder.is_dir()]:
        return found
    raise _missing(folders, owner)


def _missing(paths: Sequence[Path], owner: str | None, split: str = "", published: Sequence[str] = ()) -> DataError:
    """``published`` are the owner's splits, named where the ``split`` that was asked for is none of them."""
    looked = "".join(f"\n    {path}" for path in paths)
    fix = f"put the data there; it is published at {owner}" if owner else "put the data there"
    if published and split not in published:
        fix = f"{split!r} is no published split: use --split {' or '.join(published)}, or put one of your own there"
    return DataError(f"none of these is there:{looked}", fix=fix)
