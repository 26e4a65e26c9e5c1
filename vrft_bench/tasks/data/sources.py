"""What data each task of the catalog needs, where it may lie under a data root, and where its owners publish it.

The sizes and sha256 of COCO, Flowers102 and the pets are those that TensorFlow Datasets publishes. LVIS and
FGVC-Aircraft have none here: what is said of LVIS's disagrees, and nothing sure was found of the other's. For those,
the checksum of the first download is kept (see :mod:`~vrft_bench.tasks.data.fetch`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vrft_bench.tasks.data.layout import CLASS_OWNERS, PUBLISHED_FOLDERS, REASONSEG_OWNER

Part = Literal["evaluation", "training", "optional"]
"""What a thing is needed for; ``optional`` is another split to evaluate on."""


@dataclass(frozen=True)
class Download:
    """A file of an owner. An archive is unpacked into the folder ``into``; any other file is put there.

    ``size`` in bytes and ``sha256`` are those of the file itself, where they are known; ``unpacked`` is how many times
    that much room the contents take; ``only`` is a pattern of the archive's members that are unpacked.
    """

    url: str
    into: str
    size: int | None = None
    sha256: str | None = None
    unpacked: float = 1.05
    only: str = "*"

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]

    @property
    def is_archive(self) -> bool:
        return self.name.endswith((".zip", ".tar.gz", ".tgz"))


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hugging Face hub, put into the folder ``into``."""

    repo: str
    into: str

    @property
    def url(self) -> str:
        return f"https://huggingface.co/datasets/{self.repo}"


@dataclass(frozen=True)
class ByHand:
    """What no program may or can fetch: ``where`` says where a person gets it."""

    where: str


@dataclass(frozen=True)
class Need:
    """One thing that a task needs. It is there where one of ``places`` (relative to the data root) is."""

    what: str
    places: tuple[str, ...]
    source: Download | HubDataset | ByHand
    part: Part = "evaluation"

    def found(self, root: Path) -> Path | None:
        """The first of ``places`` that is there: a file, or a folder that is not empty."""
        for place in self.places:
            path = root / place
            if path.is_file() or (path.is_dir() and any(path.iterdir())):
                return path
        return None

    @property
    def published(self) -> str:
        """Where its owner publishes it."""
        return self.source.where if isinstance(self.source, ByHand) else self.source.url


def needs(task: str) -> tuple[Need, ...]:
    """What ``task`` needs; nothing for a task that reads the user's own files."""
    return _NEEDS.get(task, ())


_COCO_HOST = "http://images.cocodataset.org"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


def _coco_places(name: str) -> tuple[str, ...]:
    return tuple(f"{base}{part}{name}" for base in ("coco/", "") for part in ("images/", ""))


def _virft(name: str) -> Need:
    into = f"virft/{name}"
    return Need(f"training set {name}", (into,), HubDataset(f"laolao77/{name}", into), "training")


def _class_places(name: str, *parts: str) -> tuple[str, ...]:
    """Class folders of ``val`` or ``test``, a list of the user's own, or ``parts`` in the owners' folder."""
    folders = (name, *PUBLISHED_FOLDERS[name])
    by_class = [f"{folder}/{split}" for folder in folders for split in ("val", "test")]
    return (*(f"{folder}/{part}" for folder in folders for part in parts), *by_class)


_ANNOTATIONS = Need(
    "COCO 2017 annotations",
    ("coco/annotations/instances_val2017.json", "annotations/instances_val2017.json"),
    Download(
        f"{_COCO_HOST}/annotations/annotations_trainval2017.zip",
        "coco",
        252_907_541,
        "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
        unpacked=2.0,
        only="annotations/instances_*.json",
    ),
)
_VAL_IMAGES = Need(
    "COCO val2017 images",
    _coco_places("val2017"),
    Download(
        f"{_COCO_HOST}/zips/val2017.zip",
        "coco/images",
        815_585_330,
        "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
    ),
)
_TRAIN_IMAGES = Need(
    "COCO train2017 images (15,000 of LVIS's val images are there)",
    _coco_places("train2017"),
    Download(
        f"{_COCO_HOST}/zips/train2017.zip",
        "coco/images",
        19_336_861_798,
        "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
    ),
)


def _lvis(split: str, part: Part) -> Need:
    return Need(
        f"LVIS v1 {split} annotations",
        tuple(f"{base}{folder}lvis_v1_{split}.json" for base in ("lvis/", "") for folder in ("annotations/", "")),
        Download(f"https://dl.fbaipublicfiles.com/LVIS/lvis_v1_{split}.json.zip", "lvis", unpacked=6.0),
        part,
    )


_LVIS = _lvis("val", "evaluation")

_NEEDS: dict[str, tuple[Need, ...]] = {
    "coco_fewshot": (_ANNOTATIONS, _VAL_IMAGES, _virft("ViRFT_COCO_8_cate_4_shot")),
    "coco_ovd": (_ANNOTATIONS, _VAL_IMAGES, _virft("ViRFT_COCO_base65")),
    "lvis_fewshot": (_LVIS, _VAL_IMAGES, _TRAIN_IMAGES, _lvis("train", "training"), _virft("ViRFT_LVIS_few_shot")),
    "lvis_ovd": (_LVIS, _VAL_IMAGES, _TRAIN_IMAGES, _virft("ViRFT_COCO_base65")),
    "flower102_fewshot": (
        Need(
            "Flowers102 images",
            _class_places("flower102", "jpg"),
            Download(
                f"{_OXFORD}/flowers/102/102flowers.tgz",
                "flower102",
                344_862_509,
                "2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
            ),
        ),
        Need(
            "Flowers102 labels",
            _class_places("flower102", "imagelabels.mat", "val.csv", "split_zhou_OxfordFlowers.json"),
            Download(
                f"{_OXFORD}/flowers/102/imagelabels.mat",
                "flower102",
                502,
                "4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
            ),
        ),
        Need(
            "Flowers102 split",
            _class_places("flower102", "setid.mat", "val.csv", "split_zhou_OxfordFlowers.json"),
            Download(
                f"{_OXFORD}/flowers/102/setid.mat",
                "flower102",
                14_989,
                "46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
            ),
        ),
        _virft("ViRFT_CLS_flower_4_shot"),
    ),
    "pets37_fewshot": (
        Need(
            "Oxford-IIIT Pets images",
            _class_places("pets37", "images"),
            Download(
                f"{_OXFORD}/pets/data/images.tar.gz",
                "pets37",
                791_918_971,
                "67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
            ),
        ),
        Need(
            "Oxford-IIIT Pets lists",
            _class_places("pets37", "annotations/test.txt", "val.csv", "split_zhou_OxfordPets.json"),
            Download(
                f"{_OXFORD}/pets/data/annotations.tar.gz",
                "pets37",
                19_173_078,
                "52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
                unpacked=2.0,
                only="annotations/*.txt",
            ),
        ),
        _virft("ViRFT_CLS_pets37_4shot"),
    ),
    "fgvc_aircraft_fewshot": (
        Need(
            "FGVC-Aircraft images and lists",
            _class_places("fgvc_aircraft", "data/images_variant_test.txt", "images_variant_test.txt", "val.csv"),
            Download(f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz", ""),
        ),
        _virft("ViRFT_CLS_fgvc_aircraft_4_shot"),
    ),
    "cars196_fewshot": (
        Need(
            "Stanford Cars images and devkit",
            _class_places("cars196", "devkit/cars_meta.mat", "split_zhou_StanfordCars.json", "val.csv"),
            ByHand(CLASS_OWNERS["cars196"]),
        ),
        _virft("ViRFT_CLS_car196_4shot"),
    ),
    "lisa_grounding": (
        Need("ReasonSeg val", ("ReasonSeg/val", "val"), ByHand(REASONSEG_OWNER)),
        Need(
            "ReasonSeg test (for the paper's table 6)",
            ("ReasonSeg/test", "test"),
            ByHand(REASONSEG_OWNER),
            "optional",
        ),
    ),
}
