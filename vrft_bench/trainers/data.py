"""A task's questions as training data: messages, image and portable truth, read from the task and nowhere else.

Images are resized by the profile's rule when a row is read. Smart-resize leaves its own results alone, so whatever the
engine resizes later changes nothing, and boxes in pixels of the resized image stay right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.images import ImageCache, ImageError
from vrft_bench.harness.plan import RunPlan
from vrft_bench.tasks.base import ImageRef, Sample
from vrft_bench.tasks.coordinates import Frame, ModelProfile

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class TrainingRows:
    """The selected samples in order, each with its prompt, truth and gold completion.

    ``rows`` holds what a dataset's columns hold but for the image; ``images`` is in the same order.
    """

    rows: list[dict[str, Any]]
    images: list[ImageRef]

    def __len__(self) -> int:
        return len(self.rows)


def training_rows(plan: RunPlan, manifest: Path | None = None, *, gold: bool = False) -> TrainingRows:
    """The rows of ``plan``'s samples; only those that ``manifest`` lists, where there is one.

    With ``gold`` each row has a ``completion``: the task's gold completion in the profile's convention. Raises
    :class:`DataError` where nothing is left, and :class:`UserError` for a manifest of other data.
    """
    wanted = None if manifest is None else _wanted(manifest, plan)
    found = TrainingRows([], [])
    for sample in plan.walk():
        if wanted is not None and sample.id not in wanted:
            continue
        found.rows.append(_row(plan, sample, gold=gold))
        found.images.append(sample.image)
    if not found.rows:
        raise DataError(
            f"nothing to train on: split {plan.dataset.split!r} of {plan.task.name} has no sample that is selected",
            fix="widen --split, --shots, --categories, --limit or --manifest",
        )
    return found


def trained_images(plan: RunPlan, rows: TrainingRows) -> set[Path]:
    """The image files that ``plan`` asks about and ``rows`` train on. Images that lie in tables of rows have none."""
    trained = {image.path.absolute() for image in rows.images if image.path is not None}
    asked = {sample.image.path.absolute() for sample in plan.walk() if sample.image.path is not None}
    return asked & trained


def training_dataset(found: TrainingRows, profile: ModelProfile) -> Dataset:
    """A ``datasets.Dataset`` with ``prompt``, ``image``, ``ground_truth``, ``sample_id`` (and ``completion``).

    The image, resized, is added when a row is read, from a cache that decodes each image once.
    """
    from datasets import Dataset

    columns = {name: [row[name] for row in found.rows] for name in found.rows[0]}
    dataset = Dataset.from_dict({**columns, "image_index": list(range(len(found)))})
    dataset.set_transform(_WithImage(found.images, profile))
    return dataset


class _WithImage:
    """Adds the ``image`` column to a batch of rows. Picklable, so that worker processes can have it."""

    def __init__(self, images: list[ImageRef], profile: ModelProfile) -> None:
        self.images = images
        self.profile = profile
        self._cache = ImageCache()

    def __call__(self, batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        wanted = batch.get("image_index")
        if wanted is None:
            return batch
        rest = {name: values for name, values in batch.items() if name != "image_index"}
        return {**rest, "image": [self._image(self.images[index]) for index in wanted]}

    def _image(self, ref: ImageRef) -> Image:
        try:
            image = self._cache.load(ref).image
        except ImageError as error:
            raise DataError(f"a training image cannot be used: {error}", fix="mend or leave out the image") from error
        return resized(image, self.profile)

    def __getstate__(self) -> tuple[list[ImageRef], ModelProfile]:
        return self.images, self.profile

    def __setstate__(self, state: tuple[list[ImageRef], ModelProfile]) -> None:
        self.__init__(*state)  # type: ignore[misc]


def resized(image: Image, profile: ModelProfile) -> Image:
    """``image`` at the size that the profile's rule gives it, as the processor would resize it (bicubic)."""
    from PIL.Image import Resampling

    size = profile.processed_size(*image.size)
    return image if size == image.size else image.resize(size, Resampling.BICUBIC)


def check_grids(found: TrainingRows, profile: ModelProfile, processor: Any, *, rows: int = 8) -> None:
    """Raise :class:`DataError` unless the processor keeps the size that the truth of the first ``rows`` is written for.

    In a convention of resized pixels, any other size would put every box in the wrong place; in the others it does not
    matter, and a processor that does not tell its grid is let pass.
    """
    patch = getattr(processor.image_processor, "patch_size", None)
    add_image = _WithImage(found.images, profile)
    for index in range(min(rows, len(found))):
        image = add_image({"image_index": [index]})["image"][0]
        grid = processor.image_processor(images=[image], return_tensors="pt").get("image_grid_thw")
        if grid is None or patch is None:
            if profile.convention == "abs_resized":
                raise DataError(
                    f"profile {profile.name!r} writes pixels of the resized image, and the model's processor does not "
                    "tell what size that is",
                    fix="choose the profile of this model with --profile",
                )
            return
        _, high, wide = grid[0].tolist()
        if (wide * patch, high * patch) != image.size:
            raise DataError(
                f"sample {found.rows[index]['sample_id']!r}: profile {profile.name!r} resizes the image to "
                f"{image.size[0]}x{image.size[1]} pixels, and the model's processor to {wide * patch}x{high * patch}",
                fix="choose the profile of this model with --profile, or give the processor's limits with "
                "--min-pixels and --max-pixels",
            )


def write_training_manifest(path: Path, plan: RunPlan, sample_ids: list[str], about: dict[str, Any]) -> None:
    """Write which samples of ``plan``'s data to train on, for ``train --manifest``. Replaces a file atomically."""
    from vrft_bench.harness.store import write_json

    write_json(path, {"format": MANIFEST_FORMAT, **_data(plan), **about, "samples": sample_ids})


def _wanted(path: Path, plan: RunPlan) -> frozenset[str]:
    fix = (
        "give a manifest that `vrft-bench probe` wrote for the same task, data and profile, with the same --split, "
        "--shots, --limit, --categories and --ask"
    )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        told = {name: content[name] for name in ("format", *_data(plan))}
        samples = content["samples"]
    except OSError as error:
        raise UserError(f"--manifest {path}: {error.strerror}", fix=fix) from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"--manifest {path} is no training manifest: {error!r}", fix=fix) from error
    for name, mine in {"format": MANIFEST_FORMAT, **_data(plan)}.items():
        if told[name] != mine:
            raise UserError(f"--manifest {path} is of {name} {told[name]!r}, and this training of {mine!r}", fix=fix)
    return frozenset(samples)


def _data(plan: RunPlan) -> dict[str, Any]:
    return {
        "task": plan.task.name,
        "version": plan.task.version,
        "protocol": plan.task.protocol,
        "split": plan.dataset.split,
        "data_sha256": plan.survey.sha256,
    }


def _row(plan: RunPlan, sample: Sample, *, gold: bool) -> dict[str, Any]:
    frame = Frame(plan.profile, sample.image.width, sample.image.height, _settled_size(plan.profile, sample))
    row: dict[str, Any] = {
        "prompt": list(_plain(plan.task.messages(sample, plan.profile))),
        "ground_truth": plan.task.ground_truth(sample, frame),
        "sample_id": sample.id,
    }
    if gold:
        row["completion"] = [{"role": "assistant", "content": plan.task.gold(sample, frame)}]
    return row


def _settled_size(profile: ModelProfile, sample: Sample) -> tuple[int, int]:
    """(width, height) that the image is resized to. Raises :class:`DataError` where resizing again would change that.

    The rule settles at once for any image but the thinnest: rounding to whole patches changes their aspect ratio.
    """
    try:
        size = profile.processed_size(sample.image.width, sample.image.height)
        again = profile.processed_size(*size)
    except UserError as error:
        raise DataError(f"sample {sample.id!r}: {error.message}", fix="crop the image, or leave it out") from error
    if again != size:
        raise DataError(
            f"sample {sample.id!r}: its image of {sample.image.width}x{sample.image.height} pixels is too thin to be "
            f"resized within {profile.max_pixels} pixels",
            fix="crop the image, leave it out, or raise --max-pixels",
        )
    return size


def _plain(messages: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Messages with text for content, where the image goes first: the form in which TRL puts the image in itself.

    A list of parts would come back from an Arrow table with every key in every part, and chat templates go by keys.
    """
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            yield {"role": message["role"], "content": content}
            continue
        kinds = [part["type"] for part in content]
        if kinds not in (["image", "text"], ["text"]):
            raise UserError(
                f"a message of the task has the parts {kinds}, and trainers take an image followed by a text",
                fix="let the task's messages() put the image before one text",
            )
        yield {"role": message["role"], "content": content[-1]["text"]}
