"""The command line of one run, or of the runs at several levels of a curve. Imports no torch until a run starts."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from nlproar import plugins, process
from nlproar.dataset import TASKS, load_task
from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.explain import ALIASES, MEASURES
from nlproar.flags import add_flags
from nlproar.model import MODELS, model_named
from nlproar.published import DATASETS, in_our_words
from nlproar.run.config import DEFAULT_EVALUATION, DEFAULT_MEASURE, DEFAULT_MODEL, Config, declaring, resolve
from nlproar.script import Parser, exit_codes

Choice = tuple[str, Mapping[str, str]]  # a flag, and the task behind each of its values


def measure_named(name: str) -> str:
    """Return the name of a measure, also from the name that it has in the published code."""
    return ALIASES.get(name, name)


def add_model_type(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flag that chooses the kind of model."""
    parser.add_argument(
        "--model-type",
        type=model_named,
        choices=tuple(MODELS),
        default=argparse.SUPPRESS,
        help=f"the model (default: {DEFAULT_MODEL}, or transformer where --model is given)",
    )


def add_source(parser: argparse.ArgumentParser) -> None:
    """Give a parser that takes any task the flag that chooses where its data come from."""
    tasks: dict[str, list[str]] = {}
    for name in TASKS:
        for source in load_task(name).sources:
            tasks.setdefault(source, []).append(name)
    del tasks["official"]  # every task has it
    others = [f"{source} (only {', '.join(names)})" for source, names in tasks.items()]
    text = f"where the data come from: {', '.join(['official (default)', *others])}"
    parser.add_argument("--source", default="official", metavar="SOURCE", help=text)


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags that choose a model, a metric and a measure."""
    add = parser.add_argument
    add_model_type(parser)
    add(
        "--metric",
        dest="evaluation",
        choices=tuple(EVALUATIONS),
        default=argparse.SUPPRESS,
        help=f"the faithfulness metric (default: {DEFAULT_EVALUATION})",
    )
    add(
        "--importance-measure",
        type=measure_named,
        choices=tuple(MEASURES),
        metavar="MEASURE",
        default=argparse.SUPPRESS,
        help=f"what ranks the tokens: {', '.join(MEASURES)} (default: {DEFAULT_MEASURE})",
    )


def parser(description: str, choice: Choice | None, sources: Sequence[str]) -> Parser:
    """Return the parser of a script.

    It has the flags of every dataclass that declares some, the flag that chooses among the tasks of the script, and
    --source where there are two.
    """
    found = Parser(description)
    if choice is not None:
        flag_name, tasks = choice
        found.add_argument(flag_name, dest="choice", choices=tuple(tasks), default=next(iter(tasks)), help="which task")
    if len(sources) > 1:
        found.add_argument(
            "--source", choices=sources, default=sources[0], help=f"where the data come from (default: {sources[0]})"
        )
    add_choices(found)
    for one in declaring():
        add_flags(found, one)
    return found


def parse(description: str, dataset: str | Choice, argv: list[str] | None = None) -> list[Config]:
    """Return the runs that a command line asks for, one for each level.

    Exits or raises UserError where the command line contradicts itself.
    """
    argv = in_our_words(argv)
    plugins.load_named(argv)
    choice = None if isinstance(dataset, str) else dataset
    name = dataset if isinstance(dataset, str) else next(iter(dataset[1].values()))
    sources = tuple(load_task(name).sources)
    flags = vars(parser(description, choice, sources).parse_args(argv))
    if choice is not None:
        name = choice[1][flags.pop("choice")]
    return runs_of(name, flags)


def runs_of(dataset: str, flags: dict[str, Any]) -> list[Config]:
    """Return the runs of one task that parsed flags ask for, one for each level, by rising level."""
    level = load_evaluation(flags.get("evaluation", DEFAULT_EVALUATION)).level
    if level is None:  # each measure has one run
        flags.pop("k", None)
        return [resolve(dataset, **flags)]
    levels = flags.pop(level, [None])
    configs = [resolve(dataset, **flags, **{level: value}) for value in levels]
    unique = list(dict.fromkeys(configs))
    return sorted(unique, key=lambda config: config.at_level)


def main(description: str, dataset: str | Choice, argv: list[str] | None = None) -> None:
    """Run a script: `dataset` is its task, or the flag and the values that choose one of its tasks.

    Exits with 0 when the records are there, else as `exit_codes` says.
    """
    with exit_codes("interrupted; run the same command again to continue"):
        from nlproar.run.parent import end_with_parent

        end_with_parent()
        carry_out(parse(description, dataset, argv))


def main_of_any_task(description: str, argv: list[str] | None = None) -> None:
    """Run `nlproar run`, which takes the task as --dataset. Exits as `main` does."""
    with exit_codes("interrupted; run the same command again to continue"):
        from nlproar.run.parent import end_with_parent

        end_with_parent()
        carry_out(parse_any_task(description, argv))


def parse_any_task(description: str, argv: list[str] | None = None) -> list[Config]:
    """Return the runs that the flags of `nlproar run` ask for, see `parse`."""
    argv = in_our_words(argv)
    plugins.load_named(argv)
    found = parser(description, None, ())
    names = [*TASKS, *DATASETS]
    found.add_argument("--dataset", required=True, choices=names, metavar="TASK", help=", ".join(TASKS))
    add_source(found)
    flags = vars(found.parse_args(argv))
    dataset = flags.pop("dataset")
    return runs_of(DATASETS.get(dataset, dataset), flags)


def carry_out(configs: Sequence[Config]) -> None:
    """Make the records of `configs`, which are of one task, and print what they say."""
    from nlproar.progress import show_log

    show_log()
    process.prepare(configs[0].options.threads)
    from nlproar.run import curve
    from nlproar.run.layout import Layout
    from nlproar.run.run import run_all

    layout = Layout.of(configs[0])
    for config, done in run_all(configs):
        print(f"record: {layout.record(config)}", flush=True)
        print("test: " + ", ".join(f"{name} {value:.4f}" for name, value in done.metrics["test"].items()), flush=True)
    shown = curve.show(layout, config, done)
    if shown:
        print(shown)
