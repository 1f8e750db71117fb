"""The configuration of a run: what is asked for, under one name. Imports no torch.

A run is described by its task, a model with its training recipe, an importance measure with its parameters, and an
evaluation with its parameters. `resolve` makes a `Config` from flags and puts it into its canonical form, so that two
ways to ask for the same numbers give the same configuration, and with it the same identity and the same id.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.dataset import TASKS, load_task
from nlproar.dataset.task import Task
from nlproar.dataset.truth import rule_of
from nlproar.errors import UserError
from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.evaluate.evaluation import Evaluation
from nlproar.explain import ALIASES, MEASURES
from nlproar.explain.transform import UNCHANGED, Transform
from nlproar.flags import changed, check, choose, flag, flags_of, spelled, values_of
from nlproar.model import MODELS, model_named
from nlproar.model.recipes import BiLSTMRecipe, Recipe
from nlproar.paths import user_path
from nlproar.run.layout import Layout

SCHEMA = 2  # Raise it when a default changes, or when the same values come to mean other numbers.


DEFAULT_MODEL, DEFAULT_EVALUATION = "rnn", "roar"
PRETRAINED = "transformer"  # the type of the models that --model names
DEFAULT_MEASURE = "attention"  # as in the published code


@dataclass(frozen=True)
class Seed:
    """The seed of a run, from which a seed for each purpose is derived (`nlproar.seeds`)."""

    seed: int = flag(0, "seed of initialisation, order and random choices", limits=(0, 2**31))


@dataclass(frozen=True)
class Options:
    """What changes how a run is carried out and none of its numbers, but for the last bits on another device."""

    persistent_dir: str | None = flag(
        None,
        "data, caches and results (default: $NLPROAR_PERSISTENT_DIR, $SCRATCH/nlproar, ./persistent)",
        metavar="DIR",
    )
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, ...")
    num_workers: int = flag(2, "processes that tokenize large data", limits=(0, 1000))
    threads: int | None = flag(
        None, "threads of the process (default: $OMP_NUM_THREADS, or all cores)", convert=int, limits=(1, 10_000)
    )
    plugin: str | None = flag(
        None, "Python file that registers measures, tasks, models or metrics of your own", metavar="FILE"
    )
    tensorboard: bool = flag(False, "write loss and validation metrics of every epoch for TensorBoard")
    train_missing: bool = flag(False, "first train the models this run has to explain")
    overwrite: bool = flag(False, "run again what is done already")


def all_but(*names: str) -> list[str]:
    """Return the options that are not among `names`, for scripts that have only some of them."""
    return [name for name in flags_of(Options) if name not in names]


@dataclass(frozen=True)
class Config:
    """One run, as `resolve` returns it.

    `parameters` belong to the evaluation, `measure` to the importance measure; each is an instance of the dataclass
    that is declared beside it. `importance_measure` is None for a run that explains nothing.
    """

    dataset: str
    source: str
    seed: int
    model_type: str
    recipe: Recipe
    evaluation: str
    parameters: Any
    importance_measure: str | None
    measure: Any
    options: Options
    transform: Transform = UNCHANGED  # of the importance

    @property
    def task(self) -> Task:
        """What the data set declares about itself."""
        return load_task(self.dataset)

    @property
    def rules(self) -> Evaluation:
        """The evaluation, which knows what this run needs and how it is carried out."""
        return load_evaluation(self.evaluation)

    @property
    def usual_recipe(self) -> Recipe:
        """The recipe from which that of this run differs by what was chosen for it."""
        return self.recipe.usual_like(MODELS[self.model_type].recipe(self.task))

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of this run: the schema and the values that differ from its defaults.

        A flag that is added with a default therefore renames no run that is done. A measure whose values have changed
        since its first version is another measure.
        """
        identity = {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "source": self.source,
            "seed": self.seed,
            "model_type": self.model_type,
            "recipe": changed(self.recipe, self.usual_recipe),
            "evaluation": self.evaluation,
            "parameters": changed(self.parameters, self.rules.Parameters()),
            "importance_measure": self.importance_measure,
            "measure": {**self.measure_changes, **changed(self.transform, UNCHANGED)},
        }
        version = measure_version(self.importance_measure)
        if version != 1:
            identity["measure_version"] = version
        return identity

    @property
    def measure_changes(self) -> dict[str, Any]:
        """The parameters of the measure that differ from their defaults."""
        return changed(self.measure, usual_measure(self.importance_measure))

    @cached_property
    def id(self) -> str:
        """The name of the run in files: readable, with a hash of the whole identity."""
        parts = [self.dataset if self.source == "official" else f"{self.dataset}-{self.source}"]
        parts.append(self.model_type)
        parts.append(f"s-{self.seed}")
        parts += self.rules.name_parts(self)
        return "_".join(parts) + "-" + storage.digest(self.identity)[:8]

    @property
    def values(self) -> dict[str, Any]:
        """Every value of the run by the name of its flag, defaults included: what a record and a table show."""
        return {
            "dataset": self.dataset,
            "source": self.source,
            "seed": self.seed,
            "model_type": self.model_type,
            **values_of(self.recipe),
            "evaluation": self.evaluation,
            **values_of(self.parameters),
            "importance_measure": self.importance_measure,
            **values_of(self.measure),
            **values_of(self.transform),
        }

    def with_parameters(self, **changes: Any) -> Config:
        """Return the run with other parameters of its evaluation, in canonical form."""
        other = replace(self, parameters=replace(self.parameters, **changes))
        return other.rules.canonical(other)

    @property
    def at_level(self) -> int:
        """Where the run stands on its curve: k. A run of an evaluation without curves is at 0."""
        level = self.rules.level
        return 0 if level is None else int(getattr(self.parameters, level))

    def needs(self) -> list[Config]:
        """Return the runs whose models this run looks at. They have to be done before it."""
        return self.rules.needs(self)

    def command(self) -> str:
        """Return a command line that is this run."""
        return command_line(self.arguments())

    def arguments(self, levels: Sequence[int] = ()) -> list[str]:
        """Return script and flags of this run, or of the runs at all `levels` of its curve."""
        words = self._program()
        if self.source != "official":
            words += ["--source", self.source]
        if self.seed:
            words += ["--seed", str(self.seed)]
        if self.model_type != DEFAULT_MODEL:
            words += ["--model-type", self.model_type]
        if self.evaluation != DEFAULT_EVALUATION:
            words += ["--metric", self.evaluation]
        if self.importance_measure is not None:
            words += ["--importance-measure", self.importance_measure]
        for name, value in self._changed(levels).items():
            words += _words(spelled(name), value)
        return words

    def _program(self) -> list[str]:
        """Return the words before the flags: the script of the task if it lies beside the one that runs now, as the
        user sees it from where they are, else `nlproar run`."""
        if self.task.command:
            script, *choice = self.task.command.split()
            called = Path(sys.argv[0]).parent / Path(script).name
            if called.is_file():
                return [str(called), *choice]
        return ["-m", "nlproar", "run", "--dataset", self.dataset]

    def _changed(self, levels: Sequence[int]) -> dict[str, Any]:
        """Return the flags of the parts of this run that differ from their defaults."""
        values: dict[str, Any] = changed(self.parameters, self.rules.Parameters())
        if levels and self.rules.level is not None:
            values[self.rules.level] = levels
        values |= self.measure_changes
        values |= changed(self.transform, UNCHANGED)
        values |= changed(self.recipe, self.usual_recipe)
        values |= self.recipe.paths()
        values |= changed(replace(self.options, train_missing=False, overwrite=False), Options())
        return values


def command_line(arguments: Sequence[str]) -> str:
    """Return what a user types for the `arguments` of a run: "python SCRIPT ..." or "nlproar run ..."."""
    if list(arguments[:2]) == ["-m", "nlproar"]:
        return shlex.join(["nlproar", *arguments[2:]])
    return shlex.join(["python", *arguments])


def _words(flag_name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a flag its value."""
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag_name if value else flag_name.replace("--", "--no-", 1)]
    if isinstance(value, (list, tuple)):
        return [flag_name, *map(str, value)]
    if str(value).startswith("-"):
        return [f"{flag_name}={value}"]
    return [flag_name, str(value)]


def usual_measure(name: str | None) -> Any:
    """Return the parameters of a measure with their defaults; None for a measure that has none."""
    parameters = None if name is None else MEASURES[name].parameters
    return None if parameters is None else parameters()


def measure_version(name: str | None) -> int:
    """Return the version of the values of a measure; 1 for no measure, and for one that is not registered here."""
    return MEASURES[name].version if name in MEASURES else 1


def resolve(dataset: str, source: str = "official", **flags: Any) -> Config:
    """Return the run that `flags` ask for: names of flags, of which None stands for the default.

    A parameter of another measure, model or evaluation than the chosen one is not used, so that one set of flags can
    stand for a whole study. Raises UserError for what cannot be.
    """
    if dataset not in TASKS:
        raise UserError(f"unknown data set {dataset!r}; there are {', '.join(TASKS)}")
    task = load_task(dataset)
    if source not in task.sources:
        raise UserError(f"{dataset} has no source {source!r}; there are {', '.join(task.sources)}")
    given = {name: value for name, value in flags.items() if value is not None}
    _check_given(given)
    usual_type = PRETRAINED if "model" in given else DEFAULT_MODEL
    model_type = _registered("--model-type", model_named(given.get("model_type", usual_type)), MODELS)
    evaluation = _registered("--metric", given.get("evaluation", DEFAULT_EVALUATION), EVALUATIONS)
    measure = given.get("importance_measure", DEFAULT_MEASURE)
    measure = _registered("--importance-measure", ALIASES.get(measure, measure), MEASURES)
    rules = load_evaluation(evaluation)
    if MEASURES[measure].role == "truth" or rules.needs_truth:
        _check_truth(task, model_type)
    options = _checked(choose(Options(), given))
    config = Config(
        dataset=dataset,
        source=source,
        seed=choose(Seed(), given).seed,
        model_type=model_type,
        recipe=choose(MODELS[model_type].recipe(task), given).completed(Layout.at(options.persistent_dir)),
        evaluation=evaluation,
        parameters=choose(rules.Parameters(), given),
        importance_measure=measure,
        measure=choose(usual_measure(measure), given),
        options=options,
        transform=UNCHANGED if measure == "random" else choose(UNCHANGED, given),  # changed or not, it is random
    )
    return rules.canonical(config)


def from_identity(identity: Mapping[str, Any]) -> Config:
    """Return the run that has this identity. Raises UserError if no run has it, as far as is known here."""
    if identity["schema"] != SCHEMA:
        raise UserError(f"its identity is of schema {identity['schema']!r}, and this program knows {SCHEMA}")
    flags = {**identity["recipe"], **identity["parameters"], **identity["measure"]}
    vectors = flags.pop("vectors", None)  # a file of vectors is named by its content, and need not be here
    for name in ("seed", "model_type", "evaluation", "importance_measure"):
        flags[name] = identity[name]
    try:
        config = resolve(identity["dataset"], identity["source"], **flags)
    except TypeError as error:
        raise UserError(f"its configuration is not known here ({error})") from error
    if isinstance(vectors, str) and isinstance(config.recipe, BiLSTMRecipe):
        config = replace(config, recipe=replace(config.recipe, vectors=vectors))
    if config.identity != dict(identity):
        raise UserError("no run has this combination of level, strategy, measure and parameters")
    return config


def _check_given(given: Mapping[str, Any]) -> None:
    """Raise UserError for a value that its flag does not allow, also where the run has no use for the flag."""
    known = {"model_type", "evaluation", "importance_measure"}
    for one in declaring():
        check(one, given)
        known |= set(flags_of(one))
    unknown = set(given) - known
    if unknown:
        raise TypeError(f"resolve() got unknown flags: {', '.join(sorted(unknown))}")


def _checked(options: Options) -> Options:
    """Return the options with paths as the system takes them. Raises UserError for what would break a line of a log."""
    if not options.device.isprintable():
        raise UserError(f"--device {options.device!r}: choose auto, cpu, cuda, cuda:1, ...")
    if options.persistent_dir is None:
        return options
    return replace(options, persistent_dir=user_path("--persistent-dir", options.persistent_dir))


def _check_truth(task: Task, model_type: str) -> None:
    """Raise UserError where it is not known which of the tokens that a model reads are informative."""
    rule_of(task)
    if not MODELS[model_type].recipe_type.reads_words:
        raise UserError(
            f"the informative tokens of {task.name} are known by words, and a {model_type} reads other tokens; choose"
            f" --model-type {DEFAULT_MODEL}"
        )


def _registered(flag_name: str, name: str, registry: Mapping[str, Any]) -> str:
    """Return `name` if it is in the registry. Raises UserError, naming the flag, if it is not."""
    if name not in registry:
        raise UserError(f"{flag_name} {name}: choose from {', '.join(registry)}")
    return name


def declaring() -> list[type]:
    """Return every dataclass that declares flags: those of all measures, models and evaluations that are registered."""
    found: list[type] = [Seed]
    found += [type(load_evaluation(name).Parameters()) for name in EVALUATIONS]
    found += [measure.parameters for measure in MEASURES.values() if measure.parameters is not None]
    found.append(Transform)
    found += [model.recipe_type for model in MODELS.values()]
    found.append(Options)
    return list(dict.fromkeys(found))


def known_flags() -> set[str]:
    """Return the name of every flag that a run can have."""
    names = {"model_type", "evaluation", "importance_measure"}
    for one in declaring():
        names |= set(flags_of(one))
    return names
