"""What `vrft-bench train` adds to the steps of TRL itself.

    OMP_NUM_THREADS=1 python benchmarks/train_overhead.py [--rounds 6] [--steps 24]

The same GRPO training of the bundled tiny model, twice: by a bare script (TRL's trainer, a dataset with images, one
reward function that calls the task's score) and by `train`, with its callbacks, log, table of statuses and images
resized as they are read. Both answer the same prompts with the same random numbers, so they draw the same completions,
which is checked. Rounds alternate. What is compared is processor time per step, from the beginning of the second step
to the beginning of the last, since wall time on a busy machine says little.

On a busy machine even processor time varies by a third between rounds, so a second figure is printed that does not: the
time spent in code of ours (rewards, images, callbacks) in the steps of `train`, beside what the script spends in its
reward. The aim is a ratio under 1.02.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import trl
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from transformers.utils import logging

from vrft_bench.harness.images import load_image
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.trainers import data, trl_engine
from vrft_bench.trainers.base import make_train_config
from vrft_bench.trainers.base_model import find_base
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.launch import start
from vrft_bench.trainers.rewards import ComponentReward

FEW = {
    "task": "coco_fewshot", "ask": "present", "limit": 64, "batch_size": 16, "group_size": 8, "max_tokens": 96,
    "learning_rate": 5e-5, "save_every": 1000,
}  # fmt: skip


class Clock(TrainerCallback):
    """Processor time at the beginning of each step."""

    marks: list[float]

    own: list[float]
    spent = 0.0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.marks, self.own = [], []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.marks.append(time.process_time())
        self.own.append(self.spent)

    def per_step(self) -> tuple[float, float]:
        """Seconds of a step, and those of them in what :meth:`counted` counts."""
        steps = len(self.marks) - 2
        return (self.marks[-1] - self.marks[1]) / steps, (self.own[-1] - self.own[1]) / steps

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, whose time is counted."""

        @functools.wraps(function)
        def call(*args: Any, **options: Any) -> Any:
            before = time.process_time()
            try:
                return function(*args, **options)
            finally:
                self.spent += time.process_time() - before

        return call


CLOCK = Clock()


def count_ours() -> None:
    """Count the time in whatever `train` adds: rewards, images, and every hook of its callbacks."""
    ComponentReward.__call__ = CLOCK.counted(ComponentReward.__call__)
    data._WithImage.__call__ = CLOCK.counted(data._WithImage.__call__)
    make = trl_engine.training_callbacks

    def counted_callbacks(*given: Any) -> list[Any]:
        made = make(*given)
        for callback in made:
            for name in (name for name in vars(type(callback)) if name.startswith("on_")):
                setattr(callback, name, CLOCK.counted(getattr(callback, name)))
        return made

    trl_engine.training_callbacks = counted_callbacks


class TimedTrainer(trl.GRPOTrainer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_callback(CLOCK)


def bare(folder: Path, steps: int) -> tuple[float, float]:
    """Train as a script of TRL's documentation would; seconds per step."""
    config = make_train_config({**FEW, "output_dir": folder, "steps": steps})
    base = find_base("tiny", config)
    task = choose_task(config.task, config.run_config())
    plan = make_plan(task, base.profile, config.run_config())
    rows = training_rows(plan).rows
    dataset = Dataset.from_list(
        [
            {"prompt": row["prompt"], "image": load_image(sample.image).image, "ground_truth": row["ground_truth"]}
            for row, sample in zip(rows, plan.walk(), strict=True)
        ]
    )

    @CLOCK.counted
    def reward(completions: list[Any], ground_truth: list[str], **_: Any) -> list[float]:
        texts = [completion[-1]["content"] for completion in completions]
        return [task.score(text, truth)["total"] for text, truth in zip(texts, ground_truth, strict=True)]

    processor = base.processor()
    trainer = TimedTrainer(
        model=base.load(processor.tokenizer, adapters=False),
        reward_funcs=reward,
        args=trl.GRPOConfig(
            output_dir=str(folder), per_device_train_batch_size=16, num_generations=8, max_completion_length=96,
            learning_rate=5e-5, max_steps=steps, save_strategy="no", logging_steps=1, report_to="none", bf16=False,
            use_cpu=True, gradient_checkpointing=False, seed=0, remove_unused_columns=False, log_completions=True,
            num_completions_to_print=0, disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=processor,
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return CLOCK.per_step()


def ours(folder: Path, steps: int) -> tuple[float, float]:
    """The same by `train`."""
    start(make_train_config({**FEW, "output_dir": folder, "steps": steps}))
    return CLOCK.per_step()


def drawn(folder: Path) -> list[str]:
    """Every completion that was sampled, in order."""
    files = sorted((folder / "completions").glob("*.parquet"))
    return [str(text) for file in files for text in pandas.read_parquet(file)["completion"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--steps", type=int, default=24)
    given = parser.parse_args()
    trl.GRPOTrainer = TimedTrainer
    count_ours()
    logging.disable_progress_bar()
    ratios, added = [], []
    for number in range(given.rounds):
        with tempfile.TemporaryDirectory() as place:
            ways: list[tuple[str, Callable[..., tuple[float, float]]]] = [("bare", bare), ("train", ours)]
            found = {
                name: way(Path(place) / name, given.steps) for name, way in (ways if number % 2 else reversed(ways))
            }
            same = drawn(Path(place) / "bare") == drawn(Path(place) / "train")
        (plain, plain_own), (mine, mine_own) = found["bare"], found["train"]
        ratios.append(mine / plain)
        added.append((mine_own - plain_own) / (mine - mine_own))
        print(
            f"round {number + 1}: bare {plain:.4f} s a step ({plain_own * 1e3:.1f} ms in its reward), "
            f"train {mine:.4f} s "
            f"({mine_own * 1e3:.1f} ms in code of ours), {'the same' if same else 'OTHER'} completions"
        )
    print(f"ratio of step times: median {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")
    print(f"ratio by time in code of ours: median {1 + statistics.median(added):.4f} (at most {1 + max(added):.4f})")


if __name__ == "__main__":
    main()
