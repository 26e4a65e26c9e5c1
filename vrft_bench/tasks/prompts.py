"""The questions, worded once, with the coordinates described in the convention of the model that is asked."""

from __future__ import annotations

from vrft_bench.tasks.coordinates import Frame, ModelProfile

_UNITS = {
    "norm_1000": "integers from 0 to 1000, relative to the width and height of the image",
    "abs_resized": "integers, in pixels of the image",
    "norm_1": "numbers from 0 to 1, relative to the width and height of the image",
    "abs_original": "numbers, in pixels of the image, which is {width} wide and {height} high",
}


def detection_prompt(category: str, frame: Frame) -> str:
    """Ask for every object of one category, with a confidence each, or ``No Objects``."""
    name = category.replace("_", " ")
    box = _box_names(frame.profile)
    return (
        f"Find every '{name}' in the image. Give each one a bounding box [{', '.join(box)}] "
        f"({_units(frame)}) and a confidence between 0 and 1 with two decimals. "
        f"If there is no '{name}' in the image, answer No Objects.\n"
        + _layout(frame.profile, f"[{{'Position': [{', '.join(box)}], 'Confidence': number}}, ...]")
    )


def region_prompt(instruction: str, frame: Frame) -> str:
    """Ask for the bounding box of the one region that an instruction refers to."""
    a, b, c, d = _box_names(frame.profile)
    return (
        f"Find the one region of the image that this refers to: {instruction}\n"
        f"Give its bounding box as ({a},{b}),({c},{d}) ({_units(frame)}).\n"
        + _layout(frame.profile, f"({a},{b}),({c},{d})")
    )


def classification_prompt(subject: str, options: str, profile: ModelProfile) -> str:
    """Ask which of the options ``subject`` (such as "species of the flower") is."""
    return f"What is the {subject} in the image? It is one of: {options}.\n" + _layout(profile, "name")


def _units(frame: Frame) -> str:
    return _UNITS[frame.profile.convention].format(width=frame.width, height=frame.height)


def _box_names(profile: ModelProfile) -> tuple[str, str, str, str]:
    return ("y1", "x1", "y2", "x2") if profile.axes == "yxyx" else ("x1", "y1", "x2", "y2")


def _layout(profile: ModelProfile, answer: str) -> str:
    opening, closing = profile.think_tags
    return f"Think first, then answer, in exactly this form:\n{opening} ... {closing}\n<answer>{answer}</answer>"
