#!/usr/bin/env bash
# Submit one job that makes the report: bash batch_jobs/report.sh [flags of experiments/report.py]
#SBATCH --cpus-per-task=2 --mem=8G --time=1:00:00 --job-name=nlproar-report
set -euo pipefail
here=${0%/*}
[ "$here" != "$0" ] || here=.
[ -f "$here/python.sh" ] || here=batch_jobs  # Slurm runs a copy of this script, in the folder of the checkout
[ -f "$here/python.sh" ] || { echo "error: $PWD is not the checkout of nlproar, where a job starts" >&2; exit 2; }
. "$here/python.sh"
if [ -z "${SLURM_JOB_ID:-}" ]; then
  set -a
  [ ! -f "$here/site.conf" ] || . "$here/site.conf"
  set +a
  cd "$here/.."
  options=()
  [ -z "${NLPROAR_ACCOUNT:-}" ] || options+=("--account=$NLPROAR_ACCOUNT")
  [ -z "${NLPROAR_PARTITION:-}" ] || options+=("--partition=$NLPROAR_PARTITION")
  exec "${SBATCH:-sbatch}" ${options[@]+"${options[@]}"} batch_jobs/report.sh "$@"
fi
for name in ${NLPROAR_MODULES:-}; do module load "$name" || fail "module load $name failed"; done
[ -z "${VIRTUAL_ENV:-}" ] || . "$VIRTUAL_ENV/bin/activate"
find_python
"$python" experiments/report.py "$@"
