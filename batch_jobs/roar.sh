#!/usr/bin/env bash
# ROAR, after the base models it explains: bash batch_jobs/roar.sh TASK... [flags of experiments/study.py]
exec bash "$(dirname "$0")/submit.sh" "$@" --no-recursive
