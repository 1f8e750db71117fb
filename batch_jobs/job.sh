#!/usr/bin/env bash
# One element of an array: the chain on line $2 + $SLURM_ARRAY_TASK_ID (from 0) of the job list $1. See submit.sh.
set -euo pipefail
here=${0%/*}
[ "$here" != "$0" ] || here=.
[ -f "$here/job.py" ] || here=batch_jobs  # Slurm runs a copy of this script, in the folder of the checkout
[ -f "$here/job.py" ] || { echo "error: $PWD is not the checkout of nlproar, where a job starts" >&2; exit 2; }
. "$here/python.sh"
prepare_job
exec "$python" "$here/job.py" "$@"  # in place of this shell, so that the signal before the time limit reaches it
