"""The documented interface for Python works as its pages show it."""

import gc
import re
import stat
import subprocess
import sys
from dataclasses import replace

import pytest

import nlproar
from nlproar.dataset import load_task
from nlproar.errors import UserError
from nlproar.model import checkpoint
from nlproar.run import failure
from nlproar.run.context import Context
from nlproar.run.layout import Layout
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


@pytest.mark.parametrize(
    ("importance", "flags", "said"),
    [
        ([0.1, 0.9], {"k": 1, "strategy": "Count"}, "strategy 'Count': choose from count, quantile"),
        ([0.1, 0.9], {"k": 150}, "k 150"),
        ([0.1, 0.9], {"k": -1}, "k -1"),
        ([0.1, float("nan")], {"k": 50}, "is NaN"),
    ],
)
def test_a_mask_that_cannot_be_is_refused(importance, flags, said):
    with pytest.raises(UserError, match=re.escape(said)):
        nlproar.mask(importance, **flags)


def test_what_derives_from_confidential_texts_is_for_its_owner_only(small_run, monkeypatch):
    config = small_run(importance_measure="position", k=1)
    monkeypatch.setattr(type(config), "task", property(lambda self: replace(load_task("babi-1"), confidential=True)))
    nlproar.importance(config)
    files = [path for path in Layout.of(config).cache.rglob("*.npz") if "importance" in str(path)]
    assert files and all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)


def test_what_the_caller_made_is_collected_as_usual_after_a_run(small_run):
    before = gc.get_freeze_count()
    nlproar.run_experiment(small_run())
    assert gc.get_freeze_count() == before


def test_importance_of_a_model_that_was_trained_on_other_masks_is_refused(small_run):
    flags = {"importance_measure": "gradient", "recursive": True, "recursive_step_size": 1}
    upper = small_run(**flags, k=2, train_missing=True)
    nlproar.run_experiment(upper)
    lower = small_run(**flags, k=1)
    context = Context(lower, Layout.of(lower))
    description = checkpoint.describe(Layout.of(lower).checkpoint(lower))
    checkpoint.describe_again(Layout.of(lower).checkpoint(lower), {**description, "masks": "0" * 16})
    assert lower.rules.is_stale(lower, context)
    with pytest.raises(UserError, match="was trained on other masks"):
        nlproar.importance(small_run(**flags, k=2))
    assert failure.of(Layout.of(upper), upper) is None  # nobody has tried that run
    with pytest.raises(UserError, match="was trained on other masks"):
        nlproar.run_experiment(small_run(**flags, k=2, overwrite=True))
    assert "was trained on other masks" in failure.of(Layout.of(upper), upper)
