"""The importance measures, by the name `--importance-measure` takes.

To add one, write a module with a class like its neighbours and give it a line here.
"""

from __future__ import annotations

from typing import NamedTuple


class Measure(NamedTuple):
    """Where a measure is, and what the runs must know of it without importing torch."""

    location: str  # module below `nlproar.explain`, and class
    needs_model: bool = True
    recursive: bool = True  # False: its ranking cannot change from level to level
    default_samples: int | None = None  # of `--riemann-samples`; None: takes no samples


MEASURES = {
    "random": Measure("random:Random", needs_model=False, recursive=False),
    "mutual-information": Measure("mutual_information:MutualInformation", needs_model=False),
    "attention": Measure("attention:Attention"),
    "gradient": Measure("gradient:Gradient"),
    "input-times-gradient": Measure("gradient:InputTimesGradient"),
    "integrated-gradient": Measure("integrated_gradient:IntegratedGradient", default_samples=30),
    "integrated-gradient-published": Measure("integrated_gradient:PublishedIntegratedGradient", default_samples=50),
}

ALIASES = {"times-input-gradient": "input-times-gradient"}  # the name in the published code
