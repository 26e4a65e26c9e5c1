"""Backends without a model: ``mock/gold``, ``mock/noisy``, ``mock/constant:TEXT`` and ``mock/replay:RUN``.

They answer from the truth, from a fixed text, or from an earlier run's records, and never open an image. They speak the
coordinates of whatever profile the run has; by default pixels of the original image, with two decimals as COCO's boxes.
Under the ``paper`` protocol they speak thousandths, as its questions ask of every model.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError, did_you_mean
from vrft_bench.harness.models.base import Backend, Completion, Request
from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget, Sample, Target
from vrft_bench.tasks.coordinates import Box, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import ABS_ORIGINAL

_FORMS = "mock/gold, mock/noisy, mock/constant:TEXT or mock/replay:RUN_FOLDER"


def mock_backend(name: str, args: Mapping[str, Any]) -> Backend:
    """The mock called ``name`` (what follows ``mock/``). ``noisy`` takes jitter, miss and false; the others nothing."""
    kind, _, rest = name.partition(":")
    match kind:
        case "gold":
            _refuse(args, ())
            return TextMock({"name": "mock/gold"}, gold)
        case "noisy":
            noise = Noise(args)
            return TextMock({"name": "mock/noisy", **noise.to_json()}, noise)
        case "constant":
            _refuse(args, ())
            return TextMock({"name": "mock/constant", "text": rest}, lambda request: rest)  # noqa: ARG005
        case "replay" if rest:
            _refuse(args, ())
            return ReplayMock(Path(rest))
    near = did_you_mean(kind, ("gold", "noisy", "constant", "replay"))
    raise UserError(f"unknown mock {name!r}{near}", fix=f"use {_FORMS}")


class TextMock:
    """Answers each request with what ``answer`` makes of it."""

    reads_truth = True

    def __init__(self, identity: Mapping[str, Any], answer: Callable[[Request], str]) -> None:
        self._identity = dict(identity)
        self._answer = answer

    def identity(self) -> Mapping[str, Any]:
        return self._identity

    def profile(self) -> ModelProfile | None:
        return ABS_ORIGINAL

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            image = request.sample.image
            try:
                request.profile.processed_size(image.width, image.height)  # no processor takes what this refuses
                text = self._answer(request)
            except UserError as error:
                yield Completion(request.sample.id, request.n, "", "error", error=error.message)
            else:
                yield Completion(request.sample.id, request.n, text, image_sha256=image.sha256)

    def close(self) -> None:
        """Nothing is held."""


def gold(request: Request) -> str:
    """The perfect answer."""
    return request.task.gold(request.sample, request.frame)


class Noise:
    """A perfect answer made worse, by a random stream of its own per (seed, sample id, n).

    ``jitter`` is the standard deviation of each box edge, as a share of the box's width or height; ``miss`` the chance
    that an object is missed (or a class mistaken, or a region sought elsewhere); ``false`` the chance of a box where
    nothing is. Confidences of true boxes lie around .75, of false ones around .4.
    """

    def __init__(self, args: Mapping[str, Any]) -> None:
        _refuse(args, ("jitter", "miss", "false"))
        self.jitter = _number(args, "jitter", 0.08, high=10.0)
        self.miss = _number(args, "miss", 0.15, high=1.0)
        self.false = _number(args, "false", 0.2, high=1.0)

    def to_json(self) -> dict[str, float]:
        return {"jitter": self.jitter, "miss": self.miss, "false": self.false}

    def __call__(self, request: Request) -> str:
        sample, frame = request.sample, request.frame
        stream = random.Random(f"{request.sampling.seed}/{sample.id}/{request.n}")
        target: Target
        match sample.target:
            case ClassTarget() as truth:
                target = self._class(truth, sample, stream)
            case MaskTarget(box=box):
                target = MaskTarget(self._box(box, sample, stream), ())
            case BoxTarget(boxes=boxes):
                found = self._boxes(boxes, sample, stream)
                if isinstance(request.task, DetectionTask):
                    return request.task.answer(*_columns(found), sample, frame)
                target = BoxTarget(tuple(box for box, _ in found))
        return request.task.gold(replace(sample, target=target), frame)

    def _class(self, truth: ClassTarget, sample: Sample, stream: random.Random) -> ClassTarget:
        others = [name.strip() for name in sample.fields.get("options", "").split(",")]
        others = [name for name in others if name and name != truth.label and name not in truth.aliases]
        if stream.random() >= self.miss:
            return truth
        return ClassTarget(stream.choice(others) if others else "something else")

    def _box(self, box: Box, sample: Sample, stream: random.Random) -> Box:
        if stream.random() < self.miss:
            return _anywhere(sample, stream)
        return self._shaken(box, sample, stream)

    def _boxes(self, boxes: Iterable[Box], sample: Sample, stream: random.Random) -> list[tuple[Box, float]]:
        found = [
            (self._shaken(box, sample, stream), _confidence(0.75, stream))
            for box in boxes
            if stream.random() >= self.miss
        ]
        if stream.random() < self.false:
            found.append((_anywhere(sample, stream), _confidence(0.4, stream)))
        return found

    def _shaken(self, box: Box, sample: Sample, stream: random.Random) -> Box:
        x1, y1, x2, y2 = box
        wide, high = (x2 - x1) * self.jitter, (y2 - y1) * self.jitter
        left, right = sorted((x1 + stream.gauss(0.0, wide), x2 + stream.gauss(0.0, wide)))
        top, bottom = sorted((y1 + stream.gauss(0.0, high), y2 + stream.gauss(0.0, high)))
        width, height = float(sample.image.width), float(sample.image.height)
        return max(left, 0.0), max(top, 0.0), min(right, width), min(bottom, height)


class ReplayMock:
    """Gives the texts of an earlier run again, each to the sample and n that it was for."""

    reads_truth = True

    def __init__(self, path: Path) -> None:
        from vrft_bench.harness.store import SAMPLES, containing_run, read_manifest

        folder = containing_run(path)
        manifest = read_manifest(folder)
        self._fingerprint = manifest.fingerprint
        self._profile = ModelProfile.from_json(manifest.identity["profile"])
        self._samples = folder / SAMPLES
        if not self._samples.is_file():
            raise DataError(f"{folder} holds no answers: it has no {SAMPLES}", fix="replay a run that has some")

    def identity(self) -> Mapping[str, Any]:
        """The content of the records: a run that was stopped answers more once it has been resumed."""
        with self._samples.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": "mock/replay", "run": self._fingerprint, "samples_sha256": digest}

    def profile(self) -> ModelProfile | None:
        return self._profile

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        from contextlib import closing

        from vrft_bench.harness.records import RecordIndex

        with closing(RecordIndex(self._samples)) as index:
            for request in requests:
                key = (request.sample.id, request.n)
                offset = index.answered.get(key, index.failed.get(key))
                if offset is None:
                    yield Completion(*key, "", "error", error="the replayed run has no answer to it")
                    continue
                record = index.read(offset)
                if "error" in record:
                    yield Completion(*key, "", "error", error=record["error"])
                    continue
                size, tokens = record.get("processed"), record.get("token_logprobs")
                yield Completion(
                    *key,
                    record["text"],
                    record["finish_reason"],
                    prompt_tokens=record.get("prompt_tokens"),
                    completion_tokens=record.get("completion_tokens"),
                    processed=(size[0], size[1]) if size else None,
                    image_sha256=record.get("image_sha256"),
                    seconds=record.get("seconds"),
                    token_logprobs=tuple((end, value) for end, value in tokens) if tokens is not None else None,
                )

    def close(self) -> None:
        """Nothing is held."""


def _columns(found: list[tuple[Box, float]]) -> tuple[list[Box], list[float | None]]:
    return [box for box, _ in found], [confidence for _, confidence in found]


def _anywhere(sample: Sample, stream: random.Random) -> Box:
    """A box of a tenth to a half of the image's sides, somewhere inside it."""
    width, height = sample.image.width, sample.image.height
    wide, high = stream.uniform(0.1, 0.5) * width, stream.uniform(0.1, 0.5) * height
    left, top = stream.uniform(0.0, width - wide), stream.uniform(0.0, height - high)
    return left, top, left + wide, top + high


def _confidence(mean: float, stream: random.Random) -> float:
    return round(min(max(stream.gauss(mean, 0.15), 0.01), 1.0), 2)


def _refuse(args: Mapping[str, Any], valid: tuple[str, ...]) -> None:
    for name in args:
        if name not in valid:
            raise UserError(
                f"unknown model argument {name!r}{did_you_mean(name, valid)}",
                fix=f"valid here: {', '.join(valid) if valid else 'none'}",
            )


def _number(args: Mapping[str, Any], name: str, default: float, *, high: float) -> float:
    given = args.get(name, default)
    try:
        value = float(given)
    except (TypeError, ValueError):
        value = -1.0
    if not 0.0 <= value <= high:
        raise UserError(f"model argument {name}={given!r} is not in range", fix=f"give a number from 0 to {high:g}")
    return value
