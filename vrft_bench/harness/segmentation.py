"""gIoU and cIoU of a finished grounding run: the boxes of its answers as masks, judged against the true masks.

A stage of its own, after the run: no completion is asked for again, and one run can be segmented by several segmenters.
In the run's folder, ``masks-NAME.json`` holds the figures with the segmenter's identity, and ``masks-NAME.jsonl`` the
masks that a model made, a line each, so that a second call needs no model, only the images. NAME is ``box``,
``ellipse`` or ``sam-FINGERPRINT8``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.identity import fingerprint
from vrft_bench.harness.models.segmenter import Segmenter, load_segmenter
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import RecordWriter
from vrft_bench.harness.store import RunStore, containing_run, read_manifest, utc_now, versions, write_json
from vrft_bench.harness.stored_answers import StoredAnswers, plan_of_run
from vrft_bench.tasks.base import ImageRef, MetricReport
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.masks import Mask, MaskMetric


@dataclass(frozen=True)
class SegmentedRun:
    """The mask figures of a run. ``path`` is the file that holds them."""

    path: Path
    segmenter: Mapping[str, Any]
    report: MetricReport


def segment_run(folder: str | Path, segmenter: str | Segmenter, *, progress: Progress | None = None) -> SegmentedRun:
    """Compute the mask figures of the grounding run in ``folder``, which may be named by a file in it.

    ``segmenter`` is a name (see :func:`load_segmenter`) or an object. The run's data must be there, unchanged. A run
    that did not end is judged over what it has, and a note says so.

    Raises :class:`UserError` for a run of another family, for changed data, and where a process works on the run.
    """
    folder = containing_run(Path(folder))
    if isinstance(segmenter, str):
        segmenter = load_segmenter(segmenter)
    plan = plan_of_run(folder, read_manifest(folder))
    if plan.task.family != "grounding":
        raise UserError(
            f"{folder} is a run of {plan.task.name}, a {plan.task.family} task, and has no masks",
            fix="give the folder of a grounding run",
        )
    identity = dict(segmenter.identity())
    kind = str(identity["segmenter"])
    name = f"masks-{kind}-{fingerprint(identity)[:8]}" if segmenter.needs_model else f"masks-{kind}"
    with RunStore(folder) as store, contextlib.ExitStack() as stack:
        segment = segmenter.segment
        if segmenter.needs_model:
            segment = stack.enter_context(contextlib.closing(StoredMasks(folder / f"{name}.jsonl", segmenter))).segment
        metric = MaskMetric(segment, whole_pixels=plan.task.protocol == "paper")
        index = stack.enter_context(contextlib.closing(store.index()))
        answers = StoredAnswers(plan, index, progress or SilentProgress(), "segmenting")
        for sample, n, prediction in answers:
            metric.update(sample, prediction, n)
        report = metric.compute()
        report = replace(report, notes=(*report.notes, *answers.note()))
        path = folder / f"{name}.json"
        value = {"segmenter": identity, "report": report.to_json(), "at": utc_now(), "versions": versions()}
        write_json(path, value)
    return SegmentedRun(path, identity, report)


class StoredMasks:
    """The masks of ``segmenter``, each made once and kept as a line of the file ``path``."""

    def __init__(self, path: Path, segmenter: Segmenter) -> None:
        self._segmenter = segmenter
        self._known = dict(stored_masks(path))
        self._last: tuple[ImageRef, str] | None = None
        self._writer = RecordWriter(path)  # cuts off a torn tail, so a new line begins where the last whole one ends

    def segment(self, image: ImageRef, box: Box) -> Mask:
        """The stored mask of ``box`` in ``image``, or a new one that is then stored."""
        from pycocotools import mask as rle

        if self._last is None or self._last[0] != image:
            self._last = image, content_hash(image)
        key = (self._last[1], *box)
        if key in self._known:
            code = {"size": [image.height, image.width], "counts": self._known[key]}
            decoded: Mask = rle.decode(code).astype(np.bool_)
            return decoded
        mask = self._segmenter.segment(image, box)
        counts = rle.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode("ascii")
        self._writer.append({"image": key[0], "box": list(box), "mask": counts})
        self._known[key] = counts
        return mask

    def close(self) -> None:
        self._writer.close()


def content_hash(image: ImageRef) -> str:
    """What tells images apart, wherever they lie: two folders may hold a file of one name, and a file may be replaced.

    Raises :class:`DataError` for a file that cannot be read.
    """
    try:
        content = image.data if image.path is None else image.path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{image.path} cannot be read: {error.strerror}", fix="put the image back that the run was made with"
        ) from error
    return hashlib.sha256(content or b"").hexdigest()


def stored_masks(path: Path) -> list[tuple[tuple[Any, ...], str]]:
    """The masks in ``path`` as COCO's run lengths, by (image, x1, y1, x2, y2).

    A torn last line is left out; another flaw is a :class:`DataError`.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        values = [json.loads(line) for line in lines]
        return [((value["image"], *value["box"]), str(value["mask"])) for value in values]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path} cannot be read: {error}", fix="delete it: the masks are made anew") from error
