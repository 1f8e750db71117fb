"""The command line of a study. Imports no torch: that is for the workers."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from nlproar.dataset import MODULES
from nlproar.errors import UserError
from nlproar.experiment import overwrite
from nlproar.experiment.cli import Parser, Terminated, add_options, exit_codes
from nlproar.experiment.config import LIMITS, check_range, flag_fields
from nlproar.experiment.grid import STAGES, Chain, Study
from nlproar.experiment.layout import Layout
from nlproar.experiment.needs import remove_training_state
from nlproar.experiment.status import Status, look, table
from nlproar.experiment.streams import require_output
from nlproar.explain import ALIASES, MEASURES
from nlproar.progress import show_log
from nlproar.roar.strategies import STRATEGIES

log = logging.getLogger(__name__)

_PLURAL = ("seed", "importance_measure", "roar_strategy", "k", "recursive")  # of a grid, and so declared here
MOST_JOBS = 1000
_MOST_FAILURES = 10  # that a dry run names
_NOT_PASSED = ("train_missing",)  # what a study does anyhow


def parser(description: str) -> Parser:
    found = Parser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter, allow_abbrev=False)
    add = found.add_argument
    add("--dataset", nargs="+", default=["all"], choices=(*MODULES, "all"), metavar="TASK", help=_names(MODULES))
    add("--importance-measure", nargs="+", default=["all"], choices=(*MEASURES, "all"), metavar="MEASURE",
        type=lambda name: ALIASES.get(name, name), help=_names(MEASURES))  # fmt: skip
    add("--seed", nargs="+", type=int, default=[0], help="seeds of initialisation, order and random choices")
    add("--roar-strategy", nargs="+", default=["quantile"], choices=STRATEGIES,
        help="is k a percentage or a count of tokens")  # fmt: skip
    kinds = found.add_mutually_exclusive_group()
    for name, value, text in (("recursive", (True,), "explain the model of the level before"),
                              ("no-recursive", (False,), "explain the model of k = 0 (default)"),
                              ("both", (False, True), "both of these")):  # fmt: skip
        kinds.add_argument(f"--{name}", dest="kinds", action="store_const", const=value,
                           default=argparse.SUPPRESS, help=text)  # fmt: skip
    levels = found.add_mutually_exclusive_group()
    levels.add_argument("--k", nargs="+", type=int, default=argparse.SUPPRESS,
                        help="the levels between nothing and everything masked, which are always there")  # fmt: skip
    levels.add_argument("--step", type=int, default=argparse.SUPPRESS,
                        help="levels at this distance (default: 10, count 1)")  # fmt: skip
    add("--max-k", type=int, default=argparse.SUPPRESS, help="up to this level (default: 90, count 10)")
    add("--source", default="official", help="where the data come from: official or, of bAbI, simulated")
    add("--jobs", type=int, default=1, help="chains at a time, among which the cores are divided")
    add("--stage", default="all", choices=("all", *STAGES),
        help="base: only k = 0 and k = 100; measures: only the levels between")  # fmt: skip
    what = found.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="show what is done and what is left")
    what.add_argument("--list", action="store_true", help="print one command for each chain that is left")
    what.add_argument("--job-lists", action="store_true",
                      help="write what is left into lists for batch_jobs/submit.sh")  # fmt: skip
    add_options(found, *(f.name for f in flag_fields() if f.name not in _PLURAL + _NOT_PASSED))
    return found


def _names(registry: Sequence[str] | dict[str, Any]) -> str:
    return f"all, or some of {', '.join(registry)}"


def parse(description: str, argv: list[str] | None = None) -> tuple[Study, argparse.Namespace]:
    """The study a command line asks for, and the flags that say what to do with it."""
    flags = parser(description).parse_args(argv)
    values = vars(flags)
    rest = {f.name: values[f.name] for f in flag_fields() if f.name in values and f.name not in _PLURAL + _NOT_PASSED}
    _check_ranges(flags)
    if "k" in values and "max_k" in values:
        raise UserError("--max-k goes with --step; --k names the levels")
    study = Study(
        datasets=_chosen(flags.dataset, MODULES),
        measures=_chosen(flags.importance_measure, MEASURES),
        seeds=list(dict.fromkeys(flags.seed)),
        strategies=list(dict.fromkeys(flags.roar_strategy)),
        kinds=values.get("kinds", (False,)),
        levels=values.get("k"),
        step=values.get("step"),
        max_k=values.get("max_k"),
        source=flags.source,
        flags=rest,
    )
    return study, flags


def _check_ranges(flags: argparse.Namespace) -> None:
    """Raises UserError for numbers with which the grid itself could not be laid out; `resolve` checks the rest."""
    check_range("--jobs", flags.jobs, 1, MOST_JOBS)
    for name in ("step", "max_k"):
        if hasattr(flags, name):
            check_range(f"--{name.replace('_', '-')}", getattr(flags, name), 1, LIMITS["k"][1])
    for k in getattr(flags, "k", ()):
        check_range("--k", k, *LIMITS["k"])


def _chosen(names: Sequence[str], registry: Sequence[str] | dict[str, Any]) -> list[str]:
    return list(registry) if "all" in names else list(dict.fromkeys(names))


def main(description: str, argv: list[str] | None = None) -> None:
    """Exits 0 when every run of the study is done, 1 when some failed, else as a run does."""
    with exit_codes("stopped; the same command goes on from here"):
        study, flags = parse(description, argv)
        chains = [chain for chain in study.chains() if flags.stage in ("all", chain.stage)]
        layout = Layout.at(getattr(flags, "persistent_dir", None))
        layout.check()
        code = 0
        if flags.dry_run:
            _show(chains, look_at(layout, chains, flags.overwrite), flags.jobs)
        elif flags.list:
            _list(chains, look_at(layout, chains, flags.overwrite))
        elif flags.job_lists:
            _write_job_lists(layout, chains, look_at(layout, chains, flags.overwrite))
        else:
            code = _carry_out(layout, chains, flags.jobs, flags.overwrite)
    if code:
        sys.exit(code)


def look_at(layout: Layout, chains: Sequence[Chain], again: bool, begins: bool = False) -> Status:
    """The state of a study; with `again`, as --overwrite finds it. What `begins` to carry the study out leaves a note,
    so that it can be stopped and continued."""
    if not again:
        return look(layout, chains)
    runs = [config for chain in chains for config in chain.configs]
    return look(layout, chains, overwrite.begin(layout, runs) if begins else overwrite.left(layout, runs))


def _show(chains: Sequence[Chain], status: Status, jobs: int) -> None:
    """What a dry run prints: why runs count as failed, then how many are in which state."""
    for config, reason in list(status.failures.items())[:_MOST_FAILURES]:
        print(f"failed: {config.id}: {reason}")
    if len(status.failures) > _MOST_FAILURES:
        print(f"failed: {len(status.failures) - _MOST_FAILURES} more")
    print(table(chains, status, jobs))
    require_output()


def _list(chains: Sequence[Chain], status: Status) -> None:
    """Print a command for each chain that is left. Its bytes are those of the file names, whatever the terminal's
    encoding, so that a shell finds the same files."""
    for chain in chains:
        missing = status.missing(chain)
        if missing:
            command = shlex.join(["python", *chain.arguments(missing)])
            sys.stdout.buffer.write(os.fsencode(command) + b"\n")
    require_output()


def _write_job_lists(layout: Layout, chains: Sequence[Chain], status: Status) -> None:
    from nlproar.experiment import job_lists

    queue = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.buffer.read().decode(errors="replace")
    show_log()
    lists = job_lists.plan(chains, status, job_lists.in_queue(layout, queue.splitlines()))
    print("\n".join(job_lists.write(layout, lists, status)))
    require_output()


def _carry_out(layout: Layout, chains: Sequence[Chain], jobs: int, again: bool) -> int:
    """Run what is left, or with `again` everything; returns the exit code. The curves come last on stdout, what failed
    on stderr."""
    from nlproar.experiment import curve
    from nlproar.experiment.scheduler import Scheduler

    show_log()
    layout.make()
    status = look_at(layout, chains, again, begins=True)
    signal.signal(signal.SIGTERM, _terminate)
    scheduler = Scheduler(layout, chains, status, jobs)
    try:
        scheduler.carry_out()
        overwrite.end(layout)
        status.look_again(layout, chains)
        for config in status.records:
            remove_training_state(layout, config)
    finally:
        done, failed = len(status.records), len(status.failures)
        log.info("%d runs: %d done, %d failed, %d skipped because of them, %d not tried", scheduler.runs, done, failed,
                 len(scheduler.skipped), scheduler.runs - done - failed - len(scheduler.skipped))  # fmt: skip
        for config, reason in status.failures.items():
            log.error("%s: %s", config.id, reason)
    for warning in status.warnings():
        log.warning("%s", warning)
    print("\n\n".join(curve.of_study(chains, status.records)))
    return 1 if status.failures else 0


def _terminate(*_: object) -> NoReturn:
    raise Terminated
