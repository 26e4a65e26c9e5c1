"""Documents in COCO's and LVIS's format, as functions that make a fresh one, and what loads them; a file server."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.tasks.base import Dataset
from vrft_bench.tasks.data.coco import load_detection

sys.path.insert(0, str(Path(__file__).parent))

from file_server import Server, serving

Document = dict[str, Any]
Load = Callable[..., Dataset]


def _annotation(number: int, image: object, category: object, bbox: object, **more: object) -> Document:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": 50, "iscrowd": 0, **more}


def _coco_document() -> Document:
    """Image 2: two cats and a crowd of dogs; image 10: a hot dog; listed out of order."""
    return {
        "images": [
            {"id": 10, "file_name": "ten.png", "width": 60, "height": 40},
            {"id": 2, "file_name": "two.png", "width": 60, "height": 40},
        ],
        "annotations": [
            _annotation(1, 2, 7, [1, 2, 3, 4.5]),
            _annotation(2, 10, 9, [0, 0, 60, 40], area=2000.5),
            _annotation(3, 2, 7, [10, 10, 0, 5]),
            _annotation(4, 2, 8, [5, 5, 20, 20], iscrowd=1, area=300),
        ],
        "categories": [{"id": 9, "name": "hot dog"}, {"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }


def _lvis_document() -> Document:
    """Die and mallet; image 1 shows a die (not exhaustive), 2 verifies its absence, 3 was checked for neither."""
    host = "http://images.cocodataset.org"
    federated: Document = {"neg_category_ids": [], "not_exhaustive_category_ids": [], "width": 60, "height": 40}
    return {
        "images": [
            {**federated, "id": 1, "coco_url": f"{host}/val2017/one.png", "not_exhaustive_category_ids": [5]},
            {**federated, "id": 2, "coco_url": f"{host}/train2017/two.png", "neg_category_ids": [5, 6]},
            {**federated, "id": 3, "coco_url": f"{host}/val2017/three.png"},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 5, 5], "area": 20.0}],
        "categories": [
            {"id": 5, "name": "die", "frequency": "r", "synset": "die.n.01"},
            {"id": 6, "name": "egg_roll", "frequency": "c", "synset": "egg_roll.n.01"},
        ],
    }


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def coco_document() -> Callable[[], Document]:
    return _coco_document


@pytest.fixture
def lvis_document() -> Callable[[], Document]:
    return _lvis_document


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a document and its images (unless ``images`` is given), and loads it."""

    def load(document: object, images: list[Path] | None = None, **options: Any) -> Dataset:
        path = tmp_path / "annotations.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        if images is None:
            images = [tmp_path / "images"]
            for name in ("two.png", "ten.png", "val2017/one.png", "val2017/three.png", "train2017/two.png"):
                (images[0] / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 40)).save(images[0] / name)
        return load_detection(path, images, split="val", **options)

    return load
