"""What the harness itself costs: samples per second and peak memory of ``mock/gold``, with every record on disk.

    python benchmarks/harness_overhead.py [--sizes 20000 200000]

The task is the real ``detection`` task (prompt, parser, rewards, metric) on questions that are made up one by one, two
thirds of them with one or two objects: no annotation file is read, since its size would be measured instead, and no
image is opened. Each run has a process of its own, which reports wall time from the call to the stored metrics, and its
peak resident memory. ``harness`` is the run with a metric that only counts: prompts, parsing, rewards, records and the
run loop. ``AP`` is the whole of it, where the metric keeps a compact row per question and per box, as AP must.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vrft_bench.harness import scoring
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, Figure, ImageRef, Metric, MetricReport, Sample
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.detection import DetectionTask

CATEGORIES = tuple(f"category {number}" for number in range(8))
WANTED_RATE, WANTED_GROWTH = 5000, 0.20


def questions(size: int) -> Iterator[Sample]:
    """``size`` questions, eight categories asked of each image."""
    for index in range(size):
        image, category = divmod(index, len(CATEGORIES))
        boxes: tuple[Box, ...] = ()
        if index % 3:
            left, top = float(index % 311), float(index % 203)
            boxes = ((left, top, left + 200.5, top + 150.25), (500.0, 300.0, 640.0, 480.0))[: index % 3]
        fields = {"category": CATEGORIES[category], "image_id": str(image)}
        yield Sample(f"{image}:{CATEGORIES[category]}", ImageRef(640, 480), fields, BoxTarget(boxes))


class Count:
    """A metric that keeps nothing."""

    def __init__(self) -> None:
        self._count = 0

    def update(self, sample: Sample, prediction: Any, n: int = 0) -> None:  # noqa: ARG002 - the protocol's signature
        self._count += 1

    def compute(self) -> MetricReport:
        return MetricReport("count", {"count": Figure(float(self._count))})


@dataclass(frozen=True)
class MadeUp(DetectionTask):
    """Detection on :func:`questions`."""

    size: int = 0
    counted_only: bool = False

    def load(self, spec: DataSpec) -> Dataset:  # noqa: ARG002 - nothing is read
        return Dataset("val", CATEGORIES, lambda: questions(self.size), rules="coco", ask="all")

    def metric(self, dataset: Dataset) -> Metric:
        return Count() if self.counted_only else super().metric(dataset)


def child(size: int, what: str) -> None:
    """One run; prints its figures as JSON."""
    metric_seconds = 0.0
    finish = scoring.Scorer.finish

    def timed(self: scoring.Scorer, *args: Any) -> Any:
        nonlocal metric_seconds
        began = time.perf_counter()
        found = finish(self, *args)
        metric_seconds = time.perf_counter() - began
        return found

    scoring.Scorer.finish = timed  # type: ignore[method-assign, assignment]
    task = MadeUp("made_up", "1", "made-up questions", size=size, counted_only=what == "harness")
    with tempfile.TemporaryDirectory() as folder:
        config = make_config({"model": "mock/gold", "output_dir": folder})
        began = time.perf_counter()
        result = evaluate(task, load_backend("mock/gold"), config)
        seconds = time.perf_counter() - began
        with (result.folder / "samples.jsonl").open("rb") as file:
            records = sum(1 for _ in file)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"records": records, "seconds": seconds, "metric": metric_seconds, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--child", choices=("harness", "AP"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.sizes[0], arguments.child)
        return
    print("what       samples   records  seconds  in metric  samples/s  peak MiB")
    for what in ("harness", "AP"):
        peaks = []
        for size in arguments.sizes:
            command = [sys.executable, str(Path(__file__)), "--child", what, "--sizes", str(size)]
            found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            peaks.append(found["peak"])
            print(
                f"{what:8} {size:9,} {found['records']:9,} {found['seconds']:8.2f} {found['metric']:10.2f} "
                f"{size / found['seconds']:10,.0f} {found['peak']:9.1f}"
            )
        print(f"{what:8} peak memory, last size against first: {peaks[-1] / peaks[0] - 1:+.0%}")
    print(f"wanted: {WANTED_RATE:,} samples/s, and memory within {WANTED_GROWTH:.0%}")


if __name__ == "__main__":
    main()
