"""What a task declares about itself."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nlproar.dataset.raw import RawFiles
    from nlproar.dataset.sources import Source

SPLITS = ("train", "val", "test")
SPLIT_SEED = 0  # fixed: the seed of a run must not change its data


@dataclass(frozen=True)
class Example:
    """One observation as it is read: `text` is masked and explained, `query` (paired tasks) is not."""

    split: str  # one of SPLITS
    text: str
    label: int
    query: str = ""


@dataclass(frozen=True)
class Task:
    """Every fact in which one task differs from another. `facts` are those that decide a run's identity."""

    name: str
    title: str
    command: str  # the script and flags that run this task
    labels: tuple[str, ...]
    sources: Mapping[str, Source | Callable[[], dict[str, str]]]  # where the files come from, or what writes them
    members: tuple[str, ...]  # the files that are read, as the official archive names them
    read: Callable[[RawFiles], Iterable[Example]]
    tokenize: Callable[[str], list[str]]

    batch_size: int
    max_epochs: int
    hidden_size: int  # per direction
    monitor: str  # the validation metric that chooses the epoch
    metric: str  # the test metric that is reported
    vectors: str  # a name in `sources.VECTORS`, "word2vec" (of the training split) or "random"
    unknown_vectors: str  # for words without a vector: "zeros" or "normal"
    random_dimensions: int  # of vectors that come from no file

    paired: bool = False
    min_document_frequency: int = 1
    shortest: int = 0  # tokens of the text; an observation with fewer, or more than `longest`, is left out
    longest: int = 1_000_000
    confidential: bool = False  # texts must not be shown, files are for their owner only

    records: str = "records"  # what `published` counts
    published: Mapping[str, int] = field(default_factory=dict)  # by the name that `read` counts in its tally

    def facts(self) -> dict[str, Any]:
        """The declared values that decide numbers, as JSON can hold them: without functions, sources, and what is only
        shown or compared."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        for name in ("sources", "members", "read", "tokenize", "command", "title", "records", "published"):
            del values[name]
        return {**values, "labels": list(self.labels)}


def drawn(n: int, share: float, purpose: str) -> set[int]:
    """The rounded `share` of range(n), the same at every run; another `purpose` draws others."""
    return set(random.Random(f"{SPLIT_SEED} {purpose}").sample(range(n), round(share * n)))
