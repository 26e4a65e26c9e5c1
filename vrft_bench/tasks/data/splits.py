"""Few-shot splits as files: which K samples of each category a training run gets, drawn once and kept.

A manifest is a JSON file that holds the ids of the samples, the sha256 of their image files, and how they were drawn::

    {"format": 1, "task": "coco_fewshot", "split": "train", "shots": 4, "seed": 0, "data": "real",
     "samples": [{"id": "183:bus", "category": "bus", "image_sha256": "9f..."}, ...], "sha256": "5c..."}

Of each category, those K samples are drawn whose ``sha256(seed/category/id)`` is smallest. So the draw depends on no
random generator and on no order of the files, a smaller K gives a part of what a larger K gives, and samples that are
added to the data later leave most of a draw as it is. A manifest that is there is never changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, ImageRef, Sample
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.new_file import write_new

DEFAULT_FOLDER = Path("splits")
FORMAT = 1

_FIX = "give a manifest that `vrft-bench data split` wrote, unchanged"


@dataclass(frozen=True, slots=True)
class Shot:
    """One drawn sample; ``category`` is empty for grounding, which has none."""

    id: str
    category: str
    image_sha256: str


@dataclass(frozen=True)
class FewShotSplit:
    """``shots`` samples of each category of a task's ``split``, by ``seed``."""

    task: str
    split: str
    shots: int
    seed: int
    data: Literal["real", "sample"]
    samples: tuple[Shot, ...]

    @property
    def sha256(self) -> str:
        """Identifies what was drawn."""
        return hashlib.sha256(json.dumps(self._content(), sort_keys=True).encode()).hexdigest()

    def to_json(self) -> dict[str, Any]:
        return {"format": FORMAT, **self._content(), "sha256": self.sha256}

    def _content(self) -> dict[str, Any]:
        return {
            "task": self.task,
            "split": self.split,
            "shots": self.shots,
            "seed": self.seed,
            "data": self.data,
            "samples": [asdict(shot) for shot in self.samples],
        }

    def short_of(self, categories: Sequence[str] = ()) -> dict[str, int]:
        """Categories that have fewer than ``shots`` samples, with the number that they have.

        ``categories`` are all that could have been drawn, since one that has none is in no sample.
        """
        counts = dict.fromkeys(categories, 0)
        for shot in self.samples:
            counts[shot.category] = counts.get(shot.category, 0) + 1
        return {name: count for name, count in counts.items() if count < self.shots}


def manifest_path(folder: Path, task: str, shots: int, seed: int, split: str = "train") -> Path:
    """Where the manifest of a draw lies: ``splits/coco_fewshot/4-shot-seed-0.json``, for ``train``.

    For another split, its name comes first: ``virft-4-shot-seed-0.json``.
    """
    prefix = "" if split == "train" else f"{split}-"
    return folder / task / f"{prefix}{shots}-shot-seed-{seed}.json"


def draw_splits(dataset: Dataset, task: str, shots: list[int], seeds: list[int]) -> Iterator[FewShotSplit]:
    """A split for every pair of ``shots`` and ``seeds``. The dataset is walked once.

    Only samples with something to find are drawn: a detection question needs a box. Raises :class:`DataError` where an
    image cannot be read, or nothing can be drawn; :class:`UserError` for numbers that cannot be meant.
    """
    for name, values, least in (("shots", shots, 1), ("seeds", seeds, 0)):
        if not values or min(values) < least:
            raise UserError(f"--{name} {values} is no list of numbers", fix=f"give numbers of at least {least}")
    most = max(shots)
    best = {seed: _Draw(seed, most) for seed in seeds}
    for sample in dataset.samples():
        if _has_object(sample):
            for draw in best.values():
                draw.add(sample)
    hashes: dict[Any, str] = {}
    kind: Literal["real", "sample"] = "sample" if dataset.is_sample else "real"
    for seed, draw in best.items():
        if not draw.found:
            raise DataError(f"split {dataset.split!r} of {task} has no sample to draw", fix="choose another --split")
        for number in shots:
            drawn = tuple(
                Shot(item.id, category, _sha256(item, hashes))
                for category in sorted(draw.found)
                for item in draw.first(category, number)
            )
            yield FewShotSplit(task, dataset.split, number, seed, kind, drawn)


def write_manifest(split: FewShotSplit, path: Path) -> bool:
    """Write ``split`` to ``path``; whether anything was written, which it is not where the file says the same.

    Raises :class:`UserError` where the file is there and says something else: results may already rest on it.
    """
    text = json.dumps(split.to_json(), indent=1) + "\n"
    if path.exists():
        there = read_manifest(path)
        if there == split:
            return False
        old = {shot.id: shot.image_sha256 for shot in there.samples}
        new = {shot.id: shot.image_sha256 for shot in split.samples}
        changed = sum(new.get(name) != digest for name, digest in old.items())
        raise UserError(
            f"{path} is there and differs ({changed} of its {len(old)} samples are not in the new draw as they were; "
            f"it is of {there.data} data, split {there.split!r}): a manifest never changes",
            fix="write the new one elsewhere with --output-dir, or delete the old one if nothing rests on it",
        )
    try:
        write_new(path, text)
    except FileExistsError:  # another process was first
        return write_manifest(split, path)
    except OSError as error:
        raise UserError(
            f"{path} cannot be written: {error.strerror or error}", fix="name a folder that can be written with -o"
        ) from error
    return True


def read_manifest(path: Path) -> FewShotSplit:
    """The split in ``path``. Raises :class:`DataError` for a file that is missing, damaged or was edited."""
    value = read_json(path)
    try:
        if value["format"] != FORMAT:
            raise DataError(f"{path} has the format {value['format']!r}", fix=f"this version reads format {FORMAT}")
        shots = tuple(Shot(**shot) for shot in value["samples"])
        split = FewShotSplit(value["task"], value["split"], value["shots"], value["seed"], value["data"], shots)
        intact = value["sha256"] == split.sha256
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is no manifest of a few-shot split: {error}", fix=_FIX) from error
    if not intact:
        raise DataError(f"{path} was changed after it was written: its sha256 does not fit", fix=_FIX)
    return split


def few_shot(dataset: Dataset, split: FewShotSplit) -> Dataset:
    """``dataset`` with only the samples of ``split``, in the dataset's order.

    Their images carry the manifest's sha256: one that changed since is refused where it is opened. Raises
    :class:`DataError` where the dataset is not the one that the split was drawn from.
    """
    kind = "sample" if dataset.is_sample else "real"
    if (split.data, split.split) != (kind, dataset.split):
        raise DataError(
            f"the few-shot split was drawn from the {split.split!r} split of {split.data} data, and this is "
            f"{dataset.split!r} of {kind} data",
            fix=f"choose --split {split.split} and the data that it was drawn from",
        )
    wanted = {shot.id: shot.image_sha256 for shot in split.samples}
    missing = wanted.keys() - {sample.id for sample in dataset.samples()}
    if missing:
        raise DataError(
            f"{len(missing)} of {len(wanted)} samples of the few-shot split are not in the data, such as "
            f"{min(missing)!r}",
            fix="use the data that the split was drawn from, or draw one of these with `vrft-bench data split`",
        )

    def samples() -> Iterator[Sample]:
        for sample in dataset.samples():
            if (digest := wanted.get(sample.id)) is not None:
                yield replace(sample, image=replace(sample.image, sha256=digest))

    note = f"few-shot split: {split.shots} shots, seed {split.seed}, {len(wanted)} samples, sha256 {split.sha256[:12]}"
    return replace(dataset, samples=samples, unasked=lambda: iter(()), notes=(*dataset.notes, note))


def take_few_shot(dataset: Dataset, task: str, shots: int, seed: int, folder: Path = DEFAULT_FOLDER) -> Dataset:
    """``dataset`` with only the samples of the manifest for ``shots`` and ``seed`` in ``folder``.

    Raises :class:`DataError` where there is none, or it does not fit the dataset (see :func:`few_shot`).
    """
    path = manifest_path(folder, task, shots, seed, dataset.split)
    if not path.is_file():
        drawn_from = "" if dataset.split == "train" else f" --split {dataset.split}"
        raise DataError(
            f"there is no few-shot split {path}",
            fix=f"draw it: vrft-bench data split {task} --shots {shots} --seeds {seed}{drawn_from} -o {folder}",
        )
    split = read_manifest(path)
    if (split.task, split.shots, split.seed) != (task, shots, seed):
        raise DataError(
            f"{path} is the {split.shots}-shot split of {split.task} with seed {split.seed}",
            fix="call the file by what it holds, as `vrft-bench data split` does",
        )
    return few_shot(dataset, split)


@dataclass(frozen=True, slots=True)
class _Candidate:
    rank: bytes
    id: str
    image: ImageRef


class _Draw:
    """The ``most`` samples of each category that come first by one seed."""

    def __init__(self, seed: int, most: int) -> None:
        self._seed = seed
        self._most = most
        self.found: dict[str, list[_Candidate]] = {}

    def add(self, sample: Sample) -> None:
        category = _category(sample)
        rank = hashlib.sha256(f"{self._seed}/{category}/{sample.id}".encode()).digest()
        kept = self.found.setdefault(category, [])
        kept.append(_Candidate(rank, sample.id, sample.image))
        if len(kept) > self._most:
            kept.remove(max(kept, key=lambda item: item.rank))

    def first(self, category: str, number: int) -> list[_Candidate]:
        return sorted(self.found[category], key=lambda item: item.rank)[:number]


def _category(sample: Sample) -> str:
    return sample.target.label if isinstance(sample.target, ClassTarget) else sample.fields.get("category", "")


def _has_object(sample: Sample) -> bool:
    return not isinstance(sample.target, BoxTarget) or bool(sample.target.findable)


def _sha256(item: _Candidate, known: dict[Any, str]) -> str:
    key: Mapping[str, Any] | Path | bytes | None = item.image.path or item.image.data
    if key not in known:
        try:
            content = item.image.data if item.image.path is None else item.image.path.read_bytes()
        except OSError as error:
            raise DataError(
                f"the image of sample {item.id!r} cannot be read: {item.image.path} ({error.strerror})",
                fix="complete the data before a split is drawn from it",
            ) from error
        known[key] = hashlib.sha256(content or b"").hexdigest()
    return known[key]
