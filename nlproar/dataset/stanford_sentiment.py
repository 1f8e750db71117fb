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

TREES = {"trees/train.txt": 8_544, "trees/dev.txt": 1_101, "trees/test.txt": 2_210}  # in the official files

# A node with a word, the start of a node with nodes, its end, blanks. Only plain blanks separate: a word may hold
# another one, as three of the official file do (`8 1\/2` with a no-break space, U+00A0).
_PART = re.compile(r"(?P<leaf>\([0-4][ \t]+(?P<word>[^() \t]+)[ \t]*\))|(?P<start>\([0-4][ \t]+)|(?P<end>\))|[ \t]+")


def read(raw: RawFiles) -> Iterator[Example]:
    """Yield the sentences whose label is not neutral, from the trees."""
    for member, split in MEMBERS.items():
        for number, line in raw.lines(member):
            if not line.strip():
                continue
            leaves = leaves_of(line.strip())
            if leaves is None:
                raise UserError(f"{raw.place}, {member}, line {number}: not a sentiment tree; replace the file")
            raw.tally.read[member] += 1
            sentiment = int(line.strip()[1])
            if sentiment == 2:
                raw.tally.drop("neutral", split)
            elif len(leaves) <= 5:
                raw.tally.drop("of five tokens or less", split)
            else:
                yield Example(split, _clean(leaves), int(sentiment > 2))


def leaves_of(tree: str) -> list[str] | None:
    """The words of a tree from left to right; None where it is no tree.

    In a tree every node holds either one word or other nodes, and everything is in the root.
    """
    words: list[str] = []
    has_nodes: list[bool] = []  # of every node that is open, from the root
    position = 0
    while position < len(tree):
        part = _PART.match(tree, position)
        if part is None or (position > 0 and not has_nodes):
            return None
        position = part.end()
        kind = part.lastgroup
        if kind in ("leaf", "start") and has_nodes:
            has_nodes[-1] = True
        if kind == "leaf":
            words.append(part["word"])
        elif kind == "start":
            has_nodes.append(False)
        elif kind == "end" and not (has_nodes and has_nodes.pop()):
            return None
    return words if words and not has_nodes else None


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
        monitor="auroc",
        metric="macro_f1",
        records="trees",
        published=TREES,
    )
}
