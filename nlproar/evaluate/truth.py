"""Truth: how well a measure finds the informative tokens, on tasks where these are known (`nlproar.dataset.planted`).

It is what other metrics should agree with. Three scores are recorded, each the mean over the test observations:

- precision: the share of informative tokens among as many top tokens as there are informative ones;
- auprc: the area under the curve of precision against recall;
- mass: the share of the importance that the informative tokens hold.

The measure explains the unmasked model. A model need not look at every informative token: of two redundant keywords it
may use one. A faithful measure then misses the other one, and its score is below 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar.dataset.truth import informative, rule_of
from nlproar.errors import UserError
from nlproar.evaluate import load_evaluation
from nlproar.evaluate.erasure import ranks
from nlproar.evaluate.evaluation import Evaluation
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.roar import Level
from nlproar.explain import MEASURES, UNCHANGED
from nlproar.stats import truth

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record
    from nlproar.study.grid import Grid


@dataclass(frozen=True)
class NoParameters:
    """This evaluation has no parameters."""


class Truth(Evaluation):
    """Agreement of the explanations of the unmasked model with the informative tokens, on the test split."""

    Parameters = NoParameters
    level = None
    needs_truth = True
    scores: ClassVar[Mapping[str, bool]] = {"precision": True, "auprc": True, "mass": True}

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`. Raises UserError for a task whose informative tokens are not known."""
        rule_of(config.task)
        if config.importance_measure is None:
            raise UserError("the metric truth needs an --importance-measure")
        return config

    def needs(self, config: Config) -> list[Config]:
        """See `Evaluation.needs`: the run that trains the model that is explained."""
        unmasked = replace(config, evaluation="roar", parameters=Level(k=0), transform=UNCHANGED)
        return [load_evaluation("roar").canonical(unmasked)]

    def importance(self, config: Config, context: Context) -> Importance:
        """See `Evaluation.importance`: that of the unmasked test data."""
        (trained,) = self.needs(config)
        needs_model = MEASURES[str(config.importance_measure)].needs_model
        return context.importance(config, trained if needs_model else None, Masks.nothing(context.dataset), ("test",))

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, and compare with the informative tokens."""
        (trained,) = self.needs(config)
        with context.timed("explain"):
            importance = self.importance(config, context)
            importance.compute()
        masks = Masks.nothing(context.dataset)
        metrics = context.test(config, context.load_model(trained), masks)
        split = context.dataset.splits["test"]
        is_informative = informative(context.task, context.dataset)["test"]
        values = importance.of_split["test"].values
        rank = ranks(values, split.maskable, split.offsets)
        found = {
            "precision": truth.precision(rank, is_informative, split.offsets),
            "auprc": truth.average_precision(rank, is_informative, split.offsets),
            "mass": truth.mass(np.where(split.maskable, values, 0), is_informative, split.offsets),
        }
        for name, of_observations in found.items():
            metrics["test"][name] = float(np.nanmean(of_observations))
        return context.record(config, metrics, masks, importance=importance, model_of=trained)

    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """See `Evaluation.base`: the run that trains the model."""
        yield grid.config(dataset, seed, evaluation="roar", k=0)

    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """See `Evaluation.chains`: one run for each measure."""
        yield [grid.config(dataset, seed, importance_measure=measure)]

    def describe(self, config: Config) -> list[str]:
        """See `Evaluation.describe`."""
        return ["truth", str(config.importance_measure)]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return "Truth"

    def base_of(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.base_of`."""
        return "roar"
