"""Stanford Natural Language Inference: does a premise entail a hypothesis (Bowman et al. 2015).

https://nlp.stanford.edu/projects/snli/. One JSON object a line, of which three keys are read; a pair without agreement
has the gold label "-" and is dropped (549,367 / 9,842 / 9,824 remain):

    {"gold_label": "neutral", "sentence1": "A person on a horse jumps over a broken down airplane.",
     "sentence2": "A person is training his horse for a competition."}

The premise is masked and explained, the hypothesis is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task
from nlproar.dataset.tokenizer import english_without_digits
from nlproar.errors import UserError

FILES = {"train": "train", "dev": "val", "test": "test"}
MEMBERS = {f"snli_1.0/snli_1.0_{part}.jsonl": split for part, split in FILES.items()}
LABELS = ("entailment", "contradiction", "neutral")


def read(raw: RawFiles) -> Iterator[Example]:
    for member, split in MEMBERS.items():
        for number, line in raw.lines(member):
            if not line.strip():
                continue
            try:
                pair = json.loads(line)
                label, premise, hypothesis = pair["gold_label"], pair["sentence1"], pair["sentence2"]
                (premise + hypothesis).encode()  # refuses what is no text, and half a character
                index = LABELS.index(label) if label != "-" else None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                reason = f"{type(error).__name__}: {error}"
                raise UserError(f"{raw.place}, {member}, line {number}: not a pair ({reason}); replace it") from error
            if index is not None:
                yield Example(split, premise, index, hypothesis)


TASKS = {
    "snli": Task(
        name="snli",
        title="SNLI",
        command="experiments/stanford_nli.py",
        labels=LABELS,
        sources={"official": sources.SNLI},
        members=tuple(MEMBERS),
        read=read,
        tokenize=english_without_digits,
        paired=True,
        batch_size=128,
        max_epochs=25,
        hidden_size=128,
        monitor="accuracy",
        metric="micro_f1",
        vectors="glove",
        unknown_vectors="zeros",
        random_dimensions=300,
        min_document_frequency=3,
    )
}
