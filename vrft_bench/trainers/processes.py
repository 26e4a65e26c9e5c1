"""Which of a training's processes this is, and how they agree. One process is the ordinary case, and needs no torch.

``accelerate launch`` and ``torchrun`` tell each process its number in the environment. The first one alone writes into
the training's folder; what it finds or decides there is told to the others, so that none of them waits for one that
has stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, cast

from vrft_bench.errors import UserError

_Found = TypeVar("_Found")


def process_count() -> int:
    """How many processes train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return int(os.environ.get("RANK", "0")) == 0


def holds_a_part() -> bool:
    """Whether each process holds only a part of the model (ZeRO-3, FSDP), so that none can answer by itself."""
    from transformers.integrations import is_deepspeed_zero3_enabled

    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true" or bool(is_deepspeed_zero3_enabled())


def told_by_first(work: Callable[[], _Found]) -> _Found:
    """What ``work`` gives in the first process, in all of them; nobody goes on before it is done.

    A :class:`UserError` there is raised in all of them, so that they end together. Takes picklable results only.
    """
    if process_count() == 1:
        return work()
    said: list[Any] = [(None, UserError("the first process failed", fix="see what it says"))]
    if is_first():
        try:
            said = [(work(), None)]
        except UserError as error:
            said = [(None, error)]
        finally:
            _broadcast(said)
    else:
        _broadcast(said)
    found, failure = said[0]
    if failure is not None:
        raise failure
    return cast(_Found, found)


def any_says(yes: bool) -> bool:
    """Whether any process says yes. All of them have to ask."""
    if process_count() == 1:
        return yes
    import torch
    import torch.distributed as processes
    from accelerate import PartialState

    said = torch.tensor(int(yes), device=PartialState().device)
    processes.all_reduce(said, op=processes.ReduceOp.MAX)
    return bool(said.item())


def wait_for_all() -> None:
    """Return when every process has come here."""
    told_by_first(lambda: None)


def _broadcast(said: list[Any]) -> None:
    import torch.distributed as processes
    from accelerate import PartialState

    processes.broadcast_object_list(said, src=0, device=PartialState().device)
