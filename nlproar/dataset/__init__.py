"""The tasks: where their data come from, how they are read, and the facts in which they differ.

To add one, write a module with a `TASKS` dict like its neighbours and name it here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nlproar.dataset.task import Task

MODULES = {
    "sst": "stanford_sentiment",
    "snli": "stanford_nli",
    "imdb": "imdb",
    "mimic-diabetes": "mimic",
    "mimic-anemia": "mimic",
    "babi-1": "babi",
    "babi-2": "babi",
    "babi-3": "babi",
}


def load_task(name: str) -> Task:
    """The declaration of task `name`, a key of `MODULES`. Imports its module only."""
    task: Task = import_module(f"nlproar.dataset.{MODULES[name]}").TASKS[name]
    return task
