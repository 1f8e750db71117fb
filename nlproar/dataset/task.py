"""What a task declares about itself."""

from __future__ import annotations

import json
import operator
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar.errors import UserError
from nlproar.paths import check_name

if TYPE_CHECKING:
    from nlproar.dataset.raw import RawFiles
    from nlproar.dataset.sources import Source

SPLITS = ("train", "val", "test")
SPLIT_SEED = 0  # fixed: the seed of a run must not change its data

METRICS = ("accuracy", "auroc", "macro_f1", "micro_f1")
"""The metrics by which the epoch of a task can be chosen, and its performance reported. AUROC is of two classes."""
_OF_TWO_CLASSES = "macro_f1_at_best_threshold"  # can be reported, too

_IN_MEMORY = ("observations.json",)  # the members of a task in memory
_TOKENIZED = 200  # texts of a task in memory whose tokens tell one tokenizer from another


@dataclass(frozen=True)
class Example:
    """One observation as it is read: `text` is masked and explained, `query` (paired tasks) is not."""

    split: str  # one of SPLITS
    text: str
    label: int
    query: str = ""


@dataclass(frozen=True)
class Task:
    """Every fact in which one task differs from another.

    How a model is trained for it is not among them: that belongs to the pair of a model and a task, see
    `nlproar.model.recipes`.
    """

    name: str
    title: str
    command: str  # the script and flags that run this task; empty if `nlproar run` does
    labels: tuple[str, ...]
    sources: Mapping[str, Source | Callable[[], dict[str, str]]]  # where the files come from, or what writes them
    members: tuple[str, ...]  # the files that are read, as the official archive names them
    read: Callable[[RawFiles], Iterable[Example]]
    tokenize: Callable[[str], list[str]]

    monitor: str  # the validation metric that chooses the epoch
    metric: str  # the test metric that is reported

    paired: bool = False
    min_document_frequency: int = 1
    shortest: int = 0  # tokens of the text; an observation with fewer, or more than `longest`, is left out
    longest: int = 1_000_000
    version: int = 1  # raise it when `read` or `tokenize` changes: what is encoded in the cache is of the old one
    confidential: bool = False  # texts must not be shown, files are for their owner only

    # Which words of a text and its query are informative, for each word of the text; None where this is not known.
    informative: Callable[[Sequence[str], Sequence[str]], list[bool]] | None = None

    records: str = "records"  # what `published` counts
    published: Mapping[str, int] = field(default_factory=dict)  # by the name that `read` counts in its tally

    def __post_init__(self) -> None:
        """Raise UserError for names that can be none."""
        check_name("task", self.name)
        for source in self.sources:
            check_name(f"task {self.name}, source", source)
        object.__setattr__(self, "labels", _checked_labels(self.name, self.labels))

    @property
    def is_in_memory(self) -> bool:
        """Whether `in_memory` made the task, so that there is no file of a user."""
        return self.members == _IN_MEMORY

    def described(self) -> dict[str, Any]:
        """Return what a record tells of the task, as JSON can hold it."""
        return {
            "title": self.title,
            "labels": list(self.labels),
            "monitor": self.monitor,
            "metric": self.metric,
            "version": self.version,
            "paired": self.paired,
            "confidential": self.confidential,
        }


def in_memory(
    name: str,
    examples: Iterable[Example],
    labels: Sequence[str],
    tokenize: Callable[[str], list[str]],
    **facts: Any,
) -> Task:
    """Return a task whose observations are given, for data of your own.

    `facts` are any of the other fields of `Task`; by default the validation metric is accuracy, and so is the reported
    one. See docs/extending.md for an example. Raises UserError for labels that cannot be, and for an example that
    cannot be one of such a task.
    """
    labels = _checked_labels(name, labels)
    paired = facts.get("paired", False)
    observations = []
    for number, one in enumerate(examples):
        observations.append(_checked(one, f"task {name}, example {number}", labels, paired))
    listed: list[Any] = [[one.split, one.text, one.label, one.query] for one in observations]
    # Together with the texts, some of their tokens identify the data, so that another tokenizer encodes them again.
    listed.append([checked_tokens(name, tokenize(one.text)) for one in observations[:_TOKENIZED]])
    if paired:
        listed.append([checked_tokens(name, tokenize(one.query)) for one in observations[:_TOKENIZED]])
    listed.append(paired)
    text = json.dumps(listed)
    defaults: dict[str, Any] = {"title": name, "monitor": "accuracy", "metric": "accuracy"}
    defaults["command"] = ""
    facts = {**defaults, **facts}
    for fact, known in _known_metrics(len(labels)).items():
        if facts[fact] not in known:
            raise UserError(f"task {name}: {fact} {facts[fact]!r}: choose from {', '.join(known)}")
    return Task(
        name=name,
        labels=labels,
        sources={"official": lambda: {_IN_MEMORY[0]: text}},
        members=_IN_MEMORY,
        read=lambda raw: observations,
        tokenize=tokenize,
        **facts,
    )


def _checked_labels(task: str, labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the labels of a task as a tuple. Raises UserError for what cannot be such names."""
    names = () if isinstance(labels, str) else tuple(labels)
    are_texts = all(isinstance(name, str) and name for name in names)
    if not are_texts or len(names) < 2 or len(set(names)) < len(names):
        raise UserError(
            f'task {task}: labels={labels!r}; give two or more different names, such as ("negative", "positive")'
        )
    return names


def _known_metrics(classes: int) -> dict[str, list[str]]:
    """Return the names that a task with so many classes may have as `monitor` and as `metric`."""
    if classes == 2:
        return {"monitor": [*METRICS], "metric": [*METRICS, _OF_TWO_CLASSES]}
    of_all = [metric for metric in METRICS if metric != "auroc"]
    return {"monitor": of_all, "metric": of_all}


def _checked(example: Example, where: str, labels: Sequence[str], paired: bool) -> Example:
    """Return an example with its label as an int. Raises UserError, which begins with `where`, if it cannot be one."""
    if not isinstance(example, Example):
        raise UserError(f"{where}: it is no Example (its type is {type(example).__name__})")
    if example.split not in SPLITS:
        # What stands there may be the text, which may be confidential.
        raise UserError(f"{where}: its split is another one than {', '.join(SPLITS)}; give the split first")
    if not isinstance(example.text, str) or not isinstance(example.query, str):
        kinds = f"{type(example.text).__name__}, {type(example.query).__name__}"
        raise UserError(f"{where}: the text or the query is not a text (their types are {kinds})")
    if not _is_whole(example.text) or not _is_whole(example.query):
        raise UserError(f"{where}: the text or the query holds half a character (a lone surrogate)")
    if example.query and not paired:
        raise UserError(f"{where}: it has a query, which only a task with paired=True has")
    given = bool(example.label) if isinstance(example.label, np.bool_) else example.label
    try:
        label = operator.index(given)
    except TypeError as error:
        kind = type(example.label).__name__
        raise UserError(f"{where}: the label is not a whole number (its type is {kind})") from error
    if not 0 <= label < len(labels):
        raise UserError(f"{where}: the label is {label}; it must be from 0 to {len(labels) - 1}")
    return replace(example, label=label)


def checked_tokens(task: str, tokens: Any) -> list[str]:
    """Return what the tokenizer of a task returned. Raises UserError if it is no list of texts."""
    kind = type(tokens).__name__
    if not isinstance(tokens, (list, tuple)):
        raise UserError(f"task {task}: its tokenizer returned an object of type {kind}, not a list of texts")
    if tokens and not isinstance(tokens[0], str):  # a look at all of them would take seconds
        kind = type(tokens[0]).__name__
        raise UserError(f"task {task}: its tokenizer returned a list whose elements have the type {kind}, not str")
    return list(tokens)


def _is_whole(text: str) -> bool:
    """Return whether a text can be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def drawn(n: int, share: float, purpose: str) -> set[int]:
    """The rounded `share` of range(n), the same at every run; another `purpose` draws others."""
    return set(random.Random(f"{SPLIT_SEED} {purpose}").sample(range(n), round(share * n)))
