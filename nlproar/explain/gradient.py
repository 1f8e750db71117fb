"""Measures from the gradient of the gold label's logit with respect to the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.importance import Explained
from nlproar.model.bilstm_attention import EmbeddedInputs, ProjectedInputs


class FromGradient:
    """What gradient measures share: the inputs of the model, and the gradient with respect to them.

    The inputs are the embeddings (B, T, E), whatever the device and the model. A measure whose values are the same with
    respect to anything that is linear in the embeddings says so by `invariant`; its inputs are then cheaper ones.
    """

    invariant = False

    def __init__(self, explained: Explained) -> None:
        assert explained.model
        self.model = explained.model
        self.space = ProjectedInputs(self.model) if self.invariant else EmbeddedInputs(self.model)

    def gradient(self, batch: SequenceBatch) -> tuple[Tensor, Tensor]:
        """d logit[gold] / d inputs, 0 at padding, and the inputs, both (B, T, E)."""
        inputs = self.space.inputs(batch)
        return self.gradient_at(batch, inputs, self.space.encode_query(batch)), inputs

    def gradient_at(self, batch: SequenceBatch, inputs: Tensor, query: Tensor | None) -> Tensor:
        """The same at other inputs, (B, T, E)."""
        inputs = inputs.detach().requires_grad_()
        with torch.enable_grad():
            gold = self.space.predict(batch, inputs, query).logits.gather(1, batch.label[:, None])
        (gradient,) = torch.autograd.grad(gold.sum(), inputs)
        return gradient


class Gradient(FromGradient):
    """L2 norm over the vocabulary of d logit[gold] / d one-hot(token), ‖g Wᵀ‖₂ (Madsen et al. 2022, section 4).

    g is the gradient at the token's embedding, W (V, E) the embedding matrix. The (B, T, V) product is never made:
    ‖g Wᵀ‖ = ‖g L‖ with the E x E factor L Lᵀ = WᵀW. It comes from an eigendecomposition, as WᵀW is singular where
    the vocabulary is smaller than E.
    """

    invariant = True

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        weight = self.model.embedding.weight.double()
        values, vectors = torch.linalg.eigh(weight.T @ weight)
        factor = (vectors * values.clamp(min=0).sqrt()).to(self.model.embedding.weight.dtype)
        self.factor = self.space.of_embeddings(factor.T).T  # (P, E), for the gradient at the inputs

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        return (self.gradient(batch)[0] @ self.factor).norm(dim=2)


class InputTimesGradient(FromGradient):
    """|g · W[token]|, the gradient times the one-hot input (Madsen et al. 2022, section 4)."""

    invariant = True

    def __call__(self, batch: SequenceBatch) -> Tensor:
        """(B, T), >= 0; 0 at padding."""
        gradient, inputs = self.gradient(batch)
        return (gradient * inputs).sum(dim=2).abs()
