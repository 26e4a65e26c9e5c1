"""Checkpoints that say in a file how they answer, in the folders of trainings that never ran."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import Noise, TextMock, gold
from vrft_bench.harness.provenance import RECORD
from vrft_bench.registry import MODELS
from vrft_bench.trainers.folder import WHOLE, TrainingRecord
from vrft_bench.trainers.watch import Watched, WatchOptions, watch


def bare_gold(request: Request) -> str:
    """All boxes right, the asked layout not kept."""
    return gold(request).split("</think>")[-1].strip()


class Scripted:
    """Writes such checkpoints, and watches them with the backend ``scripted``."""

    def __init__(self) -> None:
        self.kinds: dict[str, Callable[[Request], str]] = {
            "gold": gold,
            "bare": bare_gold,
            "good": Noise({"jitter": 0.02, "miss": 0.1}),
            "poor": Noise({"jitter": 0.2, "miss": 0.4}),
        }
        self.asked: list[str] = []
        """Which checkpoints were evaluated."""

    def backend(self, name: str, args: Mapping[str, Any]) -> TextMock:
        config = json.loads((Path(name) / "config.json").read_text())
        if "answers" not in config:
            raise UserError(f"{name} is broken", fix="none")
        asked = self.asked

        class Backend(TextMock):
            def generate(self, requests: Any) -> Iterator[Any]:
                asked.append(Path(name).name)
                return super().generate(requests)

        return Backend(config, self.kinds[config["answers"]])

    def save(self, folder: Path, step: int, answers: str | None, name: str = "checkpoint-{}") -> Path:
        """A checkpoint that answers so; without an answer, one that no backend takes."""
        import numpy as np
        from safetensors.numpy import save_file

        checkpoint = folder / name.format(step)
        checkpoint.mkdir(parents=True)
        save_file({"weight": np.full(10, step, np.float32)}, checkpoint / "model.safetensors")
        content = {"step": step} if answers is None else {"step": step, "answers": answers}
        (checkpoint / "config.json").write_text(json.dumps(content))
        for file in ("tokenizer.json", "preprocessor_config.json"):
            (checkpoint / file).write_text("{}")
        return checkpoint

    def config(self, limit: int = 16, **fields: Any) -> RunConfig:
        return make_config({"task": ["coco_fewshot"], "ask": "present", "limit": limit, **fields})

    def watch(self, folder: Path, config: RunConfig | None = None, **options: Any) -> Watched:
        """Once, unless ``options`` say otherwise."""
        chosen = WatchOptions(**{"once": True, "settle": 0.0, "backend": "scripted", "window": 2, **options})
        return watch(folder, config or self.config(), chosen)

    def steps(self, found: Watched) -> list[int]:
        return [row.step for row in found.curve]

    def own_training(self, folder: Path, **fields: Any) -> TrainingRecord:
        """``train.json`` as `train` writes it."""
        from vrft_bench.harness.plan import choose_task, make_plan
        from vrft_bench.tasks.profiles import ABS_ORIGINAL

        folder.mkdir(parents=True, exist_ok=True)
        config = self.config(split="train")
        identity = make_plan(choose_task("coco_fewshot", config), ABS_ORIGINAL, config).identity({"precision": "fp32"})
        record = TrainingRecord.of("grpo", "coco_fewshot", "tiny", identity, fields.pop("config", {}))
        record = record.model_copy(update=fields)
        (folder / RECORD).write_text(record.model_dump_json())
        return record

    def mark_whole(self, checkpoint: Path) -> None:
        """As a training of our own does when it has written a checkpoint."""
        record = TrainingRecord.model_validate_json((checkpoint.parent / RECORD).read_text())
        (checkpoint / WHOLE).write_text(json.dumps({"fingerprint": record.fingerprint, "step": 0}))


@pytest.fixture
def scripted(sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Scripted:
    made = Scripted()
    MODELS.names()
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.register("scripted", made.backend)
    return made
