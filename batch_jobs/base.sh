#!/usr/bin/env bash
# The unmasked and the fully masked models: bash batch_jobs/base.sh TASK... [flags of experiments/study.py]
here=${0%/*}
[ "$here" != "$0" ] || here=.
exec "${BASH:-bash}" "$here/submit.sh" "$@" --stage base
