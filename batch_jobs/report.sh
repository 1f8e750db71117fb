#!/usr/bin/env bash
# Submit one job that makes the report: bash batch_jobs/report.sh [flags of nlproar report]
#SBATCH --cpus-per-task=2 --mem=8G --time=1:00:00 --job-name=nlproar-report
set -euo pipefail
# It stays in the folder of the user, to which the paths among the flags are relative.
here=${0%/*}
[ "$here" != "$0" ] || here=.
here=${NLPROAR_BATCH_JOBS:-$here}  # in a job, as Slurm runs a copy of this script
. "$here/python.sh"
if [ -z "${SLURM_JOB_ID:-}" ]; then
  export NLPROAR_BATCH_JOBS
  NLPROAR_BATCH_JOBS=$(cd "$here" && pwd)
  set -a
  [ ! -f "$here/site.conf" ] || . "$here/site.conf"
  set +a
  options=()
  [ -z "${NLPROAR_ACCOUNT:-}" ] || options+=("--account=$NLPROAR_ACCOUNT")
  [ -z "${NLPROAR_PARTITION:-}" ] || options+=("--partition=$NLPROAR_PARTITION")
  exec "${SBATCH:-sbatch}" ${options[@]+"${options[@]}"} "$here/report.sh" "$@"
fi
prepare_job
exec "$python" -P -m nlproar report "$@"
