# Sourced by the other scripts, not run.

# End with one line that says what is wrong.
fail() {
  echo "error: $*" >&2
  exit 2
}

# Set $python to the one on PATH that can run the scripts.
find_python() {
  for python in python python3; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  done
  fail "no Python 3.11 or later is on PATH: activate the environment in which nlproar is installed"
}

# In a job: load the modules and activate the environment that were there at submission, and set $python.
prepare_job() {
  if [ -n "${NLPROAR_MODULES:-}" ]; then
    command -v module >/dev/null || fail "NLPROAR_MODULES is set, and there is no command 'module' on $(hostname)"
    for name in $NLPROAR_MODULES; do module load "$name" || fail "module load $name failed"; done
  fi
  if [ -n "${VIRTUAL_ENV:-}" ]; then
    [ -f "$VIRTUAL_ENV/bin/activate" ] || fail "the environment $VIRTUAL_ENV is not there"
    . "$VIRTUAL_ENV/bin/activate"
  fi
  find_python
}
