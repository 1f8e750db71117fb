"""ROAR and Recursive ROAR: mask the tokens that a measure calls important, retrain, and test (Hooker et al. 2019,
arXiv 1806.10758; Madsen et al. 2022, arXiv 2110.08412).

All rules of ROAR about which runs there are stand here:

- Nothing is masked at k = 0, and everything at k = 100 per cent. These two runs have no measure: all curves of a seed
  share them.
- ROAR explains the model of k = 0. Recursive ROAR explains the model of the level one step below, on the data of that
  level; tokens that are masked there stay masked and count.
- The ranking of random masking cannot change from level to level, so it is never recursive.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar

from nlproar.dataset.task import SPLITS
from nlproar.errors import UserError
from nlproar.evaluate.evaluation import Evaluation
from nlproar.evaluate.masks import Masks
from nlproar.explain import MEASURES, UNCHANGED
from nlproar.flags import flag
from nlproar.masking import STRATEGIES, mask_most_important
from nlproar.model import checkpoint

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record
    from nlproar.study.grid import Grid

MOST_LEVELS = 1000  # of a curve: each is a training, and a recursive one passes through all below it


@dataclass(frozen=True)
class Level:
    """Which tokens are masked. The values are None where they cannot matter, as at k = 0."""

    roar_strategy: str | None = flag(
        "count", "k is a count of tokens, or a quantile: a percentage of the tokens", choices=STRATEGIES
    )
    k: int = flag(0, "how many tokens, or per cent of them, are masked; a run for each", limits=(0, 10**6), many=True)
    recursive: bool = flag(False, "explain the model of the level before instead of the one of k = 0")
    recursive_step_size: int | None = flag(
        None, "distance of levels (default: 1, quantile 10)", convert=int, limits=(1, 10**6)
    )


class Roar(Evaluation):
    """Test performance of models that are trained and tested on masked data, against the level of masking."""

    Parameters = Level
    splits: ClassVar[tuple[str, ...]] = SPLITS  # that are explained and masked

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`."""
        level: Level = config.parameters
        if level.roar_strategy == "quantile" and level.k > 100:
            raise UserError(f"--k {level.k} with --roar-strategy quantile: a percentage is at most 100")
        step = level.recursive_step_size or usual_step(level.roar_strategy)
        if level.recursive and level.k % step != 0:
            raise UserError(f"--k {level.k} cannot be reached by --recursive-step-size {step}: choose a multiple of it")
        if level.recursive:
            check_number_of_levels(level.k // step, "choose a larger --recursive-step-size")

        everything = level.roar_strategy == "quantile" and level.k == 100
        if level.k == 0 or everything:
            strategy = "quantile" if everything else None
            shared = Level(roar_strategy=strategy, k=level.k)
            return replace(config, parameters=shared, importance_measure=None, measure=None, transform=UNCHANGED)
        assert config.importance_measure is not None
        if level.recursive and MEASURES[config.importance_measure].reranks:
            return replace(config, parameters=replace(level, recursive_step_size=step))
        return replace(config, parameters=replace(level, recursive=False, recursive_step_size=None))

    def previous(self, config: Config) -> Config | None:
        """Return the run whose data, and whose model, `config` explains; None for a run that explains nothing."""
        if config.importance_measure is None:
            return None
        level: Level = config.parameters
        if not level.recursive:
            return config.with_parameters(k=0)
        assert level.recursive_step_size is not None
        return config.with_parameters(k=level.k - level.recursive_step_size)

    def needs(self, config: Config) -> list[Config]:
        """See `Evaluation.needs`. A measure that looks at no model needs no run."""
        explained = self.model_of(config)
        return [] if explained is None else [explained]

    def model_of(self, config: Config) -> Config | None:
        """Return the run whose model is explained; None for a measure that looks at no model, or no measure at all."""
        previous = self.previous(config)
        if previous is None or not MEASURES[str(config.importance_measure)].needs_model:
            return None
        return previous

    def compared(self, config: Config) -> list[Config]:
        """See `Evaluation.compared`: the unmasked run, which every curve begins with."""
        return [config.with_parameters(k=0)]

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, mask, train, test."""
        importance, masks = self.explain_and_mask(config, context)
        return self.train_and_test(config, context, masks, importance)

    def explain_and_mask(self, config: Config, context: Context) -> tuple[Importance | None, Masks]:
        """Return the importance behind a run, computed (None where nothing is explained), and its masks."""
        with context.timed("explain"):
            importance = self.importance(config, context)
            if importance is not None:
                importance.compute()
        with context.timed("mask"):
            masks = self.masks(config, context)
        return importance, masks

    def train_and_test(
        self,
        config: Config,
        context: Context,
        masks: Masks,
        importance: Importance | None,
        mask_at_random: bool = False,
    ) -> Record:
        """Train a model on the data with `masks`, save it, and return the record of the run."""
        model, trained = context.train(config, masks, mask_at_random)
        metrics = context.test(config, model, masks)
        weights = context.save(config, model, masks)
        return context.record(config, metrics, masks, trained, importance, weights)

    def importance(self, config: Config, context: Context) -> Importance | None:
        """See `Evaluation.importance`: what the tokens are masked by."""
        previous = self.previous(config)
        if previous is None:
            return None
        return context.importance(config, self.model_of(config), self.masks(previous, context), self.splits)

    def masks(self, config: Config, context: Context) -> Masks:
        """Return which tokens are `[MASK]` in the data of `config`.

        The levels below are made first, from the lowest up, so that each finds the one below it in the cache instead of
        asking for it in a call within a call for each of a thousand levels.
        """
        curve = [config]
        previous = self.previous(config)
        while previous is not None:
            curve.append(previous)
            previous = self.previous(previous)
        first, *levels = reversed(curve)
        masks = self._without_measure(first, context)
        for level in levels:
            masks = self._next_level(level, masks, context)
        return masks

    def _without_measure(self, config: Config, context: Context) -> Masks:
        """Return the masks of a run that explains nothing: nothing or everything is masked."""
        level: Level = config.parameters
        if level.k == 0:
            return Masks.nothing(context.dataset)
        return Masks.everything(context.dataset)

    def _next_level(self, config: Config, already: Masks, context: Context) -> Masks:
        """Return the masks of a level, given those of the level that it explains."""
        level: Level = config.parameters
        importance = context.importance(config, self.model_of(config), already, self.splits)

        def make() -> Masks:
            masked = dict(already.of_split)
            for name in self.splits:
                split = context.dataset.splits[name]
                masked[name] = mask_most_important(
                    importance.of_split[name].values,
                    split.maskable,
                    split.offsets,
                    str(level.roar_strategy),
                    level.k,
                    already.of_split[name],
                )
            return Masks(masked)

        key = {"importance": importance.digest, "strategy": level.roar_strategy, "k": level.k}
        return context.masks(config, key, make)

    def is_stale(self, config: Config, context: Context) -> bool:
        """See `Evaluation.is_stale`: whether the model was trained on other masks than the models below it give now."""
        folder = context.layout.checkpoint(config)
        description = checkpoint.describe(folder)
        if description["dataset"] != context.dataset.digest:
            raise UserError(
                f"{folder} was trained on other data than are there now; train it again: {config.command()} --overwrite"
            )
        return bool(description["masks"] != self.masks(config, context).digest)

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`."""
        level: Level = config.parameters
        parts = [f"k-{level.k}"]
        if level.roar_strategy is not None:
            parts.append(f"y-{level.roar_strategy}")
        if config.importance_measure is not None:
            parts.append(f"m-{config.importance_measure}")
            parts.append(f"r-{int(level.recursive)}")
        if level.recursive:
            parts.append(f"st-{level.recursive_step_size}")
        return parts

    def describe(self, config: Config) -> list[str]:
        """See `Evaluation.describe`."""
        level: Level = config.parameters
        words = [config.importance_measure or "base"]
        if level.roar_strategy is not None:
            words.append(level.roar_strategy)
        if level.recursive:
            words.append("recursive")
        return words

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return "Recursive ROAR" if values["recursive"] else "ROAR"

    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """See `Evaluation.base`: nothing masked and, of quantiles, everything masked."""
        yield grid.config(dataset, seed, k=0)
        if "quantile" in grid.strategies:
            yield grid.config(dataset, seed, roar_strategy="quantile", k=100)

    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """See `Evaluation.chains`: for each strategy ROAR, Recursive ROAR or both, by rising level."""
        for strategy in grid.strategies:
            for recursive in grid.kinds:
                yield self._curve(grid, dataset, seed, measure, strategy, recursive)

    def _curve(self, grid: Grid, dataset: str, seed: int, measure: str, strategy: str, recursive: bool) -> list[Config]:
        """Return the levels between nothing and everything masked, and those below that recursion has to pass."""
        levels = sorted(set(self.levels(grid, strategy)) - {0})
        step = grid.flags.get("recursive_step_size") or gcd(*levels)
        if recursive and MEASURES[measure].reranks and levels and levels[-1] % step == 0:
            check_number_of_levels(levels[-1] // step, "name other --k, or a larger --recursive-step-size")
            levels = list(range(step, levels[-1] + 1, step))
        runs = []
        for k in levels:
            run = grid.config(
                dataset,
                seed,
                importance_measure=measure,
                roar_strategy=strategy,
                recursive=recursive,
                recursive_step_size=step,
                k=k,
            )
            if run.importance_measure is not None:  # the rest is in the base chain
                runs.append(run)
        return runs

    def levels(self, grid: Grid, strategy: str) -> Sequence[int]:
        """Return the levels that a study names, by default those of the paper."""
        if grid.levels is not None:
            check_number_of_levels(len(grid.levels), "name fewer --k")
            return grid.levels
        usual_distance, usual_highest = _USUAL[strategy]
        distance = grid.step or usual_distance
        highest = grid.max_k or usual_highest
        if highest < distance:
            raise UserError(f"--max-k {highest} is below --step {distance}: there is no level between")
        check_number_of_levels(highest // distance, "choose a larger --step or a smaller --max-k")
        return range(distance, highest + 1, distance)


_USUAL = {"count": (1, 10), "quantile": (10, 90)}  # step and highest level of the paper (Madsen et al. 2022)


def check_number_of_levels(levels: int, advice: str) -> None:
    """Raise UserError for more levels than anybody would train."""
    if levels > MOST_LEVELS:
        raise UserError(f"these are {levels:,} levels, and each is a training; {advice} (at most {MOST_LEVELS:,})")


def usual_step(strategy: str | None) -> int:
    """Return the distance of the levels of Recursive ROAR, where none is given."""
    return 10 if strategy == "quantile" else 1
