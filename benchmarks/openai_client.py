"""The openai backend against a bare aiohttp client and against the official one, and its memory.

    python benchmarks/openai_client.py [--requests 2000] [--rounds 5] [--sizes 2000 20000]

The server is a process of its own that reads each request and answers at once, so what is measured is the client: the
same questions with the same 20 KB images, 100 of them asked about in turns of 20. ``bare aiohttp`` sends bodies that
are ready-made from 64 places, parses the JSON and looks at nothing. ``openai backend`` is ``OpenAIBackend.generate``:
bodies made from requests, images decoded once, adaptive concurrency, completions. ``official`` is the client of the
``openai`` package, from 64 threads. The three take turns in rounds, since a machine is not equally busy all the time;
the ratios are medians over the rounds. Then the backend answers a smaller and a larger number of questions, which are
made one by one as it reads them, each in a process of its own, which reports its peak resident memory.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import itertools
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from vrft_bench.harness.images import encode_image
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.models.openai_chat import ChatFormat, Group
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, Sample
from vrft_bench.tasks.profiles import QWEN2_VL

PLACES = 64
IMAGES, QUESTIONS_PER_IMAGE = 100, 20
WANTED_OF_BARE, WANTED_OF_OFFICIAL, WANTED_GROWTH = 0.7, 5.0, 0.10
ANSWER = "<think>I look for it.</think>\n<answer>[{'Position': [10, 20, 300, 400], 'Confidence': 0.9}]</answer>"


def serve() -> None:
    """Answer everything at once with :data:`ANSWER`, and print the port first."""
    from aiohttp import web

    reply = {
        "object": "chat.completion",
        "model": "instant",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 300, "completion_tokens": 40},
    }
    body = json.dumps(reply).encode()

    async def chat(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(body=body, content_type="application/json")

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "instant"}]})

    async def run() -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_post("/v1/chat/completions", chat)
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(runner.addresses[0][1], flush=True)
        await asyncio.Event().wait()

    asyncio.run(run())


def pictures() -> list[ImageRef]:
    """Noise, which no format makes smaller: PNGs of 20 KB."""
    noise = np.random.default_rng(0)
    found = []
    for _ in range(IMAGES):
        stream = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (80, 84, 3), dtype=np.uint8)).save(stream, "PNG")
        found.append(ImageRef(84, 80, data=stream.getvalue()))
    return found


def questions(count: int, images: list[ImageRef]) -> Iterator[Request]:
    task = get_task("detection")
    sampling = Sampling()
    for index in range(count):
        image = index // QUESTIONS_PER_IMAGE % IMAGES
        fields = {"category": "red circle", "image_id": str(image)}
        sample = Sample(str(index), images[image], fields, BoxTarget(()))
        yield Request(task, sample, 0, task.messages(sample, QWEN2_VL), QWEN2_VL, sampling)


async def bare(url: str, bodies: list[bytes], count: int) -> None:
    """``count`` requests from :data:`PLACES` places, as plain as aiohttp can be used."""
    left = iter(range(count))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def place() -> None:
            for index in left:
                body = bodies[index // QUESTIONS_PER_IMAGE % IMAGES]
                headers = {"Content-Type": "application/json"}
                async with session.post(f"{url}/chat/completions", data=body, headers=headers) as response:
                    json.loads(await response.read())

        await asyncio.gather(*(place() for _ in range(PLACES)))


def ours(backend: OpenAIBackend, requests: Iterable[Request], count: int) -> None:
    answered = sum(completion.text == ANSWER for completion in backend.generate(itertools.islice(requests, count)))
    assert answered == count, f"{answered} of {count} are answered"


def official(client: Any, messages: list[Any], count: int) -> None:
    def ask(index: int) -> None:
        asked = messages[index // QUESTIONS_PER_IMAGE % IMAGES]
        client.chat.completions.create(model="instant", messages=asked, max_tokens=1024, temperature=0.0)

    with ThreadPoolExecutor(PLACES) as pool:
        list(pool.map(ask, range(count)))


def timed(work: Callable[[int], Any], count: int) -> tuple[float, float]:
    """(requests per second, CPU microseconds of this process per request)."""
    began, cpu = time.perf_counter(), time.process_time()
    work(count)
    return count / (time.perf_counter() - began), (time.process_time() - cpu) / count * 1e6


def contenders(backend: OpenAIBackend, url: str, most: int) -> dict[str, tuple[Callable[[int], Any], int]]:
    """Name -> what to run with a number of requests, ``most`` at the most, and by how much fewer it is given."""
    asked = list(questions(max(most, IMAGES * QUESTIONS_PER_IMAGE), pictures()))
    requests = asked[: IMAGES * QUESTIONS_PER_IMAGE : QUESTIONS_PER_IMAGE]
    chats = ChatFormat("instant", {}, "M" * 32)
    bodies = [b"".join(chats.body(Group((one,)), encode_image(one.sample.image).data_url)) for one in requests]
    found: dict[str, tuple[Callable[[int], Any], int]] = {
        "bare aiohttp": (lambda count: asyncio.run(bare(url, bodies, count)), 1),
        "openai backend": (partial(ours, backend, asked), 1),
    }
    try:
        import openai
    except ImportError:
        print("the official client is left out: pip install openai")
    else:
        client = openai.OpenAI(base_url=url, api_key="none", max_retries=0)
        messages = [json.loads(body)["messages"] for body in bodies]
        found["official"] = (partial(official, client, messages), 5)
    return found


def compare(url: str, count: int, rounds: int) -> bool:
    """Print rates and ratios; whether the wanted ones are reached."""
    backend = OpenAIBackend("instant", {"base_url": url})
    runners = contenders(backend, url, count)
    for work, fewer in runners.values():
        work(count // fewer)  # connections, first images, the backend's limit of requests in flight
    rates: dict[str, list[float]] = {name: [] for name in runners}
    costs: dict[str, list[float]] = {name: [] for name in runners}
    for _ in range(rounds):
        for name, (work, fewer) in runners.items():
            rate, cost = timed(work, count // fewer)
            rates[name].append(rate)
            costs[name].append(cost)
    backend.close()
    for name, found in rates.items():
        print(
            f"{name:15} {statistics.median(found):8,.0f} requests/s   ({min(found):,.0f} to {max(found):,.0f})   "
            f"{statistics.median(costs[name]):6,.0f} us of CPU each"
        )
    ours_rates = rates["openai backend"]
    wanted = {"bare aiohttp": WANTED_OF_BARE, "official": WANTED_OF_OFFICIAL}
    reached = True
    for name, least in wanted.items():
        if name in rates:
            ratio = statistics.median(mine / other for mine, other in zip(ours_rates, rates[name], strict=True))
            print(f"openai backend / {name:13} {ratio:6.2f}   (wanted: at least {least})")
            reached = reached and ratio >= least
    return reached


def memory(url: str, sizes: list[int]) -> bool:
    """Print the peak memory of runs of several sizes; whether it is flat."""
    peaks = []
    for size in sizes:
        command = [sys.executable, str(Path(__file__)), "--child", url, "--sizes", str(size)]
        peaks.append(float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))
        print(f"{size:8,} requests: peak memory {peaks[-1]:6.1f} MiB")
    growth = peaks[-1] / peaks[0] - 1
    print(f"growth {growth:+.1%}   (wanted: within {WANTED_GROWTH:.0%})")
    return growth <= WANTED_GROWTH


def child(url: str, size: int) -> None:
    """One run of the backend; prints the peak memory in MiB."""
    backend = OpenAIBackend("instant", {"base_url": url})
    ours(backend, questions(size, pictures()), size)
    backend.close()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    if options.child:
        child(options.child, options.sizes[0])
        return 0
    server = subprocess.Popen([sys.executable, str(Path(__file__)), "--serve"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        fast = compare(url, options.requests, options.rounds)
        flat = memory(url, options.sizes)
    finally:
        server.terminate()
        server.wait()
    return 0 if fast and flat else 1


if __name__ == "__main__":
    sys.exit(main())
