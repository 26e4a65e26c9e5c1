"""Lets the CUDA build of torchvision, the only one on PyPI, be imported beside a CPU build of torch.

    .venv-vllm/bin/python scripts/torchvision_beside_cpu_torch.py

puts this file into that environment, where Python reads it at every start. That costs nothing until torchvision is
imported: then the two operators are declared that its compiled part would declare, and that its Python part expects.
Every process of an engine imports torchvision, so no program could do this for all of them.

Not needed where torchvision is a CPU build too.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path
from typing import Any

OPERATORS = ("nms", "qnms")


class TorchvisionFinder:
    """Finds nothing itself; comes before those that do, and out of the way at the first import of torchvision."""

    library: Any = None

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:  # noqa: ARG002
        if name != "torchvision":
            return
        sys.meta_path.remove(self)  # type: ignore[arg-type]
        import torch

        if torch.version.cuda is None:
            TorchvisionFinder.library = torch.library.Library("torchvision", "FRAGMENT")  # kept: it is undone with it
            for operator in OPERATORS:
                self.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


def main() -> None:
    packages = Path(sysconfig.get_path("purelib"))
    here = Path(__file__).resolve()
    shutil.copy(here, packages / here.name)
    (packages / f"{here.stem}.pth").write_text(f"import {here.stem}\n")


if __name__ == "__main__":
    main()
else:
    sys.meta_path.insert(0, TorchvisionFinder())  # type: ignore[arg-type]
