"""Seconds and peak memory to index an annotation file of LVIS val's size.

    python benchmarks/lvis_index.py [--folder DIR]

The file is synthetic and as large as ``lvis_v1_val.json``: 19,809 images named by ``coco_url`` (as in LVIS v1, in both
of COCO's folders), 244,707 annotations with polygons, 1,203 categories, and LVIS's federated lists. It is read through
``load_detection`` by a fresh process, once for all categories and once for six. The images are empty files: an index
looks where they are and does not open them. Limits: 15 s and 1.5 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

IMAGES, ANNOTATIONS, CATEGORIES = 19_809, 244_707, 1_203
FIRST_IN_TRAIN = 4_809
"""How many of LVIS val's images lie in val2017: the rest are in train2017."""
SECONDS, MEGABYTES = 15.0, 1_500.0


def write(root: Path) -> Path:
    """Write the annotation file and empty images under ``root``; returns the file's path."""
    rng = random.Random(0)
    rows = []
    for number in range(1, IMAGES + 1):
        folder = "val2017" if number <= FIRST_IN_TRAIN else "train2017"
        rows.append(
            {
                "id": number,
                "width": 640,
                "height": 480,
                "coco_url": f"http://images.cocodataset.org/{folder}/{number:012d}.jpg",
                "flickr_url": f"http://farm7.staticflickr.com/6153/{number}_z.jpg",
                "date_captured": "2013-11-14 17:02:52",
                "license": 4,
                "neg_category_ids": rng.sample(range(1, CATEGORIES + 1), 8),
                "not_exhaustive_category_ids": rng.sample(range(1, CATEGORIES + 1), 2),
            }
        )
    annotations = []
    for number in range(1, ANNOTATIONS + 1):
        x, y = rng.uniform(0, 500), rng.uniform(0, 400)
        width, height = rng.uniform(2, 140), rng.uniform(2, 80)
        polygon = [round(rng.uniform(0, 480), 2) for _ in range(2 * rng.randint(8, 72))]
        annotations.append(
            {
                "id": number,
                "image_id": rng.randint(1, IMAGES),
                # LVIS has a long tail: most annotations are of few categories.
                "category_id": 1 + int(CATEGORIES * rng.random() ** 3),
                "bbox": [round(x, 2), round(y, 2), round(width, 2), round(height, 2)],
                "area": round(width * height * 0.6, 2),
                "segmentation": [polygon],
            }
        )
    categories = [
        {
            "id": number,
            "name": f"category_{number}",
            "synset": f"category_{number}.n.01",
            "synonyms": [f"category_{number}"],
            "def": "a thing that is made up for this benchmark",
            "frequency": "rcf"[number % 3],
            "image_count": 10,
            "instance_count": 20,
        }
        for number in range(1, CATEGORIES + 1)
    ]
    file = root / "lvis_v1_val.json"
    file.write_text(json.dumps({"images": rows, "annotations": annotations, "categories": categories}))
    for folder in ("val2017", "train2017"):
        (root / folder).mkdir(exist_ok=True)
    for row in rows:
        (root / "/".join(str(row["coco_url"]).split("/")[-2:])).touch()
    return file


def index(file: Path, categories: tuple[str, ...]) -> None:
    """Index ``file`` in this process and print what it took."""
    from vrft_bench.tasks.data.coco import load_detection

    start = time.perf_counter()
    dataset = load_detection(file, [file.parent], split="val", categories=categories)
    loaded = time.perf_counter() - start
    questions = sum(1 for _ in dataset.samples())
    walked = time.perf_counter() - start - loaded
    peak = peak_megabytes()
    print(
        f"{len(dataset.categories):>5} categories: indexed in {loaded:.1f} s ({loaded / SECONDS:.2f} of the limit), "
        f"peak {peak:,.0f} MB ({peak / MEGABYTES:.2f} of the limit), {questions:,} questions walked in {walked:.1f} s"
    )


def peak_megabytes() -> float:
    """The most memory that this process had. ``ru_maxrss`` would not do: a process inherits it from its parent."""
    status = Path("/proc/self/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="keep the file here, and use it again")
    parser.add_argument("--index", metavar="FILE", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--categories", default="", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.index is not None:
        index(chosen.index, tuple(name for name in chosen.categories.split(",") if name))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = chosen.folder or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        file = root / "lvis_v1_val.json"
        if not file.is_file():
            file = write(root)
        print(f"{file.stat().st_size / 1e6:,.0f} MB, {IMAGES:,} images, {ANNOTATIONS:,} annotations", flush=True)
        for categories in ("", ",".join(f"category_{number}" for number in (3, 300, 600, 900, 1000, 1203))):
            subprocess.run([sys.executable, __file__, "--index", str(file), "--categories", categories], check=True)


if __name__ == "__main__":
    main()
