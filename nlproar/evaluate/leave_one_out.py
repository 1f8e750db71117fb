"""Leave-one-out correlation: does a measure order the tokens as their removal, one at a time, changes the prediction?

For each test observation it is Kendall's tau between the importance of its tokens and leave-one-out, which is the
change of the probability of the explained class when the token alone is replaced by `[MASK]`. It lies in [-1, 1];
higher is more faithful, and random importance is near 0. A signed measure is compared with the signed change, and any
other one with its absolute value. No model is trained.

Jain & Wallace 2019 (arXiv 1902.10186) compare attention with leave-one-out in this way. Their change is another one:
the total variation distance between the whole outputs with the token and after its deletion.

One token at a time says nothing about tokens that carry the same information: where either of two words suffices, the
removal of one changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from nlproar.evaluate.masks import Masks
from nlproar.evaluate.of_one_model import OfOneModel, of_model, short_name
from nlproar.explain import MEASURES, UNCHANGED, Removal
from nlproar.stats.agreement import kendall

if TYPE_CHECKING:
    from nlproar.dataset.encoding import Split
    from nlproar.explain.importance import Importance
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record

_VERSION = 1  # raise it when the values of observations change


class LeaveOneOutCorrelation(OfOneModel):
    """The mean over the test observations of Kendall's tau with leave-one-out."""

    scores: ClassVar[Mapping[str, bool]] = {"tau": True}
    version = 2  # the first one compared with changes that were not rounded

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain by the measure and by leave-one-out, and compare."""
        trained = self.trained(config)
        importance, _, performance = self.explain_and_test(config, context)
        with context.timed("explain"):
            changes = self._changes(config, context)
            changes.compute()
        masks = Masks.nothing(context.dataset)
        key = {"version": _VERSION, "importance": importance.digest, "changes": changes.digest}
        with context.timed("test"):
            split = context.dataset.splits["test"]
            found = context.observations(config, key, lambda: {"tau": taus(importance, changes, split)})
        tau = found["tau"]
        defined = ~np.isnan(tau)
        if defined.any():  # else the record has no score
            performance["test"]["tau"] = float(tau[defined].mean())
        diagnostics = {"tau": {"observations without it": float((~defined).sum())}}
        return context.record(
            config, performance, masks, importance=importance, model_of=trained, diagnostics=diagnostics
        )

    def _changes(self, config: Config, context: Context) -> Importance:
        """Return leave-one-out for the class that the measure explains, signed if the measure is."""
        is_signed = MEASURES[str(config.importance_measure)].signed
        reference = replace(
            config,
            importance_measure="leave-one-out-signed" if is_signed else "leave-one-out",
            measure=Removal(target=getattr(config.measure, "target", Removal().target)),
            transform=UNCHANGED,
        )
        return context.importance(reference, self.trained(config), Masks.nothing(context.dataset), ("test",))

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        return ["loo", short_name(config.parameters.erasure_model), f"m-{config.importance_measure}"]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return f"Leave-one-out{of_model(values)}"


def taus(importance: Importance, changes: Importance, split: Split) -> np.ndarray:
    """Return Kendall's tau of each test observation, (N,).

    It is NaN for fewer than two tokens that can be masked, and where importance or change is the same for all of them.
    """
    first, second = importance.of_split["test"].values, changes.of_split["test"].values
    found = np.full(len(split), np.nan)
    for number, (start, stop) in enumerate(zip(split.offsets[:-1], split.offsets[1:], strict=True)):
        inside = split.maskable[start:stop]
        found[number] = kendall(first[start:stop][inside], second[start:stop][inside])
    return found
