"""Importance that knows neither the model nor the label. No metric should call it faithful."""

from __future__ import annotations

import numpy as np
import torch

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import FIRST_MASKABLE, UNK
from nlproar.explain.importance import Explained, Scores


class Position:
    """The place of a token in the text: the first is the most important."""

    def __init__(self, explained: Explained) -> None:
        pass

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), in (0, 1], also at padding."""
        place = torch.arange(1, batch.tokens.size(1) + 1, dtype=torch.float32)
        return Scores((1 / place).expand(batch.tokens.shape))


class WordFrequency:
    """How often the word occurs in the training texts: the most frequent is the most important.

    Words that are not in the vocabulary are the rarest, however often `[UNK]` stands for one of them.
    """

    def __init__(self, explained: Explained) -> None:
        dataset = explained.dataset
        counts = np.bincount(dataset.splits["train"].tokens, minlength=len(dataset.vocabulary))
        counts[:FIRST_MASKABLE] = 0
        counts[UNK] = 0
        self.values = torch.from_numpy(counts.astype(np.float32))

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding and special tokens."""
        return Scores(self.values[batch.tokens.cpu()])
