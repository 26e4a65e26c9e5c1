"""The questions in the paper's own words, to the character; a rewording would ask the trained checkpoints another one.

The evaluation scripts put a literal ``<image>`` and a line break before the text, beside the real image; the training
data do not. Grounding is evaluated with a system prompt (the one of open-r1, Apache-2.0) and trained without.
"""

from __future__ import annotations

IMAGE_MARK = "<image>\n"
"""What the detection and classification scripts put before the question."""

SYSTEM_PROMPT = (
    "A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The assistant "
    "first thinks about the reasoning process in the mind and then provides the user with the answer. The reasoning "
    "process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, i.e., "
    "<think> reasoning process here </think><answer> answer here </answer>"
)

_TAGS = (
    "Output the thinking process in <think> </think> and final answer in <answer> </answer> tags."
    "The output answer format should be as follows:\n"
)
_STRICTLY = "\nPlease strictly follow the format."


def detection_prompt(category: str) -> str:
    """``category`` as the data name it: LVIS's underscores stay."""
    return (
        f"Detect all objects belonging to the category '{category}' in the image, and provide the bounding boxes "
        "(between 0 and 1000, integer) and confidence (between 0 and 1, with two decimal places).\n"
        f"If no object belonging to the category '{category}' in the image, return 'No Objects'.\n"
        f"{_TAGS}<think> ... </think> <answer>[{{'Position': [x1, y1, x2, y2], 'Confidence': number}}, ...]</answer>"
        f"{_STRICTLY}"
    )


def classification_prompt(kind: str, sought: str) -> str:
    """``kind`` with its article ("an aircraft") and what is ``sought`` of it ("model of the aircraft").

    The class names are not listed.
    """
    return (
        f"This is an image containing {kind}. Please identify the {sought} based on the image.\n"
        f"{_TAGS}<think> ... </think> <answer>species name</answer>{_STRICTLY}"
    )


def grounding_prompt(instruction: str) -> str:
    """With the paper's spelling and its stray parenthesis."""
    return (
        f"Output the bounding box in the image corresponding to the instruction: {instruction}. Output the thinking "
        'process in <think> </think> and your grouding box. Following "<think> thinking process </think>\n'
        '<answer>(x1,y1),(x2,y2)</answer>)" format.'
    )
