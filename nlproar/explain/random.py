"""Random importance: the baseline every measure is compared with."""

from __future__ import annotations

import numpy as np
import torch

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.draws import generator
from nlproar.explain.importance import Explained, Scores


class Random:
    """Uniform in [0, 1), one draw per token, from the seed and the number of the observation.

    Neither the batch nor the level enters, so the tokens masked at a lower k are masked at a higher one.
    """

    def __init__(self, explained: Explained) -> None:
        self.seed = explained.seed

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), uniform also at padding."""
        width = batch.tokens.size(1)
        draws = [generator(self.seed, number).random(width, dtype=np.float32) for number in batch.observation.tolist()]
        return Scores(torch.from_numpy(np.stack(draws)))
