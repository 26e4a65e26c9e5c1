"""A task's questions as the rows of an export, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.plan import RunPlan
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.export.base import PLACEHOLDER, Messages, Row, Stage
from vrft_bench.trainers.export.images import ImageFolder

TRAIN = "data/train"
_PLACEHOLDERS = (PLACEHOLDER, "<video>", "<audio>", "<|image_pad|>", "<|video_pad|>")
_EVALUATIONS_MARK = PLACEHOLDER + "\n"
"""What the paper's evaluation script, and so its protocol, writes before a question beside the real image. The paper's
training data do not have it, and an engine would take it for a second image."""
_ROWS_PER_GROUP = 128
"""Rows of a parquet file's row group. The questions about one image share its bytes within a group."""


def export_rows(plan: RunPlan, images: ImageFolder, stage: Stage, manifest: Path | None) -> list[Row]:
    """The rows of ``plan``'s samples, whose images are written to ``images``: what `train` gives TRL, to the letter."""
    found = training_rows(plan, manifest, gold=stage == "sft")
    rows = []
    for row, ref in zip(found.rows, found.images, strict=True):
        messages = [
            {**message, "content": message["content"].removeprefix(_EVALUATIONS_MARK)} for message in row["prompt"]
        ]
        _refuse_placeholders(row["sample_id"], [*messages, *row.get("completion", [])])
        rows.append(
            Row(
                sample_id=row["sample_id"],
                messages=_with_placeholder(messages),
                images=[images.add(ref)],
                ground_truth=row["ground_truth"],
                completion=row["completion"][0]["content"] if stage == "sft" else None,
            )
        )
    return rows


def _with_placeholder(messages: Messages) -> Messages:
    """The messages with the placeholder before the first user's text, which is where trainers put an image."""
    first = next((index for index, message in enumerate(messages) if message["role"] == "user"), None)
    if first is None:
        raise UserError("the task's messages have no user turn", fix="let messages() ask a question")
    return [
        {**message, "content": PLACEHOLDER + message["content"]} if index == first else dict(message)
        for index, message in enumerate(messages)
    ]


def _refuse_placeholders(sample_id: str, messages: Messages) -> None:
    for mark in _PLACEHOLDERS:
        if any(mark in message["content"] for message in messages):
            raise DataError(
                f"sample {sample_id!r} holds the text {mark}, which training engines replace by an image",
                fix="reword the category or instruction",
            )


def single_prompt(row: Row) -> str:
    """The text of a row whose only message is the user's. Raises :class:`UserError` for one that has more."""
    if len(row.messages) != 1:
        raise UserError(
            f"this engine takes one text as the prompt, and sample {row.sample_id!r} has {len(row.messages)} messages",
            fix="choose an engine that takes messages: verl, ms-swift or openrlhf",
        )
    return row.messages[0]["content"]


def as_chat(row: Row) -> dict[str, Any]:
    """What an engine that takes chats is given of ``row``."""
    return {
        "messages": row.conversation,
        "images": row.images,
        "ground_truth": row.ground_truth,
        "sample_id": row.sample_id,
    }


def from_chat(value: dict[str, Any], stage: Stage) -> Row:
    """The row of :func:`as_chat`."""
    messages, completion = value["messages"], None
    if stage == "sft":
        *messages, answer = messages
        completion = answer["content"]
    return Row(value["sample_id"], messages, value["images"], value["ground_truth"], completion)


def write_jsonl(file: Path, values: Iterable[dict[str, Any]]) -> None:
    """A line per value, in UTF-8."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", encoding="utf-8", newline="\n") as lines:
        for value in values:
            lines.write(json.dumps(value, ensure_ascii=False) + "\n")


def read_jsonl(file: Path) -> Iterator[dict[str, Any]]:
    """The values of :func:`write_jsonl`."""
    with file.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write_parquet(file: Path, values: Iterable[dict[str, Any]], schema: Any) -> None:
    """A row per value. Columns of the type :func:`image_type` hold the bytes of the files that they are given.

    Raises :class:`UserError` where pyarrow is not installed.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    file.parent.mkdir(parents=True, exist_ok=True)
    # PNG does not compress, but a question about the same image is one number more in a dictionary of its bytes.
    options = {"use_dictionary": True, "dictionary_pagesize_limit": 1 << 30, "compression": "zstd"}
    with pq.ParquetWriter(file, schema, **options) as writer:
        group: list[dict[str, Any]] = []
        for value in values:
            group.append(value)
            if len(group) == _ROWS_PER_GROUP:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def read_parquet(file: Path) -> Iterator[dict[str, Any]]:
    """The values of :func:`write_parquet`, a row group at a time."""
    import pyarrow.parquet as pq

    stored = pq.ParquetFile(file)
    for index in range(stored.num_row_groups):
        yield from stored.read_row_group(index).to_pylist()


def image_type() -> Any:
    """The type of an image in parquet as ``datasets`` has it: its bytes, and the name that it had as a file."""
    import pyarrow as pa

    return pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image_values(folder: Path, names: list[str]) -> list[dict[str, Any]]:
    """Values of the type :func:`image_type`."""
    return [{"bytes": (folder / name).read_bytes(), "path": name} for name in names]


def image_names(folder: Path, values: list[dict[str, Any]]) -> list[str]:
    """The names of :func:`image_values`. Raises ``ValueError`` where the bytes are not those of the file."""
    for value in values:
        if value["bytes"] != (folder / value["path"]).read_bytes():
            raise ValueError(f"the bytes of {value['path']} are not those of the file")
    return [value["path"] for value in values]


def require_pyarrow() -> None:
    """Raise :class:`UserError` where it is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise UserError(
            "this engine reads parquet, which pyarrow writes", fix="pip install 'vrft-bench[data]'"
        ) from None
