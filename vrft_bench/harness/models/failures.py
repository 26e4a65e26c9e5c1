"""What a failed forward pass means for the run: another try with fewer samples, or its end."""

from __future__ import annotations

from dataclasses import dataclass

from vrft_bench.errors import BackendError
from vrft_bench.registry import failure_reason

ANY_FAILURE = (Exception,)
"""A processor, a model's own code and the GPU may raise anything about one sample; the others are answered still."""

_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cublas_status_alloc_failed")
_GPU_IS_LOST = ("device-side assert", "illegal memory access", "unspecified launch failure")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a batch has no answers. Without the exception, whose traceback would keep the batch's tensors in memory."""

    reason: str
    out_of_memory: bool


def judge_failure(error: Exception) -> Failure:
    """What ``error`` says of a batch. Raises :class:`BackendError` where nothing can be computed after it.

    CUDA answers every later call with the same error once a kernel has failed an assertion or a memory access.
    """
    if any(sign in str(error).lower() for sign in _GPU_IS_LOST):
        raise BackendError(
            f"the GPU cannot go on after {failure_reason(error)}",
            fix="repeat the command: it resumes. If it stops again, -M device=cpu shows the reason (often a token that "
            "the model has no embedding for)",
        ) from error
    if is_out_of_memory(error):
        return Failure("out of memory for this sample alone", out_of_memory=True)
    return Failure(f"the model fails on it: {failure_reason(error)}", out_of_memory=False)


def is_out_of_memory(error: Exception) -> bool:
    """Whether ``error`` says that memory ran out, on the GPU or on the CPU, where torch raises ``RuntimeError``."""
    return isinstance(error, MemoryError) or any(sign in str(error).lower() for sign in _OUT_OF_MEMORY)
