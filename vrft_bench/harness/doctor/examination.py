"""An examination of one model: the environment, whether it loads, what it is asked, and which coordinates it speaks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from vrft_bench.errors import BackendError, ExitCode, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.doctor.convention import (
    LEVEL,
    Measurement,
    Verdict,
    judge,
    measure,
    read_answer,
    reading_name,
    readings,
    registered_as,
)
from vrft_bench.harness.doctor.environment import Check, check_environment
from vrft_bench.harness.doctor.squares import SIZES, Question, questions, with_small_images
from vrft_bench.harness.models import open_backend
from vrft_bench.harness.models.base import Anticipates, Backend, LimitsPixels, RendersPrompts, Request, Workload
from vrft_bench.harness.plan import most_image_tokens, resolve_profile, text_bytes
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.registry import MODELS, PROFILES
from vrft_bench.tasks.coordinates import ModelProfile

TAIL = 200
"""How many characters of the rendered prompt are shown: its end, where the template hands over to the model."""
MANY = 0.1


@dataclass(frozen=True, slots=True)
class Asked:
    """What the model answered when it was asked in ``profile``: how many failed, and what the others mean."""

    profile: ModelProfile
    failures: int
    found: Measurement
    verdict: Verdict


@dataclass(frozen=True)
class Examination:
    """Everything that was seen. ``problem`` says why the model does not answer at all.

    ``profile`` is the one that a run would use (``None``: a run would ask for ``--profile``). ``asked`` begins with the
    measurement for it; those for every other way of speaking that is registered follow where it does not fit, or where
    there is none. ``notes`` are sentences for the reader.
    """

    model: str
    checks: tuple[Check, ...]
    problem: UserError | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    profile: ModelProfile | None = None
    prompt_tail: str | None = None
    asked: tuple[Asked, ...] = ()
    verdict: Verdict | None = None
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """4: the model does not answer. 1: the environment is broken, or the profile is not what the model speaks."""
        if self.problem is not None:
            return ExitCode.BACKEND_FAILED
        broken = any(check.state == "failed" for check in self.checks)
        contradicted = self.verdict is not None and self.verdict.finding == "contradicts"
        return ExitCode.GATE_FAILED if broken or contradicted else ExitCode.OK


def examine(config: RunConfig, *, per_size: int = 16, progress: Progress | None = None) -> Examination:
    """Look at the model of ``config``, with ``per_size`` images of each size.

    Raises :class:`UserError` for what the user got wrong; a model that does not load is a finding, not an error.
    """
    kind = _backend_kind(config.model)
    needed = [kind, *(["ray"] if config.executor == "ray" else [])]
    checks = tuple(check_environment(kind, needed, config.output_dir))
    try:
        backend = open_backend(config)
    except UserError as error:
        if not isinstance(error, BackendError) and all(check.state != "failed" for check in checks):
            raise
        return Examination(config.model, checks, error)
    try:
        with _quiet_about_limits():
            return _examine_model(config, backend, checks, per_size, progress or SilentProgress())
    except BackendError as error:
        return Examination(config.model, checks, error)
    finally:
        backend.close()


def _examine_model(
    config: RunConfig, backend: Backend, checks: tuple[Check, ...], per_size: int, progress: Progress
) -> Examination:
    identity = dict(backend.identity())
    knows = config.profile is not None or backend.profile() is not None
    profile = resolve_profile(config, backend) if knows else None
    others = [way for way in _ways_of_speaking(backend) if profile is None or _name(way) != _name(profile)]
    drawn = list(questions(per_size))
    tail = None
    if isinstance(backend, RendersPrompts):
        tail = backend.rendered(_request(drawn[0], with_small_images(profile or others[0]), config))[-TAIL:]
    asked: list[Asked] = []
    ways = others if profile is None else [profile, *others]
    if isinstance(backend, Anticipates):
        backend.anticipate(_workload(drawn, ways, config))
    for way in ways:
        if asked and profile is not None and _name(profile) in asked[0].verdict.speaks:
            break
        progress.note(f"asking {len(drawn)} questions about drawn images, in {_name(way)}")
        asked.append(_ask(config, backend, way, drawn))
    verdict = _recommended(asked) if profile is None else _compared(asked)
    notes = _notes(config, asked if profile is None else asked[:1], verdict)
    return Examination(config.model, checks, None, identity, profile, tail, tuple(asked), verdict, tuple(notes))


def _ask(config: RunConfig, backend: Backend, profile: ModelProfile, drawn: Sequence[Question]) -> Asked:
    """Put the questions in ``profile``. Raises :class:`BackendError` where none is answered."""
    profile = with_small_images(profile)
    ways = readings(profile)
    pending: dict[str, Question] = {}

    def requests() -> Iterator[Request]:
        for question in drawn:
            pending[question.sample.id] = question
            yield _request(question, profile, config)

    answers, failures, reason = [], 0, ""
    for completion in backend.generate(requests()):
        question = pending.pop(completion.sample_id)
        if completion.error is None:
            answers.append(read_answer(question, completion, ways))
        else:
            failures, reason = failures + 1, completion.error
    if not answers:
        raise BackendError(
            f"{config.model} answers none of {failures} questions: {reason or 'the backend gave no answer'}",
            fix="mend what the reason names",
        )
    found = measure(ways, answers)
    return Asked(profile, failures + len(pending), found, judge(found))


def _request(question: Question, profile: ModelProfile, config: RunConfig) -> Request:
    messages = question.task.messages(question.sample, profile)
    return Request(question.task, question.sample, 0, messages, profile, config.sampling())


def _workload(drawn: Sequence[Question], ways: Sequence[ModelProfile], config: RunConfig) -> Workload:
    """The most that one of the questions asks for, whatever way it is asked in."""
    profiles = [with_small_images(way) for way in ways]
    texts = [question.task.messages(question.sample, profile) for question in drawn for profile in profiles]
    tokens = [count for profile in profiles if (count := most_image_tokens(SIZES, profile)) is not None]
    return Workload(max(map(text_bytes, texts)), max(tokens, default=None), config.max_tokens)


def _ways_of_speaking(backend: Backend) -> Iterator[ModelProfile]:
    """The first registered profile of each convention and order of axes that the backend's arguments allow."""
    told = set()
    for entry in PROFILES:
        if PROFILES.broken(entry) is not None:
            continue
        profile: ModelProfile = PROFILES.get(entry.name)
        if (name := _name(profile)) in told:
            continue
        try:
            limited = backend.with_pixel_limits(profile) if isinstance(backend, LimitsPixels) else profile
        except UserError:  # limits of the area are given, and this profile has no such thing
            continue
        told.add(name)
        yield limited


def _name(profile: ModelProfile) -> str:
    return reading_name(profile.convention, profile.axes)


def _best(asked: Iterable[Asked]) -> Asked | None:
    """Of those in which the model answered as it was asked, the one whose boxes fit best."""
    fitting = [one for one in asked if one.verdict.finding == "agrees"]
    return max(fitting, key=lambda one: one.found.mean(0), default=None)


def _recommended(asked: list[Asked]) -> Verdict:
    """For a model without a profile: the one to give it."""
    best = _best(asked)
    if best is None:
        return Verdict(
            "cannot tell", "cannot tell: the model has no profile, and it speaks none of the registered ones"
        )
    name, fit = _name(best.profile), best.found.mean(0)
    return Verdict(
        "cannot tell",
        f"the model has no profile of its own; asked in {name} it answers in {name} (IoU {fit:.2f}, the best of "
        f"{len(asked)} ways): give --profile {best.profile.name}",
        (name,),
    )


def _compared(asked: list[Asked]) -> Verdict:
    """The verdict of the declared profile, unless another one in which the model was asked too proves it wrong."""
    declared, best = asked[0], _best(asked[1:])
    if declared.verdict.finding != "cannot tell" or best is None or best.found.better_than(declared.found) >= LEVEL:
        return declared.verdict
    name, other = _name(best.profile), _name(declared.profile)
    return Verdict(
        "contradicts",
        f"speaks {name}, not {other} as its profile declares: asked in {name} it finds the squares (IoU "
        f"{best.found.mean(0):.2f}), asked in {other} it does not (IoU {declared.found.mean(0):.2f})",
        (name,),
    )


def _notes(config: RunConfig, asked: list[Asked], verdict: Verdict) -> Iterator[str]:
    if verdict.finding == "contradicts":
        fitting = [name for reading in verdict.speaks for name in registered_as(reading)]
        yield (
            f"profiles that speak so: {', '.join(fitting)} (--profile NAME)"
            if fitting
            else "no registered profile speaks so; `vrft-bench new model NAME --profile-only` writes one"
        )
    for one in asked:
        where = f", asked in {one.profile.name}" if len(asked) > 1 else ""
        total = len(one.found.answers) + one.failures
        best = max(range(len(one.found.ways)), key=one.found.mean)
        met = [size for size in SIZES if one.found.found(best, size)]
        if met and len(met) < len(SIZES):
            rest = [size for size in SIZES if size not in met]
            yield f"the squares are found in images of {_sizes(met)}{where}; of {_sizes(rest)} this says nothing"
        truncated = one.found.statuses.get("truncated", 0)
        if truncated > MANY * total:
            yield (
                f"{truncated} of {total} answers were cut off at --max-tokens {config.max_tokens}{where}: "
                "give more to a model that thinks at length"
            )
        if one.failures:
            yield f"{one.failures} of {total} questions failed{where}"


def _sizes(sizes: list[tuple[int, int]]) -> str:
    return ", ".join(f"{width}x{height}" for width, height in sizes)


def _backend_kind(model: str) -> str:
    kind, slash, _ = model.partition("/")
    return kind if slash and kind in MODELS else "hf"


@contextlib.contextmanager
def _quiet_about_limits() -> Iterator[None]:
    """The limits of the area are lowered here on purpose, which a run would remark on."""
    logger = logging.getLogger("vrft_bench.harness.models.pixel_limits")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)
