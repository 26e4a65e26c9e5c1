"""The choices of a training: one set of names for flags, files, recipes and engines."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrft_bench.errors import UserError
from vrft_bench.trainers.base import (
    BESIDE,
    Hyperparameters,
    TrainConfig,
    make_train_config,
    refuse_foreign_options,
)
from vrft_bench.trainers.grpo import GRPO
from vrft_bench.trainers.launch import prepare
from vrft_bench.trainers.recipes import read_recipe, recipe_names
from vrft_bench.trainers.sft import SFT

BARE = {"task": "coco_fewshot", "output_dir": "out"}


def test_the_recipes_that_ship_say_where_every_value_is_from() -> None:
    assert recipe_names() == ["modern", "visual_rft"]
    for name in recipe_names():
        text = (files("vrft_bench.trainers.recipes") / f"{name}.yaml").read_text()
        for trainer in (GRPO(), SFT()):
            values = read_recipe(name, trainer.name)
            config = make_train_config({**BARE, "trainer": trainer.name, "recipe": name})
            assert {key: getattr(config, key) for key in values} == values
            refuse_foreign_options(trainer, config)
        assert [line for line in text.splitlines() if "#" not in line] == ["grpo:", "sft:"]


def test_the_recipe_of_the_paper_is_the_papers() -> None:
    stated = {
        "group_size": 8, "learning_rate": 1e-6, "beta": 0.04, "temperature": 1.0, "max_pixels": 401408, "steps": 200,
    }  # fmt: skip
    assert read_recipe("visual_rft", "grpo").items() >= stated.items()


def test_a_flag_goes_before_the_recipe_and_a_recipe_may_be_a_file(tmp_path: Path) -> None:
    config = make_train_config({**BARE, "recipe": "visual_rft", "beta": 0.1, "max-tokens": 64})
    assert (config.beta, config.max_tokens, config.group_size) == (0.1, 64, 8)
    mine = tmp_path / "mine.yaml"
    mine.write_text("grpo:\n  steps: 7\n  engine_args: {num_iterations: 2}\n")
    config = make_train_config({**BARE, "recipe": str(mine)})
    assert (config.steps, config.engine_args) == (7, {"num_iterations": 2})


def test_how_long_to_train_is_one_choice_whether_in_steps_or_epochs() -> None:
    by_epochs = make_train_config({**BARE, "recipe": "visual_rft", "epochs": 2})
    assert (by_epochs.steps, by_epochs.epochs) == (None, 2.0)
    again = make_train_config({**by_epochs.model_dump(exclude_defaults=True)})
    assert (again.steps, again.epochs) == (None, 2.0)
    with pytest.raises(UserError, match=r"steps \(7\) and epochs \(2\) are both given"):
        make_train_config({**BARE, "steps": 7, "epochs": 2})


def test_engine_arguments_of_recipe_file_and_flags_are_put_together(tmp_path: Path) -> None:
    recipe, file = tmp_path / "mine.yaml", tmp_path / "run.yaml"
    recipe.write_text("grpo:\n  engine_args: {num_iterations: 2, delta: 2.0}\n")
    file.write_text(yaml.safe_dump({**BARE, "recipe": str(recipe), "engine-args": {"delta": 3.0, "seed": 1}}))
    config = prepare(file, {"engine_args": {"seed": 2}})
    assert config.engine_args == {"num_iterations": 2, "delta": 3.0, "seed": 2}


def test_a_model_may_be_named_as_run_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert make_train_config({**BARE, "model": "hf/tiny"}).model == "tiny"
    assert make_train_config({**BARE, "model": "hf/Qwen/Qwen2-VL-2B-Instruct"}).model == "Qwen/Qwen2-VL-2B-Instruct"
    Path("hf/mine").mkdir(parents=True)
    assert make_train_config({**BARE, "model": "hf/mine"}).model == "hf/mine"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lerning_rate": 1e-5}, r"unknown field 'lerning_rate'; did you mean 'learning_rate'"),
        ({"learning_rate": 0}, r"learning_rate: input should be greater than 0"),
        ({"learning_rate": "nan"}, r"learning_rate: input should be a finite number"),
        ({"group_size": 1}, r"group_size: input should be greater than or equal to 2"),
        ({"recipe": "visual_rtf"}, r"'visual_rtf' is no recipe and no file; did you mean 'visual_rft'"),
        ({"recipe": "modern", "trainer": "mine"}, r"recipe 'modern' has no part for trainer 'mine'"),
    ],
)
def test_a_wrong_choice_is_named_with_what_is_valid(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        make_train_config({**BARE, **values})
    assert caught.value.fix


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grpo: [1]", "has no part for trainer 'grpo'"),
        ("grpo: {betta: 1}", "'betta' is no hyperparameter; did you mean 'beta'"),
        ("grpo: {task: x}", "'task' is no hyperparameter"),
        ("grpo: {", "is not YAML"),
    ],
)
def test_a_recipe_file_that_is_none_is_refused(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        make_train_config({**BARE, "recipe": str(tmp_path / "mine.yaml")})


def test_an_option_that_the_engine_does_not_have_is_an_error() -> None:
    config = make_train_config({**BARE, "trainer": "sft", "beta": 0.1})
    with pytest.raises(UserError, match="trainer 'sft' has no option 'beta'") as caught:
        refuse_foreign_options(SFT(), config)
    assert "learning_rate" in str(caught.value.fix)
    refuse_foreign_options(GRPO(), config)


def test_every_hyperparameter_belongs_to_a_trainer_that_ships() -> None:
    assert frozenset(Hyperparameters.model_fields) | BESIDE == GRPO.options | SFT.options
    assert TrainConfig.model_fields.keys() >= BESIDE


@pytest.mark.parametrize("given", [{"eval_every": 5}, {"report_to": ["wandb"]}, {"engine_args": {"x": 1}}, {"keep": 1}])
def test_what_a_trainer_would_not_heed_is_an_error_too(given: dict[str, Any]) -> None:
    class Plain(SFT):
        options = frozenset({"steps"})

    refuse_foreign_options(Plain(), make_train_config({**BARE, "steps": 3}))
    with pytest.raises(UserError, match=f"has no option '{next(iter(given))}'"):
        refuse_foreign_options(Plain(), make_train_config({**BARE, **given}))


def test_a_training_asks_what_an_evaluation_of_the_same_choices_would_ask(tmp_path: Path) -> None:
    choices = {"shots": 4, "split_seed": 3, "categories": ["bus"], "protocol": "paper", "reward": "iou", "limit": 9}
    run = TrainConfig.model_validate({**BARE, **choices, "data": tmp_path}).run_config()
    assert {name: getattr(run, name) for name in choices} == choices
    assert (run.split, run.data, run.temperature) == ("train", tmp_path, 0.0)


def test_what_is_recorded_is_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = {"include": ["mine.py"], "ask": "file:map.json", "images": "photos", "manifest": "worth.json"}
    config = TrainConfig.model_validate({**BARE, **chosen}).with_absolute_paths()
    assert config.include == [str(tmp_path / "mine.py")]
    assert config.ask == f"file:{tmp_path / 'map.json'}"
    assert (config.images, config.manifest) == (tmp_path / "photos", tmp_path / "worth.json")


def test_a_file_of_choices_and_flags_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRFT_BENCH_DATA", str(tmp_path))
    file = tmp_path / "train.yaml"
    file.write_text(yaml.safe_dump({**BARE, "steps": 5, "save-every": 2}))
    config = prepare(file, {"steps": 9})
    assert (config.steps, config.save_every, config.data) == (9, 2, tmp_path)
    by_epochs = prepare(file, {"epochs": 2})
    assert (by_epochs.steps, by_epochs.epochs) == (None, 2.0)
    with pytest.raises(UserError, match="no output_dir is given"):
        prepare(None, {"task": "coco_fewshot"})
