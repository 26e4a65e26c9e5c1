#!/usr/bin/env bash
# Rolls a model out in this taskset with verifiers. In an environment with verifiers, and
# `pip install --no-deps vrft-bench`, beside an OpenAI-compatible server that serves MODEL:
#
#   ./launch.sh --client.base-url http://localhost:8000/v1
#
# To train with prime-rl, name the taskset `vrft_taskset` in its configuration and start it with this folder on
# PYTHONPATH, as here; how many GPUs and nodes it uses is said there. Further arguments are vf-eval's own.
@places.sh@
export PYTHONPATH="$HERE${PYTHONPATH:+:$PYTHONPATH}"

exec vf-eval vrft_taskset --model "$MODEL" --num-rollouts @ROLLOUTS@ --sampling.temperature @TEMPERATURE@ \
  --sampling.top-p @TOP_P@ --sampling.max-tokens @MAX_TOKENS@ --push false --output-dir "$OUT" "$@"
