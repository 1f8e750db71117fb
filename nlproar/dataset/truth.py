"""Which tokens of a data set are informative. This is known of planted tasks only, see `nlproar.dataset.planted`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from nlproar.dataset import PLANTED
from nlproar.dataset.vocabulary import SPECIALS
from nlproar.errors import UserError

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Dataset, Split
    from nlproar.dataset.task import Task
    from nlproar.dataset.vocabulary import Vocabulary

Rule = Callable[[Sequence[str], Sequence[str]], list[bool]]


def rule_of(task: Task | None) -> Rule:
    """Return the rule that finds the informative words of a text. Raises UserError for a task without one."""
    if task is None or task.informative is None:
        name = "this task" if task is None else task.name
        raise UserError(
            f"the informative tokens of {name} are not known; choose a planted task instead: {', '.join(PLANTED)}"
        )
    return task.informative


def informative(task: Task, dataset: Dataset) -> dict[str, np.ndarray]:
    """Return which tokens of unmasked data are informative, for each split: (S,) bool, false at special tokens.

    Raises UserError for a task of which this is not known.
    """
    rule = rule_of(task)
    names = words_by_id(dataset.vocabulary)
    return {name: _of_split(rule, names, split) for name, split in dataset.splits.items()}


def words_by_id(vocabulary: Vocabulary) -> list[str]:
    """Return the word behind each id, special tokens included."""
    return [*SPECIALS, *vocabulary.words]


def _of_split(rule: Rule, names: Sequence[str], split: Split) -> np.ndarray:
    found = np.zeros(len(split.tokens), bool)
    for row in range(len(split)):
        first, last = split.offsets[row] + 1, split.offsets[row + 1] - 1  # without [CLS] and [EOS]
        words = [names[token] for token in split.tokens[first:last]]
        query: list[str] = []
        if split.query_tokens is not None and split.query_offsets is not None:
            of_query = slice(split.query_offsets[row] + 1, split.query_offsets[row + 1] - 1)
            query = [names[token] for token in split.query_tokens[of_query]]
        found[first:last] = rule(words, query)
    return found
