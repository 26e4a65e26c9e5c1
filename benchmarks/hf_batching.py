"""How much faster the transformers backend answers in batches than one by one, on the bundled tiny model.

    OMP_NUM_THREADS=2 python benchmarks/hf_batching.py --samples 64

Prints completions per second of both, and their ratio (wanted: at least 3). The answers are compared as well: a faster
run that says something else would be worth nothing.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time

from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec

WANTED = 3.0


def questions(count: int) -> list[Request]:
    """The first ``count`` detection questions of the sample data."""
    task = get_task("coco_fewshot")
    profile = HFBackend("tiny").profile()
    assert profile is not None
    samples = itertools.islice(task.load(DataSpec(split="val")).samples(), count)
    return [
        Request(task, sample, 0, task.messages(sample, profile), profile, Sampling(max_tokens=128))
        for sample in samples
    ]


def timed(batch_size: int, requests: list[Request]) -> tuple[float, dict[str, str]]:
    """(completions per second, texts by sample id), with the model loaded and warm before the clock starts."""
    backend = HFBackend("tiny", {"batch_size": batch_size})
    list(backend.generate(requests[:1]))
    started = time.perf_counter()
    texts = {answer.sample_id: answer.text for answer in backend.generate(requests)}
    return len(requests) / (time.perf_counter() - started), texts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=16)
    options = parser.parse_args()

    requests = questions(options.samples)
    alone, texts_alone = timed(1, requests)
    together, texts_together = timed(options.batch_size, requests)
    same = sum(texts_alone[key] == texts_together[key] for key in texts_alone)
    print(f"one by one          {alone:8.1f} completions/s")
    print(f"batches of {options.batch_size:<4}     {together:8.1f} completions/s")
    print(f"ratio               {together / alone:8.2f}  (wanted: at least {WANTED})")
    print(f"same answers        {same:5d} of {len(requests)}")
    return 0 if together / alone >= WANTED and same == len(requests) else 1


if __name__ == "__main__":
    sys.exit(main())
