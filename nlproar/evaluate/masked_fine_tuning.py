"""Masked fine-tuning: one model that is trained to predict masked data, and tested at every level of masking (Madsen,
Reddy & Chandar 2023, "Faithfulness Measurable Models", arXiv 2310.07819).

ROAR trains a model for every level, because a model that never saw `[MASK]` says little about masked data. Here one
model learns to predict data that are masked at random to any extent. It is explained, and then tested on data without
the tokens that a measure calls important. A curve therefore costs one training instead of one for each level.

- The run of k = 0 trains. In every epoch, each observation is masked with probability 1/2; validation is on unmasked
  and masked data together.
- Every other run tests that model. With `--recursive` the importance of a level is that of the same model on the data
  of the level one step below; without, it is that of the unmasked data.
- Training masks single tokens also where a level masks whole words (`--unit word`), so both share the run of k = 0.
- Training data are neither explained nor masked at a level, as nothing is trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nlproar.evaluate.roar import Level, Roar
from nlproar.evaluate.unit import with_unit
from nlproar.explain import MEASURES

if TYPE_CHECKING:
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record


class MaskedFineTuning(Roar):
    """Test performance of one model, which knows masked data, against the level of masking."""

    splits = ("val", "test")
    masks_at_random = True

    def needs(self, config: Config) -> list[Config]:
        """See `Evaluation.needs`: the model of k = 0, which every level tests."""
        level: Level = config.parameters
        return [] if level.k == 0 else [config.with_parameters(k=0)]

    def model_of(self, config: Config) -> Config | None:
        """See `Roar.model_of`: that of k = 0, also of a recursive level."""
        if config.importance_measure is None or not MEASURES[config.importance_measure].needs_model:
            return None
        return config.with_parameters(k=0)

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: train at k = 0, else explain, mask and test."""
        importance, masks = self.explain_and_mask(config, context)
        if config.at_level == 0:
            return self.train_and_test(config, context, masks, importance)
        (trained_run,) = self.needs(config)
        metrics = context.test(config, context.load_model(trained_run), masks)
        return context.record(config, metrics, masks, importance=importance, model_of=trained_run)

    def is_stale(self, config: Config, context: Context) -> bool:
        """See `Evaluation.is_stale`: only k = 0 has a model, and it depends on no mask."""
        return config.at_level == 0 and super().is_stale(config, context)

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        return ["mft", *super().name_parts(config)]

    def describe(self, config: Config) -> list[str]:
        """See `Evaluation.describe`."""
        return ["masked fine-tuning", *super().describe(config)]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return with_unit("Recursive masked fine-tuning" if values["recursive"] else "Masked fine-tuning", values)
