#!/usr/bin/env bash
# Everything that needs a network, on a laptop or a login node: install, then fetch and encode the data.
# Arguments go to experiments/download.py, e.g. bash download.sh sst imdb
set -euo pipefail
# It stays in the folder of the user, to which the paths among the arguments are relative.
here=${0%/*}
[ "$here" != "$0" ] || here=.
. "$here/batch_jobs/python.sh"

if [ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" ]; then
  if [ ! -f "$here/venv/bin/activate" ]; then
    find_python
    "$python" -m venv "$here/venv" || fail "$here/venv cannot be made; on Debian and Ubuntu, install python3-venv"
  fi
  . "$here/venv/bin/activate"
fi
find_python
if ! "$python" -m pip show --quiet nlproar 2>/dev/null; then
  "$python" -m pip install --constraint "$here/constraints.txt" --editable "$here" || fail "nlproar cannot be installed"
fi
exec "$python" "$here/experiments/download.py" "$@"
