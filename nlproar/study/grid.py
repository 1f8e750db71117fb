"""The runs of a study as chains: lists of runs that one process carries out in order. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from nlproar.evaluate import load_evaluation
from nlproar.explain.transform import UNCHANGED
from nlproar.run.config import Config, resolve

STAGES = ("base", "measures")


@dataclass(frozen=True)
class Chain:
    """Some runs of one task and seed, in the order in which one process carries them out: the unit of work.

    A base chain holds the runs that all measures share, such as the unmasked model. Any other chain is one curve of a
    measure: its levels, rising.
    """

    configs: tuple[Config, ...]

    @property
    def stage(self) -> str:
        """One of `STAGES`."""
        return "base" if self.configs[0].importance_measure is None else "measures"

    @cached_property
    def needs(self) -> tuple[Config, ...]:
        """The runs of other chains whose models this chain looks at."""
        needed: dict[Config, None] = {}
        for config in self.configs:
            needed |= dict.fromkeys(config.needs())
        return tuple(one for one in needed if one not in self.configs)

    @property
    def title(self) -> str:
        """What tells the chain from the others of its study, for people."""
        last = self.configs[-1]
        words = [last.dataset, f"seed {last.seed}", *last.rules.describe(last)]
        if last.transform != UNCHANGED:
            words.append(last.transform.transform)
        return " ".join(words)

    def arguments(self, configs: Iterable[Config]) -> list[str]:
        """Return the script and the flags that carry out `configs`, some runs of this chain, in one process."""
        levels = [config.at_level for config in configs]
        words = self.configs[-1].arguments(levels)
        if self.configs[-1].needs():
            words.append("--train-missing")
        if self.configs[-1].options.overwrite:
            words.append("--overwrite")
        return words


@dataclass(frozen=True)
class Grid:
    """A study as its flags name it. `levels` None stands for those from `step` to `max_k`, or those of the paper."""

    datasets: Sequence[str]
    measures: Sequence[str]
    seeds: Sequence[int] = (0,)
    strategies: Sequence[str] = ("quantile",)
    kinds: Sequence[bool] = (False,)  # recursive or not
    transforms: Sequence[str] = (UNCHANGED.transform,)  # of every measure
    evaluations: Sequence[str] = ("roar",)
    levels: Sequence[int] | None = None
    step: int | None = None
    max_k: int | None = None
    source: str = "official"
    flags: Mapping[str, Any] = field(default_factory=dict)  # the other flags of every run

    def config(self, dataset: str, seed: int, **flags: Any) -> Config:
        """Return one run of the grid. Raises UserError for what cannot be."""
        return resolve(dataset, self.source, **{**self.flags, **flags, "seed": seed})

    def chains(self) -> list[Chain]:
        """Return every chain once: base chains first, then those of measures. No run is in two of them."""
        base: list[Chain] = []
        in_base: set[Config] = set()
        curves: dict[Chain, None] = {}
        for name in self.evaluations:
            rules = load_evaluation(name)
            grid = replace(self, flags={**self.flags, "evaluation": name})
            for dataset in self.datasets:
                for seed in self.seeds:
                    shared = tuple(run for run in rules.base(grid, dataset, seed) if run not in in_base)
                    if shared:
                        base.append(Chain(shared))
                        in_base.update(shared)
                    for measure in self.measures:
                        for runs in grid.curves(dataset, seed, measure):
                            curves[Chain(tuple(runs))] = None
        return [*base, *curves]

    def curves(self, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """Yield the curves of a measure by the evaluation in `flags`: one or more for each transform."""
        rules = load_evaluation(self.flags["evaluation"])
        for name in self.transforms:
            grid = replace(self, flags={**self.flags, "transform": name})
            for runs in rules.chains(grid, dataset, seed, measure):
                if runs:
                    yield runs
