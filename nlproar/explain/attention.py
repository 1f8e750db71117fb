"""Measures from the attention weights of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.errors import UserError
from nlproar.explain.importance import Explained, Scores
from nlproar.model.classifier import Prediction


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
        return Scores(_weights(self.view.answer(batch)))


class AttentionRollout(Attention):
    """How much of each token reaches the first token through all layers of a transformer (Abnar & Zuidema 2020, arXiv
    2005.00928).

    The attention of a layer is the mean over its heads, and half of what leaves a layer is what has entered it, past
    the attention. With A the matrix of such a layer, rollout is the first row of the product of all of them, the last
    layer first.
    """

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.view = explained.model.rolling_out()


class AttentionTimesGradient:
    """|α · d logit / d α|: the weight of a token times the effect of changing it (Serrano & Smith 2019, arXiv
    1906.03731)."""

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.view = explained.model.view()

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding."""
        inputs = self.view.inputs(batch)
        values = inputs.values.detach().requires_grad_()  # so that the weights are a part of the graph
        with torch.enable_grad():
            prediction = self.view.predict(batch, inputs.at(values))
            attention = _weights(prediction)
            logit = prediction.logits.gather(1, batch.label[:, None])
        (gradient,) = torch.autograd.grad(logit.sum(), attention)
        return Scores((attention.detach() * gradient).abs())


def _weights(prediction: Prediction) -> Tensor:
    """Return the attention weights, (B, T). Raises UserError for a model that has none."""
    if prediction.attention is None:
        raise UserError("this model has no attention weights; choose another --importance-measure")
    return prediction.attention
