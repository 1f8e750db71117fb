"""Stanford Natural Language Inference: does a premise entail a hypothesis (Bowman et al. 2015).

https://nlp.stanford.edu/projects/snli/. One JSON object a line, of which three keys are read; a pair without agreement
has the gold label "-" and is dropped (549,367 / 9,842 / 9,824 remain):

    {"gold_label": "neutral", "sentence1": "A person on a horse jumps over a broken down airplane.",
     "sentence2": "A person is training his horse for a competition."}

The premise is masked and explained, the hypothesis is not.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from nlproar.dataset import sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task
from nlproar.dataset.tokenizer import english_without_digits
from nlproar.errors import UserError

FILES = {"train": "train", "dev": "val", "test": "test"}
MEMBERS = {f"snli_1.0/snli_1.0_{part}.jsonl": split for part, split in FILES.items()}
LABELS = ("entailment", "contradiction", "neutral")
NO_AGREEMENT = "-"
PAIRS = {"train": 549_367, "dev": 9_842, "test": 9_824}  # with a gold label, in the official files

_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


def read(raw: RawFiles) -> Iterator[Example]:
    """Yield the pairs that have a gold label."""
    for member, split in MEMBERS.items():
        for number, line in raw.lines(member):
            if not line.strip():
                continue
            pair, wrong = _pair(line)
            if wrong:
                raise UserError(f"{raw.place}, {member}, line {number}: {wrong}; replace the file")
            if pair["gold_label"] == NO_AGREEMENT:
                raw.tally.drop("without a gold label", split)
                continue
            raw.tally.read[PurePosixPath(member).name] += 1
            yield Example(split, pair["sentence1"], LABELS.index(pair["gold_label"]), pair["sentence2"])


def _pair(line: str) -> tuple[dict[str, Any], str]:
    """The object in one line, and what is wrong with it, which is empty if it is a pair of sentences with a label."""
    try:
        pair = json.loads(line)
    except (ValueError, RecursionError):  # also numbers of too many digits, and lists in lists without end
        return {}, "not a JSON object"
    if not isinstance(pair, dict):
        return {}, "not a JSON object"
    for key in ("gold_label", "sentence1", "sentence2"):
        if key not in pair:
            return {}, f"no {key}"
    for key in ("sentence1", "sentence2"):
        if not isinstance(pair[key], str):
            return {}, f"{key} is not a text"
        if _HALF_A_CHARACTER.search(pair[key]):
            return {}, f"{key} holds half of a character (a lone surrogate)"
    label = pair["gold_label"]
    if label not in (*LABELS, NO_AGREEMENT):
        labels = ", ".join(LABELS)
        return {}, f"the label is {json.dumps(label)[:40]}, not one of {labels} (or {NO_AGREEMENT} for none)"
    return pair, ""


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
        monitor="accuracy",
        metric="micro_f1",
        min_document_frequency=3,
        records="pairs with a gold label",
        published={f"snli_1.0_{part}.jsonl": number for part, number in PAIRS.items()},
    )
}
