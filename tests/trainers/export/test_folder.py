"""An export is whole or absent, the same bytes for the same choices, and what `train` gives TRL."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.registry import PROFILES, TASKS
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.export.check import check_export
from vrft_bench.trainers.export.engines import ENGINES
from vrft_bench.trainers.export.folder import find_engine
from vrft_bench.trainers.export.rows import _refuse_placeholders
from vrft_bench.trainers.export.scoring import read_manifest

PAIRS = [(engine.name, stage) for engine in ENGINES.values() for stage in engine.stages]
FAMILIES = ("coco_fewshot", "lisa_grounding", "flower102_fewshot")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("engine", "stage"), PAIRS)
@pytest.mark.parametrize("task", FAMILIES)
def test_rows_hold_what_train_gives_trl(shared_export: Any, engine: str, stage: str, task: str) -> None:
    folder = shared_export(engine, stage, task)
    config = make_config({"task": [task], "split": "train", "limit": 10})
    manifest = read_manifest(folder)
    profile = replace(PROFILES.get("qwen2.5-vl"), max_pixels=manifest["hyperparameters"]["max_pixels"])
    plan = make_plan(choose_task(task, config), profile, config)
    wanted = training_rows(plan, gold=True).rows
    rows = list(ENGINES[engine].read(folder, stage))  # type: ignore[arg-type]
    assert [row.sample_id for row in rows] == [row["sample_id"] for row in wanted]
    for row, mine in zip(rows, wanted, strict=True):
        assert row.ground_truth == mine["ground_truth"]
        assert row.completion == (mine["completion"][0]["content"] if stage == "sft" else None)
        assert [message["content"] for message in row.messages] == ["<image>" + mine["prompt"][0]["content"]]
        with Image.open(folder / row.images[0]) as image:
            assert list(image.size) == json.loads(row.ground_truth)["processed_size"]


@pytest.mark.parametrize(("engine", "stage"), PAIRS)
def test_the_same_choices_give_the_same_bytes_and_are_found_whole(
    export: Any, shared_export: Any, engine: str, stage: str
) -> None:
    one, other = shared_export(engine, stage), export(engine, stage)
    assert contents(one) == contents(other)
    assert check_export(one)["counts"]["rows"] == 10
    text = b"".join(contents(one).values())
    assert str(one.parent).encode() not in text


@pytest.mark.parametrize(("engine", "stage"), PAIRS)
def test_launch_is_a_script_that_bash_reads(shared_export: Any, engine: str, stage: str) -> None:
    script = shared_export(engine, stage) / "launch.sh"
    assert script.stat().st_mode & 0o111
    assert "@" not in script.read_text().replace('"$@"', "").replace("[@]", "")
    assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0


def test_each_image_is_written_once(export: Any) -> None:
    folder = export("verl", limit=24)
    rows = list(ENGINES["verl"].read(folder, "grpo"))
    assert len(rows) == 24
    assert len({row.images[0] for row in rows}) == len(list((folder / "images").iterdir())) == 3


def test_boxes_of_gold_completions_come_back_within_a_pixel_of_the_resized_image(export: Any) -> None:
    """Truth in original pixels -> the text of a lesson -> parsed again."""
    folder = export("llamafactory", "sft", limit=12, ask="present", recipe={"max_pixels": 20_000})
    task = choose_task("coco_fewshot", make_config({"task": ["coco_fewshot"]}))
    boxes = 0
    for row in ENGINES["llamafactory"].read(folder, "sft"):
        truth = json.loads(row.ground_truth)
        frame = Frame.from_json(truth)
        assert frame.processed is not None
        assert row.completion is not None
        found = task.parse(row.completion, frame).detections
        kept = truth["target"].get("boxes", [])
        assert len(found) == len(kept)
        for detection, box in zip(found, kept, strict=True):
            boxes += 1
            for axis, (mine, theirs) in enumerate(zip(detection.box, box, strict=True)):
                pixel = (frame.width, frame.height)[axis % 2] / frame.processed[axis % 2]
                assert abs(mine - theirs) <= 0.5 * pixel + 1e-9
    assert boxes > 5


@pytest.mark.parametrize("profile", ["qwen2-vl", "qwen2.5-vl", "qwen3-vl"])
def test_a_real_processor_leaves_exported_images_as_they_are(export: Any, profile: str) -> None:
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    limits = PROFILES.get(profile)
    processor = Qwen2VLImageProcessorPil(
        patch_size=limits.factor // 2, size={"shortest_edge": limits.min_pixels, "longest_edge": limits.max_pixels}
    )
    folder = export("ms-swift", profile=profile, recipe={"max_pixels": 70_000})
    for row in ENGINES["ms-swift"].read(folder, "grpo"):
        with Image.open(folder / row.images[0]) as image:
            _, high, wide = processor(images=[image], return_tensors="np")["image_grid_thw"][0].tolist()
            assert (wide * processor.patch_size, high * processor.patch_size) == image.size


def test_the_papers_question_has_one_placeholder(export: Any) -> None:
    folder = export("verl", task="coco_fewshot", protocol="paper", profile="qwen2-vl")
    for row in ENGINES["verl"].read(folder, "grpo"):
        assert row.messages[0]["content"].startswith("<image>Detect all objects belonging to the category")
    check_export(folder)


def test_another_export_is_not_overwritten_and_the_same_one_is_kept(export: Any) -> None:
    folder = export("ms-swift")
    (folder / "config.yaml").write_text("edited: true\n")
    export("ms-swift")
    assert (folder / "config.yaml").read_text() == "edited: true\n"
    with pytest.raises(UserError, match=r"already holds another export: its engine is .*ms-swift.* this one's .*verl"):
        export("verl")
    with pytest.raises(UserError, match="already holds another export: its data is"):
        export("ms-swift", limit=3)
    (folder.parent / "notes").mkdir()
    (folder.parent / "notes" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is there and holds no export"):
        export("verl", name="notes")


def test_what_cannot_be_exported_is_said(export: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--for 'vrel' is no engine that is exported to; did you mean 'verl'\?"):
        find_engine("vrel", "grpo")
    with pytest.raises(UserError, match=r"--stage 'dpo' is no stage"):
        find_engine("verl", "dpo")
    for engine in ("openrlhf", "easyr1", "verifiers"):
        with pytest.raises(UserError, match=f"{engine} has no stage 'sft'") as refused:
            find_engine(engine, "sft")
        assert "--for llamafactory" in str(refused.value.fix)
    with pytest.raises(UserError, match="llamafactory has no stage 'grpo'"):
        find_engine("llamafactory", "grpo")
    with pytest.raises(UserError, match="no profile is given"):
        export("verl", profile=None)
    with pytest.raises(UserError, match="no model is known for profile 'internvl'"):
        export("verl", profile="internvl")
    with pytest.raises(UserError, match="this engine has no lr_schedule 'linear'"):
        export("verl", recipe={"lr_schedule": "linear"})
    with pytest.raises(UserError, match=r"'lvis_ovd' asks for categories .* so it has no training split"):
        export("verl", task="lvis_ovd")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_image_leaves_nothing_behind(export: Any, tmp_path: Path) -> None:
    annotations = {
        "images": [{"id": 1, "file_name": "gone.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "mine.json").write_text(json.dumps(annotations))
    mine = {"annotations": str(tmp_path / "mine" / "mine.json"), "images": str(tmp_path / "mine")}
    with pytest.raises(DataError, match=r"gone\.png"):
        export("verl", task="detection", **mine)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize("mark", ["<image>", "<audio>", "<|image_pad|>", "<|video_pad|>"])
def test_a_text_that_engines_would_take_for_an_image_is_refused(mark: str) -> None:
    with pytest.raises(DataError, match=rf"'7' holds the text {re.escape(mark)}, which training engines replace"):
        _refuse_placeholders("7", [{"role": "user", "content": f"What is {mark}?"}])


def test_a_category_that_engines_would_take_for_an_image_is_refused(tmp_path: Path, export: Any) -> None:
    annotations = {
        "images": [{"id": 1, "file_name": "one.png", "width": 60, "height": 40}],
        "categories": [{"id": 1, "name": "<video>"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 20, 20], "area": 400, "iscrowd": 0}],
    }
    (tmp_path / "mine").mkdir()
    Image.new("RGB", (60, 40)).save(tmp_path / "mine" / "one.png")
    (tmp_path / "mine" / "mine.json").write_text(json.dumps(annotations))
    mine = {"annotations": str(tmp_path / "mine" / "mine.json"), "images": str(tmp_path / "mine")}
    with pytest.raises(DataError, match="holds the text <video>, which training engines replace"):
        export("verl", task="detection", **mine)


def test_tampering_is_found(export: Any) -> None:
    folder = export("ms-swift", "sft")
    data = folder / "data" / "train.jsonl"
    whole = data.read_text()
    data.write_text(whole.replace('"version\\": \\"1\\"', '"version\\": \\"0\\"', 1))
    with pytest.raises(DataError, match=r"data/train\.jsonl has changed; .* made for version '0', and is scored by"):
        check_export(folder)
    data.write_text(whole)
    check_export(folder)
    image = next((folder / "images").iterdir())
    with Image.open(image) as picture:
        picture.resize((56, 56)).save(image)
    with pytest.raises(DataError, match=r"the images are missing or have changed; .* has 56x56 pixels, and its truth"):
        check_export(folder)
    image.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        check_export(folder)
    with pytest.raises(DataError, match=r"it has no manifest\.json"):
        check_export(folder / "images")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"counts": None}, "it is no manifest of an export"),
        ({"counts": {}}, "it lacks images, rows"),
        ({"engine": "verl"}, "it is no manifest of an export"),
        ({"engine": {"name": "vrel"}}, "names vrel with stage grpo, which is no export"),
        ({"task": {}}, "it lacks included, name"),
        ({"format": 99}, "its format is 99, and this version of vrft-bench reads 1"),
        ({"stage": "dpo"}, "names ms-swift with stage dpo"),
    ],
)
def test_a_damaged_manifest_is_said(shared_export: Any, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(shared_export("ms-swift"), folder)
    manifest = read_manifest(folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(DataError, match=said):
        check_export(folder)


def test_rewards_of_a_manifest_that_were_tampered_with_are_found(export: Any) -> None:
    folder = export("ms-swift")
    manifest = read_manifest(folder)
    manifest["task"]["reward"] = "iou=100"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match=r"made with the rewards .*'format'.* and here they are \{'iou': 100\.0\}"):
        check_export(folder)
    manifest["task"]["included"] = ["../../mine.py"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="an included file is named by a path"):
        check_export(folder)


def test_plugin_files_of_an_export_run_only_if_they_are_named(export: Any, included_task: Path) -> None:
    folder = export("ms-swift", task="included_shapes", include=[str(included_task)])
    TASKS._entries.pop("included_shapes")
    with pytest.raises(UserError, match="which --check would run") as refused:
        check_export(folder)
    assert "included_shapes" not in TASKS
    given = str(refused.value.fix).rpartition("--include ")[2]
    assert check_export(folder, [given])["counts"]["rows"] == 10


@pytest.mark.parametrize(("group", "workers"), [(8, 8), (16, 8), (4, 4), (6, 6), (11, 1)])
def test_verls_rollout_workers_get_equally_many_completions(export: Any, group: int, workers: int) -> None:
    import yaml

    folder = export("verl", recipe={"group_size": group, "batch_size": group})
    rollout = yaml.safe_load((folder / "config.yaml").read_text())["actor_rollout_ref"]["rollout"]
    assert rollout["agent"]["num_workers"] == workers


def test_a_missing_configuration_is_found(export: Any) -> None:
    folder = export("openrlhf")
    (folder / "config.args").unlink()
    with pytest.raises(DataError, match=r"config\.args is missing"):
        check_export(folder)


def test_an_empty_folder_is_filled_and_stays_the_same_one(export: Any, tmp_path: Path) -> None:
    """The user may be in it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    before = folder.stat().st_ino
    export("verl", name="mine")
    assert folder.stat().st_ino == before
    check_export(folder)
    assert list(tmp_path.iterdir()) == [folder]
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--output-dir .*file/below: Not a directory"):
        export("verl", name="file/below")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"batch_size": 4}, "batch_size 4 is no multiple of group_size 8"),
        ({"batch_size": 12}, "batch_size 12 is no multiple of group_size 8"),
        ({"batch_size": 8, "accumulation": 16}, "batch_size 8 is no multiple of accumulation 16"),
    ],
)
def test_a_batch_without_whole_groups_is_refused(export: Any, recipe: dict[str, int], said: str) -> None:
    for engine in ("verl", "ms-swift"):
        with pytest.raises(UserError, match=said):
            export(engine, recipe=recipe)


def test_what_an_engine_cannot_be_told_is_left_out_and_said(export: Any) -> None:
    recipe = {"steps": None, "epochs": 2.5, "freeze_vision": True, "engine_args": {"top_entropy_quantile": 0.2}}
    for engine in ("verl", "easyr1", "openrlhf"):
        left_out = read_manifest(export(engine, name=engine, recipe=recipe))["left_out"]
        assert "epochs = 2.5, since it counts whole ones: 2" in left_out
        assert "engine_args = {'top_entropy_quantile': 0.2}" in left_out
        assert ("freeze_vision = True" in left_out) == (engine == "verl")


def test_adapters_go_on_the_layers_that_were_chosen(export: Any) -> None:
    import yaml

    recipe = {"lora_rank": 8, "lora_targets": ["q_proj", "v_proj"]}
    model = yaml.safe_load((export("easyr1", name="easyr1", recipe=recipe) / "config.yaml").read_text())
    assert model["worker"]["actor"]["model"]["lora"] == {"rank": 8, "alpha": 16, "target_modules": "q_proj,v_proj"}
    words = (export("openrlhf", name="openrlhf", recipe=recipe) / "config.args").read_text()
    assert "--ds.lora.target_modules q_proj v_proj\n" in words


def test_recipes_reach_the_configuration(export: Any) -> None:
    import yaml

    folder = export("ms-swift", recipe={"group_size": 4, "learning_rate": 3e-6, "steps": 7, "lora_rank": 8})
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert (config["num_generations"], config["learning_rate"], config["max_steps"]) == (4, 3e-6, 7)
    assert (config["tuner_type"], config["lora_rank"], config["lora_alpha"]) == ("lora", 8, 16)
    assert "num_train_epochs" not in config
