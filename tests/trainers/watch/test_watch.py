"""watch: each checkpoint is evaluated once, on data that the training has not seen."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import gold
from vrft_bench.harness.store import SAMPLES
from vrft_bench.tasks.data.sample import sample_folder
from vrft_bench.trainers.stop import STOP
from vrft_bench.trainers.train_log import LOG, append_log
from vrft_bench.trainers.watch import Watched, as_trained
from vrft_bench.trainers.watch_curve import Mark


class TestTheLoop:
    def test_each_checkpoint_is_evaluated_once_in_order_of_steps(self, tmp_path: Path, scripted: Any) -> None:
        for step, answers in ((100, "good"), (50, "poor"), (150, "gold")):
            scripted.save(tmp_path, step, answers)
        found = scripted.watch(tmp_path)
        assert scripted.asked == ["checkpoint-50", "checkpoint-100", "checkpoint-150"]
        assert scripted.steps(found) == [50, 100, 150]
        assert found.curve[2].value == 1.0
        assert found.curve[2].reward == pytest.approx(3.0)
        assert found.curve[2].components == {"iou": 1.0, "confidence": 1.0, "format": 1.0}
        assert found.curve[0].value is not None
        assert found.curve[0].value < 1.0
        assert (found.folder / found.curve[1].run / SAMPLES).is_file()
        assert scripted.watch(tmp_path).curve == found.curve
        assert len(scripted.asked) == 3

    def test_only_multiples_count(self, tmp_path: Path, scripted: Any) -> None:
        for step in (30, 50, 60, 100):
            scripted.save(tmp_path, step, "good")
        assert scripted.steps(scripted.watch(tmp_path, every=50)) == [50, 100]

    @pytest.mark.parametrize("name", ["global_step_{}", "global_step{}_hf"])
    def test_checkpoints_of_other_engines_are_taken(self, tmp_path: Path, scripted: Any, name: str) -> None:
        checkpoint = scripted.save(tmp_path, 7, "gold", name)
        if name == "global_step_{}":
            model = tmp_path / "model"
            checkpoint.rename(model)
            (checkpoint / "actor").mkdir(parents=True)
            model.rename(checkpoint / "actor" / "huggingface")
        assert [(row.step, row.value) for row in scripted.watch(tmp_path).curve] == [(7, 1.0)]

    def test_an_unfinished_checkpoint_is_passed_over_until_it_is_whole(self, tmp_path: Path, scripted: Any) -> None:
        scripted.save(tmp_path, 10, "good")
        weights = scripted.save(tmp_path, 20, "good") / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        assert scripted.steps(scripted.watch(tmp_path)) == [10]
        weights.write_bytes(whole)
        assert scripted.steps(scripted.watch(tmp_path)) == [10, 20]

    def test_a_broken_checkpoint_does_not_end_the_watch(self, tmp_path: Path, scripted: Any) -> None:
        for step, answers in ((10, "good"), (20, None), (30, "good")):
            scripted.save(tmp_path, step, answers)
        found = scripted.watch(tmp_path)
        assert scripted.steps(found) == [10, 30]
        assert "is broken" in found.failed[20]
        assert not list((found.folder / "staged").glob("*/*"))

    def test_it_waits_for_checkpoints_and_ends_with_the_training(
        self, tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The folder is not there at first, and every look finds something new. The last step counts in any case."""
        folder = tmp_path / "ckpt"
        looks: list[float] = []

        def training_goes_on(seconds: float) -> None:
            looks.append(seconds)
            match len(looks):
                case 1:
                    scripted.own_training(folder)
                    append_log(folder / LOG, {"step": 1, "reward": 0.25})
                    append_log(folder / LOG, {"step": 2, "reward": 0.75})
                    scripted.mark_whole(scripted.save(folder, 2, "poor"))
                case 2:
                    shutil.rmtree(folder / "checkpoint-2")
                    scripted.save(folder, 4, "good")  # not marked as whole yet
                case 3:
                    scripted.mark_whole(folder / "checkpoint-4")
                    append_log(folder / LOG, {"step": 3, "reward": 2.0})
                case 4:
                    scripted.mark_whole(scripted.save(folder, 5, "gold"))
                    scripted.own_training(folder, status="complete")

        monkeypatch.setattr(time, "sleep", training_goes_on)
        base = scripted.save(tmp_path, 0, "poor", "base")
        found = scripted.watch(folder, once=False, settle=60.0, base=str(base), every=2, interval=3.0)
        assert looks == [3.0] * 4
        assert scripted.asked == ["base", "checkpoint-2", "checkpoint-4", "checkpoint-5"]
        assert [row.training_reward for row in found.curve] == [None, 0.5, 2.0, None]
        assert found.best is not None
        assert found.best.step == 5

    def test_checkpoints_that_come_and_go_during_an_evaluation_are_taken(
        self, tmp_path: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def noisy(request: Request) -> str:
            number = len(list(tmp_path.glob("checkpoint-*")))
            if number == 1:
                scripted.save(tmp_path, 2, "gold")
            elif list((tmp_path / "watch" / "staged").glob("*/checkpoint-2")):
                shutil.rmtree(tmp_path / "checkpoint-2", ignore_errors=True)
            return gold(request)

        scripted.kinds["noisy"] = noisy
        scripted.save(tmp_path, 1, "noisy")
        assert scripted.steps(scripted.watch(tmp_path, interval=0.0)) == [1, 2]
        assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]

    def test_without_a_task_only_a_training_of_our_own_is_watched(self, tmp_path: Path, scripted: Any) -> None:
        scripted.save(tmp_path, 1, "gold")
        with pytest.raises(UserError, match="no task is given"):
            scripted.watch(tmp_path, make_config({}))


class TestHacking:
    def test_a_falling_metric_with_a_falling_reward_is_none(self, tmp_path: Path, scripted: Any) -> None:
        scripted.save(tmp_path, 10, "gold")
        scripted.save(tmp_path, 20, "poor")
        assert [row.mark for row in scripted.watch(tmp_path, stop_on_hacking=True).curve] == [Mark.FINE, Mark.FINE]
        assert not (tmp_path / STOP).exists()


def test_a_training_of_our_own_is_evaluated_as_it_was_trained_unless_told_otherwise(
    tmp_path: Path, scripted: Any
) -> None:
    chosen = {
        "protocol": "paper", "reward": "iou_v1=1", "data": "/there", "eval_split": "test", "eval_limit": 5,
        "split": "train", "shots": 4, "limit": 100, "ask": "present",
    }  # fmt: skip
    record = scripted.own_training(tmp_path, config=chosen)
    config = as_trained(make_config({}), record)
    assert config.task == ["coco_fewshot"]
    assert (config.protocol, config.reward, config.ask, config.data) == ("paper", "iou_v1=1", "present", Path("/there"))
    assert (config.split, config.limit, config.shots) == ("test", 5, None)
    assert as_trained(config, record) == config
    told = as_trained(make_config({"task": ["coco_fewshot"], "limit": 7, "protocol": "strict"}), record)
    assert (told.limit, told.protocol, told.reward) == (7, "strict", "iou_v1=1")
    other = as_trained(make_config({"task": ["lvis_fewshot"]}), record)
    assert (other.task, other.protocol, other.reward, other.limit) == (["lvis_fewshot"], "strict", None, None)
    assert other.data == Path("/there")


def test_data_that_are_trained_on_are_refused_unless_asked_for(tmp_path: Path, scripted: Any) -> None:
    def trained(folder: str, **config: Any) -> Path:
        scripted.own_training(tmp_path / folder, config=config)
        scripted.mark_whole(scripted.save(tmp_path / folder, 1, "good"))
        return tmp_path / folder

    base = str(scripted.save(tmp_path / "base", 0, "gold"))

    def held_out(folder: Path, **chosen: Any) -> Watched:
        return scripted.watch(folder, make_config({"limit": 4, "ask": "present", **chosen}), base=base)

    assert scripted.steps(held_out(trained("ours"))) == [0, 1]
    with pytest.raises(UserError, match=r"\(split 'train'\) are on data that the training learns from") as caught:
        held_out(trained("same", eval_split="train"))
    assert "--split" in str(caught.value.fix)
    assert scripted.steps(held_out(tmp_path / "same", split="train")) == [0, 1]
    train, val = (sample_folder("coco", split) for split in ("train", "val"))
    files = {
        "annotations": str(train / "annotations" / "instances_train2017.json"),
        "images": str(train / "images" / "train2017"),
        "categories": ["red circle"],
    }
    with pytest.raises(UserError, match=r"\(split 'val'\) are on data that the training learns from"):
        held_out(trained("own", **files))
    others = {"annotations": val / "annotations" / "instances_val2017.json", "images": val / "images" / "val2017"}
    assert scripted.steps(held_out(tmp_path / "own", **others)) == [0, 1]
