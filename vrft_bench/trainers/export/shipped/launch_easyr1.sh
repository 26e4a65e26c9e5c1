#!/usr/bin/env bash
# Trains with EasyR1. In an environment with EasyR1 (and without verl, whose package has the same name), and
# `pip install --no-deps vrft-bench`:
#
#   one GPU       ./launch.sh
#   one machine   GPUS=8 ./launch.sh
#   several       ray start --head --port=6379            on the first
#                 ray start --address=FIRST:6379          on each of the others
#                 NODES=2 GPUS=8 ./launch.sh              on the first
#
# Every machine needs this folder under the same path. MODEL and OUT choose the model and where checkpoints go; further
# arguments are EasyR1's own.
@places.sh@
@questions_per_step.sh@

exec python3 -m verl.trainer.main config="$HERE/config.yaml" \
  data.train_files="$HERE/data/train.parquet" \
  data.val_files="$HERE/data/train.parquet" \
  data.rollout_batch_size="$QUESTIONS" \
  worker.actor.global_batch_size="$QUESTIONS" \
  worker.actor.model.model_path="$MODEL" \
  worker.reward.reward_function="$HERE/reward.py:compute_score" \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes="$NODES" \
  trainer.save_checkpoint_path="$OUT" \
  "$@"
