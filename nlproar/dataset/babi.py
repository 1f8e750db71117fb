"""bAbI questions 1-3: where somebody or something is, from one, two or three facts (Weston et al. 2015).

https://research.facebook.com/downloads/babi/, version 1.2, the 10,000-question files. A line number of 1 starts a
new story; a line with tabs is a question about the story so far, its answer, and the lines that support it:

    1 Mary moved to the bathroom.
    2 John went to the hallway.
    3 Where is Mary? <tab>bathroom<tab>1

The story is masked and explained, the question is not. 15 % of the training questions are for validation; they are
drawn one by one, so they are about the same stories as the questions that are left.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath

from nlproar.dataset import babi_simulation, sources
from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task, drawn
from nlproar.dataset.tokenizer import whitespace
from nlproar.errors import UserError

FILES = {1: "qa1_single-supporting-fact", 2: "qa2_two-supporting-facts", 3: "qa3_three-supporting-facts"}
_WORDS = """
put picked down . travelled was football got garden milk discarded is moved journeyed apple took Sandra before
Mary Where John office there Daniel bathroom went left the back hallway dropped to bedroom kitchen grabbed up
"""
LABELS = tuple(_WORDS.split())  # the published model has an output for every word of the three tasks

VALIDATION_SHARE = 0.15
QUESTIONS = {"train": 10_000, "test": 1_000}  # of each official file


def members(number: int) -> dict[str, str]:
    """Return the members of the archive that hold task `number`, by split."""
    return {part: f"tasks_1-20_v1-2/en-10k/{FILES[number]}_{part}.txt" for part in ("train", "test")}


def _read(raw: RawFiles, number: int) -> Iterator[Example]:
    names = members(number)
    train = list(_questions(raw, names["train"]))
    held_out = drawn(len(train), VALIDATION_SHARE, "validation")
    for index, (story, question, label) in enumerate(train):
        yield Example("val" if index in held_out else "train", story, label, question)
    for story, question, label in _questions(raw, names["test"]):
        yield Example("test", story, label, question)


def _questions(raw: RawFiles, member: str) -> Iterator[tuple[str, str, int]]:
    story: list[str] = []
    expected = 1
    for place, line in raw.lines(member):
        if not line.strip():
            continue
        number, _, statement = line.rstrip().partition(" ")
        if number == "1":
            story = []
            expected = 1
        question, *answer = statement.split("\t")
        if story and len(answer) == 2 and answer[0] not in LABELS:
            raise UserError(
                f"{raw.place}, {member}, line {place}: the answer {answer[0][:40]!r} is none of the {len(LABELS)} words"
                f" that are answers ({', '.join(LABELS)}); replace the file"
            )
        is_statement = not answer and question.endswith(".")
        is_question = bool(story) and len(answer) == 2 and answer[0] in LABELS
        if not re.fullmatch("[0-9]{1,9}", number) or not (is_statement or is_question):
            raise UserError(f"{raw.place}, {member}, line {place}: not a line of a bAbI story; replace the file")
        if int(number) != expected:
            raise UserError(
                f"{raw.place}, {member}, line {place}: the number is {number} where {expected} follows, so lines of the"
                " story are missing; replace the file"
            )
        expected += 1
        if is_statement:
            story.append(question.removesuffix("."))
            continue
        raw.tally.read[PurePosixPath(member).name] += 1
        yield " . ".join(story), question.strip().removesuffix("?"), LABELS.index(answer[0])


def _task(number: int) -> Task:
    return Task(
        name=f"babi-{number}",
        title=f"bAbI-{number}",
        command=f"experiments/babi.py --task {number}",
        labels=LABELS,
        sources={
            "official": sources.BABI,
            "simulated": lambda: {name: babi_simulation.write(number, part) for part, name in members(number).items()},
        },
        members=tuple(members(number).values()),
        read=lambda raw: _read(raw, number),
        tokenize=whitespace,
        paired=True,
        monitor="accuracy",
        metric="accuracy",
        records="questions",
        published={PurePosixPath(name).name: QUESTIONS[part] for part, name in members(number).items()},
    )


TASKS = {f"babi-{number}": _task(number) for number in FILES}
