"""Stanford Sentiment Treebank, two classes, whole sentences (Socher et al. 2013).

https://nlp.stanford.edu/sentiment/. One line of `trees/train.txt` is one tree whose nodes carry a sentiment of
0 to 4; the root's is the label: 0 and 1 negative, 3 and 4 positive, 2 (neutral) is dropped:

    (3 (2 (2 The) (2 film)) (3 (3 works) (2 .)))

Sentences of five tokens or less are dropped too, as Jain & Wallace (2019) do: 6,579 / 848 / 1,776 remain.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task
from nlproar.dataset.tokenizer import english
from nlproar.errors import UserError

MEMBERS = {"trees/train.txt": "train", "trees/dev.txt": "val", "trees/test.txt": "test"}

_LEAF = re.compile(r"\([0-4] ([^()\s]+)\)")
_TREE = re.compile(r"\(([0-4]) .*\)")


def read(raw: RawFiles) -> Iterator[Example]:
    for member, split in MEMBERS.items():
        for number, line in raw.lines(member):
            if not line.strip():
                continue
            tree = _TREE.fullmatch(line.strip())
            leaves = _LEAF.findall(line)
            if tree is None or not leaves or line.count("(") != line.count(")"):
                raise UserError(f"{raw.place}, {member}, line {number}: not a sentiment tree; replace the file")
            sentiment = int(tree[1])
            if sentiment != 2 and len(leaves) > 5:
                yield Example(split, _clean(leaves), int(sentiment > 2))


def _clean(leaves: list[str]) -> str:
    words = " ".join(leaf for leaf in leaves if leaf not in ("-LRB-", "-RRB-"))
    return re.sub(r"\W+", " ", words).strip()


TASKS = {
    "sst": Task(
        name="sst",
        title="Stanford Sentiment Treebank",
        command="experiments/stanford_sentiment.py",
        labels=("negative", "positive"),
        sources={"official": sources.SST},
        members=tuple(MEMBERS),
        read=read,
        tokenize=english,
        batch_size=32,
        max_epochs=8,
        hidden_size=128,
        monitor="auroc",
        metric="macro_f1",
        vectors="fasttext",
        unknown_vectors="zeros",
        random_dimensions=300,
    )
}
