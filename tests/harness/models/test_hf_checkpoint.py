"""A checkpoint is known by its content before its weights are read, and a bad one is told what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.fingerprint import fingerprint_folder, sha256_file
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))
PROFILE_OF = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}
CopyOf = Callable[..., Path]


def test_the_profile_is_chosen_by_the_config_and_no_weight_is_read(checkpoint: Path, model_type: str) -> None:
    backend = HFBackend(str(checkpoint), {})
    assert backend.profile() == PROFILE_OF[model_type]
    identity = backend.identity()
    assert identity["model_type"] == model_type
    assert identity["files"]["model.safetensors"] == sha256_file(checkpoint / "model.safetensors")
    assert not {"model", "processor"} & set(backend.__dict__)
    json.dumps(identity)


def test_pixel_limits_of_the_arguments_change_the_profile(checkpoints: dict[str, Path]) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"min_pixels": "50000", "max_pixels": 60_000})
    assert backend.profile() == replace(QWEN2_VL, min_pixels=50_000, max_pixels=60_000)
    assert backend.identity()["min_pixels"] == 50_000


def test_a_minimum_above_the_profiles_maximum_is_refused(checkpoints: dict[str, Path]) -> None:
    backend = HFBackend(str(checkpoints["qwen2_vl"]), {"max_pixels": 1000})
    with pytest.raises(UserError, match="min_pixels=3136 is above max_pixels=1000"):
        backend.profile()


def test_a_model_without_a_matching_profile_tells_none(copy_of: CopyOf) -> None:
    folder = copy_of()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "never_heard_of"}))
    assert HFBackend(str(folder), {}).profile() is None


def test_a_profile_of_a_plugin_counts_and_a_broken_one_hurts_nobody(
    copy_of: CopyOf, monkeypatch: pytest.MonkeyPatch
) -> None:
    PROFILES.names()
    monkeypatch.setattr(PROFILES, "_entries", dict(PROFILES._entries))
    PROFILES.register("aaa-broken", "no_such_module:PROFILE", source="package broken")
    PROFILES.register("mine", replace(QWEN2_VL, name="mine", model_types=("my_vl",)), source="package mine")
    folder = copy_of()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "my_vl"}))
    profile = HFBackend(str(folder), {}).profile()
    assert profile is not None
    assert profile.name == "mine"


def test_the_fingerprint_follows_content_and_not_provenance(copy_of: CopyOf) -> None:
    folder = copy_of()
    before = fingerprint_folder(folder)
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= set(before)
    for name in ("training.json", "trainer_state.json", "optimizer.pt", "rng_state_0.pth", "README.md"):
        (folder / name).write_text("{}")
    assert fingerprint_folder(folder) == before
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    after = fingerprint_folder(folder)
    assert {name for name in before if before[name] != after[name]} == {"model.safetensors"}


def test_the_same_content_elsewhere_is_the_same_model(copy_of: CopyOf, checkpoints: dict[str, Path]) -> None:
    copied, original = HFBackend(str(copy_of()), {}).identity(), HFBackend(str(checkpoints["qwen2_vl"]), {}).identity()
    assert {**copied, "name": ""} == {**original, "name": ""}


@pytest.fixture
def beside_tiny(copy_of: CopyOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory holds a checkpoint folder called ``tiny``."""
    folder = copy_of().rename(tmp_path / "tiny")
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.mark.parametrize("model", ["./tiny", "tiny/", "hf/./tiny", "{absolute}", "hf/{absolute}"])
def test_a_folder_called_tiny_is_not_taken_for_the_bundled_model(beside_tiny: Path, model: str) -> None:
    backend = load_backend(model.format(absolute=beside_tiny))
    assert backend.identity()["files"] == fingerprint_folder(beside_tiny)
    assert backend.identity()["name"] == "tiny"


def test_hf_tiny_is_the_bundled_model_even_beside_such_a_folder(beside_tiny: Path) -> None:
    assert load_backend("hf/tiny").identity()["files"] == fingerprint_folder(TINY) != fingerprint_folder(beside_tiny)


def test_tiny_alone_is_refused_where_it_may_mean_two_things(beside_tiny: Path) -> None:
    with pytest.raises(UserError, match="may mean the folder of that name or the model that ships") as caught:
        load_backend("tiny")
    assert caught.value.fix == "write ./tiny for the folder, hf/tiny for the bundled model"


def test_tiny_alone_is_told_the_bundled_models_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="names no backend and no folder") as caught:
        load_backend("tiny")
    assert "hf/tiny" in str(caught.value.fix)


@pytest.mark.parametrize("device", [None, "auto", "cpu", "cpu:0"])
def test_on_the_cpu_numbers_are_float32_and_batches_small(device: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    backend = HFBackend("tiny", {"device": device})
    assert (backend.dtype, backend.batch_size, backend.identity()["device"]) == ("float32", 16, "cpu")
    assert backend.device in ("cpu", "cpu:0")


@pytest.mark.parametrize(("given", "used"), [(None, "cuda"), ("auto", "auto"), ("cuda", "cuda"), ("cuda:1", "cuda:1")])
def test_on_a_gpu_numbers_are_bfloat16_and_batches_large(
    given: str | None, used: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    backend = HFBackend("tiny", {"device": given})
    assert (backend.device, backend.dtype, backend.batch_size) == (used, "bfloat16", 64)
    assert backend.identity()["device"] == "cuda"


@pytest.mark.parametrize(
    ("device", "gpus", "message"),
    [
        ("cuda", 0, "finds no CUDA GPU here"),
        ("cuda:2", 2, r"finds only 2 CUDA GPU\(s\) here"),
        ("gpu", 2, "'gpu' is not a device of torch"),
    ],
)
def test_a_device_that_is_not_here_is_a_users_mistake(
    device: str, gpus: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=message):
        HFBackend("tiny", {"device": device}).identity()


def test_batch_size_is_no_part_of_the_identity(checkpoints: dict[str, Path]) -> None:
    one, two = (HFBackend(str(checkpoints["qwen2_vl"]), {"batch_size": size}).identity() for size in (1, 64))
    assert one == two


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"batchsize": 4}, "no argument 'batchsize'; did you mean 'batch_size'"),
        ({"batch_size": 0}, "batch_size=0 is not a positive whole number"),
        ({"batch_size": "many"}, "batch_size='many' is not a positive whole number"),
        ({"dtype": "float8"}, "dtype='float8' is not known"),
        ({"trust_remote_code": "maybe"}, "neither true nor false"),
        ({"min_pixels": 200, "max_pixels": 100}, "min_pixels=200 is above max_pixels=100"),
    ],
)
def test_a_bad_argument_is_a_users_mistake(args: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        HFBackend("tiny", args)


def test_arguments_may_be_strings_as_the_command_line_gives_them() -> None:
    backend = HFBackend("tiny", {"batch_size": "4", "dtype": "bf16", "trust_remote_code": "True", "device": "cpu"})
    options = backend.options
    assert (options.batch_size, options.dtype, options.trust_remote_code) == (4, "bfloat16", True)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_folder_that_is_not_there_is_a_backend_error(name: str) -> None:
    with pytest.raises(BackendError, match="no such checkpoint folder"):
        HFBackend(name, {})


def test_a_hub_model_that_cannot_be_reached_is_a_backend_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackendError, match="the hub gave no such model"):
        HFBackend("someone/some-model", {})


def test_a_folder_without_config_is_told_so(copy_of: CopyOf) -> None:
    with pytest.raises(BackendError, match=r"no config\.json"):
        HFBackend(str(copy_of(without=("config.json",))), {})


def test_a_lora_adapter_is_told_to_be_merged(copy_of: CopyOf) -> None:
    folder = copy_of(without=("config.json",))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(BackendError, match="LoRA adapter") as caught:
        HFBackend(str(folder), {})
    assert "merge_and_unload" in str(caught.value.fix)


def test_a_folder_without_processor_fails_before_its_weights_are_read(
    copy_of: CopyOf, ask: Callable[..., list[Request]]
) -> None:
    backend = HFBackend(str(copy_of(without=("preprocessor_config.json", "model.safetensors"))), {})
    with pytest.raises(BackendError, match=r"no preprocessor_config\.json"):
        list(backend.generate(ask([(84, 84)])))


def test_a_folder_without_weights_is_a_backend_error(copy_of: CopyOf) -> None:
    backend = HFBackend(str(copy_of(without=("model.safetensors",))), {})
    with pytest.raises(BackendError, match="cannot be loaded"):
        _ = backend.model


def test_truncated_weights_are_a_backend_error(copy_of: CopyOf) -> None:
    folder = copy_of()
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BackendError, match="cannot be loaded"):
        _ = HFBackend(str(folder), {}).model


def test_weights_that_lack_a_tensor_are_refused_and_not_made_up(copy_of: CopyOf) -> None:
    from safetensors.torch import load_file, save_file

    folder = copy_of()
    tensors = load_file(folder / "model.safetensors")
    dropped = next(name for name in tensors if name.endswith("k_proj.weight"))
    del tensors[dropped]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BackendError, match="lack 1 tensors"):
        _ = HFBackend(str(folder), {}).model


def test_without_transformers_the_install_command_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "transformers" else real(name, *rest)
    )
    with pytest.raises(UserError, match="needs transformers") as caught:
        HFBackend("tiny", {})
    assert caught.value.fix == "pip install 'vrft-bench[hf]'"
