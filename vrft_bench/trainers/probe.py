"""Before a training: n rollouts per training prompt, what they could teach, and the prompts that are worth it.

The rollouts are an ordinary run (sampled, on the training split), so they resume, and any backend can answer them. The
prompts that are always right or never right are left out of the manifest that ``train --manifest`` takes: it is the
dynamic sampling of DAPO (Yu et al. 2025, arXiv 2503.14476, section 3.2), done once before training.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from statistics import fmean
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.models.base import Backend
from vrft_bench.harness.plan import RunPlan
from vrft_bench.harness.progress import Progress
from vrft_bench.harness.records import Record, read_records
from vrft_bench.harness.results import RunResult
from vrft_bench.harness.run import carry_out
from vrft_bench.harness.store import SAMPLES
from vrft_bench.tasks.base import Reward, Task
from vrft_bench.trainers.data import write_training_manifest
from vrft_bench.trainers.probe_figures import TOTAL, Group, ProbeFigures, probe_figures


class Verdict(StrEnum):
    """What a group says about its prompt."""

    KEPT = "kept"
    ALWAYS_RIGHT = "always_right"
    NEVER_RIGHT = "never_right"
    FLAT = "flat"
    TOO_SMALL = "too_small"


@dataclass(frozen=True, slots=True)
class Bounds:
    """A prompt is kept where the mean of the reward of being right over its rollouts lies between these, exclusive.

    Both are shares of the reward's declared range. A box of IoU .95 is right by the strictest of COCO's thresholds.
    """

    lowest: float = 0.0
    highest: float = 0.95

    def __post_init__(self) -> None:
        if not self.lowest < self.highest:
            raise UserError(
                f"--min-mean {self.lowest:g} is not below --max-mean {self.highest:g}: no prompt would be kept",
                fix="give shares such as --min-mean 0 --max-mean 0.95",
            )

    def judge(self, group: Group, right: Reward) -> Verdict:
        """The verdict on one prompt. Flat groups in between have nothing to learn from either."""
        if group.size < 2:
            return Verdict.TOO_SMALL
        share = (fmean(group.rewards[right.name]) - right.low) / (right.high - right.low)
        if share >= self.highest:
            return Verdict.ALWAYS_RIGHT
        if share <= self.lowest:
            return Verdict.NEVER_RIGHT
        return Verdict.FLAT if group.is_flat() else Verdict.KEPT


@dataclass(frozen=True)
class Probe:
    """What a probe found.

    ``statuses`` are shares of the completions by how they were read; ``well_formed`` and ``cut_off`` the shares that
    kept the asked layout and that ran into the token limit. ``verdicts`` lists sample ids in the data's order.
    """

    run: RunResult
    bounds: Bounds
    figures: ProbeFigures
    statuses: Mapping[str, float]
    well_formed: float
    cut_off: float
    verdicts: Mapping[Verdict, tuple[str, ...]]

    def to_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "run": str(self.run.folder),
            "fingerprint": self.run.manifest.fingerprint,
            "task": self.run.manifest.task,
            "model": self.run.manifest.model,
            "data": self.run.manifest.data,
            **self.figures.to_json(),
            "statuses": dict(self.statuses),
            "well_formed": self.well_formed,
            "cut_off": self.cut_off,
            "bounds": {"min_mean": self.bounds.lowest, "max_mean": self.bounds.highest},
            "prompts": {verdict.value: list(ids) for verdict, ids in self.verdicts.items()},
        }


def probe(plan: RunPlan, backend: Backend, bounds: Bounds | None = None, *, progress: Progress | None = None) -> Probe:
    """Sample the rollouts of ``plan`` (or read those that are there already) and judge every prompt.

    Raises :class:`UserError` for a plan that draws no groups, :class:`DataError` where no group came about, and what
    :func:`~vrft_bench.harness.run.carry_out` raises.
    """
    bounds = bounds or Bounds()
    if plan.config.samples < 2 or plan.config.temperature <= 0.0:
        raise UserError(
            f"{plan.config.samples} completions per prompt at temperature {plan.config.temperature:g} are no groups "
            "to compare",
            fix="sample, as in training: --n 8 --temperature 1",
        )
    run = carry_out(plan, backend, progress=progress)
    answers, groups = _read_groups(plan, run.folder)
    if not any(group.size > 1 for group in groups):
        raise DataError(
            f"no prompt has two answers in {run.folder}: too many failed",
            fix="mend the cause (samples.jsonl says why each failed), and probe again with --fresh",
        )
    right = reward_of_being_right(plan.task)
    verdicts: dict[Verdict, list[str]] = {verdict: [] for verdict in Verdict}
    for group in groups:
        verdicts[bounds.judge(group, right)].append(group.sample_id)
    count = sum(answers.statuses.values())
    return Probe(
        run=run,
        bounds=bounds,
        figures=probe_figures(groups, right),
        statuses={status: number / count for status, number in answers.statuses.items()},
        well_formed=answers.well_formed / count,
        cut_off=answers.cut_off / count,
        verdicts={verdict: tuple(ids) for verdict, ids in verdicts.items()},
    )


def reward_of_being_right(task: Task) -> Reward:
    """The first that is neither of confidence nor of layout, in whatever order ``--reward`` names them."""
    beside = {reward.name for reward in task.default_rewards[1:]}
    return next((reward for reward in task.rewards if reward.name not in beside), task.rewards[0])


def write_manifest(path: Path, plan: RunPlan, found: Probe) -> None:
    """Write the kept prompts for ``train --manifest``, with what led to them; the same probe writes the same bytes.

    Raises :class:`DataError` where none is kept.
    """
    kept = found.verdicts[Verdict.KEPT]
    if not kept:
        counts = ", ".join(f"{len(ids)} {verdict.value.replace('_', ' ')}" for verdict, ids in found.verdicts.items())
        raise DataError(
            f"no prompt is worth training on ({counts}): {path} is not written",
            fix="widen --min-mean and --max-mean, draw more with --n, or start from a model that has been through SFT",
        )
    about = {
        "model": found.run.manifest.identity["model"],
        "sampling": found.run.manifest.identity["sampling"],
        "rewards": {reward.name: plan.task.weights.get(reward.name, 1.0) for reward in plan.task.rewards},
        "min_mean": found.bounds.lowest,
        "max_mean": found.bounds.highest,
        "dropped": {verdict.value: list(ids) for verdict, ids in found.verdicts.items() if verdict is not Verdict.KEPT},
    }
    write_training_manifest(path, plan, list(kept), {"probe": about})


@dataclass(slots=True)
class _Answers:
    """Counts of how the rollouts could be read."""

    statuses: Counter[str]
    well_formed: int = 0
    cut_off: int = 0


def _read_groups(plan: RunPlan, folder: Path) -> tuple[_Answers, list[Group]]:
    """The stored rollouts by prompt, in the data's order. Those that failed are left out of their groups."""
    names = [*(reward.name for reward in plan.task.rewards), TOTAL]
    by_sample: dict[str, dict[str, list[float]]] = {}
    answers = _Answers(Counter())
    for record in read_records(folder / SAMPLES):
        if "error" in record:
            continue
        _count(answers, record)
        rewards = by_sample.setdefault(record["id"], {name: [] for name in names})
        for name in names:
            rewards[name].append(record["score"][name])
    groups = []
    for sample in plan.walk():
        rewards = by_sample.get(sample.id, {name: [] for name in names})
        groups.append(Group(sample.id, {name: tuple(values) for name, values in rewards.items()}))
    return answers, groups


def _count(answers: _Answers, record: Record) -> None:
    answers.statuses[record["prediction"]["status"]] += 1
    answers.well_formed += record["prediction"]["well_formed"]
    answers.cut_off += record["finish_reason"] == "length"
