"""What the harness costs beside a vLLM engine: the time of a run against that of the engine alone on the same prompts.

    OMP_NUM_THREADS=1 python benchmarks/vllm_overhead.py [--samples 2000] [--rounds 5]

One engine serves both, in turns, on the bundled tiny model (which leaves the harness less time to hide in than any real
one). Before each turn its caches are emptied, so that every image is new to it and every question is computed.

* ``engine``: ``AsyncLLM.generate`` on prompts that are rendered, and images that are decoded and resized, beforehand,
  with as many in flight as in the run. What comes back is not looked at.
* ``run``: the whole run, from the task's name to the stored metrics: data, prompts, images, answers, parsing, rewards,
  records, AP with its interval.

Prints the seconds of both by the clock, and the CPU seconds of the threads that the harness's code runs in: the main
thread, the event loop and the image threads. What the run uses of them beyond the engine's turn (whose loop does vLLM's
part) is the harness's time; wanted: at most 5 % of the engine's by the clock, median of the rounds. That is an upper
bound, since the engine works on meanwhile, and it hardly depends on what else the machine does, as the clock does.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.images import ImageCache
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.vllm import WAITING, VLLMBackend
from vrft_bench.harness.models.vllm_engine import Draw, Question
from vrft_bench.harness.models.vllm_images import sizes
from vrft_bench.harness.plan import make_plan, workload_of
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec

WANTED = 0.05
TASK = "coco_fewshot"


def questions(backend: VLLMBackend, count: int, sampling: Sampling) -> list[tuple[Question, Draw]]:
    """The first questions of the task, with everything done to them that can be done beforehand."""
    task, profile, images = get_task(TASK), backend.profile(), ImageCache(max_bytes=8 << 30)
    assert profile is not None
    made = []
    for sample, _ in zip(task.load(DataSpec()).samples(), range(count), strict=False):
        request = Request(task, sample, 0, task.messages(sample, profile), profile, sampling)
        size, _ = sizes(sample.image.width, sample.image.height, profile)
        image = images.load(sample.image, size)
        made.append((Question(backend.rendered(request), image.image, f"{image.sha256}-bare"), Draw(sampling)))
    return made


def empty_caches(backend: VLLMBackend) -> None:
    """Make the engine forget every prompt and image, and the backend every image."""
    running = backend._running
    assert running is not None
    vllm = running._engine._engine

    async def forget() -> None:
        await vllm.reset_prefix_cache()
        await vllm.reset_mm_cache()
        await vllm.reset_encoder_cache()

    running._loop.run(forget())
    backend.images = running._images._cache = ImageCache()


@dataclass(frozen=True)
class Spent:
    """Seconds by the clock, and of the CPU in the harness's threads."""

    clock: float
    cpu: float


class Stopwatch:
    def __init__(self) -> None:
        self._clock, self._cpu = time.perf_counter(), cpu_of_harness()

    def stop(self) -> Spent:
        return Spent(time.perf_counter() - self._clock, cpu_of_harness() - self._cpu)


def cpu_of_harness() -> float:
    """CPU seconds so far of the threads that run the harness's code; vLLM has others in this process."""
    own = [
        thread.ident
        for thread in threading.enumerate()
        if thread.ident is not None
        and (thread is threading.main_thread() or thread.name == "vllm" or thread.name.startswith("images"))
    ]
    return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in own)


def time_engine(backend: VLLMBackend, asked: Sequence[tuple[Question, Draw]]) -> Spent:
    """What the engine takes for ``asked``, kept as full as a run keeps it."""
    running = backend._running
    assert running is not None
    engine = running._engine

    async def ask_all() -> None:
        places = asyncio.Semaphore(engine.places + WAITING)

        async def ask(question: Question, draw: Draw) -> None:
            async with places:
                await engine.draw(question, draw)

        waiting: list[Awaitable[None]] = [ask(*one) for one in asked]
        await asyncio.gather(*waiting)

    watch = Stopwatch()
    running._loop.run(ask_all())
    return watch.stop()


def time_run(backend: VLLMBackend, config: RunConfig) -> Spent:
    """What a whole run takes."""
    with tempfile.TemporaryDirectory() as folder:
        watch = Stopwatch()
        result = evaluate(get_task(TASK), backend, config.model_copy(update={"output_dir": Path(folder)}))
        spent = watch.stop()
    assert result.manifest.failed == 0
    return spent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()

    backend = load_backend("vllm/tiny")
    assert isinstance(backend, VLLMBackend)
    config = make_config({"task": [TASK], "model": "vllm/tiny", "limit": options.samples, "max_tokens": 256})
    profile = backend.profile()
    assert profile is not None
    backend.anticipate(workload_of([make_plan(get_task(TASK), profile, config)]))
    try:
        asked = questions(backend, options.samples, config.sampling())
        time_run(backend, config.model_copy(update={"limit": 100}))  # starts the engine, and warms it
        print("         by the clock      CPU, its threads")
        print("round   engine      run    engine      run   harness")
        shares = []
        for number in range(1, options.rounds + 1):
            empty_caches(backend)
            engine = time_engine(backend, asked)
            empty_caches(backend)
            run = time_run(backend, config)
            shares.append((run.cpu - engine.cpu) / engine.clock)
            figures = (engine.clock, run.clock, engine.cpu, run.cpu)
            print(f"{number:5} " + " ".join(f"{one:7.2f}s" for one in figures) + f" {shares[-1]:8.1%}", flush=True)
    finally:
        backend.close()
    share = statistics.median(shares)
    print(f"{len(asked):,} answers: the harness's time is {share:.1%} of the engine's; wanted: at most {WANTED:.0%}")
    return 0 if share <= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
