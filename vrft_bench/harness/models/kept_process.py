"""``python -m vrft_bench.harness.models.kept_process MODULE ARGUMENT...``: runs MODULE for as long as somebody cares.

Standard input is a pipe that nothing is ever written to. When its other end closes, the process that started this one
is gone, and this process group ends with it: even where that process was killed and could tell nobody.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time

GRACE = 5.0
"""Seconds between asking the group to end and killing it."""


def main() -> None:
    module, arguments = sys.argv[1], sys.argv[2:]
    threading.Thread(target=_end_with_the_pipe, args=(sys.stdin.fileno(),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with_the_pipe(descriptor: int) -> None:
    while os.read(descriptor, 1024):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
