"""Search for texts that break scoring or make it slow, guided by coverage and by cost (atheris: libFuzzer for Python).

    pip install -e '.[fuzz,paper]'
    OMP_NUM_THREADS=1 python benchmarks/fuzz_scoring.py [--seconds 60] [--keep 3]

One process per task family and protocol. The fuzzer's bytes are read as the recipe of a text, not as the text: a
beginning, a unit that is repeated and an end, each of the pieces that answers are made of, so that a changed byte is
another piece. Each recipe is used three times over:

* as a text of 2,000 characters it is parsed and scored. The process stops with the recipe where that raises, where a
  score is not finite or not in its range, and where the portable score says something else;
* as a text of 50,000 characters it is timed. A new level of cost counts as new coverage, so recipes that are slower
  than all before are kept and changed further;
* as a text of 1 MB, where it has set a record. The process stops where that takes more than 12 times as long as 250 kB,
  three times in a row: growth is not linear (twice as long as it should take is what a full cache costs).

In the end the slowest are timed anew without the fuzzer. ``--keep N`` writes N of each process to
``benchmarks/slow_inputs.json``, which ``benchmarks/adversarial.py`` and a test replay. Symbolic verification is left
out (``benchmarks/fuzz_symbolic.py``).
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adversarial import Shape

    from vrft_bench.tasks.base import Task

SMALL, MEDIUM, LARGE = 2_000, 50_000, 1_000_000
LEVELS = 64
"""Levels of cost, each a quarter above the one before; the first is a millisecond per MB."""

FAMILIES = ("coco_fewshot", "flower102_fewshot", "lisa_grounding")
PROTOCOLS = ("strict", "paper")


def recipe(data: Any, pieces: tuple[str, ...]) -> Shape:
    """The recipe that a fuzzer's bytes stand for."""
    from adversarial import Shape

    begin, unit, end = (
        "".join(pieces[data.ConsumeIntInRange(0, len(pieces) - 1)] for _ in range(data.ConsumeIntInRange(least, 6)))
        for least in (0, 1, 0)
    )
    return Shape(begin, unit, end)


def check(task: Task, text: str, ground_truth: str) -> None:
    """Raises where ``text`` breaks a promise of the scorer."""
    from adversarial import FRAME, TARGETS

    score = task.judge(task.parse(text, FRAME), TARGETS[task.name])
    for reward in task.rewards:
        assert reward.low <= score.components[reward.name] <= reward.high, (reward.name, score)
    assert math.isfinite(score.total), score
    assert task.score(text, ground_truth) == score.to_json()


def cost_ladder(instrument: Callable[[Any], Any]) -> Callable[[int], int]:
    """A function with a branch for each level of cost, which is how libFuzzer comes to see the cost."""
    branches = "".join(f"    if level >= {level}: return {level}\n" for level in reversed(range(LEVELS)))
    namespace: dict[str, Any] = {}
    exec(f"def reached(level):\n{branches}    return -1", namespace)
    reached: Callable[[int], int] = instrument(namespace["reached"])
    return reached


def fuzz(name: str, protocol: Any, seconds: int, records: Path) -> None:
    """Fuzz one task in this process, which libFuzzer ends; each record is a line of JSON in ``records``."""
    import atheris

    with atheris.instrument_imports(include=["vrft_bench.tasks"]):
        from adversarial import FRAME, PIECES, TARGETS, milliseconds, without_symbolic_verification

        from vrft_bench.tasks import get_task
        from vrft_bench.tasks.base import ImageRef, Sample

        task = get_task(name, protocol)
    without_symbolic_verification().start()
    ground_truth = task.ground_truth(Sample("1", ImageRef(FRAME.width, FRAME.height), {}, TARGETS[name]), FRAME)
    reached = cost_ladder(atheris.instrument_func)
    record = 0.0

    def one(data: bytes) -> None:
        nonlocal record
        shape = recipe(atheris.FuzzedDataProvider(data), PIECES)
        try:
            check(task, shape.text(SMALL), ground_truth)
            cost = milliseconds(task, shape.text(MEDIUM), repeats=2) * LARGE / MEDIUM
            reached(int(math.log(max(cost, 1.0), 1.25)))
            if cost > record:
                record = cost
                large = milliseconds(task, shape.text(LARGE))
                with records.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"ms": large, "shape": shape}) + "\n")
                assert large < 50 or any(
                    milliseconds(task, shape.text(LARGE)) < 12 * milliseconds(task, shape.text(LARGE // 4))
                    for _ in range(3)
                ), "growth is not linear"
        except Exception as error:
            print(f"\nthe recipe that did it: {shape!r}\n{type(error).__name__}: {error}", file=sys.stderr)
            raise

    artifacts = f"-artifact_prefix={records.parent}/"
    options = ["-max_len=64", "-rss_limit_mb=6000", "-timeout=120", "-verbosity=0", artifacts]
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", *options], one)
    atheris.Fuzz()


def fuzz_apart(name: str, protocol: str, seconds: int, folder: Path) -> tuple[int, list[Shape]]:
    """Fuzz in a process of its own: the exit status, and the recipes that set records, the slowest last."""
    from adversarial import Shape

    records = folder / f"{name}-{protocol}.jsonl"
    records.touch()
    command = [sys.executable, __file__, "--seconds", str(seconds), "--child", name, protocol, str(records)]
    status = subprocess.run(command, check=False, stdout=subprocess.DEVNULL).returncode
    return status, [Shape(*json.loads(line)["shape"]) for line in records.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=int, default=60, help="how long each of the six processes looks")
    parser.add_argument("--keep", type=int, default=0, help="how many recipes of each to write")
    parser.add_argument("--child", nargs=3, metavar=("TASK", "PROTOCOL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        name, protocol, records = options.child
        fuzz(name, protocol, options.seconds, Path(records))
    from adversarial import SLOW_INPUTS, WANTED_MS, milliseconds, without_symbolic_verification

    from vrft_bench.tasks import get_task

    kept: list[dict[str, Any]] = []
    failed = 0
    with tempfile.TemporaryDirectory() as folder, without_symbolic_verification():
        for protocol in PROTOCOLS:
            for name in FAMILIES:
                status, shapes = fuzz_apart(name, protocol, options.seconds, Path(folder))
                failed += status != 0
                task = get_task(name, protocol)
                different = {shape.unit: shape for shape in shapes}.values()
                ranked = sorted(((milliseconds(task, shape.text(LARGE)), shape) for shape in different), reverse=True)
                print(f"{name}, {protocol}: " + ("FAILED, see above" if status else "no failure"))
                for cost, shape in ranked[:3]:
                    print(f"{cost:8.1f} ms  {shape}")
                kept += [{"task": name, "protocol": protocol, "shape": shape} for _, shape in ranked[: options.keep]]
    if options.keep:
        SLOW_INPUTS.write_text("[\n" + ",\n".join(map(json.dumps, kept)) + "\n]\n", encoding="utf-8")
    print(f"wanted: {WANTED_MS} ms on a quiet core")
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
