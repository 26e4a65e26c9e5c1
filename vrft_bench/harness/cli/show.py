"""``vrft-bench show TASK``: one real sample from question to score, as the model and the scorer see it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.data_root import with_data_root
from vrft_bench.harness.cli.options import (
    Annotations,
    AsJson,
    Ask,
    Categories,
    Data,
    Debug,
    Images,
    Include,
    Split,
    prepared,
)


def show(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    sample_id: Annotated[
        str | None, typer.Option("--sample-id", help="Which sample; default: the first that has something to find.")
    ] = None,
    profile: Annotated[str, typer.Option(help="Whose coordinates to speak (see `ls profiles`).")] = "qwen2-vl",
    protocol: Annotated[str, typer.Option(help="strict or paper.")] = "strict",
    data: Data = None,
    split: Split = None,
    categories: Categories = None,
    ask: Ask = None,
    annotations: Annotations = None,
    images: Images = None,
    include: Include = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Show one sample of a task: prompt, chat messages, truth, gold completion and its scores."""
    from vrft_bench.registry import PROFILES
    from vrft_bench.tasks import get_task
    from vrft_bench.tasks.base import BoxTarget, target_to_json
    from vrft_bench.tasks.coordinates import Frame

    config = prepared(
        include,
        protocol=protocol,
        data=data,
        split=split,
        categories=categories,
        ask=ask,
        annotations=annotations,
        images=images,
    )
    chosen = get_task(task, config.protocol)
    dataset = chosen.load(with_data_root(config, chosen).data_spec())
    sample = next(
        (
            sample
            for sample in dataset.samples()
            if (
                sample.id == sample_id if sample_id else not isinstance(sample.target, BoxTarget) or sample.target.boxes
            )
        ),
        None,
    )
    if sample is None:
        raise UserError(
            f"task {task!r} has no sample {sample_id!r}" if sample_id else f"no sample of task {task!r} has truth",
            fix="leave out --sample-id to see the first one, or ask for other --categories",
        )
    frame = Frame(PROFILES.get(profile), sample.image.width, sample.image.height)
    gold = chosen.gold(sample, frame)
    prediction = chosen.parse(gold, frame)
    view: dict[str, Any] = {
        "task": chosen.name,
        "version": chosen.version,
        "protocol": chosen.protocol,
        "data": "sample" if dataset.is_sample else "real",
        "split": dataset.split,
        "sample": sample.id,
        "image": {
            "file": str(sample.image.path) if sample.image.path else None,
            "size": [frame.width, frame.height],
            "model_sees": list(frame.profile.processed_size(frame.width, frame.height)),
        },
        "profile": frame.profile.name,
        "convention": frame.profile.convention,
        "messages": chosen.messages(sample, frame.profile),
        "truth": target_to_json(sample.target),
        "truth_in_model_units": _model_truth(sample.target, frame),
        "gold": gold,
        "prediction": prediction.to_json(),
        "scores": chosen.judge(prediction, sample.target).to_json(),
    }
    typer.echo(json.dumps(view, indent=2) if as_json else _page(view))


def _model_truth(target: Any, frame: Any) -> list[list[float]] | str:
    from vrft_bench.tasks.base import BoxTarget, ClassTarget

    if isinstance(target, ClassTarget):
        return target.label
    boxes = target.boxes if isinstance(target, BoxTarget) else (target.box,)
    return [list(frame.to_model(box)) for box in boxes]


def _page(view: dict[str, Any]) -> str:
    image = view["image"]
    size = "{}x{}".format(*image["size"])
    sees = "{}x{}".format(*image["model_sees"])
    prompt = next(part["text"] for part in view["messages"][-1]["content"] if part["type"] == "text")
    truth = {key: item for key, item in view["truth"].items() if key not in ("kind", "areas", "crowd_areas")}
    sections = [
        ("task", f"{view['task']} version {view['version']}, protocol {view['protocol']}, data: {view['data']}"),
        ("sample", f"{view['sample']} (split {view['split']})"),
        ("image", f"{image['file'] or 'in the row itself'}\n{size} pixels; a {view['profile']} model sees {sees}"),
        ("prompt", prompt),
        ("chat messages", json.dumps(view["messages"], indent=2)),
        ("truth, in original pixels (x1, y1, x2, y2)", json.dumps(truth)),
        (f"truth, as the model writes it ({view['convention']})", json.dumps(view["truth_in_model_units"])),
        ("gold completion", view["gold"]),
        ("scores of the gold completion", json.dumps(view["scores"])),
    ]
    return "\n\n".join(f"{title}\n" + "\n".join(f"  {line}" for line in text.splitlines()) for title, text in sections)
