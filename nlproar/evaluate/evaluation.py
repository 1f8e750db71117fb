"""What an evaluation has to say about its runs. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from nlproar.explain.importance import Importance
    from nlproar.run.config import Config
    from nlproar.run.context import Context
    from nlproar.run.record import Record
    from nlproar.study.grid import Grid


class Evaluation(ABC):
    """A faithfulness metric: which runs it consists of, what each of them needs, and what a run computes.

    A subclass is registered in `nlproar.evaluate.EVALUATIONS`. Its module must not import torch when it is imported:
    the command line, a dry run of a study and the report all ask evaluations about runs without carrying one out.
    """

    Parameters: ClassVar[type]  # a frozen dataclass whose fields are flags, see `nlproar.flags`
    level: ClassVar[str | None] = "k"  # the parameter by which the points of a curve differ; None without curves
    version: ClassVar[int] = 1  # raise it when the numbers of the same configuration change: it is another run then
    shares_base_of: ClassVar[str | None] = None  # the evaluation whose shared runs begin its curves, if not its own

    trains_on_masks: ClassVar[bool] = False  # True: it trains models on masked data, so not with --as-is
    needs_truth: ClassVar[bool] = False  # True: only for tasks whose informative tokens are known
    slow: ClassVar[bool] = False  # True: a study has it only if it is named

    # Test metrics of a record that score its measure, and whether a higher value means more faithful. Curves are scored
    # by their RACU instead.
    scores: ClassVar[Mapping[str, bool]] = {}

    @abstractmethod
    def canonical(self, config: Config) -> Config:
        """Return the same run without values that cannot change its numbers. Raises UserError for what cannot be.

        For example, all measures share the run in which nothing is masked, so that run has no measure.
        """

    @abstractmethod
    def needs(self, config: Config) -> list[Config]:
        """Return the runs whose models `config` looks at, which have to be done before it."""

    @abstractmethod
    def carry_out(self, config: Config, context: Context) -> Record:
        """Compute the run and return its record, see `Context.record`. The caller holds the lock of the run."""

    @abstractmethod
    def base(self, grid: Grid, dataset: str, seed: int) -> Iterator[Config]:
        """Yield the runs of one task and seed that all measures share, in the order in which they are carried out."""

    @abstractmethod
    def chains(self, grid: Grid, dataset: str, seed: int, measure: str) -> Iterator[list[Config]]:
        """Yield the curves of one task, seed and measure: lists of runs, each carried out in order by one process."""

    def compared(self, config: Config) -> list[Config]:
        """Return runs that `config` is compared with, which must start from the same files even if it does not need
        their models."""
        return []

    def importance(self, config: Config, context: Context) -> Importance | None:
        """Return the importance that the run looks at; None for a run that explains nothing."""
        return None

    def is_stale(self, config: Config, context: Context) -> bool:
        """Return whether the model of a finished run was trained on other data than it would be now."""
        return False

    def name_parts(self, config: Config) -> list[str]:
        """Return the readable parts of the name of a run that follow its seed."""
        parts = [config.evaluation]
        if config.importance_measure is not None:
            parts.append(f"m-{config.importance_measure}")
        return parts

    def describe(self, config: Config) -> list[str]:
        """Return the words that tell a curve from the others of its task and seed: "gradient", "recursive"."""
        return [config.importance_measure or "base"]

    def base_of(self, values: Mapping[str, Any]) -> str:
        """Return the evaluation whose shared runs a run with these values of a configuration builds on."""
        return self.shares_base_of or str(values["evaluation"])

    def title(self, values: Mapping[str, Any]) -> str:
        """Return what a reader calls this evaluation with these values of a configuration: "Recursive ROAR"."""
        return str(values["evaluation"])
