"""Measures that know the truth, for tasks whose informative tokens are known (`nlproar.dataset.planted`)."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.truth import rule_of, words_by_id
from nlproar.explain.importance import Explained, Scores
from nlproar.explain.random import Random


class Oracle:
    """Informative tokens first. Among them, and among the others, the order is random, as that of `Random`."""

    def __init__(self, explained: Explained) -> None:
        self.rule = rule_of(explained.task)
        self.names = words_by_id(explained.dataset.vocabulary)
        self.ties = Random(explained)

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T): in [1, 2) for informative tokens, in [0, 1) for all others."""
        return Scores(self.truth(batch).float() + self.ties(batch).importance)

    def truth(self, batch: SequenceBatch) -> Tensor:
        """Return which tokens are informative, (B, T) bool, false at padding and special tokens."""
        found = torch.zeros(batch.tokens.shape, dtype=torch.bool)
        lengths = batch.length.tolist()
        for row, tokens in enumerate(batch.tokens.tolist()):
            last = lengths[row] - 1  # [EOS]
            words = [self.names[token] for token in tokens[1:last]]
            found[row, 1:last] = torch.tensor(self.rule(words, self._query(batch, row)), dtype=torch.bool)
        return found

    def _query(self, batch: SequenceBatch, row: int) -> list[str]:
        if batch.query_tokens is None or batch.query_length is None:
            return []
        last = int(batch.query_length[row]) - 1
        return [self.names[token] for token in batch.query_tokens[row, 1:last].tolist()]


class OracleInverse(Oracle):
    """Informative tokens last: the worst that a measure can say."""

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T): in [-1, 0) for informative tokens, in [0, 1) for all others."""
        return Scores(self.ties(batch).importance - self.truth(batch).float())
