"""The paper's questions, to the character."""

from __future__ import annotations

import pytest

from vrft_bench.registry import PROFILES, TASK_GROUPS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import ImageRef, MaskTarget, Sample

QWEN = PROFILES.get("qwen2-vl")


def asked(name: str, **fields: str) -> tuple[str, list[dict]]:
    task = get_task(name, "paper")
    sample = Sample("1", ImageRef(10, 10), fields, MaskTarget((0.0, 0.0, 1.0, 1.0), ()))
    return task.prompt(sample, QWEN), task.messages(sample, QWEN)


def test_the_detection_prompt_is_the_papers_and_keeps_underscores() -> None:
    text, messages = asked("lvis_fewshot", category="kitchen_table")
    assert text == (
        "Detect all objects belonging to the category 'kitchen_table' in the image, and provide the bounding boxes "
        "(between 0 and 1000, integer) and confidence (between 0 and 1, with two decimal places).\n"
        "If no object belonging to the category 'kitchen_table' in the image, return 'No Objects'.\n"
        "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
        "The output answer format should be as follows:\n"
        "<think> ... </think> <answer>[{'Position': [x1, y1, x2, y2], 'Confidence': number}, ...]</answer>\n"
        "Please strictly follow the format."
    )
    (message,) = messages
    assert message["role"] == "user"
    assert message["content"] == [{"type": "image"}, {"type": "text", "text": "<image>\n" + text}]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("flower102_fewshot", "a plant. Please identify the species of the plant"),
        ("pets37_fewshot", "a pet. Please identify the species of the pet"),
        ("fgvc_aircraft_fewshot", "an aircraft. Please identify the model of the aircraft"),
        ("cars196_fewshot", "a car. Please identify the model of the car"),
    ],
)
def test_each_classification_prompt_names_its_subject_and_no_options(name: str, first: str) -> None:
    text, messages = asked(name, options="a, b")
    assert text == (
        f"This is an image containing {first} based on the image.\n"
        "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
        "The output answer format should be as follows:\n"
        "<think> ... </think> <answer>species name</answer>\nPlease strictly follow the format."
    )
    assert messages[0]["content"][1]["text"] == "<image>\n" + text
    assert name in TASK_GROUPS["fewshot_classification"]


def test_the_grounding_prompt_keeps_its_errors_and_is_evaluated_with_a_system_prompt_only() -> None:
    text, messages = asked("lisa_grounding", instruction="what keeps the rain off?")
    assert text == (
        "Output the bounding box in the image corresponding to the instruction: what keeps the rain off?. Output the "
        'thinking process in <think> </think> and your grouding box. Following "<think> thinking process </think>\n'
        '<answer>(x1,y1),(x2,y2)</answer>)" format.'
    )
    system, user = messages
    assert system["role"] == "system"
    assert system["content"].startswith("A conversation between User and Assistant.")
    assert system["content"].endswith("<think> reasoning process here </think><answer> answer here </answer>")
    assert user["content"] == [{"type": "image"}, {"type": "text", "text": text}]
