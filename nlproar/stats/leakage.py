"""Does the pattern of a mask reveal the label? A probe sees which tokens are masked, and no word.

A mask that was made with the help of the gold label can carry the label into the data that a model is trained and
tested on (Jethani et al. 2023, arXiv 2211.14646). What such a model reaches is then no evidence of the tokens that are
left.

Letters: S tokens of N observations, one after the other, observation i is offsets[i]:offsets[i + 1]; F features.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

FIRST, LAST, PARTS = 20, 10, 10  # places from the beginning, places from the end, and parts of a text


class Probe(NamedTuple):
    """What the probe reaches on the test split, from 0 to 1."""

    accuracy: float
    majority: float  # the accuracy of always answering the most frequent label of its training data
    observations: int  # of the test split


def features(masked: np.ndarray, maskable: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Return what the probe sees of each observation, (N, F) float64.

    These are the number of tokens, the number and the share of masked ones, whether each of the first 20 and of the
    last 10 is masked, and the share that is masked in each tenth of the text. masked and maskable are (S,) bool; what
    cannot be masked is left out.
    """
    observations = len(offsets) - 1
    row = np.repeat(np.arange(observations), np.diff(offsets))[maskable]  # the observation of each token that counts
    pattern = masked[maskable].astype(float)
    n = np.bincount(row, minlength=observations)
    first_token = np.cumsum(n) - n
    place = np.arange(len(row)) - first_token[row]
    place_from_end = n[row] - 1 - place

    counts = np.zeros((observations, 3))
    counts[:, 0] = n
    counts[:, 1] = np.bincount(row, pattern, minlength=observations)
    counts[:, 2] = counts[:, 1] / np.maximum(n, 1)

    beginning = np.zeros((observations, FIRST))
    is_early = place < FIRST
    beginning[row[is_early], place[is_early]] = pattern[is_early]

    end = np.zeros((observations, LAST))
    is_late = place_from_end < LAST
    end[row[is_late], place_from_end[is_late]] = pattern[is_late]

    tenth = row * PARTS + place * PARTS // n[row]  # the tenths of all texts, numbered one after the other
    masked_in_tenth = np.bincount(tenth, pattern, minlength=observations * PARTS)
    tokens_in_tenth = np.bincount(tenth, minlength=observations * PARTS)
    shares = masked_in_tenth / np.maximum(tokens_in_tenth, 1)

    return np.hstack([counts, beginning, end, shares.reshape(observations, PARTS)])


def probe(train: np.ndarray, train_label: np.ndarray, test: np.ndarray, test_label: np.ndarray) -> Probe:
    """Train a logistic regression on the features (N, F) of masks, and return what it reaches on other masks.

    The labels are (N,) integers. The features are scaled to unit variance on the training data.
    """
    from sklearn.linear_model import LogisticRegression

    majority = float((test_label == np.bincount(train_label).argmax()).mean())
    if len(np.unique(train_label)) < 2:
        return Probe(majority, majority, len(test_label))
    center = train.mean(axis=0)
    scale = train.std(axis=0)
    scale[scale == 0] = 1
    model = LogisticRegression(C=0.1, max_iter=300)
    model.fit((train - center) / scale, train_label)
    accuracy = float((model.predict((test - center) / scale) == test_label).mean())
    return Probe(accuracy, majority, len(test_label))
