"""The importance measures, by the name that `--importance-measure` takes. Imports no torch.

To add one, write a module with a class like its neighbours and give it a line here. A measure that has parameters
declares them in a dataclass above the registry: each field is a flag, a part of the identity of a run, and a column.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from nlproar.explain.transform import UNCHANGED, Transform
from nlproar.flags import flag

__all__ = ["ALIASES", "MEASURES", "MOST_INTERVALS", "TARGETS", "UNCHANGED", "Beams", "Measure", "Removal", "Transform"]

TARGETS = ("gold", "predicted")
"""The class that a measure explains. A mask that is made for the gold label can reveal the label (Jethani et al. 2023,
arXiv 2211.14646); what a model predicts is what its user sees."""


class Measure(NamedTuple):
    """Where a measure is, and what must be known of it before it is made."""

    location: str  # module and class
    needs_model: bool = True
    reranks: bool = True  # False: its ranking cannot change from level to level, so it is never recursive
    random: bool = False  # True: it draws at random, so the seed of the run is a part of what decides its values
    parameters: type | None = None  # the dataclass of its parameters
    version: int = 1  # raise it when the values of the measure change: then it is another one, see `Config.identity`
    published: bool = False  # True: it is one of those that a study has by default
    signed: bool = False  # True: what speaks for the class that is explained comes first, what speaks against it last
    slow: bool = False  # True: it asks the model about many texts for each token; a study has it only if it is named
    of_word: str = "sum"  # the importance of a word from that of its tokens, a key of `nlproar.masking.OF_WORD`
    ordinal: bool = False  # True: only the order of its values means something, and not how large they are
    role: str = "measure"  # "check" and "truth" (which knows the informative tokens) serve to check metrics


@dataclass(frozen=True)
class Target:
    """Parameters of a measure that explains one class."""

    target: str = flag("gold", "the class that is explained: the label, or what the model predicts", choices=TARGETS)


MOST_INTERVALS = 256  # of the path of an integrated gradient, if --tolerance decides how many there are

_FIXED_POINTS = (
    "a fixed number of points of an integrated gradient (default: as many as --tolerance needs, published 50)"
)


@dataclass(frozen=True)
class IntegrationPath(Target):
    """Parameters of an integrated gradient."""

    tolerance: float = flag(
        0.001,
        "largest allowed completeness error of an integrated gradient, as a share of the sum of the absolute values of"
        " an observation; points are added until it is met and the values have settled, up to"
        f" {MOST_INTERVALS + 1} points",
        limits=(1e-6, 1.0),
    )
    riemann_samples: int | None = flag(
        None,
        _FIXED_POINTS,
        convert=int,
        limits=(1, 1000),
    )
    integrated_gradient_baseline: str = flag(
        "zero",
        "where the path of an integrated gradient begins: zero embeddings, or those of [MASK] or [PAD]",
        choices=("zero", "mask", "pad"),
    )


@dataclass(frozen=True)
class RiemannSteps(Target):
    """Parameters of the integrated gradient of the published code."""

    riemann_samples: int = flag(
        50,
        _FIXED_POINTS,
        limits=(1, 1000),
    )


@dataclass(frozen=True)
class Noise(Target):
    """Parameters of SmoothGrad."""

    smoothgrad_samples: int = flag(20, "how many noisy copies SmoothGrad averages", limits=(1, 1000))
    smoothgrad_noise: float = flag(
        0.15, "standard deviation of the noise of SmoothGrad, as a share of the range of the embeddings", limits=(0, 10)
    )


@dataclass(frozen=True)
class Baselines(Target):
    """Parameters of GradientSHAP."""

    gradient_shap_samples: int = flag(20, "how many baselines GradientSHAP draws", limits=(1, 10_000))


@dataclass(frozen=True)
class Removal(Target):
    """Parameters of leave-one-out."""

    leave_one_out_of: str = flag(
        "probability",
        "whether the measures leave-one-out and leave-one-out-signed are changes of the probability or of the logit",
        choices=("probability", "logit"),
    )


@dataclass(frozen=True)
class Beams(Target):
    """Parameters of beam search."""

    beams: int = flag(3, "how many orders of masking beam search keeps", limits=(1, 1000))


@dataclass(frozen=True)
class Perturbations(Target):
    """Parameters of the measures of Captum that draw perturbed texts."""

    perturbations: int = flag(
        25,
        "permutations of Shapley sampling, or perturbed texts for each token of KernelSHAP and LIME",
        limits=(1, 10_000),
    )


MEASURES = {
    "random": Measure(
        "nlproar.explain.random:Random", needs_model=False, reranks=False, random=True, of_word="first", published=True
    ),
    "mutual-information": Measure(
        "nlproar.explain.mutual_information:MutualInformation", needs_model=False, published=True
    ),
    "attention": Measure("nlproar.explain.attention:Attention", published=True),
    "gradient": Measure("nlproar.explain.gradient:Gradient", parameters=Target, published=True),
    "input-times-gradient": Measure("nlproar.explain.gradient:InputTimesGradient", parameters=Target, published=True),
    "integrated-gradient": Measure(
        "nlproar.explain.integrated_gradient:IntegratedGradient", parameters=IntegrationPath, version=2, published=True
    ),
    "integrated-gradient-published": Measure(
        "nlproar.explain.integrated_gradient:PublishedIntegratedGradient", parameters=RiemannSteps, published=True
    ),
    "input-times-gradient-signed": Measure(
        "nlproar.explain.gradient:SignedInputTimesGradient", signed=True, parameters=Target
    ),
    "integrated-gradient-signed": Measure(
        "nlproar.explain.integrated_gradient:SignedIntegratedGradient", signed=True, parameters=IntegrationPath
    ),
    "attention-rollout": Measure("nlproar.explain.attention:AttentionRollout"),
    "attention-times-gradient": Measure("nlproar.explain.attention:AttentionTimesGradient", parameters=Target),
    "smoothgrad": Measure("nlproar.explain.smoothgrad:SmoothGrad", random=True, parameters=Noise),
    "gradient-shap": Measure("nlproar.explain.gradient_shap:GradientShap", random=True, parameters=Baselines),
    "leave-one-out": Measure("nlproar.explain.leave_one_out:LeaveOneOut", parameters=Removal, version=2),
    "leave-one-out-signed": Measure(
        "nlproar.explain.leave_one_out:SignedLeaveOneOut", signed=True, parameters=Removal, version=2
    ),
    "beam-search": Measure(
        "nlproar.explain.beam_search:BeamSearch",
        parameters=Beams,
        version=2,
        signed=True,
        slow=True,
        of_word="largest",  # a word comes when the first of its tokens does
        ordinal=True,
    ),
    "least-beam-search": Measure(
        "nlproar.explain.beam_search:LeastBeamSearch",
        parameters=Beams,
        version=3,
        slow=True,
        of_word="smallest",  # a word comes when the last of its tokens does
        ordinal=True,
        role="check",
    ),
    "feature-ablation": Measure("nlproar.explain.perturbation:FeatureAblation", parameters=Target, slow=True),
    "shapley-sampling": Measure(
        "nlproar.explain.perturbation:ShapleySampling",
        random=True,
        parameters=Perturbations,
        slow=True,
    ),
    "kernel-shap": Measure(
        "nlproar.explain.perturbation:KernelShap",
        random=True,
        parameters=Perturbations,
        slow=True,
    ),
    "lime": Measure(
        "nlproar.explain.perturbation:Lime",
        version=2,
        random=True,
        parameters=Perturbations,
        slow=True,
    ),
}

# Measures that explain no model. They show what a metric says of the best, the worst and the idlest explanation.
MEASURES |= {
    "oracle": Measure(
        "nlproar.explain.oracle:Oracle", needs_model=False, reranks=False, random=True, ordinal=True, role="truth"
    ),
    "oracle-inverse": Measure(
        "nlproar.explain.oracle:OracleInverse",
        needs_model=False,
        reranks=False,
        random=True,
        ordinal=True,
        role="truth",
    ),
    "position": Measure(
        "nlproar.explain.information_free:Position",
        needs_model=False,
        reranks=False,
        of_word="first",
        ordinal=True,
        role="check",
    ),
    "word-frequency": Measure(
        "nlproar.explain.information_free:WordFrequency",
        needs_model=False,
        reranks=False,
        version=2,
        of_word="smallest",  # a word is not more frequent than its rarest token
        role="check",
    ),
}

ALIASES = {"times-input-gradient": "input-times-gradient"}  # the name in the published code
