"""Classification sets as their owners publish them: lists of images with labels, beside one folder of images.

=================  =====================================================================================================
any set            ``{split}.csv`` with the columns ``image`` and ``label`` (first, where it is there)
CoOp's splits      ``split_zhou_*.json``: ``{"train": [["image_00172.jpg", 0, "passion flower"], ...], ...}``
Flowers102         ``setid.mat``, ``imagelabels.mat`` and ``jpg/``
Oxford-IIIT Pets   ``annotations/trainval.txt``, ``annotations/test.txt`` and ``images/``
FGVC-Aircraft      ``images_variant_{train,val,trainval,test}.txt`` and ``images/``, also under ``data/``
Stanford Cars      ``devkit/*.mat``, ``cars_test_annos_withlabels.mat`` (here or in ``devkit/``), ``cars_train/`` and
                   ``cars_test/``, also one in another of its name, as copies on Kaggle have them
=================  =====================================================================================================

torchvision keeps the same files. This project's ``val`` is what the paper evaluates on, which is the owners' *test*
list; the owners' own validation list is ``validation``.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.flower_names import FLOWER_NAMES
from vrft_bench.tasks.data.image_files import check_name, check_text

T = TypeVar("T")
Rows = list[tuple[str, str]]
"""(file name, label), in the order of the list."""

VAL_IS_TEST = "split val is the owners' test list, on which the paper evaluates"

_IMAGE_FOLDERS = ("", "jpg", "images", "data/images")
_OWNERS_NAME = {"val": "test", "validation": "val"}
"""This project's name of a split -> the owners', where they differ."""


@dataclass(frozen=True)
class ClassList:
    """The images of one split. ``folders`` are those to look for a file name in, the first that has it wins."""

    rows: tuple[tuple[str, str], ...]
    folders: tuple[Path, ...]
    note: str | None = None


def read_class_list(folder: Path, split: str) -> ClassList | None:
    """The list of ``split`` in ``folder``; ``None`` where the folder is in none of the layouts above.

    Raises :class:`DataError` for a list that is missing for this split, or is not what its layout promises, and
    :class:`UserError` where scipy is needed to read ``.mat`` files and is not installed.
    """
    own = folder / f"{split}.csv"
    read = _read_csv if own.is_file() else _layout(folder)
    if read is None:
        return None
    rows = read(folder, split if own.is_file() else _OWNERS_NAME.get(split, split))
    for name, label in rows:
        check_name(name, f"the list of split {split!r} in {folder}")
        check_text(label, f"the list of split {split!r} in {folder} has the label")
    if not rows:
        raise DataError(f"the list of split {split!r} in {folder} names no image", fix="use the complete list")
    if twice := [name for name, count in Counter(name for name, _ in rows).items() if count > 1]:
        raise DataError(
            f"the list of split {split!r} in {folder} names the image {twice[0]!r} twice",
            fix="name every image once, with one label",
        )
    cars = "cars_train" if split.startswith("train") else "cars_test"
    folders = [folder / part for part in (*_IMAGE_FOLDERS, cars, f"{cars}/{cars}") if (folder / part).is_dir()]
    note = VAL_IS_TEST if split == "val" and not own.is_file() else None
    return ClassList(tuple(rows), tuple(folders), note)


def has_lists(folder: Path, split: str) -> bool:
    """Whether ``folder`` is in one of the layouts above, for ``split`` at least."""
    return (folder / f"{split}.csv").is_file() or _layout(folder) is not None


def _layout(folder: Path) -> Callable[[Path, str], Rows] | None:
    """What reads the lists in ``folder``; ``None`` where there are none that are known."""
    if next(folder.glob("split_zhou_*.json"), None) is not None:
        return _read_coop
    if (folder / "setid.mat").is_file():
        return _read_flowers
    if (folder / "annotations" / "trainval.txt").is_file() or (folder / "annotations" / "test.txt").is_file():
        return _read_pets
    if any(next((folder / part).glob("images_variant_*.txt"), None) is not None for part in ("", "data")):
        return _read_aircraft
    if (folder / "devkit" / "cars_meta.mat").is_file():
        return _read_cars
    return None


def _read_csv(folder: Path, split: str) -> Rows:
    path = folder / f"{split}.csv"
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise DataError(
            f"{path} is not CSV: {error}", fix="give two columns, image and label, on every line"
        ) from error
    if not all(row.get("image") and row.get("label") for row in rows):
        raise DataError(
            f"{path} is not a list of images: a row lacks 'image' or 'label'",
            fix="begin it with the line `image,label`, and give both on every line",
        )
    return [(row["image"], row["label"]) for row in rows]


def _read_coop(folder: Path, split: str) -> Rows:
    path = min(folder.glob("split_zhou_*.json"))
    value = read_json(path)
    rows = value.get(split) if isinstance(value, dict) else None
    if rows is None:
        raise _no_split(path, split, ("train", "validation", "val", "test"))
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and len(row) == 3 and isinstance(row[0], str) and isinstance(row[2], str) for row in rows
    ):
        raise DataError(f"{path} is not one of CoOp's split files", fix='its rows are ["image.jpg", 0, "class name"]')
    return [(row[0], row[2]) for row in rows]


def _read_pets(folder: Path, split: str) -> Rows:
    """``Abyssinian_201 1 1 1``: the label is the file's name without its number, in lower case as the paper has it."""
    name = "trainval" if split == "train" else split
    path = folder / "annotations" / f"{name}.txt"
    if not path.is_file():
        raise _no_split(path, split, ("train", "trainval", "val", "test"))
    names = [line.split()[0] for line in _lines(path) if not line.startswith("#")]
    return [(f"{name}.jpg", name.rpartition("_")[0].lower()) for name in names]


def _read_aircraft(folder: Path, split: str) -> Rows:
    """``1514522 707-320``: a file's number and its variant, which may hold spaces."""
    name = f"images_variant_{split}.txt"
    path = folder / "data" / name if (folder / "data" / name).is_file() else folder / name
    if not path.is_file():
        raise _no_split(path, split, ("train", "validation", "trainval", "val", "test"))
    pairs = [line.split(maxsplit=1) for line in _lines(path)]
    if not all(len(pair) == 2 for pair in pairs):
        raise DataError(f"{path} has a line without a variant", fix="use the list as its owners publish it")
    return [(f"{number}.jpg", variant) for number, variant in pairs]


def _read_flowers(folder: Path, split: str) -> Rows:
    parts = {"train": ("trnid",), "val": ("valid",), "trainval": ("trnid", "valid"), "test": ("tstid",)}
    if split not in parts:
        raise _no_split(folder / "setid.mat", split, ("train", "validation", "trainval", "val", "test"))
    sets, labels = _mat(folder / "setid.mat"), _mat(folder / "imagelabels.mat")
    try:
        label_of = [int(number) for number in labels["labels"].ravel()]
        numbers = [int(number) for part in parts[split] for number in sets[part].ravel()]
        return [
            (f"image_{n:05d}.jpg", _counted_from_one(FLOWER_NAMES, _counted_from_one(label_of, n))) for n in numbers
        ]
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"setid.mat and imagelabels.mat in {folder} are not those of Flowers102 ({error})",
            fix="use both files as their owners publish them",
        ) from error


def _read_cars(folder: Path, split: str) -> Rows:
    """The year comes first in a label, as in the paper's lists: "2012 Acura RL Sedan" for "Acura RL Sedan 2012"."""
    files = {"train": ("cars_train_annos.mat",), "test": ("cars_test_annos_withlabels.mat",)}
    if split not in files:
        raise _no_split(folder / "devkit", split, ("train", "val", "test"))
    (name,) = files[split]
    path = folder / name if (folder / name).is_file() else folder / "devkit" / name
    meta, annotations = _mat(folder / "devkit" / "cars_meta.mat"), _mat(path)
    try:
        names = [_text_of(name) for name in meta["class_names"].ravel()]
        rows = annotations["annotations"].ravel()
        return [
            (_text_of(row["fname"]), _year_first(_counted_from_one(names, int(row["class"].item())))) for row in rows
        ]
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise DataError(
            f"{path} is not the annotation file of Stanford Cars ({error})",
            fix="use the devkit as its owners published it; cars_test_annos_withlabels.mat labels the test set",
        ) from error


def _counted_from_one(items: Sequence[T], number: int) -> T:
    """As MATLAB counts. Raises :class:`IndexError` for 0 too, by which Python would mean the last."""
    if number < 1:
        raise IndexError(f"there is no number {number}")
    return items[number - 1]


def _text_of(value: Any) -> str:
    """MATLAB wraps a text in an array of one."""
    return str(value.item())


def _year_first(name: str) -> str:
    rest, _, year = name.rpartition(" ")
    return f"{year} {rest}" if rest and year.isdigit() else name


def _mat(path: Path) -> Mapping[str, Any]:
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise UserError(
            f"{path} is a MATLAB file, which scipy reads, and scipy is not installed",
            fix="pip install 'vrft-bench[data]'",
        ) from error
    if not path.is_file():
        raise DataError(f"there is no file {path}", fix="put it beside the others of its set")
    try:
        value: Mapping[str, Any] = loadmat(path)
    except Exception as error:
        raise DataError(f"{path} is not a MATLAB file: {error}", fix="fetch it again") from error
    return value


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def read_text(path: Path) -> str:
    """The text in ``path``, which is UTF-8. Raises :class:`DataError`."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="give a file that can be read") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8: {error}", fix="write it in UTF-8") from error


def _no_split(path: Path, split: str, valid: tuple[str, ...]) -> DataError:
    return DataError(
        f"the split that its owners call {split!r} is not in {path}",
        fix=f"use --split {', '.join(valid[:-1])} or {valid[-1]}, and keep all of its owners' files",
    )
