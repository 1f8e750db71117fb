"""The configuration of a run, and the names under which its results are kept. Imports no torch.

A run is described by its task, a model with its training recipe, an importance measure with its parameters, and an
evaluation with its parameters. `resolve` makes a `Config` from flags and puts it into its canonical form, so that two
ways to ask for the same numbers give the same configuration, and with it the same identity and the same id.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nlproar import plugins, storage
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
from nlproar.paths import check_name, user_path
from nlproar.run.layout import Layout

# Raise this when a default changes, or when the same values lead to other numbers.
SCHEMA = 2

DEFAULT_MODEL = "rnn"
DEFAULT_EVALUATION = "roar"
DEFAULT_MEASURE = "attention"  # as in the published code
PRETRAINED = "transformer"  # the model type if --model names a pretrained model
_USUAL_DIRECTORIES = "$NLPROAR_PERSISTENT_DIR, $SCRATCH/nlproar, ./persistent"


@dataclass(frozen=True)
class Seed:
    """The seed of a run, from which a seed for each purpose is derived (`nlproar.seeds`)."""

    seed: int = flag(
        0,
        "seed of the initialisation, the order of the batches, dropout and other random choices; the data and the"
        " splits do not depend on it",
        limits=(0, 2**31),
    )


@dataclass(frozen=True)
class Options:
    """Settings of how a run is carried out, which are no part of its identity.

    The device and the number of threads can change the rounding in training, and with it the results.
    """

    persistent_dir: str | None = flag(
        None,
        f"data, caches and results (default: {_USUAL_DIRECTORIES})",
        metavar="DIR",
    )
    device: str = flag("auto", "auto, cpu, cuda, cuda:1, ...")
    num_workers: int = flag(2, "processes that tokenize large data", limits=(0, 1000))
    threads: int | None = flag(
        None,
        "threads of the process (default: $OMP_NUM_THREADS, or all cores)",
        convert=int,
        limits=(1, 10_000),
    )
    plugin: str | None = flag(
        None,
        "Python file that registers measures, tasks, models or metrics of your own",
        metavar="FILE",
    )
    tensorboard: bool = flag(
        False,
        "write loss and validation metrics of every epoch for TensorBoard",
    )
    train_missing: bool = flag(False, "first train the models this run has to explain")
    overwrite: bool = flag(
        False, "run again even if a record exists; the old record is kept until the new one is written"
    )


def all_but(*names: str) -> list[str]:
    """Return the options that are not among `names`, for scripts that have only some of them."""
    return [name for name in flags_of(Options) if name not in names]


@dataclass(frozen=True)
class Config:
    """The configuration of one run, in the canonical form in which `resolve` returns it.

    `recipe`, `parameters` and `measure` are instances of the dataclasses that are declared beside the model, the
    evaluation and the importance measure.
    """

    dataset: str  # name of the task
    source: str  # where its data come from: "official" or another source of the task
    seed: int
    model_type: str
    recipe: Recipe  # how the model is built and trained
    evaluation: str  # name of the metric
    parameters: Any  # of the evaluation
    importance_measure: str | None  # name of the measure; None for a run that explains nothing
    measure: Any  # the parameters of the measure; None if it has none
    options: Options
    transform: Transform = UNCHANGED  # of the importance

    @property
    def task(self) -> Task:
        """The declaration of the task."""
        return load_task(self.dataset)

    @property
    def rules(self) -> Evaluation:
        """The evaluation of this run, which knows what the run needs and how it is carried out."""
        return load_evaluation(self.evaluation)

    @property
    def usual_recipe(self) -> Recipe:
        """The recipe that this run would have if the user had chosen no value of it."""
        recipe_of_task = MODELS[self.model_type].recipe(self.task)
        return self.recipe.usual_like(recipe_of_task)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of this run, as values that JSON can hold.

        Of the recipe, the parameters and the measure it has only the values that differ from their defaults. Therefore
        a new flag, with a default, renames no run that is done. The parameters of the transform stand with those of the
        measure. The version of a measure, and that of an evaluation, is part of the identity if its numbers have
        changed since its first version.
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
        if self.rules.version != 1:
            identity["evaluation_version"] = self.rules.version
        return identity

    @property
    def measure_changes(self) -> dict[str, Any]:
        """The parameters of the measure that differ from their defaults."""
        return changed(self.measure, usual_measure(self.importance_measure))

    @cached_property
    def id(self) -> str:
        """The name of the run in files: a readable part, and the beginning of a hash of the identity."""
        data = self.dataset
        if self.source != "official":
            data = f"{self.dataset}-{self.source}"
        parts = [data, self.model_type, f"s-{self.seed}"]
        parts += self.rules.name_parts(self)
        name = "_".join(parts)
        return f"{name}-{storage.digest(self.identity)[:8]}"

    @property
    def values(self) -> dict[str, Any]:
        """Every value of the run by the name of its flag, defaults included. Records and tables show them."""
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
        parameters = replace(self.parameters, **changes)
        other = replace(self, parameters=parameters)
        return other.rules.canonical(other)

    @property
    def at_level(self) -> int:
        """The level k of the run on its curve; 0 for an evaluation without curves."""
        level = self.rules.level
        if level is None:
            return 0
        return int(getattr(self.parameters, level))

    def needs(self) -> list[Config]:
        """Return the runs whose models this run explains or tests. They have to be done before it."""
        return self.rules.needs(self)

    def command(self) -> str:
        """Return the command line that carries out this run."""
        return command_line(self.arguments())

    def arguments(self, levels: Sequence[int] = ()) -> list[str]:
        """Return the script and the flags of this run. With `levels` they are those of its curve at these levels."""
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
            words += _flag_words(spelled(name), value)
        return words

    def _program(self) -> list[str]:
        """Return the words before the flags: those of the script of the task, or of `nlproar run`.

        The script is used if it is in the folder of the script that runs now. Its path is relative to the current
        folder, as that of the running script is.
        """
        if self.task.command:
            script, *words = self.task.command.split()
            path = Path(sys.argv[0]).parent / Path(script).name
            if path.is_file():
                return [str(path), *words]
        return ["-m", "nlproar", "run", "--dataset", self.dataset]

    def _changed(self, levels: Sequence[int]) -> dict[str, Any]:
        """Return the flags with values that differ from their defaults: name -> value.

        With `levels` the flag of the level has all of them. The flags that say what to do with missing and finished
        runs are left out.
        """
        values: dict[str, Any] = changed(self.parameters, self.rules.Parameters())
        if levels and self.rules.level is not None:
            values[self.rules.level] = levels
        values |= self.measure_changes
        values |= changed(self.transform, UNCHANGED)
        values |= changed(self.recipe, self.usual_recipe)
        values |= self.recipe.paths()
        options = replace(self.options, train_missing=False, overwrite=False)
        values |= changed(options, Options())
        return values


def command_line(arguments: Sequence[str]) -> str:
    """Return the command line for the `arguments` of a run: "python SCRIPT ..." or "nlproar run ..."."""
    if list(arguments[:2]) == ["-m", "nlproar"]:
        return shlex.join(["nlproar", *arguments[2:]])
    return shlex.join(["python", *arguments])


def _flag_words(flag_name: str, value: Any) -> list[str]:
    """Return the words of a command line that give a flag its value."""
    if value is None:
        return []
    if value is True:
        return [flag_name]
    if value is False:
        return [flag_name.replace("--", "--no-", 1)]
    if isinstance(value, (list, tuple)):
        return [flag_name, *map(str, value)]
    if str(value).startswith("-"):
        # As a word of its own, the value would be taken for a flag.
        return [f"{flag_name}={value}"]
    return [flag_name, str(value)]


def usual_measure(name: str | None) -> Any:
    """Return the parameters of a measure with their defaults; None without a measure, or if it has no parameters."""
    if name is None:
        return None
    parameters_class = MEASURES[name].parameters
    if parameters_class is None:
        return None
    return parameters_class()


def measure_version(name: str | None) -> int:
    """Return the version of the values of a measure; 1 for no measure, and for one that is not registered here."""
    if name not in MEASURES:
        return 1
    return MEASURES[name].version


def resolve(dataset: str, source: str = "official", **flags: Any) -> Config:
    """Return the run with these flags. A flag that is missing or None has its default.

    A flag that belongs to another measure, model or evaluation than the chosen one is ignored, so that the same flags
    can be used for all runs of a study. Raises UserError for values that are not allowed or cannot be combined, and
    TypeError for the name of a flag that does not exist.
    """
    if flags.get("plugin") is not None:  # on the command line it is loaded already
        plugins.load_all(os.fspath(flags["plugin"]))
    task = _chosen_task(dataset, source)
    given = {name: value for name, value in flags.items() if value is not None}
    _check_given(given)
    model_type = chosen_model_type(given)
    evaluation = given.get("evaluation", DEFAULT_EVALUATION)
    evaluation = _registered("--metric", evaluation, EVALUATIONS)
    measure = _chosen_measure(given)
    rules = load_evaluation(evaluation)
    if MEASURES[measure].role == "truth" or rules.needs_truth:
        _check_truth(task, model_type)
    options = _checked(choose(Options(), given))
    seed = choose(Seed(), given).seed
    given = _without_training(given, model_type)
    recipe = choose(MODELS[model_type].recipe(task), given)
    recipe = recipe.completed(Layout.at(options.persistent_dir))
    if recipe.reads_words:
        given.pop("unit", None)  # its tokens are words, so both units are the same run
    parameters = choose(rules.Parameters(), given)
    measure_parameters = choose(usual_measure(measure), given)
    transform = UNCHANGED
    if measure != "random":  # random importance stays random whatever is done to it
        transform = choose(UNCHANGED, given)
    asked = Config(
        dataset=dataset,
        source=source,
        seed=seed,
        model_type=model_type,
        recipe=recipe,
        evaluation=evaluation,
        parameters=parameters,
        importance_measure=measure,
        measure=measure_parameters,
        options=options,
        transform=transform,
    )
    config = rules.canonical(asked)
    # A run that explains nothing, such as that of k = 0, has no measure, whatever was asked for.
    if config.importance_measure in MODELS[model_type].lacks:
        raise UserError(f"--importance-measure {measure} does not explain a model of --model-type {model_type}")
    return config


def _without_training(given: Mapping[str, Any], model_type: str) -> dict[str, Any]:
    """Return the flags without those of a training where there is none. Raises UserError for a model that needs one."""
    if not given.get("as_is", False):
        return dict(given)
    recipe_type = MODELS[model_type].recipe_type
    if "as_is" not in flags_of(recipe_type):
        raise UserError("--as-is: name the model that is used as it is with --model")
    return {name: value for name, value in given.items() if name not in recipe_type.of_training}


def _chosen_task(dataset: str, source: str) -> Task:
    """Return the task of this name. Raises UserError if there is none, or if it has no such source."""
    if dataset not in TASKS:
        raise UserError(f"unknown data set {dataset!r}; there are {', '.join(TASKS)}")
    task = load_task(dataset)
    if source not in task.sources:
        raise UserError(f"{dataset} has no source {source!r}; there are {', '.join(task.sources)}")
    return task


def chosen_model_type(given: Mapping[str, Any]) -> str:
    """Return the model type that the flags choose: by default the BiLSTM, or the pretrained model of --model."""
    usual = PRETRAINED if "model" in given else DEFAULT_MODEL
    name = model_named(given.get("model_type", usual))
    return _registered("--model-type", name, MODELS)


def _chosen_measure(given: Mapping[str, Any]) -> str:
    """Return the importance measure that the flags choose, by its own name if they have an alias."""
    name = given.get("importance_measure", DEFAULT_MEASURE)
    return _registered("--importance-measure", ALIASES.get(name, name), MEASURES)


def from_identity(identity: Mapping[str, Any]) -> Config:
    """Return the run that has this identity.

    Raises UserError if no run of this program has it: the program may be of another version, or a plugin is missing.
    """
    if identity["schema"] != SCHEMA:
        schema = identity["schema"]
        raise UserError(f"its identity is of schema {schema!r}, and this program knows {SCHEMA}")
    flags = {**identity["recipe"], **identity["parameters"], **identity["measure"]}
    # An identity names a file of vectors by its content. `resolve` would look for a file of this name.
    vectors = flags.pop("vectors", None)
    for name in ("seed", "model_type", "evaluation", "importance_measure"):
        flags[name] = identity[name]
    unknown = set(flags) - known_flags()
    if unknown:
        raise UserError(f"its configuration is not known here: {', '.join(sorted(unknown))}")
    config = resolve(identity["dataset"], identity["source"], **flags)
    if isinstance(vectors, str) and isinstance(config.recipe, BiLSTMRecipe):
        config = replace(config, recipe=replace(config.recipe, vectors=vectors))
    if config.identity != dict(identity):
        raise UserError("no run has this combination of level, strategy, measure and parameters")
    return config


def _check_given(given: Mapping[str, Any]) -> None:
    """Raise UserError for a value that its flag does not allow, also if the run does not use the flag.

    Raises TypeError for the name of a flag that does not exist.
    """
    for dataclass_with_flags in declaring():
        check(dataclass_with_flags, given)
    unknown = set(given) - known_flags()
    if unknown:
        raise TypeError(f"resolve() got unknown flags: {', '.join(sorted(unknown))}")


def _checked(options: Options) -> Options:
    """Return the options with the persistent directory as a path of the system.

    Raises UserError for a directory that cannot be one, and for a device that would break a line of the log.
    """
    if not options.device.isprintable():
        raise UserError(f"--device {options.device!r}: choose auto, cpu, cuda, cuda:1, ...")
    if options.persistent_dir is None:
        return options
    persistent_dir = user_path("--persistent-dir", options.persistent_dir)
    return replace(options, persistent_dir=persistent_dir)


def _check_truth(task: Task, model_type: str) -> None:
    """Raise UserError if it is not known which of the tokens that a model reads are informative."""
    rule_of(task)  # raises it for a task without such a rule
    if not MODELS[model_type].recipe_type.reads_words:
        raise UserError(
            f"the informative tokens of {task.name} are known by words, and a {model_type} reads"
            f" other tokens; choose --model-type {DEFAULT_MODEL}"
        )


def _registered(flag_name: str, name: str, registry: Mapping[str, Any]) -> str:
    """Return `name` if it is in the registry, else raise UserError, which names the flag."""
    if name not in registry:
        raise UserError(f"{flag_name} {name}: choose from {', '.join(registry)}")
    check_name(flag_name, name)
    return name


def declaring() -> list[type]:
    """Return the dataclasses that declare flags: those of all measures, models and evaluations that are registered."""
    classes: list[type] = [Seed]
    for name in EVALUATIONS:
        parameters = load_evaluation(name).Parameters()
        classes.append(type(parameters))
    for measure in MEASURES.values():
        if measure.parameters is not None:
            classes.append(measure.parameters)
    classes.append(Transform)
    for model in MODELS.values():
        classes.append(model.recipe_type)
    classes.append(Options)
    return list(dict.fromkeys(classes))  # without repetitions, in the same order


def known_flags() -> set[str]:
    """Return the name of every flag that a run can have."""
    names = {"model_type", "evaluation", "importance_measure"}
    for dataclass_with_flags in declaring():
        names |= set(flags_of(dataclass_with_flags))
    return names
