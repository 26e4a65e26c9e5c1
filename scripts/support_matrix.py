"""Writes ``docs/trainers/support.md`` from what ``make test-conformance`` has found.

python scripts/support_matrix.py            # writes the page
python scripts/support_matrix.py --check    # exit code 1 if the page says anything else
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.engines import ENGINES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "tests" / "conformance" / "results.json"
PAGE = ROOT / "docs" / "trainers" / "support.md"

_MULTI_NODE = {
    "trl": "accelerate launch",
    "verl": "Ray",
    "ms-swift": "torchrun",
    "easyr1": "Ray",
    "openrlhf": "Ray",
    "llamafactory": "torchrun",
    "verifiers": "prime-rl's own",
}
_NOT_INSTALLED = {
    "easyr1": "not installed: it is on no package index, and its package has the name of verl's",
}
"""Engines whose own code the tests do not have, and why."""

_TEXT = """\
# Engines and what is tested of them

This page is written by `make test-conformance`, which installs each engine on the CPU in an environment of its own, and
runs [exports](export.md) through the engine's own code. "Same score" means: every golden completion (perfect, empty,
empty tag, duplicates, whole-image box, NaN, truncated, 100 KB of junk, refusal right and wrong, another turn inside)
gets the total that the evaluator gives it, through the engine's loader and reward path, for detection, grounding and
classification.

{table}

| column | what the tests do |
|---|---|
| reward | the engine loads the reward file and scores golden completions with it |
| data | the engine's own loader reads the data; questions, truths and image sizes are those of the task |
| SFT | the engine's own loader reads the lessons, each of which ends in the gold completion |
| options | the engine's own parser takes what `launch.sh` and the configuration give it |
| several machines | by what `launch.sh` starts on each. No training on several machines was run for this page |

{missing}

No step is trained in these tests: engines train on GPUs. Results: `tests/conformance/results.json`.
"""


def page(results: dict[str, Any]) -> str:
    """The page that ``results`` give."""
    lines = [
        "| engine | version | reward | data | SFT | options | several machines | last checked |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in ("trl", *ENGINES):
        lines.append("| " + " | ".join(_cells(name, results.get(name))) + " |")
    missing = "\n".join(f"- {name}: {why}." for name, why in _NOT_INSTALLED.items())
    return _TEXT.format(table="\n".join(lines), missing="Not tested with the engine's own code:\n\n" + missing)


def _cells(name: str, found: dict[str, Any] | None) -> list[str]:
    stages = ENGINES[name].stages if name in ENGINES else ("grpo", "sft")
    shown = f"[{name}]({name}.md)" if name in ENGINES else "[TRL](train.md)"
    if found is None:
        written = "written, not tested"
        sft = written if "sft" in stages else "none"
        reward = written if "grpo" in stages else "none"
        return [shown, ENGINES[name].version, reward, written, sft, written, _MULTI_NODE[name], "never"]
    aspects = found["aspects"]

    def said(aspect: str, stage: str | None = None) -> str:
        if stage is not None and stage not in stages:
            return "none"
        outcome = aspects.get(aspect)
        if outcome is None:
            return "see [train](train.md)" if name == "trl" else "not tested"
        return ("same score" if aspect == "reward" else "passes") if outcome == "passed" else "**fails**"

    return [
        shown,
        found["version"],
        said("reward", "grpo"),
        said("data"),
        said("sft", "sft"),
        said("options"),
        _MULTI_NODE[name],
        found["checked"],
    ]


def main() -> int:
    """Write the page, or with ``--check`` say whether it is up to date."""
    text = page(json.loads(RESULTS.read_text(encoding="utf-8")))
    if "--check" in sys.argv[1:]:
        return int(not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text)
    PAGE.write_text(text, encoding="utf-8")
    print(f"written: {PAGE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
