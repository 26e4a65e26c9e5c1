"""Whether an export is whole: every file as it was written, and every row as the engine and the score need it.

Needs neither the engine nor the data that the export was made from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import Task
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.trainers.export.base import PLACEHOLDER, Row
from vrft_bench.trainers.export.engines import ENGINES
from vrft_bench.trainers.export.folder import file_hashes
from vrft_bench.trainers.export.images import images_digest
from vrft_bench.trainers.export.scoring import INCLUDED, exported_task, read_manifest

SHOWN = 10
"""How many problems are told; a broken export has as many as rows."""


def check_export(folder: Path, included: Sequence[str] = ()) -> dict[str, Any]:
    """The manifest of the export in ``folder``, which was found whole.

    Plugin files of the export run only if ``included`` names them: an export may be from anybody.

    Raises :class:`DataError` that lists what is wrong, and :class:`UserError` where the installed package has another
    version of the task.
    """
    manifest = read_manifest(folder)
    _require_named(folder, manifest["task"]["included"], included)
    task = exported_task(folder)
    problems = list(_first(_problems(folder, manifest, task)))
    if problems:
        more = " ..." if len(problems) == SHOWN else ""
        raise DataError(
            f"{folder} is not as it was exported: " + "; ".join(problems) + more, fix="export anew into another folder"
        )
    return manifest


def _require_named(folder: Path, files: Sequence[str], included: Sequence[str]) -> None:
    named = {Path(file).expanduser().resolve() for file in included}
    paths = [folder / INCLUDED / file for file in files]
    if any(path.resolve() not in named for path in paths):
        raise UserError(
            f"the task of {folder} comes from plugin files in it, which --check would run",
            fix="look at them, then add " + " ".join(f"--include {path}" for path in paths),
        )


def _first(problems: Iterator[str]) -> Iterator[str]:
    yield from (problem for problem, _ in zip(problems, range(SHOWN), strict=False))


def _problems(folder: Path, manifest: dict[str, Any], task: Task) -> Iterator[str]:
    found, promised = file_hashes(folder), manifest["files"]
    for name in sorted(promised.keys() | found.keys()):
        if name not in found:
            yield f"{name} is missing"
        elif name not in promised:
            yield f"{name} was added"
        elif found[name] != promised[name]:
            yield f"{name} has changed"
    if images_digest(folder) != (manifest["counts"]["images"], manifest["images_sha256"]):
        yield "the images are missing or have changed"
    for name in manifest["settings"]:
        if not (folder / name).is_file():
            yield f"{name} is missing"
    yield from _row_problems(folder, manifest, task)


def _row_problems(folder: Path, manifest: dict[str, Any], task: Task) -> Iterator[str]:
    engine = ENGINES.get(manifest["engine"]["name"])
    if engine is None or manifest["stage"] not in engine.stages:
        yield f"the manifest names {manifest['engine']['name']} with stage {manifest['stage']}, which is no export"
        return
    sizes: dict[str, tuple[int, int]] = {}
    ids = []
    try:
        for row in engine.read(folder, manifest["stage"]):
            ids.append(row.sample_id)
            for problem in row_problems(folder, row, task, sizes):
                yield f"sample {row.sample_id!r}: {problem}"
    except (OSError, ValueError, LookupError, TypeError) as error:
        yield f"the data cannot be read ({error})"
        return
    if not len(ids) == len(set(ids)) == manifest["counts"]["rows"]:
        yield f"there are {len(ids)} rows of {len(set(ids))} samples, and {manifest['counts']['rows']} were written"


def row_problems(folder: Path, row: Row, task: Task, sizes: dict[str, tuple[int, int]]) -> Iterator[str]:
    """What is wrong with ``row``. ``sizes`` keeps the sizes of images that were opened already."""
    placeholders = sum(message["content"].count(PLACEHOLDER) for message in row.messages)
    if placeholders != len(row.images):
        yield f"{placeholders} placeholders for {len(row.images)} images"
    try:
        scores = task.score(row.completion or "", row.ground_truth)
        frame = Frame.from_json(json.loads(row.ground_truth))
    except UserError as error:
        yield error.message
        return
    for name in row.images:
        yield from _image_problems(folder, name, frame, sizes)
    if row.completion is not None and scores.get("format", 1.0) != 1.0:
        yield "its gold completion is not in the asked layout"


def _image_problems(folder: Path, name: str, frame: Frame, sizes: dict[str, tuple[int, int]]) -> Iterator[str]:
    from PIL import Image

    if name not in sizes:
        try:
            with Image.open(folder / name) as image:
                image.load()
                sizes[name] = image.size
        except OSError as error:
            yield f"{name} cannot be read ({error})"
            return
    size = sizes[name]
    if size != frame.processed:
        yield f"{name} has {size[0]}x{size[1]} pixels, and its truth is written for {frame.processed}"
    elif frame.profile.processed_size(*size) != size:
        yield f"{name} would be resized again"
