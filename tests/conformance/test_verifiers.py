"""verifiers' own taskset loader, trace and scoring."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

vf = pytest.importorskip("verifiers.v1")


@pytest.fixture
def taskset(exports: Path, task: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The exported module, found as verifiers finds it: by its name on the path."""
    from verifiers.v1.configs.taskset import TasksetConfig
    from verifiers.v1.utils.loaders import load_taskset

    monkeypatch.syspath_prepend(str(exports / f"verifiers-grpo-{task}"))
    sys.modules.pop("vrft_taskset", None)
    yield load_taskset(TasksetConfig(id="vrft_taskset"))
    sys.modules.pop("vrft_taskset", None)


@pytest.mark.aspect("data")
def test_every_question_is_there_with_its_image_of_the_size_that_its_truth_is_written_for(
    taskset: Any, golden: dict[str, Any], task: str
) -> None:
    from PIL import Image

    tasks = list(taskset)
    assert [item.data.id for item in tasks] == [row["sample_id"] for row in golden[task]]
    for item, row in zip(tasks, golden[task], strict=True):
        (message,) = item.data.prompt
        picture, text = message.content
        assert text.text == row["question"]
        assert item.data.ground_truth == row["ground_truth"]
        encoded = picture.image_url.url.removeprefix("data:image/png;base64,")
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
            assert list(image.size) == json.loads(row["ground_truth"])["processed_size"]


@pytest.mark.aspect("reward")
def test_a_trace_is_worth_what_the_evaluator_says(taskset: Any, golden: dict[str, Any], task: str) -> None:
    for item, row in zip(taskset, golden[task], strict=True):
        for case in row["cases"]:
            trace = _trace(item, case["text"])
            asyncio.run(item.score(trace))
            assert trace.reward == case["score"]["total"], case["name"]
            assert trace.metrics == {name: value for name, value in case["score"].items() if name != "total"}


def _trace(item: Any, text: str) -> Any:
    """What a rollout leaves: the prompt and one message that the model wrote."""
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.trace import TraceTask

    nodes = [MessageNode(message=message) for message in item.data.prompt]
    said = vf.AssistantMessage(content=text)
    nodes.append(MessageNode(message=said, parent=len(nodes) - 1, sampled=True))
    task = TraceTask(type=type(item).__name__, data=item.data, hash=item.hash, key=item.key)
    return vf.Trace(task=task, agent=vf.AgentInfo(config=vf.AgentConfig()), nodes=nodes)


@pytest.mark.aspect("options")
def test_vf_eval_takes_every_option(
    exports: Path, task: str, launched: Any, taskset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from verifiers.v1.cli.eval.main import EvalConfig, cli, narrow_config, with_positional_taskset

    given = with_positional_taskset(launched(exports / f"verifiers-grpo-{task}"))
    monkeypatch.setattr(sys, "argv", ["vf-eval", *given])
    config = cli(narrow_config(EvalConfig, given))
    assert (config.num_rollouts, config.sampling.temperature, config.push) == (8, 1.0, False)
    assert config.env.taskset.id == "vrft_taskset"
