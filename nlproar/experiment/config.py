"""The configuration of a run. Every flag of the scripts is one line of `Config`; imports no torch."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from nlproar import storage
from nlproar.dataset import MODULES, load_task
from nlproar.dataset.sources import VECTORS
from nlproar.errors import UserError
from nlproar.experiment.paths import as_utf8, user_path
from nlproar.explain import ALIASES, MEASURES
from nlproar.fingerprints import fingerprint
from nlproar.model import MODELS
from nlproar.roar.strategies import STRATEGIES

NAMED_VECTORS = (*VECTORS, "word2vec", "random")

MOST_LEVELS = 1000  # of a curve; each is a training, and a recursive one passes through all below it

LIMITS = {
    "seed": (0, 2**31),
    "k": (0, 10**6),
    "recursive_step_size": (1, 10**6),
    "riemann_samples": (1, 1000),
    "max_epochs": (1, 10**6),
    "batch_size": (1, 10**6),
    "num_workers": (0, 1000),
    "threads": (1, 1000),
}


def _flag(default: Any, help: str, *, option: bool = False, **argparse: Any) -> Any:
    """A field that is a flag. An `option` is no part of a run's identity: it
    changes no result, but for the last bits that differ between devices, which the record names."""
    return field(default=default, metadata={"help": help, "option": option, "argparse": argparse})


def _measure(name: str) -> str:
    return ALIASES.get(name, name)


@dataclass(frozen=True)
class Config:
    """One run. Made by `resolve`, which fills in the task's defaults and leaves out what cannot matter: at k = 0
    there is no measure, at k = 100 % all measures are the same run, and random masking is never recursive."""

    dataset: str
    source: str
    seed: int = _flag(0, "seed of initialisation, order and random choices", type=int)
    importance_measure: str | None = _flag(
        "random", "what ranks the tokens", type=_measure, choices=tuple(MEASURES), metavar="MEASURE"
    )
    roar_strategy: str | None = _flag("count", "is k a count of tokens or a percentage", choices=STRATEGIES)
    k: int = _flag(0, "how many tokens, or per cent of them, are masked; a run for each", type=int, nargs="+")
    recursive: bool = _flag(False, "explain the model of the level before instead of the one of k = 0")
    recursive_step_size: int | None = _flag(None, "distance of levels (default: 1, quantile 10)", type=int)
    riemann_samples: int | None = _flag(
        None, "points of an integrated gradient (default: 30 Gauss-Legendre, published 50)", type=int
    )
    model_type: str = _flag("rnn", "the model", choices=tuple(MODELS))
    max_epochs: int | None = _flag(None, "epochs of training (default: the task's)", type=int)
    batch_size: int | None = _flag(None, "training batch (default: the task's)", type=int)
    vectors: str | None = _flag(
        None, f"word vectors: {', '.join(NAMED_VECTORS)}, or a text file of them (default: the task's)"
    )

    vectors_file: str | None = field(default=None, metadata={"option": True})  # the path behind `vectors`
    persistent_dir: str | None = _flag(
        None, "data, caches and results (default: $NLPROAR_PERSISTENT_DIR, $SCRATCH/nlproar, ./persistent)",
        option=True, metavar="DIR",
    )  # fmt: skip
    device: str = _flag("auto", "auto, cpu, cuda, cuda:1, ...", option=True)
    num_workers: int = _flag(2, "processes that tokenize large data", option=True, type=int)
    threads: int | None = _flag(
        None, "threads of a run (default: $OMP_NUM_THREADS, else the cores)", option=True, type=int
    )
    train_missing: bool = _flag(False, "first train the models this run has to explain", option=True)
    overwrite: bool = _flag(False, "run again what is done already", option=True)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides the numbers of this run, as JSON can hold it."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if not f.metadata.get("option")}
        return {**values, "task": load_task(self.dataset).facts()}

    @cached_property
    def id(self) -> str:
        """The name of the run in files: readable, with a hash of the whole identity."""
        return id_of(self.identity)

    def at(self, k: int) -> Config:
        """The run of another level on the same curve."""
        return _canonical(replace(self, k=k))

    def previous(self) -> Config | None:
        """The run whose data, and whose model, this one explains; None where nothing is explained."""
        if not self.importance_measure:
            return None
        return self.at(self.k - (self.recursive_step_size or 0) if self.recursive else 0)

    def explained(self) -> Config | None:
        """`previous`, if this run's measure looks at its model."""
        return self.previous() if self.importance_measure and MEASURES[self.importance_measure].needs_model else None

    def command(self) -> str:
        """The shortest command line that is this run."""
        return shlex.join(["python", *self.arguments()])

    def arguments(self, levels: Sequence[int] = ()) -> list[str]:
        """Script and flags, as few as can be, of this run, or of the runs at all `levels` of its curve."""
        flags: dict[str, Any] = {
            f.name: getattr(self, f.name) for f in flag_fields() if getattr(self, f.name) is not None
        }
        flags["vectors"] = self.vectors_file or self.vectors
        plain = replace(self, train_missing=False, overwrite=False)
        flags.update(train_missing=False, overwrite=False)
        for name in list(flags):
            shorter = {key: value for key, value in flags.items() if key != name}
            try:
                if resolve(self.dataset, self.source, **shorter) == plain:
                    flags = shorter
            except UserError:  # the rest contradicts itself without this flag
                continue
        if levels:
            flags["k"] = levels
        script, *choice = load_task(self.dataset).command.split()
        called = Path(sys.argv[0]).parent / Path(script).name
        words = [str(called) if called.is_file() else script, *choice]  # as the user sees it from where they are
        words += ["--source", self.source] if self.source != "official" else []
        for name, value in flags.items():
            words += _words(f"--{name.replace('_', '-')}", value)
        return words


def id_of(identity: Mapping[str, Any]) -> str:
    """The id of the run whose `Config.identity` this is, also where its task was declared otherwise at the time."""
    dataset, source = identity["dataset"], identity["source"]
    strategy, measure = identity["roar_strategy"], identity["importance_measure"]
    parts = [dataset if source == "official" else f"{dataset}-{source}"]
    parts += [identity["model_type"], f"s-{identity['seed']}", f"k-{identity['k']}"]
    if strategy:
        parts.append(f"y-{strategy}")
    if measure:
        parts += [f"m-{measure}", f"r-{int(identity['recursive'])}"]
    if identity["recursive"]:
        parts.append(f"st-{identity['recursive_step_size']}")
    return "_".join(parts) + "-" + storage.digest(identity)[:8]


def _words(flag: str, value: Any) -> list[str]:
    if value is True:
        return [flag]
    if isinstance(value, (list, tuple)):
        return [flag, *map(str, value)]
    return [f"{flag}={value}"] if str(value)[:1] == "-" else [flag, str(value)]


def flag_fields() -> list[Field[Any]]:
    """The fields of `Config` that are flags of every script."""
    return [f for f in fields(Config) if "help" in f.metadata]


def resolve(dataset: str, source: str = "official", **flags: Any) -> Config:
    """The run that `flags` (names of `Config`'s fields) ask for. Raises UserError for what cannot be."""
    if dataset not in MODULES:
        raise UserError(f"unknown data set {dataset!r}; there are {', '.join(MODULES)}")
    task = load_task(dataset)
    if source not in task.sources:
        raise UserError(f"{dataset} has no source {source!r}; there are {', '.join(task.sources)}")
    config = Config(dataset, source, **flags)
    _validate(config)
    if config.persistent_dir is not None:
        config = replace(config, persistent_dir=user_path("--persistent-dir", config.persistent_dir))
    vectors = task.vectors if config.vectors is None else config.vectors
    file = None
    if vectors not in NAMED_VECTORS:
        file = user_path("--vectors", vectors)
        vectors = _name_vectors(file, config.persistent_dir)
    return _canonical(
        replace(
            config,
            max_epochs=config.max_epochs or task.max_epochs,
            batch_size=config.batch_size or task.batch_size,
            vectors=vectors,
            vectors_file=file,
        )
    )


def _name_vectors(path: str, persistent_dir: str | None) -> str:
    """What identifies a file of vectors wherever it lies: its name and a fingerprint."""
    file = Path(path)
    if not file.is_file():
        raise UserError(f"--vectors {path}: this is no file; give one, or {', '.join(NAMED_VECTORS)}")
    if not file.stat().st_size:
        raise UserError(f"--vectors {path}: the file is empty; give a text file with one word and its numbers a line")
    return f"{as_utf8(file.name)}@{_fingerprint(file, persistent_dir)}"


_fingerprints: dict[tuple[Path, int, int], str] = {}  # a study resolves thousands of runs with the same vectors


def _fingerprint(file: Path, persistent_dir: str | None) -> str:
    """The fingerprint of a file, kept in the cache of the persistent directory if the file is large."""
    from nlproar.experiment.layout import Layout  # which needs this module

    stat = file.stat()
    known = (file.absolute(), stat.st_size, stat.st_mtime_ns)
    if known not in _fingerprints:
        _fingerprints[known] = fingerprint(file, Layout.at(persistent_dir).cache)
    return _fingerprints[known]


def check_identity(identity: Mapping[str, Any]) -> None:
    """Raise UserError if this is the `Config.identity` of no run that can be asked for: a value is out of its range, a
    measure is not known, or a value is given where it cannot matter, so that `resolve` would have left it out. The
    data set is not looked at, as its declaration may have changed since."""
    names = {f.name for f in fields(Config) if not f.metadata.get("option")}
    config = Config(**{name: value for name, value in identity.items() if name in names})
    flags = replace(
        config,
        importance_measure=config.importance_measure or "random",
        roar_strategy=config.roar_strategy or "count",
    )
    _validate(flags)
    if _canonical(flags) != config:
        raise UserError("no run has this combination of level, strategy, measure and step")


def _validate(config: Config) -> None:
    for name, allowed in (("importance_measure", MEASURES), ("roar_strategy", STRATEGIES), ("model_type", MODELS)):
        if getattr(config, name) not in allowed:
            raise UserError(f"--{name.replace('_', '-')} {getattr(config, name)}: choose from {', '.join(allowed)}")
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name)
        if value is not None:
            check_range(f"--{name.replace('_', '-')}", value, least, most)
    if not config.device.isprintable():
        raise UserError(f"--device {config.device!r}: choose auto, cpu, cuda, cuda:1, ...")
    if config.roar_strategy == "quantile" and config.k > 100:
        raise UserError(f"--k {config.k} with --roar-strategy quantile: a percentage is at most 100")
    if config.recursive:
        _validate_step(config.k, config.recursive_step_size or _default_step(config))


def _validate_step(k: int, step: int) -> None:
    """Raises UserError where recursion does not arrive at `k`, or only after too many levels."""
    if k % step:
        raise UserError(f"--k {k} cannot be reached by --recursive-step-size {step}: choose a multiple of it")
    check_number_of_levels(k // step, "choose a larger --recursive-step-size")


def check_number_of_levels(levels: int, advice: str) -> None:
    if levels > MOST_LEVELS:
        raise UserError(f"these are {levels:,} levels, and each is a training; {advice} (at most {MOST_LEVELS:,})")


def check_range(flag: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise UserError(f"{flag} {value}: must be from {least} to {most}")


def _default_step(config: Config) -> int:
    return 10 if config.roar_strategy == "quantile" else 1


def _canonical(config: Config) -> Config:
    """`config` with None or False for every value that cannot change its numbers."""
    everything = config.roar_strategy == "quantile" and config.k == 100
    if config.k == 0 or everything:
        return replace(
            config,
            importance_measure=None,
            roar_strategy="quantile" if everything else None,
            recursive=False,
            recursive_step_size=None,
            riemann_samples=None,
        )
    assert config.importance_measure
    measure = MEASURES[config.importance_measure]
    recursive = config.recursive and measure.recursive
    return replace(
        config,
        recursive=recursive,
        recursive_step_size=(config.recursive_step_size or _default_step(config)) if recursive else None,
        riemann_samples=(config.riemann_samples or measure.default_samples) if measure.default_samples else None,
    )
