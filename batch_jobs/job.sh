#!/usr/bin/env bash
# One element of an array: the chain on line $2 + $SLURM_ARRAY_TASK_ID (from 0) of the job list $1. See submit.sh.
set -euo pipefail
for name in ${NLPROAR_MODULES:-}; do module load "$name"; done
[ -z "${VIRTUAL_ENV:-}" ] || . "$VIRTUAL_ENV/bin/activate"
export OMP_NUM_THREADS=${SLURM_CPUS_PER_TASK:-1}
command=$(sed -n "$(($2 + SLURM_ARRAY_TASK_ID + 1))p" "$1" | cut -f 2-)
echo "$command"
eval "exec $command"  # in place of this shell, so that the signal before the time limit reaches it
