"""What a run is about to do, and the content that identifies it.

A plan walks the dataset once to count and hash what is selected, keeping none of it; the run walks it again to ask.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.config import RunConfig, merge
from vrft_bench.harness.models.base import Backend, LimitsPixels, Workload
from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import Dataset, Message, Sample, Task, target_to_json
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.data.splits import take_few_shot
from vrft_bench.tasks.data.survey import FileSizes, canonical
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import ABS_ORIGINAL


@dataclass(frozen=True)
class Survey:
    """What the first walk found: how many samples are selected, and the hash of everything that they ask and hold.

    ``workload`` is the most that one of them asks for. ``content`` holds hashes that do not depend on the profile, by
    which runs of models that speak different coordinates are known to have been asked the same: of the ``data`` (ids,
    images, truth) and of the ``prompts``, as a model would be asked that speaks pixels.
    """

    samples: int
    sha256: str
    workload: Workload
    content: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RunPlan:
    """A task under its protocol, its data, the model's profile and the selection of samples."""

    task: Task
    dataset: Dataset
    profile: ModelProfile
    config: RunConfig
    survey: Survey

    @property
    def completions(self) -> int:
        """How many completions the whole run has."""
        return self.survey.samples * self.config.samples

    @property
    def data_kind(self) -> str:
        """``sample`` for the embedded sample data, else ``real``."""
        return "sample" if self.dataset.is_sample else "real"

    def walk(self) -> Iterator[Sample]:
        """The selected samples, in the dataset's order."""
        return selected(self.dataset, self.config)

    def unasked(self) -> Iterator[Sample]:
        """Questions that nobody asks and whose truth counts as missed; none where only a part of the data is run."""
        return _unasked(self.dataset, self.config)

    def identity(self, model: Mapping[str, Any]) -> dict[str, Any]:
        """The parts of the fingerprint; ``model`` is the backend's own identity."""
        parts = {
            "task": {
                "name": self.task.name,
                "version": self.task.version,
                "protocol": self.task.protocol,
                "rewards": [reward.name for reward in self.task.rewards],
                "weights": dict(self.task.weights),
                "groups": _groups(self.task, self.dataset),
            },
            "data": {
                "kind": self.data_kind,
                "split": self.dataset.split,
                "rules": self.dataset.rules,
                "ask": _ask(self.dataset),
                "categories": list(self.dataset.categories),
                "frequency": dict(self.dataset.frequency),
                "samples": self.survey.samples,
                "sha256": self.survey.sha256,
            },
            "profile": self.profile.to_json(),
            "sampling": self.config.sampling().to_json(),
            "model": dict(model),
            "include": _included(self.config),
        }
        stored: dict[str, Any] = json.loads(canonical(parts))  # tuples become lists, as they will be read back
        return stored


def make_plan(task: Task, profile: ModelProfile, config: RunConfig) -> RunPlan:
    """Load the data and survey it. Where ``config`` does not choose the longest answer, the task's rules may.

    Raises :class:`UserError` when nothing is selected or a sample id is unknown.
    """
    task = task.under(config.protocol)
    if task.max_tokens is not None and "max_tokens" not in config.model_fields_set:
        config = merge(config, {"max_tokens": task.max_tokens})
    dataset = task.load(config.data_spec())
    if config.shots is not None:
        dataset = take_few_shot(dataset, task.name, config.shots, config.split_seed)
    return RunPlan(task, dataset, profile, config, _survey(task, dataset, profile, config))


def choose_task(name: str, config: RunConfig) -> Task:
    """The task called ``name`` under the protocol and with the rewards that ``config`` chooses."""
    task = get_task(name, config.protocol)
    return task if config.reward is None else task.rewarded_by(config.reward)


def resolve_profile(config: RunConfig, backend: Backend) -> ModelProfile:
    """``--profile`` wins; otherwise the backend says what its checkpoint speaks. Its arguments may limit the pixels."""
    if config.profile is not None:
        chosen: ModelProfile = PROFILES.get(config.profile)
        return backend.with_pixel_limits(chosen) if isinstance(backend, LimitsPixels) else chosen
    profile = backend.profile()
    if profile is None:
        raise UserError(
            f"no coordinate profile is known for model {config.model!r}: boxes cannot be read without one",
            fix=f"say which convention it speaks: --profile {' | '.join(PROFILES.names())}",
        )
    return profile


def selected(dataset: Dataset, config: RunConfig) -> Iterator[Sample]:
    """The samples that ``--sample-id`` and ``--limit`` leave, the first of which is applied first."""
    wanted = frozenset(config.sample_id)
    left = config.limit if config.limit is not None else -1
    for sample in dataset.samples():
        if left == 0:
            return
        if wanted and sample.id not in wanted:
            continue
        left -= 1
        yield sample


def _unasked(dataset: Dataset, config: RunConfig) -> Iterator[Sample]:
    return iter(()) if config.limit is not None or config.sample_id else dataset.unasked()


def _survey(task: Task, dataset: Dataset, profile: ModelProfile, config: RunConfig) -> Survey:
    digest, data, prompts = (hashlib.sha256() for _ in range(3))
    ids = array("q")
    missing = set(config.sample_id)
    file_size = FileSizes()
    longest, sizes = 0, set()
    for sample in selected(dataset, config):
        ids.append(hash(sample.id))
        missing.discard(sample.id)
        image = sample.image
        messages = task.messages(sample, profile)
        longest = max(longest, text_bytes(messages))
        sizes.add((image.width, image.height))
        about_image = [image.path.name if image.path else None, image.width, image.height, file_size(image)]
        name, asked = canonical(sample.id), canonical(messages)
        held = f"{canonical(target_to_json(sample.target))},{canonical(about_image)}"
        digest.update(f"[{name},{asked},{held}]".encode())
        data.update(f"[{name},{held}]".encode())
        neutral = task.messages(sample, ABS_ORIGINAL)
        prompts.update(f"[{name},{asked if neutral == messages else canonical(neutral)}]".encode())
    for sample in _unasked(dataset, config):
        missed = canonical(["unasked", sample.id, target_to_json(sample.target)]).encode()
        digest.update(missed)
        data.update(missed)
    if missing and config.limit is not None:  # the limit may have ended the walk before them
        missing -= {sample.id for sample in dataset.samples() if sample.id in missing}
    if missing:
        raise _unknown_id(dataset, min(missing))
    if not ids:
        raise UserError("no sample is selected", fix="widen --sample-id, --limit, --categories or --split")
    hashes = np.sort(np.frombuffer(ids, dtype=np.int64))  # 8 bytes per id: the ids themselves would not stay flat
    if (hashes[1:] == hashes[:-1]).any():
        raise UserError(f"two samples of task {task.name!r} have the same id", fix="make the ids of its data unique")
    workload = Workload(longest, most_image_tokens(sizes, profile), config.max_tokens)
    content = {"data": data.hexdigest(), "prompts": prompts.hexdigest()}
    return Survey(len(ids), digest.hexdigest(), workload, content)


def workload_of(plans: Sequence[RunPlan]) -> Workload:
    """The most that one question of any of ``plans`` asks for."""
    each = [plan.survey.workload for plan in plans]
    images = [one.image_tokens for one in each]
    return Workload(
        max(one.question_bytes for one in each),
        None if None in images else max(count for count in images if count is not None),
        max(one.max_tokens for one in each),
    )


def text_bytes(messages: Sequence[Message]) -> int:
    """How long the text of a chat is in UTF-8."""
    contents = (message["content"] for message in messages)
    parts = ([one] if isinstance(one, str) else [part.get("text", "") for part in one] for one in contents)
    return sum(len(text.encode()) for texts in parts for text in texts)


def most_image_tokens(sizes: Iterable[tuple[int, int]], profile: ModelProfile) -> int | None:
    """Into how many tokens the largest image is cut; ``None`` where the profile does not say."""
    if profile.factor is None:
        return None
    most = 0
    for width, height in sizes:
        try:
            columns, rows = (side // profile.factor for side in profile.processed_size(width, height))
        except UserError:  # an image that no processor takes; its sample fails
            continue
        most = max(most, columns * rows)
    return most


def _unknown_id(dataset: Dataset, given: str) -> UserError:
    valid = [sample.id for sample, _ in zip(dataset.samples(), range(5000), strict=False)]
    return UserError(
        f"unknown sample id {given!r}{did_you_mean(given, valid)}",
        fix=f"use ids of this split, such as {', '.join(repr(name) for name in valid[:3])}",
    )


def _groups(task: Task, dataset: Dataset) -> dict[str, list[str]]:
    """The sets of categories that get figures of their own."""
    if not isinstance(task, DetectionTask):
        return {}
    groups = task.sample_groups if dataset.is_sample else task.groups
    return {name: list(members) for name, members in groups.items()}


def _ask(dataset: Dataset) -> str | None:
    """The ask rule. Of a map only that there is one: where it lies changes nothing, and what it asks is in the hash."""
    return "file:" if dataset.ask is not None and dataset.ask.startswith("file:") else dataset.ask


def _included(config: RunConfig) -> list[dict[str, str]]:
    """Name and content of every included file, in the order in which they are run. A file is run once."""
    files = dict.fromkeys(Path(path).expanduser().resolve() for path in config.include)
    return [{"name": file.name, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()} for file in files]
