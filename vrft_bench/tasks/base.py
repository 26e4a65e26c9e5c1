"""The vocabulary: Sample, Target, Prediction, Reward, Score, Metric, Dataset and Task.

Everything here is plain data or a small protocol; it needs only the standard library, so that a reward can be used
in any other environment. Boxes are (x1, y1, x2, y2) in original pixels throughout.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, Self

from vrft_bench.errors import UserError
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.data_spec import DataSpec as DataSpec
from vrft_bench.tasks.ground_truth import no_ground_truth, read_ground_truth
from vrft_bench.tasks.targets import BoxTarget as BoxTarget
from vrft_bench.tasks.targets import ClassTarget as ClassTarget
from vrft_bench.tasks.targets import MaskTarget as MaskTarget
from vrft_bench.tasks.targets import Target as Target
from vrft_bench.tasks.targets import target_from_json as target_from_json
from vrft_bench.tasks.targets import target_to_json as target_to_json

ProtocolName = Literal["strict", "paper"]
Message = dict[str, Any]
"""A chat message as transformers and OpenAI-compatible servers take it: ``{"role": ..., "content": [parts]}``."""


@dataclass(frozen=True, slots=True)
class ImageRef:
    """Where an image is, and its size in pixels as the annotations state it.

    One of ``path`` and ``data`` (the encoded file's bytes) is set. ``sha256`` is that of the encoded file, where known.
    """

    width: int
    height: int
    path: Path | None = None
    data: bytes | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """One question: the image, the fields that the prompt is rendered from, and the truth.

    Detection samples carry ``fields["category"]`` and ``fields["image_id"]``; grounding samples
    ``fields["instruction"]``; classification samples ``fields["options"]`` (the class names, comma-separated) and,
    where the data has a subject of its own, ``fields["subject"]``.
    """

    id: str
    image: ImageRef
    fields: Mapping[str, str]
    target: Target


class Status(StrEnum):
    """How a completion was read."""

    OK = "ok"
    REPAIRED = "repaired"
    NO_ANSWER = "no_answer"
    MALFORMED = "malformed"
    REFUSED = "refused"
    TRUNCATED = "truncated"


UNPARSABLE = frozenset({Status.NO_ANSWER, Status.MALFORMED, Status.TRUNCATED})
"""Statuses in which nothing could be read."""


class Detection(NamedTuple):
    """A predicted box in original pixels, and the confidence in [0, 1] that the model stated (``None``: none)."""

    box: Box
    confidence: float | None


@dataclass(frozen=True, slots=True)
class Prediction:
    """A parsed completion.

    ``label`` is a classification answer, ``detections`` a detection or grounding answer. ``well_formed`` says that the
    completion followed the requested layout to the letter; ``boxes_read`` counts the boxes that were readable numbers,
    ``boxes_out_of_range`` those of them that left the declared coordinate range before they were clipped.
    """

    status: Status
    label: str | None = None
    detections: tuple[Detection, ...] = ()
    well_formed: bool = False
    boxes_read: int = 0
    boxes_out_of_range: int = 0
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """What ``samples.jsonl`` keeps of a prediction."""
        value: dict[str, Any] = {"status": self.status.value, "well_formed": self.well_formed}
        if self.label is not None:
            value["label"] = self.label
        if self.detections:
            value["boxes"] = [[round(number, 3) for number in item.box] for item in self.detections]
            value["confidences"] = [item.confidence for item in self.detections]
        if self.boxes_out_of_range:
            value["boxes_out_of_range"] = self.boxes_out_of_range
        if self.notes:
            value["notes"] = list(self.notes)
        return value


NO_PREDICTION = Prediction(Status.NO_ANSWER)
"""What a sample counts as whose completion never came."""
UNASKED = Prediction(Status.NO_ANSWER)
"""What a question counts as that nobody asked, whose truth is missed all the same."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A named, pure, thread-safe, picklable reward with its range; the value is finite and inside the range, always."""

    name: str
    function: Callable[[Prediction, Any], float]
    low: float = 0.0
    high: float = 1.0

    def __call__(self, prediction: Prediction, target: Target) -> float:
        value = float(self.function(prediction, target))
        if not math.isfinite(value):
            return self.low if self.low > 0.0 else min(0.0, self.high)
        return value if self.low <= value <= self.high else min(max(value, self.low), self.high)


@dataclass(frozen=True, slots=True)
class Score:
    """All reward components of one completion and their weighted total."""

    components: Mapping[str, float]
    total: float

    def to_json(self) -> dict[str, float]:
        """The components and ``total``; never a key named ``reward``."""
        return {**self.components, "total": self.total}


@dataclass(frozen=True, slots=True)
class Figure:
    """A corpus-level number with its confidence interval; ``None`` where it is not defined (no truth, say)."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, float | None]:
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True, slots=True)
class MetricReport:
    """What a metric says about a run.

    ``headline`` names the one of ``figures`` that the task is known by; ``by_category`` holds a row of figures and
    counts per category; ``notes`` are sentences that the reader of the figures must know.
    """

    headline: str
    figures: Mapping[str, Figure]
    by_category: Mapping[str, Mapping[str, Figure | int | str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "headline": self.headline,
            "figures": {name: figure.to_json() for name, figure in self.figures.items()},
            "by_category": {
                name: {key: item.to_json() if isinstance(item, Figure) else item for key, item in row.items()}
                for name, row in self.by_category.items()
            },
            "notes": list(self.notes),
        }


class Metric(Protocol):
    """A corpus-level metric that is fed one sample at a time, in any order, and keeps little of each."""

    def update(self, sample: Sample, prediction: Prediction, n: int = 0) -> None:
        """Count one prediction; ``n`` is the index of the completion where a sample was asked several times."""

    def compute(self) -> MetricReport:
        """The figures over everything counted so far. Deterministic, and independent of the order of updates."""


@dataclass(frozen=True)
class Dataset:
    """The samples of one split, read lazily: every call of ``samples`` walks them anew, in the same order.

    ``unasked`` walks questions that nobody asks but whose truth still counts as missed (``ask=file:``). ``is_sample``
    marks the embedded sample data. ``rules`` are ``coco`` or ``lvis`` for detection data; ``frequency`` maps a category
    to LVIS's ``r``, ``c`` or ``f``. ``counts`` are what the files hold in all where that is more than what is asked:
    ``images``, ``annotations``, ``categories``.
    """

    split: str
    categories: tuple[str, ...]
    samples: Callable[[], Iterator[Sample]]
    unasked: Callable[[], Iterator[Sample]] = lambda: iter(())
    is_sample: bool = False
    rules: Literal["coco", "lvis"] | None = None
    frequency: Mapping[str, str] = field(default_factory=dict)
    ask: str | None = None
    notes: tuple[str, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Task(ABC):
    """A benchmark. Families subclass this; a catalog file is one instance.

    ``version`` changes whenever a change of ours can change a score.
    """

    name: str
    version: str
    summary: str
    protocol: ProtocolName = "strict"
    weights: Mapping[str, float] = field(default_factory=dict, hash=False)
    chosen_rewards: tuple[Reward, ...] = ()

    family: ClassVar[str]
    target_type: ClassVar[type[Target] | None] = None
    """What the family's samples hold; ``None``: any target."""
    blind_bounds: ClassVar[Mapping[str, float]] = {}
    """What a completion that never looked at the image may earn on average beyond the best honest constant: by reward
    component, and under ``metric`` by the headline figure. ``vrft-bench audit`` holds a task to it."""
    max_tokens: ClassVar[int | None] = None
    """The longest answer, where the rules say one and the user does not."""
    protocols: ClassVar[tuple[ProtocolName, ...]] = ("strict",)
    rules: ClassVar[Mapping[ProtocolName, str]] = {}
    """Protocol -> ``module:class`` where another class of the family holds its rules; imported when it is asked for."""

    def __init_subclass__(cls, **options: Any) -> None:
        """A subclass with rules of its own does not inherit the protocols of its parent: it has to say which it has."""
        super().__init_subclass__(**options)
        if "protocols" not in vars(cls):
            cls.protocols = ("strict",)

    def require_libraries(self) -> None:  # noqa: B027 - most tasks need nothing
        """Raises :class:`UserError` that says what to install, where this protocol needs more than the core."""

    @property
    def reads_data_root(self) -> bool:
        """Whether the task has a place under a data root; if not, it reads only files that the user names."""
        return True

    @abstractmethod
    def load(self, spec: DataSpec) -> Dataset:
        """The data of ``spec``. Raises :class:`~vrft_bench.errors.DataError` when files are missing or wrong."""

    @abstractmethod
    def prompt(self, sample: Sample, profile: ModelProfile) -> str:
        """The text of the question."""

    @abstractmethod
    def gold(self, sample: Sample, frame: Frame) -> str:
        """The perfect completion, in the profile's convention."""

    @abstractmethod
    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        """What ``text`` says. Never raises. ``truncated``: the backend stopped at the token limit."""

    @property
    @abstractmethod
    def default_rewards(self) -> tuple[Reward, ...]:
        """The reward components where none are chosen, in a fixed order."""

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """The reward components that count, in a fixed order."""
        return self.chosen_rewards or self.default_rewards

    @property
    def reward_choices(self) -> Mapping[str, Reward]:
        """By name, what :meth:`rewarded_by` may choose from."""
        from vrft_bench.tasks.more_rewards import REWARDS

        return REWARDS.get(self.family) or {reward.name: reward for reward in self.default_rewards}

    def rewarded_by(self, spec: str) -> Self:
        """This task with the rewards and weights of ``spec`` (``iou=1,format=0.5``) in place of its own.

        Raises :class:`UserError` for a name that is no choice and for a weight that is no number of 0 or more.
        """
        from vrft_bench.tasks.more_rewards import choose_rewards

        chosen, weights = choose_rewards(self.family, spec, self.reward_choices)
        return replace(self, chosen_rewards=chosen, weights=weights)

    @abstractmethod
    def metric(self, dataset: Dataset) -> Metric:
        """A fresh corpus-level metric for ``dataset``."""

    def under(self, protocol: ProtocolName) -> Task:
        """This task by the rules of ``protocol``. Raises :class:`UserError` for one that it does not have."""
        if protocol not in self.protocols:
            raise UserError(
                f"task {self.name!r} has no protocol {protocol!r} in this version",
                fix=f"use --protocol {' or '.join(self.protocols)}",
            )
        if protocol == self.protocol or protocol not in self.rules:
            return replace(self, protocol=protocol)
        module, _, name = self.rules[protocol].partition(":")
        family: type[Task] = getattr(import_module(module), name)
        mine = {item.name: getattr(self, item.name) for item in fields(self)}
        return family(**mine | {"protocol": protocol})

    def messages(self, sample: Sample, profile: ModelProfile) -> list[Message]:
        """The chat: one user turn with the image and the question."""
        text = {"type": "text", "text": self.prompt(sample, profile)}
        return [{"role": "user", "content": [{"type": "image"}, text]}]

    def judge(self, prediction: Prediction, target: Target) -> Score:
        """Every reward component and their weighted sum."""
        components = {reward.name: reward(prediction, target) for reward in self.rewards}
        if not self.weights:
            return Score(components, sum(components.values()))
        return Score(components, sum(self.weights.get(name, 1.0) * value for name, value in components.items()))

    def best_total(self, sample: Sample) -> float:  # noqa: ARG002 - what can be reached may depend on the truth
        """The total of a perfect answer to ``sample``, but for the rounding of its coordinates."""
        return sum(self.weights.get(reward.name, 1.0) * reward.high for reward in self.rewards)

    def ground_truth(self, sample: Sample, frame: Frame) -> str:
        """The portable truth of ``sample``: a JSON string that :meth:`score` takes, with no pixels in it."""
        return json.dumps(
            {
                "task": self.name,
                "version": self.version,
                "protocol": self.protocol,
                **frame.to_json(),
                "target": target_to_json(sample.target),
            }
        )

    def score(self, completion: str, ground_truth: str) -> dict[str, float]:
        """The portable reward: components and ``total``, with the same keys for every completion of a task.

        Raises :class:`UserError` when ``ground_truth`` belongs to another task, version or protocol.
        """
        return self.assess(completion, ground_truth)[1].to_json()

    def assess(self, completion: str, ground_truth: str) -> tuple[Prediction, Score]:
        """What a completion says and what that is worth. Raises as :meth:`score` does."""
        if not isinstance(completion, str):
            raise UserError(
                f"a completion is text, not {type(completion).__name__}",
                fix="pass the assistant's text; of a chat message that is message['content']",
            )
        frame, target = read_ground_truth(ground_truth, self.name, self.version, self.protocol)
        if self.target_type is not None and not isinstance(target, self.target_type):
            raise no_ground_truth(ground_truth, f"holds a {target.kind} target, and {self.name} is {self.family}")
        prediction = self.parse(completion, frame)
        return prediction, self.judge(prediction, target)
