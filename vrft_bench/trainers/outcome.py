"""How the processes of one training tell the command that launched them why they ended.

``accelerate launch`` makes exit code 1 of whatever ended them. The first process that fails therefore writes its own
error where the environment names a file, before the others are stopped because of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vrft_bench.errors import ExitCode, UserError

VARIABLE = "VRFT_BENCH_OUTCOME"


@contextlib.contextmanager
def report_outcome() -> Iterator[None]:
    """Ends this process as the command line would: with an error's own exit code, its message on stderr."""
    try:
        yield
    except UserError as error:
        if _is_first_to_fail({"exit_code": error.exit_code, "message": error.message, "fix": error.fix}):
            print(f"error: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        _is_first_to_fail({"exit_code": ExitCode.INTERRUPTED, "message": "interrupted", "fix": None})
        sys.exit(ExitCode.INTERRUPTED)


def raise_outcome(file: Path) -> None:
    """Raise the error that :func:`report_outcome` left in ``file``; nothing where there is none."""
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    error = UserError(said["message"], fix=said["fix"])
    error.exit_code = said["exit_code"]
    raise error


def _is_first_to_fail(said: dict[str, object]) -> bool:
    """Whether no other process has said why before this one. Without a file to say it in, the first process speaks."""
    name = os.environ.get(VARIABLE)
    if name is None:
        return int(os.environ.get("RANK", "0")) == 0
    try:
        with Path(name).open("x", encoding="utf-8") as file:
            json.dump(said, file)
    except OSError:
        return False
    return True
