"""Completions per second of the strict detection scorer, and of the reference implementation as PAPER.md describes it.

    OMP_NUM_THREADS=1 python benchmarks/scoring.py [--completions 4000]

An answer has 1 to 10 boxes after a thought of 100 tokens. Timed in CPU seconds on one core, best of five:

* ``parse + judge``: what an evaluation and a trainer in the same process call;
* ``score``: the portable reward, which reads the ground truth from JSON as well. Each prompt has 8 completions in a row
  (the group size of GRPO), as a trainer has them;
* the reference: accuracy of the boxes and of the confidences each parse completion and solution with math-verify first,
  and compare boxes only where that does not say 1.0; format is a regular expression. Written from the description, with
  the paper's way of repairing and matching. It is run on a part of the completions.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box, Frame
from vrft_bench.tasks.profiles import QWEN2_VL

WANTED_RATE, WANTED_RATIO = 25_000, 100
GROUP = 8
WIDTH, HEIGHT = 640, 480
_THOUGHT = (
    "the image shows a red car on left side of street and dog near it so box must cover whole animal which is clearly "
    "visible in front behind them , but not partly hidden person ."
)


@dataclass(frozen=True)
class Case:
    """One completion and its truth: as objects, as the portable JSON, and as the training data's solution."""

    completion: str
    frame: Frame
    target: BoxTarget
    ground_truth: str
    solution: str


def cases(count: int, rng: random.Random) -> list[Case]:
    """Completions that find four objects of five, a little off, and invent a box now and then."""
    task = get_task("coco_fewshot")
    frame = Frame(QWEN2_VL, WIDTH, HEIGHT)
    image, fields = ImageRef(WIDTH, HEIGHT), {"category": "dog", "image_id": "1"}
    tokens = _THOUGHT.split()
    found: list[Case] = []
    while len(found) < count:
        truths = [_box(rng) for _ in range(rng.randint(1, 10))]
        target = BoxTarget(tuple(truths))
        ground_truth = task.ground_truth(Sample("1:dog", image, fields, target), frame)
        solution = _answer([(frame.to_model(box), 1) for box in truths])
        for _ in range(GROUP):
            boxes = [frame.to_model(tuple(v + rng.gauss(0, 4) for v in box)) for box in truths if rng.random() < 0.8]
            boxes += [frame.to_model(_box(rng)) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
            boxes = boxes[:10] or [frame.to_model(truths[0])]
            thought = " ".join(rng.choice(tokens) for _ in range(100))
            answer = _answer([(box, round(rng.random(), 2)) for box in boxes])
            text = f"<think>{thought}</think>\n{answer}"
            found.append(Case(text, frame, target, ground_truth, solution))
    return found[:count]


def _box(rng: random.Random) -> Box:
    x, y = rng.uniform(0, WIDTH - 150), rng.uniform(0, HEIGHT - 130)
    return x, y, x + rng.uniform(30, 150), y + rng.uniform(30, 130)


def _answer(boxes: list[tuple[tuple[float, ...], float]]) -> str:
    elements = ", ".join(f"{{'Position': {list(box)}, 'Confidence': {confidence}}}" for box, confidence in boxes)
    return f"<answer>[{elements}]</answer>"


class Reference:
    """The paper's three detection rewards, from the description in PAPER.md section 3."""

    def __init__(self) -> None:
        from math_verify import parse, verify

        self._parse: Callable[..., Any] = parse
        self._verify: Callable[..., Any] = verify

    def __call__(self, case: Case) -> tuple[float, float, float]:
        keeps = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", case.completion, re.DOTALL)
        return self._boxes(case, _iou_of), self._boxes(case, _confidence_of), float(keeps is not None)

    def _boxes(self, case: Case, reward: Callable[[Any, Any], float]) -> float:
        if self._is_symbolically_right(case):
            return 1.0
        try:
            return reward(_list(case.completion), _list(case.solution))
        except (ValueError, LookupError, TypeError, AttributeError):
            return 0.0

    def _is_symbolically_right(self, case: Case) -> bool:
        answer = self._parse(case.completion)
        return float(self._verify(answer, self._parse(case.solution))) > 0


def _list(text: str) -> list[dict[str, Any]]:
    match = re.search(r"<answer>(.*?)</answer>", text)
    content = (match.group(1) if match else text).strip().replace("[[", "[").replace("]]", "]").replace("\n", "")
    if not content.endswith("]"):
        content = content.rsplit("},", 1)[0] + "}]"
    value: list[dict[str, Any]] = json.loads(content.replace("'", '"'))
    return list({tuple(item["Position"]): item for item in reversed(value)}.values())[::-1]


def _matches(found: list[dict[str, Any]], truth: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """(IoU if matched, else 0; confidence) of each box, the most confident first."""
    free = [tuple(item["Position"]) for item in truth]
    result = []
    for item in sorted(found, key=lambda item: -item["Confidence"]):
        overlaps = [iou(tuple(item["Position"]), box) for box in free]
        best = max(overlaps, default=0.0)
        if best > 0.5:
            free.pop(overlaps.index(best))
        result.append((best if best > 0.5 else 0.0, item["Confidence"]))
    return result


def _iou_of(found: list[dict[str, Any]], truth: list[dict[str, Any]]) -> float:
    return sum(overlap for overlap, _ in _matches(found, truth)) / max(len(found), len(truth))


def _confidence_of(found: list[dict[str, Any]], truth: list[dict[str, Any]]) -> float:
    terms = [stated if overlap else 1 - stated for overlap, stated in _matches(found, truth)]
    return min(max(sum(terms) / len(terms), 0.0), 1.0)


def rate(work: Callable[[], object], count: int, repeats: int = 5) -> float:
    """Completions per CPU second, the best of ``repeats``."""
    best = float("inf")
    for _ in range(repeats):
        begin = time.process_time()
        work()
        best = min(best, time.process_time() - begin)
    return count / best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--completions", type=int, default=4000)
    parser.add_argument("--reference", type=int, default=400, help="completions that the reference scores")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    items = cases(options.completions, random.Random(options.seed))
    task = get_task("coco_fewshot")
    judged = rate(
        lambda: [task.judge(task.parse(case.completion, case.frame), case.target) for case in items], len(items)
    )
    scored = rate(lambda: [task.score(case.completion, case.ground_truth) for case in items], len(items))
    reference = Reference()
    few = items[:: max(len(items) // options.reference, 1)]
    theirs = rate(lambda: [reference(item) for item in few], len(few), repeats=2)
    print(f"parse + judge  {judged:10,.0f} completions/s  (wanted: {WANTED_RATE:,})")
    print(f"score          {scored:10,.0f} completions/s")
    print(f"reference      {theirs:10,.0f} completions/s")
    print(f"ours / reference: {judged / theirs:.0f}x and {scored / theirs:.0f}x  (wanted: {WANTED_RATIO}x)")


if __name__ == "__main__":
    main()
