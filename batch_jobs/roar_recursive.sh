#!/usr/bin/env bash
# Recursive ROAR, after the base models: bash batch_jobs/roar_recursive.sh TASK... [flags of experiments/study.py]
exec bash "$(dirname "$0")/submit.sh" "$@" --recursive
