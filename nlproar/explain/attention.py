"""The attention weights of the model."""

from __future__ import annotations

import torch

from nlproar.dataset.batch import SequenceBatch
from nlproar.errors import UserError
from nlproar.explain.importance import Explained, Scores


class Attention:
    """The weight α with which the state of a token enters the prediction (Jain & Wallace 2019, arXiv 1902.10186).

    Of a transformer it is the attention of the first token in the last layer, see `nlproar.model.transformer`.
    """

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.view = explained.model.attending()

    @torch.no_grad()
    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), in [0, 1], which sums to 1 over the maskable tokens; 0 elsewhere."""
        attention = self.view.predict(batch, self.view.inputs(batch)).attention
        if attention is None:
            raise UserError("this model has no attention weights; choose another --importance-measure")
        return Scores(attention)
