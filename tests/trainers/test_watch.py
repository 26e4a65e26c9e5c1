"""watch: each checkpoint is evaluated once, the best one is kept, and a hacked reward ends the training."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import Noise, TextMock, gold
from vrft_bench.harness.provenance import RECORD
from vrft_bench.harness.store import SAMPLES
from vrft_bench.registry import MODELS
from vrft_bench.tasks.data.sample import sample_folder
from vrft_bench.trainers import watch as module
from vrft_bench.trainers.folder import WHOLE, TrainingRecord
from vrft_bench.trainers.stop import STOP
from vrft_bench.trainers.train_log import LOG, append_log
from vrft_bench.trainers.watch import Watched, WatchOptions, as_trained, watch
from vrft_bench.trainers.watch_curve import Mark
from vrft_bench.trainers.watch_folder import BEST, CURVE
from vrft_bench.trainers.watch_models import make_evaluable

pytestmark = pytest.mark.usefixtures("sample_cache")
TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


def bare_gold(request: Request) -> str:
    """All boxes right, the asked layout not kept."""
    return gold(request).split("</think>")[-1].strip()


KINDS: dict[str, Callable[[Request], str]] = {
    "gold": gold,
    "bare": bare_gold,
    "good": Noise({"jitter": 0.02, "miss": 0.1}),
    "poor": Noise({"jitter": 0.2, "miss": 0.4}),
}
asked: list[str] = []
"""Which checkpoints were evaluated."""


def scripted(name: str, args: Mapping[str, Any]) -> TextMock:
    """A backend whose checkpoints say in a file how they answer."""
    config = json.loads((Path(name) / "config.json").read_text())
    if "answers" not in config:
        raise UserError(f"{name} is broken", fix="none")

    class Scripted(TextMock):
        def generate(self, requests: Any) -> Iterator[Any]:
            asked.append(Path(name).name)
            return super().generate(requests)

    return Scripted(config, KINDS[config["answers"]])


@pytest.fixture(autouse=True)
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    MODELS.names()
    monkeypatch.setattr(MODELS, "_entries", dict(MODELS._entries))
    MODELS.register("scripted", scripted)
    asked.clear()


def save(folder: Path, step: int, answers: str | None, name: str = "checkpoint-{}") -> Path:
    """A checkpoint that answers so; without an answer, one that no backend takes."""
    from safetensors.numpy import save_file

    checkpoint = folder / name.format(step)
    checkpoint.mkdir(parents=True)
    import numpy as np

    save_file({"weight": np.full(10, step, np.float32)}, checkpoint / "model.safetensors")
    content = {"step": step} if answers is None else {"step": step, "answers": answers}
    (checkpoint / "config.json").write_text(json.dumps(content))
    for file in ("tokenizer.json", "preprocessor_config.json"):
        (checkpoint / file).write_text("{}")
    return checkpoint


def config_of(limit: int = 16, **fields: Any) -> RunConfig:
    return make_config({"task": ["coco_fewshot"], "ask": "present", "limit": limit, **fields})


def once(folder: Path, config: RunConfig | None = None, **options: Any) -> Watched:
    chosen = WatchOptions(**{"once": True, "settle": 0.0, "backend": "scripted", "window": 2, **options})
    return watch(folder, config or config_of(), chosen)


def steps(found: Watched) -> list[int]:
    return [row.step for row in found.curve]


class TestTheLoop:
    def test_each_checkpoint_is_evaluated_once_in_order_of_steps(self, tmp_path: Path) -> None:
        for step, answers in ((100, "good"), (50, "poor"), (150, "gold")):
            save(tmp_path, step, answers)
        found = once(tmp_path)
        assert asked == ["checkpoint-50", "checkpoint-100", "checkpoint-150"]
        assert steps(found) == [50, 100, 150]
        assert found.curve[2].value == 1.0
        assert found.curve[2].reward == pytest.approx(3.0)
        assert found.curve[2].components == {"iou": 1.0, "confidence": 1.0, "format": 1.0}
        assert found.curve[0].value is not None
        assert found.curve[0].value < 1.0
        assert (found.folder / found.curve[1].run / SAMPLES).is_file()
        assert once(tmp_path).curve == found.curve
        assert len(asked) == 3

    def test_only_multiples_count(self, tmp_path: Path) -> None:
        for step in (30, 50, 60, 100):
            save(tmp_path, step, "good")
        assert steps(once(tmp_path, every=50)) == [50, 100]

    @pytest.mark.parametrize("name", ["global_step_{}", "global_step{}_hf"])
    def test_checkpoints_of_other_engines_are_taken(self, tmp_path: Path, name: str) -> None:
        checkpoint = save(tmp_path, 7, "gold", name)
        if name == "global_step_{}":
            model = tmp_path / "model"
            checkpoint.rename(model)
            (checkpoint / "actor").mkdir(parents=True)
            model.rename(checkpoint / "actor" / "huggingface")
        assert [(row.step, row.value) for row in once(tmp_path).curve] == [(7, 1.0)]

    def test_an_unfinished_checkpoint_is_passed_over_until_it_is_whole(self, tmp_path: Path) -> None:
        save(tmp_path, 10, "good")
        weights = save(tmp_path, 20, "good") / "model.safetensors"
        whole = weights.read_bytes()
        weights.write_bytes(whole[:-1])
        assert steps(once(tmp_path)) == [10]
        weights.write_bytes(whole)
        assert steps(once(tmp_path)) == [10, 20]

    def test_a_broken_checkpoint_does_not_end_the_watch(self, tmp_path: Path) -> None:
        for step, answers in ((10, "good"), (20, None), (30, "good")):
            save(tmp_path, step, answers)
        found = once(tmp_path)
        assert steps(found) == [10, 30]
        assert "is broken" in found.failed[20]
        assert not list((found.folder / "staged").glob("*/*"))

    def test_it_waits_for_checkpoints_and_ends_with_the_training(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The folder is not there at first, and every look finds something new. The last step counts in any case."""
        folder = tmp_path / "ckpt"
        looks: list[float] = []

        def training_goes_on(seconds: float) -> None:
            looks.append(seconds)
            match len(looks):
                case 1:
                    own_training(folder)
                    append_log(folder / LOG, {"step": 1, "reward": 0.25})
                    append_log(folder / LOG, {"step": 2, "reward": 0.75})
                    mark(save(folder, 2, "poor"))
                case 2:
                    shutil.rmtree(folder / "checkpoint-2")
                    save(folder, 4, "good")  # not marked as whole yet
                case 3:
                    mark(folder / "checkpoint-4")
                    append_log(folder / LOG, {"step": 3, "reward": 2.0})
                case 4:
                    mark(save(folder, 5, "gold"))
                    own_training(folder, status="complete")

        monkeypatch.setattr(time, "sleep", training_goes_on)
        base = save(tmp_path, 0, "poor", "base")
        options = WatchOptions(base=str(base), every=2, interval=3.0, backend="scripted")
        found = watch(folder, config_of(), options)
        assert looks == [3.0] * 4
        assert asked == ["base", "checkpoint-2", "checkpoint-4", "checkpoint-5"]
        assert [row.training_reward for row in found.curve] == [None, 0.5, 2.0, None]
        assert found.best is not None
        assert found.best.step == 5

    def test_checkpoints_that_come_and_go_during_an_evaluation_are_taken(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def noisy(request: Request) -> str:
            number = len(list(tmp_path.glob("checkpoint-*")))
            if number == 1:
                save(tmp_path, 2, "gold")
            elif list((tmp_path / "watch" / "staged").glob("*/checkpoint-2")):
                shutil.rmtree(tmp_path / "checkpoint-2", ignore_errors=True)
            return gold(request)

        monkeypatch.setitem(KINDS, "noisy", noisy)
        save(tmp_path, 1, "noisy")
        assert steps(once(tmp_path, interval=0.0)) == [1, 2]
        assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-1"]

    def test_without_a_task_only_a_training_of_our_own_is_watched(self, tmp_path: Path) -> None:
        save(tmp_path, 1, "gold")
        with pytest.raises(UserError, match="no task is given"):
            once(tmp_path, make_config({}))


class TestWhatIsKept:
    def test_the_best_is_a_whole_copy_that_the_trainer_cannot_delete(self, tmp_path: Path) -> None:
        for step, answers in ((1, "poor"), (2, "gold"), (3, "good")):
            save(tmp_path, step, answers)
        found = once(tmp_path)
        best = found.folder / BEST
        assert best.resolve() == found.folder / "checkpoint-2"
        assert not (found.folder / "checkpoint-1").exists()
        for checkpoint in tmp_path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        assert json.loads((best / "config.json").read_text()) == {"step": 2, "answers": "gold"}
        assert json.loads((best / WHOLE).read_text()) == {"step": 2, "ap": 1.0}
        assert all(file.stat().st_nlink == 1 for file in best.iterdir())
        assert steps(once(tmp_path)) == [1, 2, 3]

    def test_a_better_one_takes_its_place(self, tmp_path: Path) -> None:
        save(tmp_path, 1, "poor")
        first = once(tmp_path)
        assert (first.folder / BEST / "config.json").read_text() == '{"step": 1, "answers": "poor"}'
        save(tmp_path, 2, "gold")
        once(tmp_path)
        assert (first.folder / BEST / "config.json").read_text() == '{"step": 2, "answers": "gold"}'
        assert not (first.folder / "checkpoint-1").exists()

    def test_a_copy_left_by_a_watch_that_was_killed_is_taken_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(tmp_path, 1, "good")
        save(tmp_path, 2, "gold")

        def die(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(module, "carry_out", die)
            with pytest.raises(KeyboardInterrupt):
                once(tmp_path)
        for checkpoint in tmp_path.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        found = once(tmp_path)
        assert steps(found) == [1, 2]
        assert (found.folder / BEST / "config.json").is_file()

    def test_a_watch_killed_before_it_kept_the_best_keeps_it_later(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        save(tmp_path, 1, "gold")

        def die(*_: Any) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr("vrft_bench.trainers.watch_folder.unlink_files", die)
            with pytest.raises(KeyboardInterrupt):
                once(tmp_path)
        assert len((tmp_path / "watch" / CURVE).read_text().splitlines()) == 1
        found = once(tmp_path)
        assert asked == ["checkpoint-1"]
        assert (found.folder / BEST / "config.json").is_file()

    def test_a_checkpoint_written_anew_is_evaluated_anew_with_all_after_it(self, tmp_path: Path) -> None:
        for step in (1, 2, 3):
            save(tmp_path, step, "good")
        once(tmp_path)
        shutil.rmtree(tmp_path / "checkpoint-2")
        save(tmp_path, 2, "gold")
        found = once(tmp_path)
        assert asked[3:] == ["checkpoint-2"]  # the third is known by its content, and only read again
        assert [(row.step, row.value == 1.0) for row in found.curve] == [(1, False), (2, True), (3, False)]

    def test_another_choice_is_refused_before_anything_is_asked(self, tmp_path: Path) -> None:
        save(tmp_path, 1, "good")
        once(tmp_path)
        with pytest.raises(UserError, match="limit: 16 there, 8 here"):
            once(tmp_path, config_of(8))
        with pytest.raises(UserError, match="base"):
            once(tmp_path, base=str(save(tmp_path, 0, "good", "base")))
        assert asked == ["checkpoint-1"]

    def test_two_watches_cannot_write_one_curve(self, tmp_path: Path) -> None:
        from vrft_bench.harness.store import lock_folder

        save(tmp_path, 1, "good")
        (tmp_path / "watch").mkdir()
        lock_folder(tmp_path / "watch")
        with pytest.raises(UserError, match="is being written by another process"):
            once(tmp_path)


class TestHacking:
    def test_the_training_is_asked_to_stop(self, tmp_path: Path, cli: Any) -> None:
        for step, answers in ((10, "bare"), (20, "poor"), (30, "gold")):
            save(tmp_path / "ckpt", step, answers)
        command = (
            "watch", "ckpt", "-t", "coco_fewshot", "--limit", "160", "--reward", "format=1", "--backend", "scripted",
            "--once", "--settle", "0", "--window", "2",
        )  # fmt: skip
        outcome = cli(*command, "--stop-on-hacking")
        assert outcome.code == 1
        assert "REWARD HACKING: ap down, reward up since step 10, beyond chance" in outcome.out
        assert asked == ["checkpoint-10", "checkpoint-20"]
        said = "at step 20 ap has fallen since step 10, and the reward has risen"
        assert (tmp_path / "ckpt" / STOP).read_text() == f"{said}\n"
        rows = [json.loads(line) for line in (tmp_path / "ckpt" / "watch" / CURVE).read_text().splitlines()]
        assert [row["mark"] for row in rows] == ["fine", "hacking"]
        assert rows[1]["changes"]["metric"]["high"] < 0 < rows[1]["changes"]["reward"]["low"]
        # Without the flag it is told and goes on.
        outcome = cli(*command)
        assert outcome.code == 0
        assert outcome.out.splitlines()[-2].startswith("best: step 10 (ap 1.000)")
        assert asked[2:] == ["checkpoint-30"]

    def test_a_falling_metric_with_a_falling_reward_is_none(self, tmp_path: Path) -> None:
        save(tmp_path, 10, "gold")
        save(tmp_path, 20, "poor")
        assert [row.mark for row in once(tmp_path, stop_on_hacking=True).curve] == [Mark.FINE, Mark.FINE]
        assert not (tmp_path / STOP).exists()


class TestTheCommand:
    def test_a_row_per_checkpoint_and_the_folder_last(self, tmp_path: Path, cli: Any) -> None:
        save(tmp_path / "ckpt", 5, "gold")
        state = {"log_history": [{"step": 4, "reward": 1.5}, {"step": 5, "reward": 2.5}]}
        (tmp_path / "ckpt" / "checkpoint-5" / "trainer_state.json").write_text(json.dumps(state))
        base = str(save(tmp_path, 0, "gold", "base"))
        command = (
            "watch", "ckpt", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "--backend", "scripted", "--once",
            "--settle", "0", "--base", base,
        )  # fmt: skip
        outcome = cli(*command)
        assert outcome.code == 0, outcome.err
        heading, start, row, best, note, folder = outcome.out.splitlines()
        assert heading.split() == [
            "step",
            "metric",
            "95%",
            "interval",
            "reward",
            "in",
            "training",
            "unparsable",
            "tokens",
        ]
        assert start.split()[:3] == ["0", "ap", "1.000"]
        assert row.split()[:3] == ["5", "ap", "1.000"]
        assert row.split()[-4:] == ["3.000", "2.000", "0.0%", "0.0"]
        assert best.startswith("best: step 5 (ap 1.000), kept in ")
        assert note == "note: no checkpoint is better than the base (ap 1.000)"
        assert Path(folder) == tmp_path / "ckpt" / "watch"
        rows = [json.loads(line) for line in cli(*command, "--json").out.splitlines()]
        assert [row["step"] for row in rows] == [0, 5]

    def test_a_folder_without_checkpoints_is_told(self, tmp_path: Path, cli: Any) -> None:
        outcome = cli("watch", ".", "-t", "coco_fewshot", "--once")
        assert outcome.code == 2
        assert "there is no whole checkpoint in" in outcome.err
        assert not (tmp_path / "watch").exists()

    def test_a_checkpoint_that_could_not_be_evaluated_makes_the_watch_partial(self, tmp_path: Path, cli: Any) -> None:
        save(tmp_path / "ckpt", 1, "good")
        save(tmp_path / "ckpt", 2, None)
        outcome = cli(
            "watch",
            "ckpt",
            "-t",
            "coco_fewshot",
            "--ask",
            "present",
            "-L",
            "8",
            "--backend",
            "scripted",
            "--once",
            "--settle",
            "0",
        )
        assert outcome.code == 5
        assert "not evaluated: step 2:" in outcome.out


def own_training(folder: Path, **fields: Any) -> TrainingRecord:
    """``train.json`` as `train` writes it."""
    from vrft_bench.harness.plan import choose_task, make_plan
    from vrft_bench.tasks.profiles import ABS_ORIGINAL

    folder.mkdir(parents=True, exist_ok=True)
    config = config_of(split="train")
    identity = make_plan(choose_task("coco_fewshot", config), ABS_ORIGINAL, config).identity({"precision": "fp32"})
    record = TrainingRecord.of("grpo", "coco_fewshot", "tiny", identity, fields.pop("config", {}))
    record = record.model_copy(update=fields)
    (folder / RECORD).write_text(record.model_dump_json())
    return record


def mark(checkpoint: Path) -> None:
    record = TrainingRecord.model_validate_json((checkpoint.parent / RECORD).read_text())
    (checkpoint / WHOLE).write_text(json.dumps({"fingerprint": record.fingerprint, "step": 0}))


def test_a_training_of_our_own_is_evaluated_as_it_was_trained_unless_told_otherwise(tmp_path: Path) -> None:
    chosen = {
        "protocol": "paper", "reward": "iou_v1=1", "data": "/there", "eval_split": "test", "eval_limit": 5,
        "split": "train", "shots": 4, "limit": 100, "ask": "present",
    }  # fmt: skip
    record = own_training(tmp_path, config=chosen)
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


def test_data_that_are_trained_on_are_refused_unless_asked_for(tmp_path: Path) -> None:
    def trained(folder: str, **config: Any) -> Path:
        own_training(tmp_path / folder, config=config)
        mark(save(tmp_path / folder, 1, "good"))
        return tmp_path / folder

    base = str(save(tmp_path / "base", 0, "gold"))

    def held_out(folder: Path, **chosen: Any) -> Watched:
        return once(folder, make_config({"limit": 4, "ask": "present", **chosen}), base=base)

    assert steps(held_out(trained("ours"))) == [0, 1]
    with pytest.raises(UserError, match=r"\(split 'train'\) are on data that the training learns from") as caught:
        held_out(trained("same", eval_split="train"))
    assert "--split" in str(caught.value.fix)
    assert steps(held_out(tmp_path / "same", split="train")) == [0, 1]
    train, val = (sample_folder("coco", split) for split in ("train", "val"))
    files = {
        "annotations": str(train / "annotations" / "instances_train2017.json"),
        "images": str(train / "images" / "train2017"),
        "categories": ["red circle"],
    }
    with pytest.raises(UserError, match=r"\(split 'val'\) are on data that the training learns from"):
        held_out(trained("own", **files))
    others = {"annotations": val / "annotations" / "instances_val2017.json", "images": val / "images" / "val2017"}
    assert steps(held_out(tmp_path / "own", **others)) == [0, 1]


class TestFilesThatACheckpointLacks:
    def test_they_come_from_the_base(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        with pytest.raises(UserError, match="has no tokenizer and no image processor"):
            make_evaluable(tmp_path, None)
        make_evaluable(tmp_path, "tiny")
        for file in ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "chat_template.jinja"):
            assert (tmp_path / file).read_bytes() == (TINY / file).read_bytes()
        assert (tmp_path / "config.json").read_text() == "{}"
        assert not (tmp_path / "training.json").exists()

    def test_files_that_are_there_are_left_alone_with_all_of_their_kind(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "processor_config.json").write_text("{}")
        (tmp_path / "tokenizer_config.json").write_text('{"chat_template": "own"}')
        make_evaluable(tmp_path, "tiny")
        names = {file.name for file in tmp_path.iterdir()}
        assert names == {"config.json", "processor_config.json", "tokenizer_config.json", "generation_config.json"}


class TestRealModels:
    @pytest.fixture(autouse=True)
    def libraries(self) -> None:
        pytest.importorskip("peft")

    def test_a_checkpoint_is_worth_what_run_says_of_it(self, tmp_path: Path, cli: Any) -> None:
        checkpoint = tmp_path / "ckpt" / "checkpoint-3"
        checkpoint.mkdir(parents=True)
        for name in ("config.json", "model.safetensors"):  # the rest is the base's
            shutil.copyfile(TINY / name, checkpoint / name)
        watched = cli(
            "watch",
            "ckpt",
            "-t",
            "coco_fewshot",
            "--ask",
            "present",
            "-L",
            "8",
            "--base",
            "tiny",
            "--once",
            "--settle",
            "0",
            "--json",
        )
        assert watched.code == 0, watched.err
        base, row = (json.loads(line) for line in watched.out.splitlines())
        run = json.loads(cli("run", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "-m", "hf/tiny", "--json").out)
        assert row["value"] == base["value"] == run["report"]["figures"]["ap"]["value"]
        assert row["reward"] == run["answers"]["reward"]
        kept = json.loads(
            cli("run", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "-m", "ckpt/watch/best", "--json").out
        )
        assert kept["answers"] == run["answers"]

    def test_adapters_are_merged_as_their_training_merged_them(
        self, tmp_path: Path, cli: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("trl")
        import torch
        from safetensors.torch import load_file

        shutil.copytree(TINY, tmp_path / "base")
        trained = cli(
            "train", "-t", "coco_fewshot", "--trainer", "sft", "-m", "base", "-o", "ckpt", "--limit", "8",
            "--steps", "1", "--batch-size", "4", "--lora-rank", "4", "--lr", "1e-2",
        )  # fmt: skip
        assert trained.code == 0, trained.err
        with monkeypatch.context() as patch:
            (tmp_path / "elsewhere").mkdir()
            patch.chdir(tmp_path / "elsewhere")  # the base is found from anywhere
            watched = cli("watch", "../ckpt", "--ask", "present", "--limit", "4", "--max-tokens", "48", "--json")
        assert watched.code == 0, watched.err
        assert [json.loads(line)["step"] for line in watched.out.splitlines()] == [0, 1]
        final, best = (load_file(Path(folder) / "model.safetensors") for folder in ("ckpt/final", "ckpt/watch/best"))
        start = load_file(TINY / "model.safetensors")
        assert final.keys() == best.keys()
        assert all(torch.equal(final[name], best[name]) for name in final)
        assert any(not torch.equal(best[name], start[name].float()) for name in best)
        # Of an engine that tells nothing of the base, its name is in the adapters' own config.
        Path("ckpt", RECORD).unlink()
        adapters = tmp_path / "foreign" / "checkpoint-1"
        adapters.mkdir(parents=True)
        for name in ("adapter_config.json", "adapter_model.safetensors", "tokenizer.json", "preprocessor_config.json"):
            shutil.copyfile(Path("ckpt/checkpoint-1") / name, adapters / name)
        foreign = cli(
            "watch",
            "foreign",
            "-t",
            "coco_fewshot",
            "-L",
            "4",
            "--max-tokens",
            "48",
            "--once",
            "--settle",
            "0",
            "--json",
        )
        assert foreign.code == 0, foreign.err
        assert json.loads(foreign.out)["step"] == 1

    def test_adapters_of_another_model_are_refused(self, tmp_path: Path) -> None:
        from safetensors.torch import load_file, save_file

        shutil.copytree(TINY, tmp_path / "base")
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForImageTextToText

        model = AutoModelForImageTextToText.from_pretrained(TINY)
        copy = tmp_path / "checkpoint-1"
        get_peft_model(model, LoraConfig(target_modules=["q_proj"])).save_pretrained(copy)
        weights = load_file(copy / "adapter_model.safetensors")
        save_file({f"elsewhere.{name}": value for name, value in weights.items()}, copy / "adapter_model.safetensors")
        with pytest.raises(UserError, match="adapters of checkpoint-1 do not fit"):
            make_evaluable(copy, str(tmp_path / "base"))
