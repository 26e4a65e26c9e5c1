"""Random tiny checkpoints of the three Qwen-VL architectures, saved as real ones are, and questions to ask them."""

from __future__ import annotations

import importlib.util
import io
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL

TINY = Path(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
PROFILE_OF = {"qwen2_vl": QWEN2_VL, "qwen2_5_vl": QWEN2_5_VL, "qwen3_vl": QWEN3_VL}
ARCHITECTURES = tuple(PROFILE_OF)
GREEDY = Sampling(max_tokens=24)


def text_config(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,  # the smallest that vLLM computes on a CPU
        "max_position_embeddings": 4096,
        "initializer_range": 0.2,
        "bos_token_id": None,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0},
    }


def random_model(model_type: str, tokenizer: Any) -> Any:
    import torch
    from transformers import (
        Qwen2_5_VLConfig,
        Qwen2_5_VLForConditionalGeneration,
        Qwen2VLConfig,
        Qwen2VLForConditionalGeneration,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
    )

    torch.manual_seed(0)
    text = text_config(tokenizer)
    if model_type == "qwen3_vl":
        text["rope_parameters"]["mrope_interleaved"] = True  # transformers knows; vLLM goes by the config
    else:
        del text["head_dim"]
    tokens = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    vision: dict[str, Any] = {"depth": 2, "num_heads": 2, "initializer_range": 0.2}
    if model_type == "qwen2_vl":
        vision |= {"embed_dim": 32, "hidden_size": 64}
        return Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens))
    if model_type == "qwen2_5_vl":
        vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "fullatt_block_indexes": [1]}
        return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **tokens))
    vision |= {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 48, "deepstack_visual_indexes": [0]}
    return Qwen3VLForConditionalGeneration(Qwen3VLConfig(text_config=text, vision_config=vision, **tokens))


def save_checkpoint(folder: Path, model_type: str) -> Path:
    """A folder with weights, configs, tokenizer and ``preprocessor_config.json``, as ``save_pretrained`` makes one."""
    from transformers import AutoTokenizer
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = random_model(model_type, AutoTokenizer.from_pretrained(str(TINY)))
    # What official checkpoints ship; a run must not be steered by it.
    model.generation_config.update(do_sample=True, temperature=0.01, top_k=1, top_p=0.001, repetition_penalty=1.3)
    model.save_pretrained(folder)
    for name in TOKENIZER_FILES:
        shutil.copy(TINY / name, folder / name)
    Qwen2VLImageProcessorPil(patch_size=16 if model_type == "qwen3_vl" else 14).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {name: save_checkpoint(tmp_path_factory.mktemp(name), name) for name in ARCHITECTURES}


@pytest.fixture(params=ARCHITECTURES)
def model_type(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def checkpoint(checkpoints: dict[str, Path], model_type: str) -> Path:
    return checkpoints[model_type]


@pytest.fixture
def copy_of(checkpoints: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """A Qwen2-VL folder of the test's own, without the files it names."""

    def make(*, without: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / "checkpoint"
        shutil.copytree(checkpoints["qwen2_vl"], folder, ignore=shutil.ignore_patterns(*without))
        return folder

    return make


def _load_server() -> ModuleType:
    spec = importlib.util.spec_from_file_location("openai_server", Path(__file__).with_name("openai_server.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["openai_server"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_SERVERS = _load_server()


@pytest.fixture
def serve() -> Iterator[Callable[..., Any]]:
    """Starts servers (see openai_server.py), which end with the test."""
    with ExitStack() as running:
        yield lambda script, models=None: running.enter_context(_SERVERS.OpenAIServer(script, models))


@pytest.fixture
def connect() -> Iterator[Callable[..., Any]]:
    """Makes openai backends that ask a server, which are closed with the test."""
    from vrft_bench.harness.models.openai import OpenAIBackend

    with ExitStack() as opened:

        def make(server: Any, **args: Any) -> OpenAIBackend:
            return opened.enter_context(closing(OpenAIBackend("served", server.args(**args))))

        yield make


@pytest.fixture
def ask() -> Callable[..., list[Request]]:
    """Requests for images of the given (width, height), each about one category, in a profile."""

    def make(
        sizes: list[tuple[int, int]],
        model_type: str = "qwen2_vl",
        *,
        sampling: Sampling = GREEDY,
        categories: tuple[str, ...] = ("red circle", "very small purple hippopotamus", "die"),
    ) -> list[Request]:
        task, profile = get_task("detection"), PROFILE_OF[model_type]
        requests = []
        for index, (width, height) in enumerate(sizes):
            stream = io.BytesIO()
            colour = (index * 53 % 256, index * 101 % 256, index * 197 % 256)
            picture = Image.new("RGB", (width, height), colour)
            picture.paste((255 - colour[0], 40, 90), (0, 0, max(1, width // 2), max(1, height // 3)))
            picture.save(stream, "PNG")
            category = categories[index % len(categories)]
            sample = Sample(
                f"{index}:{category}",
                ImageRef(width, height, data=stream.getvalue()),
                {"category": category, "image_id": str(index)},
                BoxTarget(()),
            )
            requests.append(Request(task, sample, 0, task.messages(sample, profile), profile, sampling))
        return requests

    return make
