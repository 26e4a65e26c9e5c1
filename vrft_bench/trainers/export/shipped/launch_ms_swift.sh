#!/usr/bin/env bash
# Trains with ms-swift. In an environment with ms-swift, and `pip install --no-deps vrft-bench`:
#
#   one GPU       ./launch.sh
#   one machine   GPUS=8 ./launch.sh
#   several       NODES=2 GPUS=8 NODE_RANK=0 MASTER_ADDR=FIRST ./launch.sh      on each, with its rank
#
# Every machine needs this folder under the same path. MODEL and OUT choose the model and where checkpoints go; further
# arguments are ms-swift's own: ./launch.sh --deepspeed zero3
@places.sh@
export NPROC_PER_NODE="${GPUS:-1}" NNODES="${NODES:-1}" NODE_RANK="${NODE_RANK:-0}"
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"
# The images are resized already; within the same limits nobody resizes them again.
export MIN_PIXELS=@MIN_PIXELS@ MAX_PIXELS=@MAX_PIXELS@ ROOT_IMAGE_DIR="$HERE"

exec swift @VERB@ "$HERE/config.yaml" --model "$MODEL" --dataset "$HERE/data/train.jsonl" \
  --output_dir "$OUT"@PLUGIN@ "$@"
