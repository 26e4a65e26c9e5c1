"""``python -m vrft_bench.harness.models.kept_process OWNER MODULE ARGUMENT...``: runs MODULE while process OWNER lives.

When OWNER is gone, this process group ends with it: even where OWNER was killed and could tell nobody.
"""

from __future__ import annotations

import contextlib
import os
import runpy
import select
import signal
import sys
import threading
import time

GRACE = 5.0
"""Seconds between asking the group to end and killing it."""


def main() -> None:
    owner, module, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(owner),), daemon=True).start()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _end_with(owner: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        select.select([os.pidfd_open(owner)], [], [])
    os.killpg(0, signal.SIGTERM)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
