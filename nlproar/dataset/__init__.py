"""The tasks: where their data come from, how they are read, and the facts in which they differ.

To add one, write a module with a `TASKS` dict like its neighbours and name it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlproar.paths import check_name
from nlproar.plugins import imported

if TYPE_CHECKING:
    from nlproar.dataset.task import Task

# Tasks whose informative tokens are known. They check measures and metrics, and are not among "all" tasks of a study.
PLANTED = {
    "planted-keyword": "nlproar.dataset.planted",
    "planted-redundant": "nlproar.dataset.planted",
    "planted-conjunction": "nlproar.dataset.planted",
    "planted-negation": "nlproar.dataset.planted",
    "planted-position": "nlproar.dataset.planted",
    "planted-spurious": "nlproar.dataset.planted",
    "planted-pair": "nlproar.dataset.planted",
}

TASKS = {
    "sst": "nlproar.dataset.stanford_sentiment",
    "snli": "nlproar.dataset.stanford_nli",
    "imdb": "nlproar.dataset.imdb",
    "mimic-diabetes": "nlproar.dataset.mimic",
    "mimic-anemia": "nlproar.dataset.mimic",
    "babi-1": "nlproar.dataset.babi",
    "babi-2": "nlproar.dataset.babi",
    "babi-3": "nlproar.dataset.babi",
    **PLANTED,
}


def load_task(name: str) -> Task:
    """Return the declaration of a task, a key of `TASKS`. Imports its module only."""
    check_name("task", name)
    task: Task = imported(TASKS[name], f"task {name}").TASKS[name]
    return task
