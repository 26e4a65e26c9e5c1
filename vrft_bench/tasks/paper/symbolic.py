"""Symbolic verification: whether the math-verify library takes completion and solution for equal.

The reference asks this first, of every completion, and pays the full reward where the answer is yes. Of a detection
answer the library picks one number, the y1 of the first box, so this is a comparison of two numbers.

The reference's time limit (5 s) is a signal, which only the main thread can take and which does not interrupt the
arithmetic of a number such as 10^10^10. So here what may take long is verified in a process of its own, which is ended
at the limit, and the rest without a limit: the result is the same in every thread.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from functools import lru_cache
from typing import Any

from vrft_bench.errors import UserError

TIME_LIMIT = 8.0
"""Seconds for one verification in a process of its own, of which starting it takes about one."""

LONGEST, LONGEST_LATEX = 5_000, 500
"""Characters of a text that is verified in this process, without LaTeX and with it."""

_POWER = re.compile(r"\^|[\d)]\s*\*\*\s*[-(\d]")
_LATEX = re.compile(r"\$|\\[(\[a-zA-Z]")
_LATEX_THAT_GROWS = re.compile(r"!|\\(?!boxed\b)[a-zA-Z]")
_CHILD = """
import sys
from math_verify import parse, verify
try:
    import resource
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
except (ImportError, OSError, ValueError):
    pass
completion, solution = sys.stdin.buffer.read().decode("utf-8", "surrogatepass").split("\\0\\0", 1)
sys.exit(0 if verify(parse(completion), parse(solution)) else 1)
"""


def require_library() -> None:
    """Raises :class:`UserError` where math-verify is not installed."""
    _library()


@lru_cache(maxsize=8)
def verified(completion: str, solution: str) -> bool:
    """Whether ``verify(parse(completion), parse(solution))`` holds; false where it fails or takes too long.

    Raises :class:`UserError` where math-verify is not installed. The last few results are kept, since the rewards of
    one completion all ask for the same.
    """
    truth = _parsed_solution(solution)
    if not truth:
        return False  # the library found nothing to compare with
    if may_take_long(completion):
        return _verified_apart(completion, solution)
    parse, verify = _library()
    try:
        return bool(verify(parse(completion, parsing_timeout=None), list(truth), timeout_seconds=None))
    except Exception:  # noqa: BLE001 - the reference goes on after whatever the library raises
        return False


def may_take_long(completion: str) -> bool:
    """Whether the library might compute with this text for seconds: long ones, powers, factorials and much LaTeX.

    The slowest of the others that a search found took about two seconds (``benchmarks/fuzz_symbolic.py``).
    """
    if len(completion) > LONGEST or _POWER.search(completion):
        return True
    if not _LATEX.search(completion):
        return False
    return len(completion) > LONGEST_LATEX or bool(_LATEX_THAT_GROWS.search(completion))


@lru_cache(maxsize=1024)
def _parsed_solution(solution: str) -> tuple[Any, ...]:
    parse, _ = _library()
    return tuple(parse(solution, parsing_timeout=None))


def _verified_apart(completion: str, solution: str) -> bool:
    said = f"{completion.replace(chr(0), ' ')}\0\0{solution}".encode("utf-8", "surrogatepass")
    try:
        done = subprocess.run([sys.executable, "-c", _CHILD], input=said, capture_output=True, timeout=TIME_LIMIT)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _library() -> tuple[Any, Any]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise UserError(
            "the rewards of protocol paper need the package math-verify, which is not installed",
            fix="pip install 'vrft-bench[paper]' (or score by the sound rules: --protocol strict)",
        ) from error
    # It warns once that its time limit is off, which is what this module is about.
    logging.getLogger("math_verify").setLevel(logging.ERROR)
    return parse, verify
