"""``vrft-bench serve-reward``: the score over HTTP."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.options import Debug, Include
from vrft_bench.trainers.cli.options import Reward


def serve_reward(
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="Tasks that are scored, comma-separated. Default: all.")
    ] = None,
    reward: Reward = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for other machines.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any that is free.")] = 8080,
    max_body: Annotated[int, typer.Option("--max-body", min=1, help="Largest request in MiB.")] = 16,
    include: Include = None,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Score completions over HTTP, until Ctrl-C: POST /score takes a batch, GET /health says that it runs.

    Nobody is asked who they are, so listen on other addresses only where the network keeps strangers out.
    """
    from vrft_bench.registry import include as include_file
    from vrft_bench.tasks import get_task, select_tasks
    from vrft_bench.trainers.export.server import RewardServer, score_by_truth

    for file in include or ():
        include_file(file)
    names = select_tasks(part.strip() for part in task.split(",")) if task is not None else []
    if reward is not None:
        if not names:
            raise UserError("--reward names rewards of a task's family, and no task is given", fix="say --task NAME")
        for name in names:
            get_task(name).rewarded_by(reward)
    server = RewardServer((host, port), score_by_truth(names, reward), max_body=max_body << 20)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    typer.echo(f"listening on {server.url}")
    with server:
        server.serve_forever()
