"""What makes a checkpoint unusable is one message, before a sample is asked; never a traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.hf import HFBackend

Ask = Callable[..., list[Request]]
ZEBRA = {
    "id": 900,
    "content": "zebra",
    "single_word": False,
    "lstrip": False,
    "rstrip": False,
    "normalized": False,
    "special": False,
}


def edit(file: Path, changes: dict[str, Any]) -> None:
    """Put ``changes`` into a JSON file; a key ``a.b`` is ``b`` inside ``a``."""
    value = json.loads(file.read_text())
    for path, new in changes.items():
        *outer, last = path.split(".")
        part = value
        for key in outer:
            part = part[key]
        part[last] = new
    file.write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"text_config.num_attention_heads": 0}, "cannot be (loaded|built): ZeroDivisionError"),
        ("config.json", {"text_config.hidden_size": "192"}, "StrictDataclassFieldValidationError"),
        ("config.json", {"model_type": ["qwen2_vl"]}, "model_type in config.json is"),
        ("generation_config.json", {"eos_token_id": "<|im_end|>"}, "names the end token '<|im_end|>'"),
        ("preprocessor_config.json", {"patch_size": 0}, "cannot encode a question about an image: ZeroDivisionError"),
        ("preprocessor_config.json", {"patch_size": 7}, "cannot answer even a plain question .* RuntimeError"),
        ("preprocessor_config.json", {"merge_size": 1}, "cannot answer even a plain question .* RuntimeError"),
        ("preprocessor_config.json", {"image_mean": "x"}, "cannot encode a question about an image: ValueError"),
    ],
)
def test_a_config_that_describes_no_working_model(
    copy_of: Callable[..., Path], ask: Ask, file: str, changes: dict[str, Any], message: str
) -> None:
    folder = copy_of()
    edit(folder / file, changes)
    with pytest.raises(BackendError, match=message.replace("|im_end|", r"\|im_end\|")):
        list(HFBackend(str(folder), {}).generate(ask([(84, 84)])))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("generation_config.json", "[]", "cannot be loaded: TypeError"),
        ("preprocessor_config.json", "[]", "cannot be built: AttributeError"),
        ("tokenizer.json", "{}", "cannot be built: KeyError"),
        ("chat_template.jinja", "{% for x in %}", "cannot render a question: TemplateSyntaxError"),
        ("chat_template.jinja", "{{ messages[5]['role'].foo }}", "cannot render a question: UndefinedError"),
        ("chat_template.jinja", "{% for m in messages %}{{ m['content'] }}{% endfor %}", "leaves out the image"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(
    copy_of: Callable[..., Path], ask: Ask, file: str, content: str, message: str
) -> None:
    folder = copy_of()
    (folder / file).write_text(content)
    with pytest.raises(BackendError, match=message) as caught:
        list(HFBackend(str(folder), {}).generate(ask([(84, 84)])))
    assert caught.value.fix


def test_the_cause_is_kept_for_debugging(copy_of: Callable[..., Path]) -> None:
    folder = copy_of()
    edit(folder / "config.json", {"text_config.num_attention_heads": 0})
    with pytest.raises(BackendError) as caught:
        _ = HFBackend(str(folder), {}).model
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_template_that_refuses_one_question_fails_that_sample(copy_of: Callable[..., Path], ask: Ask) -> None:
    folder = copy_of()
    template = (folder / "chat_template.jinja").read_text()
    refusal = "{% if 'die' in messages[0]['content'][1]['text'] %}{{ raise_exception('no dice') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusal + template)
    completions = {item.sample_id: item for item in HFBackend(str(folder), {}).generate(ask([(84, 84)] * 3))}
    assert {name for name, item in completions.items() if item.error} == {"2:die"}
    assert completions["2:die"].error == "the prompt cannot be encoded: no dice"


def test_a_token_beyond_the_embedding_fails_its_samples(copy_of: Callable[..., Path], ask: Ask) -> None:
    folder = copy_of()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    edit(folder / "tokenizer.json", {"added_tokens": [*tokenizer["added_tokens"], ZEBRA]})
    requests = ask([(84, 84)] * 5, categories=("red circle", "zebra", "die"))
    found = {item.sample_id: item.error for item in HFBackend(str(folder), {}).generate(requests)}
    assert {name for name, error in found.items() if error} == {"1:zebra", "4:zebra"}
    assert found["1:zebra"] == "the model fails on it: IndexError: index out of range in self"
