"""Measures from the gradient of the gold label's logit with respect to the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.importance import Explained
from nlproar.model.bilstm_attention import BiLSTMAttention, ProjectedVocabulary


def input_gradient(model: BiLSTMAttention, batch: SequenceBatch, inputs: Tensor, query: Tensor | None) -> Tensor:
    """d logit[gold] / d inputs, (B, T, P), 0 at padding. `inputs` are the model's, linear in the embeddings."""
    inputs = inputs.detach().requires_grad_()
    with torch.enable_grad():
        gold = model(batch, inputs, query).logits.gather(1, batch.label[:, None])
    (gradient,) = torch.autograd.grad(gold.sum(), inputs)
    return gradient


class FromGradient:
    """What gradient measures share: the model, frozen, so that no gradient of its weights is computed.

    It stays in training mode, which changes nothing (it has no dropout) and lets cuDNN differentiate its LSTMs.
    """

    def __init__(self, explained: Explained) -> None:
        assert explained.model
        self.model = explained.model.train().requires_grad_(False)
        self.vocabulary = ProjectedVocabulary(self.model)

    def gradient(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The gradient and the inputs of the model it was taken at, both (B, T, P)."""
        inputs, query = self.vocabulary.inputs(batch), self.vocabulary.encode_query(batch)
        return input_gradient(self.model, batch, inputs, query), inputs


class Gradient(FromGradient):
    """L2 norm over the vocabulary of d logit[gold] / d one-hot(token), ‖g Wᵀ‖₂ (Madsen et al. 2022, section 4).

    g is the gradient at the token's embedding, W (V, E) the embedding matrix. The (B, T, V) product is never made:
    ‖g Wᵀ‖ = ‖g L‖ with the E x E factor L Lᵀ = WᵀW. It comes from an eigendecomposition, as WᵀW is singular where
    the vocabulary is smaller than E.
    """

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        weight = self.model.embedding.weight.double()
        values, vectors = torch.linalg.eigh(weight.T @ weight)
        factor = (vectors * values.clamp(min=0).sqrt()).to(self.model.embedding.weight.dtype)
        self.factor = self.model.encoder.project(factor.T).T  # (P, E), for the gradient at the inputs

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        return (self.gradient(batch)[0] @ self.factor).norm(dim=2)


class InputTimesGradient(FromGradient):
    """|g · W[token]|, the gradient times the one-hot input (Madsen et al. 2022, section 4)."""

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        gradient, inputs = self.gradient(batch)
        return (gradient * inputs).sum(dim=2).abs()
