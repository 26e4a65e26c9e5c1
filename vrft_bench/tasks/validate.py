"""Checks that a task keeps its promises on its data, without a model: gold scores, silence, coordinates, prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget, ClassTarget, DataSpec, Sample, Status, Task
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile

ROUNDING = 0.05
"""How much of the maximum a gold completion may lose to the rounding of coordinates, on average over the samples."""


@dataclass(frozen=True, slots=True)
class Check:
    """One promise: whether it is kept, on how many samples it was looked at, and what is wrong where it is not."""

    name: str
    passed: bool
    looked_at: int
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"check": self.name, "passed": self.passed, "looked_at": self.looked_at, "detail": self.detail}


def validate(task: Task, spec: DataSpec, profiles: Sequence[ModelProfile], *, limit: int | None = None) -> list[Check]:
    """All checks of ``task`` on its data (the first ``limit`` samples), for every profile.

    Raises :class:`~vrft_bench.errors.DataError` where the data cannot be read at all.
    """
    samples = list(islice(task.load(spec).samples(), limit))
    checks = [_data(samples)]
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
            unread.append(sample.id)
        most += task.best_total(sample)
        total += task.judge(prediction, sample.target).total
        counted += 1
    if unread:
        return Check(name, False, counted, f"{len(unread)} gold completions are not read as ok, first {unread[0]!r}")
    passed = most - total <= ROUNDING * most
    detail = "" if passed else f"the mean total is {total / counted:.3f} of {most / counted:.3f}"
    return Check(name, passed, counted, detail)


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
