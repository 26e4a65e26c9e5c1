"""The Ray cluster of a run: joined, or started on this machine.

Scheduling, processes and the object store are Ray's. A cluster that was joined is left as it was found.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.replica import IncludedFile, Replica

CPUS_OF_A_REPLICA = 0.5
"""On a cluster that others use. Whole CPUs would leave no room on a small machine for anything but replicas."""

OBJECT_STORE_BYTES = 150 << 20
"""Of a cluster that is started here, whose replicas read the images themselves."""


logger = logging.getLogger(__name__)

_QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
_CONNECTION_FAILURES = (OSError, RuntimeError, ValueError, ImportError)
"""``ConnectionError`` is an ``OSError``; a cluster of another version is a ``RuntimeError``."""


class Cluster:
    """A Ray cluster that this process is connected to; :meth:`leave` it.

    ``address`` is as Ray takes it (``auto``, ``ray://HOST:PORT``); ``None`` starts a cluster on this machine, with room
    for ``replicas``. A process that is connected already stays where it is. Raises :class:`BackendError` where no
    cluster answers, :class:`UserError` where this machine lacks the GPUs.
    """

    def __init__(self, address: str | None, replicas: int, gpus_per_replica: float) -> None:
        self._ray = _import_ray()
        self._gpus = gpus_per_replica
        self._cpus = CPUS_OF_A_REPLICA
        self._connected_here = not self._ray.is_initialized()
        self.is_local = self._connected_here and address is None
        if not self._connected_here:
            return
        if address is None:
            self._start(replicas)
        else:
            self._join(address)
        if not gpus_per_replica and (there := self._total("GPU")):
            logger.warning(
                "the replicas use none of the cluster's %g GPUs: --gpus-per-replica 1 gives one to each", there
            )

    def actor(self, model: str, args: Mapping[str, Any], files: Sequence[IncludedFile]) -> Any:
        """A new :class:`Replica`, on whichever node has room for it; until there is one, it waits."""
        options = {"num_cpus": self._cpus, "num_gpus": self._gpus, "scheduling_strategy": "SPREAD", "max_restarts": 0}
        made = self._ray.remote(Replica).options(**options)
        return made.remote(model, dict(args), list(files), str(Path.cwd()), on_gpu=self._gpus > 0)

    def room(self) -> str:
        """What a replica needs and what the cluster has left, in words."""
        free = self._ray.available_resources()
        return (
            f"each needs {self._gpus:g} GPU and {self._cpus:g} CPU on one machine; of the cluster's "
            f"{self._total('GPU'):g} GPU and {self._total('CPU'):g} CPU, {free.get('GPU', 0.0):g} and "
            f"{free.get('CPU', 0.0):g} are free"
        )

    def leave(self) -> None:
        """Disconnect, which ends a cluster that was started here."""
        if self._connected_here:
            self._ray.shutdown()

    def _start(self, replicas: int) -> None:
        # A cluster of our own has as many CPUs as its replicas share, so none of them has to wait for one. Ray lets
        # each use as many threads as it has CPUs.
        self._cpus = 1.0 if self._gpus else max(1, (os.cpu_count() or 1) // replicas)
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with _own_signals():
            self._ray.init(
                address="local",
                num_cpus=int(self._cpus * replicas),
                object_store_memory=OBJECT_STORE_BYTES,
                **_QUIET,
            )
        if (there := self._total("GPU")) < self._gpus * replicas:
            self.leave()
            raise UserError(
                f"--replicas {replicas} --gpus-per-replica {self._gpus:g}: this machine has {there:g} GPUs",
                fix="ask for less, or join a cluster that has them: --address auto",
            )

    def _join(self, address: str) -> None:
        try:
            with _own_signals():
                self._ray.init(address=address, **_QUIET)
        except _CONNECTION_FAILURES as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise BackendError(
                f"--address {address!r}: no Ray cluster can be joined there: {reason}",
                fix="start one (`ray start --head`), or correct the address; if the cluster asks for a token, export "
                "RAY_AUTH_MODE=token and bring the token here (Ray's page on token authentication says how)",
            ) from error

    def _total(self, resource: str) -> float:
        return float(self._ray.cluster_resources().get(resource, 0.0))


def _import_ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UserError("--executor ray needs ray, not installed here", fix="pip install 'vrft-bench[ray]'") from None
    return ray


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Ray's way of connecting, but for two of its habits, for which Ray 2.60 has no setting.

    It takes over SIGTERM. And it prints what happens to processes of the cluster on stdout, where results go.
    """
    from ray._private import worker

    worker._worker_logs_enabled = False
    previous = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_DFL if previous is None else previous)
