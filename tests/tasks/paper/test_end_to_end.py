"""From text to AP on real annotations: the paper's evaluation as a few lines over pycocotools, and the task's own."""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
from pathlib import Path

import pytest

from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.coordinates import Frame


def completion(stream: random.Random, positions: list[list[int]]) -> str:
    """An answer that is partly right, in one of the forms that models write."""

    def box():
        if positions and stream.random() < 0.7:
            return [value + stream.randint(-25, 25) for value in stream.choice(positions)]
        x, y = stream.randint(0, 900), stream.randint(0, 900)
        return [x, y, x + stream.randint(-50, 300), y + stream.randint(-50, 300)]

    stated = ["0.5", "0.75", "0.9", "1", "1.0", "-2", "37", "Infinity", "NaN", "1e3"]
    items = [f"{{'Position': {box()}, 'Confidence': {stream.choice(stated)}}}" for _ in range(stream.randint(1, 5))]
    if stream.random() < 0.2:
        items.insert(stream.randint(0, len(items)), stream.choice(["{'Position': [1, 2, 3], 'Confidence': 1}", "{}"]))
    if stream.random() < 0.2:
        items.append(stream.choice(items))
    content = f"[{', '.join(items)}]"
    forms = [
        f"<think>a</think> <answer>{content}</answer>",
        f"<think>a\nb</think>\n<answer>\n{content}\n</answer>",
        f"<answer>[{content}]</answer>",
        f"<answer>{content[:-1]}, ...]</answer>",
        f"<answer>{content[: -stream.randint(1, 40)]}</answer>",
        content,
        f"<think>a</think><answer>{content}",
        f"<answer>{content}</answer> or <answer>[]</answer>",
        "<answer>No Objects</answer>",
        "<answer>[]</answer>",
    ]
    return stream.choices(forms, weights=[6, 3, 2, 2, 2, 2, 1, 1, 1, 1])[0]


def results(text: str, image: dict, category: int) -> list[dict]:
    """PAPER.md's description of the evaluation, step by step."""
    for old, new in (("[[", "["), ("]]", "]"), ("\n", ""), (", ...", "")):
        text = text.replace(old, new)
    match = re.search(r"<answer>(.*?)</answer>", text)
    text = f"<answer>{(match.group(1) if match else text).strip()}</answer>"
    content = text[len("<answer>") : text.index("</answer>")]
    if not content.endswith("]"):
        content = content.rsplit("},", 1)[0] + "}]"
    found: list[dict] = []
    try:
        items = json.loads(content.replace("'", '"'))
        if isinstance(items[0], str):
            return []
        seen, kept = set(), []
        for item in items:
            if (key := tuple(item["Position"])) not in seen:
                seen.add(key)
                kept.append(item)
        for item in kept:
            x1, y1, x2, y2 = (
                value / 1000.0 * image[side]
                for value, side in zip(item["Position"], ("width", "height") * 2, strict=True)
            )
            found.append(
                {
                    "image_id": image["id"],
                    "category_id": category,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": item["Confidence"],
                }
            )
    except (LookupError, TypeError, ValueError):
        pass
    return found


@pytest.mark.parametrize("seed", range(4))
def test_ap_of_texts_equals_the_references_pipeline_over_pycocotools(tinycoco: Path, seed: int) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    (path,) = (tinycoco / "annotations").glob("*train*.json")
    document = json.loads(path.read_text())
    images = {str(image["id"]): image for image in document["images"]}
    numbers = {category["name"]: category["id"] for category in document["categories"]}
    task = get_task("detection", "paper")
    folder = next(item for item in (tinycoco / "images").iterdir() if "train" in item.name)
    dataset = task.load(DataSpec(annotations=path, images=folder, ask="present"))
    metric, rows, stream = task.metric(dataset), [], random.Random(seed)
    for sample in dataset.samples():
        frame = Frame(PROFILES.get("qwen2-vl"), sample.image.width, sample.image.height)
        text = completion(stream, [list(frame.to_model(box)) for box in sample.target.boxes])  # type: ignore[union-attr]
        metric.update(sample, task.parse(text, frame))
        rows += results(text, images[sample.fields["image_id"]], numbers[sample.fields["category"]])
    assert len(rows) > 150
    assert any(row["bbox"][2] < 0 for row in rows)

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(rows), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    report = metric.compute()
    for name, index in {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}.items():
        assert report.figures[name].value == pytest.approx(evaluation.stats[index], abs=1e-6), name
    assert 0.05 < evaluation.stats[0] < 0.9
