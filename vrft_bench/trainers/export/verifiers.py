"""verifiers and prime-rl: a taskset, which is a module with the questions and their score."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from vrft_bench.trainers.export.base import Export, Row, Stage
from vrft_bench.trainers.export.config_files import write_launch
from vrft_bench.trainers.export.folder import ship
from vrft_bench.trainers.export.rows import TRAIN, as_chat, from_chat, read_jsonl, write_jsonl

_FILE = f"{TRAIN}.jsonl"


class Verifiers:
    """An environment rather than a trainer: how to train is prime-rl's configuration, what to train on is here."""

    name: ClassVar[str] = "verifiers"
    version: ClassVar[str] = "0.4.0"
    stages: ClassVar[tuple[Stage, ...]] = ("grpo",)
    elsewhere: ClassVar[str] = (
        "it describes environments, not examples: use --for llamafactory, ms-swift or verl, or `vrft-bench train`"
    )
    reserved: ClassVar[frozenset[str]] = frozenset({"components", "reward"})

    def write(self, export: Export) -> None:
        write_jsonl(export.folder / _FILE, map(as_chat, export.rows))
        ship("vrft_taskset.py", export.folder / "vrft_taskset.py")
        how = export.how
        export.left_out.append("how to train: that is prime-rl's own configuration")
        write_launch(
            export,
            "launch_verifiers.sh",
            rollouts=how.group_size,
            temperature=how.temperature,
            top_p=how.top_p,
            max_tokens=how.max_tokens,
        )

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:
        return (from_chat(value, stage) for value in read_jsonl(folder / _FILE))
