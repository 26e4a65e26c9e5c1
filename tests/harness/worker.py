"""A process that runs mock/noisy over generated questions, for the tests that kill it. Exits as the command line does.

python worker.py OUTPUT_DIR QUESTIONS SECONDS_PER_ANSWER [FILE_SIZE_LIMIT]
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from questions import Questions

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Backend, Completion, Request
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.progress import PlainProgress
from vrft_bench.harness.run import evaluate


def slowed(backend: Backend, seconds: float) -> Backend:
    generate = backend.generate

    def slow(requests: Iterable[Request]) -> Iterator[Completion]:
        for completion in generate(requests):
            time.sleep(seconds)
            yield completion

    backend.generate = slow  # type: ignore[method-assign]
    return backend


def main() -> None:
    output_dir, size, seconds, *limit = sys.argv[1:]
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit[0]), int(limit[0])))
    config = make_config({"output_dir": output_dir, "model": "mock/noisy", "samples": 2})
    task = Questions("questions", "1", "generated questions", size=int(size))
    try:
        evaluate(task, slowed(mock_backend("noisy", {}), float(seconds)), config, progress=PlainProgress())
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
