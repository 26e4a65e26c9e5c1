"""Writes the sample scenes in the real formats: COCO, LVIS v1, ReasonSeg and class folders.

Nothing here is read back by a reader of its own: the readers of real data read these files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from vrft_bench.tasks.data.drawing import area, draw, outline
from vrft_bench.tasks.data.sample_instructions import instructions
from vrft_bench.tasks.data.sample_scenes import (
    CATEGORIES,
    COUNTS,
    SIDE,
    Scene,
    class_scene,
    coco_scene,
    lvis_scene,
    reasonseg_scene,
)

_INFO = {"description": "vrft-bench embedded sample data", "version": "1"}
_TRAIN_IDS = 100_000
"""Image ids of train begin above this, so that no id names two images, as in COCO."""


def write_coco(root: Path, split: str) -> None:
    """``annotations/instances_{split}2017.json`` and ``images/{split}2017/*.png``."""
    images, annotations = _write_images(root / "images" / f"{split}2017", split, "coco", coco_scene)
    categories = [{"id": _category_id(name), "name": name, "supercategory": name.split()[1]} for name in CATEGORIES]
    named = [{**image, "file_name": _file_name(image["id"])} for image in images]
    for annotation in annotations:
        annotation["iscrowd"] = 0
    document = {"info": _INFO, "licenses": [], "images": named, "annotations": annotations, "categories": categories}
    _write_json(root / "annotations" / f"instances_{split}2017.json", document)


def write_lvis(root: Path, split: str) -> None:
    """``annotations/lvis_v1_{split}.json`` and ``images/{split}2017/*.png``."""
    images, annotations = _write_images(root / "images" / f"{split}2017", split, "lvis", lvis_scene)
    present: dict[int, set[int]] = {image["id"]: set() for image in images}
    for annotation in annotations:
        present[annotation["image_id"]].add(annotation["category_id"])
    for image in images:
        rng = Random(f"lvis/{split}/{image['id']}/verified")
        shown = sorted(present[image["id"]])
        absent = [number for number in range(1, len(CATEGORIES) + 1) if number not in shown]
        rng.shuffle(absent)
        image["coco_url"] = f"http://images.cocodataset.org/{split}2017/{_file_name(image['id'])}"
        image["neg_category_ids"] = sorted(absent[: rng.randint(3, 6)])
        image["not_exhaustive_category_ids"] = [rng.choice(shown)] if rng.random() < 0.1 else []
    document = {
        "info": _INFO,
        "licenses": [],
        "images": images,
        "annotations": annotations,
        "categories": _lvis_categories(),
    }
    _write_json(root / "annotations" / f"lvis_v1_{split}.json", document)


def write_reasonseg(root: Path, split: str) -> None:
    """``{split}/*.png``, each with a ``*.json`` beside it."""
    folder = root / split
    folder.mkdir(parents=True)
    for index in range(COUNTS["reasonseg"][split]):
        rng = Random(f"reasonseg/{split}/{index}/instructions")
        attempt = 0
        while (found := instructions(scene := reasonseg_scene(split, index, attempt), rng)) is None:
            attempt += 1
        target, text = found
        stem = folder / f"{split}_{index:04d}"
        draw(scene).save(stem.with_suffix(".png"), compress_level=1)
        polygon = [list(point) for point in outline(target)]
        shape: dict[str, Any] = {
            "label": "target",
            "labels": ["target"],
            "shape_type": "polygon",
            "image_name": stem.with_suffix(".png").name,
            "points": polygon,
            "group_id": None,
            "group_ids": [None],
            "flags": {},
        }
        _write_json(stem.with_suffix(".json"), {"text": text, "is_sentence": False, "shapes": [shape]})


def write_classes(root: Path, split: str) -> None:
    """``{split}/{class}/*.png``."""
    for index in range(COUNTS["classes"][split]):
        scene = class_scene(split, index)
        folder = root / split / scene.things[0].category.replace(" ", "_")
        folder.mkdir(parents=True, exist_ok=True)
        draw(scene).save(folder / f"{index:04d}.png", compress_level=1)


WRITERS: Mapping[str, Callable[[Path, str], None]] = {
    "coco": write_coco,
    "lvis": write_lvis,
    "reasonseg": write_reasonseg,
    "classes": write_classes,
}


def _write_images(
    folder: Path, split: str, kind: str, scene_of: Callable[[str, int], Scene]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Draw the images of a detection split; their image and annotation entries, as far as COCO and LVIS agree."""
    folder.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(COUNTS[kind][split]):
        scene = scene_of(split, index)
        image_id = index + 1 + (_TRAIN_IDS if split == "train" else 0)
        draw(scene).save(folder / _file_name(image_id), compress_level=1)
        images.append({"id": image_id, "width": SIDE, "height": SIDE})
        for thing in scene.things:
            x1, y1, x2, y2 = thing.box
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": _category_id(thing.category),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": area(thing),
                    "segmentation": [[number for point in outline(thing) for number in point]],
                }
            )
    return images, annotations


@lru_cache(maxsize=1)
def _lvis_categories() -> list[dict[str, Any]]:
    """Category entries, with the counts of the train split and the frequency that LVIS's rule makes of them."""
    images: Counter[str] = Counter()
    instances: Counter[str] = Counter()
    for index in range(COUNTS["lvis"]["train"]):
        names = [thing.category for thing in lvis_scene("train", index).things]
        images.update(set(names))
        instances.update(names)
    return [
        {
            "id": _category_id(name),
            "name": name.replace(" ", "_"),
            "synset": f"{name.replace(' ', '_')}.n.01",
            "synonyms": [name.replace(" ", "_")],
            "def": f"a {name}",
            "frequency": "r" if images[name] <= 10 else "c" if images[name] <= 100 else "f",
            "image_count": images[name],
            "instance_count": instances[name],
        }
        for name in CATEGORIES
    ]


def _category_id(name: str) -> int:
    return CATEGORIES.index(name) + 1


def _file_name(image_id: int) -> str:
    return f"{image_id:012d}.png"


def _write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
