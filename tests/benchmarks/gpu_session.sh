#!/usr/bin/env bash
# What needs a GPU, as three calls of at most ten minutes each (an estimate; none has been run):
#   tests/benchmarks/gpu_session.sh suite   the tests
#   tests/benchmarks/gpu_session.sh bench   the speed of all parts, into report/results/bench_NAME_OF_THE_GPU.json
#   tests/benchmarks/gpu_session.sh runs    the report's main trainings with three seeds, and gpt-mini for 5,000 steps
# Environment: PYTHON (default .venv/bin/python), DATA_DIR (default data), JOBS (processes of the tests, default 8),
# DRY_RUN=1 (print the commands only).
cd "$(dirname "$0")/../.." || exit 2
python=${PYTHON:-.venv/bin/python}
data=$(realpath -m "${DATA_DIR:-data}")
export DATA_DIR=$data
failed=0

run() { # further commands run even if one fails
  echo "+ $*"
  [ -n "$DRY_RUN" ] || "$python" "$@" || failed=1
}

case $1 in
  suite)
    run -m pytest -n "${JOBS:-8}" --dist loadfile
    ;;
  bench)
    run tests/benchmarks/bench_part1.py --data_dir "$data" --steps 0
    run tests/benchmarks/bench_part2.py --data_dir "$data" --steps 0
    run tests/benchmarks/bench_part3_training.py --data_dir "$data" --steps 100 --others bf16 compile
    run tests/benchmarks/bench_part3_generation.py --data_dir "$data"
    ;;
  runs)
    for seed in 42 1 2; do
      run part1/train.py --epochs 80 --seed $seed --data_dir "$data" --log_dir part1/VAE_logs/gpu
      run part2/train.py --epochs 100 --seed $seed --data_dir "$data" --log_dir part2/AAE_logs/gpu
      run part3/train.py --max_steps 1500 --val_every_n_steps 100 --seed $seed --data_dir "$data" --log_dir part3/logs/gpu
    done
    run part3/train.py --max_steps 5000 --val_every_n_steps 500 --data_dir "$data" --log_dir part3/logs/gpu
    find part?/*/gpu -name summary.json 2>/dev/null | sort | while read -r file; do
      echo "$file" $(grep -E '"(test_bpd|test_recon_loss|test_ks_mean|best_val_loss|train_seconds|seed)":' "$file")
    done
    ;;
  *)
    echo "usage: tests/benchmarks/gpu_session.sh suite|bench|runs" >&2
    exit 2
    ;;
esac
exit $failed
