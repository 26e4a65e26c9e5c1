"""What ``launch.sh`` starts: as many prompts as the devices take and as there are, on one machine and on several."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest


def launch(folder: Path, tmp_path: Path, **environment: str) -> list[str]:
    """The arguments that the engine is started with, whose place is taken by an echo."""
    programs = tmp_path / "bin"
    programs.mkdir(exist_ok=True)
    for name in ("python3", "torchrun", "swift", "llamafactory-cli", "vf-eval"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"; env >&2\n')
        (programs / name).chmod(0o755)
    whole = {"PATH": f"{programs}:/usr/bin:/bin", "OUT": str(tmp_path / "out"), **environment}
    done = subprocess.run([folder / "launch.sh", "--further"], env=whole, capture_output=True, text=True, check=True)
    return done.stdout.splitlines() + done.stderr.splitlines()


@pytest.mark.parametrize(("gpus", "nodes", "prompts"), [("1", "1", 8), ("8", "1", 8), ("1", "2", 10), ("16", "1", 10)])
def test_ray_engines_ask_eight_prompts_per_device_or_as_many_as_there_are_for_each(
    shared_export: Any, tmp_path: Path, gpus: str, nodes: str, prompts: int
) -> None:
    given = launch(shared_export("verl"), tmp_path, GPUS=gpus, NODES=nodes)
    assert {f"data.train_batch_size={prompts}", f"trainer.n_gpus_per_node={gpus}", f"trainer.nnodes={nodes}"} <= set(
        given
    )
    assert f"actor_rollout_ref.actor.ppo_mini_batch_size={prompts}" in given
    given = launch(shared_export("easyr1"), tmp_path, GPUS=gpus, NODES=nodes)
    assert {f"data.rollout_batch_size={prompts}", f"worker.actor.global_batch_size={prompts}"} <= set(given)
    given = launch(shared_export("openrlhf"), tmp_path, GPUS=gpus, NODES=nodes)
    assert given[given.index("--rollout.batch_size") + 1] == str(prompts)
    assert given[given.index("--train.batch_size") + 1] == str(prompts * 8)


@pytest.mark.parametrize(("engine", "stage"), [("ms-swift", "grpo"), ("ms-swift", "sft"), ("llamafactory", "sft")])
def test_torchrun_engines_are_told_machines_and_rank(
    shared_export: Any, tmp_path: Path, engine: str, stage: str
) -> None:
    place = {"GPUS": "4", "NODES": "2", "NODE_RANK": "1", "MASTER_ADDR": "first"}
    given = launch(shared_export(engine, stage), tmp_path, **place)
    assert {"NPROC_PER_NODE=4", "NNODES=2", "NODE_RANK=1", "MASTER_ADDR=first", "--further"} <= set(given)


@pytest.mark.parametrize(("steps", "episodes"), [("1", 1), ("10", 10), ("11", 11)])
def test_openrlhf_counts_passes_over_the_data(shared_export: Any, tmp_path: Path, steps: str, episodes: int) -> None:
    """Ten questions: eight of them are one step, ten (on two devices) are one pass."""
    given = launch(shared_export("openrlhf"), tmp_path, STEPS=steps, GPUS="2")
    assert given[given.index("--train.num_episodes") + 1] == str(episodes)


def test_paths_are_the_folders_own_wherever_it_is_started_from(shared_export: Any, tmp_path: Path) -> None:
    folder = shared_export("openrlhf")
    given = launch(folder, tmp_path)
    assert given[given.index("--reward.remote_url") + 1] == str(folder / "reward.py")
    handed = (tmp_path / "out" / "train.jsonl").read_text()
    assert handed.count(f'"images": ["{folder}/images/') == 10
    model = launch(folder, tmp_path, MODEL="mine")
    assert model[model.index("--actor.model_name_or_path") + 1] == "mine"
    assert given[given.index("--actor.model_name_or_path") + 1] == "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.mark.parametrize("engine", ["verl", "ms-swift", "easyr1", "openrlhf"])
def test_a_moved_folder_is_found_whatever_it_is_called(shared_export: Any, tmp_path: Path, engine: str) -> None:
    folder = tmp_path / 'a b&c|d=e,"f\\g'
    shutil.copytree(shared_export(engine), folder)
    given = launch(folder, tmp_path)
    assert any(f"{folder}/reward.py" in word for word in given)
    if engine == "openrlhf":
        for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines():
            (image,) = json.loads(line)["images"]
            assert Path(image).parent == folder / "images"
            assert Path(image).is_file()


@pytest.mark.parametrize("stage", ["grpo", "sft"])
def test_paths_are_quoted_for_hydra(shared_export: Any, tmp_path: Path, stage: str) -> None:
    """It would read ``lr=1e-6`` in a path as an assignment of its own, and a comma as a choice."""
    given = launch(shared_export("verl", stage), tmp_path, OUT="/runs/lr=1e-6,a", MODEL="/models/b=c")
    assert "trainer.default_local_dir='/runs/lr=1e-6,a'" in given
    key = "actor_rollout_ref.model.path" if stage == "grpo" else "model.path"
    assert f"{key}='/models/b=c'" in given


def test_a_model_is_named_as_it_was_given_and_a_folder_by_its_whole_path(
    export: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = 'a"b$(touch pwned) `c`}'
    given = launch(export("ms-swift", name="odd", model=odd), tmp_path)
    assert given[given.index("--model") + 1] == odd
    assert not (tmp_path / "pwned").exists()
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    given = launch(export("ms-swift", name="relative", model="mine"), tmp_path)
    assert given[given.index("--model") + 1] == str(tmp_path / "mine")
