"""Measures from the gradient of the logit of the class that is explained with respect to the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.explain.importance import Explained, Scores
from nlproar.model.classifier import Inputs, View


def gradient_and_logit(view: View, batch: SequenceBatch, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Return d logit / d inputs of the class that is explained, (B, T, P), 0 at padding, and that logit, (B,)."""
    values = inputs.values.detach().requires_grad_()
    with torch.enable_grad():
        logits = view.predict(batch, inputs.at(values)).logits
        logit = logits.gather(1, batch.label[:, None]).squeeze(1)
    (gradient,) = torch.autograd.grad(logit.sum(), values)
    return gradient, logit.detach()


def input_gradient(view: View, batch: SequenceBatch, inputs: Inputs) -> Tensor:
    """Return d logit / d inputs of the class that is explained, (B, T, P); 0 at padding."""
    gradient, _ = gradient_and_logit(view, batch, inputs)
    return gradient


class FromGradient:
    """What gradient measures share: a view of the model, at whose inputs gradients are taken.

    The inputs are the embeddings (B, T, E), whatever the device and the model. A measure whose values are the same with
    respect to anything that is linear in the embeddings says so by `invariant`; its view may then be a cheaper one.
    """

    invariant = False

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        self.model = explained.model
        self.view = self.model.view() if self.invariant else View(self.model)


def vocabulary_factor(matrix: Tensor) -> Tensor:
    """Return an (E, E) factor L of W (V, E), for which ‖g Wᵀ‖ = ‖g L‖ for every g (E,): L Lᵀ = WᵀW.

    It comes from an eigendecomposition, as WᵀW is singular where the vocabulary is smaller than E.
    """
    weight = matrix.double()
    values, vectors = torch.linalg.eigh(weight.T @ weight)
    factor: Tensor = vectors * values.clamp(min=0).sqrt()
    return factor.to(matrix.dtype)


class Gradient(FromGradient):
    """L2 norm over the vocabulary of d logit / d one-hot(token), ‖g Wᵀ‖₂ (Madsen et al. 2022, section 4).

    g is the gradient at the embedding of the token, W (V, E) the embedding matrix. The (B, T, V) product is never made,
    see `vocabulary_factor`.
    """

    invariant = True

    def __init__(self, explained: Explained) -> None:
        super().__init__(explained)
        factor = vocabulary_factor(self.model.embedding_matrix)
        # (P, E), for the gradient at the inputs of the view: with inputs = M embedding, it is M factor.
        self.factor = self.view.project(factor.T).T

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding."""
        gradient = input_gradient(self.view, batch, self.view.inputs(batch))
        return Scores((gradient @ self.factor).norm(dim=2))


class SignedInputTimesGradient(FromGradient):
    """g · W[token], the gradient times the one-hot input."""

    invariant = True

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), positive for what speaks for the class; 0 at padding."""
        inputs = self.view.inputs(batch)
        gradient = input_gradient(self.view, batch, inputs)
        return Scores((gradient * inputs.values).sum(dim=2))


class InputTimesGradient(SignedInputTimesGradient):
    """|g · W[token]|, the absolute value (Madsen et al. 2022, section 4)."""

    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding."""
        return Scores(super().__call__(batch).importance.abs())
