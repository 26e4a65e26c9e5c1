"""The whole loop in miniature: evaluate the tiny model, fine-tune it with SFT and with GRPO, and show what each gained.

    make demo-train            or:  python scripts/demo_train.py --output demo-train

Everything goes through the command line as a user would type it. The training set is a few-shot split of the sample
data's train split; the 300 images of its val split are held out, and no image is in both (compared by pixels). With
--check the exit code is 1 unless GRPO's gain is real: mean IoU of sampled answers up by .08, greedy AP50 not lower.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vrft_bench.harness.images import load_image
from vrft_bench.harness.progress import SilentProgress
from vrft_bench.harness.records import RecordIndex
from vrft_bench.harness.store import SAMPLES, read_manifest
from vrft_bench.harness.stored_answers import StoredAnswers, plan_of_run
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec, Prediction, Sample
from vrft_bench.tasks.data.splits import manifest_path
from vrft_bench.tasks.data.splits import read_manifest as read_split
from vrft_bench.tasks.metrics.outcomes import COCO_RULES
from vrft_bench.tasks.metrics.paired import Difference, difference_of_ap, difference_of_means

TASK = "detection"
SHOTS = 2
NEEDED_GAIN = 0.08
STEPS = {"sft": 60, "grpo": 80}
"""Every trainer sees the same few-shot split."""
OPTIONS = {
    "sft": ["--batch-size", "16", "--lr", "1e-4"],
    "grpo": [
        *("--batch-size", "64", "--group-size", "8", "--lr", "7e-5", "--max-tokens", "96", "--scale-rewards", "none"),
    ],
}


@dataclass(frozen=True)
class Evaluated:
    """A model's two runs on the held-out images: one greedy, one of sampled answers."""

    name: str
    greedy: Path
    sampled: Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo-train"), help="folder that everything goes to")
    parser.add_argument("--seeds", default="0", help="comma-separated seeds; each is a training of its own")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a gain is smaller than it should be")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    os.chdir(options.output)
    started = time.perf_counter()
    passed = [demonstrate(int(seed)) for seed in options.seeds.split(",")]
    print(f"\n{time.perf_counter() - started:.0f} s in all")
    sys.exit(0 if all(passed) or not options.check else 1)


def demonstrate(seed: int) -> bool:
    """One round with one seed; whether GRPO's gain is as large as it should be."""
    command("data", "split", TASK, "--shots", str(SHOTS), "--seeds", str(seed))
    images = report_on_data(seed)
    models = {"base": "hf/tiny"}
    for trainer, steps in STEPS.items():
        folder = f"{trainer}-seed-{seed}"
        command(
            *("train", "--trainer", trainer, "-t", TASK, "--shots", str(SHOTS), "--split-seed", str(seed)),
            *("-m", "tiny", "-o", folder, "--steps", str(steps), "--seed", str(seed), "--save-every", str(steps)),
            *OPTIONS[trainer],
        )
        models[trainer.upper()] = f"{folder}/final"
    found = [evaluate(name, model) for name, model in models.items()]
    return print_gains(found, images)


def command(*arguments: str) -> str:
    """Run ``vrft-bench`` as typed and give back the last line that it prints."""
    print(f"$ vrft-bench {' '.join(arguments)}", flush=True)
    started = time.perf_counter()
    program = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *arguments]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{done.stdout}\n{done.stderr}\nvrft-bench ended with exit code {done.returncode}")
    print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    return done.stdout.strip().splitlines()[-1]


def report_on_data(seed: int) -> int:
    """Say what is trained on and what is held out; the number of training images. Ends where an image is in both."""
    split = read_split(manifest_path(Path("splits"), TASK, SHOTS, seed))
    chosen = {shot.id for shot in split.samples}
    train = pixel_hashes("train", chosen)
    held_out = pixel_hashes("val", None)
    if train & held_out:
        sys.exit(f"{len(train & held_out)} images are in the training set and held out")
    print(f"{len(chosen)} training questions about {len(train)} images; {len(held_out)} images held out, none in both")
    return len(train)


def pixel_hashes(split: str, sample_ids: set[str] | None) -> set[str]:
    found = {}
    for sample in get_task(TASK).load(DataSpec(split=split, ask="present")).samples():
        if (sample_ids is None or sample.id in sample_ids) and sample.image.path not in found:
            found[sample.image.path] = hashlib.sha256(load_image(sample.image).image.tobytes()).hexdigest()
    return set(found.values())


def evaluate(name: str, model: str) -> Evaluated:
    asked = ("run", "-t", TASK, "--ask", "present", "-m", model, "-o", "results", "--plain")
    greedy = command(*asked)
    sampled = command(*asked, "-n", "2", "--temperature", "1")
    return Evaluated(name, Path(greedy), Path(sampled))


def answers(folder: Path) -> Iterator[tuple[Sample, int, Prediction]]:
    plan = plan_of_run(folder, read_manifest(folder))
    return iter(StoredAnswers(plan, RecordIndex(folder / SAMPLES), SilentProgress(), "reading"))


def iou_by_image(folder: Path) -> dict[str, list[float]]:
    """The IoU reward of every answer, by image."""
    reward = next(reward for reward in get_task(TASK).rewards if reward.name == "iou")
    found: dict[str, list[float]] = defaultdict(list)
    for sample, _, prediction in answers(folder):
        found[sample.fields["image_id"]].append(reward(prediction, sample.target))
    return found


def print_gains(found: list[Evaluated], images: int) -> bool:
    """A row for every figure; whether GRPO's gain is as large as it should be."""
    base, *trained = found
    categories = get_task(TASK).load(DataSpec(split="val")).categories
    gains = {row.name: gains_of(base, row, categories) for row in trained}
    table = Table(title=f"{TASK}, {images} training images, 300 held out; gains with paired 95% intervals")
    table.add_column("", no_wrap=True)
    table.add_column(base.name, justify="right")
    for row in trained:
        table.add_column(row.name, justify="right")
        table.add_column("gain", no_wrap=True)
    for figure in next(iter(gains.values())):
        cells = [shown(gains[row.name][figure]) for row in trained]
        before = next(iter(gains.values()))[figure].before
        table.add_row(figure, f"{before:.3f}", *(cell for pair in cells for cell in pair))
    Console(width=110).print(table)
    grpo = gains["GRPO"]
    return grpo["sampled mean IoU"].value >= NEEDED_GAIN and grpo["greedy AP50"].value >= 0


def gains_of(base: Evaluated, row: Evaluated, categories: tuple[str, ...]) -> dict[str, Difference]:
    by_ap = difference_of_ap(answers(base.greedy), answers(row.greedy), categories, COCO_RULES, threshold=0.5)
    return {
        "sampled mean IoU": difference_of_means(iou_by_image(base.sampled), iou_by_image(row.sampled)),
        "greedy mean IoU": difference_of_means(iou_by_image(base.greedy), iou_by_image(row.greedy)),
        "greedy AP50": by_ap,
    }


def shown(gain: Difference) -> tuple[str, str]:
    return f"{gain.after:.3f}", f"{gain.value:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}]"


if __name__ == "__main__":
    main()
