#!/usr/bin/env bash
# Recursive ROAR, after the base models: bash batch_jobs/roar_recursive.sh TASK... [flags of experiments/study.py]
here=${0%/*}
[ "$here" != "$0" ] || here=.
exec "${BASH:-bash}" "$here/submit.sh" "$@" --recursive
