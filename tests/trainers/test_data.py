"""A task's questions as training data: the evaluator's prompts, pixels and truth, and gold completions."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.registry import PROFILES, TASKS
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL
from vrft_bench.trainers import data
from vrft_bench.trainers.data import check_grids, resized, training_dataset, training_rows

pytest.importorskip("datasets")
pytestmark = pytest.mark.usefixtures("sample_cache")

CATALOG = [entry.name for entry in TASKS if entry.source == "built in"]


def plan_of(name: str, profile: ModelProfile = QWEN2_VL, **values: Any) -> RunPlan:
    config: RunConfig = make_config({"task": [name], "limit": 4, **values})
    return make_plan(choose_task(name, config), profile, config)


@pytest.mark.parametrize("profile", PROFILES.names())
@pytest.mark.parametrize("name", CATALOG)
def test_a_row_holds_the_question_the_truth_and_the_gold_completion_of_a_sample(name: str, profile: str) -> None:
    plan = plan_of(name, PROFILES.get(profile))
    found = training_rows(plan, gold=True)
    samples = list(plan.walk())
    assert [row["sample_id"] for row in found.rows] == [sample.id for sample in samples]
    for sample, row in zip(samples, found.rows, strict=True):
        size = (sample.image.width, sample.image.height)
        frame = Frame(plan.profile, *size, plan.profile.processed_size(*size))
        assert row["prompt"] == [{"role": "user", "content": plan.task.prompt(sample, plan.profile)}]
        assert row["ground_truth"] == plan.task.ground_truth(sample, frame)
        assert row["completion"] == [{"role": "assistant", "content": plan.task.gold(sample, frame)}]


def test_the_dataset_adds_images_of_the_size_that_the_truth_is_written_for() -> None:
    plan = plan_of("coco_fewshot", replace(QWEN2_5_VL, max_pixels=4000))
    found = training_rows(plan)
    dataset = training_dataset(found, plan.profile)
    assert dataset.column_names == ["prompt", "ground_truth", "sample_id", "image_index"]
    for row, sample in zip(dataset, plan.walk(), strict=True):
        assert set(row) == {"prompt", "ground_truth", "sample_id", "image"}
        assert list(row["image"].size) == json.loads(row["ground_truth"])["processed_size"]
        assert row["image"].size != (sample.image.width, sample.image.height)
    worker = pickle.loads(pickle.dumps(dataset))
    assert worker[1]["image"].tobytes() == dataset[1]["image"].tobytes()


def test_resizing_beforehand_gives_the_model_the_pixels_that_it_would_have_had() -> None:
    """The processor resizes a photograph as we do, and leaves ours alone."""
    processor = HFBackend("tiny").processor.image_processor
    processor.size = {"shortest_edge": QWEN2_VL.min_pixels, "longest_edge": 100_000}
    profile = replace(QWEN2_VL, max_pixels=100_000)
    noise = np.random.default_rng(0).integers(0, 256, (481, 637, 3), dtype=np.uint8)
    photograph = Image.fromarray(noise).resize((1280, 961), Image.Resampling.BICUBIC)
    ours = resized(photograph, profile)
    assert ours.size == profile.processed_size(1280, 961) != photograph.size
    theirs = processor(images=[photograph], return_tensors="np")
    again = processor(images=[ours], return_tensors="np")
    assert (theirs["image_grid_thw"] == again["image_grid_thw"]).all()
    assert (theirs["pixel_values"] == again["pixel_values"]).all()


def test_trl_asks_what_the_evaluator_asks_token_by_token() -> None:
    pytest.importorskip("trl")
    from trl.data_utils import prepare_multimodal_messages

    plan = plan_of("coco_fewshot")
    backend = HFBackend("tiny")
    for sample, row in zip(plan.walk(), training_dataset(training_rows(plan), plan.profile), strict=True):
        request = Request(plan.task, sample, 0, plan.task.messages(sample, plan.profile), plan.profile, Sampling())
        image = backend._images.load(sample.image).image
        mine = backend.processor(text=[backend.rendered(request)], images=[[image]], return_tensors="np")
        theirs = backend.processor.apply_chat_template(
            [prepare_multimodal_messages(row["prompt"], images=[row["image"]])],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="np",
        )
        assert (mine["input_ids"] == theirs["input_ids"]).all()
        assert (mine["pixel_values"] == theirs["pixel_values"]).all()


def test_another_profiles_resizing_is_noticed_on_the_first_images() -> None:
    processor = HFBackend("tiny").processor
    plan = plan_of("coco_fewshot")
    check_grids(training_rows(plan), plan.profile, processor)
    wrong = plan_of("coco_fewshot", PROFILES.get("qwen3-vl"))  # multiples of 32, where the model has multiples of 28
    with pytest.raises(DataError, match=r"profile 'qwen3-vl' resizes the image to \d+x\d+ pixels, and the model's"):
        check_grids(training_rows(wrong), wrong.profile, processor)


def test_a_processor_that_does_not_tell_its_sizes_is_let_pass_unless_boxes_depend_on_them() -> None:
    class Silent:
        class image_processor:  # noqa: N801 - an attribute of processors
            def __new__(cls, **_: Any) -> Any:
                return {"pixel_values": None}

    silent = Silent()
    plan = plan_of("coco_fewshot")
    check_grids(training_rows(plan), plan.profile, silent)
    resized_pixels = plan_of("coco_fewshot", QWEN2_5_VL)
    with pytest.raises(DataError, match="does not tell what size that is"):
        check_grids(training_rows(resized_pixels), resized_pixels.profile, silent)


def question_of(width: int, height: int) -> Sample:
    return Sample("one", ImageRef(width, height, path=Path("one.png")), {"category": "cat"}, BoxTarget(()))


@given(st.integers(1, 6000), st.integers(1, 6000), st.sampled_from(["qwen2-vl", "qwen2.5-vl", "qwen3-vl"]))
def test_an_accepted_size_is_settled_and_every_common_image_is_accepted(width: int, height: int, name: str) -> None:
    profile: ModelProfile = PROFILES.get(name)
    common = max(width, height) <= 100 * min(width, height)
    try:
        size = data._settled_size(profile, question_of(width, height))
    except DataError:
        assert not common
    else:
        assert profile.processed_size(*size) == size


def test_an_image_that_would_be_resized_twice_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="sample 'one': its image of 28x5600 pixels is too thin"):
        data._settled_size(replace(QWEN2_VL, max_pixels=3136), question_of(28, 5600))
    with pytest.raises(DataError, match="sample 'one': an image of 10x4000 pixels has an aspect ratio above 200"):
        data._settled_size(QWEN2_VL, question_of(10, 4000))


def test_a_question_in_parts_that_trl_cannot_take_is_refused() -> None:
    parts = [{"type": "text", "text": "Look:"}, {"type": "image"}, {"type": "text", "text": "What is it?"}]
    with pytest.raises(UserError, match=r"has the parts \['text', 'image', 'text'\]"):
        list(data._plain([{"role": "user", "content": parts}]))


def test_nothing_to_train_on_is_said(tmp_path: Path) -> None:
    plan = plan_of("coco_fewshot", split="train")
    manifest = tmp_path / "manifest.json"
    data.write_training_manifest(manifest, plan, [], {"model": "tiny"})
    with pytest.raises(DataError, match="nothing to train on: split 'train' of coco_fewshot"):
        training_rows(plan, manifest)


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"no image")
    found = data.TrainingRows([{"sample_id": "one"}], [ImageRef(40, 30, path=tmp_path / "one.png")])
    with pytest.raises(DataError, match=r"a training image cannot be used: one\.png: not a readable image"):
        training_dataset(found, QWEN2_VL)[0]
