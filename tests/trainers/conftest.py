"""Trainings of seconds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, ClassVar

import pytest

from vrft_bench.trainers.base import TrainConfig, make_train_config
from vrft_bench.trainers.launch import start


class Trainings:
    """Trainings of the tiny model, of seconds, on questions whose answers are boxes; and what they leave."""

    common: ClassVar[dict[str, Any]] = {
        "task": "coco_fewshot",
        "ask": "present",
        "limit": 6,
        "steps": 2,
        "learning_rate": 1e-3,
        "save_every": 1,
        "keep": None,
    }
    own: ClassVar[dict[str, dict[str, Any]]] = {
        "sft": {"batch_size": 4},
        "grpo": {"batch_size": 8, "group_size": 4, "max_tokens": 48},
    }

    def config(self, trainer: str, output_dir: Path, **changes: Any) -> TrainConfig:
        """The config of such a training; ``changes`` go before it."""
        values = {**self.common, **self.own[trainer], "trainer": trainer, "output_dir": output_dir, **changes}
        return make_train_config(values)

    def train(self, trainer: str, output_dir: Path, **changes: Any) -> Path:
        """Train in this process; the folder of the result."""
        return start(self.config(trainer, output_dir, **changes))

    def command(self, trainer: str, output_dir: Path, **changes: Any) -> list[str]:
        """The same training as a command of its own."""
        file = output_dir.with_name(f"{output_dir.name}-{trainer}.json")
        file.write_text(self.config(trainer, output_dir, **changes).model_dump_json(exclude_defaults=True))
        return [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", "train", "-c", str(file)]

    def weights(self, folder: Path) -> dict[str, Any]:
        """The tensors of a checkpoint by name."""
        from safetensors.torch import load_file

        return dict(load_file(folder / "model.safetensors"))

    def largest_difference(self, one: Path, other: Path) -> float:
        """Between the weights of two checkpoints of one architecture."""
        mine, theirs = self.weights(one), self.weights(other)
        assert set(mine) == set(theirs)
        return max(float((tensor.float() - theirs[name].float()).abs().max()) for name, tensor in mine.items())


@pytest.fixture(scope="session")
def trainings(sample_cache: Path) -> Trainings:
    return Trainings()
