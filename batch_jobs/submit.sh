#!/usr/bin/env bash
# Submit what is missing of a study, and not queued yet, as Slurm arrays: one for each task and stage.
#   bash batch_jobs/submit.sh TASK... [flags of experiments/study.py]        SBATCH=echo: only show
set -euo pipefail
# It stays in the folder of the user, to which the paths among the flags are relative.
here=${0%/*}
[ "$here" != "$0" ] || here=.
. "$here/python.sh"
set -a  # what site.conf says must reach Python and the jobs
[ ! -f "$here/site.conf" ] || . "$here/site.conf"
set +a
find_python
exec "$python" "$here/submit.py" "$@"
