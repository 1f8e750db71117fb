"""Truth: how well a measure finds the informative tokens, on tasks where these are known (`nlproar.dataset.planted`).

It is what other metrics should agree with. Three scores are recorded, each the mean over the test observations that
have an informative token:

- precision: the share of informative tokens among as many top tokens as there are informative ones;
- auprc: the area under the curve of precision against recall;
- mass: the share of the importance that the informative tokens hold. It is left out where only the order of the values
  means something.

Equal importance is put into a random order, which depends on the seed of the run and the observation.

The measure explains one trained model on unmasked data. A model need not look at every informative token: of two
redundant keywords it may use one. A faithful measure then misses the other one, and its score is below 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar.dataset.truth import informative, rule_of
from nlproar.evaluate.erasure import ranks
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import OfOneModel, of_model, short_name
from nlproar.explain import MEASURES, UNCHANGED, Transform, transform
from nlproar.seeds import derive
from nlproar.stats import truth

if TYPE_CHECKING:
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

_RANDOM_TIES = Transform("random-ties")


class Truth(OfOneModel):
    """Agreement of the explanations of one model with the informative tokens, on the test split."""

    needs_truth = True
    version = 2  # equal importance is in random order, and ranks and the truth itself have no mass
    scores: ClassVar[Mapping[str, bool]] = {"precision": True, "auprc": True, "mass": True}

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`. Raises UserError for a task whose informative tokens are not known."""
        rule_of(config.task)
        return super().canonical(config)

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, and compare with the informative tokens."""
        trained = self.trained(config)
        importance, _, metrics = self.explain_and_test(config, context)
        masks = Masks.nothing(context.dataset)
        split = context.dataset.splits["test"]
        is_informative = informative(context.task, context.dataset)["test"]
        values = importance.of_split["test"].values
        # Else, importance without content would find the informative tokens that stand first.
        seed = derive(config.seed, "ties of the truth")
        in_random_order = transform.apply(_RANDOM_TIES, values, split.maskable, split.offsets, seed, split.first)
        rank = ranks(in_random_order, split.maskable, split.offsets)
        found = {
            "precision": truth.precision(rank, is_informative, split.offsets),
            "auprc": truth.average_precision(rank, is_informative, split.offsets),
        }
        if _has_amounts(config):
            found["mass"] = truth.mass(np.where(split.maskable, values, 0), is_informative, split.offsets)
        metrics["test"] |= means(found)
        return context.record(config, metrics, masks, importance=importance, model_of=trained)

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        return ["truth", short_name(config.parameters.erasure_model), f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return f"Truth{of_model(values)}"


def means(scores: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return the mean of each score, by its name, over the observations (N,) that have it.

    A score that no observation has is left out.
    """
    found = {}
    for name, of_observations in scores.items():
        if not np.isnan(of_observations).all():
            found[name] = float(np.nanmean(of_observations))
    return found


def _has_amounts(config: Config) -> bool:
    """Return whether the values of the importance of a run are amounts, and not only an order."""
    measure = MEASURES[str(config.importance_measure)]
    return config.transform == UNCHANGED and not measure.ordinal
