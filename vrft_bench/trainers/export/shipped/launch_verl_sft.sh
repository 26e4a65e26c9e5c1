#!/usr/bin/env bash
# Trains with verl. In an environment with verl:
#
#   one GPU       ./launch.sh
#   one machine   GPUS=8 ./launch.sh
#   several       NODES=2 GPUS=8 NODE_RANK=0 MASTER_ADDR=FIRST ./launch.sh      on each, with its rank
#
# Every machine needs this folder under the same path. MODEL and OUT choose the model and where checkpoints go; further
# arguments are verl's own.
@places.sh@
@questions_per_step.sh@

# Hydra would read = and , in a path as its own, but for the inner quotes.
exec torchrun --nnodes "$NODES" --nproc_per_node "$GPUS" --node_rank "${NODE_RANK:-0}" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${MASTER_PORT:-29500}" \
  -m verl.trainer.sft_trainer --config-path "$HERE" --config-name config \
  data.train_files="'$HERE/data/train.parquet'" \
  data.train_batch_size="$QUESTIONS" \
  model.path="'$MODEL'" \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes="$NODES" \
  trainer.default_local_dir="'$OUT'" \
  "$@"
