"""How long `vrft-bench table` takes over many run folders, as a command of its own and against reading their files.

    python benchmarks/table.py [--runs 500]

Makes copies of the example run under other models and tasks, half of them with 80 categories as runs on COCO have, and
prints the seconds of the whole command (best of three), and its ratio to parsing the same JSON files and doing nothing
with them.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from vrft_bench.harness.identity import fingerprint

EXAMPLE = Path(__file__).parents[1] / "results" / "example"
TASKS = ("coco_fewshot", "lvis_fewshot", "coco_ovd", "lvis_ovd", "detection")
GOAL = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "results"
        size = make_runs(root, given.runs)
        read = min(seconds_of(lambda: read_files(root)) for _ in range(given.repeats))
        command = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", "table", str(root)]
        for form in ("md", "csv", "latex", "html", "json"):
            argv = [*command, "--format", form]
            before = cpu_of_children()
            took = min(
                seconds_of(lambda argv=argv: subprocess.run(argv, check=True, capture_output=True))
                for _ in range(given.repeats)
            )
            busy = (cpu_of_children() - before) / given.repeats
            print(
                f"table --format {form:5} over {given.runs} runs ({size / 1e6:.0f} MB of JSON): {took:.2f} s "
                f"({busy:.2f} s of CPU), "
                f"{took / read:.1f} times json.load of the files ({read:.2f} s); goal {GOAL:g} s: "
                f"{'reached' if took < GOAL else 'MISSED'}"
            )


def make_runs(root: Path, count: int) -> int:
    """Write ``count`` runs; returns the bytes of their JSON."""
    (source,) = EXAMPLE.glob("*/*/*/run.json")
    manifest, metrics = (json.loads((source.parent / name).read_text()) for name in ("run.json", "metrics.json"))
    row = next(iter(metrics["report"]["by_category"].values()))
    many = {**metrics["report"], "by_category": {f"category {number}": row for number in range(80)}}
    total = 0
    for number in range(count):
        task = TASKS[number % len(TASKS)]
        folder = root / task / f"model{number}" / f"20260101T000000Z-{number:08x}"
        folder.mkdir(parents=True)
        report = many if number % 2 else metrics["report"]
        total += write(folder / "run.json", renamed(manifest, task, f"hf/owner/model{number}"))
        total += write(folder / "metrics.json", {**metrics, "report": report})
        (folder / "samples.jsonl").write_text("")
    return total


def renamed(manifest: dict[str, Any], task: str, model: str) -> dict[str, Any]:
    """The manifest of the same run by another model on another task."""
    identity = manifest["identity"]
    identity = {**identity, "task": {**identity["task"], "name": task}, "model": {**identity["model"], "name": model}}
    config = {**manifest["config"], "task": [task], "model": model}
    changed = {"task": task, "model": model, "identity": identity, "fingerprint": fingerprint(identity)}
    return {**manifest, **changed, "config": config}


def write(path: Path, value: dict[str, Any]) -> int:
    return path.write_text(json.dumps(value, indent=1))


def read_files(root: Path) -> None:
    for path in root.glob("*/*/*/*.json"):
        json.loads(path.read_bytes())


def cpu_of_children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def seconds_of(call: Any) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
