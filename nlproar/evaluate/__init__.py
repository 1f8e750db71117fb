"""Evaluations: what turns importance into a statement about faithfulness, by the name that `--metric` takes.

To add one, write a class like `nlproar.evaluate.roar.Roar` and give it a line here. Nothing here imports torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nlproar.plugins import imported

if TYPE_CHECKING:
    from nlproar.evaluate.evaluation import Evaluation

EVALUATIONS = {
    "roar": "nlproar.evaluate.roar:Roar",
    "masked-fine-tuning": "nlproar.evaluate.masked_fine_tuning:MaskedFineTuning",
    "erasure": "nlproar.evaluate.erasure:Erasure",
    "normalised-erasure": "nlproar.evaluate.normalised_erasure:NormalisedErasure",
    "leave-one-out": "nlproar.evaluate.leave_one_out:LeaveOneOutCorrelation",
    "in-distribution": "nlproar.evaluate.in_distribution:InDistribution",
    "model-randomisation": "nlproar.evaluate.model_randomisation:ModelRandomisation",
    "truth": "nlproar.evaluate.truth:Truth",
}


def load_evaluation(name: str) -> Evaluation:
    """Return the evaluation `name`, a key of `EVALUATIONS`. Imports its module only."""
    module, _, attribute = EVALUATIONS[name].partition(":")
    evaluation: Evaluation = getattr(imported(module, f"metric {name}"), attribute)()
    return evaluation
