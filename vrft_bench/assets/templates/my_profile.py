"""my_profile: what a family of models means by the numbers of its boxes, for vrft-bench.

vrft-bench run --include my_profile.py --profile my_profile --model hf/PATH --task lvis_fewshot
vrft-bench doctor --include my_profile.py --profile my_profile --model hf/PATH
"""

from __future__ import annotations

from vrft_bench.registry import PROFILES
from vrft_bench.tasks.coordinates import ModelProfile

PROFILE = ModelProfile(
    "my_profile",
    convention="norm_1000",  # or norm_1 (fractions), abs_original (pixels), abs_resized (pixels after smart-resize)
    decimals=0,  # of a coordinate, as the model writes it
    axes="xyxy",  # or yxyx
    factor=None,  # smart-resize makes both sides multiples of it; None: the family has no such rule
    think_tags=("<think>", "</think>"),
    model_types=(),  # values of model_type in a checkpoint's config.json that choose this profile by themselves
)

PROFILES.register("my_profile", PROFILE, summary="0-1000 integers, in a line for `vrft-bench ls profiles`")
