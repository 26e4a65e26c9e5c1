#!/usr/bin/env bash
# Trains with LLaMA-Factory. In an environment with LLaMA-Factory:
#
#   one GPU       ./launch.sh
#   one machine   GPUS=8 ./launch.sh
#   several       NODES=2 GPUS=8 NODE_RANK=0 MASTER_ADDR=FIRST ./launch.sh      on each, with its rank
#
# Every machine needs this folder under the same path. MODEL and OUT choose the model and where checkpoints go; further
# arguments are LLaMA-Factory's own, as name=value: ./launch.sh deepspeed=ds_z3.json
@places.sh@
export FORCE_TORCHRUN=1 NPROC_PER_NODE="${GPUS:-1}" NNODES="${NODES:-1}" NODE_RANK="${NODE_RANK:-0}"
export MASTER_ADDR="${MASTER_ADDR:-127.0.0.1}" MASTER_PORT="${MASTER_PORT:-29500}"

exec llamafactory-cli train "$HERE/config.yaml" model_name_or_path="$MODEL" dataset_dir="$HERE" media_dir="$HERE" \
  output_dir="$OUT" "$@"
