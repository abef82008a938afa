#!/usr/bin/env bash
# Everything that needs a GPU, in under six minutes on an H200: benchmarks/gpu_check.sh [FOLDER]
#
# PYTHON names an interpreter that has statprune's dependencies (python3 otherwise). Each part has a limit of its own,
# and what it found before that is kept in FOLDER (outputs/gpu_check otherwise).
set -u
cd "$(dirname "$0")/.."
folder=${1:-outputs/gpu_check}
python=${PYTHON:-python3}
mkdir -p "$folder"
export PYTHONUNBUFFERED=1
failed=0

part() {  # name, limit in seconds, command
  local name=$1 limit=$2
  shift 2
  [[ " ${PARTS:-$name} " == *" $name "* ]] || return 0
  echo "== $name"
  timeout "$limit" "$@" 2>&1 | tee "$folder/$name.log"
  [ "${PIPESTATUS[0]}" -eq 0 ] || { echo "== $name failed or ran out of its $limit s"; failed=1; }
}

part speed 60 "$python" -m benchmarks.gpu_check speed --output "$folder"
part tests 90 "$python" -m pytest -q --no-header -p no:cacheprovider -n 4 \
  tests/core/test_gram.py tests/core/test_statistics_triton.py tests/core/test_selection_triton.py \
  tests/core/test_sparsegpt_triton.py tests/pruning/test_gpu.py
part placements 40 "$python" -m benchmarks.gpu_check placements --output "$folder"
part streaming 30 "$python" -m benchmarks.gpu_check streaming --output "$folder"
part profile 60 "$python" -m benchmarks.gpu_check profile --output "$folder"
part agreement 80 "$python" -m benchmarks.gpu_check agreement --output "$folder"
exit $failed
