"""IMDB movie reviews, positive or negative (Maas et al. 2011).

https://ai.stanford.edu/~amaas/data/sentiment/. One review a file, `aclImdb/train/pos/127_10.txt`, in which only the
folders matter:

    For a movie that gets no respect there sure are a lot of memorable quotes listed for this gem. <br /><br />Imagine

A fifth of the training side is for validation, and a fifth of the test side is used, as by Jain & Wallace (2019), of
both the reviews of more than 6 and less than 400 tokens: 21,516 for training and validation.
"""

from __future__ import annotations

from collections.abc import Iterator

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task, drawn
from nlproar.dataset.tokenizer import keras

LABELS = {"neg": 0, "pos": 1}
PATTERNS = tuple(f"aclImdb/{side}/{label}/*.txt" for side in ("train", "test") for label in LABELS)
REVIEWS = 12_500  # in each folder of the official archive
SHARE = 0.2  # of the training side for validation, of the test side for testing


def read(raw: RawFiles) -> Iterator[Example]:
    """Yield the reviews: a fifth of the training side is for validation, and a fifth of the test side for testing."""
    reviews = sorted(raw.contents(*PATTERNS))  # archives differ in order
    for name, _ in reviews:
        raw.tally.read[name.rpartition("/")[0]] += 1
    for side in ("train", "test"):
        here = [(name, text) for name, text in reviews if name.startswith(f"aclImdb/{side}/")]
        sample = drawn(len(here), SHARE, side)
        for index, (name, text) in enumerate(here):
            label = LABELS[name.split("/")[2]]
            if side == "train":
                yield Example("val" if index in sample else "train", text, label)
            elif index in sample:
                yield Example("test", text, label)
            else:
                raw.tally.drop("not in the fifth that is drawn", "test")


TASKS = {
    "imdb": Task(
        name="imdb",
        title="IMDB",
        command="experiments/imdb.py",
        labels=("negative", "positive"),
        sources={"official": sources.IMDB},
        members=PATTERNS,
        read=read,
        tokenize=keras,
        monitor="auroc",
        metric="macro_f1",
        min_document_frequency=10,
        shortest=7,
        longest=399,
        records="reviews",
        published={pattern.rpartition("/")[0]: REVIEWS for pattern in PATTERNS},
    )
}
