from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig, load_config, make_config, merge, read_config_file
from vrft_bench.harness.models.base import Sampling


def test_every_field_is_documented() -> None:
    undocumented = [name for name, field in RunConfig.model_fields.items() if not field.description]
    assert undocumented == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.yaml", "task: coco_fewshot, lvis_fewshot\nmax-tokens: 64\nmodel_args: {batch_size: 8}\n"),
        ("run.toml", 'tasks = ["coco_fewshot", "lvis_fewshot"]\nmax_tokens = 64\n[model_args]\nbatch_size = 8\n'),
        ("run.json", '{"task": ["coco_fewshot", "lvis_fewshot"], "max_tokens": 64, "model_args": {"batch_size": 8}}'),
        (
            "old.json",
            '{"status": "complete", "config": {"task": ["coco_fewshot", "lvis_fewshot"], "max_tokens": 64, '
            '"model_args": {"batch_size": 8}}}',
        ),
    ],
)
def test_yaml_toml_json_and_run_json_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = load_config(tmp_path / name)
    assert config.task == ["coco_fewshot", "lvis_fewshot"]
    assert config.max_tokens == 64
    assert config.model_args == {"batch_size": 8}
    assert config.model == "hf/tiny"


def test_a_recorded_config_reads_back_equal(tmp_path: Path) -> None:
    config = make_config({"task": ["a"], "data": Path("x/y"), "temperature": 0.7, "sample_id": ["1:a,b"], "limit": 3})
    (tmp_path / "run.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    assert load_config(tmp_path / "run.json") == config


def test_flags_override_the_file_and_leave_the_rest(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("temperature: 0.5\nseed: 7\n")
    merged = merge(read_config_file(tmp_path / "c.yaml"), {"temperature": 1.0, "max-tokens": 9})
    assert (merged.temperature, merged.seed, merged.max_tokens) == (1.0, 7, 9)
    assert merge(merged, {"task": ["one"]}).seed == 7


def test_an_unknown_field_names_the_nearest_one(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("temprature: 1\n")
    with pytest.raises(UserError, match=r"c\.yaml: unknown field 'temprature'; did you mean 'temperature'"):
        load_config(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temperature": -1}, "temperature = -1: input should be greater than or equal to 0"),
        ({"max_failures": 1.5}, "max_failures = 1.5: input should be less than or equal to 1"),
        ({"limit": 0}, "limit = 0: input should be greater than or equal to 1"),
        ({"top_p": 0}, "top_p = 0: input should be greater than 0"),
        ({"protocol": "lax"}, "protocol = 'lax': input should be 'strict' or 'paper'"),
        ({"samples": "many"}, "samples = 'many': input should be a valid integer"),
        ({"limit": True}, "limit = True: input should be a valid integer"),
        ({"limit": 3.0}, "limit = 3.0: input should be a valid integer"),
        ({"seed": "3"}, "seed = '3': input should be a valid integer"),
        ({"temperature": False}, "temperature = False: input should be a valid number"),
        ({"temperature": float("inf")}, "temperature = inf: input should be a finite number"),
        ({"temperature": float("nan")}, "temperature = nan: input should be a finite number"),
        ({"max_failures": float("nan")}, "max_failures = nan: input should be a finite number"),
        ({"fresh": 1}, "fresh = 1: input should be a valid boolean"),
        ({"model": ""}, "model = '': it is empty"),
        ({"data": " "}, "data = ' ': it is empty"),
        ({"split": ""}, "split = '': it is empty"),
        ({"categories": ""}, "categories = '': it names nothing"),
        ({"categories": " , "}, "categories = ' , ': it names nothing"),
        ({"sample_id": ["a", ""]}, "sample_id = ['a', '']: it names nothing"),
        ({"model_args": {"x": float("nan")}}, "model_args = {'x': nan}: it cannot be written as JSON"),
        ({"model_args": {"x": {1}}}, "model_args = {'x': {1}}: it cannot be written as JSON"),
        ({"model": "mock/constant:\udcff"}, "it cannot be written as JSON in UTF-8"),
        ({"data": "\udcff"}, "it cannot be written as JSON in UTF-8"),
    ],
)
def test_a_value_out_of_range_names_the_field_and_the_value(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        make_config(fields)
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("fields", "fix"),
    [
        ({"limit": 0}, "limit takes a whole number of at least 1 (only the first so many samples)"),
        ({"top_p": 2.0}, "top_p takes a number above 0 and at most 1 (nucleus sampling"),
        ({"fresh": "yes"}, "fresh takes true or false ("),
        ({"model": ""}, "model: the model as backend/name"),
        ({"limit": 0, "nope": 1}, "(only the first so many samples); valid fields are task, model"),
    ],
)
def test_the_fix_says_what_is_valid(fields: dict[str, object], fix: str) -> None:
    with pytest.raises(UserError) as caught:
        make_config(fields)
    assert fix in (caught.value.fix or "")


def test_a_whole_number_is_a_number() -> None:
    assert make_config({"temperature": 1, "max_failures": 0}).temperature == 1.0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("task: a\ntasks: b\n", "'task' and 'tasks' are one field, and both are given"),
        ("max-tokens: 3\nmax_tokens: 4\n", "'max-tokens' and 'max_tokens' are one field"),
        ("1: x\n", "the key 1 is not text"),
        ("config: {1: x}\n", "the key 1 is not text"),
        ("limit: true\n", "limit = True: input should be a valid integer"),
        ("temperature: .inf\n", "temperature = inf: input should be a finite number"),
    ],
)
def test_a_yaml_value_that_is_another_than_meant_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    for read in (load_config, lambda path: merge(read_config_file(path), {"seed": 1}, source=str(path))):
        with pytest.raises(UserError) as caught:
            read(tmp_path / "c.yaml")
        assert f"in {tmp_path / 'c.yaml'}: {said}" in caught.value.message


def test_paths_are_recorded_so_that_they_hold_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_config({"data": "d", "include": "p.py", "ask": "file:maps/m.json", "images": "/i"})
    whole = config.with_absolute_paths()
    assert (whole.data, whole.images, whole.annotations) == (tmp_path / "d", Path("/i"), None)
    assert whole.output_dir == Path("results")  # runs are kept where the command is given, not where it once was
    assert whole.include == [str(tmp_path / "p.py")]
    assert whole.ask == f"file:{tmp_path}/maps/m.json"
    assert config.model_copy(update={"ask": "all"}).with_absolute_paths().ask == "all"
    assert whole.with_absolute_paths() == whole


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.json", "{", "not valid JSON"),
        ("c.yaml", "a: [", "not valid YAML"),
        ("c.toml", "a = ", "not valid TOML"),
        ("c.ini", "a = 1", "unknown kind of config file '.ini'"),
        ("c.json", "[1]", "holds a list"),
    ],
)
def test_a_file_that_is_no_config_is_one_message(tmp_path: Path, name: str, text: str, said: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=said):
        load_config(tmp_path / name)


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        load_config(tmp_path / "nowhere.yaml")


def test_the_parts_reach_data_and_sampling() -> None:
    config = make_config({"data": "d", "categories": "cat, dog", "samples": 4, "temperature": 1.0, "seed": 3})
    assert config.data_spec().root == Path("d")
    assert config.data_spec().categories == ("cat", "dog")
    assert config.sampling() == Sampling(temperature=1.0, top_p=1.0, max_tokens=1024, n=4, seed=3)
