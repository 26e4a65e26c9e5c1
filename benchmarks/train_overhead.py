"""What `vrft-bench train` adds to the steps of TRL itself.

    OMP_NUM_THREADS=1 python benchmarks/train_overhead.py [--steps 60]

The same GRPO training of the bundled tiny model, twice at once: by a bare script (TRL's trainer, a dataset with images,
one reward function that calls the task's score) and by `train`, with its callbacks, log, table of statuses and images
resized as they are read. Both answer the same prompts with the same random numbers, so they draw the same completions,
which is checked. They take turns, step by step, so that whatever else the machine does meets both alike; what is
compared is processor time.

Prints the ratio of the times of a step with a bootstrap interval, and the time of `train` in code of ours (rewards,
images, callbacks) beside that of the script in its reward. The aim is a ratio under 1.02.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import torch
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
    "task": "coco_fewshot", "ask": "present", "limit": 128, "batch_size": 16, "group_size": 8, "max_tokens": 96,
    "learning_rate": 5e-5, "save_every": 1000,
}  # fmt: skip
WARM = 3
"""Steps at the beginning that are not counted."""


class Turns:
    """Lets one of two threads work at a time, each with a random state of its own; torch has one for the process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._busy = False
        self._given_by = ""
        self._ended = False

    def take(self) -> None:
        """Wait until nobody is at work."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy)
            self._busy = True

    def give(self) -> None:
        """Let the other thread work until it gives the turn back, or has ended."""
        me = threading.current_thread().name
        state = torch.get_rng_state()
        with self._changed:
            self._busy, self._given_by = False, me
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._busy and (self._given_by != me or self._ended))
            self._busy = True
        torch.set_rng_state(state)

    def end(self) -> None:
        """Leave the turn to the other thread for good."""
        with self._changed:
            self._busy, self._ended = False, True
            self._changed.notify_all()


TURNS = Turns()


class Clock(TrainerCallback):
    """Processor time of each step in this thread, and of it what :func:`counted` functions took."""

    def __init__(self) -> None:
        self.steps: list[float] = []
        self.own: list[float] = []
        self.spent = 0.0
        self._began: float | None = None

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if self._began is not None:
            self.steps.append(time.thread_time() - self._began)
            self.own.append(self.spent)
        TURNS.give()
        self.spent = 0.0
        self._began = time.thread_time()


CLOCKS = {"bare": Clock(), "train": Clock()}


def counted(function: Callable[..., Any]) -> Callable[..., Any]:
    """``function``, whose time is counted by the clock of the thread that calls it."""

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        before = time.thread_time()
        try:
            return function(*args, **options)
        finally:
            CLOCKS[threading.current_thread().name].spent += time.thread_time() - before

    return call


def count_ours() -> None:
    """Count the time in whatever `train` adds: rewards, images, and every hook of its callbacks."""
    ComponentReward.__call__ = counted(ComponentReward.__call__)
    data._WithImage.__call__ = counted(data._WithImage.__call__)
    make = trl_engine.training_callbacks

    def counted_callbacks(*given: Any) -> list[Any]:
        made = make(*given)
        for callback in made:
            for name in (name for name in vars(type(callback)) if name.startswith("on_")):
                setattr(callback, name, counted(getattr(callback, name)))
        return made

    trl_engine.training_callbacks = counted_callbacks


class TimedTrainer(trl.GRPOTrainer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_callback(CLOCKS[threading.current_thread().name])


def bare(folder: Path, steps: int) -> None:
    """Train as a script of TRL's documentation would."""
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

    @counted
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


def ours(folder: Path, steps: int) -> None:
    """The same by `train`."""
    start(make_train_config({**FEW, "output_dir": folder, "steps": steps}))


def take_turns(way: Callable[[Path, int], None], folder: Path, steps: int) -> None:
    TURNS.take()
    try:
        way(folder, steps)
    finally:
        TURNS.end()


def drawn(folder: Path) -> list[str]:
    """Every completion that was sampled, in order."""
    files = sorted((folder / "completions").glob("*.parquet"))
    return [str(text) for file in files for text in pandas.read_parquet(file)["completion"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=60)
    steps = parser.parse_args().steps
    trl.GRPOTrainer = TimedTrainer
    count_ours()
    logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in CLOCKS}
        threads = [
            threading.Thread(name=name, target=take_turns, args=(way, folders[name], steps))
            for name, way in (("bare", bare), ("train", ours))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        same = drawn(folders["bare"]) == drawn(folders["train"])
    plain, mine = (np.array(CLOCKS[name].steps[WARM:]) for name in ("bare", "train"))
    random = np.random.default_rng(0)
    picks = random.integers(0, len(plain), (10_000, len(plain)))
    low, high = np.percentile(mine[picks].sum(axis=1) / plain[picks].sum(axis=1), [2.5, 97.5])
    reward, own = (np.mean(CLOCKS[name].own[WARM:]) for name in ("bare", "train"))
    print(f"{len(plain)} steps each, {'the same' if same else 'OTHER'} completions")
    print(f"seconds per step: bare {plain.mean():.4f}, train {mine.mean():.4f}")
    print(f"ratio: {mine.sum() / plain.sum():.4f} [{low:.4f}, {high:.4f}]")
    print(f"in code of ours {own * 1e3:.2f} ms, in the script's reward {reward * 1e3:.2f} ms: "
          f"{(own - reward) / plain.mean():.2%} of a step")  # fmt: skip


if __name__ == "__main__":
    main()
