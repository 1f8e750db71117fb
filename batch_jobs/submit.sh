#!/usr/bin/env bash
# Submit what is missing of a study, and not queued yet, as Slurm arrays: one for each task and stage.
#   bash batch_jobs/submit.sh TASK... [flags of experiments/study.py]        SBATCH=echo: only show
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -f batch_jobs/site.conf ] || . batch_jobs/site.conf
SBATCH=${SBATCH:-sbatch}

tasks=()
while [ $# -gt 0 ] && [[ $1 != -* ]]; do tasks+=("$1"); shift; done
[ ${#tasks[@]} -gt 0 ] || { echo "error: name a task, or all, before the flags" >&2; exit 2; }

queue=""
max=1001  # Slurm's own default
if [ "$SBATCH" = sbatch ]; then
  queue=$(squeue --user="$(id -un)" --noheader --array --format='%F %K')
  max=$(scontrol show config | sed -n 's/^MaxArraySize *= *//p')
fi
max=${NLPROAR_MAX_ARRAY_SIZE:-$max}

options=(--parsable --requeue --open-mode=append --signal=B:TERM@120 --kill-on-invalid-dep=yes)
options+=(--cpus-per-task="${NLPROAR_CPUS:-1}" --mem="${NLPROAR_MEMORY:-8G}")
[ -z "${NLPROAR_ACCOUNT:-}" ] || options+=(--account="$NLPROAR_ACCOUNT")
[ -z "${NLPROAR_PARTITION:-}" ] || options+=(--partition="$NLPROAR_PARTITION")
[ -z "${NLPROAR_GRES:-}" ] || options+=(--gres="$NLPROAR_GRES")

lists=$(python experiments/study.py --dataset "${tasks[@]}" "$@" --job-lists <<<"$queue")
[ -n "$lists" ] || { echo "nothing to submit: everything is done or queued"; exit 0; }

declare -A base=()  # jobs of the base list of a task, separated by colons
while IFS=$'\t' read -r task stage file lines waits after submitted; do
  limit=$(awk -v task="$task" -v stage="$stage" '$1 == task && $2 == stage { print $3 }' batch_jobs/time_limits.txt)
  jobs=()
  for ((start = 0; start < lines; start += max)); do
    last=$((lines - start < max ? lines - start - 1 : max - 1))
    dependency=()
    if [ "$waits" = aftercorr ]; then
      IFS=: read -ra parts <<<"${base[$task]}"
      dependency=(--dependency="aftercorr:${parts[${#jobs[@]}]}")
    elif [ "$waits" = afterok ]; then
      [ "$after" != - ] || after=""
      all="${base[$task]:-}${base[$task]:+${after:+:}}$after"
      dependency=(--dependency="afterok:$all")
    fi
    job=$("$SBATCH" "${options[@]}" ${dependency[@]+"${dependency[@]}"} --time="${NLPROAR_TIME:-$limit}" \
      --array="0-$last${NLPROAR_THROTTLE:+%$NLPROAR_THROTTLE}" --job-name="nlproar-$task-$stage" \
      --output="$(dirname "$file")/%A_%a.out" batch_jobs/job.sh "$file" "$start")
    if [ "$SBATCH" = sbatch ]; then
      job=${job%%;*}
      printf '%s\t%s\t%s\n' "$job" "$file" "$start" >>"$submitted"
      echo "job $job: $task, $stage, $((last + 1)) chains"
    else
      echo "$job"
      job="JOB-OF-$task-$stage-$start"
    fi
    jobs+=("$job")
  done
  [ "$stage" != base ] || base[$task]=$(IFS=:; echo "${jobs[*]}")
done <<<"$lists"
