"""Which categories to ask of an image, by a model's own word: the ``ask=file:MAP.json`` of detection tasks.

Visual-RFT asks a detector only about categories that a model said are present in the image; it published the maps, not
the prompt. :func:`write_ask_map` makes such a map with any backend: one short question per image and category.

::

    question    Is there a 'fire hydrant' in the image? Answer with one word, yes or no.
    answer      yes
    map         {"397133": ["fire hydrant", ...], "37777": [], ...}

Answers are kept in ``MAP.json.partial`` while the model works, so that a stopped call goes on where it stopped;
``MAP.json.info`` says which model, prompt and data the map was made with.
"""

from __future__ import annotations

import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from vrft_bench.errors import PartialRunError, UserError
from vrft_bench.harness.identity import differences
from vrft_bench.harness.models.base import Backend, Completion, Request, Sampling
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import disk_error
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, DataSpec, Sample, Task
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.data.survey import QUESTIONS, survey
from vrft_bench.tasks.detection import DetectionTask

PROMPT = "Is there a '{category}' in the image? Answer with one word, yes or no."

_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


@dataclass(frozen=True)
class PresenceTask(ClassificationTask):
    """Whether an image shows a category. Its samples are those of a detection task, with ``yes`` or ``no`` as truth."""

    template: str = PROMPT

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:  # noqa: ARG002 - no coordinates are asked for
        return self.template.replace("{category}", sample.fields["category"].replace("_", " "))

    def gold(self, sample: Sample, frame: Frame) -> str:  # noqa: ARG002 - a word is the same for every profile
        return cast(ClassTarget, sample.target).label


@dataclass(frozen=True)
class AskMapReport:
    """What became of the questions: ``unclear`` answers were neither yes nor no, ``failed`` ones never came.

    Both are left out of the map, as a no is. ``right`` counts the answers that agree with the truth.
    """

    path: Path
    images: int
    questions: int
    yes: int
    unclear: int
    failed: int
    right: int

    def to_json(self) -> dict[str, Any]:
        return {
            "path": str(self.path),
            "images": self.images,
            "questions": self.questions,
            "yes": self.yes,
            "unclear": self.unclear,
            "failed": self.failed,
            "agreement": self.right / self.questions,
        }


def write_ask_map(
    task: Task,
    spec: DataSpec,
    backend: Backend,
    profile: ModelProfile,
    path: Path,
    *,
    prompt: str = PROMPT,
    max_tokens: int = 16,
    max_failures: float = 0.05,
    progress: Progress | None = None,
) -> AskMapReport:
    """Ask ``backend`` about every image and category of a detection task's data, and write the map to ``path``.

    ``prompt`` holds ``{category}``. For LVIS the pairs are those that LVIS judges: no other can change a figure.

    Raises :class:`UserError` for a task that is no detection task, a prompt without ``{category}``, and a ``path`` that
    is there, is being made by another process, or was begun with another model, prompt or data;
    :class:`PartialRunError` where more than ``max_failures`` of the answers did not come, or the disk takes no more,
    and what came is kept.
    """
    progress = progress or SilentProgress()
    if not isinstance(task, DetectionTask):
        raise UserError(f"task {task.name!r} is no detection task: it does not ask by category", fix="choose another")
    if "{category}" not in prompt:
        raise UserError(f"the prompt {prompt!r} does not name the category", fix="put {category} where its name goes")
    if path.exists():
        raise UserError(f"{path} is there already", fix="name another file with -o, or delete it")
    dataset = task.load(replace(spec, ask="all"))
    presence = PresenceTask("presence", "1", "whether an image shows a category", template=prompt)
    sampling = Sampling(max_tokens=max_tokens)
    facts = survey(dataset)
    identity = {
        "task": task.name,
        "data": {
            "split": dataset.split,
            "is_sample": dataset.is_sample,
            "categories": list(dataset.categories),
            "sha256": facts.sha256,
        },
        "prompt": prompt,
        "sampling": sampling.to_json(),
        "profile": profile.to_json(),
        "model": dict(backend.identity()),
    }
    answers = _Answers(path, json.loads(json.dumps(identity, default=str)))
    total = facts.counts[QUESTIONS]
    failed = 0
    truth: dict[str, bool] = {}  # of the questions in flight
    with closing(answers):
        progress.begin(f"ask map of {task.name}", total, len(answers.known))
        for completion in backend.generate(_requests(presence, dataset, profile, sampling, answers.known, truth)):
            is_there = truth.pop(completion.sample_id)
            if completion.error is not None:
                failed += 1
                progress.advance(None)
                if failed > max_failures * total:
                    raise PartialRunError(
                        f"stopped: {failed} of {total} questions failed, the last with: {completion.error}",
                        fix="mend the cause and repeat the command: it goes on where it stopped",
                    )
                continue
            answer = _answer(presence, completion, profile)
            answers.add(completion.sample_id, answer)
            progress.advance(float(answer is is_there))
        progress.end()
        report = _write_map(dataset, answers, path, failed)
        path.with_name(path.name + ".info").write_text(
            json.dumps({**answers.identity, **report.to_json()}, indent=1) + "\n", encoding="utf-8"
        )
        answers.discard()
    return report


def _requests(
    task: PresenceTask,
    dataset: Dataset,
    profile: ModelProfile,
    sampling: Sampling,
    known: Mapping[str, bool | None],
    truth: dict[str, bool],
) -> Iterator[Request]:
    for sample in dataset.samples():
        if sample.id not in known:
            truth[sample.id] = _is_present(sample)
            asked = replace(sample, target=ClassTarget("yes" if truth[sample.id] else "no"))
            yield Request(task, asked, 0, task.messages(asked, profile), profile, sampling)


def _answer(task: PresenceTask, completion: Completion, profile: ModelProfile) -> bool | None:
    """``None`` where the answer is neither yes nor no."""
    truncated = completion.finish_reason == "length"
    label = task.parse(completion.text, Frame(profile, 1, 1), truncated=truncated).label or ""
    found = _YES_OR_NO.match(label)
    return None if found is None else found[1].lower() == "yes"


def _write_map(dataset: Dataset, answers: _Answers, path: Path, failed: int) -> AskMapReport:
    names: dict[str, list[str]] = {}
    questions = yes = unclear = right = 0
    for sample in dataset.samples():
        questions += 1
        present = names.setdefault(sample.fields["image_id"], [])
        answer = answers.known.get(sample.id)
        unclear += sample.id in answers.known and answer is None
        right += answer is _is_present(sample)
        if answer:
            yes += 1
            present.append(sample.fields["category"])
    beside = path.with_name(path.name + ".new")
    beside.write_text(json.dumps(names, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    beside.replace(path)
    return AskMapReport(path, len(names), questions, yes, unclear, failed, right)


def _is_present(sample: Sample) -> bool:
    return bool(cast(BoxTarget, sample.target).boxes)


class _Answers:
    """The answers so far, a line each, under a first line that says what they answer. One process has them at a time.

    Raises :class:`UserError` where another process has them, or they were begun otherwise.
    """

    def __init__(self, path: Path, identity: dict[str, Any]) -> None:
        self.identity = identity
        self.known: dict[str, bool | None] = {}
        self._path = path.with_name(path.name + ".partial")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._path.open("a+b")
        except OSError as error:
            raise UserError(
                f"{path} cannot be written: {error.strerror or error}",
                fix="name a file in a folder that can be written",
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise UserError(f"another process is making {path}", fix="wait for it, or name another file") from None
        self._take_up()

    def add(self, sample_id: str, answer: bool | None) -> None:
        self.known[sample_id] = answer
        self._write([sample_id, answer])

    def discard(self) -> None:
        self._path.unlink()

    def close(self) -> None:
        self._file.close()

    def _write(self, value: Any) -> None:
        try:
            self._file.write(json.dumps(value).encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise disk_error(self._path, error) from error

    def _take_up(self) -> None:
        """Read what is there; a last line that was not written whole is dropped."""
        self._file.seek(0)
        whole, end, _ = self._file.read().rpartition(b"\n")
        self._file.truncate(len(whole + end))
        if not end:
            self._write(self.identity)
            return
        try:
            first, *lines = (json.loads(line) for line in whole.split(b"\n"))
            self.known = dict(lines)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self._path} is damaged: {error}", fix="delete it, and begin again") from error
        if first != self.identity:
            changed = differences(first, self.identity) if isinstance(first, dict) else ["everything"]
            raise UserError(
                f"{self._path} was begun otherwise: {'; '.join(changed[:3])}",
                fix="repeat the command as it was, name another file with -o, or delete it",
            )
