"""SFT on TRL: what is learned is the task's gold completion, to its end and no further."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks import get_task
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.trainers import sft
from vrft_bench.trainers.base_model import find_base
from vrft_bench.trainers.data import training_dataset, training_rows

pytest.importorskip("trl")
pytestmark = pytest.mark.usefixtures("sample_cache")

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


@pytest.mark.parametrize("max_pixels", [None, 4000])
@pytest.mark.parametrize("profile", ["qwen2-vl", "qwen2.5-vl"])
def test_the_labels_are_the_gold_completion_and_its_end(
    profile: str, max_pixels: int | None, trainings: Any, tmp_path: Path
) -> None:
    config = trainings.config("sft", tmp_path, profile=profile, max_pixels=max_pixels)
    base = find_base("tiny", config)
    task = choose_task("coco_fewshot", config.run_config())
    plan = make_plan(task, base.profile, config.run_config())
    processor = base.processor()
    shared = {
        "model": base.load(processor.tokenizer, adapters=False),
        "args": sft._arguments(task, base, config),
        "train_dataset": training_dataset(training_rows(plan, gold=True), base.profile),
        "processing_class": processor,
    }
    engine = sft._engine(task, base, shared)
    (batch,) = list(engine.get_train_dataloader())[:1]
    decode = processor.tokenizer.decode
    golds = {}
    for sample in plan.walk():
        frame = Frame(base.profile, sample.image.width, sample.image.height)
        golds[plan.task.gold(sample, frame) + "<|im_end|>\n"] = plan.task.prompt(sample, base.profile)
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        learned = decode(labels[labels != -100])
        assert learned in golds
        prompt = decode(ids[(labels == -100) & (mask == 1)])
        assert golds[learned] in prompt
        assert prompt.endswith("<|im_start|>assistant\n")
    image_tokens = int((batch["input_ids"] == processor.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum())
    assert image_tokens == int((batch["image_grid_thw"].prod(dim=1) // 4).sum())
    assert len(batch["input_ids"]) == 4


def test_it_learns_and_its_result_evaluates(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("sft", tmp_path / "out", steps=12, limit=4, save_every=12, lr_schedule="constant")
    losses = [
        line["loss"]
        for line in map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
        if "loss" in line
    ]
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2
    config = make_config(
        {"task": ["coco_fewshot"], "ask": "present", "split": "train", "limit": 4, "output_dir": tmp_path / "runs"}
    )
    before = evaluate(get_task("coco_fewshot"), HFBackend("tiny"), config)
    after = evaluate(get_task("coco_fewshot"), HFBackend(str(final)), config)
    assert after.answers.reward > before.answers.reward


def test_a_result_states_the_areas_that_it_was_trained_with_and_an_evaluation_with_others_says_so(
    trainings: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    final = trainings.train("sft", tmp_path / "out", steps=1, limit=4, max_pixels=6272)
    stated = json.loads((final / "preprocessor_config.json").read_text())
    assert stated["size"] == {"shortest_edge": 3136, "longest_edge": 6272}
    config = make_config({"task": ["coco_fewshot"], "limit": 1, "output_dir": tmp_path / "runs"})
    evaluate(get_task("coco_fewshot"), HFBackend(str(final)), config)
    assert "to use those: --model-args min_pixels=3136,max_pixels=6272" in caplog.text


def test_adapters_of_every_linear_layer_of_the_language_model_are_merged_at_the_end(
    trainings: Any, tmp_path: Path
) -> None:
    final = trainings.train("sft", tmp_path / "out", lora_rank=4, lora_alpha=8)
    base, merged = trainings.weights(TINY), trainings.weights(final)
    changed = {name for name, tensor in base.items() if not tensor.float().equal(merged[name])}
    layers = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    assert changed == {
        name
        for name in base
        if name.startswith("model.layers") and name.endswith(tuple(f"{it}.weight" for it in layers))
    }
    about = json.loads((tmp_path / "out" / "checkpoint-2" / "adapter_config.json").read_text())
    assert (about["r"], about["lora_alpha"]) == (4, 8)
    assert about["base_model_name_or_path"] == str(TINY)


def test_the_end_of_a_long_prompt_is_not_cut_off(trainings: Any, tmp_path: Path) -> None:
    config = trainings.config("sft", tmp_path)
    made = sft._arguments(get_task("coco_fewshot"), find_base("tiny", config), config)
    assert made.max_length is None
    assert made.completion_only_loss is True
    with pytest.raises(UserError, match="'max_length' is set by vrft-bench"):
        trainings.train("sft", tmp_path / "out", engine_args={"max_length": 512})


def copied(folder: Path, without: str = "") -> Path:
    folder.mkdir()
    for file in TINY.iterdir():
        if file.name != without:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_what_the_engine_refuses_of_its_arguments_is_told_as_a_mistake(trainings: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"the engine refuses these arguments: .*[Pp]acking"):
        trainings.train("sft", tmp_path / "out", engine_args={"packing": True})


def test_a_model_without_a_chat_template_is_refused(trainings: Any, tmp_path: Path) -> None:
    bare = copied(tmp_path / "bare", without="chat_template.jinja")
    with pytest.raises(BackendError, match="chat template"):
        trainings.train("sft", tmp_path / "out", model=str(bare))


def test_a_tokenizer_that_would_hide_the_answers_tags_is_refused(trainings: Any, tmp_path: Path) -> None:
    odd = copied(tmp_path / "odd")
    tokenizer = json.loads((odd / "tokenizer.json").read_text())
    entry = {**tokenizer["added_tokens"][-1], "id": 510, "content": "<answer>", "special": True}
    tokenizer["added_tokens"].append(entry)
    (odd / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match="marks <answer> as special"):
        trainings.train("sft", tmp_path / "out", model=str(odd))


def test_a_model_of_no_known_family_needs_a_profile(trainings: Any, tmp_path: Path) -> None:
    other = copied(tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "mystery_vl"}))
    with pytest.raises(UserError, match="no coordinate profile is known for model") as caught:
        trainings.train("sft", tmp_path / "out", model=str(other))
    assert "--profile" in str(caught.value.fix)
