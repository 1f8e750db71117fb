"""The attention weights of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.importance import Explained
from nlproar.model.bilstm_attention import EmbeddedInputs, ProjectedInputs


class Attention:
    """The weight α with which a token's state enters the prediction (Jain & Wallace 2019, arXiv 1902.10186)."""

    invariant = True  # see `FromGradient`

    def __init__(self, explained: Explained) -> None:
        assert explained.model
        self.space = ProjectedInputs(explained.model) if self.invariant else EmbeddedInputs(explained.model)

    @torch.no_grad()
    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), in [0, 1], sums to 1 over the maskable tokens; 0 at padding and special tokens."""
        inputs, query = self.space.inputs(batch), self.space.encode_query(batch)
        return self.space.predict(batch, inputs, query).attention
