#!/usr/bin/env bash
# ROAR, after the base models it explains: bash batch_jobs/roar.sh TASK... [flags of experiments/study.py]
here=${0%/*}
[ "$here" != "$0" ] || here=.
exec "${BASH:-bash}" "$here/submit.sh" "$@" --no-recursive
