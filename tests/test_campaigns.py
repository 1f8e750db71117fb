"""The campaigns against the promises of the README, each in a short form."""

import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.mark.slow
def test_a_damaged_file_is_made_again_or_named():
    command = [sys.executable, "-m", "tests.campaigns.corruption", "--count", "15", "--no-report"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_what_is_killed_at_any_file_operation_or_moment_continues_with_nothing_lost_or_trained_again():
    command = [sys.executable, "-m", "tests.campaigns.kill", "--kills", "12", "--scenarios", "chain", "overwrite"]
    done = subprocess.run([*command, "--ways", "operations", "moments"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "kills: 0 wrong, 0 lost, 0 left over, 0 trained again" in done.stdout


def test_every_module_can_be_imported_as_the_campaigns_do():
    """... before they fork: the module behind `python -m nlproar` must not run the command."""
    command = [sys.executable, "-c", "import nlproar.__main__"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
