"""The slowest input of up to 1 MB that we can find, for parsing and all rewards of every task family.

    OMP_NUM_THREADS=1 python benchmarks/adversarial.py [--examples 300] [--protocol strict]

Three sources: inputs made by hand; inputs that ``benchmarks/fuzz_scoring.py`` found, guided by coverage and by cost,
and wrote to ``benchmarks/slow_inputs.json`` as recipes; and a search of its own, in which hypothesis composes inputs of
a beginning, a repeated unit and an end, and is steered towards those that take long. Times are CPU milliseconds, the
best of three; memory is the peak that Python allocated, as a multiple of the input's size; each of the two is that of
the family where it is worst. Symbolic verification (protocol ``paper``) is left out: ``benchmarks/fuzz_symbolic.py``
times it.
"""

from __future__ import annotations

import argparse
import json
import time
import tracemalloc
from pathlib import Path
from typing import NamedTuple
from unittest import mock

from hypothesis import HealthCheck, Phase, given, settings, target
from hypothesis import strategies as st

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget, Target, Task
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.profiles import QWEN2_VL

SIZE = 1_000_000
WANTED_MS = 50
SLOW_INPUTS = Path(__file__).with_name("slow_inputs.json")
FRAME = Frame(QWEN2_VL, 640, 480)
ELEMENT = "{'Position': [100, 100, 500, 500], 'Confidence': 0.9}"
SHORT = "{'bbox':[0,0,9,9]}"
ANSWER = "<think>a</think><answer>"
# Boxes that all overlap, so that every predicted box may stand for each of them.
CROWDED = tuple((60.0 + shift, 45.0 + shift, 320.0 + shift, 240.0 + shift) for shift in range(0, 30, 3))
TARGETS: dict[str, Target] = {
    "coco_fewshot": BoxTarget(CROWDED, crowd=((0.0, 0.0, 400.0, 300.0),)),
    "flower102_fewshot": ClassTarget("rose", ("a rose", "red rose")),
    "lisa_grounding": MaskTarget((60.0, 45.0, 320.0, 240.0), ((60.0, 45.0, 320.0, 45.0, 320.0, 240.0),)),
}


class Shape(NamedTuple):
    """A text of any size: a beginning, a unit repeated to fill it, and an end.

    Each ``#`` in the unit becomes the number of the repetition, so that boxes can differ.
    """

    begin: str
    unit: str
    end: str

    def text(self, size: int) -> str:
        room = max(size - len(self.begin) - len(self.end), 0)
        if "#" not in self.unit:
            return self.begin + self.unit * (room // len(self.unit)) + self.end
        units: list[str] = []
        while (room := room - len(unit := self.unit.replace("#", str(len(units))))) >= 0:
            units.append(unit)
        return self.begin + "".join(units) + self.end


THOUSAND = ", ".join(f"{{'Position': [{n % 50 + 75}, {n % 50 + 75}, 500, 500], 'Confidence': 0.9}}" for n in range(999))
EQUAL_HASHES = ",".join(f"{{'Position':[{n * (2**61 - 1)},0,9,9],'Confidence':1}}" for n in range(16_000))

HAND_MADE = {
    "as many boxes as are read": Shape(ANSWER + f"[{THOUSAND}, {ELEMENT}", " ", "]</answer>"),
    "as many boxes as are read, without an end": Shape(ANSWER + f"[{THOUSAND}, {ELEMENT}", " ", "</answer>"),
    "as many tags as are read": Shape("<think>" * 500, "a", "</think>" + "<answer></answer>" * 200),
    "open brackets": Shape("", "[", ""),
    "open brackets in an answer": Shape(ANSWER, "[", "</answer>"),
    "open braces": Shape(ANSWER, "{", "</answer>"),
    "braces": Shape(ANSWER + "[", "{},", "]</answer>"),
    "opening tags": Shape("", "<answer>", ""),
    "pairs of answer tags": Shape("", "<answer></answer>", ""),
    "pairs of thinking tags": Shape("", "<think></think>", ""),
    "thoughts in one another": Shape("", "<think>", ANSWER),
    "less-than signs": Shape("<think>", "<", "</think><answer>x</answer>"),
    "fences": Shape("", "```", ""),
    "fences in an answer": Shape(ANSWER, "```\n", "</answer>"),
    "white space": Shape(ANSWER, " ", "</answer>"),
    "words": Shape(ANSWER, "a ", "</answer>"),
    "white space after a key": Shape(ANSWER + "[{'Position'", " ", "</answer>"),
    "white space in a list": Shape(ANSWER + "[{'Position': [1,", " ", "2, 3, 4]}]</answer>"),
    "keys without values": Shape(ANSWER + "[{", "'Position' ", "}]</answer>"),
    "keys with values": Shape(ANSWER + "[{", "'a':1,", "'Position':[1,2,3,4]}]</answer>"),
    "a list of many numbers": Shape(ANSWER + "[{'Position': [1", ",1", "]}]</answer>"),
    "corners": Shape(ANSWER, "(1,2),(3,4)", "</answer>"),
    "half corners": Shape(ANSWER, "(1,2),", "</answer>"),
    "white space between corners": Shape(ANSWER + "(1,2)", " ", "(3,4)</answer>"),
    "a long number": Shape(ANSWER + "[{'Position': [", "9", ", 1, 2, 3]}]</answer>"),
    "a long fraction": Shape(ANSWER + "[{'Position': [0.", "9", ", 1, 2, 3]}]</answer>"),
    "equal boxes": Shape(ANSWER + f"[{ELEMENT}", f", {ELEMENT}", "]</answer>"),
    "boxes that all match": Shape(
        ANSWER + f"[{ELEMENT}", ",{'Position':[100.#1,90,500,500],'Confidence':1}", "]</answer>"
    ),
    "boxes that almost match": Shape(
        ANSWER + f"[{ELEMENT}", ",{'Position':[300.#1,90,500,500],'Confidence':0}", "]</answer>"
    ),
    "boxes read twice, for a repair inside of a text": Shape(
        ANSWER + "[{'Position':[1,2,3,4],'Confidence':1,'note':', ...'}",
        ",{'Position':[#,90,500,500],'Confidence':0.9}",
        "]</answer>",
    ),
    "one odd box, last among plain ones": Shape(
        ANSWER + f"[{ELEMENT}",
        ",{'Position':[#,90,500,500],'Confidence':0.9}",
        ",{'Position':['1',2,3,4],'Confidence':0.9}]</answer>",
    ),
    "one huge number, last among plain ones": Shape(
        ANSWER + f"[{ELEMENT}",
        ",{'Position':[#,1,2,3],'Confidence':1}",
        f",{{'Position':[{'9' * 400},2,3,4],'Confidence':1}}]</answer>",
    ),
    "one confidence in quotes, last among plain ones": Shape(
        ANSWER + f"[{ELEMENT}",
        ",{'Position':[#,90,500,500],'Confidence':0.9}",
        ",{'Position':[1,2,3,4],'Confidence':'.9'}]</answer>",
    ),
    "boxes of large floats": Shape(
        ANSWER + f"[{ELEMENT}", ",{'Position':[#e200,-1e300,1e300,1e250],'Confidence':1e99}", "]</answer>"
    ),
    "boxes of large whole floats": Shape(
        ANSWER + f"[{ELEMENT}", ",{'Position':[#e16,1e17,3e17,4e18],'Confidence':0.9}", "]</answer>"
    ),
    "boxes with equal hashes": Shape(ANSWER + f"[{EQUAL_HASHES}", " ", "]</answer>"),
    "short boxes": Shape(ANSWER + f"[{SHORT}", f",{SHORT}", "]</answer>"),
    "boxes without an end": Shape(ANSWER + f"[{ELEMENT}", f", {ELEMENT}", "</answer>"),
    "broken boxes": Shape(ANSWER + "[", "{'Position': [1, 2, 3, }, ", "]</answer>"),
    "lists of numbers": Shape(ANSWER + "[", "[1,2,3,4],", "[1,2,3,4]]</answer>"),
    "a box without tags": Shape(f"[{ELEMENT}", f", {ELEMENT}", "]"),
    "combining marks": Shape(ANSWER, "\u0301", "</answer>"),
    "wide letters": Shape(ANSWER, "\ufdfa", "</answer>"),
    "quotes": Shape(ANSWER, "'", "</answer>"),
    "escapes": Shape(ANSWER + '[{"a": "', "\\u0041", '"}]</answer>'),
}
PIECES = (
    *("<think>", "</think>", "<answer>", "</answer>", "<", "```", "\n", " ", "[", "]", "{", "}", "(", ")", ",", ":"),
    *("'", '"', "\\", "'Position'", "'Position': [", "'Confidence': ", "[1, 2, 3, 4]", "[1,2,3,4],", "(1,2),(3,4)"),
    *(
        "1",
        "-",
        ".5",
        "1e999",
        "NaN",
        "No Objects",
        "a",
        "é",
        "\u0301",
        "#",
        "(#,2)",
        ", ...",
        "true",
        "2305843009213693951",
    ),
    *(ELEMENT, SHORT, ELEMENT + ", ", SHORT + ",", "{'Position':[100.#1,90,500,500],'Confidence':.#1},"),
    *("{'Position': [#, 1, 900, 900], 'Confidence': 1}, ", "[{", "}]", "'a':1,", "'#':1,", "1,", ANSWER),
)
"""What inputs are composed of: the words of answers, whole boxes, and what is near them."""

_SHAPES = st.builds(
    Shape,
    st.sampled_from(["", ANSWER, ANSWER + "[", ANSWER + "[{"])
    | st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
    st.sampled_from(["", "</answer>", "]</answer>", "}]</answer>"])
    | st.lists(st.sampled_from(PIECES), max_size=4).map("".join),
)


def found_by_fuzzing(protocol: str) -> dict[str, Shape]:
    """The recipes that the fuzzer kept, by a name that says for what."""
    kept = [item for item in json.loads(SLOW_INPUTS.read_text(encoding="utf-8")) if item["protocol"] == protocol]
    return {f"fuzzed {number}: {item['task']}": Shape(*item["shape"]) for number, item in enumerate(kept, 1)}


def milliseconds(task: Task, text: str, repeats: int = 3) -> float:
    """CPU time of parsing and judging ``text``."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        task.judge(task.parse(text, FRAME), TARGETS[task.name])
        best = min(best, time.process_time() - begin)
    return best * 1000


def memory(task: Task, text: str) -> float:
    """Peak allocation while parsing and judging, over the size of the text."""
    tracemalloc.start()
    task.judge(task.parse(text, FRAME), TARGETS[task.name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / max(len(text.encode()), 1)


def without_symbolic_verification() -> mock._patch[mock.Mock]:
    """A context in which the paper's rewards compare boxes and labels only."""
    return mock.patch("vrft_bench.tasks.paper.rewards.verified", return_value=False)


def searched(tasks: list[Task], examples: int) -> tuple[float, str, Shape]:
    """The slowest input that hypothesis finds: its milliseconds, the task and the shape."""
    worst = (0.0, "", Shape("", "a", ""))

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.target],
        suppress_health_check=list(HealthCheck),
    )
    @given(_SHAPES)
    def look(shape: Shape) -> None:
        nonlocal worst
        text = shape.text(SIZE)
        for task in tasks:
            cost = milliseconds(task, text, repeats=1)
            if cost > worst[0]:
                cost = min(cost, milliseconds(task, text))
                worst = max(worst, (cost, task.name, shape))
            target(cost, label=task.name)

    look()
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--examples", type=int, default=300, help="how many inputs the search tries")
    parser.add_argument("--protocol", choices=("strict", "paper"), default="strict")
    options = parser.parse_args()
    tasks = [get_task(name, options.protocol) for name in TARGETS]
    rows = []
    with without_symbolic_verification():
        for name, shape in (HAND_MADE | found_by_fuzzing(options.protocol)).items():
            text = shape.text(SIZE)
            slowest = max((milliseconds(task, text), task.name) for task in tasks)
            rows.append((*slowest, max(memory(task, text) for task in tasks), name))
        cost, task_name, shape = searched(tasks, options.examples)
    print("      ms   memory  task                input")
    for milli, name, multiple, label in sorted(rows, reverse=True):
        print(f"{milli:8.1f} {multiple:7.1f}x  {name:18}  {label}")
    print(f"{cost:8.1f}           {task_name:18}  found by search: {shape}")
    worst = max(cost, *(row[0] for row in rows))
    print(f"worst of all: {worst:.1f} ms  (wanted: {WANTED_MS} ms on a quiet core)")


if __name__ == "__main__":
    main()
