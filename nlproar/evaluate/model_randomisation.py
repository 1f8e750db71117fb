"""Does a measure explain what the model has learned? Model randomisation.

Adebayo et al. 2018 (arXiv 1810.03292, "Sanity Checks for Saliency Maps") randomise the layers of a trained model one
after the other, from the output to the input. A measure whose importance stays the same says nothing about what was
learned. A run records, after each layer, the mean over the test observations of Spearman's rank correlation between the
importance by the trained model and by the randomised one, over the tokens that can be masked: 1 is the same order, 0 is
no relation.

The values of each weight are put in a random order, see `nlproar.model.randomisation`. Both models explain the gold
label; with `--target predicted` each of them explains the class that it predicts.

This is a check of measures and no metric of faithfulness. The report compares the number with the correlation between
two trained models that differ in their seed, see `nlproar.report.randomisation`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import OfOneModel, of_model, short_name
from nlproar.explain import MEASURES
from nlproar.seeds import derive
from nlproar.stats.agreement import spearman_of_texts

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

_VERSION = 1  # raise it when the values of observations change


class ModelRandomisation(OfOneModel):
    """How much of an explanation is left when the layers of the model are randomised, from the output to the input."""

    slow = True  # it explains the test split once for each layer

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain the trained model and the randomised ones, and compare."""
        from nlproar.model.randomisation import layers

        trained = self.trained(config)
        importance, model, performance = self.explain_and_test(config, context)
        masks = Masks.nothing(context.dataset)
        names = list(layers(model))
        key = {
            "version": _VERSION,
            "importance": importance.digest,
            "weights": context.weights(trained),
            "layers": names,
            "seed": config.seed,
        }
        with context.timed("explain"):
            found = context.observations(
                config, key, lambda: {"correlation": correlations(config, context, model, importance)}
            )
        correlation = found["correlation"]
        texts = (~np.isnan(correlation)).sum(axis=0)
        # A layer stands in the first one only if a text has a value; the second one has all of them, in their order.
        diagnostics = {
            "randomised": _means(names, correlation),
            "texts with a correlation": {name: float(count) for name, count in zip(names, texts, strict=True)},
        }
        return context.record(
            config,
            performance,
            masks,
            importance=importance,
            model_of=trained,
            diagnostics=diagnostics,
        )

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        return ["randomised", short_name(config.parameters.erasure_model), f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return f"Model randomisation{of_model(values)}"


def correlations(config: Config, context: Context, model: Classifier, importance: Importance) -> np.ndarray:
    """Return Spearman's correlation of every test observation after each layer is randomised, (N, layers).

    Layers are in the order of `nlproar.model.randomisation.layers`, and those before a layer are randomised with it. It
    is NaN where an observation has fewer than two tokens that can be masked, or where all have the same importance.
    """
    from nlproar.model.randomisation import layers, with_shuffled

    split = context.dataset.splits["test"]
    trained = importance.of_split["test"].values
    columns = []
    shuffled: list[str] = []
    for parameters in layers(model).values():
        shuffled += parameters
        values = trained
        if MEASURES[str(config.importance_measure)].needs_model:
            randomised = with_shuffled(model, shuffled, derive(config.seed, "model randomisation"))
            values = context.importance_of_model(config, randomised, "test").values
        columns.append(spearman_of_texts(trained, values, split.maskable, split.offsets))
    return np.stack(columns, axis=1)


def _means(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return the mean of each column of (N, layers) over the observations that have a value, by the name of the layer.

    A layer is left out where no observation has one: after it is randomised, all tokens of a text are equally
    important, which is neither the same order as before nor another one.
    """
    means = {}
    for name, column in zip(names, values.T, strict=True):
        defined = column[~np.isnan(column)]
        if len(defined):
            means[name] = float(defined.mean())
    return means
