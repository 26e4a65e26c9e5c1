#!/usr/bin/env bash
# Trains with verl. In an environment with verl, and `pip install --no-deps vrft-bench`:
#
#   one GPU       ./launch.sh
#   one machine   GPUS=8 ./launch.sh
#   several       ray start --head --port=6379            on the first
#                 ray start --address=FIRST:6379          on each of the others
#                 NODES=2 GPUS=8 RAY_ADDRESS=auto ./launch.sh      on the first
#
# Every machine needs this folder under the same path. MODEL and OUT choose the model and where checkpoints go; further
# arguments are verl's own: ./launch.sh actor_rollout_ref.rollout.tensor_model_parallel_size=2
@places.sh@
@questions_per_step.sh@

# Hydra would read = and , in a path as its own, but for the inner quotes.
exec python3 -m verl.trainer.main_ppo --config-path "$HERE" --config-name config \
  data.train_files="'$HERE/data/train.parquet'" \
  data.val_files="'$HERE/data/train.parquet'" \
  data.train_batch_size="$QUESTIONS" \
  actor_rollout_ref.actor.ppo_mini_batch_size="$QUESTIONS" \
  actor_rollout_ref.model.path="'$MODEL'" \
  reward.custom_reward_function.path="'$HERE/reward.py'" \
  trainer.n_gpus_per_node="$GPUS" \
  trainer.nnodes="$NODES" \
  trainer.default_local_dir="'$OUT'" \
  "$@"
