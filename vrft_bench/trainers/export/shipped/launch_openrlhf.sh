#!/usr/bin/env bash
# Trains with OpenRLHF. In an environment with OpenRLHF, and `pip install --no-deps vrft-bench`:
#
#   one GPU       ray start --head --num-gpus 1; ./launch.sh
#   one machine   ray start --head --num-gpus 8; GPUS=8 ./launch.sh
#   several       ray start --head --port=6379            on the first
#                 ray start --address=FIRST:6379          on each of the others
#                 NODES=2 GPUS=8 ./launch.sh              on the first
#
# Every machine needs this folder and OUT under the same path. MODEL and OUT choose the model and where checkpoints go;
# further arguments are OpenRLHF's own; those that are always given are in config.args, one per line.
@places.sh@
@questions_per_step.sh@
# It counts passes over the data, an episode each, so a number of steps is rounded up to whole ones.
STEPS="${STEPS:-@STEPS@}"
EPISODES=@EPISODES@
if ((STEPS > 0)); then EPISODES=$(((STEPS + @ROWS@ / QUESTIONS - 1) / (@ROWS@ / QUESTIONS))); fi

# Ray's workers have working directories of their own, so the images are named by whole paths.
mkdir -p "$OUT"
# Escaped for JSON, and then for sed.
FOLDER="$(printf '%s' "$HERE" | sed 's/["\\]/\\&/g' | sed 's/[&|\\]/\\&/g')"
sed "s|\"images\": \[\"images/|\"images\": [\"$FOLDER/images/|" "$HERE/data/train.jsonl" > "$OUT/train.jsonl"
eval "ARGUMENTS=($(tr '\n' ' ' < "$HERE/config.args"))"

exec python3 -m openrlhf.cli.train_ppo_ray "${ARGUMENTS[@]}" \
  --actor.model_name_or_path "$MODEL" \
  --reward.remote_url "$HERE/reward.py" \
  --data.prompt_dataset "$OUT/train.jsonl" \
  --rollout.batch_size "$QUESTIONS" \
  --train.num_episodes "$EPISODES" \
  --train.batch_size "$((QUESTIONS * @GROUP_SIZE@))" \
  --actor.num_nodes "$NODES" --actor.num_gpus_per_node "$GPUS" \
  --ref.num_nodes "$NODES" --ref.num_gpus_per_node "$GPUS" \
  --vllm.num_engines "$((GPUS * NODES))" \
  --ckpt.output_dir "$OUT" \
  --ckpt.path "$OUT/checkpoints" \
  "$@"
