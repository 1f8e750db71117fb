"""Every path below the persistent directory."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nlproar import storage
from nlproar.errors import UserError
from nlproar.experiment.config import Config
from nlproar.experiment.paths import user_path


@dataclass(frozen=True)
class Layout:
    root: Path

    @classmethod
    def of(cls, config: Config) -> Layout:
        return cls.at(config.persistent_dir)

    @classmethod
    def at(cls, named: str | None) -> Layout:
        """`named`, else $NLPROAR_PERSISTENT_DIR, else $SCRATCH/nlproar, else ./persistent.

        Raises UserError for a path that cannot be, see `user_path`.
        """
        if named is not None:
            return cls(Path(user_path("--persistent-dir", named)))
        from_environment = os.environ.get("NLPROAR_PERSISTENT_DIR")
        if from_environment:
            return cls(Path(user_path("NLPROAR_PERSISTENT_DIR", from_environment)))
        scratch = os.environ.get("SCRATCH")
        if scratch:
            return cls(Path(user_path("SCRATCH", scratch)) / "nlproar")
        return cls(Path("persistent"))

    def make(self) -> None:
        """Make the folder of the records and remove what killed processes left, see `sweep`.

        Raises UserError where the persistent directory cannot be, and as `check` does.
        """
        self.check()
        try:
            self.records.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--persistent-dir {self.root}: {error.strerror}: {error.filename}") from error
        self.sweep()

    def check(self) -> None:
        """Raise UserError where a file, or a link to nowhere, is in the place of a folder: else it would look as if
        nothing had been done yet."""
        folders = [self.root, self.records.parent, self.records, self.root / "checkpoints", self.cache, self.raw]
        folders += [self.logs, self.failure_folder, self.tables, self.plots]
        for folder in folders:
            if folder.is_dir():
                continue
            if folder.is_symlink():
                raise UserError(f"{folder} is a link to a folder that is not there; is its file system mounted?")
            if folder.exists():
                raise UserError(f"{folder} is no folder; move it away, or choose another --persistent-dir")

    def sweep(self) -> None:
        """Remove files that killed processes left half written, also where nobody would write the same file again.

        This leaves out the folders of checkpoints, which are many; a run looks at its own.
        """
        folders = [self.root, self.records, self.failure_folder, self.tables, self.plots]
        folders += self.cache.glob("*")
        folders += (self.logs / "slurm").glob("*")
        for folder in folders:
            storage.sweep(folder)

    @property
    def raw(self) -> Path:
        return self.root / "raw"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def records(self) -> Path:
        return self.root / "results" / "roar"

    def record(self, config: Config) -> Path:
        return self.records / f"{config.id}.json"

    @property
    def overwrite(self) -> Path:
        """What commands with --overwrite have yet to make again."""
        return self.records / "overwrite"

    def checkpoint(self, config: Config) -> Path:
        return self.root / "checkpoints" / config.id

    def training_state(self, config: Config) -> Path:
        """Of a training that is under way, beside its weights to come."""
        return self.checkpoint(config) / "training.npz"

    def importance(self, config: Config, key: str) -> Path:
        """Of every token, by the measure of `config`, from the model and data of the run it explains."""
        return self.cache / "importance" / f"{config.id}-{key}.npz"

    def masks(self, config: Config) -> Path:
        return self.cache / "masks" / f"{config.id}.npz"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def failure_folder(self) -> Path:
        return self.logs / "failed"

    def failure(self, config: Config) -> Path:
        """Why the run could not be done, while it is not."""
        return self.failure_folder / f"{config.id}.txt"

    def log(self, config: Config) -> Path:
        """What the process of a chain says; `config` is its last level."""
        return self.logs / f"{config.id}.log"

    def convergence(self, config: Config, key: str) -> Path:
        """The error of integrated gradient by its number of points, on the model of `config`."""
        return self.cache / "convergence" / f"{config.id}-{key}.npz"

    @property
    def tables(self) -> Path:
        return self.root / "tables"

    @property
    def plots(self) -> Path:
        return self.root / "plots"

    @property
    def report(self) -> Path:
        return self.root / "report.html"
