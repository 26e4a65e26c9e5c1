"""Files of rows with the columns image, problem and solution: parquet, arrow, JSON and JSON lines.

Texts and images are walked apart, so that the texts of a dataset can be read without its images. Parquet and arrow
files are read a batch of rows at a time; a JSON file holds paths instead of images and is read whole.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.annotations import read_json

Row = Mapping[str, Any]

SUFFIXES = (".parquet", ".arrow", ".jsonl", ".json")
_BOOKKEEPING = frozenset({"dataset_info.json", "state.json", "dataset_dict.json", "dataset_infos.json"})
"""What ``datasets`` writes beside the rows."""
_COLUMNS = ("image", "problem", "solution")
_SPLITS = ("train", "test", "validation", "val")
_BATCH = 16
"""Rows in memory at once: an image may have several megabytes."""


@dataclass(frozen=True)
class RowFiles:
    """The files of one split, in the order of their names. ``path`` is what the user named."""

    path: Path
    files: tuple[Path, ...]

    def texts(self) -> Iterator[Row]:
        """The rows without their images. Raises :class:`DataError`."""
        for file in self.files:
            yield from _rows(file, _COLUMNS[1:])

    def images(self) -> Iterator[Any]:
        """The value of every row's ``image``. Raises :class:`DataError`."""
        for file in self.files:
            yield from (row["image"] for row in _rows(file, _COLUMNS[:1]))


def find_rows(path: Path, split: str) -> RowFiles:
    """The files of ``split`` in ``path``, which may be one file.

    In a folder, those are the files in a folder ``split``, else those with ``split`` among the words of their name
    (``train-00000-of-00001.parquet`` on the hub, ``vi_rft_coco-train.arrow`` in the cache of ``datasets``), else all,
    if the folder does not have another split. Raises :class:`DataError` where there are none.
    """
    if path.is_file():
        return RowFiles(path, (path,))
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}", fix="name the folder of a dataset, or its file")
    for suffix in SUFFIXES:
        files = sorted(
            file
            for file in path.rglob(f"*{suffix}")
            if file.name not in _BOOKKEEPING
            and not any(part.startswith((".", "cache-")) for part in file.relative_to(path).parts)
        )
        if not files:
            continue
        mine = [file for file in files if split in file.relative_to(path).parts[:-1]]
        mine = mine or [file for file in files if _is_named_after(split, file)]
        if not mine and not any(_is_of_a_split(file, path) for file in files):
            mine = files
        if mine:
            return RowFiles(path, tuple(mine))
        names = ", ".join(str(file.relative_to(path)) for file in files[:4])
        raise DataError(f"{path} has no files of the split {split!r}: it has {names}", fix="choose another --split")
    raise DataError(
        f"{path} holds no rows: no {', '.join(SUFFIXES)} file is in it", fix="name the folder of a ViRFT dataset"
    )


def is_rows(path: Path) -> bool:
    """Whether ``path`` is such a file, or a folder with a parquet or arrow file in it.

    A JSON file of rows is a list; annotations in COCO's format are an object.
    """
    if path.is_file():
        suffix = path.suffix.lower()
        return suffix in SUFFIXES and (suffix != ".json" or _begins_a_list(path))
    return any(next(path.rglob(f"*{suffix}"), None) is not None for suffix in SUFFIXES[:2])


def _begins_a_list(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return opened.read(256).removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"[")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}", fix="give a file that can be read") from error


def _is_named_after(split: str, file: Path) -> bool:
    return re.search(rf"(?:^|[-._ ]){re.escape(split)}(?:$|[-._ ])", file.stem, re.IGNORECASE) is not None


def _is_of_a_split(file: Path, root: Path) -> bool:
    return file.relative_to(root).parts[0] in _SPLITS or any(_is_named_after(name, file) for name in _SPLITS)


def _rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    suffix = file.suffix.lower()
    if suffix in (".json", ".jsonl"):
        yield from _json_rows(file, columns)
        return
    if suffix not in SUFFIXES:
        raise DataError(f"{file} is no file of rows", fix=f"name one that ends in {', '.join(SUFFIXES)}")
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            f"{file} is read by pyarrow, which is not installed", fix="pip install 'vrft-bench[data]'"
        ) from error
    try:
        for batch in _batches(file, columns):
            yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file} cannot be read: {error}", fix=f"give a complete file with the columns {', '.join(_COLUMNS)}"
        ) from error


def _batches(file: Path, columns: Sequence[str]) -> Iterator[Any]:
    import pyarrow.ipc
    import pyarrow.parquet

    if file.suffix.lower() == ".parquet":
        with pyarrow.parquet.ParquetFile(file, pre_buffer=False) as table:  # buffered, it keeps the whole file
            _check_columns(file, table.schema_arrow.names, columns)
            yield from table.iter_batches(batch_size=_BATCH, columns=list(columns))
        return
    with pyarrow.memory_map(str(file)) as source, pyarrow.ipc.open_stream(source) as stream:
        _check_columns(file, stream.schema.names, columns)
        for batch in stream:
            for start in range(0, batch.num_rows, _BATCH):
                yield batch.select(list(columns)).slice(start, _BATCH)


def _check_columns(file: Path, names: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [name for name in wanted if name not in names]:
        raise DataError(
            f"{file} has no column {missing[0]!r}: it has {', '.join(names)}",
            fix=f"use a dataset with the columns {', '.join(_COLUMNS)}",
        )


def _json_rows(file: Path, columns: Sequence[str]) -> Iterator[Row]:
    rows = _json_lines(file) if file.suffix.lower() == ".jsonl" else read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(
            f"{file} is not a list of rows",
            fix='give a list of objects: [{"image": "a.jpg", "problem": "...", "solution": "..."}]',
        )
    for index, row in enumerate(rows):
        if missing := [name for name in columns if name not in row]:
            raise DataError(
                f"{file}: row {index} has no {missing[0]!r}",
                fix=f"give every row the keys {', '.join(_COLUMNS)}",
            )
        yield {name: row[name] for name in columns}


def _json_lines(file: Path) -> list[Any]:
    try:
        return [json.loads(line) for line in file.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} is not JSON lines: {error}", fix="give one JSON object per line, in UTF-8") from error
