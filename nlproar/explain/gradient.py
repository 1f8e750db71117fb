"""Measures from the gradient of the gold label's logit with respect to the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.importance import Explained
from nlproar.model.bilstm_attention import BiLSTMAttention


def embedding_gradient(
    model: BiLSTMAttention, batch: SequenceBatch, embedded: Tensor, query: Tensor | None
) -> tuple[Tensor, Tensor]:
    """d logit[gold] / d embedded, (B, T, E), 0 at padding, and the logits of the gold labels (B,)."""
    embedded = embedded.detach().requires_grad_()
    with torch.enable_grad():
        gold = model(batch, embedded, query).logits.gather(1, batch.label[:, None]).squeeze(1)
    (gradient,) = torch.autograd.grad(gold.sum(), embedded)
    return gradient, gold.detach()


class FromGradient:
    """What gradient measures share: the model, frozen, so that no gradient of its weights is computed.

    It stays in training mode, which changes nothing (it has no dropout) and lets cuDNN differentiate its LSTMs.
    """

    def __init__(self, explained: Explained) -> None:
        assert explained.model
        self.model = explained.model.train().requires_grad_(False)

    def gradient(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """The gradient and the embedding it was taken at, both (B, T, E)."""
        embedded = self.model.embed(batch)
        return embedding_gradient(self.model, batch, embedded, self.model.encode_query(batch))[0], embedded


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
        self.factor = (vectors * values.clamp(min=0).sqrt()).to(self.model.embedding.weight.dtype)

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        return (self.gradient(batch)[0] @ self.factor).norm(dim=2)


class InputTimesGradient(FromGradient):
    """|g · W[token]|, the gradient times the one-hot input (Madsen et al. 2022, section 4)."""

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        gradient, embedded = self.gradient(batch)
        return (gradient * embedded).sum(dim=2).abs()
