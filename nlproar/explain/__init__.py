"""The importance measures, by the name that `--importance-measure` takes. Imports no torch.

To add one, write a module with a class like its neighbours and give it a line here. A measure that has parameters
declares them in a dataclass above the registry: each field is a flag, a part of the identity of a run, and a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nlproar.explain.transform import UNCHANGED, Transform
from nlproar.flags import flag

__all__ = ["ALIASES", "MEASURES", "UNCHANGED", "Measure", "QuadraturePoints", "RiemannSteps", "Transform"]


class Measure(NamedTuple):
    """Where a measure is, and what must be known of it before it is made."""

    location: str  # module and class
    needs_model: bool = True
    reranks: bool = True  # False: its ranking cannot change from level to level, so it is never recursive
    random: bool = False  # True: it draws at random, so the seed of the run is a part of what decides its values
    parameters: type | None = None  # the dataclass of its parameters
    version: int = 1  # raise it when the values of the measure change, so that cached ones are not used
    role: str = "measure"  # "check" and "truth" (which knows the informative tokens) serve to check metrics


@dataclass(frozen=True)
class QuadraturePoints:
    """Parameters of an integrated gradient by Gauss-Legendre quadrature."""

    riemann_samples: int = flag(
        30, "points of an integrated gradient (default: 30 Gauss-Legendre, published 50)", limits=(1, 1000)
    )


@dataclass(frozen=True)
class RiemannSteps:
    """Parameters of the integrated gradient of the published code."""

    riemann_samples: int = flag(
        50, "points of an integrated gradient (default: 30 Gauss-Legendre, published 50)", limits=(1, 1000)
    )


MEASURES = {
    "random": Measure("nlproar.explain.random:Random", needs_model=False, reranks=False, random=True),
    "mutual-information": Measure("nlproar.explain.mutual_information:MutualInformation", needs_model=False),
    "attention": Measure("nlproar.explain.attention:Attention"),
    "gradient": Measure("nlproar.explain.gradient:Gradient"),
    "input-times-gradient": Measure("nlproar.explain.gradient:InputTimesGradient"),
    "integrated-gradient": Measure(
        "nlproar.explain.integrated_gradient:IntegratedGradient", parameters=QuadraturePoints
    ),
    "integrated-gradient-published": Measure(
        "nlproar.explain.integrated_gradient:PublishedIntegratedGradient", parameters=RiemannSteps
    ),
}

# Measures that explain no model. They show what a metric says of the best, the worst and the idlest explanation.
MEASURES |= {
    "oracle": Measure("nlproar.explain.oracle:Oracle", needs_model=False, reranks=False, random=True, role="truth"),
    "oracle-inverse": Measure(
        "nlproar.explain.oracle:OracleInverse", needs_model=False, reranks=False, random=True, role="truth"
    ),
    "position": Measure("nlproar.explain.information_free:Position", needs_model=False, reranks=False, role="check"),
    "word-frequency": Measure(
        "nlproar.explain.information_free:WordFrequency", needs_model=False, reranks=False, role="check"
    ),
}

ALIASES = {"times-input-gradient": "input-times-gradient"}  # the name in the published code
