"""The command line of a study. Imports no torch: that is for the workers."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Iterable, Sequence

from nlproar import plugins
from nlproar.dataset import PLANTED, TASKS
from nlproar.errors import UserError
from nlproar.evaluate import EVALUATIONS, load_evaluation
from nlproar.explain import MEASURES, transform
from nlproar.explain.transform import UNCHANGED
from nlproar.flags import add_flags, check_range, flag_of, flags_of
from nlproar.masking import STRATEGIES
from nlproar.model import MODELS
from nlproar.progress import show_log
from nlproar.published import DATASETS, in_our_words
from nlproar.run import overwrite
from nlproar.run.cli import add_model_type, add_source, measure_named
from nlproar.run.config import (
    DEFAULT_EVALUATION,
    DEFAULT_MODEL,
    Seed,
    chosen_model_type,
    command_line,
    declaring,
)
from nlproar.run.layout import Layout
from nlproar.run.prerequisites import remove_training_state
from nlproar.script import Parser, exit_codes, raise_at_sigterm
from nlproar.streams import require_output
from nlproar.study import checkpoints
from nlproar.study.checkpoints import Unneeded
from nlproar.study.grid import STAGES, Chain, Grid
from nlproar.study.status import Status, look, table

log = logging.getLogger(__name__)

MOST_JOBS = 1000
LARGEST_LEVEL = 10**6
_MOST_FAILURES = 10  # that a dry run names

# Flags of a run that a study declares itself, as it takes several values of them, and one that it does not pass on.
_OF_GRID = ("seed", "roar_strategy", "k", "recursive", "transform")
_NOT_PASSED = ("train_missing",)


def parser(description: str) -> Parser:
    """Return the parser of a study: the flags that span its grid, and every other flag of a run."""
    found = Parser(description)
    add = found.add_argument
    add("--dataset", nargs="+", default=["all"], choices=(*TASKS, *DATASETS, "all", "planted"), metavar="TASK",
        help=f"all (but planted ones), planted (all of these), or some of {', '.join(TASKS)}")  # fmt: skip
    add("--metric", nargs="+", dest="evaluations", default=[DEFAULT_EVALUATION], choices=(*EVALUATIONS, "all"),
        metavar="METRIC", help=f"some of {', '.join(EVALUATIONS)}; {_all_metrics_in_words()}"
        f" (default: {DEFAULT_EVALUATION})")  # fmt: skip
    add("--importance-measure", nargs="+", default=["published"], choices=(*MEASURES, *_GROUPS), metavar="MEASURE",
        type=measure_named, help=f"some of {', '.join(MEASURES)}; published (default): the measures of the paper, whose"
        " integrated gradient is integrated-gradient-published, and integrated-gradient as it is defined;"
        f" {_all_measures_in_words()}; both leave out measures that the model does not support")  # fmt: skip
    add("--transform", nargs="+", default=[UNCHANGED.transform], choices=(*transform.NAMES, "all"),
        metavar="TRANSFORM", help=f"changes of every measure: {_names(transform.NAMES)} (default: none)")  # fmt: skip
    add_model_type(found)
    add("--seed", nargs="+", type=int, default=[0],
        help=f"one or several numbers, each a {flag_of(flags_of(Seed)['seed']).help} (default: 0)")  # fmt: skip
    add("--roar-strategy", nargs="+", default=["quantile"], choices=STRATEGIES,
        help="is k a percentage or a count of tokens (default: quantile)")  # fmt: skip
    _add_kinds(found)
    _add_levels(found)
    add_source(found)
    add("--jobs", type=int, default=1, help="chains at a time, among which the cores are divided (default: 1)")
    add("--stage", default="all", choices=("all", *STAGES),
        help="base: only the runs that all measures share; measures: only the others (default: all)")  # fmt: skip
    add("--keep-checkpoints", default="all", choices=checkpoints.KEEP,
        help="needed: remove the trained weights of a run as soon as no run of this study needs them; whether another"
        " study does is not known, which then trains them again (default: all)")  # fmt: skip
    what = found.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="show what is done and what is left")
    what.add_argument("--list", action="store_true", help="print one command for each chain that is left")
    what.add_argument("--job-lists", action="store_true",
                      help="write what is left into lists for batch_jobs/submit.sh")  # fmt: skip
    for one in declaring():
        add_flags(found, one, without=(*_OF_GRID, *_NOT_PASSED))
    return found


def _add_kinds(found: Parser) -> None:
    kinds = found.add_mutually_exclusive_group()
    for name, value, text in (
        ("--recursive", (True,), "explain the model of the level before"),
        ("--no-recursive", (False,), "explain the model of k = 0 (default)"),
        ("--both", (False, True), "both of these"),
    ):
        kinds.add_argument(name, dest="kinds", action="store_const", const=value, default=argparse.SUPPRESS, help=text)


def _add_levels(found: Parser) -> None:
    levels = found.add_mutually_exclusive_group()
    levels.add_argument(
        "--k",
        nargs="+",
        type=int,
        default=argparse.SUPPRESS,
        help="the levels to run; k = 0 and, for quantile, k = 100 are always added",
    )
    levels.add_argument(
        "--step", type=int, default=argparse.SUPPRESS, help="levels at this distance (default: 10, count 1)"
    )
    found.add_argument("--max-k", type=int, default=argparse.SUPPRESS, help="up to this level (default: 90, count 10)")


def _names(registry: Iterable[str]) -> str:
    return f"all, or some of {', '.join(registry)}"


def parse(description: str, argv: list[str] | None = None) -> tuple[Grid, argparse.Namespace]:
    """Return the study that a command line asks for, and the flags that say what to do with it."""
    argv = in_our_words(argv)
    plugins.load_named(argv)
    flags = parser(description).parse_args(argv)
    values = vars(flags)
    _check_ranges(flags)
    if "k" in values and "max_k" in values:
        raise UserError("use either --k or --max-k, not both")
    datasets = _tasks(flags.dataset)
    model_type = chosen_model_type(values)
    grid = Grid(
        datasets=datasets,
        measures=_chosen_measures(flags.importance_measure, datasets, model_type),
        transforms=_chosen(flags.transform, transform.NAMES),
        seeds=_chosen_seeds(flags.seed, values.get("as_is", False)),
        evaluations=_chosen(flags.evaluations, _all_metrics(datasets, model_type, values.get("as_is", False))),
        strategies=list(dict.fromkeys(flags.roar_strategy)),
        kinds=values.get("kinds", (False,)),
        levels=values.get("k"),
        step=values.get("step"),
        max_k=values.get("max_k"),
        source=flags.source,
        flags={name: values[name] for name in _passed() if name in values},
    )
    return grid, flags


def _chosen_seeds(seeds: Sequence[int], as_is: bool) -> list[int]:
    """Return the seeds, each once. Raises UserError for several seeds of a model that is not trained.

    It is the same model for all of them, so an interval over these seeds would have no width.
    """
    chosen = list(dict.fromkeys(seeds))
    if as_is and len(chosen) > 1:
        raise UserError("--as-is: the model is the same for every seed; give one --seed")
    return chosen


def _passed() -> list[str]:
    """Return the flags that every run of the study has."""
    names = ["model_type"]
    for one in declaring():
        names += [name for name in flags_of(one) if name not in (*_OF_GRID, *_NOT_PASSED)]
    return names


def _check_ranges(flags: argparse.Namespace) -> None:
    """Raise UserError for numbers with which the grid itself could not be laid out; `resolve` checks the rest."""
    check_range("--jobs", flags.jobs, 1, MOST_JOBS)
    for name in ("step", "max_k"):
        if hasattr(flags, name):
            check_range(f"--{name.replace('_', '-')}", getattr(flags, name), 1, LARGEST_LEVEL)
    for k in getattr(flags, "k", ()):
        check_range("--k", k, 0, LARGEST_LEVEL)


_GROUPS = ("published", "all")  # of measures


def _all_measures_in_words() -> str:
    """Return for the help which measures `_chosen_measures` makes of "all"."""
    slow = [name for name, measure in MEASURES.items() if measure.slow]
    quick = {name: measure.role for name, measure in MEASURES.items() if not measure.slow}
    checks = [name for name, role in quick.items() if role == "check"]
    truths = [name for name, role in quick.items() if role == "truth"]
    return (
        f"all: every measure except {', '.join(slow)}, which take long; {', '.join(checks)} only if all tasks are"
        f" planted; {', '.join(truths)} only if, besides, the model reads words, as {DEFAULT_MODEL} does"
    )


def _all_metrics_in_words() -> str:
    """Return for the help which metrics `_all_metrics` makes of "all"."""
    rules = {name: load_evaluation(name) for name in EVALUATIONS}
    slow = [name for name, one in rules.items() if one.slow]
    need_truth = [name for name, one in rules.items() if one.needs_truth]
    train_on_masks = [name for name, one in rules.items() if one.trains_on_masks]
    return (
        f"all: every metric except {', '.join(slow)}, which take long; {', '.join(need_truth)} only if all tasks are"
        f" planted and the model reads words, as {DEFAULT_MODEL} does; with --as-is without"
        f" {', '.join(train_on_masks)}, which train on masked data"
    )


def _chosen_measures(names: Sequence[str], datasets: Sequence[str], model_type: str) -> list[str]:
    """Return the measures that are named, groups replaced by their members, each once.

    Measures that do not explain such a model are in no group.
    """
    lacks = MODELS[model_type].lacks
    groups = {
        "published": [name for name, measure in MEASURES.items() if measure.published and name not in lacks],
        "all": [name for name in _all_measures(datasets, model_type) if not MEASURES[name].slow and name not in lacks],
    }
    chosen: list[str] = []
    for name in names:
        chosen += groups.get(name, [name])
    return list(dict.fromkeys(chosen))


def _tasks(names: Sequence[str]) -> list[str]:
    """Return the tasks that --dataset names; "all" and "planted" stand for several."""
    found: list[str] = []
    for name in names:
        if name == "all":
            found += [task for task in TASKS if task not in PLANTED]
        elif name == "planted":
            found += PLANTED
        else:
            found.append(DATASETS.get(name, name))
    return list(dict.fromkeys(found))


def _all_measures(datasets: Sequence[str], model_type: str) -> list[str]:
    """Return what "all" measures are.

    Those that only check metrics are among them if every task is planted, and those that know the truth if the model
    also reads its words.
    """
    if not set(datasets) <= set(PLANTED):
        return [name for name, measure in MEASURES.items() if measure.role == "measure"]
    if _knows_truth(datasets, model_type):
        return list(MEASURES)
    return [name for name, measure in MEASURES.items() if measure.role != "truth"]


def _all_metrics(datasets: Sequence[str], model_type: str, as_is: bool) -> list[str]:
    """Return what "all" metrics are: those that are not slow, that need the truth only where it is known, and that
    train on masked data only if the model may be trained."""
    knows_truth = _knows_truth(datasets, model_type)
    found = []
    for name in EVALUATIONS:
        rules = load_evaluation(name)
        fits_task = knows_truth or not rules.needs_truth
        fits_model = not (as_is and rules.trains_on_masks)
        if not rules.slow and fits_task and fits_model:
            found.append(name)
    return found


def _knows_truth(datasets: Sequence[str], model_type: str) -> bool:
    """Return whether the informative tokens are known: in planted tasks, of a model that reads their words."""
    return set(datasets) <= set(PLANTED) and MODELS[model_type].recipe_type.reads_words


def _chosen(names: Sequence[str], registry: Sequence[str]) -> list[str]:
    """Return the names, each once, with "all" replaced by everything in the registry."""
    chosen: list[str] = []
    for name in names:
        chosen += registry if name == "all" else [name]
    return list(dict.fromkeys(chosen))


def main(description: str, argv: list[str] | None = None) -> None:
    """Run a study. Exits with 0 when every run is done, with 1 when some failed, else as a run does."""
    with exit_codes("stopped; run the same command again to continue"):
        grid, flags = parse(description, argv)
        for name in ("list", "job_lists"):
            if getattr(flags, name):
                checkpoints.refuse_jobs(flags.keep_checkpoints, f"--{name.replace('_', '-')}")
        study = grid.chains()
        chains = [chain for chain in study if flags.stage in ("all", chain.stage)]
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        layout.check()
        again = getattr(flags, "overwrite", False)
        code = 0
        if flags.dry_run:
            _show(layout, chains, look_at(layout, chains, again), flags.jobs)
        elif flags.list:
            _list(chains, look_at(layout, chains, again))
        elif flags.job_lists:
            _write_job_lists(layout, chains, look_at(layout, chains, again), study)
        else:
            removes_from = study if flags.keep_checkpoints == "needed" else None
            code = _carry_out(layout, chains, flags.jobs, again, removes_from)
    if code:
        sys.exit(code)


def look_at(layout: Layout, chains: Sequence[Chain], again: bool, begins: bool = False) -> Status:
    """Return the state of a study; with `again`, as --overwrite finds it.

    What `begins` to carry the study out leaves a note, so that it can be stopped and continued.
    """
    if not again:
        return look(layout, chains)
    runs = [config for chain in chains for config in chain.configs]
    replaces = overwrite.begin(layout, runs) if begins else overwrite.left(layout, runs)
    return look(layout, chains, replaces)


def _show(layout: Layout, chains: Sequence[Chain], status: Status, jobs: int) -> None:
    """What a dry run prints: why runs count as failed, then how many are in which state."""
    for config, reason in list(status.failures.items())[:_MOST_FAILURES]:
        print(f"failed: {config.id}: {reason}")
    if len(status.failures) > _MOST_FAILURES:
        print(f"failed: {len(status.failures) - _MOST_FAILURES} more")
    deleted = _deleted_models(layout, chains, status)
    if deleted:
        print(deleted)
    print(table(chains, status, jobs))
    require_output()


def _deleted_models(layout: Layout, chains: Sequence[Chain], status: Status) -> str | None:
    """Return a line about models whose weights were deleted and that runs which are left look at; None without any."""
    left = [config for chain in chains for config in status.missing(chain)]
    gone = checkpoints.gone(layout, left)
    if not gone:
        return None
    return (
        f"weights of finished runs that others explain were deleted ({len(gone)}, such as those of {gone[0].id}); they"
        " are trained again where what is computed from them is not in the cache"
    )


def _list(chains: Sequence[Chain], status: Status) -> None:
    """Print a command for each chain that is left. Its bytes are those of the file names, whatever the terminal's
    encoding, so that a shell finds the same files."""
    for chain in chains:
        missing = status.missing(chain)
        if missing:
            command = command_line(chain.arguments(missing))
            sys.stdout.buffer.write(os.fsencode(command) + b"\n")
    require_output()


def _write_job_lists(layout: Layout, chains: Sequence[Chain], status: Status, study: Sequence[Chain]) -> None:
    from nlproar.study import job_lists

    queue = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read().decode(errors="replace")
    show_log()
    lists = job_lists.plan(chains, status, job_lists.in_queue(layout, queue.splitlines()), study)
    print("\n".join(job_lists.write(layout, lists, status)))
    require_output()


def _carry_out(
    layout: Layout, chains: Sequence[Chain], jobs: int, again: bool, removes_from: Sequence[Chain] | None
) -> int:
    """Run what is left, or with `again` everything, and return the exit code.

    With `removes_from`, all chains of the study, also those of another stage, the weights of their runs are removed as
    soon as none of them needs these. The curves come last on stdout, what failed on stderr.
    """
    from nlproar.run import curve
    from nlproar.study.scheduler import Scheduler

    show_log()
    layout.make()
    status = look_at(layout, chains, again, begins=True)
    deleted = _deleted_models(layout, chains, status)
    if deleted:
        log.info("%s", deleted)
    raise_at_sigterm()
    unneeded = None
    if removes_from is not None:
        unneeded = _unneeded(layout, removes_from, chains, status, again)
    scheduler = Scheduler(layout, chains, status, jobs, unneeded)
    try:
        if unneeded is not None:
            unneeded.remove_all()  # what an earlier call left
        scheduler.carry_out()
        if unneeded is not None:
            unneeded.remove_all()  # also what a run has trained again
        overwrite.end(layout)
        status.look_again(layout, chains)
        for config in status.records:
            remove_training_state(layout, config)
    finally:
        done = len(status.records)
        failed = len(status.failures)
        skipped = len(set(scheduler.skipped).difference(status.records, status.failures))
        log.info(
            "%d runs: %d done, %d failed, %d skipped because of them, %d not tried",
            scheduler.runs, done, failed, skipped, scheduler.runs - done - failed - skipped,
        )  # fmt: skip
        if unneeded is not None:
            log.info("checkpoints removed: %d (%.1f MB)", unneeded.removed, unneeded.bytes / 1e6)
        for config, reason in status.failures.items():
            log.error("%s: %s", config.id, reason)
    for warning in status.warnings():
        log.warning("%s", warning)
    seeds = {chain.configs[0].seed for chain in chains}
    tables = curve.of_study(status.records.values(), seeds)
    if tables:
        print("\n\n".join(tables))
    return 1 if status.failures else 0


def _unneeded(layout: Layout, study: Sequence[Chain], chains: Sequence[Chain], status: Status, again: bool) -> Unneeded:
    """Return what removes weights of the runs of `study`. `status` is that of `chains`, those of one stage or all.

    With `again` the chains are made again. The runs of the other stage that look at their models are then yet to be
    made again, too, although they have a record.
    """
    runs = [config for chain in study for config in chain.configs]
    made_now = {config for chain in chains for config in chain.configs}
    done = list(status.records)
    others = [chain for chain in study if chain not in chains]
    for config in look(layout, others).records:
        explains_what_is_replaced = again and not made_now.isdisjoint(config.needs())
        if not explains_what_is_replaced:
            done.append(config)
    return Unneeded(layout, runs, done)
