"""The documented interface for Python works as its pages show it."""

import re
import subprocess
import sys

import pytest

import nlproar
from tests.conftest import ROOT


def blocks(page):
    """The Python code of a page, from top to bottom."""
    return "\n".join(re.findall(r"^```python\n(.*?)^```$", (ROOT / page).read_text(), re.S | re.M))


@pytest.mark.slow
@pytest.mark.parametrize("page", ["README.md", "docs/api.md"])
def test_the_code_of_a_page_runs_as_it_stands(page, few_questions, tmp_path):
    code = blocks(page)
    assert "nlproar.resolve" in code
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=few_questions, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_of_the_interface_is_there_and_has_a_docstring():
    for name in set(nlproar.__all__) - {"__version__"}:
        found = getattr(nlproar, name)
        assert callable(found) and found.__doc__, name
