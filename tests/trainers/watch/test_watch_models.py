"""Checkpoints that lack something to be evaluated: files of their base, or all of it but adapters."""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.provenance import RECORD
from vrft_bench.trainers.watch_models import make_evaluable

pytestmark = pytest.mark.usefixtures("sample_cache")
TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))


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
            "watch", "ckpt", "-t", "coco_fewshot", "--ask", "present", "-L", "8", "--base", "tiny", "--once",
            "--settle", "0", "--json",
        )  # fmt: skip
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
            "watch", "foreign", "-t", "coco_fewshot", "-L", "4", "--max-tokens", "48", "--once", "--settle", "0",
            "--json",
        )  # fmt: skip
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
