"""Measures that compare the logits of perturbed texts, by Captum (https://captum.ai; Kokhlikyan et al. 2020, arXiv
2009.07896). They need the extra `captum`.

A text is described to Captum by one number for each token that can be masked: 1 where the token is there, 0 where
`[MASK]` is in its place. These measures need nothing of a model but its logits.

Letters: B batch, T tokens, n tokens of an observation that can be masked, m perturbed texts.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nlproar.dataset.batch import SequenceBatch
from nlproar.dataset.vocabulary import MASK
from nlproar.errors import UserError
from nlproar.explain.importance import Explained, Scores
from nlproar.seeds import derive

Forward = Callable[[Tensor], Tensor]

KERNEL_WIDTH = 0.25  # of LIME, for a cosine distance in [0, 1]; its authors' code has 25 for one in [0, 100]


class _Perturbation(ABC):
    """What these measures share: each observation is explained for itself, with random numbers of its own."""

    one_at_a_time = True  # Captum draws from torch's global generator

    def __init__(self, explained: Explained) -> None:
        assert explained.model is not None
        try:
            import captum.attr
        except ModuleNotFoundError as error:
            raise UserError(
                "this measure needs another package; install it with: pip install -c constraints.txt -e '.[captum]'"
            ) from error
        self.captum: Any = captum.attr
        self.view = explained.model.view()
        self.perturbations = int(getattr(explained.parameters, "perturbations", 1))
        self.tokens_per_batch = explained.tokens_per_batch
        self.seed = explained.seed

    @torch.no_grad()
    def __call__(self, batch: SequenceBatch) -> Scores:
        """Return importance (B, T), >= 0; 0 at padding and special tokens."""
        return Scores(self.signed(batch).abs())

    def signed(self, batch: SequenceBatch) -> Tensor:
        """Return the values with their sign, (B, T): positive for what speaks for the class."""
        importance = torch.zeros_like(batch.tokens, dtype=torch.float32)
        for row in range(len(batch.label)):
            one = batch.rows(torch.tensor([row], device=batch.label.device))
            positions = one.maskable[0].nonzero().squeeze(1)
            if len(positions):
                importance[row, positions] = self._explain_one(one, positions)
        return importance

    def _explain_one(self, one: SequenceBatch, positions: Tensor) -> Tensor:
        """Return the values of the tokens at `positions` (n,) of a batch of one observation."""
        seed = derive(self.seed, f"perturbations of observation {int(one.observation[0])}")
        at_once = max(1, self.tokens_per_batch // one.width)
        is_there = torch.ones(1, len(positions), device=one.tokens.device)
        forward = partial(self._logit, one, positions)
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Captum's advice on the number of perturbations
            torch.manual_seed(seed)
            values: Tensor = self.attribute(forward, is_there, at_once)
        return values[0].float()

    def _logit(self, one: SequenceBatch, positions: Tensor, is_there: Tensor) -> Tensor:
        """Return the logit, (m,), of the class that is explained, of the text with the tokens in `is_there` (m, n)."""
        times = len(is_there)
        tokens = one.tokens.repeat(times, 1)
        tokens[:, positions] = torch.where(is_there > 0.5, tokens[:, positions], MASK)
        batch = one.repeat(times).with_tokens(tokens)
        logits = self.view.answer(batch).logits
        return logits.gather(1, batch.label[:, None]).squeeze(1)

    @abstractmethod
    def attribute(self, forward: Forward, is_there: Tensor, at_once: int) -> Tensor:
        """Return the attributions of the tokens, (1, n). `is_there` is all ones (1, n); `forward` gives logits (m,) of
        (m, n); at most `at_once` perturbed texts may be in one call of it."""


class FeatureAblation(_Perturbation):
    """logit(x) - logit(x with `[MASK]` in place of the token): leave-one-out of the logit, as Captum computes it.

    As of all these measures, the importance is the absolute value, and `attribute` returns the value with its sign.
    """

    def attribute(self, forward: Forward, is_there: Tensor, at_once: int) -> Tensor:
        """See `_Perturbation.attribute`."""
        found: Tensor = self.captum.FeatureAblation(forward).attribute(is_there, perturbations_per_eval=at_once)
        return found


class ShapleySampling(_Perturbation):
    """Shapley values of the logit, estimated from random orders in which tokens are put into a masked text (Štrumbelj &
    Kononenko 2010). The signed values sum to logit(x) - logit(everything masked)."""

    def attribute(self, forward: Forward, is_there: Tensor, at_once: int) -> Tensor:
        """See `_Perturbation.attribute`."""
        found: Tensor = self.captum.ShapleyValueSampling(forward).attribute(
            is_there, n_samples=self.perturbations, perturbations_per_eval=at_once
        )
        return found


class KernelShap(_Perturbation):
    """Shapley values of the logit by a weighted linear regression on perturbed texts (Lundberg & Lee 2017, arXiv
    1705.07874)."""

    def attribute(self, forward: Forward, is_there: Tensor, at_once: int) -> Tensor:
        """See `_Perturbation.attribute`."""
        tokens = is_there.size(1)
        if tokens == 1:  # a regression on one token has nothing to divide
            return (forward(is_there) - forward(torch.zeros_like(is_there)))[:, None]
        found: Tensor = self.captum.KernelShap(forward).attribute(
            is_there, n_samples=self.perturbations * tokens, perturbations_per_eval=at_once
        )
        return found


class Lime(_Perturbation):
    """The coefficients of a linear model of the logit near the text (Ribeiro et al. 2016, arXiv 1602.04938).

    It is fitted as by the authors' code for texts: ridge regression with a penalty of 1, in which a perturbed text
    whose cosine distance from the text is d has the weight exp(-d² / (2 * `KERNEL_WIDTH`²)). Captum's defaults are
    another kernel, whose weights are all nearly the same, and a lasso, which sets most tokens of a long text to 0.
    """

    def attribute(self, forward: Forward, is_there: Tensor, at_once: int) -> Tensor:
        """See `_Perturbation.attribute`."""
        from captum._utils.models.linear_model import SkLearnRidge
        from captum.attr._core.lime import get_exp_kernel_similarity_function

        lime = self.captum.Lime(
            forward,
            interpretable_model=SkLearnRidge(alpha=1.0),
            similarity_func=get_exp_kernel_similarity_function("cosine", KERNEL_WIDTH),
        )
        samples = self.perturbations * is_there.size(1)
        found: Tensor = lime.attribute(is_there, n_samples=samples, perturbations_per_eval=at_once)
        return found
