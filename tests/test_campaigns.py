"""The campaigns against the promises of the README, each in a short form."""

import subprocess
import sys

from tests.conftest import ROOT


def test_a_damaged_file_is_made_again_or_named():
    command = [sys.executable, "-m", "tests.campaigns.corruption", "--count", "15", "--no-report"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
