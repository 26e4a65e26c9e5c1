"""The training sets of Visual-RFT as a :class:`Dataset`: rows of an image, a problem and a solution.

::

    problem     Detect all objects belonging to the category 'bus' in the image, and provide ...
    solution    <answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}]</answer>

    problem     ... Please identify the model of the aircraft based on the image. ...
    solution    <answer>737-400</answer>

    problem     Output the bounding box in the image corresponding to the instruction: the cup. ...
    solution    <answer> (100,80),(600,400) </answer>

Rows come as parquet (what the hub publishes), as arrow (what ``datasets.save_to_disk`` writes), or as JSON (a list, or
an object per line) whose ``image`` is a path. Texts are read and checked when the dataset is loaded; images are read
one batch at a time, while iterating. Coordinates in a solution are thousandths of the image's sides (arXiv 2503.01785).

A problem only says which category or instruction is meant: the question itself is worded by the task that asks it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, DataSpec, ImageRef, MaskTarget, Sample, Target
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.data.annotations import Category, is_number
from vrft_bench.tasks.data.image_files import check_name, check_text, image_size
from vrft_bench.tasks.data.questions import choose_categories
from vrft_bench.tasks.data.rows import Row, RowFiles, find_rows, is_rows

Family = Literal["detection", "classification", "grounding"]

SPLIT = "virft"
"""The split of a data root that is Visual-RFT's own training set for a task."""

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_CATEGORY = re.compile(r"category '(.+?)' in the image")
_INSTRUCTION = re.compile(r"corresponding to the instruction: (.+?)\. Output the thinking process", re.DOTALL)
_CORNERS = re.compile(r"\s*\((\d+),(\d+)\),\((\d+),(\d+)\)\s*")
_FIX = "use the dataset as its owners publish it: columns image, problem and solution"


@dataclass(frozen=True, slots=True)
class _Question:
    """What a row asks and what is true, with boxes in thousandths."""

    fields: dict[str, str]
    boxes: tuple[Box, ...] = ()
    label: str = ""

    @property
    def category(self) -> str:
        """What ``--categories`` chooses by; empty for grounding."""
        return self.label or self.fields.get("category", "")


def rows_of(spec: DataSpec, task: str, family: Family) -> Dataset | None:
    """The rows that ``spec`` names, as data of ``task``; ``None`` where it names other data.

    ``--annotations`` may name rows instead of annotations, and the split :data:`SPLIT` of a data root is the training
    set that Visual-RFT published for the task, where ``vrft-bench data fetch`` puts it. Rows are of the categories that
    they name, whatever the task evaluates: ``lvis_ovd`` is trained on COCO's base categories.

    Raises :class:`UserError` where nothing is published for the task, or ``spec`` asks for what rows do not have, and
    :class:`DataError` where the rows are missing or not what the format promises.
    """
    own = spec.annotations
    if own is not None and (own.is_dir() or is_rows(own)):
        path, part = own, spec.split or "val"
    elif spec.root is not None and spec.split == SPLIT:
        path, part = training_set(spec.root, task), "train"
    else:
        return None
    if spec.ask is not None:
        raise UserError(f"--ask {spec.ask} does not apply to {path}: each row asks one question", fix="leave out --ask")
    if spec.categories and family == "grounding":
        raise UserError(f"task {task!r} has no categories", fix="leave out --categories")
    dataset = load_virft(path, family, split=part, images=spec.images, categories=spec.categories)
    return dataset if own is not None else replace(dataset, split=SPLIT)


def training_set(root: Path, task: str) -> Path:
    """Where the training set that Visual-RFT published for ``task`` lies under a data root.

    Raises :class:`UserError` where none is published, :class:`DataError` where it has not been fetched whole.
    """
    from vrft_bench.tasks.data.fetch import is_there
    from vrft_bench.tasks.data.sources import HubDataset, needs

    need = next((need for need in needs(task) if isinstance(need.source, HubDataset)), None)
    if need is None:
        raise UserError(
            f"Visual-RFT published no training set for task {task!r}, so it has no split {SPLIT!r}",
            fix="use --split train, or name rows of your own with --annotations PATH (and no --data)",
        )
    found = need.found(root)
    if found is None or not is_there(need, root):
        state = "is not there" if found is None else "was not fetched to its end"
        raise DataError(
            f"the {need.what} {state}: {root / need.places[0]}",
            fix=f"fetch it: vrft-bench data fetch {task} --part training --data {root}",
        )
    return found


def load_virft(
    path: Path, family: Family, *, split: str = "train", images: Path | None = None, categories: Sequence[str] = ()
) -> Dataset:
    """The rows of a file or folder, in its order; a sample's id is its row's number from 0.

    Args:
        path: A ``.parquet``, ``.arrow``, ``.json`` or ``.jsonl`` file, or a folder that holds such files. Of several
            splits in a folder, ``split`` is taken.
        family: What the solutions are: lists of boxes, class names, or one box.
        split: Which of a folder's splits is read, and what :attr:`Dataset.split` says.
        images: Where the images of a JSON file are; by default beside it.
        categories: Only rows about these categories or classes, ignoring case and underscores; all rows if empty.

    Raises :class:`DataError` for files that are missing or not what the format promises, with the row's number, and
    :class:`UserError` for an unknown category, and where pyarrow is needed and not installed.
    """
    if family not in ("detection", "classification", "grounding"):
        raise UserError(f"unknown family {family!r}", fix="use detection, classification or grounding")
    files = find_rows(path, split)
    folder = images or (path.parent if path.is_file() else path)
    questions = [_question(row, index, files, family) for index, row in enumerate(files.texts())]
    if not questions:
        raise DataError(f"{path} has no rows", fix=_FIX)
    chosen = _chosen(questions, categories, path)
    if family == "classification":
        for question in questions:
            question.fields["options"] = ", ".join(chosen)

    def samples() -> Iterator[Sample]:
        for index, (question, image) in enumerate(zip(questions, files.images(), strict=True)):
            if question.category in chosen or family == "grounding":
                ref = row_image(image, folder, f"{path}: row {index}")
                yield _sample(str(index), question, ref, family)

    return Dataset(split, chosen, samples, rules="coco" if family == "detection" else None)


def _sample(row: str, question: _Question, ref: ImageRef, family: Family) -> Sample:
    boxes = tuple(_in_pixels(box, ref) for box in question.boxes)
    target: Target
    if family == "classification":
        target = ClassTarget(question.label)
    elif family == "grounding":
        target = MaskTarget(boxes[0], ())
    else:
        target = BoxTarget(boxes)
    # One image may be asked about several categories, in rows of their own: its content is what identifies it.
    fields = question.fields | ({"image_id": (ref.sha256 or row)[:16]} if family == "detection" else {})
    return Sample(row, ref, fields, target)


def _in_pixels(box: Box, ref: ImageRef) -> Box:
    x1, y1, x2, y2 = box
    return x1 / 1000 * ref.width, y1 / 1000 * ref.height, x2 / 1000 * ref.width, y2 / 1000 * ref.height


def _chosen(questions: list[_Question], names: Sequence[str], path: Path) -> tuple[str, ...]:
    """The categories called ``names``, in that order; for no names all that the rows are about, sorted."""
    found = sorted({question.category for question in questions if question.category})
    known = [Category(number, name, None) for number, name in enumerate(found)]
    return tuple(category.name for category in choose_categories(names, known, path))


def _question(row: Row, index: int, files: RowFiles, family: Family) -> _Question:
    owner = f"{files.path}: row {index}"
    problem, solution = row.get("problem"), row.get("solution")
    if not isinstance(problem, str) or not isinstance(solution, str):
        raise DataError(f"{owner} lacks a text 'problem' or 'solution'", fix=_FIX)
    for text in (problem, solution):
        check_text(text, f"{owner} has the text")
    found = _ANSWER.search(solution)
    answer = (found[1] if found else solution).strip()
    if family == "classification":
        if not answer:
            raise DataError(f"{owner} has an empty solution", fix=_FIX)
        return _Question({}, label=answer)
    if family == "grounding":
        corners = _CORNERS.fullmatch(answer)
        if corners is None:
            raise DataError(f"{owner} has the solution {answer!r:.80}, which is no (x1,y1),(x2,y2)", fix=_FIX)
        asked = _INSTRUCTION.search(problem)
        fields = {"instruction": (asked[1] if asked else problem).strip()}
        return _Question(fields, (_box([int(number) for number in corners.groups()], owner),))
    boxes = () if answer.casefold() == "no objects" else _boxes(answer, owner)
    category = _CATEGORY.search(problem)
    if category is None:
        raise DataError(f"{owner} names no category in its problem {problem!r:.80}", fix=_FIX)
    return _Question({"category": category[1]}, boxes)


def _boxes(answer: str, owner: str) -> tuple[Box, ...]:
    """``[{'Position': [1, 364, 98, 649], 'Confidence': 1}]``, in the single quotes of Python or the double of JSON."""
    try:
        value = json.loads(answer.replace("'", '"'))
        positions = [item["Position"] for item in value]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise DataError(f"{owner} has the solution {answer!r:.80}, which is no list of boxes", fix=_FIX) from error
    return tuple(_box(position, owner) for position in positions)


def _box(position: Any, owner: str) -> Box:
    if not isinstance(position, list) or len(position) != 4 or not all(is_number(number) for number in position):
        raise DataError(f"{owner} has the box {position!r:.60}, which is no four numbers", fix=_FIX)
    x1, y1, x2, y2 = (float(number) for number in position)
    if x2 < x1 or y2 < y1:
        raise DataError(
            f"{owner} has the box {position}, whose corners are in the wrong order",
            fix="a box is x1, y1, x2, y2: its left upper corner, then its right lower one",
        )
    return x1, y1, x2, y2


def row_image(value: Any, folder: Path, owner: str) -> ImageRef:
    """An image as the hub stores it (``{"bytes": ..., "path": ...}``), or the path of a file under ``folder``.

    ``owner`` says whose it is, for the message. Raises :class:`DataError` where there is neither.
    """
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (None, value)
    if isinstance(data, bytes) and data:
        return ImageRef(*image_size(data), data=data, sha256=hashlib.sha256(data).hexdigest())
    if not isinstance(name, str) or not name:
        raise DataError(f"{owner} has no image", fix=_FIX)
    check_name(name, owner)
    path = folder / name
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    return ImageRef(*image_size(path), path, sha256=digest)
