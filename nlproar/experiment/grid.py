"""A study: the runs of a whole grid, as chains of levels that one process carries out in order. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from math import gcd
from typing import Any

from nlproar.errors import UserError
from nlproar.experiment.config import Config, check_number_of_levels, resolve
from nlproar.explain import MEASURES

STAGES = ("base", "measures")
_USUAL = {"count": (1, 10), "quantile": (10, 90)}  # step and highest level of the paper (Madsen et al. 2022)


@dataclass(frozen=True)
class Chain:
    """The levels of one task, model, measure, strategy, recursion and seed, rising: the unit of work.

    The base chain of a task and seed holds what belongs to every measure: k = 0 and, of quantiles, k = 100.
    """

    configs: tuple[Config, ...]

    @property
    def stage(self) -> str:
        return "measures" if self.configs[0].importance_measure else "base"

    @property
    def base(self) -> Config | None:
        """The run at k = 0 whose model this chain explains first; None where it explains none."""
        return self.configs[0].at(0) if self.configs[0].explained() else None

    @property
    def title(self) -> str:
        """What tells the chain from the others of its study, for people."""
        last = self.configs[-1]
        kind = ["recursive"] if last.recursive else []
        return " ".join([last.dataset, f"seed {last.seed}", last.importance_measure or "base",
                         *([last.roar_strategy] if last.roar_strategy else []), *kind])  # fmt: skip

    def arguments(self, configs: Iterable[Config]) -> list[str]:
        """Script and flags that carry out `configs`, some levels of this chain, in one process."""
        last = self.configs[-1]
        words = last.arguments([config.k for config in configs])
        if last.explained():
            words.append("--train-missing")
        if last.overwrite:
            words.append("--overwrite")
        return words


@dataclass(frozen=True)
class Study:
    """A grid as the flags name it. `levels` None: from `step` to `max_k`, by default those of the paper."""

    datasets: Sequence[str]
    measures: Sequence[str]
    seeds: Sequence[int] = (0,)
    strategies: Sequence[str] = ("quantile",)
    kinds: Sequence[bool] = (False,)  # recursive or not
    levels: Sequence[int] | None = None
    step: int | None = None
    max_k: int | None = None
    source: str = "official"
    flags: Mapping[str, Any] = field(default_factory=dict)  # the other flags of every run

    def chains(self) -> list[Chain]:
        """Every chain once: base chains first, then measures. Raises UserError for what cannot be."""
        base = [self._base(dataset, seed) for dataset, seed in product(self.datasets, self.seeds)]
        grid = product(self.datasets, self.seeds, self.strategies, self.measures, self.kinds)
        chains = dict.fromkeys(self._chain(*values) for values in grid)  # random masking is never recursive
        return list(dict.fromkeys(base)) + [chain for chain in chains if chain.configs]

    def _base(self, dataset: str, seed: int) -> Chain:
        everything = {"roar_strategy": "quantile", "k": 100}
        runs = [{}, everything] if "quantile" in self.strategies else [{}]
        return Chain(tuple(resolve(dataset, self.source, seed=seed, **run, **self.flags) for run in runs))

    def _chain(self, dataset: str, seed: int, strategy: str, measure: str, recursive: bool) -> Chain:
        """The levels between nothing and everything masked, and those below that recursion has to pass."""
        levels = sorted(set(self._levels(strategy)) - {0})
        recursive = recursive and MEASURES[measure].recursive
        step = self.flags.get("recursive_step_size") or gcd(*levels)
        if recursive and levels and not levels[-1] % step:
            check_number_of_levels(levels[-1] // step, "name other --k, or a larger --recursive-step-size")
            levels = list(range(step, levels[-1] + 1, step))
        flags = {"seed": seed, "importance_measure": measure, "roar_strategy": strategy, "recursive": recursive}
        runs = (
            resolve(dataset, self.source, **{**self.flags, **flags, "recursive_step_size": step, "k": k})
            for k in levels
        )
        return Chain(tuple(run for run in runs if run.importance_measure))  # the rest is in the base chain

    def _levels(self, strategy: str) -> Sequence[int]:
        if self.levels is not None:
            check_number_of_levels(len(self.levels), "name fewer --k")
            return self.levels
        step, highest = self.step or _USUAL[strategy][0], self.max_k or _USUAL[strategy][1]
        if highest < step:
            raise UserError(f"--max-k {highest} is below --step {step}: there is no level between")
        check_number_of_levels(highest // step, "choose a larger --step or a smaller --max-k")
        return range(step, highest + 1, step)
