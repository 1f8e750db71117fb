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
