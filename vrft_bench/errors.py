"""The vocabulary of what can go wrong for a user, and the exit code that each kind ends with.

A :class:`UserError` is a mistake that the user can mend: it is shown as one message without a traceback (``--debug``
shows it). The message says what was given, what is valid, and how to fix it. Anything that is not a ``UserError`` is
a defect of ours and is shown with its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ExitCode:
    """Process exit codes. 130 follows the shell's convention for an interrupt (128 + SIGINT)."""

    OK = 0
    GATE_FAILED = 1
    USAGE = 2
    DATA_MISSING = 3
    BACKEND_FAILED = 4
    PARTIAL = 5
    INTERRUPTED = 130


class UserError(Exception):
    """Something the user asked for cannot be done.

    ``message`` says what was given and why it cannot work; ``fix`` says what to do, and is printed on its own line.
    """

    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, fix: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.fix = fix

    def __str__(self) -> str:
        return f"{self.message}\n  fix: {self.fix}" if self.fix else self.message


class DataError(UserError):
    """A file of the data is missing, unreadable, or not what its format promises."""

    exit_code = ExitCode.DATA_MISSING


class BackendError(UserError):
    """A model cannot be loaded or has stopped answering."""

    exit_code = ExitCode.BACKEND_FAILED


class PartialRunError(UserError):
    """A run stopped before its end; what it finished is kept and the same command resumes it."""

    exit_code = ExitCode.PARTIAL


class RunInterrupted(PartialRunError):  # noqa: N818 - an interruption is no error
    """A run was stopped by Ctrl-C or SIGTERM; what it finished is kept and the same command resumes it."""

    exit_code = ExitCode.INTERRUPTED


def did_you_mean(given: str, valid: Iterable[str], *, limit: int = 3) -> str:
    """Names near ``given`` to end a message with: ``"; did you mean 'a' or 'b'?"``, or ``""`` if none is near."""
    lowered = {name.lower(): name for name in valid}
    near = [lowered[hit] for hit in difflib.get_close_matches(given.lower(), list(lowered), n=limit, cutoff=0.5)]
    near += [name for key, name in lowered.items() if given and given.lower() in key and name not in near]
    if not near:
        return ""
    return "; did you mean " + " or ".join(repr(name) for name in near[:limit]) + "?"
