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
    ],
)
def test_a_value_out_of_range_names_the_field_and_the_value(fields: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        make_config(fields)
    assert said in caught.value.message


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
