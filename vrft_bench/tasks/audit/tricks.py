"""Tricks: completions that should earn nothing, or no more than the most common truth does, and what all tasks share.

A *blind* trick writes the same whatever the image shows; what it earns can be had without looking. A trick that is not
blind is given the truth and puts it where it is no answer, or under confidences that should cost it: what it earns
beyond its bound comes from the format and not from the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vrft_bench.tasks.base import Sample, Task
from vrft_bench.tasks.coordinates import Frame

Writer = Callable[[Sample, Frame], str]


@dataclass(frozen=True, slots=True)
class Trick:
    """One way to cheat: ``write`` gives the completion for a sample. ``family`` groups tricks of one idea.

    ``at_most`` is on how many samples it is tried, where that takes long.
    """

    name: str
    family: str
    write: Writer
    blind: bool = True
    at_most: int | None = None


def constant(name: str, family: str, text: str, *, at_most: int | None = None) -> Trick:
    """The same text for every sample."""
    return Trick(name, family, lambda _sample, _frame: text, at_most=at_most)


def answer(content: str, thought: str = "I answer without looking.") -> str:
    """A completion in the asked layout."""
    return f"<think>{thought}</think>\n<answer>{content}</answer>"


def common_tricks(task: Task) -> list[Trick]:
    """What can be tried on any task: nothing at all, broken layouts, the truth where it is no answer, sheer size."""

    def gold(sample: Sample, frame: Frame) -> str:
        return task.gold(sample, frame)

    def gold_answer(sample: Sample, frame: Frame) -> str:
        text = gold(sample, frame)
        return text[text.index("<answer>") + len("<answer>") : text.rindex("</answer>")]

    def hidden(name: str, template: Callable[[str], str]) -> Trick:
        return Trick(
            name, "truth that is no answer", lambda sample, frame: template(gold_answer(sample, frame)), blind=False
        )

    return [
        constant("empty completion", "nothing", ""),
        constant("empty answer", "nothing", answer("")),
        constant("white space", "nothing", answer("   \n\t ")),
        constant("tags only", "nothing", "<answer></answer>"),
        constant("nested tags", "broken layout", "<answer>" * 50 + "</answer>" * 50),
        constant("unclosed tags", "broken layout", "<think><answer><think><answer>"),
        constant("a million brackets", "size", answer("[" * 1_000_000), at_most=4),
        constant("a million tags", "size", "<answer>" * 125_000, at_most=4),
        constant("a megabyte of braces", "size", answer("{'Position': [" * 70_000), at_most=4),
        hidden("truth in the thought", lambda text: f"<think>{text}</think>\n<answer></answer>"),
        hidden("tagged truth in the thought", lambda text: f"<think><answer>{text}</answer></think>"),
        hidden("truth before an empty answer", lambda text: f"{text}\n<answer></answer>"),
        hidden("truth in the first of two answers", lambda text: f"{answer(text)}{answer('nothing of the kind')}"),
        hidden("truth after the answer", lambda text: f"{answer('nothing of the kind')}\n{text}"),
        hidden("truth in a sentence", lambda text: answer(f"It could be anything, even {text}, or not.")),
    ]
