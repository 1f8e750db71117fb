#!/usr/bin/env bash
# Everything that needs a network, on a laptop or a login node: install, then fetch and encode the data.
# Arguments go to experiments/download.py, e.g. bash download.sh sst imdb
set -euo pipefail
cd "$(dirname "$0")"

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  [ -d venv ] || python3 -m venv venv
  . venv/bin/activate
fi
pip show --quiet nlproar 2>/dev/null || pip install --constraint constraints.txt --editable .
exec python experiments/download.py "$@"
