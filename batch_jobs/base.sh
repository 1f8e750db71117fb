#!/usr/bin/env bash
# The unmasked and the fully masked models: bash batch_jobs/base.sh TASK... [flags of experiments/study.py]
exec bash "$(dirname "$0")/submit.sh" "$@" --stage base
