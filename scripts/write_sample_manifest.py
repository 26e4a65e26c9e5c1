"""Write what the embedded sample data hold, by task and split, to the manifest that ships with the package.

    python scripts/write_sample_manifest.py

``vrft-bench validate`` holds the sample data to it, and a test holds it to the sample data: run this after a change of
the sample data (and of its version) or of a task's sample categories.
"""

from __future__ import annotations

import json

from vrft_bench.errors import UserError
from vrft_bench.registry import TASKS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.data.manifest import SAMPLE_MANIFEST, sample_facts_to_json
from vrft_bench.tasks.data.survey import survey

SPLITS = ("train", "val", "test")


def sample_manifest() -> dict[str, dict[str, object]]:
    """Task -> split -> counts and hash, for every split that the sample data of a task have."""
    found: dict[str, dict[str, object]] = {}
    for name in sorted(TASKS.names()):
        task = get_task(name)
        for split in SPLITS:
            try:
                dataset = task.load(DataSpec(split=split))
            except UserError:
                continue
            found.setdefault(name, {})[split] = sample_facts_to_json(survey(dataset))
    return found


if __name__ == "__main__":
    SAMPLE_MANIFEST.write_text(json.dumps(sample_manifest(), indent=1) + "\n", encoding="utf-8")
    print(f"written: {SAMPLE_MANIFEST}")
