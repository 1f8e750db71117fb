"""ROAR and Recursive ROAR: mask the tokens that a measure calls important, retrain, and test (Hooker et al. 2019,
arXiv 1806.10758; Madsen et al. 2022, arXiv 2110.08412).

This module holds the rules that decide which runs exist and what each of them explains:

- At k = 0 no token is masked, and at k = 100 per cent every token. These two runs have no measure, and all curves of a
  seed share them.
- ROAR explains the model of k = 0. Recursive ROAR explains the model of the level one step below, on the data of that
  level. Tokens that are masked there stay masked and count towards k.
- The ranking of random masking is the same at every level, so random masking is never recursive.

For example, Recursive ROAR at k = 20 with a step of 10 needs three models: that of k = 0, which ranks the tokens for
k = 10; that of k = 10, which ranks the tokens that are left for k = 20; and that of k = 20, which is tested.
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
from nlproar.evaluate.unit import TOKEN, Unit, with_unit, word_starts, words_of_unit
from nlproar.explain import MEASURES, UNCHANGED
from nlproar.flags import flag
from nlproar.masking import STRATEGIES, mask_most_important

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record
    from nlproar.study.grid import Grid

MOST_LEVELS = 1000  # the most levels of one curve; each level is a training

# The levels of the paper (Madsen et al. 2022), which a study has unless others are named.
_USUAL_STEP = {"count": 1, "quantile": 10}
_USUAL_HIGHEST = {"count": 10, "quantile": 90}


@dataclass(frozen=True)
class Level(Unit):
    """How many tokens are masked, and which model ranks them.

    In a canonical configuration `roar_strategy` is None at k = 0, `recursive_step_size` is None without recursion, and
    `unit` is "token" where nothing or everything is masked, as these values cannot change the result.
    """

    roar_strategy: str | None = flag(
        "count",
        "k is a count of tokens, or a quantile: a percentage of the tokens",
        choices=STRATEGIES,
    )
    k: int = flag(
        0,
        "number (count) or percentage (quantile) of tokens to mask; each value makes one run",
        limits=(0, 10**6),
        many=True,
    )
    recursive: bool = flag(
        False,
        "explain the model of the level before instead of the one of k = 0",
    )
    recursive_step_size: int | None = flag(
        None,
        "distance of levels (default: 1, quantile 10; in a study the largest one that reaches all levels)",
        convert=int,
        limits=(1, 10**6),
    )


class Roar(Evaluation):
    """Test performance of models that are trained and tested on masked data, against the level of masking."""

    Parameters = Level
    trains_on_masks = True
    splits: ClassVar[tuple[str, ...]] = SPLITS  # the splits whose tokens are explained and masked
    masks_at_random: ClassVar[bool] = False  # True: its one model is trained on data that are masked at random

    def canonical(self, config: Config) -> Config:
        """See `Evaluation.canonical`."""
        level: Level = config.parameters
        step = level.recursive_step_size or usual_step(level.roar_strategy)
        _check_percentage(level)
        trains_here = self.trains_on_masks and (level.k > 0 or self.masks_at_random)
        if trains_here and not config.recipe.is_trained:
            raise UserError(
                f"--as-is: {config.evaluation} trains models on masked data; choose a --metric that trains none,"
                " such as erasure or leave-one-out"
            )

        if level.k == 0:
            # No token is masked, and the strategy does not matter.
            return _without_measure(config, Level(roar_strategy=None, k=0))
        if level.roar_strategy == "quantile" and level.k == 100:
            # Every token is masked. The strategy stays, as 100 tokens of a long text are not all of them.
            return _without_measure(config, Level(roar_strategy="quantile", k=100))

        assert config.importance_measure is not None  # only the two kinds of runs above have none
        if level.recursive and MEASURES[config.importance_measure].reranks:
            _check_reached(level, step)
            parameters = replace(level, recursive_step_size=step)
        else:
            parameters = replace(level, recursive=False, recursive_step_size=None)
        return replace(config, parameters=parameters)

    def previous(self, config: Config) -> Config | None:
        """Return the run of the level that `config` builds on: its tokens are ranked on the masked data of that level.

        This is the level one step below for a recursive run, and k = 0 for any other run. Return None for a run that
        explains nothing.
        """
        if config.importance_measure is None:
            return None
        level: Level = config.parameters
        if not level.recursive:
            return config.with_parameters(k=0)
        assert level.recursive_step_size is not None
        return config.with_parameters(k=level.k - level.recursive_step_size)

    def needs(self, config: Config) -> list[Config]:
        """See `Evaluation.needs`. A run whose measure uses no model needs no other run."""
        explained = self.model_of(config)
        if explained is None:
            return []
        return [explained]

    def model_of(self, config: Config) -> Config | None:
        """Return the run whose model is explained; None for a measure that uses no model, or without a measure."""
        previous = self.previous(config)
        if previous is None or not MEASURES[str(config.importance_measure)].needs_model:
            return None
        return previous

    def compared(self, config: Config) -> list[Config]:
        """See `Evaluation.compared`: the unmasked run, with which every curve begins."""
        return [config.with_parameters(k=0)]

    def carry_out(self, config: Config, context: Context) -> Record:
        """See `Evaluation.carry_out`: explain, mask, train, test."""
        importance, masks = self.explain_and_mask(config, context)
        return self.train_and_test(config, context, masks, importance)

    def explain_and_mask(self, config: Config, context: Context) -> tuple[Importance | None, Masks]:
        """Compute the importance by which the tokens of a run are masked, and return it with the masks of the run.

        The importance is None for a run that explains nothing.
        """
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
    ) -> Record:
        """Train a model on the data with `masks`, save it, and return the record of the run."""
        model, trained = context.train(config, masks, self.masks_at_random)
        metrics = context.test(config, model, masks)
        weights = context.save(config, model, masks)
        return context.record(config, metrics, masks, trained, importance, weights)

    def importance(self, config: Config, context: Context) -> Importance | None:
        """See `Evaluation.importance`. The tokens are masked in the order of this importance."""
        previous = self.previous(config)
        if previous is None:
            return None
        masks_below = self.masks(previous, context)
        return context.importance(config, self.model_of(config), masks_below, self.splits)

    def masks(self, config: Config, context: Context) -> Masks:
        """Return which tokens are `[MASK]` in the data of `config`.

        A recursive run needs the masks of all levels below it. They are made from the lowest level up, and each level
        finds the one below it in the cache. A function that calls itself for the level below would exceed Python's
        limit of nested calls on a curve of a thousand levels.
        """
        curve = [config]
        previous = self.previous(config)
        while previous is not None:
            curve.append(previous)
            previous = self.previous(previous)
        curve.reverse()
        lowest = curve[0]
        masks = self._masks_of_lowest(lowest, context)
        for level in curve[1:]:
            masks = self._masks_of_level(level, masks, context)
        return masks

    def _masks_of_lowest(self, config: Config, context: Context) -> Masks:
        """Return the masks of a run that explains nothing: no token is masked at k = 0, and every token at k = 100."""
        level: Level = config.parameters
        if level.k == 0:
            return Masks.nothing(context.dataset)
        return Masks.everything(context.dataset)

    def _masks_of_level(self, config: Config, masks_below: Masks, context: Context) -> Masks:
        """Return the masks of a level. `masks_below` are those of the level that it builds on, see `previous`."""
        level: Level = config.parameters
        importance = context.importance(config, self.model_of(config), masks_below, self.splits)

        def make() -> Masks:
            of_split = dict(masks_below.of_split)
            for name in self.splits:
                split = context.dataset.splits[name]
                of_split[name] = mask_most_important(
                    importance.of_split[name].values,
                    split.maskable,
                    split.offsets,
                    str(level.roar_strategy),
                    level.k,
                    masks_below.of_split[name],
                    word_starts(config, split),
                )
            return Masks(of_split)

        key = {"importance": importance.digest, "strategy": level.roar_strategy, "k": level.k}
        return context.masks(config, key, make)

    def is_stale(self, config: Config, context: Context) -> bool:
        """See `Evaluation.is_stale`. A model is stale if the models of the levels below now lead to other masks."""
        dataset_digest, masks_digest = context.trained_on(config)
        if dataset_digest != context.dataset.digest:
            problem = f"{context.layout.checkpoint(config)} was trained on data that differ from the current ones"
            raise UserError(f"{problem}; train it again: {config.command()} --overwrite")
        if masks_digest is None:  # the weights are gone, and a record of an earlier version does not tell
            return False
        return masks_digest != self.masks(config, context).digest

    def name_parts(self, config: Config) -> list[str]:
        """See `Evaluation.name_parts`: k the level, y the strategy, m the measure, r recursive or not, st the step."""
        level: Level = config.parameters
        parts = [f"k-{level.k}"]
        if level.roar_strategy is not None:
            parts.append(f"y-{level.roar_strategy}")
        if config.importance_measure is not None:
            parts.append(f"m-{config.importance_measure}")
            parts.append(f"r-{int(level.recursive)}")
        if level.unit != TOKEN:
            parts.append(f"u-{level.unit}")
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
        return [*words, *words_of_unit(config)]

    def title(self, values: Mapping[str, Any]) -> str:
        """See `Evaluation.title`."""
        return with_unit("Recursive ROAR" if values["recursive"] else "ROAR", values)

    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """See `Evaluation.base`: the run without masks and, in a study of quantiles, that with everything masked."""
        yield grid.config(dataset, seed, k=0)
        if "quantile" in grid.strategies:
            yield grid.config(dataset, seed, roar_strategy="quantile", k=100)

    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """See `Evaluation.chains`: for each strategy a curve of ROAR, of Recursive ROAR, or both, by rising level."""
        for strategy in grid.strategies:
            for recursive in grid.kinds:
                yield self._curve(grid, dataset, seed, measure, strategy, recursive)

    def _curve(
        self,
        grid: Grid,
        dataset: str,
        seed: int,
        measure: str,
        strategy: str,
        recursive: bool,
    ) -> list[Config]:
        """Return the runs of one curve, by rising level, without those that `base` yields.

        A recursive curve has every level up to the highest one that the study names, as each needs the one below it.
        """
        levels = sorted(set(self.levels(grid, strategy)) - {0})
        if strategy == "quantile":
            levels = [k for k in levels if k != 100]  # that run belongs to `base`, and nothing recurses to it
        if not levels:
            return []
        # By default, recursion takes the largest step that reaches every level that is named.
        step = grid.flags.get("recursive_step_size") or gcd(*levels)
        # Where the step does not reach a level that is named, `canonical` raises a UserError that names this level.
        if recursive and MEASURES[measure].reranks and all(k % step == 0 for k in levels):
            highest = levels[-1]
            advice = "name other --k, or a larger --recursive-step-size"
            check_number_of_levels(highest // step, advice)
            levels = list(range(step, highest + 1, step))
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
            runs.append(run)
        return runs

    def levels(self, grid: Grid, strategy: str) -> Sequence[int]:
        """Return the levels that a study names, by default those of the paper.

        Raises UserError if there are none between `--step` and `--max-k`, or too many.
        """
        if grid.levels is not None:
            check_number_of_levels(len(grid.levels), "name fewer --k")
            return grid.levels
        step = grid.step or _USUAL_STEP[strategy]
        highest = grid.max_k or _USUAL_HIGHEST[strategy]
        if highest < step:
            raise UserError(f"--max-k {highest} is below --step {step}: there is no level between")
        check_number_of_levels(highest // step, "choose a larger --step or a smaller --max-k")
        return range(step, highest + 1, step)


def _check_percentage(level: Level) -> None:
    """Raise UserError for a percentage above 100."""
    if level.roar_strategy == "quantile" and level.k > 100:
        raise UserError(f"--k {level.k} with --roar-strategy quantile: a percentage is at most 100")


def _check_reached(level: Level, step: int) -> None:
    """Raise UserError for a level that recursion by `step` does not reach."""
    if level.k % step != 0:
        problem = f"--k {level.k} cannot be reached by --recursive-step-size {step}"
        raise UserError(f"{problem}: choose a multiple of it")
    check_number_of_levels(level.k // step, "choose a larger --recursive-step-size")


def _without_measure(config: Config, level: Level) -> Config:
    """Return the run at `level` without what decides an order of the tokens: its measure and its transform."""
    return replace(
        config,
        parameters=level,
        importance_measure=None,
        measure=None,
        transform=UNCHANGED,
    )


def check_number_of_levels(number: int, advice: str) -> None:
    """Raise UserError with `advice` if a curve has more than `MOST_LEVELS` levels."""
    if number > MOST_LEVELS:
        problem = f"these are {number:,} levels, and each is a training"
        raise UserError(f"{problem}; {advice} (at most {MOST_LEVELS:,})")


def usual_step(strategy: str | None) -> int:
    """Return the distance between the levels of Recursive ROAR if none is given. `strategy` is None at k = 0."""
    if strategy is None:
        return 1
    return _USUAL_STEP[strategy]
