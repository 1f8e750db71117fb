"""Planted tasks: their labels follow from the informative words, and from nothing else."""

import random
from collections import Counter

import numpy as np
import pytest

from nlproar.dataset import PLANTED, TASKS, encoding, load_task, planted
from nlproar.dataset.planted import KEYWORDS, KINDS, NEGATION, NOISE, OTHER_KEYWORDS, VALUES
from nlproar.dataset.raw import generated
from nlproar.dataset.truth import informative
from nlproar.errors import UserError
from nlproar.study.cli import parse

SMALL = {"train": 300, "val": 80, "test": 120}


def label_of(word):
    """The label that a keyword says; None for other words."""
    for label in (0, 1):
        if word in KEYWORDS[label] or word in OTHER_KEYWORDS[label]:
            return label
    return None


def answer(kind, words, query):
    """The label of a text, as a reader would find it from the informative words alone, in their order."""
    if kind == "pair":
        return VALUES.index(words[-1])
    said = [label_of(word) for word in words if word != NEGATION]
    if kind == "conjunction":
        return int(said == [1, 1])
    if kind == "negation":
        return 1 - said[0] if NEGATION in words else said[0]
    assert len(set(said)) == 1
    return said[0]


def read(kind):
    """The examples of a task as they come back from its file."""
    task = load_task(f"planted-{kind}")
    return list(task.read(generated(task.sources["small"]())))


@pytest.mark.parametrize("kind", KINDS)
def test_the_informative_words_of_a_text_say_its_label(kind):
    examples = read(kind)
    assert Counter(one.split for one in examples) == SMALL
    for one in examples:
        words = one.text.split()
        found = KINDS[kind].informative(words, one.query.split())
        chosen = [word for word, is_informative in zip(words, found, strict=True) if is_informative]
        assert answer(kind, chosen, one.query) == one.label


@pytest.mark.parametrize("kind", KINDS)
def test_labels_are_equally_frequent_and_the_texts_are_the_same_at_every_call(kind):
    examples = read(kind)
    for split in SMALL:
        labels = [one.label for one in examples if one.split == split]
        assert sum(labels) * 2 == len(labels)
    assert examples == list(planted.examples(kind, SMALL))


@pytest.mark.parametrize("kind", KINDS)
def test_noise_carries_no_information(kind):
    """The number of each noise word in texts of label 1 is that of label 0, up to what chance allows."""
    counts = {0: Counter(), 1: Counter()}
    for one in planted.examples(kind, {"train": 4000}):
        counts[one.label].update(word for word in one.text.split() if word in NOISE)
    for word in NOISE:
        first, second = counts[0][word], counts[1][word]
        assert abs(first - second) < 4.5 * np.sqrt(first + second)


def test_only_the_first_of_the_words_that_say_a_label_counts_in_the_task_of_position():
    agrees = Counter()
    for one in planted.examples("position", {"train": 4000}):
        said = [label_of(word) for word in one.text.split()]
        assert said[0] == one.label and sum(label is not None for label in said) == 3
        agrees.update(label == one.label for label in said[1:] if label is not None)
    assert abs(agrees[True] / agrees.total() - 0.5) < 0.03


def test_the_spurious_marker_agrees_with_the_label_in_nine_of_ten_texts():
    agrees = [planted.MARKERS[one.label] in one.text.split() for one in planted.examples("spurious", {"train": 4000})]
    assert abs(np.mean(agrees) - planted.AGREEMENT) < 0.02


@pytest.mark.parametrize("name", PLANTED)
def test_the_truth_of_encoded_data_is_that_of_the_texts(name):
    task = load_task(name)
    raw = generated(task.sources["small"]())
    dataset = encoding._unpack(encoding.encode(task, raw))
    truth = informative(task, dataset)
    examples = list(task.read(raw))
    for split_name, split in dataset.splits.items():
        assert not (truth[split_name] & ~split.maskable).any()
        own = [one for one in examples if one.split == split_name]
        for row in random.Random(0).sample(range(len(split)), 20):
            expected = task.informative(own[row].text.split(), own[row].query.split())
            found = truth[split_name][split.offsets[row] : split.offsets[row + 1]]
            assert found.tolist() == [False, *expected, False]


def test_the_truth_of_another_task_is_refused_in_one_line():
    task = load_task("planted-keyword")
    dataset = encoding._unpack(encoding.encode(task, generated(task.sources["small"]())))
    with pytest.raises(UserError, match="the informative tokens of sst are not known; choose a planted task"):
        informative(load_task("sst"), dataset)


def test_all_tasks_of_a_study_are_those_that_are_not_planted():
    grid, _ = parse("", ["--dataset", "all"])
    assert grid.datasets == [name for name in TASKS if name not in PLANTED]
    grid, _ = parse("", ["--dataset", "planted", "sst", "planted-pair"])
    assert grid.datasets == [*PLANTED, "sst"]
