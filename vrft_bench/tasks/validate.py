"""Checks that a task keeps its promises, without a model: its data, gold scores, silence, coordinates, prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, DataSpec, ImageRef, Prediction, Sample, Status, Task
from vrft_bench.tasks.boxes import clip
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.data.annotations import ROUNDED_OUT
from vrft_bench.tasks.data.image_files import header_size
from vrft_bench.tasks.data.manifest import expected, write_pin
from vrft_bench.tasks.data.survey import QUESTIONS, survey

ROUNDING = 0.05
"""How much of the maximum a gold completion may lose to the rounding of coordinates, on average over the samples."""
UNROUNDED = ModelProfile("unrounded", "abs_original", decimals=6)
"""A model that loses nothing to rounding: every gold completion of it has to score the maximum, not only their mean."""
_NEARLY_ALL = 0.99


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it is kept, on how many samples it was looked at, what is wrong where it is not, and what to
    do about it where that is not plain.

    The ``detail`` of a promise that is kept is a remark: what to know all the same. That of the data's check says what
    they fit.
    """

    name: str
    passed: bool
    looked_at: int
    detail: str = ""
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "check": self.name,
            "passed": self.passed,
            "looked_at": self.looked_at,
            "detail": self.detail,
            "fix": self.fix,
        }


def check_data(task: Task, spec: DataSpec, *, pin: bool = False) -> Check:
    """Hold all data of the task's split to their pin, else to the manifest that ships or to what is published.

    The choice of categories in ``spec`` does not count, so that a pin holds for each, but for a task that has none of
    its own for the split. ``pin``: first pin what is there.
    Raises :class:`UserError` where that cannot be done (see :func:`~vrft_bench.tasks.data.manifest.write_pin`), and
    :class:`~vrft_bench.errors.DataError` where the data cannot be read.
    """
    dataset = _load_whole(task, spec)
    facts = survey(dataset)
    if pin:
        write_pin(task, spec, dataset, facts)
    name, questions = "the data fit their manifest", facts.counts[QUESTIONS]
    manifests = expected(task, spec, dataset)
    differences = [(manifest, manifest.differences(facts)) for manifest in manifests]
    for manifest, lines in differences:
        if not lines:
            return Check(name, True, questions, manifest.source)
    detail = " | ".join(f"{manifest.source}: {'; '.join(lines)}" for manifest, lines in differences)
    return Check(name, False, questions, detail, manifests[0].fix)


def _load_whole(task: Task, spec: DataSpec) -> Dataset:
    try:
        return task.load(replace(spec, categories=()))
    except UserError as error:
        if isinstance(error, DataError) or not spec.categories:
            raise
        return task.load(spec)


def validate(task: Task, spec: DataSpec, profiles: Sequence[ModelProfile], *, limit: int | None = None) -> list[Check]:
    """All checks of ``task`` on its data (the first ``limit`` samples), for every profile; :func:`check_data` is apart.

    Raises :class:`~vrft_bench.errors.DataError` where the data cannot be read at all.
    """
    samples = list(islice(task.load(spec).samples(), limit))
    checks = [
        _data(samples),
        _over("image files open with the size that the data state", samples, _image()),
        *_objects(samples),
        _over("gold scores the maximum on every sample", samples, _gold_unrounded(task)),
    ]
    for profile in profiles:
        checks.append(_over(f"prompts render ({profile.name})", samples, _prompts(task, profile)))
        checks.append(_over(f"coordinates round-trip ({profile.name})", samples, _round_trip(profile)))
        checks.append(_gold(task, samples, profile))
    if profiles and task.protocol == "strict":
        checks.append(_over("the empty completion earns nothing", samples, _silence(task, profiles[0])))
    return checks


def _over(name: str, samples: Sequence[Sample], flaw: Callable[[Sample], str]) -> Check:
    """A check of every sample; ``flaw`` says what is wrong with one, or nothing."""
    wrong = [(sample.id, found) for sample in samples if (found := flaw(sample))]
    detail = f"{len(wrong)} samples, first {wrong[0][0]!r}: {wrong[0][1]}" if wrong else ""
    return Check(name, not wrong, len(samples), detail)


def _data(samples: Sequence[Sample]) -> Check:
    ids = {sample.id for sample in samples}
    if not samples:
        return Check("the data hold samples with ids of their own", False, 0, "no sample")
    twice = len(samples) - len(ids)
    return Check(
        "the data hold samples with ids of their own",
        not twice,
        len(samples),
        f"{twice} ids occur more than once" if twice else "",
    )


def _objects(samples: Sequence[Sample]) -> list[Check]:
    """Boxes that leave their image, and boxes listed twice: published sets hold a few, so that they are remarks.

    Where most leave their image, the file is not in the convention that it is read by.
    """
    if all(isinstance(sample.target, ClassTarget) for sample in samples):
        return []
    boxes = [(sample, box) for sample in samples for box in _boxes(sample)]
    outside = [(sample.id, pixels) for sample, box in boxes if (pixels := _pixels_outside(box, sample)) > ROUNDED_OUT]
    repeated = [(sample.id, count) for sample in samples if (count := _repeated(tuple(_boxes(sample))))]
    left = listed = fix = ""
    if outside:
        left = f"{len(outside):,} of {len(boxes):,} leave it, first {outside[0][0]!r} by {outside[0][1]:.0f} pixels"
    if is_mistake := 2 * len(outside) > len(boxes):
        fix = "are the boxes corners? COCO's and LVIS's are [x, y, width, height] in pixels"
    if repeated:
        again = sum(count for _, count in repeated)
        listed = f"{again:,} of {len(boxes):,} boxes equal an earlier one of their sample, first {repeated[0][0]!r}"
    return [
        Check("boxes lie inside their image", not is_mistake, len(samples), left, fix),
        Check("no object is listed twice", True, len(samples), listed),
    ]


def _pixels_outside(box: Box, sample: Sample) -> float:
    return max(-box[0], -box[1], box[2] - sample.image.width, box[3] - sample.image.height)


def _repeated(boxes: Sequence[object]) -> int:
    return len(boxes) - len(set(boxes))


def _image() -> Callable[[Sample], str]:
    """By the header alone. Files that are not there are counted by :func:`check_data`."""
    last: tuple[ImageRef | None, str] = None, ""

    def flaw(sample: Sample) -> str:
        nonlocal last
        if sample.image != last[0]:
            last = sample.image, _image_flaw(sample.image)
        return last[1]

    return flaw


def _image_flaw(image: ImageRef) -> str:
    file = image.data if image.data is not None else image.path
    if file is None or (isinstance(file, Path) and not file.exists()):
        return ""
    size = header_size(file)
    if size is None:
        return f"{image.path or 'its content'} is no image in a format that is read"
    stated = (image.width, image.height)
    return "" if size == stated else f"{image.path or 'its content'} has {size} pixels, and the data state {stated}"


def _prompts(task: Task, profile: ModelProfile) -> Callable[[Sample], str]:
    def flaw(sample: Sample) -> str:
        messages = task.messages(sample, profile)
        parts = [part for message in messages if isinstance(message["content"], list) for part in message["content"]]
        images = sum(part.get("type") == "image" for part in parts)
        if images != 1:
            return f"{images} images in the chat"
        return "" if any(part.get("text", "").strip() for part in parts) else "no text in the chat"

    return flaw


def _round_trip(profile: ModelProfile) -> Callable[[Sample], str]:
    """Half a model unit at most is lost between original pixels and what the model writes."""
    unit = 10.0**-profile.decimals

    def flaw(sample: Sample) -> str:
        frame = Frame(profile, sample.image.width, sample.image.height)
        limits = frame.limits()
        sizes = (sample.image.width, sample.image.height)
        for box in _boxes(sample):
            inside = tuple(min(max(value, 0.0), float(sizes[i % 2])) for i, value in enumerate(box))
            a, b, c, d = frame.to_model(box)
            back = frame.to_original((a, b, c, d))
            for index, (there, here) in enumerate(zip(inside, back, strict=True)):
                allowed = 0.5 * unit * sizes[index % 2] / limits[index % 2]
                if abs(there - here) > allowed * (1 + 1e-9) + 1e-9:
                    return f"{there} comes back as {here}"
        return ""

    return flaw


def _gold(task: Task, samples: Sequence[Sample], profile: ModelProfile) -> Check:
    name = f"gold scores the maximum ({profile.name})"
    most, total, counted = 0.0, 0.0, 0
    unread: list[str] = []
    for sample in samples:
        if isinstance(sample.target, BoxTarget) and not sample.target.verified:
            continue
        frame = Frame(profile, sample.image.width, sample.image.height)
        prediction = task.parse(task.gold(sample, frame), frame)
        if prediction.status not in (Status.OK, Status.REFUSED):
            if _merges_equal(task, prediction, sample, frame):
                continue
            unread.append(sample.id)
        most += task.best_total(sample)
        total += task.judge(prediction, sample.target).total
        counted += 1
    if unread:
        return Check(name, False, counted, f"{len(unread)} gold completions are not read as ok, first {unread[0]!r}")
    passed = most - total <= ROUNDING * most
    detail = "" if passed else f"the mean total is {total / counted:.3f} of {most / counted:.3f}"
    return Check(name, passed, counted, detail)


def _gold_unrounded(task: Task) -> Callable[[Sample], str]:
    """Objects that leave the image are left to the mean over samples: no answer can reach all of them."""

    def flaw(sample: Sample) -> str:
        width, height = sample.image.width, sample.image.height
        reachable = all(clip(box, width, height) == box for box in _boxes(sample))
        if not reachable or (isinstance(sample.target, BoxTarget) and not sample.target.verified):
            return ""
        frame = Frame(UNROUNDED, width, height)
        prediction = task.parse(task.gold(sample, frame), frame)
        most, total = task.best_total(sample), task.judge(prediction, sample.target).total
        if total >= _NEARLY_ALL * most or _merges_equal(task, prediction, sample, frame):
            return ""
        return f"its total is {total:.3f} of {most:.3f}"

    return flaw


def _merges_equal(task: Task, prediction: Prediction, sample: Sample, frame: Frame) -> bool:
    """Whether all that is amiss with a gold answer is that its reader takes boxes which are written alike for one.

    The paper's does. No answer to such a sample can then reach all its objects.
    """
    target = sample.target
    if not isinstance(target, BoxTarget) or len(prediction.detections) == len(target.findable):
        return False
    alone = [replace(sample, target=BoxTarget((box,))) for box in target.findable]
    read = [task.parse(task.gold(one, frame), frame).detections for one in alone]
    if any(len(found) != 1 for found in read):
        return False
    return prediction.detections == tuple(dict.fromkeys(found for (found,) in read))


def _silence(task: Task, profile: ModelProfile) -> Callable[[Sample], str]:
    def flaw(sample: Sample) -> str:
        frame = Frame(profile, sample.image.width, sample.image.height)
        try:
            total = task.score("", task.ground_truth(sample, frame))["total"]
        except UserError as error:
            return error.message
        return f"it earns {total}" if total else ""

    return flaw


def _boxes(sample: Sample) -> Iterator[Box]:
    target = sample.target
    if isinstance(target, BoxTarget):
        yield from target.boxes
    elif not isinstance(target, ClassTarget):
        yield target.box
