"""Which records a command with --overwrite has yet to make again. Imports no torch.

Such a command first writes down, in one file, a stamp of the record that each of its runs has. A run is to be made
again while it still has that very record. So the old record stays until the new one is there, a command that was
stopped continues where it was, two commands at once make every run once, and no clock is asked.

For example, a command with the runs a, b and c, of which c has no record:

    {"runs": {"a": "6b86...", "b": "d473...", "c": null}, "checksum": "..."}

Once a has been made again, its record has another stamp, and b and c are left. When none is left, the file goes.
"""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from nlproar import storage
from nlproar.errors import UserError
from nlproar.run import record
from nlproar.run.config import Config
from nlproar.run.layout import Layout

log = logging.getLogger(__name__)

Stamps = Mapping[str, str | None]  # name of a run -> stamp of the record that is to be replaced, None if it has none


def name(config: Config) -> str:
    """Return the name by which a note knows a run: "roar/sst_rnn_..."."""
    return f"{config.evaluation}/{config.id}"


def begin(layout: Layout, configs: Sequence[Config]) -> Stamps:
    """Note that `configs` are to be made again; returns those that are.

    If an earlier command with --overwrite was stopped before it had made some of them, this one continues it: what
    that one has made is not made again.
    """
    if not configs:
        return {}
    with _locked(layout):
        storage.sweep(layout.overwrite)
        commands = _read_all(layout)
        stamps = _stamps(layout, [*(name(config) for config in configs), *_names(commands.values())])
        to_do, new = _plan(layout, configs, list(commands.values()), stamps)
        if new:
            _write(layout, new)
        _remove_finished(commands, stamps)
    if len(to_do) < len(configs):
        log.info(
            "continuing: %d of %d runs are left to be made again by an earlier --overwrite that was stopped or failed"
            " (to start over, remove %s first)",
            len(to_do), len(configs), layout.overwrite,
        )  # fmt: skip
    return to_do


def left(layout: Layout, configs: Sequence[Config]) -> Stamps:
    """What `begin` would return, without a note."""
    commands = list(_read_all(layout).values())
    stamps = _stamps(layout, [*(name(config) for config in configs), *_names(commands)])
    return _plan(layout, configs, commands, stamps)[0]


def of_study(layout: Layout, configs: Sequence[Config]) -> Stamps:
    """Those of `configs` that a command has yet to make again: what a worker does for its study, which has the note.

    What another process made since the study looked is not made again.
    """
    commands = _read_all(layout).values()
    names = [name(config) for config in configs]
    stamps = _stamps(layout, [*names, *_names(commands)])
    waiting = {run for command in commands for run in _waiting(command, stamps)}
    return {run: stamps[run] for run in names if run in waiting}


def waits_for(layout: Layout, config: Config) -> bool:
    """Return whether a command that was stopped, or is at work, has to make this run again."""
    stamp = record.stamp(layout.record(config))
    try:
        commands = _read_all(layout)
    except UserError:  # perhaps one of them does
        return True
    run = name(config)
    return any(run in command and command[run] == stamp for command in commands.values())


def end(layout: Layout) -> None:
    """Remove the notes of commands that have made all of their runs again."""
    if not any(layout.overwrite.glob("*.json")):
        return
    try:
        with _locked(layout):
            commands = _read_all(layout)
            _remove_finished(commands, _stamps(layout, _names(commands.values())))
    except UserError as error:  # everything is made; the next --overwrite will meet this
        log.warning("%s", error)


def _plan(
    layout: Layout, configs: Sequence[Config], commands: Sequence[Stamps], stamps: Stamps
) -> tuple[dict[str, str | None], dict[str, str | None]]:
    """The runs that are to be made again, and those of them that no earlier command noted.

    `commands` are the notes of earlier commands, `stamps` those of the records that are there now.
    """
    names = [name(config) for config in configs]
    noted = set(_names(commands))
    waiting = {run for command in commands for run in _waiting(command, stamps)}
    # What an earlier command made is not made again, unless nobody can read it.
    made = set()
    for config in configs:
        if name(config) in noted - waiting and _is_readable(layout, config):
            made.add(name(config))
    if waiting.isdisjoint(names):
        # No earlier command has one of these runs left. If all of them were made by commands that have nothing left at
        # all, then these were killed at the very end; else this command is a new one.
        finished = set(_names(command for command in commands if not _waiting(command, stamps)))
        if not made.issuperset(names) or not finished.issuperset(names):
            made = set()
    to_do = {run: stamps[run] for run in names if run not in made}
    new = {run: stamp for run, stamp in to_do.items() if run not in waiting}
    return to_do, new


def _waiting(command: Stamps, stamps: Stamps) -> set[str]:
    """The runs of a command that still have the record that is to be replaced."""
    return {run for run, stamp in command.items() if stamps[run] == stamp}


def _is_readable(layout: Layout, config: Config) -> bool:
    try:
        return record.read(layout.record(config), config) is not None
    except UserError:
        return False


def _names(commands: Iterable[Stamps]) -> list[str]:
    return [run for command in commands for run in command]


def _stamps(layout: Layout, names: Iterable[str]) -> dict[str, str | None]:
    return {run: record.stamp(layout.results / f"{run}.json") for run in dict.fromkeys(names)}


def _locked(layout: Layout) -> AbstractContextManager[None]:
    return storage.lock(layout.overwrite / "notes")


def _write(layout: Layout, runs: Stamps) -> None:
    content = {"runs": runs}
    path = layout.overwrite / f"{secrets.token_hex(8)}.json"
    storage.write_json(path, {**content, "checksum": storage.digest(content)})


def _remove_finished(commands: Mapping[Path, Stamps], stamps: Stamps) -> None:
    for path, command in commands.items():
        if not _waiting(command, stamps):
            path.unlink(missing_ok=True)


def _read_all(layout: Layout) -> dict[Path, Stamps]:
    """The notes of all commands, by their files. Raises UserError where one is damaged."""
    return {path: _read(path) for path in sorted(layout.overwrite.glob("*.json"))}


def _read(path: Path) -> Stamps:
    try:
        content = json.loads(storage.read_bytes(path).decode())
        runs = content["runs"]
        intact = isinstance(runs, dict) and content["checksum"] == storage.digest({"runs": runs})
    except FileNotFoundError:
        if path.is_symlink():
            raise UserError(f"{path} is a link to a file that is not there; remove it") from None
        return {}  # the command ended just now
    except (ValueError, KeyError, TypeError, RecursionError):
        intact = False
    if not intact:
        raise UserError(f"{path} is damaged; remove it, and --overwrite makes all of its runs again")
    stamps: Stamps = runs
    return stamps
