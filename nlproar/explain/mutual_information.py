"""Mutual information between a word's presence and the label: importance without a model."""

from __future__ import annotations

import numpy as np
import torch

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.encoding import Split
from nlproar.dataset.vocabulary import FIRST_MASKABLE
from nlproar.explain.importance import Explained, Scores


class MutualInformation:
    """The mutual information of a token's word with the label on the training split (see `word_information`)."""

    def __init__(self, explained: Explained) -> None:
        dataset = explained.dataset
        values = word_information(dataset.splits["train"], len(dataset.vocabulary), explained.num_classes)
        self.values = torch.from_numpy(values.astype(np.float32))

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0, in bits; 0 at padding and special tokens."""
        return Scores(self.values[batch.tokens.cpu()])


def word_information(train: Split, vocabulary_size: int, num_classes: int) -> np.ndarray:
    """(V,) float64, >= 0, in bits: for each word the mutual information of two binary variables, the word is in the
    document and the document has this label, averaged over labels by their share.

    Each label gets one more document that holds every word, so that no share is zero; 0 · log 0 = 0. The ids of
    [PAD], [CLS] and [EOS] get 0. Madsen et al. 2022, appendix.
    """
    document = np.repeat(np.arange(len(train)), train.lengths)
    # A document and a word make one number. After sorting, equal neighbours are a word that a document repeats.
    pairs = np.sort(document * vocabulary_size + train.tokens)
    pairs = pairs[np.diff(pairs, prepend=-1) > 0]
    document, word = np.divmod(pairs, vocabulary_size)
    cells = np.bincount(word * num_classes + train.label[document], minlength=vocabulary_size * num_classes)
    both = cells.reshape(vocabulary_size, num_classes) + 1.0  # documents with the word and the label
    label = np.bincount(train.label, minlength=num_classes) + 1.0  # (C,)
    documents = label.sum()
    present = both.sum(axis=1, keepdims=True)  # (V, 1)
    absent = documents - present
    other_label = documents - label
    values = np.zeros_like(both)
    for joint, of_word, of_label in (
        (both, present, label),  # documents with the word and the label
        (present - both, present, other_label),  # with the word and another label
        (label - both, absent, label),  # without the word, with the label
        (absent - (label - both), absent, other_label),  # with neither
    ):
        values += _term(joint / documents, (of_word / documents) * (of_label / documents))
    information: np.ndarray = values @ (label / documents)
    information[:FIRST_MASKABLE] = 0
    information[information < 0] = 0  # rounding
    return information


def _term(joint: np.ndarray, independent: np.ndarray) -> np.ndarray:
    """p log₂(p / q), 0 where p is 0."""
    ratio = np.divide(joint, independent, out=np.ones_like(joint), where=joint > 0)
    term: np.ndarray = joint * np.log2(ratio)
    return term
