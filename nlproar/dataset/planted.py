"""Tasks whose informative tokens are known, on which measures and metrics can be checked. No file is needed.

Every text is a row of invented words. Most of them are noise: they are drawn at random, whatever the label. A few say
what the label is, and a rule finds these again in any text. For example, `zorim` says label 1 in the keyword task:

    text         ba   ku   zorim  ge   da
    informative  no   no   yes    no   no

The two labels are equally frequent in every split, so a model that sees no informative token is right in half of the
cases. The data are the same at every call, whatever the seed of a run.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from nlproar.dataset.raw import RawFiles
from nlproar.dataset.task import Example, Task
from nlproar.dataset.tokenizer import whitespace

TEXTS_SEED = 0  # fixed: the texts of a task are one data set
SIZES = {
    "official": {"train": 800, "val": 200, "test": 400},
    "small": {"train": 300, "val": 80, "test": 120},
}  # observations, by the value of --source
SHORTEST, LONGEST = 6, 14  # words of a text
AGREEMENT = 0.9  # share of the observations in which the spurious marker says the right label

NOISE = tuple(consonant + vowel for consonant in "bdfgklmn" for vowel in "aeiou")
KEYWORDS = (("quped", "quilo"), ("zorim", "zavel"))  # of label 0 and of label 1
OTHER_KEYWORDS = (("hathi", "husko"), ("wendo", "wirax"))  # say the same, where a task has two
MARKERS = ("yorba", "yulet")  # of label 0 and of label 1
NEGATION = "nif"
KEYS = ("cerno", "copti", "crude", "cylix")
VALUES = ("valor", "vitru")  # of label 0 and of label 1
ASK = "which"

Words = Sequence[str]


class Kind(NamedTuple):
    """How the texts of a task are made, and the rule that finds their informative tokens."""

    title: str
    plant: Callable[[random.Random, list[str], int], str]  # changes a row of noise to one of a label; returns the query
    informative: Callable[[Words, Words], list[bool]]  # of the words of a text and its query, for each word of the text


def _plant_keyword(draws: random.Random, words: list[str], label: int) -> str:
    """One word says the label."""
    place = draws.randrange(len(words))
    words[place] = draws.choice(KEYWORDS[label])
    return ""


def _plant_redundant(draws: random.Random, words: list[str], label: int) -> str:
    """Two words say the label, and either suffices."""
    first, second = draws.sample(range(len(words)), 2)
    words[first] = draws.choice(KEYWORDS[label])
    words[second] = draws.choice(OTHER_KEYWORDS[label])
    return ""


def _plant_conjunction(draws: random.Random, words: list[str], label: int) -> str:
    """Label 1 needs two words. A text of label 0 has another word in place of one of the two."""
    first, second = draws.sample(range(len(words)), 2)
    meant = [1, 1]
    if label == 0:
        meant[draws.randrange(2)] = 0
    words[first] = KEYWORDS[meant[0]][0]
    words[second] = OTHER_KEYWORDS[meant[1]][0]
    return ""


def _plant_negation(draws: random.Random, words: list[str], label: int) -> str:
    """A keyword says the label, and the opposite one if the negation stands before it."""
    place = draws.randrange(1, len(words))
    is_negated = draws.random() < 0.5
    meant = 1 - label if is_negated else label
    words[place] = draws.choice(KEYWORDS[meant])
    if is_negated:
        words[place - 1] = NEGATION
    return ""


def _plant_position(draws: random.Random, words: list[str], label: int) -> str:
    """The first word says the label. Two others are of the same kind, drawn at random, and say nothing."""
    for place in draws.sample(range(1, len(words)), 2):
        words[place] = draws.choice(draws.choice(KEYWORDS))
    words[0] = draws.choice(KEYWORDS[label])
    return ""


def _plant_spurious(draws: random.Random, words: list[str], label: int) -> str:
    """A keyword always says the label, and a marker says it in most cases."""
    first, second = draws.sample(range(len(words)), 2)
    agrees = draws.random() < AGREEMENT
    words[first] = draws.choice(KEYWORDS[label])
    words[second] = MARKERS[label if agrees else 1 - label]
    return ""


def _plant_pair(draws: random.Random, words: list[str], label: int) -> str:
    """Two keys stand in the text, each with a value behind it. The query names a key; its value says the label."""
    asked, other = draws.sample(KEYS, 2)
    first, second = draws.sample(range(0, len(words) - 1, 2), 2)
    words[first : first + 2] = [asked, VALUES[label]]
    words[second : second + 2] = [other, draws.choice(VALUES)]
    return f"{ASK} {asked}"


def _is_one_of(chosen: Sequence[str], words: Words, query: Words) -> list[bool]:
    """Each word that is one of `chosen` is informative, wherever it stands."""
    return [word in chosen for word in words]


def _is_first(words: Words, query: Words) -> list[bool]:
    """The first word is informative."""
    return [place == 0 for place in range(len(words))]


def _is_asked(words: Words, query: Words) -> list[bool]:
    """The key that the query names and the value behind it are informative."""
    asked = query[-1]
    before = ["", *words[:-1]]
    return [asked in (word, earlier) for word, earlier in zip(words, before, strict=True)]


_ALL_KEYWORDS = (*KEYWORDS[0], *KEYWORDS[1])
_BOTH_KINDS = (*_ALL_KEYWORDS, *OTHER_KEYWORDS[0], *OTHER_KEYWORDS[1])

KINDS = {
    "keyword": Kind("Planted keyword", _plant_keyword, partial(_is_one_of, _ALL_KEYWORDS)),
    "redundant": Kind("Planted redundant keywords", _plant_redundant, partial(_is_one_of, _BOTH_KINDS)),
    "conjunction": Kind("Planted conjunction", _plant_conjunction, partial(_is_one_of, _BOTH_KINDS)),
    "negation": Kind("Planted negation", _plant_negation, partial(_is_one_of, (*_ALL_KEYWORDS, NEGATION))),
    "position": Kind("Planted position", _plant_position, _is_first),
    "spurious": Kind("Planted spurious marker", _plant_spurious, partial(_is_one_of, _ALL_KEYWORDS)),
    "pair": Kind("Planted pair", _plant_pair, _is_asked),
}


def examples(kind: str, sizes: dict[str, int]) -> Iterator[Example]:
    """Yield the observations of a task, split by split. The labels alternate."""
    for split, number in sizes.items():
        draws = random.Random(f"{TEXTS_SEED} {kind} {split}")
        for index in range(number):
            label = index % 2
            words = draws.choices(NOISE, k=draws.randint(SHORTEST, LONGEST))
            query = KINDS[kind].plant(draws, words, label)
            yield Example(split, " ".join(words), label, query)


def _member(kind: str) -> str:
    return f"planted-{kind}.tsv"


def _write(kind: str, source: str) -> dict[str, str]:
    """Return the file of a task: a line for each observation, with its split, label, text and query."""
    lines = []
    for one in examples(kind, SIZES[source]):
        lines.append(f"{one.split}\t{one.label}\t{one.text}\t{one.query}\n")
    return {_member(kind): "".join(lines)}


def _read(kind: str, raw: RawFiles) -> Iterator[Example]:
    for _, line in raw.lines(_member(kind)):
        split, label, text, query = line.split("\t")
        raw.tally.read[_member(kind)] += 1
        yield Example(split, text, int(label), query)


def _task(kind: str) -> Task:
    return Task(
        name=f"planted-{kind}",
        title=KINDS[kind].title,
        command=f"experiments/planted.py --task {kind}",
        labels=("0", "1"),
        sources={source: partial(_write, kind, source) for source in SIZES},
        members=(_member(kind),),
        read=partial(_read, kind),
        tokenize=whitespace,
        paired=kind == "pair",
        monitor="accuracy",
        metric="accuracy",
        informative=KINDS[kind].informative,
    )


TASKS = {f"planted-{kind}": _task(kind) for kind in KINDS}
