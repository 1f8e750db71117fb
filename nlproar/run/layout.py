"""Every path below the persistent directory."""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nlproar import storage
from nlproar.errors import UserError
from nlproar.paths import user_path

if TYPE_CHECKING:
    from nlproar.run.config import Config


@dataclass(frozen=True)
class Layout:
    """Where everything is kept, below one persistent directory."""

    root: Path

    @classmethod
    def of(cls, config: Config) -> Layout:
        """Return the layout of the persistent directory of a run."""
        return cls.at(config.options.persistent_dir)

    @classmethod
    def at(cls, named: str | None) -> Layout:
        """Return the layout of `named`, else $NLPROAR_PERSISTENT_DIR, else $SCRATCH/nlproar, else ./persistent.

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
        """Make the folder of the results and remove what killed processes left, see `sweep`.

        Raises UserError where the persistent directory cannot be, and as `check` does.
        """
        self.check()
        try:
            self.results.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"--persistent-dir {self.root}: {error.strerror}: {error.filename}") from error
        self.sweep()

    def check(self) -> None:
        """Raise UserError where a file, or a link to nowhere, is in the place of a folder: else it would look as if
        nothing had been done yet."""
        folders = [self.root, self.results, self.root / "checkpoints", self.cache, self.raw]
        folders += self.results.glob("[!.]*")  # one for each evaluation
        folders += [self.logs, self.failure_folder, self.tables, self.plots]
        for folder in folders:
            try:
                mode = folder.stat().st_mode  # asked once, as another process may make the folder meanwhile
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    raise
                if folder.is_symlink():
                    raise UserError(
                        f"{folder} is a link to a folder that is not there; is its file system mounted?"
                    ) from None
                continue
            if not stat.S_ISDIR(mode):
                raise UserError(f"{folder} is not a folder; move it away, or choose another --persistent-dir")

    def sweep(self) -> None:
        """Remove files that killed processes left half written, also where nobody would write the same file again.

        This leaves out the folders of checkpoints, which are many; a run looks at its own.
        """
        folders = [self.root, self.failure_folder, self.overwrite, self.tables, self.plots]
        folders += self.results.glob("*")
        folders += self.cache.glob("*")
        folders += (self.logs / "slurm").glob("*")
        for folder in folders:
            storage.sweep(folder)

    @property
    def raw(self) -> Path:
        """What the user put there, and downloads."""
        return self.root / "raw"

    @property
    def cache(self) -> Path:
        """What can be made again."""
        return self.root / "cache"

    @property
    def results(self) -> Path:
        """The records, in a folder for each evaluation."""
        return self.root / "results"

    def records(self) -> list[Path]:
        """Return every record there is. Companions that other systems leave begin with a dot and are none."""
        return sorted(path for path in self.results.glob("*/*.json") if not path.name.startswith("."))

    def record(self, config: Config) -> Path:
        """Return the place of the record of a run."""
        return self.results / config.evaluation / f"{config.id}.json"

    @property
    def overwrite(self) -> Path:
        """Notes of commands with --overwrite, see `nlproar.run.overwrite`."""
        return self.root / "overwrite"

    def checkpoint(self, config: Config) -> Path:
        """Return the folder of the trained model of a run."""
        return self.root / "checkpoints" / config.id

    def training_state(self, config: Config) -> Path:
        """Return the place of the state of a training that is under way, beside its weights to come."""
        return self.checkpoint(config) / "training.npz"

    def importance(self, measure: str, digest: str, split: str) -> Path:
        """Return the place of the importance of every token of a split; `digest` is that of its key."""
        return self.cache / "importance" / f"{measure}-{digest[:16]}-{split}.npz"

    def importance_table(self, config: Config) -> Path:
        """Return the place of the table of the importance by which a run masks."""
        return self.results / "importance_measure" / f"{config.id}.csv.gz"

    def masks(self, name: str) -> Path:
        """Return the place of masks, named by the run that is trained or tested on them."""
        return self.cache / "masks" / f"{name}.npz"

    def observations(self, config: Config) -> Path:
        """Return the place of the values of single observations that a run has found."""
        return self.cache / "observations" / f"{config.id}.npz"

    def limit(self, digest: str) -> Path:
        """Return the place of a limit of normalised erasure, which all measures share; `digest` is that of its key."""
        return self.cache / "limits" / f"{digest[:16]}.npz"

    def predictions(self, run: str) -> Path:
        """Return the place of the logits of a run, by its id."""
        return self.cache / "predictions" / f"{run}.npz"

    def tensorboard(self, config: Config) -> Path:
        """Return the folder of the curves of a training."""
        return self.root / "tensorboard" / config.id

    @property
    def logs(self) -> Path:
        """What the processes of a study say."""
        return self.root / "logs"

    @property
    def failure_folder(self) -> Path:
        """Notes of runs that failed."""
        return self.logs / "failed"

    def failure(self, config: Config) -> Path:
        """Return the place of the reason why a run could not be done, while it is not."""
        return self.failure_folder / f"{config.id}.txt"

    def log(self, config: Config) -> Path:
        """Return the log of the process of a chain, whose last run is `config`."""
        return self.logs / f"{config.id}.log"

    def convergence(self, name: str) -> Path:
        """Return the place of the error of integrated gradient by its number of points, on the model of a run."""
        return self.cache / "convergence" / f"{name}.npz"

    @property
    def tables(self) -> Path:
        """Tables of the report."""
        return self.root / "tables"

    @property
    def plots(self) -> Path:
        """Figures of the report."""
        return self.root / "plots"

    @property
    def report(self) -> Path:
        """The page of the report."""
        return self.root / "report.html"
