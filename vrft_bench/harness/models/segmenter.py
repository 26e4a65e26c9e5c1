"""Box-prompted segmenters: what turns a grounded box into a mask.

``box`` and ``ellipse`` fill the box out and need no weights; they say what geometry alone is worth. ``sam/PATH`` loads
a SAM or SAM 2 checkpoint of transformers, from a folder or by its hub id.

Images are resized, normalised and padded here, with Pillow and by the rules of the two models' own processors, since
SAM 2's needs torchvision. So the masks do not depend on which libraries are installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from vrft_bench.errors import BackendError, DataError, UserError, did_you_mean
from vrft_bench.harness.images import ImageError, load_image
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint
from vrft_bench.registry import failure_reason
from vrft_bench.tasks.base import ImageRef
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.masks import Mask, fill_box, fill_ellipse

SAM_CLASSES = {"sam": "SamModel", "sam2": "Sam2Model", "sam2_video": "Sam2Model"}
"""``model_type`` -> class of transformers. Published SAM 2 checkpoints say ``sam2_video`` and hold the image model."""

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""ImageNet's, of RGB values in [0, 1]: all published SAM and SAM 2 checkpoints use them."""


class Segmenter(Protocol):
    """Says which pixels a box means. Called for one image after another, it may hold what it knows of the last one."""

    @property
    def needs_model(self) -> bool:
        """Whether a mask costs enough to be kept on disk."""

    def identity(self) -> Mapping[str, Any]:
        """Everything that can change a mask."""

    def segment(self, image: ImageRef, box: Box) -> Mask:
        """The mask (height, width) over the original image of what ``box`` (original pixels, with an area) shows."""


def load_segmenter(name: str) -> Segmenter:
    """The segmenter that ``--segmenter`` names: ``box``, ``ellipse`` or ``sam/PATH``.

    Raises :class:`UserError` for another name and :class:`BackendError` for a checkpoint that is not there or is no
    SAM; weights are read with the first box.
    """
    if name in _SHAPES:
        return ShapeSegmenter(name)
    kind, slash, source = name.partition("/")
    if kind == "sam" and slash and source:
        return SamSegmenter(source)
    raise UserError(
        f"--segmenter {name!r} names no segmenter{did_you_mean(name, [*_SHAPES, 'sam/PATH'])}",
        fix="use box, ellipse, or sam/PATH with the folder or hub id of a SAM checkpoint (sam/facebook/sam-vit-huge)",
    )


_SHAPES: dict[str, Callable[[Box, int, int], Mask]] = {"box": fill_box, "ellipse": fill_ellipse}


class ShapeSegmenter:
    """The box filled out, or the ellipse that it holds."""

    needs_model = False

    def __init__(self, shape: str) -> None:
        self._shape = shape

    def identity(self) -> Mapping[str, Any]:
        return {"segmenter": self._shape}

    def segment(self, image: ImageRef, box: Box) -> Mask:
        return _SHAPES[self._shape](box, image.width, image.height)


class SamSegmenter:
    """SAM (Kirillov et al. 2023) or SAM 2 (Ravi et al. 2024) with one box as the prompt and one mask as the answer.

    Runs in float32 on the GPU where there is one, else on the CPU. The features of the last image are kept.
    """

    needs_model = True

    def __init__(self, source: str) -> None:
        self.checkpoint = _checkpoint(source)
        self._features: tuple[tuple[Path | bytes | None, int, int], Any] | None = None

    def identity(self) -> Mapping[str, Any]:
        return {"segmenter": "sam", **self.checkpoint.fingerprint, "dtype": "float32"}

    def segment(self, image: ImageRef, box: Box) -> Mask:
        """Raises :class:`DataError` for an image that cannot be read, :class:`BackendError` where SAM cannot be loaded.

        An image of another size than annotated cannot be read either.
        """
        import torch

        with torch.inference_mode():
            features = self._features_of(image)
            width, height = self._resized(image)
            x, y = width / image.width, height / image.height
            prompt = torch.tensor([[[box[0] * x, box[1] * y, box[2] * x, box[3] * y]]], device=self._model.device)
            found = self._model(image_embeddings=features, input_boxes=prompt, multimask_output=False)
            logits = found.pred_masks[0].float()
            if self._keeps_aspect:
                logits = _interpolate(logits, (self._size, self._size))[..., :height, :width]
            inside = _interpolate(logits, (image.height, image.width)) > 0.0
            mask: Mask = inside[0, 0].cpu().numpy()
        return mask

    def _features_of(self, image: ImageRef) -> Any:
        key = (image.path if image.data is None else image.data, image.width, image.height)
        if self._features is None or self._features[0] != key:
            self._features = None  # before the next ones are made: they are large
            self._features = key, self._model.get_image_embeddings(self._pixels(image))
        return self._features[1]

    def _pixels(self, image: ImageRef) -> Any:
        """The image as SAM sees it (1, 3, size, size): resized, normalised, padded with zeros right and below."""
        import numpy as np
        import torch
        from PIL.Image import Resampling

        try:
            picture = load_image(image).image
        except ImageError as error:
            raise DataError(str(error), fix="put the image back that the run was made with") from error
        width, height = self._resized(image)
        values = np.asarray(picture.resize((width, height), Resampling.BILINEAR), dtype=np.float32) / 255.0
        padded = np.zeros((self._size, self._size, 3), dtype=np.float32)
        padded[:height, :width] = (values - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
        return torch.from_numpy(padded).permute(2, 0, 1)[None].to(self._model.device)

    def _resized(self, image: ImageRef) -> tuple[int, int]:
        """Width and height in the model: SAM keeps the aspect ratio, SAM 2 stretches to a square."""
        if not self._keeps_aspect:
            return self._size, self._size
        scale = self._size / max(image.width, image.height)
        return int(image.width * scale + 0.5), int(image.height * scale + 0.5)

    @property
    def _keeps_aspect(self) -> bool:
        return self.checkpoint.model_type == "sam"

    @property
    def _size(self) -> int:
        size: int = self._model.config.prompt_encoder_config.image_size
        return size

    @cached_property
    def _model(self) -> Any:
        try:
            import torch
            import transformers

            model_class = getattr(transformers, SAM_CLASSES[str(self.checkpoint.model_type)])
            model, info = model_class.from_pretrained(
                self.checkpoint.source,
                revision=self.checkpoint.revision,
                dtype=torch.float32,
                output_loading_info=True,
            )
        except Exception as error:
            raise BackendError(
                f"sam/{self.checkpoint.name} cannot be loaded: {failure_reason(error)}",
                fix="pip install 'vrft-bench[hf]', and give a folder that save_pretrained wrote",
            ) from error
        if missing := sorted(info["missing_keys"]):
            raise BackendError(
                f"sam/{self.checkpoint.name}: the weights lack {len(missing)} tensors of the model "
                f"({', '.join(missing[:3])}, ...), which transformers would fill with random numbers",
                fix="save the whole model, and check that config.json belongs to these weights",
            )
        return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _checkpoint(source: str) -> Checkpoint:
    """The checkpoint in a folder or on the hub, whose config says that it is a SAM."""
    try:
        checkpoint = find_checkpoint(source)
        kind = checkpoint.model_type
    except BackendError as error:
        raise BackendError(
            f"sam/{source}: no such SAM checkpoint ({error.message})",
            fix="give the folder of a SAM or SAM 2 checkpoint of transformers, or its hub id (facebook/sam-vit-huge)",
        ) from error
    if kind not in SAM_CLASSES:
        raise BackendError(
            f"sam/{source} is a model of type {kind!r}, not a box-prompted segmenter",
            fix=f"give a checkpoint whose config.json says model_type {' or '.join(SAM_CLASSES)}",
        )
    return checkpoint


def _interpolate(logits: Any, size: tuple[int, int]) -> Any:
    import torch

    return torch.nn.functional.interpolate(logits, size, mode="bilinear", align_corners=False)
