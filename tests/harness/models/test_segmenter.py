"""Segmenters: the geometric ones, and SAM and SAM 2 on tiny random weights against transformers' own processing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrft_bench.errors import BackendError, DataError, UserError
from vrft_bench.harness.models.segmenter import SamSegmenter, load_segmenter
from vrft_bench.tasks.base import ImageRef

torch = pytest.importorskip("torch", reason="SAM needs torch and transformers")
transformers = pytest.importorskip("transformers", reason="SAM needs torch and transformers")

BOX = (10.0, 5.0, 60.5, 40.25)


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> ImageRef:
    path = tmp_path_factory.mktemp("images") / "noise.png"
    pixels = np.random.default_rng(0).integers(0, 256, (48, 90, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return ImageRef(90, 48, path)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM of one layer and 64 x 64 pixels, with random weights."""
    torch.manual_seed(0)
    config = transformers.SamConfig(
        vision_config={
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 8,
            "output_channels": 16,
            "mlp_dim": 32,
            "window_size": 4,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    return _saved(transformers.SamModel(config), tmp_path_factory.mktemp("sam"))


@pytest.fixture(scope="module")
def sam2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SAM 2 of 64 x 64 pixels, with random weights."""
    torch.manual_seed(0)
    config = transformers.Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model",
                "hidden_size": 8,
                "num_attention_heads": 1,
                "image_size": [64, 64],
                "blocks_per_stage": [1, 1, 1, 1],
                "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 2, 2],
                "window_size_per_stage": [4, 4, 2, 2],
                "global_attention_blocks": [],
                "window_positional_embedding_background_size": [4, 4],
            },
            "backbone_channel_list": [64, 32, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 16,
        },
        prompt_encoder_config={"hidden_size": 16, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={
            "hidden_size": 16,
            "mlp_dim": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 16,
        },
    )
    return _saved(transformers.Sam2Model(config), tmp_path_factory.mktemp("sam2"))


def _saved(model: Any, folder: Path) -> Path:
    model.save_pretrained(folder)
    return folder


def test_shapes_need_no_image_and_no_weights():
    nowhere = ImageRef(90, 48, Path("does-not-exist.png"))
    box, ellipse = (load_segmenter(name).segment(nowhere, (10.0, 5.0, 60.0, 40.0)) for name in ("box", "ellipse"))
    assert box.shape == ellipse.shape == (48, 90)
    assert box.sum() == 50 * 35
    assert ellipse.sum() == pytest.approx(np.pi / 4 * 50 * 35, rel=0.01)
    assert (ellipse <= box).all()
    assert load_segmenter("ellipse").identity() == {"segmenter": "ellipse"}


def test_sam_gives_the_masks_of_transformers_own_processor(sam: Path, picture: ImageRef):
    """Resizing, padding, scaling of the box and upscaling of the mask are ours; here is the original."""
    processor = transformers.SamProcessor(
        transformers.models.sam.image_processing_pil_sam.SamImageProcessorPil(
            size={"longest_edge": 64}, pad_size={"height": 64, "width": 64}
        )
    )
    model = transformers.SamModel.from_pretrained(sam).eval()
    with Image.open(picture.path) as image:
        inputs = processor(image, input_boxes=[[list(BOX)]], return_tensors="pt")
    with torch.inference_mode():
        found = model(
            pixel_values=inputs["pixel_values"],
            input_boxes=inputs["input_boxes"].to(torch.float32),
            multimask_output=False,
        )
        expected = processor.post_process_masks(
            [found.pred_masks[0]], inputs["original_sizes"], inputs["reshaped_input_sizes"]
        )[0][0, 0].numpy()
    mask = SamSegmenter(str(sam)).segment(picture, BOX)
    assert mask.dtype == np.bool_
    assert 0.02 < mask.mean() < 0.98, "a mask of one colour would compare nothing"
    assert (mask != expected).mean() < 0.001


def test_sam2_gives_the_masks_of_its_own_pipeline(sam2: Path, picture: ImageRef):
    """SAM 2's processor needs torchvision: the image is stretched to a square, the box with it, the mask back."""
    model = transformers.Sam2Model.from_pretrained(sam2).eval()
    with Image.open(picture.path) as image:
        pixels = np.asarray(image.convert("RGB").resize((64, 64), Image.Resampling.BILINEAR)) / 255.0
    pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    values = torch.tensor(pixels.transpose(2, 0, 1)[None], dtype=torch.float32)
    box = torch.tensor(BOX) * torch.tensor([64 / 90, 64 / 48] * 2)
    with torch.inference_mode():
        found = model(pixel_values=values, input_boxes=box[None, None], multimask_output=False)
        logits = torch.nn.functional.interpolate(found.pred_masks[0], (48, 90), mode="bilinear", align_corners=False)
    mask = SamSegmenter(str(sam2)).segment(picture, BOX)
    assert mask.shape == (48, 90)
    assert 0.02 < mask.mean() < 0.98, "a mask of one colour would compare nothing"
    assert (mask != (logits[0, 0] > 0).numpy()).mean() < 0.001


def test_a_sam2_video_checkpoint_serves_as_its_image_model(sam2: Path, picture: ImageRef, tmp_path: Path):
    """The published SAM 2 checkpoints are of this type: more weights in the file, the same masks."""
    config = transformers.Sam2VideoConfig(
        **{
            name: value
            for name, value in json.loads((sam2 / "config.json").read_text()).items()
            if name in ("vision_config", "prompt_encoder_config", "mask_decoder_config")
        },
        memory_attention_hidden_size=16,
        memory_attention_feed_forward_hidden_size=16,
        memory_attention_num_layers=1,
        memory_encoder_hidden_size=16,
        memory_encoder_output_channels=8,
        memory_fuser_embed_dim=16,
        memory_fuser_intermediate_dim=16,
        mask_downsampler_embed_dim=16,
        memory_attention_rope_feat_sizes=[4, 4],
    )
    video = transformers.Sam2VideoModel(config)
    video.load_state_dict(transformers.Sam2Model.from_pretrained(sam2).state_dict(), strict=False)
    segmenter = SamSegmenter(str(_saved(video, tmp_path)))
    assert segmenter.checkpoint.model_type == "sam2_video"
    assert (segmenter.segment(picture, BOX) == SamSegmenter(str(sam2)).segment(picture, BOX)).all()


def test_the_same_box_gives_the_same_mask_whatever_was_asked_before(sam: Path, picture: ImageRef, tmp_path: Path):
    other = tmp_path / "other.png"
    Image.new("RGB", (30, 60), "red").save(other)
    segmenter = SamSegmenter(str(sam))
    first = segmenter.segment(picture, BOX)
    assert segmenter.segment(ImageRef(30, 60, other), (1.0, 1.0, 20.0, 50.0)).shape == (60, 30)
    segmenter.segment(picture, (1.0, 1.0, 30.0, 30.0))
    assert (segmenter.segment(picture, BOX) == first).all()


def test_an_image_in_memory_is_segmented_as_the_file(sam: Path, picture: ImageRef):
    segmenter = SamSegmenter(str(sam))
    in_memory = ImageRef(90, 48, data=picture.path.read_bytes())
    assert (segmenter.segment(in_memory, BOX) == segmenter.segment(picture, BOX)).all()


def test_the_identity_holds_the_hash_of_the_weights(sam: Path):
    identity = load_segmenter(f"sam/{sam}").identity()
    assert identity["segmenter"] == "sam"
    assert set(identity["files"]) == {"config.json", "model.safetensors"}
    assert all(len(digest) == 64 for digest in identity["files"].values())
    json.dumps(identity)


@pytest.mark.parametrize("name", ["boxes", "sam", "sam/", "", "mask-rcnn"])
def test_another_name_is_refused_with_the_valid_ones(name: str):
    with pytest.raises(UserError, match="names no segmenter") as caught:
        load_segmenter(name)
    assert "box, ellipse, or sam/PATH" in str(caught.value)


def test_a_folder_that_is_not_there_or_no_sam_is_refused(tmp_path: Path):
    with pytest.raises(BackendError, match="no such SAM checkpoint"):
        load_segmenter(f"sam/{tmp_path / 'nothing'}")
    with pytest.raises(BackendError, match="no such SAM checkpoint"):
        load_segmenter(f"sam/{tmp_path}")
    with pytest.raises(BackendError, match="'qwen2_vl', not a box-prompted segmenter"):
        load_segmenter("sam/tiny")


def test_weights_that_lack_a_part_are_refused(sam: Path, picture: ImageRef, tmp_path: Path):
    from safetensors.torch import load_file, save_file

    weights = load_file(sam / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if not name.startswith("mask_decoder.iou")}
    assert len(kept) < len(weights)
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes((sam / "config.json").read_bytes())
    with pytest.raises(BackendError, match=r"the weights lack \d+ tensors"):
        SamSegmenter(str(tmp_path)).segment(picture, BOX)


def test_an_image_that_changed_is_a_data_error(sam: Path, picture: ImageRef):
    with pytest.raises(DataError, match="is 90x48 pixels, but its annotation says 91x48"):
        SamSegmenter(str(sam)).segment(ImageRef(91, 48, picture.path), BOX)
