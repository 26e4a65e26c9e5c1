"""The profiles that ship: what each model family expects and emits."""

from __future__ import annotations

from vrft_bench.tasks.coordinates import ModelProfile

QWEN2_VL = ModelProfile("qwen2-vl", "norm_1000", factor=28, model_types=("qwen2_vl",))
QWEN2_5_VL = ModelProfile("qwen2.5-vl", "abs_resized", factor=28, model_types=("qwen2_5_vl",))
QWEN3_VL = ModelProfile(
    "qwen3-vl",
    "norm_1000",
    factor=32,
    min_pixels=65_536,
    max_pixels=16_777_216,
    model_types=("qwen3_vl", "qwen3_vl_moe"),
)
INTERNVL = ModelProfile("internvl", "norm_1000", model_types=("internvl", "internvl_chat"))
NORM_1 = ModelProfile("norm_1", "norm_1", decimals=3)
ABS_ORIGINAL = ModelProfile("abs_original", "abs_original", decimals=2)
