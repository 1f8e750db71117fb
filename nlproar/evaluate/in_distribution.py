"""Whether masked data are in the distribution that a model knows, by MaSF (see `nlproar.stats.distribution`).

Erasure and masked fine-tuning believe what a model says of masked data. They may do so only if the model knows such
data: else a probability falls because the input is strange, and not because an important token is gone. A run reports
two numbers at each level of masking, from the p-values of the test observations:

- `outside`: the share of p-values below 5 %. If masked data are in the distribution of the model, it is about 5 %.
- `shift`: the signed Kolmogorov-Smirnov distance, from -1 to 1, between these observations and known ones, by the
  number from which the p-values come. It is positive where the activations are further out than those of known data,
  and negative where they lie closer to the middle, which `outside` cannot see.

- The plain model knows data without masks: it is compared with the validation split as it is.
- The model of masked fine-tuning knows data that are masked at random to any extent. It is compared with the validation
  split and a copy of it that is masked at random, which is what it is validated on.

The second comparison is with all levels together, so a level of random masking need not be at 5 % itself. Compare a
measure with random masking at the same level. With `--unit word`, levels mask whole words; what the model of masked
fine-tuning knows is masked token by token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from nlproar import storage
from nlproar.errors import UserError
from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import OfOneModel, RankedByOneModel, of_model, short_name
from nlproar.evaluate.unit import with_unit, word_starts
from nlproar.masking import mask_at_random, mask_most_important
from nlproar.seeds import derive
from nlproar.stats.distribution import KnownObservations, shift

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Split
    from nlproar.explain.importance import Importance
    from nlproar.model.classifier import Classifier
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

LEVELS = tuple(range(0, 100, 10))  # per cent of the tokens that are masked
SIGNIFICANCE = 0.05

_VERSION = 2  # raise it when the values of observations change


class InDistribution(OfOneModel):
    """The share of masked test observations that are outside of the distribution that one model knows."""

    Parameters = RankedByOneModel
    version = 2  # the first one compared p-values with a uniform distribution, which those of ties do not have

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, mask at each level, and compare the activations."""
        trained = self.trained(config)
        importance, model, performance = self.explain_and_test(config, context)
        masks = Masks.nothing(context.dataset)
        key = {
            "version": _VERSION,
            "importance": importance.digest,
            "weights": context.weights(trained),
            "levels": list(LEVELS),
            "seed": config.seed,
        }
        with context.timed("test"):
            found = context.observations(config, key, lambda: comparison(config, context, model, importance))
        diagnostics: dict[str, dict[str, float]] = {"outside": {}, "shift": {}}
        for column, level in enumerate(LEVELS):
            diagnostics["outside"][str(level)] = float((found["p_value"][:, column] < SIGNIFICANCE).mean())
            diagnostics["shift"][str(level)] = shift(found["known"], found["statistic"][:, column])
        return context.record(
            config, performance, masks, importance=importance, model_of=trained, diagnostics=diagnostics
        )

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        return ["in", short_name(config.parameters.erasure_model), f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return with_unit(f"In distribution{of_model(values)}", values)


def comparison(config: Config, context: Context, model: Classifier, importance: Importance) -> storage.Arrays:
    """Return how every test observation, masked at each of L levels, compares with the K known ones: `p_value` (N, L),
    `statistic` (N, L), from which they come, and that of the known ones, `known` (K,)."""
    known = _known(config, context, model)
    split = context.dataset.splits["test"]
    values = importance.of_split["test"].values
    statistic = np.empty((len(split), len(LEVELS)))
    p_value = np.empty_like(statistic)
    for column, level in enumerate(LEVELS):
        starts = word_starts(config, split)
        mask = mask_most_important(values, split.maskable, split.offsets, "quantile", level, word_starts=starts)
        statistic[:, column] = known.statistics(activations(model, split.masked(mask)))
        p_value[:, column] = known.p_values(statistic[:, column])
    return {"p_value": p_value, "statistic": statistic, "known": known.known_statistics}


def _known(config: Config, context: Context, model: Classifier) -> KnownObservations:
    """Return what the model knows: the validation texts, for masked fine-tuning also masked at random."""
    split = context.dataset.splits["val"]
    versions = [split]
    if config.parameters.erasure_model == "masked-fine-tuning":
        rng = np.random.default_rng(derive(config.seed, "known masks"))
        versions.append(split.masked(mask_at_random(split.maskable, split.offsets, rng, share=1.0)))
    of_versions = [activations(model, version) for version in versions]
    # Both versions of a text are in the same half, else one of them would make the other look known.
    order = np.random.default_rng(derive(config.seed, "halves of the known")).permutation(len(split))
    first_half, second_half = np.array_split(order, 2)
    channels = []
    further = []
    for of_layer in zip(*of_versions, strict=True):  # (N, D) of each version
        channels.append(np.concatenate([of_version[first_half] for of_version in of_layer]))
        further.append(np.concatenate([of_version[second_half] for of_version in of_layer]))
    return KnownObservations(channels, further)


def activations(model: Classifier, split: Split) -> list[np.ndarray]:
    """Return what `Classifier.activations` says of every observation of `split`, in its order: (N, D) for each layer.

    Raises UserError for a model that offers none.
    """
    from nlproar.model import train

    layers = train.activations(model, split)
    if not layers:
        raise UserError(
            f"{type(model).__name__} says nothing of its activations, which this metric compares; write its method"
            " `activations`, see nlproar.model.classifier"
        )
    return [layer.float().numpy() for layer in layers]
