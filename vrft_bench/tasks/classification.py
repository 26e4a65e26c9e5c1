"""The classification family: one image, a list of class names, one name as the answer, accuracy as the metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import ClassTarget, Dataset, DataSpec, Metric, Prediction, ProtocolName, Reward, Sample, Task
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.parsing import parse_label
from vrft_bench.tasks.prompts import classification_prompt
from vrft_bench.tasks.rewards import ACCURACY, FORMAT, accuracy_reward, normalise_label


@dataclass(frozen=True)
class ClassificationTask(Task):
    """Classification of images that lie in a folder per class.

    ``subject`` completes "What is the ... in the image?"; ``folder`` is the dataset's folder under a data root
    (``None``: only a folder that the user names with ``--images``). ``paper_subject`` is what the ``paper`` protocol's
    question calls the object and what it asks of it.
    """

    subject: str = "main object"
    folder: str | None = None
    paper_subject: tuple[str, str] = ("an object", "class of the object")

    family: ClassVar[str] = "classification"
    target_type = ClassTarget
    blind_bounds: ClassVar[Mapping[str, float]] = {"accuracy": 0.0, "metric": 0.0}
    protocols = ("strict", "paper")
    rules: ClassVar[Mapping[ProtocolName, str]] = {
        "strict": "vrft_bench.tasks.classification:ClassificationTask",
        "paper": "vrft_bench.tasks.paper.classification:PaperClassificationTask",
    }

    @property
    def reads_data_root(self) -> bool:
        return self.folder is not None

    def load(self, spec: DataSpec) -> Dataset:
        from vrft_bench.tasks.data.folders import load_class_folders
        from vrft_bench.tasks.data.layout import class_folders
        from vrft_bench.tasks.data.sample import sample_folder
        from vrft_bench.tasks.data.virft import rows_of

        spec.refuse_two_sources()
        if (rows := rows_of(spec, self.name, "classification")) is not None:
            refuse_alike(rows.categories, spec.annotations or "the training set")
            return rows
        split = spec.split or "val"
        spec.refuse_ask(self.name)
        if spec.annotations is not None:
            raise UserError(
                f"task {self.name!r} takes --annotations only for rows of image, problem and solution",
                fix="give --images DIR, a folder that holds one folder per class",
            )
        if spec.images is not None:
            folder = spec.images
        elif spec.root is None:
            folder = sample_folder("classes", split) / split
        elif self.folder is not None:
            folder = class_folders(spec.root, self.folder, split)
        else:
            raise UserError(
                f"task {self.name!r} reads your own files, not a data root",
                fix="give --images DIR, a folder that holds one folder per class (and no --data)",
            )
        is_sample = spec.root is None and spec.images is None
        dataset = load_class_folders(folder, split, categories=spec.categories, is_sample=is_sample)
        refuse_alike(dataset.categories, folder)
        return dataset

    def _subject(self, sample: Sample) -> str:
        """What is asked for; data may name a subject of its own, as the sample data does."""
        return sample.fields.get("subject", self.subject)

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:
        return classification_prompt(self._subject(sample), sample.fields["options"], profile)

    def gold(self, sample: Sample, frame: Frame) -> str:
        target = cast(ClassTarget, sample.target)
        opening, closing = frame.profile.think_tags
        return f"{opening}I look at the {self._subject(sample)}.{closing}\n<answer>{target.label}</answer>"

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_label(text, frame, truncated=truncated)

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return ACCURACY, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.metrics.accuracy import AccuracyMetric

        return AccuracyMetric(dataset, accuracy_reward)


def refuse_alike(names: Sequence[str], where: Path | str) -> None:
    """Two classes whose names match alike cannot be told apart by their names."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(normalise_label(name), name)
        if other != name:
            raise DataError(
                f"the classes {other!r} and {name!r} in {where} are one name to the scorer "
                "(case, punctuation and underscores do not count)",
                fix="rename one of them",
            )
